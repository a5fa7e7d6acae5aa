package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"weir/schema"
)

// catchUp is how many commit intervals a partition may take for a commit while it is behind: fewer and larger ones let it catch up sooner, and
// nobody waits for its newest record, which is not even read. A sink with its own commit has an interval that is long as it is.
const catchUp = 10

// fetchWait is how long a fetch waits at the end of a partition.
const fetchWait = 250 * time.Millisecond

// forgetEvery is how often the sources are forgotten of which nothing can come any more.
const forgetEvery = 10 * time.Minute

// stopCommitTimeout bounds the last write and commit when the process was asked to stop.
const stopCommitTimeout = 20 * time.Second

// partition is one goroutine's work on one partition of one generation.
type partition struct {
	c            *Consumer
	tp           TopicPartition
	committed    int64
	commitOffset func(next int64) error

	lag, settled, known prometheus.Gauge

	sink    PartitionSink
	sources map[string]*Seen
	changed map[string]*Seen // since the last commit; nil is forgotten
	forgot  time.Time        // when forget looked last
	next    int64            // Kafka offset to read
	bytes   int64            // written since the last commit
	moved   bool             // next moved since the last commit
	behind  bool             // Kafka has more than the last fetch brought
	written time.Time        // of the first message since the last commit

	decoder schema.Decoder
	batch   schema.Batch
}

// run works until ctx ends or something fails; gctx is the group generation's. When the process stops, as opposed to a
// rebalance, what is being written and committed then is finished, and what was written is committed.
func (p *partition) run(ctx, gctx context.Context) (err error) {
	if err := p.open(ctx); err != nil {
		return err
	}
	grace, cancel := context.WithCancel(gctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopCommitTimeout, cancel) })
	defer stop()
	defer func() {
		if err == nil && gctx.Err() == nil && p.moved {
			err = p.commit(grace)
		}
		err = errors.Join(err, p.sink.Close())
	}()
	for failed := 0; ctx.Err() == nil; {
		messages, high, err := p.c.k.fetch(ctx, p.tp, p.next, p.c.cfg.FetchBytes, fetchWait)
		switch {
		case errors.Is(err, kafka.OffsetOutOfRange):
			if err := p.outOfRange(ctx); err != nil {
				return err
			}
			continue
		case err != nil:
			// What was written stays good: only the reading is tried again.
			p.c.m.errors.WithLabelValues(p.tp.Topic).Inc()
			if failed%8 == 1 && ctx.Err() == nil {
				p.c.log.Warn("cannot read from Kafka; trying again", "topic", p.tp.Topic, "partition", p.tp.Partition, "offset", p.next, "try", failed+1, "err", err)
			}
			_ = pause(ctx, ctx, p.c.k.backoff(ctx, failed, err))
			failed++
		default:
			failed = 0
			lag := max(0, high-p.next-int64(len(messages)))
			p.behind = lag > 0
			p.lag.Set(float64(lag))
			if !p.moved && !p.behind {
				p.settled.SetToCurrentTime()
			}
		}
		for i := range messages {
			if ctx.Err() != nil {
				return nil
			}
			if err := p.take(grace, &messages[i]); err != nil {
				return err
			}
			if p.bytes >= p.c.cfg.CommitBytes {
				if err := p.commit(grace); err != nil {
					return err
				}
			}
		}
		due := p.due()
		if ticker, ok := p.sink.(Ticker); ok && err == nil {
			wants, err := ticker.Tick(grace, !p.behind)
			if err != nil {
				return fmt.Errorf("%s at offset %d: %w", p.tp, p.next, err)
			}
			due = due || wants
		}
		if due {
			if err := p.commit(grace); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *partition) due() bool {
	if !p.moved {
		return false
	}
	if pacer, ok := p.sink.(Pacer); ok && pacer.CommitDue() {
		return true
	}
	wait := p.c.cfg.CommitInterval
	if p.behind && !p.c.cfg.OwnCommit {
		wait *= catchUp
	}
	return time.Since(p.written) >= wait
}

// open finds where to go on: with the sink's own checkpoint, or with the saved state and the committed offset.
func (p *partition) open(ctx context.Context) (err error) {
	var cp *Checkpoint
	if p.sink, cp, err = p.c.sink.Open(ctx, p.tp); err != nil {
		return fmt.Errorf("open the sink for %s: %w", p.tp, err)
	}
	p.changed, p.bytes, p.moved = map[string]*Seen{}, 0, false
	p.next = p.committed
	switch {
	case cp != nil:
		p.next = cp.NextOffset
		p.sources, err = restore(cp.Seen)
	case p.c.cfg.OwnCommit:
		// A sink that has no commit of its own has nothing, whatever offset the group committed.
		p.next, p.sources = kafka.FirstOffset, map[string]*Seen{}
	default:
		var saved int64
		if p.sources, saved, err = p.c.state.load(ctx, p.tp); err == nil && saved > p.next {
			p.next = saved
		}
	}
	if p.committed < 0 {
		// The first time, or Kafka forgot the group's offset: the topic was deleted and made anew, or nobody read for long. What
		// is there is read from the start, and what was seen is dropped.
		p.next = kafka.FirstOffset
	}
	if err == nil && p.next < 0 {
		p.next, _, err = p.c.k.bounds(ctx, p.tp)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("restore %s: %w", p.tp, err), p.sink.Close())
	}
	return nil
}

// outOfRange goes to the first offset that Kafka still has, and says what was missed.
func (p *partition) outOfRange(ctx context.Context) error {
	first, next, err := p.c.k.bounds(ctx, p.tp)
	if err != nil {
		return err
	}
	switch {
	case p.next < first:
		p.c.m.expired.WithLabelValues(p.tp.Topic).Add(float64(first - p.next))
		p.c.log.Error("Kafka deleted batches before they were read; raise the topic's retention or catch up sooner", "topic", p.tp.Topic, "partition", p.tp.Partition, "from", p.next, "to", first)
		if err := p.tell(ctx, p.next, schema.EventLoss, "Kafka's retention deleted batches before they were read",
			schema.String(schema.AttrLossReason, "kafka_retention"), schema.Int("weir.kafka.from", p.next), schema.Int("weir.kafka.to", first)); err != nil {
			return err
		}
	case p.next > next:
		p.c.log.Error("the partition ends before the committed offset: the topic was made anew or truncated; reading from its start", "topic", p.tp.Topic, "partition", p.tp.Partition, "committed", p.next, "end", next)
	}
	p.next, p.moved = first, true
	return nil
}

// take gives one message's unseen records to the sink.
func (p *partition) take(ctx context.Context, m *fetched) error {
	var info schema.Info
	if err := decode(&p.decoder, p.tp, m, &p.batch, &info); err != nil {
		if err := p.bury(ctx, m, err); err != nil {
			return err
		}
	} else if err := p.admit(ctx, m, &info); err != nil {
		return err
	}
	if !p.moved {
		p.moved, p.written = true, time.Now()
	}
	p.next = m.offset + 1
	return nil
}

func (p *partition) admit(ctx context.Context, m *fetched, info *schema.Info) error {
	topic := p.tp.Topic
	seen := p.sources[info.Source]
	if seen == nil {
		seen = new(Seen)
		p.sources[strings.Clone(info.Source)] = seen
	}
	v := seen.Admit(info)
	n := len(p.batch.Records)
	seen.end(m.offset, n > 0 && p.batch.Records[n-1].EventName == schema.EventSourceClosed, &v)
	p.changed[info.Source] = seen
	if v.BelowMark {
		p.c.m.belowFloor.WithLabelValues(topic).Inc()
		p.c.log.Warn("dropped a batch of a file older than all that is remembered of its source", "source", info.Source, "begin", info.Begin.String(), "topic", topic, "partition", p.tp.Partition, "offset", m.offset)
	}
	if v.Closed {
		p.c.m.closed.WithLabelValues(topic).Inc()
	}
	if v.Gap.hi > v.Gap.lo {
		p.c.m.gaps.WithLabelValues(topic).Inc()
		from, to := schema.Position{Incarnation: v.GapIn, Offset: v.Gap.lo}, schema.Position{Incarnation: v.GapIn, Offset: v.Gap.hi}
		p.c.log.Warn("a source's positions jump: records are missing or late", "source", info.Source, "from", from.String(), "to", to.String(), "topic", topic, "partition", p.tp.Partition, "offset", m.offset)
		if err := p.tell(ctx, m.offset, schema.EventGapOpened, "records are missing or late", schema.String("weir.gap.source", info.Source),
			schema.String("weir.gap.from", from.String()), schema.String("weir.gap.to", to.String())); err != nil {
			return err
		}
	}
	all := p.batch.Records
	kept := all[:0]
	for i := range all {
		if v.Admits(all[i].Offset) {
			kept = append(kept, all[i])
		}
	}
	p.batch.Records, p.batch.From = kept, v.From
	p.c.m.repeated.WithLabelValues(topic).Add(float64(len(all) - len(kept)))
	if len(kept) == 0 {
		return nil
	}
	err := p.sink.Write(ctx, &p.batch)
	if isPoison(err) {
		return p.bury(ctx, m, err)
	}
	if err != nil {
		return fmt.Errorf("write %s offset %d: %w", p.tp, m.offset, err)
	}
	p.bytes += int64(len(m.value))
	p.c.m.delivered.WithLabelValues(topic).Add(float64(len(kept)))
	return nil
}

// commit makes what was written durable, then the state, then the offset.
func (p *partition) commit(ctx context.Context) error {
	p.forget(ctx)
	cp := Checkpoint{NextOffset: p.next}
	if p.c.cfg.OwnCommit {
		cp.Seen = snapshot(p.sources)
	}
	if err := p.sink.Commit(ctx, cp); err != nil {
		return fmt.Errorf("commit %s up to offset %d: %w", p.tp, p.next, err)
	}
	if p.c.aux != nil {
		if err := p.c.aux.Flush(ctx); err != nil {
			return err
		}
	}
	if !p.c.cfg.OwnCommit {
		if err := p.c.state.save(ctx, p.tp, p.changed, p.next); err != nil {
			return err
		}
	}
	if err := p.commitOffset(p.next); err != nil {
		return fmt.Errorf("commit the offset of %s: %w", p.tp, err)
	}
	p.committed = p.next
	clear(p.changed)
	p.bytes, p.moved = 0, false
	p.settled.SetToCurrentTime()
	return nil
}

// forget lets go of the sources that have ended and of which Kafka has nothing any more, so that what is held does not grow with every container
// that ever was.
func (p *partition) forget(ctx context.Context) {
	defer func() { p.known.Set(float64(len(p.sources))) }()
	if time.Since(p.forgot) < p.c.forgetEvery {
		return
	}
	p.forgot = time.Now()
	first, _, err := p.c.k.bounds(ctx, p.tp)
	if err != nil {
		p.c.log.Debug("sources that have ended are forgotten later", "err", err)
		return
	}
	for name, seen := range p.sources {
		if seen.forgettable(first) {
			delete(p.sources, name)
			p.changed[name] = nil
		}
	}
}

// bury sends a message that cannot be used to the dead letters, whole.
func (p *partition) bury(ctx context.Context, m *fetched, why error) error {
	if p.c.aux == nil {
		return fmt.Errorf("no producer for dead letters: %w", why)
	}
	p.c.m.poison.WithLabelValues(p.tp.Topic).Inc()
	p.c.log.Error("sent a message to the dead letters", "topic", p.tp.Topic, "partition", p.tp.Partition, "offset", m.offset, "err", why)
	r := schema.Record{Body: string(m.value), BodyBytes: true, EventName: "weir.deadletter", Offset: m.offset, Observed: time.Now().UnixNano(), Attrs: []schema.Attr{
		schema.String("error.message", why.Error()), schema.String("weir.deadletter.topic", p.tp.Topic), schema.Int("weir.deadletter.partition", int64(p.tp.Partition)), schema.Int("weir.deadletter.offset", m.offset)}}
	return p.send(ctx, schema.TopicDeadLetter, &r)
}

// tell writes an event about this partition. Its position is the Kafka offset it speaks of, so that telling it again is a repeat.
func (p *partition) tell(ctx context.Context, offset int64, event, body string, attrs ...schema.Attr) error {
	if p.c.aux == nil {
		return nil
	}
	return p.send(ctx, schema.TopicEvents, &schema.Record{Body: body, EventName: event, Severity: schema.SeverityWarn, SeverityText: "WARN", Offset: offset, Observed: time.Now().UnixNano(), Attrs: attrs})
}

func (p *partition) send(ctx context.Context, topic string, r *schema.Record) error {
	source := "weir/ingest/" + p.c.cfg.Group + "/" + p.tp.String()
	var e schema.Encoder
	e.Reset(source, schema.Incarnation{}, nil)
	e.Append(r)
	return p.c.aux.Send(ctx, Message{Topic: topic, Source: source, Begin: schema.Position{Offset: r.Offset}, End: schema.Position{Offset: r.Offset + 1}, Count: 1, Value: e.Bytes()})
}
