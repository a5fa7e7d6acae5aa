//go:build e2e

package indexer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/internal/broker"
	"weir/schema"
)

// server is an Elasticsearch as the tests ask it.
type server struct {
	t      *testing.T
	url    string
	client *http.Client
	auth   string
}

func shared(t *testing.T) *server {
	t.Helper()
	url := os.Getenv("WEIR_ELASTICSEARCH_URL")
	if url == "" {
		t.Fatal("WEIR_ELASTICSEARCH_URL is not set: run `make e2e`")
	}
	return &server{t: t, url: url, client: http.DefaultClient}
}

// ask fails the test on an error other than not found.
func (s *server) ask(method, path, body string, into any) {
	s.t.Helper()
	if status, answer := s.try(method, path, body, into); status >= 300 && status != http.StatusNotFound {
		s.t.Fatalf("%s %s: %d %.600s", method, path, status, answer)
	}
}

func (s *server) try(method, path, body string, into any) (status int, answer []byte) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if s.auth != "" {
		req.Header.Set("Authorization", s.auth)
	}
	req.Close = true // no connection is left behind
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		s.t.Fatal(err)
	}
	if into != nil && res.StatusCode < 300 {
		d := json.NewDecoder(bytes.NewReader(answer))
		d.UseNumber()
		if err := d.Decode(into); err != nil {
			s.t.Fatal(err)
		}
	}
	return res.StatusCode, answer
}

// ids counts every document of a data stream, or of a pattern of them, by id.
func (s *server) ids(stream string) map[string]int {
	s.t.Helper()
	s.ask(http.MethodPost, "/"+stream+"/_refresh?ignore_unavailable=true", "", nil)
	ids := map[string]int{}
	after, sum := "", 0
	for {
		var found struct {
			Hits struct {
				Total struct{ Value int } `json:"total"`
				Hits  []struct {
					ID   string `json:"_id"`
					Sort []any  `json:"sort"`
				} `json:"hits"`
			} `json:"hits"`
		}
		s.ask(http.MethodPost, "/"+stream+"/_search?ignore_unavailable=true", `{"size":10000,"_source":false,"track_total_hits":true,"sort":["weir.source","log.offset"]`+after+`}`, &found)
		for _, h := range found.Hits.Hits {
			ids[h.ID]++
			sum++
		}
		if len(found.Hits.Hits) < 10000 {
			if sum < found.Hits.Total.Value { // what is there twice can fall between two pages
				s.t.Errorf("%s has %d documents, of which the pages show %d", stream, found.Hits.Total.Value, sum)
			}
			return ids
		}
		last, _ := json.Marshal(found.Hits.Hits[len(found.Hits.Hits)-1].Sort)
		after = `,"search_after":` + string(last)
	}
}

// await polls until the condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: not %s", what)
		}
	}
}

func namespace(name string) string { return fmt.Sprintf("%s%d", name, time.Now().UnixNano()) }

// TestRealElasticsearch runs the sinks' suite on a real cluster, each test in a namespace of its own.
func TestRealElasticsearch(t *testing.T) {
	s := shared(t)
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		space := namespace("suite")
		return sinktest.Harness{
			New: func(t *testing.T) ingest.Sink {
				return testIndexer(t, s.url, nil, func(c *Config) { c.Namespace = space })
			},
			Read: func(t *testing.T) map[string]int { return s.ids("logs-weir.container-" + space) },
		}
	})
}

// write gives batches to a new partition and commits.
func write(t *testing.T, x *Indexer, topic string, batches ...*schema.Batch) {
	t.Helper()
	p, _, err := x.Open(t.Context(), ingest.TopicPartition{Topic: topic, Partition: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, b := range batches {
		b.Topic = topic
		if err := p.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Commit(t.Context(), ingest.Checkpoint{NextOffset: 8}); err != nil {
		t.Fatal(err)
	}
}

// count counts the leaves of the mappings of a data stream.
func (s *server) fields(stream string) int {
	s.t.Helper()
	var mappings map[string]any
	s.ask(http.MethodGet, "/"+stream+"/_mapping", "", &mappings)
	n := 0
	var walk func(any)
	walk = func(v any) {
		m, _ := v.(map[string]any)
		if _, leaf := m["type"].(string); leaf {
			n++
			return
		}
		for _, e := range m {
			walk(e)
		}
	}
	walk(mappings)
	return n
}

// TestRealMappings puts every kind of value through the real mappings: all are taken, none makes a field, and the nanoseconds are kept.
func TestRealMappings(t *testing.T) {
	s := shared(t)
	dead := &letters{}
	x := testIndexer(t, s.url, dead, func(c *Config) { c.Namespace = namespace("mappings") })
	stream := "logs-weir.container-" + x.cfg.Namespace
	plain := batch(1)
	plain.Source = "plain"
	write(t, x, schema.TopicLogs, plain)
	before := s.fields(stream)

	b := batch(6)
	b.Resource = append(b.Resource, schema.String(schema.LabelPrefix+"app", "x"), schema.String(schema.LabelPrefix+"app.kubernetes.io/name", "y"))
	b.Records[0].Attrs = []schema.Attr{schema.Int("value", 1), schema.String("process.thread.id", "main"), schema.Int("http.response.status_code", 200)}
	b.Records[1].Attrs = []schema.Attr{schema.String("value", "a word"), schema.String("value.sub", "deeper"), schema.Bool("flag", true), schema.String("http.response.status_code", "teapot"), schema.String("", "no name"), schema.String(".", "dots"), schema.String("a..b", "dots")}
	b.Records[2].Attrs = []schema.Attr{schema.Double("value", 0.5), schema.String("long", strings.Repeat("ü", 40_000)), schema.String(strings.Repeat("k", 60_000), strings.Repeat("😀", 4096)), schema.String("nul\x00key", "nul\x00value"), schema.String("url.path", strings.Repeat("/x", 40_000))}
	b.Records[3].Body, b.Records[3].Time = `{"field":1,"app":"x"}`, -1
	b.Records[4].Body = `{"field":{"deep":{"er":[1,"two",{"three":null}]}},"app":{"name":"y"}}`
	b.Records[5].Body = `{"field":1e400,"field2":` + strings.Repeat(`{"a":`, 15) + "1" + strings.Repeat("}", 15) + "}"
	many := batch(2)
	many.Source = "many"
	for i := range 10_000 {
		many.Resource = append(many.Resource, schema.String(fmt.Sprint(schema.LabelPrefix, "key.", i, "/x"), "v"))
		many.Records[0].Attrs = append(many.Records[0].Attrs, schema.Int(fmt.Sprint("n", i), int64(i)))
	}
	var changing []*schema.Batch
	for i := range 100 { // other labels in each batch
		c := batch(1)
		c.Source = fmt.Sprint("changing", i)
		for j := range 100 {
			c.Resource = append(c.Resource, schema.String(fmt.Sprint(schema.LabelPrefix, "label", i, "-", j), fmt.Sprint(j)))
		}
		changing = append(changing, c)
	}
	write(t, x, schema.TopicLogs, append(changing, b, many)...)
	for _, k := range kinds {
		golden := k.batch
		write(t, x, golden.Topic, &golden)
	}
	if len(dead.all) > 0 {
		t.Fatalf("%d dead letters: %.2000s", len(dead.all), fmt.Sprint(dead.all[0].Reason))
	}
	if after := s.fields(stream); after != before {
		t.Errorf("%d fields, %d before", after, before)
	}
	s.ask(http.MethodPost, "/"+stream+"/_refresh", "", nil)
	find := func(query string) (total int, first map[string][]any) {
		t.Helper()
		var found struct {
			Hits struct {
				Total struct{ Value int } `json:"total"`
				Hits  []struct {
					Fields map[string][]any `json:"fields"`
				} `json:"hits"`
			} `json:"hits"`
		}
		s.ask(http.MethodPost, "/"+stream+"/_search", `{"query":`+query+`,"sort":["log.offset"],"fields":[{"field":"@timestamp","format":"strict_date_optional_time_nanos"}],"_source":false}`, &found)
		if len(found.Hits.Hits) > 0 {
			first = found.Hits.Hits[0].Fields
		}
		return found.Hits.Total.Value, first
	}
	if n, first := find(`{"bool":{"filter":[{"term":{"container.labels.app.kubernetes.io/name":"y"}},{"match":{"message":"line"}}]}}`); n != 3 || fmt.Sprint(first["@timestamp"]) != "[2025-11-25T07:00:00.123456789Z]" {
		t.Errorf("found %d, the first of %v", n, first)
	}
	for query, want := range map[string]int{
		`{"term":{"weir.json.field":"1"}}`: 1, `{"term":{"weir.json.field.deep.er":"two"}}`: 1, `{"term":{"weir.json.app.name":"y"}}`: 1, `{"term":{"weir.json.app":"x"}}`: 2,
		`{"term":{"weir.attributes.value":"a word"}}`: 1, `{"term":{"weir.attributes.http.response.status_code":"teapot"}}`: 2, `{"term":{"http.response.status_code":200}}`: 2,
		`{"term":{"container.labels.key.77/x":"v"}}`: 2, `{"term":{"container.labels.label7-7":"7"}}`: 1, `{"term":{"weir.truncated":true}}`: 1,
	} {
		if n, _ := find(query); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
}

// TestRealAnswers makes sure that the usual answer of the real server is the one that takes the short way.
func TestRealAnswers(t *testing.T) {
	s := shared(t)
	x := testIndexer(t, s.url, nil, func(c *Config) { c.Namespace = namespace("answers") })
	sink, _, err := x.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	p := sink.(*partition)
	if err := p.Write(t.Context(), batch(5)); err != nil {
		t.Fatal(err)
	}
	if status, a, err := p.send(t.Context(), p.docs); status != 200 || a != nil || err != nil {
		t.Errorf("new documents: status %d, answer %v, %v", status, a, err)
	}
	status, a, err := p.send(t.Context(), p.docs)
	if status != 200 || a == nil || err != nil || len(a.Items) != 5 || a.Items[4].Create.Status != 409 || a.Items[4].Create.Error.Type != "version_conflict_engine_exception" {
		t.Errorf("the same again: status %d, answer %+v, %v", status, a, err)
	}
}

// TestRealLargeMessage puts 5 MB through, in one line.
func TestRealLargeMessage(t *testing.T) {
	s := shared(t)
	dead := &letters{}
	x := testIndexer(t, s.url, dead, func(c *Config) { c.Namespace = namespace("large") })
	b := batch(3)
	b.Records[1].Body = strings.Repeat("five megabytes of words \"and quotes\" ", 5<<20/36)
	write(t, x, schema.TopicLogs, b)
	stream := "logs-weir.container-" + x.cfg.Namespace
	if ids := s.ids(stream); len(ids) != 3 || len(dead.all) > 0 {
		t.Errorf("%d documents, dead letters %d", len(ids), len(dead.all))
	}
	var found struct {
		Hits struct {
			Hits []struct {
				Source struct{ Message string } `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	s.ask(http.MethodPost, "/"+stream+"/_search", `{"query":{"match":{"message":"megabytes"}}}`, &found)
	if len(found.Hits.Hits) != 1 || found.Hits.Hits[0].Source.Message != b.Records[1].Body {
		t.Errorf("%d hits", len(found.Hits.Hits))
	}
}

// TestRealRollover repeats messages on the topic after a rollover, when the id alone would not keep them out: the consumer's interval
// state does.
func TestRealRollover(t *testing.T) {
	s := shared(t)
	r := newPipe(t)
	stream := "logs-weir.container-" + namespace("rollover")
	_, space := parts(stream)
	x := testIndexer(t, s.url, &letters{}, func(c *Config) { c.Namespace = space })
	stop := r.consume(x)
	send := func(from, to int64) {
		records := batch(int(to - from))
		var e schema.Encoder
		inc := schema.Incarnation{Start: 16, Print: 1}
		e.Reset("docker/n/c", inc, nil)
		for i := range records.Records {
			records.Records[i].Offset = from + int64(i)
			e.Append(&records.Records[i])
		}
		prev := schema.Position{Incarnation: inc, Offset: from}
		m := ingest.Message{Topic: schema.TopicLogs, Source: "docker/n/c", Begin: prev, End: schema.Position{Incarnation: inc, Offset: to}, Prev: prev, PrevKnown: true, Count: int(to - from), Value: e.Bytes()}
		if err := r.producer.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if err := r.producer.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	send(0, 50)
	await(t, "50 documents", func() bool { return len(s.ids(stream)) == 50 })
	var rolled struct {
		Old string `json:"old_index"`
		New string `json:"new_index"`
	}
	s.ask(http.MethodPost, "/"+stream+"/_rollover", "", &rolled)
	send(0, 50)   // a repeat
	send(30, 80)  // an overlap
	send(80, 100) // and what tells us that all was read
	await(t, "100 documents", func() bool { return len(s.ids(stream)) == 100 })
	stop()
	stop = r.consume(testIndexer(t, s.url, &letters{}, func(c *Config) { c.Namespace = space })) // another process has the state too
	s.ask(http.MethodPost, "/"+stream+"/_rollover", "", nil)
	send(20, 90)
	send(100, 101)
	await(t, "101 documents", func() bool { return len(s.ids(stream)) == 101 })
	stop()
	for id, n := range s.ids(stream) {
		if n != 1 {
			t.Errorf("%s is there %d times", id, n)
		}
	}
	if len(s.ids(rolled.Old)) != 50 || len(s.ids(rolled.New)) != 50 {
		t.Errorf("%d and %d documents in the indices", len(s.ids(rolled.Old)), len(s.ids(rolled.New)))
	}
}

// TestRealCrash writes, crashes before the state is saved, and reads again after a rollover: the ids of another index are found.
func TestRealCrash(t *testing.T) {
	s := shared(t)
	space := namespace("crash")
	stream := "logs-weir.container-" + space
	in := func(c *Config) { c.Namespace = space }
	write(t, testIndexer(t, s.url, &letters{}, in), schema.TopicLogs, batch(300))
	s.ask(http.MethodPost, "/"+stream+"/_rollover", "", nil)
	x := testIndexer(t, s.url, &letters{}, in)
	write(t, x, schema.TopicLogs, batch(500))
	if ids := s.ids(stream); len(ids) != 500 {
		t.Errorf("%d documents, want 500", len(ids))
	}
	for id, n := range s.ids(stream) {
		if n != 1 {
			t.Errorf("%s is there %d times", id, n)
		}
	}
}

// pipe is a broker of the test's own and a producer to it.
type pipe struct {
	t        *testing.T
	kafka    *ingest.Kafka
	producer *ingest.Producer
	brokers  []string
}

func newPipe(t *testing.T) *pipe {
	t.Helper()
	b, err := broker.Start(t.TempDir(), 0, 256<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	cfg := ingest.DefaultKafkaConfig()
	cfg.Brokers = b.Addrs()
	r := &pipe{t: t, brokers: b.Addrs()}
	if r.kafka, err = ingest.NewKafka(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.kafka.Close)
	plan, err := ingest.PlanTopics(t.Context(), r.kafka, ingest.DefaultTopics(2, 1))
	if err == nil {
		err = ingest.ApplyTopics(t.Context(), r.kafka, plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.producer, err = ingest.NewProducer(r.kafka, ingest.DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() { defer close(ended); _ = r.producer.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return r
}

// consume runs the indexer's consumer group until stop is called.
func (r *pipe) consume(x *Indexer) (stop func()) {
	r.t.Helper()
	cfg := ingest.DefaultConsumerConfig("indexer", schema.TopicLogs)
	cfg.CommitInterval = 200 * time.Millisecond
	c, err := ingest.NewConsumer(r.kafka, cfg, x, r.producer, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-ended
		}
	}
	r.t.Cleanup(stop)
	return stop
}
