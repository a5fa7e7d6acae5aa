// Package control acts on events and signals. In this first form it only says what it would do.
package control

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"weir/ingest"
	"weir/schema"
)

// Control is a sink without output: it logs.
type Control struct {
	log  *slog.Logger
	acts *prometheus.CounterVec

	mu   sync.Mutex
	said map[string]time.Time // by container name: a crash loop is told of once in a while
}

// quietFor is how long one container is not mentioned again.
const quietFor = 10 * time.Second

// New makes a control consumer.
func New(log *slog.Logger, reg prometheus.Registerer) *Control {
	return &Control{log: log.With("component", "control"), said: map[string]time.Time{},
		acts: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "weir_control_would_act_total", Help: "Actions that a policy would have taken; none is carried out."}, []string{"action"})}
}

// Open needs nothing of a partition.
func (c *Control) Open(context.Context, ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	return partition{c}, nil, nil
}

type partition struct{ c *Control }

// Write looks for containers that died with an error.
func (p partition) Write(_ context.Context, b *schema.Batch) error {
	for i := range b.Records {
		r := &b.Records[i]
		code, hasCode := r.Attr(schema.AttrExitCode)
		if r.EventName != "docker.container.die" || !hasCode || code.Num == 0 {
			continue
		}
		oom, _ := r.Attr(schema.AttrOOM)
		name, _ := b.ResourceAttr(schema.AttrContainerName)
		p.c.acts.WithLabelValues("restart").Inc()
		if p.c.speak(string(append([]byte(nil), name.Str...)), time.Now()) {
			p.c.log.Info("would restart a container that died (observing only)", "container", name.Str, "exit_code", code.Num, "oom", oom.Num != 0, "event", b.ID(r))
		}
	}
	return nil
}

func (c *Control) speak(name string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.said[name]) < quietFor {
		return false
	}
	if len(c.said) > 10_000 {
		clear(c.said)
	}
	c.said[name] = now
	return true
}

// Commit has nothing to make durable.
func (partition) Commit(context.Context, ingest.Checkpoint) error { return nil }

// Close has nothing to abandon.
func (partition) Close() error { return nil }
