//go:build e2e

package ingest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
)

// TestRealWatch looks on at a real Kafka: the topic, a table, and what a group committed.
func TestRealWatch(t *testing.T) {
	k := stackKafka(t)
	topic, group := fmt.Sprint("watched-", time.Now().UnixNano()), fmt.Sprint("watching-", time.Now().UnixNano())
	plan, err := PlanTopics(t.Context(), k, []TopicSpec{{topic, 1, 1, nil}, {topic + "-table", 1, 1, map[string]string{"cleanup.policy": "compact"}}, {StateTopic(group), 1, 1, map[string]string{"cleanup.policy": "compact"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ApplyTopics(t.Context(), k, plan); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _ = k.client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic, topic + "-table", StateTopic(group)}})
	})
	watch(t, k, topic)

	table := k.Table(topic + "-table")
	for _, rows := range []map[string][]byte{{"a": []byte("1"), "b": []byte("2")}, {"a": nil, "c": []byte("3")}} {
		if err := table.Save(t.Context(), 0, rows); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := table.Load(t.Context(), 0)
	if want := map[string][]byte{"b": []byte("2"), "c": []byte("3")}; err != nil || !maps.EqualFunc(rows, want, func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Errorf("%v: %q", err, rows)
	}

	ends, err := k.TopicOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := k.GroupOffsets(t.Context(), group, ends); err != nil || len(at) != 0 {
		t.Errorf("before anything was committed: %v: %v", err, at)
	}
	c := DefaultConsumerConfig(group, topic)
	sink := &store{ids: map[string]int{}, die: func() bool { return false }}
	consumer, err := NewConsumer(k, c, sink, nil, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	stop := running(consumer.Run)
	defer stop()
	tp := TopicPartition{topic, 0}
	waitFor(t, "the group's commit", func() bool {
		at, err := k.GroupOffsets(t.Context(), group, ends)
		return err == nil && at[tp] == ends[tp][1]
	})
}

// stackKafka connects to the Kafka that make e2e has started.
func stackKafka(t *testing.T) *Kafka {
	t.Helper()
	brokers := os.Getenv("WEIR_KAFKA_BROKERS")
	if brokers == "" {
		t.Fatal("WEIR_KAFKA_BROKERS is not set: run `make e2e`, or `eval \"$(deployments/dev/stack env)\"` first")
	}
	cfg := DefaultKafkaConfig()
	cfg.Brokers = strings.Split(brokers, ",")
	k, err := NewKafka(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}
