package processor

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"weir/ingest"
	"weir/internal/unpack"
	"weir/processor/lives"
	"weir/processor/rules"
	"weir/processor/signal"
	"weir/processor/window"
	"weir/schema"
)

// Of the second stage: how long a partition of the input that says nothing at all is waited for, and how far one that is behind the
// others holds windows open. After an outage partitions catch up at different speeds, and what the slowest has is not to be late.
const (
	taskSilence = 30 * time.Second
	taskHold    = time.Hour
)

// entryTask is how far a partition of the input was. It is kept so that after a start all are waited for, not only those that are heard first.
const entryTask = 'K'

// partialVersion is the first byte of a partial's body.
const partialVersion = 1

// totals is the second stage's work on one partition of weir.partials.
type totals struct {
	p        *Processor
	j        *journal
	set      *rules.Set
	machine  *window.Machine
	tasks    window.Watermark // by partition of the input
	name     string
	caughtUp bool
	dirty    bool           // something came since the last commit
	tracker  *lives.Tracker // nil: none
	lives    *keyed         // its state
	found    []signal.Signal
}

func (p *Processor) openTotals(ctx context.Context, tp ingest.TopicPartition) (*totals, error) {
	t := &totals{p: p, set: p.rules.Load(), name: strconv.Itoa(tp.Partition)}
	t.machine = window.New(t.set, window.Limits{Lateness: p.cfg.Lateness, MaxGroups: p.cfg.MaxGroups, MaxSet: p.cfg.MaxDistinct})
	var err error
	if p.cfg.Lives.Enabled {
		if t.tracker, err = lives.New(p.cfg.Lives.Config); err != nil {
			return nil, err
		}
		t.lives = keyedLives(t.tracker)
	}
	if t.j, err = p.openJournal(ctx, tp, (*totalsState)(t)); err != nil {
		return nil, err
	}
	t.machine.Restored()
	if t.lives != nil {
		if err := t.lives.finish(); err != nil {
			return nil, err
		}
	}
	t.tasks.Restore(t.machine.Mark())
	return t, nil
}

// totalsState is totals as the journal sees it.
type totalsState totals

func (t *totalsState) putTasks(put func([]byte)) {
	t.tasks.Each(func(task string, at int64) {
		put(binary.AppendVarint(appendText([]byte{entryTask}, task), at))
	})
}

func (t *totalsState) changes(put func([]byte)) {
	t.putTasks(put)
	t.machine.Changes(put)
	if t.lives != nil {
		t.lives.changes(put)
	}
}

func (t *totalsState) snapshot(put func([]byte)) {
	t.putTasks(put)
	t.machine.Snapshot(put)
	if t.lives != nil {
		t.lives.snapshot(put)
	}
}

func (t *totalsState) reset() {
	t.machine.Reset()
	if t.lives != nil {
		t.lives.reset()
	}
}

func (t *totalsState) restore(b []byte) error {
	switch b[0] {
	case entryTask:
		r := unpack.Reader{B: b[1:]}
		task, at := r.String(), r.Varint()
		if err := ended(&r); err != nil {
			return err
		}
		t.tasks.Observe(task, at, t.p.now())
		return nil
	case entryLife:
	default:
		return t.machine.Restore(b)
	}
	if t.lives == nil { // they were switched off
		return new(keyed).read(b)
	}
	return t.lives.read(b)
}

// Write adds deltas up.
func (t *totals) Write(_ context.Context, b *schema.Batch) error {
	if t.j.passed(b.KafkaOffset) {
		return nil
	}
	task, _, _ := cutLast(b.Source, '/')
	for i := range b.Records {
		mark, deltas, batches, err := partial(&b.Records[i])
		if err != nil {
			return ingest.Poison(fmt.Errorf("record %s is no partial of the processor: %w", b.ID(&b.Records[i]), err))
		}
		for _, d := range deltas {
			t.machine.Add(d)
		}
		if t.tracker != nil {
			_ = forwarded(batches, func(b *schema.Batch) error { // it was read a line above
				t.found = t.tracker.Write(b, t.found)
				return nil
			})
		}
		t.tasks.Observe(task, mark, t.p.now())
		t.dirty = t.dirty || len(deltas) > 0 || len(batches) > 0
	}
	return nil
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// Tick closes windows, and asks for a commit where there is something to say.
func (t *totals) Tick(_ context.Context, caughtUp bool) (bool, error) {
	t.caughtUp = caughtUp
	t.advance()
	return len(t.j.outbox) > 0, nil
}

func (t *totals) advance() {
	if set := t.p.rules.Load(); set != t.set {
		t.set = set
		t.machine.SetRules(set)
	}
	now := t.p.now()
	mark := t.tasks.Advance(now, t.caughtUp, taskSilence, taskHold)
	t.p.m.watermark.WithLabelValues(t.name).Set(float64(mark) / 1e9)
	signals := t.machine.Advance(mark)
	if t.tracker != nil {
		signals = t.tracker.Advance(mark, signals)
	}
	t.j.tell(append(t.found, signals...))
	t.found = nil
}

// Commit makes totals durable and sends the signals.
func (t *totals) Commit(ctx context.Context, cp ingest.Checkpoint) error {
	t.advance()
	if !t.dirty && !t.machine.Changed() && len(t.j.outbox) == 0 {
		return nil // marks alone: they are told again
	}
	if err := t.j.commit(ctx, cp.NextOffset); err != nil {
		return err
	}
	t.dirty = false
	s := t.machine.TakeStats()
	t.p.m.late.Add(float64(s.Late))
	t.p.m.tooLate.Add(float64(s.TooLate))
	for rule, n := range s.Other {
		t.p.m.other.WithLabelValues(rule).Add(float64(n))
	}
	t.p.m.groups.WithLabelValues(t.name).Set(float64(t.machine.Groups()))
	return nil
}

// Close drops what is not committed.
func (t *totals) Close() error {
	t.p.m.groups.DeleteLabelValues(t.name)
	t.p.m.watermark.DeleteLabelValues(t.name)
	return nil
}
