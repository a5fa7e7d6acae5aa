package indexer

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"weir/schema"
)

// Dataset is the dataset that the records of a topic are in where no routing rule says otherwise; empty where they are in none.
func Dataset(topic string) string { return datasets[topic] }

// Encoder makes the documents that the indexer would write, for those who have records from elsewhere.
type Encoder struct {
	router *router
	share  share
}

// NewEncoder makes an encoder with the configuration's routing.
func NewEncoder(cfg Config) *Encoder {
	rt := newRouter(&cfg, slog.New(slog.DiscardHandler), prometheus.NewCounter(prometheus.CounterOpts{Name: "diverted"}))
	return &Encoder{router: rt, share: share{json: cfg.JSONBodies}}
}

// Begin takes a batch; documents of its records follow.
func (e *Encoder) Begin(b *schema.Batch) { e.share.begin(b) }

// Document appends a record's document, and names the data stream that it belongs to.
func (e *Encoder) Document(dst []byte, b *schema.Batch, r *schema.Record) (doc []byte, dataStream string) {
	if b.Topic == schema.TopicLogs {
		e.share.stream = e.router.route(b, nil)
	} else {
		e.share.stream = e.router.route(b, r)
	}
	if e.share.stream == nil { // a topic that the indexer does not read
		e.share.stream = streamOf(string(sanitise(nil, b.Topic)), "default")
	}
	return e.share.document(dst, r), e.share.stream.name
}
