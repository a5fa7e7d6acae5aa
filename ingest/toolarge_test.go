package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"weir/schema"
)

// setTopic changes a topic's configuration.
func setTopic(t *testing.T, k *Kafka, topic, key, value string) {
	t.Helper()
	res, err := k.client.IncrementalAlterConfigs(t.Context(), &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: key, Value: value, ConfigOperation: kafka.ConfigOperationSet}}}}})
	if err == nil {
		err = res.Resources[0].Error
	}
	if err != nil {
		t.Fatalf("set %s of %s: %v", key, topic, err)
	}
}

func TestTooLarge(t *testing.T) {
	_, k := testKafka(t, 1)
	tooLargeFor(t, k, schema.TopicLogs)
}

// tooLargeFor sends what is larger than the topic takes, in every way there is, between batches that fit: all must arrive in
// order, once, without a gap, and only what is alone too large may be cut. The topic has one partition.
func tooLargeFor(t *testing.T, k *Kafka, topic string) {
	const limit = 4 << 10
	k.cfg.Compression = "none" // what counts is the size on the wire
	setTopic(t, k, topic, "max.message.bytes", fmt.Sprint(limit))
	p, err := NewProducer(k, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(p.Run)()

	long := strings.Repeat("ab\u00e9\u4e16", 3000) // 21,000 bytes
	label := []schema.Attr{schema.String(schema.AttrApp, "shop")}
	inc := schema.Incarnation{Start: 5, Print: 6}
	var want []schema.Record // in the order of sending
	var acked []int64
	prev := schema.Position{Incarnation: inc}
	send := func(resource []schema.Attr, records ...schema.Record) {
		t.Helper()
		var e schema.Encoder
		e.Reset("s", inc, resource)
		begin := prev.Offset + 10 // bytes before a record that hold none, as framing does
		end := begin
		for i := range records {
			records[i].Offset = end
			end += 100
			e.Append(&records[i])
		}
		want = append(want, records...)
		m := Message{Topic: topic, Source: "s", Begin: schema.Position{Incarnation: inc, Offset: begin}, End: schema.Position{Incarnation: inc, Offset: end}, Prev: prev, PrevKnown: true,
			Count: len(records), Value: e.Bytes(), Acked: func() { acked = append(acked, end) }}
		prev = m.End
		if err := p.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	small := func(n int) (r []schema.Record) {
		for i := range n {
			r = append(r, schema.Record{Body: fmt.Sprintf("%04d %s", i, strings.Repeat("x", 190)), Attrs: []schema.Attr{schema.Int("n", int64(i))}})
		}
		return r
	}
	for range 30 { // a run of many
		send(label, small(5)...)
	}
	send(label, small(100)...)
	send(label, schema.Record{Body: long, Attrs: []schema.Attr{schema.Bool(schema.AttrTruncated, true), schema.String("k", "v")}})
	send(label, append(append(small(3), schema.Record{Body: "\xff" + strings.Repeat("\xfe", 9000)}), small(3)...)...)
	send(label, schema.Record{Body: "attributes", Attrs: []schema.Attr{schema.String("big", long)}})
	send([]schema.Attr{schema.String("big", long)}, schema.Record{Body: "resource"})
	send(label, small(1)...)
	flush, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := p.Flush(flush); err != nil {
		t.Fatal(err)
	}
	if n := len(acked); n != 36 || acked[n-1] != prev.Offset {
		t.Errorf("%d acknowledgements, want 36: %v", n, acked)
	}
	if !p.budget.TryAcquire(p.cfg.InflightBytes) {
		t.Error("the in-flight budget was not given back")
	}
	if n := testutil.ToFloat64(p.cut); n != 4 {
		t.Errorf("%v records were cut, want 4", n)
	}
	if testutil.ToFloat64(p.split) == 0 || testutil.ToFloat64(p.retries.WithLabelValues(tooLarge)) == 0 {
		t.Error("splitting and retries are not counted")
	}

	done := errors.New("done")
	var seen Seen
	at := 0
	err = k.Tail(flush, []string{topic}, true, func(b *schema.Batch) error {
		if v := seen.Admit(&schema.Info{Source: b.Source, Begin: b.Begin, End: b.End, Prev: b.Prev, PrevKnown: b.PrevKnown, Count: len(b.Records)}); v.Gap != (interval{}) {
			t.Errorf("a gap before %s", b.Begin)
		}
		for i := range b.Records {
			checkCut(t, b, &b.Records[i], &want[at])
			at++
		}
		if at == len(want) {
			return done
		}
		return nil
	}, func(err error) { t.Error(err) })
	if !errors.Is(err, done) {
		t.Fatalf("%d of %d records: %v", at, len(want), err)
	}
}

// checkCut compares a record with what was sent. One that was cut says so, and how much of the body is missing.
func checkCut(t *testing.T, b *schema.Batch, got, want *schema.Record) {
	t.Helper()
	if got.Offset != want.Offset || got.BodyBytes == utf8.ValidString(want.Body) {
		t.Fatalf("offset %d bytes %v, want offset %d", got.Offset, got.BodyBytes, want.Offset)
	}
	missing, cut := got.Attr(schema.AttrCutBytes)
	mark, marked := got.Attr(schema.AttrTruncated)
	app, _ := b.ResourceAttr(schema.AttrApp)
	big := len(want.Body) > 4000 || want.Body == "attributes" || want.Body == "resource"
	switch {
	case cut != big:
		t.Errorf("offset %d cut: %v, want %v", got.Offset, cut, big)
	case !cut:
		if got.Body != want.Body || fmt.Sprint(got.Attrs) != fmt.Sprint(want.Attrs) || app.Str != "shop" {
			t.Errorf("offset %d changed: %q %v %v", got.Offset, got.Body, got.Attrs, b.Resource)
		}
	case !marked || mark.Num != 1 || !strings.HasPrefix(want.Body, got.Body) || len(got.Body)+int(missing.Num) != len(want.Body):
		t.Errorf("offset %d: %d bytes of %d, %v", got.Offset, len(got.Body), len(want.Body), got.Attrs)
	case len(want.Body) > 4000 && (len(got.Body) < 1000 || app.Str != "shop" || len(got.Attrs) != len(want.Attrs)+map[bool]int{true: 1, false: 2}[len(want.Attrs) > 0]):
		t.Errorf("offset %d lost more than it had to: %d bytes, %v %v", got.Offset, len(got.Body), got.Attrs, b.Resource)
	}
}

// TestTooLargeForAnything: a topic that takes nothing holds its sender back, as every other error does, and the log says why.
func TestTooLargeForAnything(t *testing.T) {
	cluster, k := testKafka(t, 1)
	refused := make(chan bool, 100)
	refuse := true
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if !refuse {
			return nil, nil, false
		}
		r := req.(*kmsg.ProduceRequest)
		res := r.ResponseKind().(*kmsg.ProduceResponse)
		res.Topics = []kmsg.ProduceResponseTopic{{Topic: r.Topics[0].Topic, Partitions: []kmsg.ProduceResponseTopicPartition{{Partition: r.Topics[0].Partitions[0].Partition, ErrorCode: int16(kafka.MessageSizeTooLarge)}}}}
		refused <- true
		refuse = len(refused) < 12 // four halvings, four cuts, and tries after them
		return res, nil, true
	})
	p, err := NewProducer(k, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(p.Run)()
	o := &origin{name: "s", files: []int64{16}}
	var e schema.Encoder
	e.Reset(o.name, o.at(0, 0).Incarnation, nil)
	for i := range int64(16) {
		e.Append(&schema.Record{Offset: i, Body: strings.Repeat("x", 9000)})
	}
	if err := p.Send(t.Context(), Message{Topic: schema.TopicLogs, Source: o.name, Begin: o.at(0, 0), End: o.at(0, 16), Count: 16, Value: e.Bytes()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if n := testutil.ToFloat64(p.acked); n != 1 {
		t.Errorf("%v batches acknowledged, want 1", n)
	}
	if n := testutil.ToFloat64(p.records); n != 16 {
		t.Errorf("%v records acknowledged, want 16", n)
	}
}

func TestErrorKind(t *testing.T) {
	_, k := testKafka(t, 1)
	produce := func(topic string, partition int) error {
		return k.produce(t.Context(), TopicPartition{topic, partition}, []kafka.Record{{Value: kafka.NewBytes([]byte("x"))}}, time.Second)
	}
	past, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	_, refused := k.dialer.Dial("tcp", "127.0.0.1:1")
	for _, c := range []struct {
		err  error
		want string
	}{
		{kafka.MessageSizeTooLarge, "too_large"}, {fmt.Errorf("x: %w", kafka.RecordListTooLarge), "too_large"},
		{kafka.TopicAuthorizationFailed, "not_authorized"},
		{produce("nowhere", 0), "unknown_topic"}, {produce(schema.TopicLogs, 7), "unknown_topic"}, {kafka.UnknownTopicOrPartition, "unknown_topic"},
		{kafka.NotEnoughReplicas, "not_enough_replicas"}, {kafka.NotEnoughReplicasAfterAppend, "not_enough_replicas"},
		{kafka.NotLeaderForPartition, "no_leader"},
		{kafka.RequestTimedOut, "timeout"}, {past.Err(), "timeout"}, {k.produce(past, TopicPartition{schema.TopicLogs, 0}, nil, time.Second), "timeout"},
		{refused, "connection"}, {errFault, "connection"},
		{kafka.KafkaStorageError, "other"},
	} {
		if got := errorKind(c.err); got != c.want {
			t.Errorf("%v is %q, want %q", c.err, got, c.want)
		}
		if remedies[c.want] == "" {
			t.Errorf("%q has no remedy", c.want)
		}
	}
}

// TestReplicaTime: the broker is told to wait for its replicas as the configuration says, not for kafka-go's half second.
func TestReplicaTime(t *testing.T) {
	cluster, k := testKafka(t, 1)
	told := make(chan int32, 1)
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		told <- req.(*kmsg.ProduceRequest).TimeoutMillis
		return nil, nil, false
	})
	if err := k.produce(t.Context(), TopicPartition{schema.TopicLogs, 0}, []kafka.Record{{Value: kafka.NewBytes([]byte("x"))}}, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if ms := <-told; ms < 14_000 || ms > 15_000 {
		t.Errorf("the broker may wait for %d ms, want 15,000", ms)
	}
}
