package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/archiver/read"
	"weir/indexer"
	"weir/ingest"
	"weir/internal/telemetry"
	"weir/schema"
)

type replayCmd struct {
	Query   string `arg:"" optional:"" help:"Which records, in KQL as for search. All without one."`
	Archive string `help:"The archive: hdfs://namenode:8020/path or file:///path." placeholder:"ROOT" required:""`
	Since   string `help:"From when: how long ago (90m, 2d), or a time; all for everything there is." required:""`
	Until   string `help:"Until when, as --since." placeholder:"TIME"`
	App     string `help:"Only this app."`
	Dataset string `help:"Only this dataset, such as container, event or signal."`
	To      string `help:"Where to: kafka, or elasticsearch." enum:"kafka,elasticsearch" required:""`
	Rate    string `help:"At most so many records a second; 0 for as many as go." default:"5000/s"`
	Topic   string `help:"The topic for all records; each goes to its own without it. Kafka alone." placeholder:"TOPIC"`
	DryRun  bool   `help:"Count what would be sent, and send nothing."`
}

// replayWindow is how many records are sent before the next are: all of them are durable then.
const replayWindow = 8192

func (c replayCmd) Run(ctx context.Context, g *globals) error {
	rate, err := parseRate(c.Rate)
	if err != nil {
		return err
	}
	if c.Topic != "" && c.To != "kafka" {
		return errors.New("--topic is of Kafka: leave it out with --to elasticsearch")
	}
	cfg, err := g.load()
	if err != nil {
		return err
	}
	now := time.Now()
	q := searchCmd{Query: c.Query, Since: c.Since, Until: c.Until, App: c.App}
	sq, err := q.query(now)
	if err != nil {
		return err
	}
	query, err := archiveQuery(sq.KQL, sq.App, c.Dataset, sq.Since, sq.Until, now)
	if err != nil {
		return err
	}
	st, err := openArchive(cfg.Archiver.Config, c.Archive)
	if err != nil {
		return err
	}
	defer st.Close()
	told := &reading{out: g.err, terminal: isTerminal(g.err), before: func() error { return nil }}
	p := &replay{rate: rate, window: replayWindow, told: told, reader: read.New(st), query: query, topic: c.Topic}
	if c.DryRun {
		p.to = counted{}
	} else {
		r, err := newRuntime(cfg, telemetry.Logger(g.err, cfg.Log.Format, cfg.Log.Level))
		if err != nil {
			return err
		}
		defer r.kafka.Close()
		if c.To == "kafka" {
			running, stop := context.WithCancel(context.WithoutCancel(ctx))
			var producer errgroup.Group
			producer.Go(func() error { return r.producer.Run(running) })
			defer func() { stop(); _ = producer.Wait() }()
			to := &toKafka{Producer: r.producer, ends: map[string]schema.Position{}}
			if c.Topic == "" {
				to.first = r.kafka.Bounds
			}
			p.to = to
		} else {
			refused := &indexer.Refusals{}
			x, err := indexer.New(cfg.Indexer, refused, r.log, r.reg)
			if err != nil {
				return err
			}
			defer x.Close()
			p.to = toElasticsearch{x}
		}
	}
	err = p.run(ctx)
	told.end()
	fmt.Fprintln(g.out, p.to.said(p.sent))
	if err != nil && !p.upTo.IsZero() {
		fmt.Fprintf(g.out, "all before %s is done; to go on: --since %[1]s\n", p.upTo.UTC().Format(time.RFC3339Nano))
	}
	if err == nil {
		err = p.to.failed()
	}
	return err
}

func parseRate(s string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "/s"), 64)
	if err != nil || n < 0 || n > 1e9 {
		return 0, fmt.Errorf("--rate %q is not a number of records a second, such as 5000/s; 0 is no bound", s)
	}
	return n, nil
}

// replay sends records of the archive again.
type replay struct {
	reader *read.Reader
	query  read.Query
	topic  string  // for all; empty: their own
	rate   float64 // records a second; 0: no bound
	window int     // most records that are sent before the next
	told   *reading
	to     replayTo

	sent  int64
	begun time.Time
	upTo  time.Time // everything before it is durable
}

// replayTo takes batches of one topic. When send returns they are durable, or refused for good.
type replayTo interface {
	send(ctx context.Context, topic string, batches []*schema.Batch) error
	said(sent int64) string
	failed() error
}

func (p *replay) run(ctx context.Context) error {
	p.begun = time.Now()
	var hits []*read.Hit
	flush := func() error {
		if err := p.send(ctx, hits); err != nil {
			return err
		}
		if len(hits) > 0 {
			p.upTo = time.Unix(0, hits[len(hits)-1].At)
		}
		hits = hits[:0]
		return nil
	}
	most := p.window
	if p.rate > 0 {
		most = min(most, max(1, int(p.rate))) // a second's
	}
	for h, err := range p.reader.Records(ctx, p.query, p.told.see) {
		if err != nil {
			if errors.Is(err, read.ErrMissing) { // it comes last
				err = errors.Join(err, flush())
			}
			return err
		}
		if hits = append(hits, h); len(hits) == most {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// send sends a window's batches, each topic's at once, no sooner than the rate allows.
func (p *replay) send(ctx context.Context, hits []*read.Hit) error {
	byTopic := map[string][]*schema.Batch{}
	var topics []string
	for _, b := range read.Group(hits) {
		if byTopic[b.Topic] == nil {
			topics = append(topics, b.Topic)
		}
		byTopic[b.Topic] = append(byTopic[b.Topic], b)
	}
	if p.rate > 0 {
		due := p.begun.Add(time.Duration(float64(p.sent) / p.rate * float64(time.Second)))
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	for _, topic := range topics {
		to := topic
		if p.topic != "" {
			to = p.topic
		}
		if err := p.to.send(ctx, to, byTopic[topic]); err != nil {
			return err
		}
	}
	p.sent += int64(len(hits))
	return nil
}

// counted is a dry run.
type counted struct{}

func (counted) send(context.Context, string, []*schema.Batch) error { return nil }
func (counted) said(sent int64) string                              { return fmt.Sprintf("%d records would be sent", sent) }
func (counted) failed() error                                       { return nil }

type toKafka struct {
	*ingest.Producer
	first func(context.Context, ingest.TopicPartition) (first, next int64, err error) // of the records' own topics, where they go there
	has   map[ingest.TopicPartition]int64                                             // what it said
	ends  map[string]schema.Position                                                  // of the batches sent, by source and incarnation
	back  int64                                                                       // records that were sent after later ones of their file
}

// send waits until Kafka has all. The batches say nothing of what comes before them, so that consumers take what lies between two for
// known; whoever has the records drops them.
func (k *toKafka) send(ctx context.Context, topic string, batches []*schema.Batch) error {
	var e schema.Encoder
	if err := k.known(ctx, batches); err != nil {
		return err
	}
	for _, b := range batches {
		var resource []schema.Attr
		for _, a := range b.Resource {
			if a.Key != schema.AttrSource && a.Key != schema.AttrIncarnation { // the encoder adds these
				resource = append(resource, a)
			}
		}
		file := b.Source + " " + b.Begin.Incarnation.String()
		if last := k.ends[file]; b.Begin.Compare(last) < 0 {
			k.back += int64(len(b.Records))
		} else {
			k.ends[file] = b.End
		}
		e.Reset(b.Source, b.Begin.Incarnation, resource)
		for i := range b.Records {
			e.Append(&b.Records[i])
		}
		if err := k.Send(ctx, ingest.Message{Topic: topic, Source: b.Source, Begin: b.Begin, End: b.End, Count: len(b.Records), Value: append([]byte(nil), e.Bytes()...)}); err != nil {
			return err
		}
	}
	return k.Flush(ctx)
}

// known refuses what Kafka has had and has no more: consumers forget the sources that ended once Kafka has nothing of them, and would take the
// records for new ones.
func (k *toKafka) known(ctx context.Context, batches []*schema.Batch) error {
	if k.first == nil {
		return nil
	}
	for _, b := range batches {
		tp := ingest.TopicPartition{Topic: b.Topic, Partition: b.Partition}
		first, asked := k.has[tp]
		if !asked {
			var err error
			if first, _, err = k.first(ctx, tp); err != nil {
				return err
			}
			if k.has == nil {
				k.has = map[ingest.TopicPartition]int64{}
			}
			k.has[tp] = first
		}
		if b.KafkaOffset < first {
			return fmt.Errorf("records of offset %d of %s, and Kafka begins at %d: consumers may have forgotten them, and would archive and count them again; "+
				"send them to a topic of their own with --topic, or name the topic with it to have them taken for new ones", b.KafkaOffset, tp, first)
		}
	}
	return nil
}

func (k *toKafka) said(sent int64) string {
	said := fmt.Sprintf("%d records sent and acknowledged by Kafka; consumers that have them drop them", sent)
	if k.back > 0 {
		said += fmt.Sprintf("\n%d of them are of earlier places in their files than records sent before: a consumer that has neither may take them for repeats", k.back)
	}
	return said
}

func (k *toKafka) failed() error { return nil }

type toElasticsearch struct{ *indexer.Indexer }

func (x toElasticsearch) send(ctx context.Context, topic string, batches []*schema.Batch) error {
	return x.Restore(ctx, topic, batches)
}

func (x toElasticsearch) said(int64) string {
	created, repeated, refused := x.Verdicts()
	return fmt.Sprintf("%d records created, %d were there already, %d refused", created, repeated, refused)
}

func (x toElasticsearch) failed() error {
	if _, _, refused := x.Verdicts(); refused > 0 {
		return errors.New("elasticsearch refused records; the log says why")
	}
	return nil
}
