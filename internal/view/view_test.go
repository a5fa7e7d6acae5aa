package view

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

func TestFrame(t *testing.T) {
	reg := prometheus.NewRegistry()
	read := promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "weir_agent_records_total"})
	lost := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "weir_agent_loss_records_total"}, []string{"reason"})
	lag := promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{Name: "weir_ingest_lag_batches"}, []string{"group", "partition"})
	v := &View{Title: "weir", Metrics: reg, Groups: []string{"archiver"}, Notes: []string{"kafka      here"}}
	at := time.Unix(1000, 0)
	v.Frame(at, 80, 24)
	read.Add(50)
	lost.WithLabelValues("x").Inc()
	lag.WithLabelValues("archiver", "0").Set(3)
	lag.WithLabelValues("archiver", "1").Set(4)
	fmt.Fprintln(v.Log(new(bytes.Buffer)), "level=WARN msg=beware")
	for i := range 500 {
		v.Record(fmt.Sprintf("record %d %s", i, strings.Repeat("ü", 200)))
	}
	frame := v.Frame(at.Add(2*time.Second), 80, 24)
	for _, want := range []string{"agent                  25.0             50", "7 batches", "loss records 1", "level=WARN msg=beware", "kafka      here", "record 499"} {
		if !strings.Contains(frame, want) {
			t.Errorf("the frame lacks %q:\n%s", want, frame)
		}
	}
	lines := strings.Split(frame, "\n")
	if len(lines) > 23 {
		t.Errorf("%d lines for a terminal of 24", len(lines))
	}
	for _, l := range lines {
		if utf8.RuneCountInString(l) > 80 {
			t.Errorf("too wide: %q", l)
		}
	}
	for _, size := range [][2]int{{0, 0}, {1, 1}, {20, 5}} {
		v.Frame(at.Add(3*time.Second), size[0], size[1])
	}
	if s := v.Summary(); !strings.HasPrefix(s, "50 log records read") || !strings.Contains(s, "1 loss records") {
		t.Error(s)
	}
}

func TestTell(t *testing.T) {
	v := &View{Metrics: prometheus.NewRegistry(), Groups: []string{"archiver"}}
	var b bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	v.Tell(ctx, slog.New(slog.NewTextHandler(&b, nil)), 10*time.Millisecond)
	if !strings.Contains(b.String(), "msg=flow records_per_second=0.0") {
		t.Error(b.String())
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[float64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 3 << 40: "3072.0 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%f: %q, want %q", n, got, want)
		}
	}
}
