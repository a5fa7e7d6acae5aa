package processor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"weir/ingest"
	"weir/internal/unpack"
	"weir/processor/signal"
	"weir/schema"
)

// changelog is what the processor uses of ingest.Changelog.
type changelog interface {
	Commit(ctx context.Context, snapshot bool, chunks ...[]byte) error
	SnapshotDue() bool
}

// state is what a partition remembers, besides where it is and what it sent.
type state interface {
	// changes gives the entries of what changed since the last time, snapshot those of all.
	changes(put func([]byte))
	snapshot(put func([]byte))
	// reset forgets all; restore takes one entry, which it must not keep.
	reset()
	restore(entry []byte) error
}

// journal makes a partition's state, its place in the input, and what it sends one commit on the changelog.
//
// What is to be sent gets its positions first and is written to the changelog with the state it follows from; only then is it sent. After a
// crash before the changelog has the commit, nothing was sent; after one later, the same messages are sent again, with the
// same positions, and consumers drop them as repeats. So it does not matter what the clock said or where a batch was cut: nothing is sent
// twice under two names. Input that a commit on the changelog has counted is passed over when it is given again.
type journal struct {
	p     *Processor
	tp    ingest.TopicPartition
	log   changelog
	state state

	next    int64 // Kafka offset behind the input that the state has
	read    int64 // of the newest message that was given
	outlets map[string]*outlet
	outbox  []ingest.Message // to be sent with the next commit
	kept    [][]byte         // the outbox of the last commit, as it was restored
}

// outlet is one source of what the processor writes: a sequence of its own, from the first record to the last.
type outlet struct {
	topic, source string
	pinned        bool
	partition     int
	inc           schema.Incarnation // when the sequence began
	next          int64
}

// Entries of the changelog that are the journal's own.
const (
	entryPlace  = 'P'
	entryOutbox = 'O'
)

// outboxBytes is how large a message becomes at most; no topic that takes the agent's batches refuses it.
const outboxBytes = 256 << 10

// openJournal restores a partition and sends what its last commit had to send.
func (p *Processor) openJournal(ctx context.Context, tp ingest.TopicPartition, s state) (*journal, error) {
	j := &journal{p: p, tp: tp, state: s, outlets: map[string]*outlet{}, read: -1}
	began := time.Now()
	var err error
	if j.log, err = p.store.open(ctx, ingest.TopicPartition{Topic: schema.ChangelogPrefix + tp.Topic, Partition: tp.Partition}, j.apply); err != nil {
		return nil, err
	}
	end, err := p.store.end(ctx, tp)
	if err != nil {
		return nil, err
	}
	if j.next > end {
		p.log.Warn("the topic ends before what was counted: it was made anew, and is read from its start", "topic", tp.Topic, "partition", tp.Partition, "counted", j.next, "end", end)
		j.next = 0
	}
	for _, b := range j.kept {
		m, err := readMessage(b)
		if err != nil {
			return nil, err
		}
		if err := p.out.Send(ctx, m); err != nil {
			return nil, err
		}
	}
	if len(j.kept) > 0 {
		if err := p.out.Flush(ctx); err != nil {
			return nil, err
		}
	}
	j.kept = nil
	p.m.restore.Observe(time.Since(began).Seconds())
	return j, nil
}

// passed says that a message is counted already.
func (j *journal) passed(offset int64) bool {
	if offset <= j.read { // the topic was made anew while it was read
		j.next = 0
	}
	j.read = offset
	return offset < j.next
}

func (j *journal) apply(snapshot bool, chunks [][]byte) error {
	if snapshot {
		j.state.reset()
		clear(j.outlets)
	}
	j.kept = nil
	return ingest.Entries(chunks, func(b []byte) error {
		if len(b) == 0 {
			return errDamaged
		}
		switch b[0] {
		case entryPlace:
			return j.restorePlace(b[1:])
		case entryOutbox:
			j.kept = append(j.kept, append([]byte(nil), b[1:]...))
			return nil
		default:
			return j.state.restore(b)
		}
	})
}

var errDamaged = errors.New("damaged state")

func (j *journal) appendPlace(b []byte) []byte {
	b = binary.AppendVarint(append(b, entryPlace), j.next)
	b = binary.AppendUvarint(b, uint64(len(j.outlets)))
	for name, o := range j.outlets {
		b = appendText(b, name)
		b = binary.AppendVarint(b, o.inc.Start)
		b = binary.AppendVarint(b, o.next)
	}
	return b
}

func (j *journal) restorePlace(b []byte) error {
	r := unpack.Reader{B: b}
	j.next = r.Varint()
	for range r.Uvarint() {
		name, start, next := r.String(), r.Varint(), r.Varint()
		if r.Bad {
			break
		}
		o := j.outlets[name]
		if o == nil {
			o = &outlet{}
			j.outlets[name] = o
		}
		o.inc, o.next = schema.Incarnation{Start: start}, next
	}
	return ended(&r)
}

// outlet finds or begins a sequence. A pinned one goes to the partition given.
func (j *journal) outlet(topic, source string, pinned bool, partition int) *outlet {
	o := j.outlets[source]
	if o == nil {
		o = &outlet{inc: schema.Incarnation{Start: j.p.now().UnixNano()}}
		j.outlets[source] = o
	}
	o.topic, o.source, o.pinned, o.partition = topic, source, pinned, partition
	return o
}

// emit gives records their positions and puts them into the outbox.
func (j *journal) emit(o *outlet, records ...schema.Record) {
	now := j.p.now().UnixNano()
	for len(records) > 0 {
		var e schema.Encoder
		e.Reset(o.source, o.inc, nil)
		first, n := o.next, 0
		for n < len(records) && (n == 0 || e.Len()+len(records[n].Body) < outboxBytes) {
			records[n].Offset, records[n].Observed = o.next, now
			e.Append(&records[n])
			o.next++
			n++
		}
		records = records[n:]
		at := func(offset int64) schema.Position { return schema.Position{Incarnation: o.inc, Offset: offset} }
		j.outbox = append(j.outbox, ingest.Message{Topic: o.topic, Source: o.source, Begin: at(first), End: at(o.next), Prev: at(first), PrevKnown: true, Count: n, Value: e.Take(), Pinned: o.pinned, Partition: o.partition})
	}
}

// tell puts signals into the outbox.
func (j *journal) tell(signals []signal.Signal) {
	if len(signals) == 0 {
		return
	}
	records := make([]schema.Record, len(signals))
	for i := range signals {
		s := &signals[i]
		records[i] = s.Record()
		j.p.m.signals.WithLabelValues(s.Kind).Inc()
		if s.Revision == 0 && s.State != signal.Resolved && !s.Late && (s.Kind == signal.Window || s.Kind == signal.Rule) {
			j.p.m.signalSeconds.Observe(j.p.now().Sub(time.Unix(0, s.End)).Seconds())
		}
	}
	j.emit(j.outlet(schema.TopicSignals, "weir/signals/"+j.tp.String(), false, 0), records...)
}

// commit makes state, place and outbox durable together, and sends the outbox.
func (j *journal) commit(ctx context.Context, next int64) error {
	j.next = max(j.next, next)
	var chunks ingest.Chunks
	chunks.Add(j.appendPlace(nil))
	for i := range j.outbox {
		chunks.Add(appendMessage([]byte{entryOutbox}, &j.outbox[i]))
	}
	j.state.changes(chunks.Add)
	if err := j.log.Commit(ctx, false, chunks.All()...); err != nil {
		return err
	}
	for i := range j.outbox {
		if err := j.p.out.Send(ctx, j.outbox[i]); err != nil {
			return err
		}
	}
	if len(j.outbox) > 0 {
		if err := j.p.out.Flush(ctx); err != nil {
			return err
		}
	}
	j.outbox = nil
	if !j.log.SnapshotDue() {
		return nil
	}
	began := time.Now()
	chunks.Add(j.appendPlace(nil))
	j.state.snapshot(chunks.Add)
	if err := j.log.Commit(ctx, true, chunks.All()...); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	j.p.m.snapshot.Observe(time.Since(began).Seconds())
	return nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendMessage(b []byte, m *ingest.Message) []byte {
	b = appendText(appendText(b, m.Topic), m.Source)
	b = binary.AppendVarint(b, m.Begin.Start)
	b = binary.AppendVarint(b, m.Begin.Offset)
	b = binary.AppendVarint(b, m.End.Offset)
	b = binary.AppendUvarint(b, uint64(m.Count))
	partition := int64(-1)
	if m.Pinned {
		partition = int64(m.Partition)
	}
	b = binary.AppendVarint(b, partition)
	return appendText(b, string(m.Value))
}

func readMessage(b []byte) (ingest.Message, error) {
	r := unpack.Reader{B: b}
	m := ingest.Message{Topic: r.String(), Source: r.String(), PrevKnown: true}
	inc := schema.Incarnation{Start: r.Varint()}
	m.Begin = schema.Position{Incarnation: inc, Offset: r.Varint()}
	m.End = schema.Position{Incarnation: inc, Offset: r.Varint()}
	m.Prev, m.Count = m.Begin, int(r.Uvarint())
	if partition := r.Varint(); partition >= 0 {
		m.Pinned, m.Partition = true, int(partition)
	}
	m.Value = []byte(r.String())
	return m, ended(&r)
}

// ended wants all to have been read, without a fault.
func ended(r *unpack.Reader) error {
	if !r.Whole() {
		return errDamaged
	}
	return nil
}
