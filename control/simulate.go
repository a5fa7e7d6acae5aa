package control

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"time"

	"weir/schema"
)

// Simulation takes recorded events and signals through policies, by the clock of the records, and tells what would have been decided. It supposes that
// every action is carried out at once and that people close no breaker.
type Simulation struct {
	d    *decider
	now  time.Time
	emit func(*Decision)
}

// Simulate prepares one; the policies must be complete. emit gets every decision.
func Simulate(p *Policies, emit func(*Decision)) *Simulation {
	return &Simulation{d: newDecider(p, nil, Trusted{}, newState(), newFleet(), func(string) {}), emit: emit}
}

// Input is what a record means to a simulation.
type Input struct {
	input
	at int64
}

// Inputs finds what of a batch matters and is within a time, in memory of its own.
func Inputs(b *schema.Batch, from, to time.Time) (all []Input) {
	for i := range b.Records {
		in, err := read(b, &b.Records[i])
		if err != nil || in.trigger == nil && in.change == nil {
			continue
		}
		at := b.Records[i].Time
		if in.trigger != nil {
			at = in.trigger.At
		}
		if at >= from.UnixNano() && at < to.UnixNano() {
			all = append(all, Input{in, at})
		}
	}
	return all
}

// SortInputs puts inputs of several sources into the order of time.
func SortInputs(all []Input) {
	slices.SortStableFunc(all, func(a, b Input) int { return cmp.Compare(a.at, b.at) })
}

// Take works on the next input, after what was due before it.
func (s *Simulation) Take(in *Input) error {
	if s.now.IsZero() {
		s.now = time.Unix(0, in.at)
	}
	if err := s.Until(time.Unix(0, in.at)); err != nil {
		return err
	}
	s.d.take(s.now, &in.input)
	return s.tell()
}

// Until lets time pass.
func (s *Simulation) Until(t time.Time) error {
	for {
		due := int64(math.MaxInt64)
		for _, e := range s.d.state.Entries {
			if e.Waiting != nil {
				due = min(due, e.Due)
			}
		}
		if due > t.UnixNano() {
			break
		}
		if next := time.Unix(0, due); next.After(s.now) {
			s.now = next
		}
		s.d.wake(s.now)
		if err := s.tell(); err != nil {
			return err
		}
	}
	if t.After(s.now) {
		s.now = t
	}
	s.d.state.prune(s.now, s.d.byName)
	return nil
}

func (s *Simulation) tell() error {
	for _, sealed := range s.d.state.Outbox {
		d := new(Decision)
		if err := json.Unmarshal([]byte(sealed.Payload), d); err != nil {
			return err
		}
		if d.Order != nil {
			o := Outcome{ID: d.Order.ID, Verdict: OutcomeDone}
			s.d.outcome(&o, Sealed{})
		}
		s.emit(d)
	}
	s.d.state.Outbox = nil
	return nil
}
