package ingest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"weir/schema"
)

// one makes a message of one record, of which no compression takes anything away.
func one(topic, source string, at int64, size int) Message {
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(at)}).Read(noise)
	var e schema.Encoder
	e.Reset(source, schema.Incarnation{}, nil)
	e.Append(&schema.Record{Offset: at, Body: fmt.Sprint(at), Attrs: []schema.Attr{schema.String("noise", string(noise))}})
	return Message{Topic: topic, Source: source, Begin: schema.Position{Offset: at}, End: schema.Position{Offset: at + 1}, Count: 1, Value: e.Bytes()}
}

// TestWatch begins before the end, goes on live, and passes over what is too much.
func TestWatch(t *testing.T) {
	_, k := testKafka(t, 1)
	watch(t, k, schema.TopicLogs)
}

// watch wants an empty topic of one partition.
func watch(t *testing.T, k *Kafka, topic string) {
	t.Helper()
	p, err := NewProducer(k, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(p.Run)()
	next := int64(0)
	send := func(n, size int) {
		t.Helper()
		for range n {
			if err := p.Send(t.Context(), one(topic, "s", next, size)); err != nil {
				t.Fatal(err)
			}
			next++
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	send(20, 0)
	ends, err := k.TopicOffsets(t.Context(), topic, "weir.none")
	tp := TopicPartition{topic, 0}
	if err != nil || len(ends) != 1 || ends[tp] != [2]int64{0, 20} {
		t.Fatalf("%v: %v", err, ends)
	}
	if at, err := k.GroupOffsets(t.Context(), "nobody", ends); err != nil || len(at) != 0 {
		t.Errorf("%v: %v", err, at)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	skipped := int64(0)
	err = k.Watch(ctx, topic, Looking{Last: 5, Most: 4}, func(b *schema.Batch) {
		got = append(got, string([]byte(b.Records[0].Body)))
		switch len(got) {
		case 5: // all that was there
			send(1, 0)
		case 6: // more than one fetch brings
			send(30, 100<<10)
		}
		if skipped > 0 {
			cancel()
		}
	}, func(n int64) { skipped += n; send(1, 0) })
	if err == nil || ctx.Err() == nil {
		t.Errorf("ended with %v", err)
	}
	if len(got) < 6 || fmt.Sprint(got[:6]) != "[15 16 17 18 19 20]" {
		t.Errorf("began with %v", got[:min(len(got), 6)])
	}
	if want := fmt.Sprint(next - 1); skipped == 0 || got[len(got)-1] != want || int64(len(got))+skipped != next-15 {
		t.Errorf("%d passed over, %d seen, the last %s, want %s", skipped, len(got), got[len(got)-1], want)
	}
}

// TestWatchPace reads no faster than it is told to.
func TestWatchPace(t *testing.T) {
	_, k := testKafka(t, 2)
	p, err := NewProducer(k, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(p.Run)()
	send := func(at int64) {
		if err := p.Send(t.Context(), one(schema.TopicLogs, "s", at, 100<<10)); err != nil {
			t.Fatal(err)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	send(0)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var first time.Time
	_ = k.Watch(ctx, schema.TopicLogs, Looking{Last: 1, Most: 1000, BytesPerSecond: 400 << 10}, func(*schema.Batch) {
		if first.IsZero() {
			first = time.Now()
			send(1)
			return
		}
		// 100 KiB at half of 400 KiB a second, since there are two partitions.
		if took := time.Since(first); took < 450*time.Millisecond {
			t.Errorf("the second came after %v", took)
		}
		cancel()
	}, func(int64) {})
	if ctx.Err() != context.Canceled {
		t.Error("the second did not come")
	}
}

// TestCoordinatorMoves: where the group's coordinator is not there yet, its offsets are asked for again.
func TestCoordinatorMoves(t *testing.T) {
	cluster, k := testKafka(t, 1)
	refuse := []kafka.Error{kafka.NotCoordinatorForGroup, kafka.GroupCoordinatorNotAvailable, kafka.GroupLoadInProgress}
	cluster.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if len(refuse) == 0 {
			return nil, nil, false
		}
		res := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		res.ErrorCode, refuse = int16(refuse[0]), refuse[1:]
		return res, nil, true
	})
	at, err := k.GroupOffsets(t.Context(), "nobody", map[TopicPartition][2]int64{{schema.TopicLogs, 0}: {}})
	if err != nil || len(at) != 0 || len(refuse) != 0 {
		t.Errorf("%v: %v, and %v is not asked after", err, at, refuse)
	}
}
