// Package processor turns records into signals, seconds after they were written.
//
// It is a sink in two stages. The first reads weir.logs and weir.events and counts, per rule and group, what is new since its last commit;
// it sends that as deltas to weir.partials, to the partition that the group belongs to. The second reads weir.partials, adds the deltas
// up, closes windows by watermark and sends signals. docs/processor.md has the design.
package processor

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/processor/rules"
	"weir/schema"
)

// sender is the part of the producer that the processor uses.
type sender interface {
	Send(ctx context.Context, m ingest.Message) error
	Flush(ctx context.Context) error
	Partitions(ctx context.Context, topic string) (int, error)
}

// store opens changelogs, and says where input topics end.
type store interface {
	open(ctx context.Context, tp ingest.TopicPartition, apply func(snapshot bool, chunks [][]byte) error) (changelog, error)
	end(ctx context.Context, tp ingest.TopicPartition) (int64, error)
}

// Processor is a sink whose output is signals.
type Processor struct {
	cfg   Config
	out   sender
	store store
	log   *slog.Logger
	m     *metrics
	skew  skews
	now   func() time.Time

	rules  atomic.Pointer[rules.Set]
	reload time.Duration
}

// Topics are those that the processor reads.
func Topics() []string { return []string{schema.TopicLogs, schema.TopicEvents, schema.TopicPartials} }

// New makes a processor that keeps its state in k's changelog topics and sends through out.
func New(cfg Config, k *ingest.Kafka, out *ingest.Producer, log *slog.Logger, reg prometheus.Registerer) (*Processor, error) {
	return newProcessor(cfg, out, kafkaStore{k}, log, reg)
}

func newProcessor(cfg Config, out sender, store store, log *slog.Logger, reg prometheus.Registerer) (*Processor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("processor: %w", err)
	}
	set, err := cfg.load()
	if err != nil {
		return nil, fmt.Errorf("processor.rules: %w", err)
	}
	p := &Processor{cfg: cfg, out: out, store: store, log: log.With("component", "processor"), m: newMetrics(reg), now: time.Now, reload: 5 * time.Second}
	p.rules.Store(set)
	p.m.rules.Set(float64(len(set.Rules)))
	return p, nil
}

type kafkaStore struct{ k *ingest.Kafka }

func (s kafkaStore) open(ctx context.Context, tp ingest.TopicPartition, apply func(bool, [][]byte) error) (changelog, error) {
	return ingest.OpenChangelog(ctx, s.k, tp, apply)
}

func (s kafkaStore) end(ctx context.Context, tp ingest.TopicPartition) (int64, error) {
	return s.k.End(ctx, tp)
}

// Open restores one partition.
func (p *Processor) Open(ctx context.Context, tp ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	if tp.Topic == schema.TopicPartials {
		s, err := p.openTotals(ctx, tp)
		return s, nil, err
	}
	s, err := p.openCounter(ctx, tp)
	return s, nil, err
}

// Run takes other rules up when their files change, until ctx ends. Files that are not good are told, and the rules of before go on.
func (p *Processor) Run(ctx context.Context) error {
	last := ""
	t := time.NewTicker(p.reload)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		set, err := p.cfg.load()
		switch {
		case err != nil && err.Error() != last:
			p.m.reloads.WithLabelValues("bad").Inc()
			p.log.Error("the rule files are not good; going on with the rules of before", "err", err)
			last = err.Error()
		case err == nil:
			last = ""
			if was := p.rules.Load(); !set.Equal(was) {
				p.rules.Store(set)
				p.m.reloads.WithLabelValues("taken").Inc()
				p.m.rules.Set(float64(len(set.Rules)))
				p.log.Info("other rules are taken up", "rules", len(set.Rules))
			}
		}
	}
}
