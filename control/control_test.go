package control

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/ingest"
	"weir/schema"
)

func TestWouldRestart(t *testing.T) {
	var out bytes.Buffer
	c := New(slog.New(slog.NewTextHandler(&out, nil)), prometheus.NewRegistry())
	s, _, _ := c.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicEvents})
	die := func(code int64) schema.Record {
		return schema.Record{EventName: "docker.container.die", Attrs: []schema.Attr{schema.Int(schema.AttrExitCode, code)}}
	}
	b := schema.Batch{Source: "docker-events/n", Resource: []schema.Attr{schema.String(schema.AttrContainerName, "web")},
		Records: []schema.Record{die(0), {EventName: "docker.container.start"}, die(137), die(1)}}
	if err := s.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if n := testutil.ToFloat64(c.acts.WithLabelValues("restart")); n != 2 {
		t.Errorf("%v would-be restarts, want 2", n)
	}
	if n := strings.Count(out.String(), "would restart"); n != 1 || !strings.Contains(out.String(), "exit_code=137") {
		t.Errorf("the log says it %d times: %s", n, out.String())
	}
}
