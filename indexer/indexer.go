package indexer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/elastic/go-elasticsearch/v8"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"weir/ingest"
	"weir/schema"
)

//go:embed templates/component.json
var componentTemplate string

//go:embed templates/index.json
var indexTemplate string

// DeadLetters takes documents that Elasticsearch will never take. Put returns nil when the letter is durable, or will be before the next commit.
type DeadLetters interface {
	Put(ctx context.Context, letter DeadLetter) error
}

// DeadLetter is one refused document and where it came from.
type DeadLetter struct {
	Topic     string
	Partition int
	Offset    int64 // of the Kafka message
	ID        string
	Index     string
	Reason    string
	Document  []byte
}

// Indexer is the sink. It has no goroutines of its own; partitions use it from theirs.
type Indexer struct {
	cfg  Config
	es   *elasticsearch.Client
	dead DeadLetters
	log  *slog.Logger
	m    metrics
	idle func() // closes connections that are not in use

	mu    sync.Mutex
	ready bool // the templates are installed
}

type metrics struct {
	documents, requests *prometheus.CounterVec
	retries             prometheus.Counter
	seconds             prometheus.Histogram
}

// New makes the sink; it does not connect. Without dead letters, a document that is refused for good stops its partition.
func New(cfg Config, dead DeadLetters, log *slog.Logger, reg prometheus.Registerer) (*Indexer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("indexer: %w", err)
	}
	password, err := secret(cfg.PasswordEnv, cfg.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("indexer.password_file: %w", err)
	}
	key, err := secret(cfg.APIKeyEnv, cfg.APIKeyFile)
	if err != nil {
		return nil, fmt.Errorf("indexer.api_key_file: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = cfg.RequestTimeout
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("indexer.ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("indexer.ca_file: %s holds no PEM certificate", cfg.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	es, err := elasticsearch.NewClient(elasticsearch.Config{Addresses: cfg.Addresses, Username: cfg.Username, Password: password, APIKey: key,
		Transport: transport, CompressRequestBody: true, PoolCompressor: true, DisableRetry: true})
	if err != nil {
		return nil, fmt.Errorf("indexer: %w", err)
	}
	f := promauto.With(reg)
	return &Indexer{cfg: cfg, es: es, dead: dead, log: log.With("component", "indexer"), idle: transport.CloseIdleConnections, m: metrics{
		documents: f.NewCounterVec(prometheus.CounterOpts{Name: "weir_indexer_documents_total", Help: "Documents by verdict: created, repeated, dead_letter."}, []string{"result"}),
		requests:  f.NewCounterVec(prometheus.CounterOpts{Name: "weir_indexer_bulk_requests_total", Help: "Bulk requests by HTTP status, or error."}, []string{"status"}),
		retries:   f.NewCounter(prometheus.CounterOpts{Name: "weir_indexer_retried_documents_total", Help: "Documents sent again after a temporary refusal."}),
		seconds:   f.NewHistogram(prometheus.HistogramOpts{Name: "weir_indexer_bulk_seconds", Help: "Duration of bulk requests.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 13)}),
	}}, nil
}

// Close ends the connections to Elasticsearch. The partitions must have been closed before.
func (x *Indexer) Close() error {
	x.idle()
	return nil
}

// Open installs the templates once, and makes the partition's buffer.
func (x *Indexer) Open(ctx context.Context, tp ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	dataset, ok := datasets[tp.Topic]
	if !ok {
		return nil, nil, fmt.Errorf("indexer: topic %s has no data stream", tp.Topic)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.ready {
		if err := x.install(ctx); err != nil {
			return nil, nil, err
		}
		x.ready = true
	}
	return &partition{x: x, tp: tp, dataset: dataset, index: "logs-" + dataset + "-" + x.cfg.Namespace}, nil, nil
}

// install puts the templates, unless the cluster has newer ones.
func (x *Indexer) install(ctx context.Context) error {
	for _, t := range []struct{ path, key, body string }{{"/_component_template/weir", "component_templates", componentTemplate}, {"/_index_template/weir", "index_templates", indexTemplate}} {
		have, err := x.version(ctx, t.path, t.key)
		if err != nil {
			return err
		}
		var own struct {
			Version int `json:"version"`
		}
		if err := json.Unmarshal([]byte(t.body), &own); err != nil {
			return fmt.Errorf("built-in template %s: %w", t.path, err)
		}
		if have > own.Version {
			x.log.Warn("the cluster has a newer template; it is left as it is", "template", t.path, "cluster", have, "built_in", own.Version)
			continue
		}
		if err := x.call(ctx, http.MethodPut, t.path, t.body, nil); err != nil {
			return err
		}
	}
	return nil
}

func (x *Indexer) version(ctx context.Context, path, key string) (int, error) {
	var got map[string][]map[string]json.RawMessage
	err := x.call(ctx, http.MethodGet, path, "", &got)
	var status statusError
	if errors.As(err, &status) && status.code == http.StatusNotFound {
		return 0, nil
	}
	if err != nil || len(got[key]) == 0 {
		return 0, err
	}
	var t struct {
		Version int `json:"version"`
	}
	_ = json.Unmarshal(got[key][0][strings.TrimSuffix(key, "s")], &t)
	return t.Version, nil
}

type statusError struct {
	code int
	text string
}

func (e statusError) Error() string { return e.text }

func (x *Indexer) call(ctx context.Context, method, path, body string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, x.cfg.RequestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := x.es.Perform(req)
	if err != nil {
		return fmt.Errorf("elasticsearch at %v: %s %s: %w", x.cfg.Addresses, method, path, err)
	}
	defer res.Body.Close()
	answer, err := readBounded(res.Body)
	if err != nil {
		return fmt.Errorf("elasticsearch: %s %s: %w", method, path, err)
	}
	if res.StatusCode >= 300 {
		return statusError{res.StatusCode, fmt.Sprintf("elasticsearch: %s %s: status %d: %.300s", method, path, res.StatusCode, answer)}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// partition buffers the documents of one partition.
type partition struct {
	x       *Indexer
	tp      ingest.TopicPartition
	dataset string
	index   string
	share   share
	docs    []doc
	buf     []byte
}

// doc is one document of the buffer: its action line and source are buf[from:to].
type doc struct {
	from, body, to int
	id             string
	offset         int64
}

// Write encodes the records; a full buffer is sent at once.
func (p *partition) Write(ctx context.Context, b *schema.Batch) error {
	shareOf(&p.share, b, p.dataset, p.x.cfg.Namespace)
	for i := range b.Records {
		r := &b.Records[i]
		d := doc{from: len(p.buf), id: b.ID(r), offset: b.KafkaOffset}
		p.buf = append(p.buf, `{"create":{"_id":"`...)
		p.buf = append(append(p.buf, d.id...), "\"}}\n"...)
		d.body = len(p.buf)
		p.buf = append(document(p.buf, r, &p.share), '\n')
		d.to = len(p.buf)
		p.docs = append(p.docs, d)
		if len(p.buf) >= p.x.cfg.BulkBytes {
			if err := p.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Commit sends the rest.
func (p *partition) Commit(ctx context.Context, _ ingest.Checkpoint) error { return p.flush(ctx) }

// Close abandons the buffer.
func (p *partition) Close() error {
	p.docs, p.buf = nil, nil
	return nil
}

func (p *partition) flush(ctx context.Context) error {
	if len(p.docs) == 0 {
		return nil
	}
	if err := p.bulk(ctx, p.docs); err != nil {
		return err
	}
	p.docs, p.buf = p.docs[:0], p.buf[:0]
	return nil
}
