// Package sinktest is the conformance suite that every ingest.Sink runs: it plays the consumer loop's part, crashes at
// every point between writes and commits, and counts what the destination holds.
package sinktest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"weir/ingest"
	"weir/schema"
)

// Harness is one destination under test.
type Harness struct {
	// New makes a sink for the destination, as a new process would. The suite calls it many times.
	New func(t *testing.T) ingest.Sink
	// OwnCommit says that the sink keeps checkpoints with its own commit.
	OwnCommit bool
	// Read counts the records that the destination holds, by id. Nil for a sink that keeps none.
	Read func(t *testing.T) map[string]int
	// Total counts what the destination holds where it keeps no ids. Nil when Read is set.
	Total func(t *testing.T) int
	// Break makes the destination fail or hang, or mends it. Nil where nothing can fail.
	Break func(broken bool)
}

var tp = ingest.TopicPartition{Topic: schema.TopicLogs, Partition: 2}

// feed makes batches as the consumer loop gives them: in memory that is used again.
type feed struct {
	next    int64 // Kafka offset
	offset  int64
	records []schema.Record
	garbage [][]byte
	all     []string // ids
}

var source = "docker/n1/aaaa"

func (f *feed) batch(n int) *schema.Batch {
	own := func(s string) string { // a string whose memory is overwritten after the call
		b := []byte(s)
		f.garbage = append(f.garbage, b)
		return lent(b)
	}
	b := &schema.Batch{Topic: tp.Topic, Partition: tp.Partition, KafkaOffset: f.next, Source: own(source), From: f.offset,
		Begin:    schema.Position{Incarnation: schema.Incarnation{Start: 1764054000e9, Print: 7}, Offset: f.offset},
		Resource: []schema.Attr{schema.String(schema.AttrContainerID, own("aaaa")), schema.String(schema.AttrContainerName, own("web")), schema.String(schema.AttrApp, own("shop"))}}
	f.records = f.records[:0]
	for range n {
		r := schema.Record{Offset: f.offset, Time: 1764054000e9 + f.offset*1e9, Observed: 1764054000e9, Body: own(fmt.Sprintf("line at %d, \"quoted\"\n\t\xff", f.offset)), SeverityText: "INFO", Severity: 9,
			Attrs: []schema.Attr{schema.String(schema.AttrStream, own("stdout"))}}
		f.records = append(f.records, r)
		f.offset += 100
	}
	b.Records = f.records
	b.End = schema.Position{Incarnation: b.Begin.Incarnation, Offset: f.offset}
	f.next++
	for i := range b.Records {
		f.all = append(f.all, string(bytes.Clone([]byte(b.ID(&b.Records[i])))))
	}
	return b
}

// reuse overwrites what was lent, as the next fetch does.
func (f *feed) reuse() {
	for _, b := range f.garbage {
		for i := range b {
			b[i] = '#'
		}
	}
	f.garbage = nil
}

type run struct {
	t    *testing.T
	h    Harness
	sink ingest.Sink
	part ingest.PartitionSink
	cp   *ingest.Checkpoint
}

func (r *run) open() {
	r.t.Helper()
	r.sink = newSink(r.t, r.h)
	var err error
	if r.part, r.cp, err = r.sink.Open(r.t.Context(), tp); err != nil {
		r.t.Fatalf("open: %v", err)
	}
	if !r.h.OwnCommit && r.cp != nil {
		r.t.Fatalf("a sink without its own commit returned a checkpoint: %+v", r.cp)
	}
}

func (r *run) close() {
	r.t.Helper()
	if err := r.part.Close(); err != nil {
		r.t.Errorf("close: %v", err)
	}
}

// newSink makes a sink and closes its connections at the end, also those of one that is abandoned as by a crash.
func newSink(t *testing.T, h Harness) ingest.Sink {
	t.Helper()
	sink := h.New(t)
	if c, ok := sink.(interface{ Close() error }); ok {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Errorf("close the sink: %v", err)
			}
		})
	}
	return sink
}

// expect compares what the destination holds with what was committed.
func (r *run) expect(ids []string) {
	r.t.Helper()
	if r.h.Total != nil {
		if got := r.h.Total(r.t); got != len(ids) {
			r.t.Errorf("the destination holds %d records, want %d", got, len(ids))
		}
	}
	if r.h.Read == nil {
		return
	}
	got := r.h.Read(r.t)
	for _, id := range ids {
		if got[id] != 1 {
			r.t.Errorf("record %s is there %d times", id, got[id])
		}
		delete(got, id)
	}
	if len(got) > 0 {
		r.t.Errorf("%d records are there that were never committed", len(got))
	}
}

// Run runs the suite; each test wants a destination of its own.
func Run(t *testing.T, harness func(t *testing.T) Harness) {
	t.Run("nothing", func(t *testing.T) {
		r := &run{t: t, h: harness(t)}
		r.open()
		if err := r.part.Commit(t.Context(), ingest.Checkpoint{NextOffset: 3}); err != nil {
			t.Errorf("commit of nothing: %v", err)
		}
		r.close()
		r.open()
		r.close()
		r.expect(nil)
	})
	t.Run("crashes", func(t *testing.T) { crashes(t, harness(t)) })
	t.Run("failures", func(t *testing.T) {
		h := harness(t)
		if h.Break == nil {
			t.Skip("nothing of this destination can fail")
		}
		failures(t, h)
	})
	t.Run("partitions", func(t *testing.T) { partitions(t, harness(t)) })
}

// crashes writes and commits by turns and abandons the sink at random, without any Close. The records of a crashed run
// are given again, as Kafka does, from the last commit.
func crashes(t *testing.T, h Harness) {
	rnd := rand.New(rand.NewPCG(1, 2))
	r := &run{t: t, h: h}
	r.open()
	committed := feed{}
	var saved ingest.Checkpoint
	for round := range 12 {
		f := feed{next: committed.next, offset: committed.offset}
		for range 1 + rnd.IntN(4) {
			if err := r.part.Write(t.Context(), f.batch(1+rnd.IntN(40))); err != nil {
				t.Fatalf("write: %v", err)
			}
			f.reuse()
		}
		if round == 0 || rnd.IntN(3) > 0 {
			cp := ingest.Checkpoint{NextOffset: f.next}
			if h.OwnCommit {
				cp.Seen = fmt.Appendf(nil, "state of round %d", round)
			}
			if err := r.part.Commit(t.Context(), cp); err != nil {
				t.Fatalf("commit: %v", err)
			}
			committed.all = append(committed.all, f.all...)
			committed.next, committed.offset, saved = f.next, f.offset, cp
		}
		if rnd.IntN(2) == 0 {
			if rnd.IntN(2) == 0 {
				r.close()
			}
			r.open()
			if h.OwnCommit && (r.cp == nil || r.cp.NextOffset != saved.NextOffset || !bytes.Equal(r.cp.Seen, saved.Seen)) {
				t.Fatalf("the checkpoint is %+v, want %+v", r.cp, saved)
			}
		} else if committed.next != f.next { // went on without a commit: the consumer would not give these again
			committed.all = append(committed.all, f.all...)
			committed.next, committed.offset = f.next, f.offset
			saved = ingest.Checkpoint{NextOffset: f.next}
			if h.OwnCommit {
				saved.Seen = []byte("late")
			}
			if err := r.part.Commit(t.Context(), saved); err != nil {
				t.Fatalf("commit: %v", err)
			}
		}
	}
	r.close()
	r.expect(committed.all)
}

// failures breaks the destination: Write and Commit must end soon after their context, and once it is mended the same
// records must get in, once.
func failures(t *testing.T, h Harness) {
	r := &run{t: t, h: h}
	r.open()
	h.Break(true)
	f := feed{}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := r.part.Write(ctx, f.batch(20))
	if err == nil {
		err = r.part.Commit(ctx, ingest.Checkpoint{NextOffset: f.next})
	}
	if err == nil {
		t.Error("a commit to a broken destination succeeded")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s to give up after the context ended", took)
	}
	f.reuse()
	h.Break(false)
	_ = r.part.Close()
	r.open()
	again := feed{}
	if err := r.part.Write(t.Context(), again.batch(20)); err != nil {
		t.Fatal(err)
	}
	if err := r.part.Commit(t.Context(), ingest.Checkpoint{NextOffset: again.next}); err != nil {
		t.Fatal(err)
	}
	r.close()
	r.expect(again.all)
}

// partitions writes two partitions at once, for the race detector.
func partitions(t *testing.T, h Harness) {
	sink := newSink(t, h)
	done := make(chan error, 2)
	for p := range 2 {
		go func() {
			done <- func() error {
				part, _, err := sink.Open(t.Context(), ingest.TopicPartition{Topic: tp.Topic, Partition: 10 + p})
				if err != nil {
					return err
				}
				f := feed{offset: int64(p) * 1e6}
				for range 5 {
					b := f.batch(10)
					b.Partition = 10 + p
					if err := part.Write(t.Context(), b); err != nil {
						return err
					}
				}
				if err := part.Commit(t.Context(), ingest.Checkpoint{NextOffset: f.next}); err != nil {
					return err
				}
				return part.Close()
			}()
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
