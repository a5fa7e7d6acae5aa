//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"go.opentelemetry.io/collector/pdata/plog"

	"weir/schema"
)

// readIndependently decodes the topic with the OpenTelemetry Collector's own decoder, as its Kafka receiver does with
// the encoding otlp_proto; nothing of weir's schema is used but the topic's name.
func readIndependently(t *testing.T, brokers []string, prefix string) *tally {
	t.Helper()
	conn, err := kafka.DialContext(t.Context(), "tcp", brokers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	partitions, err := conn.ReadPartitions(schema.TopicLogs)
	if err != nil {
		t.Fatal(err)
	}
	got := newTally()
	for _, p := range partitions {
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: schema.TopicLogs, Partition: p.ID, MaxBytes: 16 << 20, MaxWait: 200 * time.Millisecond})
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			m, err := r.ReadMessage(ctx)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			logs, err := new(plog.ProtoUnmarshaler).UnmarshalLogs(m.Value)
			if err != nil {
				t.Fatalf("partition %d offset %d: %v", m.Partition, m.Offset, err)
			}
			for i := range logs.ResourceLogs().Len() {
				rl := logs.ResourceLogs().At(i)
				name, _ := rl.Resource().Attributes().Get("container.name")
				if !strings.HasPrefix(name.AsString(), prefix) {
					continue
				}
				for j := range rl.ScopeLogs().Len() {
					records := rl.ScopeLogs().At(j).LogRecords()
					for k := range records.Len() {
						got.add(name.AsString(), records.At(k).Body().AsString())
					}
				}
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	return got
}

// readTail runs `weir tail` until it has shown want numbers, or a minute is over.
func readTail(t *testing.T, binary, config, prefix string, want int) *tally {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "tail", "--config", config, "--from-start", "--json", "--topic", schema.TopicLogs, "--container", prefix)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got := newTally()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for got.unique() < want && lines.Scan() {
		var r struct {
			Body       string         `json:"body"`
			ID         string         `json:"id"`
			Attributes map[string]any `json:"attributes"`
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil || r.ID == "" {
			t.Fatalf("a line of weir tail: %v: %.200q", err, lines.Text())
		}
		name, _ := r.Attributes[schema.AttrContainerName].(string)
		got.add(name, r.Body)
	}
	cancel()
	_ = cmd.Wait()
	return got
}
