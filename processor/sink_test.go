package processor

import (
	"testing"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/processor/window"
	"weir/schema"
)

// TestSink runs the conformance suite on the first stage: what it sent to weir.partials, repeats dropped, must count every committed record once.
func TestSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		d := newDouble(3)
		cfg := DefaultConfig()
		cfg.Windows = cfg.Windows[:1]
		return sinktest.Harness{
			New: func(t *testing.T) ingest.Sink { return d.processor(t, cfg) },
			Total: func(t *testing.T) (lines int) {
				d.records(t, schema.TopicPartials, func(_ *schema.Batch, r *schema.Record) {
					_, deltas, _, err := partial(r)
					if err != nil {
						t.Fatal(err)
					}
					for _, delta := range deltas {
						for _, p := range delta.Panes {
							lines += int(p.Counts[window.Count])
						}
					}
				})
				return lines
			},
			Break: func(broken bool) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.fail = func() bool { return broken }
			},
		}
	})
}
