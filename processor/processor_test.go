package processor

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/schema"
)

type kept struct{ messages []ingest.Message }

func (k *kept) Send(_ context.Context, m ingest.Message) error {
	k.messages = append(k.messages, m)
	return nil
}
func (k *kept) Flush(context.Context) error { return nil }

func TestCounts(t *testing.T) {
	out := &kept{}
	p := newProcessor(DefaultConfig(), out, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	s, _, err := p.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicLogs, Partition: 3})
	if err != nil {
		t.Fatal(err)
	}
	minute := int64(60e9)
	b := schema.Batch{Source: "docker/n/c", Resource: []schema.Attr{schema.String(schema.AttrContainerID, "c"), schema.String(schema.AttrContainerName, "web")}, Records: []schema.Record{
		{Time: 10 * minute, Body: "abc"}, {Time: 11*minute - 1, Body: "de"}, {Time: 11 * minute, Body: "f"}, {Observed: 11*minute + 5, Body: "gh"}, {Time: 11 * minute, EventName: schema.EventSourceClosed}}}
	for _, step := range []struct{ next, messages int64 }{{7, 1}, {9, 1}} { // the second commit has nothing to say
		if step.next == 7 {
			if err := s.Write(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Commit(t.Context(), ingest.Checkpoint{NextOffset: step.next}); err != nil {
			t.Fatal(err)
		}
		if int64(len(out.messages)) != step.messages {
			t.Fatalf("%d messages after offset %d", len(out.messages), step.next)
		}
	}
	m := out.messages[0]
	info := schema.Info{Source: m.Source, Begin: m.Begin, End: m.End, Count: m.Count}
	var got schema.Batch
	if err := new(schema.Decoder).Decode(m.Value, &info, &got); err != nil {
		t.Fatal(err)
	}
	want := []string{"web wrote 2 lines, 5 bytes", "web wrote 2 lines, 3 bytes"}
	for i, body := range want {
		if got.Records[i].Body != body || got.Records[i].Time != int64(10+i)*minute {
			t.Errorf("signal %d: %q at %d", i, got.Records[i].Body, got.Records[i].Time)
		}
	}
}
