package processor

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/schema"
)

var errInjected = errors.New("injected")

// double stands for Kafka: topics that keep messages, and changelogs.
type double struct {
	mu     sync.Mutex
	parts  int
	topics map[ingest.TopicPartition][]ingest.Message
	logs   map[ingest.TopicPartition]*doubleLog
	fail   func() bool // asked before and after every append
	offset int64
}

func newDouble(parts int) *double {
	return &double{parts: parts, topics: map[ingest.TopicPartition][]ingest.Message{}, logs: map[ingest.TopicPartition]*doubleLog{}, fail: func() bool { return false }}
}

func (d *double) Send(_ context.Context, m ingest.Message) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail() {
		return errInjected
	}
	tp := ingest.TopicPartition{Topic: m.Topic, Partition: int(hash(m.Source) % uint64(d.parts))}
	if m.Pinned {
		tp.Partition = m.Partition
	}
	m.Value = bytes.Clone(m.Value)
	d.topics[tp] = append(d.topics[tp], m)
	if d.fail() {
		return errInjected
	}
	return nil
}

func (d *double) Flush(context.Context) error { return nil }

func (d *double) Partitions(context.Context, string) (int, error) { return d.parts, nil }

type commit struct {
	snapshot bool
	chunks   [][]byte
}

type doubleLog struct {
	commits []commit
	owner   int
}

type doubleHandle struct {
	d     *double
	log   *doubleLog
	owner int
}

func (d *double) open(_ context.Context, tp ingest.TopicPartition, apply func(bool, [][]byte) error) (changelog, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail() {
		return nil, errInjected
	}
	l := d.logs[tp]
	if l == nil {
		l = &doubleLog{}
		d.logs[tp] = l
	}
	l.owner++
	for _, c := range l.commits {
		if err := apply(c.snapshot, c.chunks); err != nil {
			return nil, err
		}
	}
	return &doubleHandle{d, l, l.owner}, nil
}

func (d *double) end(_ context.Context, tp ingest.TopicPartition) (int64, error) { return 1 << 60, nil }

func (h *doubleHandle) Commit(_ context.Context, snapshot bool, chunks ...[]byte) error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.owner != h.log.owner {
		return ingest.ErrFenced
	}
	if h.d.fail() {
		return errInjected
	}
	c := commit{snapshot: snapshot}
	for _, b := range chunks {
		c.chunks = append(c.chunks, bytes.Clone(b))
	}
	if snapshot {
		h.log.commits = nil
	}
	h.log.commits = append(h.log.commits, c)
	if h.d.fail() {
		return errInjected
	}
	return nil
}

func (h *doubleHandle) SnapshotDue() bool { return len(h.log.commits) > 7 }

func (d *double) processor(t testing.TB, cfg Config) *Processor {
	t.Helper()
	p, err := newProcessor(cfg, d, d, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// records gives every record of a topic that a consumer would be given.
func (d *double) records(t testing.TB, topic string, f func(*schema.Batch, *schema.Record)) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range d.parts {
		seen := map[string]*ingest.Seen{}
		for _, m := range d.topics[ingest.TopicPartition{Topic: topic, Partition: p}] {
			b, info := decoded(t, m)
			s := seen[info.Source]
			if s == nil {
				s = &ingest.Seen{}
				seen[info.Source] = s
			}
			v := s.Admit(&info)
			if v.Gap != (ingest.Verdict{}.Gap) || v.BelowMark {
				t.Errorf("%s jumps at %s", info.Source, info.Begin)
			}
			for i := range b.Records {
				if v.Admits(b.Records[i].Offset) {
					f(&b, &b.Records[i])
				}
			}
		}
	}
}

func decoded(t testing.TB, m ingest.Message) (schema.Batch, schema.Info) {
	t.Helper()
	info := schema.Info{Source: m.Source, Begin: m.Begin, End: m.End, Prev: m.Prev, PrevKnown: m.PrevKnown, Count: m.Count}
	var b schema.Batch
	if err := new(schema.Decoder).Decode(m.Value, &info, &b); err != nil {
		t.Fatal(err)
	}
	return b, info
}

// next is a Kafka offset that was not used yet.
func (d *double) next() int64 {
	d.offset++
	return d.offset
}
