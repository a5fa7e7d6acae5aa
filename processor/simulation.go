package processor

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/processor/rules"
	"weir/processor/signal"
	"weir/processor/window"
	"weir/schema"
)

// Simulation runs both stages in one place, without Kafka and without a clock: what rules would have said of records that are there already.
type Simulation struct {
	c    *counter
	m    *window.Machine
	mark int64
	now  int64 // newest time there was
}

// NewSimulation runs the rules of a set.
func NewSimulation(cfg Config, set *rules.Set) *Simulation {
	s := &Simulation{m: window.New(set, window.Limits{Lateness: cfg.Lateness, MaxGroups: cfg.MaxGroups, MaxSet: cfg.MaxDistinct})}
	p := &Processor{cfg: cfg, log: slog.New(slog.DiscardHandler), m: newMetrics(prometheus.NewRegistry()), now: func() time.Time { return time.Unix(0, s.now) }}
	s.c = &counter{p: p, parts: 1}
	s.c.units.reset()
	s.c.plan(set)
	return s
}

// Write counts a batch.
func (s *Simulation) Write(b *schema.Batch) {
	for i := range b.Records {
		s.now = max(s.now, b.Records[i].Time, b.Records[i].Observed)
	}
	s.c.count(b)
}

// Advance says that all up to mark, in Unix ns, is written, and returns the signals that follow.
func (s *Simulation) Advance(mark int64) []signal.Signal {
	s.mark, s.now = max(s.mark, mark), max(s.now, mark)
	s.c.take(s.m.Add)
	s.c.units.restored()
	return s.m.Advance(s.mark)
}

// Groups is how many groups are kept.
func (s *Simulation) Groups() int { return s.m.Groups() }
