package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weir/archiver/read"
	"weir/ingest"
	"weir/schema"
)

// taker takes what is replayed, until it fails.
type taker struct {
	counted
	left  int
	sizes []int
	times []time.Duration
	begin time.Time
}

func (k *taker) send(_ context.Context, topic string, batches []*schema.Batch) error {
	n := 0
	for _, b := range batches {
		n += len(b.Records)
	}
	if k.left -= n; k.left < 0 {
		return errors.New("it takes no more")
	}
	k.sizes, k.times = append(k.sizes, n), append(k.times, time.Since(k.begin))
	return nil
}

func TestReplayRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &schema.Batch{Source: "s", Topic: schema.TopicLogs}
		hits := make([]*read.Hit, 100)
		for i := range hits {
			hits[i] = &read.Hit{Batch: b, Record: schema.Record{Offset: int64(i)}}
		}
		to := &taker{left: 1000, begin: time.Now()}
		p := &replay{rate: 50, to: to, begun: time.Now()}
		for range 4 {
			if err := p.send(t.Context(), hits); err != nil {
				t.Fatal(err)
			}
		}
		if got := fmt.Sprint(to.times); got != "[0s 2s 4s 6s]" {
			t.Errorf("100 records each at %s, at 50 a second", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.send(ctx, hits); !errors.Is(err, context.Canceled) || p.sent != 400 {
			t.Errorf("cancelled: %v, %d sent", err, p.sent)
		}
	})
}

// TestReplayGoesOn is stopped by a failure and goes on from where it says: everything comes, and little of it twice.
func TestReplayGoesOn(t *testing.T) {
	t.Setenv("WEIR_CONFIG", "")
	root := "file://" + t.TempDir()
	ids := writeArchive(t, root)
	g := &globals{out: new(output), err: new(output)}
	cfg, err := g.load()
	if err != nil {
		t.Fatal(err)
	}
	st, err := openArchive(cfg.Archiver.Config, root)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	since, sent := time.Time{}, 0
	for try := range 20 {
		q, err := archiveQuery("", "", "container", since, time.Time{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		to := &taker{left: 70, begin: time.Now()}
		p := &replay{rate: 0, window: 20, reader: read.New(st), query: q, to: to, told: &reading{out: g.err, before: func() error { return nil }}}
		err = p.run(t.Context())
		for _, n := range to.sizes {
			sent += n
		}
		if err == nil {
			if sent < len(ids) || sent > len(ids)+3*try {
				t.Errorf("%d records sent in %d tries, %d there are", sent, try+1, len(ids))
			}
			return
		}
		if !strings.Contains(err.Error(), "it takes no more") || !p.upTo.After(since) {
			t.Fatalf("%v up to %s", err, p.upTo)
		}
		since = p.upTo
	}
	t.Error("it does not end")
}

// TestReplayOfForgotten has an archive with more than Kafka still has: to their own topics such records do not go.
func TestReplayOfForgotten(t *testing.T) {
	asked := 0
	k := &toKafka{first: func(_ context.Context, tp ingest.TopicPartition) (int64, int64, error) {
		asked++
		return int64(10 * tp.Partition), 100, nil
	}}
	batch := func(partition int, offset int64) *schema.Batch {
		return &schema.Batch{Topic: schema.TopicLogs, Partition: partition, KafkaOffset: offset}
	}
	if err := k.known(t.Context(), []*schema.Batch{batch(0, 0), batch(1, 10), batch(1, 99)}); err != nil || asked != 2 {
		t.Errorf("what Kafka has: %v, after asking %d times", err, asked)
	}
	if err := k.known(t.Context(), []*schema.Batch{batch(1, 10), batch(1, 9)}); err == nil || !strings.Contains(err.Error(), "offset 9 of weir.logs/1, and Kafka begins at 10") {
		t.Errorf("what Kafka has deleted: %v", err)
	}
	k.first = nil // to a topic that was chosen
	if err := k.known(t.Context(), []*schema.Batch{batch(1, 9)}); err != nil {
		t.Error(err)
	}
}
