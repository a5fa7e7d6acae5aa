package processor

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"weir/ingest"
	"weir/processor/rules"
	"weir/processor/signal"
	"weir/processor/window"
	"weir/schema"
)

// Of the second stage: how long a partition of the input that says nothing at all is waited for, and how far one that is behind the
// others holds windows open.
const (
	taskSilence = 30 * time.Second
	taskHold    = 5 * time.Minute
)

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
	dirty    bool // something came since the last commit
}

func (p *Processor) openTotals(ctx context.Context, tp ingest.TopicPartition) (*totals, error) {
	t := &totals{p: p, set: p.rules.Load(), name: strconv.Itoa(tp.Partition)}
	t.machine = window.New(t.set, window.Limits{Lateness: p.cfg.Lateness, MaxGroups: p.cfg.MaxGroups, MaxSet: p.cfg.MaxDistinct})
	var err error
	if t.j, err = p.openJournal(ctx, tp, (*totalsState)(t)); err != nil {
		return nil, err
	}
	t.machine.Restored()
	t.tasks.Restore(t.machine.Mark())
	return t, nil
}

// totalsState is totals as the journal sees it.
type totalsState totals

func (t *totalsState) changes(put func([]byte))         { t.machine.Changes(put) }
func (t *totalsState) snapshot(put func([]byte))        { t.machine.Snapshot(put) }
func (t *totalsState) reset()                           { t.machine.Reset() }
func (t *totalsState) restore(b []byte) ([]byte, error) { return t.machine.Restore(b) }

// Write adds deltas up.
func (t *totals) Write(_ context.Context, b *schema.Batch) error {
	if t.j.passed(b.KafkaOffset) {
		return nil
	}
	task, _, _ := cutLast(b.Source, '/')
	for i := range b.Records {
		mark, deltas, err := partial(&b.Records[i])
		if err != nil {
			return ingest.Poison(fmt.Errorf("record %s is no partial of the processor: %w", b.ID(&b.Records[i]), err))
		}
		for _, d := range deltas {
			t.machine.Add(d)
		}
		t.tasks.Observe(task, mark, t.p.now())
		t.dirty = t.dirty || len(deltas) > 0
	}
	return nil
}

// partial reads what the first stage sent.
func partial(r *schema.Record) (mark int64, deltas []*window.Delta, err error) {
	if _, cut := r.Attr(schema.AttrTruncated); cut || r.EventName != schema.EventPartial || len(r.Body) < 2 || r.Body[0] != partialVersion {
		return 0, nil, errDamaged
	}
	body := []byte(r.Body[1:])
	mark, n := binary.Varint(body)
	if n <= 0 {
		return 0, nil, errDamaged
	}
	err = window.Deltas(body[n:], func(d *window.Delta) { deltas = append(deltas, d) })
	return mark, deltas, err
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
	signals := t.machine.Advance(mark)
	if len(signals) == 0 {
		return
	}
	records := make([]schema.Record, len(signals))
	for i := range signals {
		records[i] = signals[i].Record()
		t.p.m.signals.WithLabelValues(signals[i].Kind).Inc()
		if s := &signals[i]; s.Revision == 0 && s.State != signal.Resolved {
			t.p.m.signalSeconds.Observe(now.Sub(time.Unix(0, s.End)).Seconds())
		}
	}
	t.j.emit(t.j.outlet(schema.TopicSignals, "weir/signals/"+t.j.tp.String(), false, 0), records...)
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
	t.p.m.watermark.WithLabelValues(t.name).Set(float64(t.machine.Mark()) / 1e9)
	return nil
}

// Close drops what is not committed.
func (t *totals) Close() error {
	t.p.m.groups.DeleteLabelValues(t.name)
	t.p.m.watermark.DeleteLabelValues(t.name)
	return nil
}
