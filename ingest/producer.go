package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"golang.org/x/sync/semaphore"

	"weir/schema"
)

// ProducerConfig bounds the producer.
type ProducerConfig struct {
	InflightBytes  int64         `yaml:"inflight_bytes"`  // values accepted and not yet acknowledged, all topics together
	RequestBytes   int           `yaml:"request_bytes"`   // values in one request; at most the broker's message.max.bytes
	RequestTimeout time.Duration `yaml:"request_timeout"` // of one try; half of it the broker may wait for its replicas
}

// DefaultProducerConfig keeps 6 MiB in flight and stays below Kafka's default message.max.bytes.
func DefaultProducerConfig() ProducerConfig {
	return ProducerConfig{InflightBytes: 6 << 20, RequestBytes: 900 << 10, RequestTimeout: 30 * time.Second}
}

// Message is one batch on its way to Kafka. Value must not change until Acked was called.
type Message struct {
	Topic            string
	Source           string
	Begin, End, Prev schema.Position
	PrevKnown        bool
	Count            int
	Value            []byte
	Pinned           bool // to Partition, instead of the one that the source's hash says
	Partition        int
	Acked            func() // may be nil; called once, in order per source, from the producer's goroutine
	// Free may be nil. It is called with Value after Acked where nothing can read it any more. It is not called after a
	// try that failed: that one may still be on its way out.
	Free func(value []byte)

	weight int64 // of the in-flight budget
	part   bool  // the rest of the batch follows: it is acknowledged with that
}

func (m *Message) info() schema.Info {
	return schema.Info{Source: m.Source, Begin: m.Begin, End: m.End, Prev: m.Prev, PrevKnown: m.PrevKnown, Count: m.Count}
}

// Producer writes batches with acks=all, in order per source. It never passes over a batch that failed: it
// tries again until Kafka has it, and Send holds the caller back meanwhile. A try that failed after the broker had
// appended leaves a repeat in the topic, which consumers drop. What is larger than the topic takes goes in smaller pieces.
//
// One goroutine (a lane) per topic partition owns that partition's queue and has one request under way.
type Producer struct {
	k      *Kafka
	cfg    ProducerConfig
	log    *slog.Logger
	budget *semaphore.Weighted
	ctx    context.Context
	stop   context.CancelFunc

	mu     sync.Mutex
	idle   *sync.Cond // signalled when pending falls to zero
	lanes  map[TopicPartition]*lane
	counts map[string]int // partitions of a topic, fixed at first use so that a source keeps its partition
	wg     sync.WaitGroup
	queued int
	asking map[string]bool // topics whose partition count is being asked for
	freed  chan struct{}

	acked, records, bytes, split, cut prometheus.Counter
	retries                           *prometheus.CounterVec
}

type lane struct {
	tp    TopicPartition
	wake  chan struct{}
	mu    sync.Mutex
	queue []Message
}

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int
}

func (tp TopicPartition) String() string { return fmt.Sprintf("%s/%d", tp.Topic, tp.Partition) }

// NewProducer makes a producer; lanes start as they are needed and end when Run's context does.
func NewProducer(k *Kafka, cfg ProducerConfig, log *slog.Logger, reg prometheus.Registerer) (*Producer, error) {
	if cfg.InflightBytes <= 0 || cfg.RequestBytes <= 0 || cfg.RequestTimeout <= 0 {
		return nil, errors.New("producer: inflight_bytes, request_bytes and request_timeout must be above zero")
	}
	f := promauto.With(reg)
	p := &Producer{k: k, cfg: cfg, log: log.With("component", "producer"), budget: semaphore.NewWeighted(cfg.InflightBytes),
		lanes: map[TopicPartition]*lane{}, counts: map[string]int{}, asking: map[string]bool{}, freed: make(chan struct{}, 1),
		acked:   f.NewCounter(prometheus.CounterOpts{Name: "weir_producer_acked_batches_total", Help: "Batches that Kafka acknowledged with acks=all."}),
		records: f.NewCounter(prometheus.CounterOpts{Name: "weir_producer_acked_records_total", Help: "Records of batches that Kafka acknowledged."}),
		bytes:   f.NewCounter(prometheus.CounterOpts{Name: "weir_producer_acked_bytes_total", Help: "Bytes of batches that Kafka acknowledged, before compression."}),
		split:   f.NewCounter(prometheus.CounterOpts{Name: "weir_producer_split_batches_total", Help: "Batches larger than the topic takes, sent as two."}),
		cut:     f.NewCounter(prometheus.CounterOpts{Name: "weir_producer_cut_records_total", Help: "Records larger than the topic takes, sent without the end of their body."}),
		retries: f.NewCounterVec(prometheus.CounterOpts{Name: "weir_producer_retries_total", Help: "Produce requests that failed and were tried again, by kind of error: too_large, not_authorized, unknown_topic, not_enough_replicas, no_leader, timeout, connection, other."}, []string{"error"}),
	}
	for kind := range remedies {
		p.retries.WithLabelValues(kind) // so that each is there, as zero
	}
	p.idle = sync.NewCond(&p.mu)
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p, nil
}

// Run returns when ctx has ended and every lane with it. Batches not yet acknowledged stay unacknowledged: call Flush first.
func (p *Producer) Run(ctx context.Context) error {
	<-ctx.Done()
	p.stop()
	p.mu.Lock()
	p.idle.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

// Send queues a batch. It blocks while the in-flight budget is spent or the topic is unknown, and fails only when
// ctx or the producer ended.
func (p *Producer) Send(ctx context.Context, m Message) error {
	m.weight = min(int64(len(m.Value)+256), p.cfg.InflightBytes)
	if err := p.budget.Acquire(ctx, m.weight); err != nil {
		return fmt.Errorf("send to %s: %w", m.Topic, err)
	}
	n, err := p.partitions(ctx, m.Topic)
	if err != nil {
		p.budget.Release(m.weight)
		return err
	}
	tp := TopicPartition{m.Topic, int(murmur2(m.Source)&0x7fffffff) % n}
	if m.Pinned {
		tp.Partition = m.Partition % n
	}
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		p.budget.Release(m.weight)
		return errors.New("the producer has stopped")
	}
	l := p.lanes[tp]
	if l == nil {
		l = &lane{tp: tp, wake: make(chan struct{}, 1)}
		p.lanes[tp] = l
		p.wg.Go(func() { p.drain(l) })
	}
	p.queued++
	l.mu.Lock()
	l.queue = append(l.queue, m)
	l.mu.Unlock()
	p.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// Room says whether values of n bytes for a topic could be sent now without waiting. It never waits itself; where it says no,
// Freed tells when to ask again.
func (p *Producer) Room(topic string, n int64) bool {
	n = min(n, p.cfg.InflightBytes)
	if !p.budget.TryAcquire(n) {
		return false
	}
	p.budget.Release(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts[topic] > 0 {
		return true
	}
	if !p.asking[topic] && p.ctx.Err() == nil {
		p.asking[topic] = true
		p.wg.Go(func() {
			_, _ = p.partitions(p.ctx, topic) // it fails only when the producer ends
			p.mu.Lock()
			delete(p.asking, topic)
			p.mu.Unlock()
			p.tellFreed()
		})
	}
	return false
}

// Freed is signalled when Room may say something else than before. It holds one signal: have one reader.
func (p *Producer) Freed() <-chan struct{} { return p.freed }

func (p *Producer) tellFreed() {
	select {
	case p.freed <- struct{}{}:
	default:
	}
}

// Flush waits until all that was sent is acknowledged.
func (p *Producer) Flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.mu.Lock(); p.idle.Broadcast(); p.mu.Unlock() })
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.queued > 0 {
		if ctx.Err() != nil || p.ctx.Err() != nil {
			return fmt.Errorf("%d batches are not acknowledged by Kafka yet", p.queued)
		}
		p.idle.Wait()
	}
	return nil
}

// partitions asks for a topic's partition count once; it waits for a topic that is not there yet.
func (p *Producer) partitions(ctx context.Context, topic string) (int, error) {
	for try := 0; ; try++ {
		p.mu.Lock()
		n := p.counts[topic]
		p.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		n, err := p.k.partitions(ctx, topic)
		if err == nil {
			p.mu.Lock()
			p.counts[topic] = n
			p.mu.Unlock()
			return n, nil
		}
		if try%10 == 0 {
			p.log.Warn("cannot learn a topic's partitions; sending waits", "topic", topic, "err", err, "remedy", "create it with `weir topics apply`, or check kafka.brokers")
		}
		if err := pause(ctx, p.ctx, p.k.backoff(ctx, try, err)); err != nil {
			return 0, fmt.Errorf("topic %s: %w", topic, err)
		}
	}
}

// Partitions is how many a topic has; it waits for one that is not there yet.
func (p *Producer) Partitions(ctx context.Context, topic string) (int, error) {
	return p.partitions(ctx, topic)
}

// drain is a lane's goroutine.
func (p *Producer) drain(l *lane) {
	for {
		l.mu.Lock()
		n, size := 0, 0
		for n < len(l.queue) && (n == 0 || size+len(l.queue[n].Value) <= p.cfg.RequestBytes) {
			size += len(l.queue[n].Value)
			n++
		}
		run := l.queue[:n:n]
		l.mu.Unlock()
		if n == 0 {
			select {
			case <-p.ctx.Done():
				return
			case <-l.wake:
				continue
			}
		}
		if !p.deliver(l.tp, run, true) {
			return
		}
		l.mu.Lock()
		l.queue = l.queue[n:]
		if len(l.queue) == 0 {
			l.queue = nil // so that acknowledged values can be collected
		}
		l.mu.Unlock()
	}
}

// deliver writes a run of batches, in order, until they are in. It reports false when the producer stopped first. clean says
// that none of them was tried before. What the broker refused three times for a reason that is not known goes without compression: it may be that it cannot
// be decompressed.
func (p *Producer) deliver(tp TopicPartition, run []Message, clean bool) bool {
	compression := compressions[p.k.cfg.Compression]
	for try := 0; ; try++ {
		err := p.produce(tp, run, compression)
		if err == nil {
			p.settle(run, clean && try == 0)
			return true
		}
		if p.ctx.Err() != nil {
			return false
		}
		kind := errorKind(err)
		p.retries.WithLabelValues(kind).Inc()
		if kind == otherError && try >= 2 {
			compression = 0
		}
		if kind == tooLarge {
			if smaller := p.smaller(run); smaller != nil {
				for _, run := range smaller {
					if !p.deliver(tp, run, false) {
						return false
					}
				}
				return true
			}
		}
		if try%8 == 0 {
			p.log.Warn("Kafka does not take a batch; trying again, in order", "topic", tp.Topic, "partition", tp.Partition,
				"source", run[0].Source, "begin", run[0].Begin.String(), "batches", len(run), "bytes", len(run[0].Value), "try", try+1, "err", err, "remedy", remedies[kind])
		}
		if pause(p.ctx, p.ctx, p.k.backoff(p.ctx, try, err)) != nil {
			return false
		}
	}
}

func (p *Producer) produce(tp TopicPartition, run []Message, compression kafka.Compression) error {
	records := make([]kafka.Record, len(run))
	for i := range run {
		m := &run[i]
		info := m.info()
		headers := make([]kafka.Header, 0, 6)
		info.EachHeader(func(k string, v []byte) { headers = append(headers, kafka.Header{Key: k, Value: v}) })
		records[i] = kafka.Record{Key: kafka.NewBytes([]byte(m.Source)), Value: kafka.NewBytes(m.Value), Headers: headers}
	}
	_, err := p.k.produceAs(p.ctx, tp, records, p.cfg.RequestTimeout, compression)
	return err
}

func (p *Producer) settle(run []Message, clean bool) {
	whole := 0
	for i := range run {
		m := &run[i]
		p.records.Add(float64(m.Count))
		p.bytes.Add(float64(len(m.Value)))
		if m.part {
			continue
		}
		whole++
		p.acked.Inc()
		if m.Acked != nil {
			m.Acked()
		}
		p.budget.Release(m.weight)
		if clean && m.Free != nil {
			m.Free(m.Value)
		}
	}
	p.tellFreed()
	p.mu.Lock()
	if p.queued -= whole; p.queued == 0 {
		p.idle.Broadcast()
	}
	p.mu.Unlock()
}

// produce writes with acks=all. kafka-go tells the broker to wait for the other replicas for half of its client's timeout,
// whatever the context says, and for half a second where the client has none: a batch would be appended again with every try
// while a replica is slow or has just died.
func (k *Kafka) produce(ctx context.Context, tp TopicPartition, records []kafka.Record, timeout time.Duration) error {
	_, err := k.produceAt(ctx, tp, records, timeout)
	return err
}

// produceAt tells the offset of the first record too.
func (k *Kafka) produceAt(ctx context.Context, tp TopicPartition, records []kafka.Record, timeout time.Duration) (int64, error) {
	return k.produceAs(ctx, tp, records, timeout, compressions[k.cfg.Compression])
}

func (k *Kafka) produceAs(ctx context.Context, tp TopicPartition, records []kafka.Record, timeout time.Duration, compression kafka.Compression) (int64, error) {
	client := kafka.Client{Addr: k.addr, Transport: k.transport, Timeout: timeout}
	res, err := client.Produce(ctx, &kafka.ProduceRequest{Topic: tp.Topic, Partition: tp.Partition, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(records...), Compression: compression})
	if err != nil {
		return 0, err
	}
	return res.BaseOffset, res.Error
}

// partitions returns a topic's partition count.
func (k *Kafka) partitions(ctx context.Context, topic string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	m, err := k.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return 0, err
	}
	for _, t := range m.Topics {
		if t.Name == topic {
			if t.Error != nil {
				return 0, t.Error
			}
			if len(t.Partitions) > 0 {
				return len(t.Partitions), nil
			}
		}
	}
	return 0, kafka.UnknownTopicOrPartition
}

// tooLarge is the kind of error that smaller requests mend; otherError is what a broker answers that has no kind of its own.
const tooLarge, otherError = "too_large", "other"

// remedies says for every kind of error what an operator can do.
var remedies = map[string]string{
	tooLarge:              "raise the topic's max.message.bytes",
	"not_authorized":      "grant this principal Write on the topic",
	"unknown_topic":       "create the topic with `weir topics apply`, with as many partitions as it had",
	"not_enough_replicas": "too few replicas are in sync; bring the other brokers back",
	"no_leader":           "wait for the partition's new leader; if none comes, bring the brokers back that have its replicas",
	"timeout":             "check that the brokers are up, reachable and not overloaded",
	"connection":          "check that the brokers are up and kafka.brokers is right",
	"other":               "see the brokers' logs",
}

// errorKind is the value of a metric's label: one of the keys of remedies.
func errorKind(err error) string {
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	var code kafka.Error
	var timeout interface{ Timeout() bool }
	switch {
	case is(kafka.MessageSizeTooLarge, kafka.RecordListTooLarge):
		return tooLarge
	case is(kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.SASLAuthenticationFailed):
		return "not_authorized"
	case is(kafka.UnknownTopicOrPartition, protocol.ErrNoTopic, protocol.ErrNoPartition):
		return "unknown_topic"
	case is(kafka.NotEnoughReplicas, kafka.NotEnoughReplicasAfterAppend):
		return "not_enough_replicas"
	case is(kafka.NotLeaderForPartition, kafka.LeaderNotAvailable, kafka.BrokerNotAvailable, protocol.ErrNoLeader):
		return "no_leader"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &code):
		return otherError
	default:
		return "connection"
	}
}

// backoff grows from 100 ms to 10 s, with a quarter of jitter.
func backoff(try int) time.Duration {
	d := min(100*time.Millisecond<<min(try, 10), 10*time.Second)
	return d - rand.N(d/4)
}

// pause sleeps; it ends early with an error when one of the contexts does.
func pause(ctx, other context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-other.Done():
		return context.Cause(other)
	case <-t.C:
		return nil
	}
}

// murmur2 is the hash of Kafka's default partitioner (org.apache.kafka.common.utils.Utils.murmur2), so that
// other producers of the same key meet in the same partition.
func murmur2(s string) uint32 {
	const m, seed = 0x5bd1e995, 0x9747b28c
	h := uint32(seed) ^ uint32(len(s))
	for ; len(s) >= 4; s = s[4:] {
		k := uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h = h*m ^ k
	}
	switch len(s) {
	case 3:
		h ^= uint32(s[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(s[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(s[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
