package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/segmentio/kafka-go"
)

// ConsumerConfig says what one consumer group reads and how often it commits.
type ConsumerConfig struct {
	Group          string        `yaml:"group"`
	Topics         []string      `yaml:"topics"`
	CommitInterval time.Duration `yaml:"commit_interval"` // the longest that written records wait for their commit; ten times that while the partition is behind
	CommitBytes    int64         `yaml:"commit_bytes"`    // the most that one partition writes between commits
	FetchBytes     int64         `yaml:"fetch_bytes"`     // memory of one fetch of one partition
	SessionTimeout time.Duration `yaml:"session_timeout"` // after which the group gives a silent member's partitions away
	OwnCommit      bool          `yaml:"-"`               // the sink keeps checkpoints with its own commit
	OneMember      bool          `yaml:"-"`               // one member of the group works on all partitions; the others stand by
}

// DefaultConsumerConfig commits at least every 500 ms: what a consumer holds is durable and visible only then.
func DefaultConsumerConfig(group string, topics ...string) ConsumerConfig {
	return ConsumerConfig{Group: group, Topics: topics, CommitInterval: 500 * time.Millisecond, CommitBytes: 64 << 20, FetchBytes: 1 << 20, SessionTimeout: 10 * time.Second}
}

// Validate joins what is wrong, each with its key.
func (c *ConsumerConfig) Validate() error {
	var errs []error
	if c.Group == "" {
		errs = append(errs, errors.New("group: is empty"))
	}
	if len(c.Topics) == 0 {
		errs = append(errs, errors.New("topics: at least one is needed"))
	}
	if c.CommitInterval <= 0 || c.CommitBytes <= 0 || c.FetchBytes <= 0 {
		errs = append(errs, errors.New("commit_interval, commit_bytes, fetch_bytes: must be above zero"))
	}
	if c.SessionTimeout < 6*time.Second {
		errs = append(errs, errors.New("session_timeout: brokers refuse less than 6s"))
	}
	return errors.Join(errs...)
}

// Consumer is the one loop that serves every sink.
//
// It joins the group, and for each assigned partition one goroutine fetches, decodes, drops what was seen, writes
// to the sink and commits: sink first, then interval state, then Kafka's offset. A generation of the group ends only
// when all its goroutines have, so nothing of a revoked partition reaches the sink afterwards.
type Consumer struct {
	k     *Kafka
	cfg   ConsumerConfig
	sink  Sink
	aux   *Producer // dead letters and gap events; nil: a poison batch stops its partition, gaps are only counted
	state stateTopic
	began time.Time

	forgetEvery time.Duration // but in tests, the constant

	log *slog.Logger
	m   consumerMetrics
}

type consumerMetrics struct {
	delivered, repeated, gaps, closed, belowFloor, poison, errors, expired *prometheus.CounterVec
	lag, settled, known                                                    *prometheus.GaugeVec
}

// NewConsumer prepares a consumer; aux may be nil.
func NewConsumer(k *Kafka, cfg ConsumerConfig, sink Sink, aux *Producer, log *slog.Logger, reg prometheus.Registerer) (*Consumer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("consumer %s: %w", cfg.Group, err)
	}
	f := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"group": cfg.Group}, reg))
	labels := []string{"topic"}
	counter := func(name, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &Consumer{k: k, cfg: cfg, sink: sink, aux: aux, state: stateTopic{k, StateTopic(cfg.Group)}, began: time.Now(), forgetEvery: forgetEvery, log: log.With("component", cfg.Group), m: consumerMetrics{
		delivered:  counter("weir_ingest_records_total", "Records given to the sink."),
		repeated:   counter("weir_ingest_repeated_records_total", "Records dropped because the sink was given them before."),
		gaps:       counter("weir_ingest_gaps_opened_total", "Jumps in a source's positions."),
		closed:     counter("weir_ingest_gaps_filled_total", "Late batches that fitted an open gap."),
		belowFloor: counter("weir_ingest_below_floor_batches_total", "Batches dropped because their file is older than all that is remembered of the source."),
		poison:     counter("weir_ingest_dead_letters_total", "Messages sent to the dead letters."),
		errors:     counter("weir_ingest_errors_total", "Errors after which a partition went back to its last commit."),
		expired:    counter("weir_ingest_expired_offsets_total", "Kafka offsets that retention deleted before they were read."),
		lag:        f.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_ingest_lag_batches", Help: "Batches in the partition that the group has not read."}, []string{"topic", "partition"}),
		settled:    f.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_ingest_settled_timestamp_seconds", Help: "Unix time when all that was read of the partition was committed, last seen."}, []string{"topic", "partition"}),
		known:      f.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_ingest_sources", Help: "Sources of which it is remembered what was seen."}, []string{"topic", "partition"}),
	}}, nil
}

// Run consumes until ctx ends, then commits what was written and leaves the group.
func (c *Consumer) Run(ctx context.Context) error {
	for try := 0; ctx.Err() == nil; try++ {
		began := time.Now()
		err := c.member(ctx, try)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > time.Minute {
			try = 0
		}
		c.log.Warn("not in the consumer group; joining again", "err", err)
		_ = pause(ctx, ctx, backoff(try))
	}
	return nil
}

func (c *Consumer) member(ctx context.Context, try int) error {
	// A member has as long to give its partitions up as it has to be missed when it died: at a rebalance nothing is committed
	// any more, and a sink that is still busy after that is kept out by its own means (ids, the archive's fence).
	// kafka-go assigns nothing at all while one of the topics is not there, and with its own watch joins over and over.
	topics, err := c.there(ctx)
	if err != nil {
		return err
	}
	for _, topic := range c.cfg.Topics {
		if topics[topic] == 0 {
			c.log.Warn("a topic is not there and is not read", "topic", topic, "remedy", "create it with `weir topics apply`")
		}
	}
	if len(topics) == 0 {
		return fmt.Errorf("group %s: none of the topics is there", c.cfg.Group)
	}
	// kafka-go asks the first broker that takes its connection for the coordinator. One that is frozen takes it and never answers,
	// so each try begins at another.
	first := try % len(c.k.cfg.Brokers)
	brokers := slices.Concat(c.k.cfg.Brokers[first:], c.k.cfg.Brokers[:first])
	var balancers []kafka.GroupBalancer // kafka-go's own
	if c.cfg.OneMember {
		balancers = []kafka.GroupBalancer{oldest{c.began}}
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		GroupBalancers: balancers,
		ID:             c.cfg.Group, Brokers: brokers, Dialer: c.k.dialer, Topics: slices.Sorted(maps.Keys(topics)),
		HeartbeatInterval: time.Second, SessionTimeout: c.cfg.SessionTimeout, RebalanceTimeout: c.cfg.SessionTimeout, JoinGroupBackoff: time.Second,
		StartOffset: kafka.FirstOffset, Timeout: 10 * time.Second,
		ErrorLogger: kafka.LoggerFunc(func(format string, args ...any) {
			c.log.Debug("consumer group", "message", fmt.Sprintf(format, args...))
		}),
	})
	if err != nil {
		return fmt.Errorf("group %s: %w", c.cfg.Group, err)
	}
	var working sync.WaitGroup
	defer func() {
		if ctx.Err() != nil {
			working.Wait() // they commit first, while the partitions are still theirs
		}
		_ = group.Close() // waits for the generation's goroutines and leaves the group
	}()
	joined, leave := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); leave(c.watch(joined, topics)) }()
	defer func() { leave(nil); <-watched }()
	for {
		gen, err := group.Next(joined)
		if err != nil {
			if joined.Err() != nil {
				err = context.Cause(joined)
			}
			return fmt.Errorf("group %s: %w", c.cfg.Group, err)
		}
		c.m.lag.Reset()
		c.m.settled.Reset()
		c.m.known.Reset()
		assigned := 0
		for _, partitions := range gen.Assignments {
			working.Add(len(partitions))
		}
		for topic, partitions := range gen.Assignments {
			for _, p := range partitions {
				assigned++
				tp, committed := TopicPartition{topic, p.ID}, p.Offset
				gen.Start(func(gctx context.Context) {
					c.own(ctx, gctx, gen, tp, committed)
					working.Done()
					working.Wait() // the generation ends with the first that returns, and the others could no longer commit
				})
			}
		}
		c.log.Info("partitions assigned", "generation", gen.ID, "partitions", assigned)
	}
}

// there counts the partitions of the topics that exist.
func (c *Consumer) there(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	for _, topic := range c.cfg.Topics {
		switch n, err := c.k.partitions(ctx, topic); {
		case err == nil:
			counts[topic] = n
		case !errors.Is(err, kafka.UnknownTopicOrPartition):
			return nil, fmt.Errorf("topic %s: %w", topic, err)
		}
	}
	return counts, nil
}

// watch returns when a topic came, went or has more partitions, or ctx ended.
func (c *Consumer) watch(ctx context.Context, was map[string]int) error {
	for {
		if err := pause(ctx, ctx, 5*time.Second); err != nil {
			return err
		}
		if now, err := c.there(ctx); err == nil && !maps.Equal(now, was) {
			return fmt.Errorf("the topics' partitions changed from %v to %v", was, now)
		}
	}
}

// own works on one partition for one generation.
func (c *Consumer) own(ctx, gctx context.Context, gen *kafka.Generation, tp TopicPartition, committed int64) {
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(gctx, func() { cancel(kafka.ErrGenerationEnded) })
	defer stop()
	p := &partition{c: c, tp: tp, committed: committed, commitOffset: func(next int64) error {
		return gen.CommitOffsets(map[string]map[int]int64{tp.Topic: {tp.Partition: next}})
	}, lag: c.m.lag.WithLabelValues(tp.Topic, strconv.Itoa(tp.Partition)), settled: c.m.settled.WithLabelValues(tp.Topic, strconv.Itoa(tp.Partition)), known: c.m.known.WithLabelValues(tp.Topic, strconv.Itoa(tp.Partition))}
	p.settled.SetToCurrentTime() // from now on it may be late
	for try := 0; work.Err() == nil; try++ {
		began := time.Now()
		err := p.run(work, gctx)
		if work.Err() != nil && err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, kafka.ErrGenerationEnded) {
			c.log.Warn("what was written since the last commit is read again later", "topic", tp.Topic, "partition", tp.Partition, "err", err)
		}
		if err == nil || work.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			try = 0
		}
		c.m.errors.WithLabelValues(tp.Topic).Inc()
		if try%8 == 0 {
			c.log.Warn("going back to the last commit", "topic", tp.Topic, "partition", tp.Partition, "try", try+1, "err", err)
		}
		_ = pause(work, work, backoff(try))
	}
}
