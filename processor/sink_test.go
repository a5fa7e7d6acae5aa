package processor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/schema"
)

// topic keeps signals as Kafka does; a broken one takes none.
type topic struct {
	mu sync.Mutex
	kept
	broken bool
}

func (k *topic) Send(ctx context.Context, m ingest.Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken {
		return errors.New("no broker")
	}
	return k.kept.Send(ctx, m)
}

func TestSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		out := &topic{}
		return sinktest.Harness{
			New: func(*testing.T) ingest.Sink {
				return newProcessor(DefaultConfig(), out, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			},
			Total: func(t *testing.T) (lines int) {
				for _, m := range out.messages {
					var b schema.Batch
					if err := new(schema.Decoder).Decode(m.Value, &schema.Info{Source: m.Source, Begin: m.Begin, End: m.End, Count: m.Count}, &b); err != nil {
						t.Fatal(err)
					}
					for i := range b.Records {
						n, _ := b.Records[i].Attr("weir.window.lines")
						lines += int(n.Num)
					}
				}
				return lines
			},
			Break: func(broken bool) { out.broken = broken },
		}
	})
}
