// Package processor turns records into signals. In this first form it counts lines and bytes per container and
// one-minute window of event time.
package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"weir/ingest"
	"weir/schema"
)

// Config of the processor.
type Config struct {
	Window time.Duration `yaml:"window"`
}

// DefaultConfig counts by the minute.
func DefaultConfig() Config { return Config{Window: time.Minute} }

// Validate joins what is wrong, each with its key.
func (c Config) Validate() error {
	if c.Window < time.Second {
		return errors.New("window: must be at least 1s")
	}
	return nil
}

// sender is the part of the producer that the processor uses.
type sender interface {
	Send(ctx context.Context, m ingest.Message) error
	Flush(ctx context.Context) error
}

// Processor is a sink whose output is signals.
//
// A signal counts what was new since the last commit, so the counts of one window add up over its signals. A signal's
// position is the Kafka offset at which its commit ends, and a place in it: a commit done again after a
// crash ends elsewhere and may count again what the signals of the commit that failed had counted.
type Processor struct {
	cfg     Config
	out     sender
	log     *slog.Logger
	signals prometheus.Counter
}

// New makes a processor that sends its signals through out.
func New(cfg Config, out *ingest.Producer, log *slog.Logger, reg prometheus.Registerer) (*Processor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("processor: %w", err)
	}
	return newProcessor(cfg, out, log, reg), nil
}

func newProcessor(cfg Config, out sender, log *slog.Logger, reg prometheus.Registerer) *Processor {
	return &Processor{cfg: cfg, out: out, log: log.With("component", "processor"),
		signals: promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "weir_processor_signals_total", Help: "Signals sent."})}
}

// Open makes the counters of one partition.
func (p *Processor) Open(_ context.Context, tp ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	return &partition{p: p, source: "weir/processor/" + tp.String(), counts: map[key]*count{}}, nil, nil
}

type key struct {
	container string
	start     int64 // of the window, Unix ns
}

type count struct {
	name, app    string
	lines, bytes int64
}

type partition struct {
	p      *Processor
	source string
	counts map[key]*count
}

// Write counts.
func (s *partition) Write(_ context.Context, b *schema.Batch) error {
	container, ok := b.ResourceAttr(schema.AttrContainerID)
	if !ok {
		return nil
	}
	width := int64(s.p.cfg.Window)
	for i := range b.Records {
		r := &b.Records[i]
		if r.EventName != "" {
			continue
		}
		at := r.Time
		if at == 0 {
			at = r.Observed
		}
		k := key{container.Str, at - at%width}
		c := s.counts[k]
		if c == nil {
			name, _ := b.ResourceAttr(schema.AttrContainerName)
			app, _ := b.ResourceAttr(schema.AttrApp)
			// The batch's memory is lent: keys and names must be our own.
			k.container = string(append([]byte(nil), k.container...))
			c = &count{name: string(append([]byte(nil), name.Str...)), app: string(append([]byte(nil), app.Str...))}
			s.counts[k] = c
		}
		c.lines++
		c.bytes += int64(len(r.Body))
	}
	return nil
}

// signalsPerCommit bounds a commit's signals: positions of the next commit start that far away.
const signalsPerCommit = 1 << 20

// Commit sends the counts and waits until Kafka has them.
func (s *partition) Commit(ctx context.Context, cp ingest.Checkpoint) error {
	if len(s.counts) == 0 {
		return nil
	}
	keys := make([]key, 0, len(s.counts))
	for k := range s.counts {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		if keys[i].start != keys[j].start {
			return keys[i].start < keys[j].start
		}
		return keys[i].container < keys[j].container
	})
	base := cp.NextOffset * signalsPerCommit
	const perBatch = 1000
	for from := 0; from < len(keys); from += perBatch {
		var e schema.Encoder
		e.Reset(s.source, schema.Incarnation{}, nil)
		to := min(from+perBatch, len(keys))
		for i := from; i < to; i++ {
			k, c := keys[i], s.counts[keys[i]]
			e.Append(&schema.Record{Offset: base + int64(i), Time: k.start, Observed: time.Now().UnixNano(), EventName: schema.EventWindow,
				Body: fmt.Sprintf("%s wrote %d lines, %d bytes", c.name, c.lines, c.bytes), Attrs: []schema.Attr{
					schema.String(schema.AttrContainerID, k.container), schema.String(schema.AttrContainerName, c.name), schema.String(schema.AttrApp, c.app),
					schema.Int("weir.window.seconds", int64(s.p.cfg.Window/time.Second)), schema.Int("weir.window.lines", c.lines), schema.Int("weir.window.bytes", c.bytes)}})
		}
		m := ingest.Message{Topic: schema.TopicSignals, Source: s.source, Begin: schema.Position{Offset: base + int64(from)}, End: schema.Position{Offset: base + int64(to)}, Count: e.Count(), Value: e.Bytes()}
		if err := s.p.out.Send(ctx, m); err != nil {
			return err
		}
	}
	if err := s.p.out.Flush(ctx); err != nil {
		return err
	}
	s.p.signals.Add(float64(len(keys)))
	clear(s.counts)
	return nil
}

// Close drops what is not committed.
func (s *partition) Close() error { return nil }
