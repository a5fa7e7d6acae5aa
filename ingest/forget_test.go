package ingest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"weir/schema"
)

// TestForgetsEndedSources has a source end. It is remembered as long as Kafka has any of it, also what came twice, and not longer; a source that has
// not ended is remembered for good. A file that comes back under the path of one that is forgotten is a new one.
func TestForgetsEndedSources(t *testing.T) {
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprintf("own=%v", own), func(t *testing.T) { t.Parallel(); forgets(t, own) })
	}
}

func forgets(t *testing.T, own bool) {
	cluster, k := testKafka(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := NewProducer(k, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(p.Run)()
	tp := TopicPartition{schema.TopicLogs, 0}
	st := &store{own: own, cps: map[TopicPartition]*Checkpoint{}, ids: map[string]int{}, die: func() bool { return false }}
	var c *Consumer
	start := func() (stop func()) {
		cfg := DefaultConsumerConfig("model", schema.TopicLogs)
		cfg.CommitInterval, cfg.OwnCommit = 50*time.Millisecond, own
		if c, err = NewConsumer(k, cfg, st, p, quiet(), prometheus.NewRegistry()); err != nil {
			t.Fatal(err)
		}
		c.forgetEvery = 0
		return running(c.Run)
	}
	// send gives a file's record at an offset, or its end, and waits until all that are new are in the sink.
	records, sent := 0, int64(0)
	send := func(source string, start, offset int64, event string, repeat bool) {
		t.Helper()
		inc := schema.Incarnation{Start: start, Print: 7}
		var e schema.Encoder
		e.Reset(source, inc, nil)
		e.Append(&schema.Record{Offset: offset, EventName: event, Body: "x"})
		m := Message{Topic: tp.Topic, Source: source, Begin: schema.Position{Incarnation: inc, Offset: offset}, End: schema.Position{Incarnation: inc, Offset: offset + 1}, Count: 1, Value: e.Bytes()}
		m.Prev, m.PrevKnown = m.Begin, event == ""
		if err := p.Send(ctx, m); err != nil {
			t.Fatal(err)
		}
		if sent++; !repeat {
			records++
		}
		for {
			st.mu.Lock()
			n, cp := len(st.ids), st.cps[tp]
			st.mu.Unlock()
			switch {
			case !own:
				_, next, err := c.state.load(ctx, tp)
				if err != nil {
					t.Fatal(err)
				}
				cp = &Checkpoint{NextOffset: next}
			case cp == nil:
				cp = &Checkpoint{}
			}
			if n == records && cp.NextOffset == sent {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%d records are in the sink, want %d; committed up to %d, want %d", n, records, cp.NextOffset, sent)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	remembered := func() string {
		t.Helper()
		st.mu.Lock()
		cp := st.cps[tp]
		st.mu.Unlock()
		var sources map[string]*Seen
		if own {
			sources, err = restore(cp.Seen)
		} else {
			sources, _, err = c.state.load(ctx, tp)
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := int(testutil.ToFloat64(c.m.known.WithLabelValues(tp.Topic, "0"))); n != len(sources) {
			t.Errorf("weir_ingest_sources is %d, of %d", n, len(sources))
		}
		return strings.Join(slices.Sorted(maps.Keys(sources)), " ")
	}
	want := func(sources string) {
		t.Helper()
		if got := remembered(); got != sources {
			t.Errorf("remembered are %q, want %q", got, sources)
		}
	}
	deleteTo := func(offset int64) {
		t.Helper()
		client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		req := kmsg.NewPtrDeleteRecordsRequest()
		topic := kmsg.NewDeleteRecordsRequestTopic()
		topic.Topic = tp.Topic
		part := kmsg.NewDeleteRecordsRequestTopicPartition()
		part.Offset = offset
		topic.Partitions = append(topic.Partitions, part)
		req.Topics = append(req.Topics, topic)
		if _, err := req.RequestWith(ctx, client); err != nil {
			t.Fatal(err)
		}
	}

	stop := start()
	send("ended", 1, 0, "", false)
	send("open", 1, 0, "", false)
	send("ended", 2, 1, schema.EventSourceClosed, false)
	send("open", 1, 1, "", false)
	want("ended open")
	deleteTo(2) // its end is still there
	send("ended", 1, 0, "", true)
	want("ended open")
	deleteTo(4) // the repeat, at offset 4, is still there
	send("open", 1, 2, "", false)
	want("ended open")
	deleteTo(5)
	send("open", 1, 3, "", false)
	want("open")
	stop()
	stop = start()
	defer func() { stop() }()
	send("open", 1, 2, "", true)
	want("open")
	send("ended", 9, 0, "", false)
	want("ended open")
	if n := testutil.ToFloat64(c.m.gaps.WithLabelValues(tp.Topic)); n != 0 {
		t.Errorf("%v gaps opened", n)
	}
}
