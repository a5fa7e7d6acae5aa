package processor

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/processor/lives"
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

	deltas  []byte
	tracker *lives.Tracker
}

// NewSimulation runs the rules of a set.
func NewSimulation(cfg Config, set *rules.Set) (*Simulation, error) {
	s := &Simulation{m: window.New(set, window.Limits{Lateness: cfg.Lateness, MaxGroups: cfg.MaxGroups, MaxSet: cfg.MaxDistinct})}
	p := &Processor{cfg: cfg, log: slog.New(slog.DiscardHandler), m: newMetrics(prometheus.NewRegistry()), now: func() time.Time { return time.Unix(0, s.now) }}
	s.c = &counter{p: p, parts: 1}
	if err := s.c.mine(schema.TopicLogs); err != nil {
		return nil, err
	}
	if cfg.Lives.Enabled {
		var err error
		if s.tracker, err = lives.New(cfg.Lives.Config); err != nil {
			return nil, err
		}
	}
	s.c.units.reset()
	s.c.plan(set)
	return s, nil
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
	s.deltas = s.deltas[:0]
	s.c.take(func(d *window.Delta) { s.deltas = d.Append(s.deltas) })
	_ = window.Deltas(s.deltas, s.m.Add) // it was written a line above
	s.c.units.restored()
	said := s.c.found
	s.c.found = nil
	s.c.signs.take(time.Unix(0, s.now), func(f forward) {
		_ = forwarded(f.value, func(b *schema.Batch) error { // it was written just now
			said = s.tracker.Write(b, said)
			return nil
		})
	})
	if s.c.miner != nil {
		said = s.c.miner.Advance(s.mark, said)
	}
	if s.tracker != nil {
		said = s.tracker.Advance(s.mark, said)
	}
	return append(said, s.m.Advance(s.mark)...)
}

// Groups is how many groups are kept.
func (s *Simulation) Groups() int { return s.m.Groups() }
