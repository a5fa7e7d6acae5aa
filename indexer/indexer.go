package indexer

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"weir/ingest"
	"weir/schema"
)

// Indexer is the sink. It has no goroutines of its own; partitions use it from theirs.
type Indexer struct {
	*Cluster
	dead   DeadLetters
	log    *slog.Logger
	m      metrics
	pace   *pace
	router *router
	zips   sync.Pool // *gzip.Writer

	mu    sync.Mutex
	ready bool // what is installed is not older than this build
}

type metrics struct {
	documents, requests *prometheus.CounterVec
	retries, sent       prometheus.Counter
	seconds             prometheus.Histogram
}

// New makes the sink; it does not connect. Without dead letters, a document that is refused for good stops its partition.
func New(cfg Config, dead DeadLetters, log *slog.Logger, reg prometheus.Registerer) (*Indexer, error) {
	c, err := Connect(cfg)
	if err != nil {
		return nil, err
	}
	return newIndexer(c, dead, log, reg), nil
}

func newIndexer(c *Cluster, dead DeadLetters, log *slog.Logger, reg prometheus.Registerer) *Indexer {
	f := promauto.With(reg)
	x := &Indexer{Cluster: c, dead: dead, log: log.With("component", "indexer"), pace: newPace(&c.cfg), m: metrics{
		documents: f.NewCounterVec(prometheus.CounterOpts{Name: "weir_indexer_documents_total", Help: "Documents by verdict: created, repeated, dead_letter."}, []string{"result"}),
		requests:  f.NewCounterVec(prometheus.CounterOpts{Name: "weir_indexer_bulk_requests_total", Help: "Bulk requests by HTTP status, or error."}, []string{"status"}),
		retries:   f.NewCounter(prometheus.CounterOpts{Name: "weir_indexer_retried_documents_total", Help: "Documents sent again after a temporary refusal."}),
		sent:      f.NewCounter(prometheus.CounterOpts{Name: "weir_indexer_sent_bytes_total", Help: "Bytes of bulk requests, compressed."}),
		seconds:   f.NewHistogram(prometheus.HistogramOpts{Name: "weir_indexer_bulk_seconds", Help: "Duration of bulk requests.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 13)}),
	}}
	x.router = newRouter(&c.cfg, x.log, f.NewCounter(prometheus.CounterOpts{Name: "weir_indexer_diverted_documents_total", Help: "Documents that went to the dataset of their topic because max_data_streams is reached."}))
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_indexer_bulk_limit_requests", Help: "Bulk requests that may be under way at once, as the cluster's answers allow."}, func() float64 { n, _ := x.pace.now(); return n })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_indexer_bulk_limit_bytes", Help: "Size of a bulk request, as the cluster's answers allow."}, func() float64 { _, n := x.pace.now(); return n })
	x.zips.New = func() any {
		z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
		return z
	}
	return x
}

// Open makes sure of the index design once, and makes the partition's buffer.
func (x *Indexer) Open(ctx context.Context, tp ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	if datasets[tp.Topic] == "" {
		return nil, nil, fmt.Errorf("indexer: topic %s has no data stream", tp.Topic)
	}
	if err := x.prepare(ctx); err != nil {
		return nil, nil, err
	}
	if err := x.router.look(ctx, x.Cluster); err != nil {
		return nil, nil, err
	}
	x.pace.opened(1)
	return &partition{x: x, tp: tp, share: share{json: x.cfg.JSONBodies}, unsure: true}, nil, nil
}

// prepare sees to it that the index design is not older than this build needs.
func (x *Indexer) prepare(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ready {
		return nil
	}
	p, err := x.PlanIndex(ctx)
	if err != nil {
		return err
	}
	var old []string
	differ := false
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Have < IndexVersion {
			old = append(old, fmt.Sprintf("%s %s (version %d)", c.Kind, c.Name, c.Have))
		} else {
			differ = differ || len(c.Lines) > 0
		}
	}
	switch newer := p.Newer(); {
	case len(newer) > 0:
		x.log.Warn("the cluster has a newer index design; it is left as it is", "newer", newer, "built_in", IndexVersion)
	case x.cfg.Apply != nil && *x.cfg.Apply && (len(old) > 0 || differ):
		if err := x.ApplyIndex(ctx, p, false); err != nil {
			return err
		}
		x.log.Info("installed the index design", "version", IndexVersion, "rolled_over", len(p.Rollover))
	case len(old) > 0:
		return fmt.Errorf("elasticsearch lacks the index design that this build needs (version %d): %s; run `weir index apply`, or set indexer.apply: true", IndexVersion, strings.Join(old, ", "))
	case differ:
		x.log.Info("the index design in the cluster differs from the configuration; `weir index apply --dry-run` shows how")
	}
	for _, note := range p.Notes {
		x.log.Info(note)
	}
	x.ready = true
	return nil
}

// partition buffers the documents of one partition.
type partition struct {
	x      *Indexer
	tp     ingest.TopicPartition
	share  share
	docs   []doc
	buf    []byte
	packed []byte // the request under way, compressed
	closed bool
	unsure bool // what is written may be there from before a crash
	again  bool // or it is written again, any of it
}

// doc is one document of the buffer: its action line is buf[from:body], its source and a newline buf[body:to].
type doc struct {
	from, body, to int
	offset         int64
	stream         *stream
	source         string
}

const (
	actionHead = `{"create":{"_index":"`
	actionID   = `","_id":"`
	actionTail = "\"}}\n"
)

func (p *partition) id(d *doc) []byte {
	return p.buf[d.from+len(actionHead)+len(d.stream.name)+len(actionID) : d.body-len(actionTail)]
}

// Write encodes the records; a full buffer is sent at once.
func (p *partition) Write(ctx context.Context, b *schema.Batch) error {
	size := p.x.pace.size()
	source := strings.Clone(b.Source) // the batch's memory is lent
	p.share.begin(b)
	p.share.stream = p.x.router.route(b, nil)
	each := p.x.router.perRecord(b.Topic)
	var id []byte
	for i := range b.Records {
		r := &b.Records[i]
		if each {
			p.share.stream = p.x.router.route(b, r)
		}
		id = b.AppendID(id[:0], r)
		p.begin(p.share.stream, source, b.KafkaOffset, id)
		p.buf = p.share.document(p.buf, r)
		p.end()
		if len(p.buf) >= size {
			if err := p.flush(ctx); err != nil {
				return err
			}
			size = p.x.pace.size()
		}
	}
	return nil
}

// begin appends a document's action line.
func (p *partition) begin(to *stream, source string, offset int64, id []byte) {
	d := doc{from: len(p.buf), offset: offset, stream: to, source: source}
	p.buf = append(append(append(p.buf, actionHead...), to.name...), actionID...)
	p.buf = append(append(p.buf, id...), actionTail...)
	d.body = len(p.buf)
	p.docs = append(p.docs, d)
}

// end is called when the document itself is appended.
func (p *partition) end() {
	p.buf = append(p.buf, '\n')
	p.docs[len(p.docs)-1].to = len(p.buf)
}

// Commit sends the rest.
func (p *partition) Commit(ctx context.Context, _ ingest.Checkpoint) error { return p.flush(ctx) }

// Close abandons the buffer.
func (p *partition) Close() error {
	if !p.closed {
		p.x.pace.opened(-1)
	}
	p.docs, p.buf, p.packed, p.closed = nil, nil, nil, true
	return nil
}

// spare is how much buffer a partition keeps between its requests; one huge document must not hold memory for good.
const spare = 2

func (p *partition) flush(ctx context.Context) error {
	if len(p.docs) == 0 {
		return nil
	}
	docs := p.docs
	if p.unsure {
		var err error
		if docs, err = p.news(ctx, docs); err != nil {
			return err
		}
	}
	if err := p.bulk(ctx, docs); err != nil {
		return err
	}
	clear(p.docs)
	p.docs, p.buf = p.docs[:0], p.buf[:0]
	if most := spare * p.x.pace.size(); cap(p.buf) > most {
		p.buf, p.packed = nil, nil
	}
	return nil
}
