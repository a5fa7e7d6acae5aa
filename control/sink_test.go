package control

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/ingest/sinktest"
)

func TestSink(t *testing.T) {
	sinktest.Run(t, func(*testing.T) sinktest.Harness {
		return sinktest.Harness{New: func(*testing.T) ingest.Sink { return New(slog.New(slog.DiscardHandler), prometheus.NewRegistry()) }}
	})
}
