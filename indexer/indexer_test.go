package indexer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/schema"
)

// elastic answers as Elasticsearch does. verdict decides about each document of each bulk request; nil creates it.
type elastic struct {
	t *testing.T

	mu       sync.Mutex
	docs     map[string]int // by _id: how often it was stored
	indices  map[string]int // documents by data stream
	last     []string       // documents of the last bulk request
	bulks    int
	searches int
	private  bool // nobody may search
	down     bool
	objects  map[string]json.RawMessage // what was installed, by path
	streams  []string                   // that were there before
	rolled   []string
	ilm      bool
	status   func(bulk, documents int) int // of the whole request; 0 goes on
	verdict  func(bulk int, id string) string
	cut      bool // answer one item too few
}

func newElastic(t *testing.T) (*elastic, string) {
	e := &elastic{t: t, docs: map[string]int{}, indices: map[string]int{}, objects: map[string]json.RawMessage{}, ilm: true}
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	return e, s.URL
}

func (e *elastic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", "application/json")
	if e.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			e.t.Error(err)
			return
		}
		body = z
	}
	path := r.URL.Path
	switch {
	case path == "/_bulk":
		e.bulk(w, body)
	case strings.HasSuffix(path, "/_refresh"):
		fmt.Fprint(w, "{}")
	case strings.HasSuffix(path, "/_search"):
		e.search(w, body)
	case path == "/_index_template/_simulate":
		if b, _ := io.ReadAll(body); strings.Contains(string(b), "constant_keyword") {
			w.WriteHeader(http.StatusBadRequest)
		}
		fmt.Fprint(w, "{}")
	case strings.HasPrefix(path, "/_resolve/index/"):
		var all []string
		for _, s := range e.streams {
			all = append(all, fmt.Sprintf(`{"name":%q}`, s))
		}
		fmt.Fprintf(w, `{"data_streams":[%s]}`, strings.Join(all, ","))
	case strings.HasSuffix(path, "/_rollover"):
		e.rolled = append(e.rolled, strings.Split(path, "/")[1])
		fmt.Fprint(w, "{}")
	case strings.HasPrefix(path, "/_ilm/") && !e.ilm:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"no handler found"}`)
	case r.Method == http.MethodGet && e.objects[path] == nil:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "{}")
	case r.Method == http.MethodGet && strings.HasPrefix(path, "/_ilm/"):
		fmt.Fprintf(w, `{"weir":%s}`, e.objects[path])
	case r.Method == http.MethodGet:
		key := strings.Split(strings.Trim(path, "/_"), "/")[0] // component_template, index_template
		fmt.Fprintf(w, `{%q:[{"name":"weir",%q:%s}]}`, key+"s", key, e.objects[path])
	case r.Method == http.MethodPut:
		b, _ := io.ReadAll(body)
		e.objects[path] = b
		fmt.Fprint(w, `{"acknowledged":true}`)
	}
}

func (e *elastic) search(w http.ResponseWriter, body io.Reader) {
	var query struct {
		Query struct{ IDs struct{ Values []string } }
	}
	if err := json.NewDecoder(body).Decode(&query); err != nil {
		e.t.Error(err)
	}
	if e.searches++; e.private {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var hits []string
	for _, id := range query.Query.IDs.Values {
		if e.docs[id] > 0 {
			hits = append(hits, fmt.Sprintf(`{"_id":%q}`, id))
		}
	}
	fmt.Fprintf(w, `{"hits":{"hits":[%s]}}`, strings.Join(hits, ","))
}

func (e *elastic) bulk(w http.ResponseWriter, body io.Reader) {
	e.bulks++
	e.last = nil
	var items, ids, indices []string
	in := bufio.NewScanner(body)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var action struct {
			Create struct {
				ID    string `json:"_id"`
				Index string `json:"_index"`
			} `json:"create"`
		}
		if err := json.Unmarshal(in.Bytes(), &action); err != nil || action.Create.ID == "" || action.Create.Index == "" {
			e.t.Errorf("action line %q: %v", in.Text(), err)
		}
		in.Scan()
		if !json.Valid(in.Bytes()) {
			e.t.Errorf("document is not JSON: %q", in.Text())
		}
		ids, indices, e.last = append(ids, action.Create.ID), append(indices, action.Create.Index), append(e.last, in.Text())
	}
	if e.status != nil {
		if status := e.status(e.bulks, len(ids)); status != 0 {
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error":{"type":"x","reason":"y"}}`)
			return
		}
	}
	errors := false
	for i, id := range ids {
		verdict := ""
		if e.verdict != nil {
			verdict = e.verdict(e.bulks, id)
		}
		if verdict == "" {
			if verdict = `"status":201`; e.docs[id] > 0 {
				verdict = `"status":409,"error":{"type":"version_conflict_engine_exception","reason":"exists"}`
			} else {
				e.docs[id]++
				e.indices[indices[i]]++
			}
		}
		errors = errors || strings.Contains(verdict, "error")
		items = append(items, fmt.Sprintf(`{"create":{"_id":%q,%s}}`, id, verdict))
	}
	if e.cut {
		items = items[1:]
	}
	fmt.Fprintf(w, `{"errors":%t,"items":[%s]}`, errors, strings.Join(items, ","))
}

type letters struct {
	mu  sync.Mutex
	all []DeadLetter
}

func (l *letters) Put(_ context.Context, d DeadLetter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
	return nil
}

func testIndexer(t *testing.T, url string, dead DeadLetters, change ...func(*Config)) *Indexer {
	t.Helper()
	cfg := DefaultConfig()
	apply := true
	cfg.Addresses, cfg.RequestTimeout, cfg.Apply = []string{url}, 5*time.Second, &apply
	for _, c := range change {
		c(&cfg)
	}
	x, err := New(cfg, dead, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.idle)
	return x
}

func TestSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		e, url := newElastic(t)
		return sinktest.Harness{
			New: func(t *testing.T) ingest.Sink { return testIndexer(t, url, nil) },
			Read: func(*testing.T) map[string]int {
				e.mu.Lock()
				defer e.mu.Unlock()
				ids := map[string]int{}
				for id, n := range e.docs {
					ids[id] = n
				}
				return ids
			},
			Break: func(broken bool) { e.mu.Lock(); e.down = broken; e.mu.Unlock() },
		}
	})
}

var tp = ingest.TopicPartition{Topic: schema.TopicLogs, Partition: 1}

func batch(n int) *schema.Batch {
	b := &schema.Batch{Topic: tp.Topic, Partition: tp.Partition, KafkaOffset: 7, Source: "docker/n/c", Begin: schema.Position{Incarnation: schema.Incarnation{Start: 0x10, Print: 1}}, Resource: []schema.Attr{schema.String(schema.AttrContainerName, "web")}}
	for i := range n {
		b.Records = append(b.Records, schema.Record{Offset: int64(i), Time: 1764054000123456789, Body: fmt.Sprintf("line %d", i)})
	}
	return b
}

// TestVerdicts goes through what Elasticsearch may say of a document or a request.
func TestVerdicts(t *testing.T) {
	id := func(i int) string { b := batch(5); return b.ID(&b.Records[i]) }
	dead := &letters{}
	const refused = `"status":400,"error":{"type":"document_parsing_exception","reason":"bad field"}`
	for _, c := range []struct {
		name    string
		status  func(bulk, documents int) int
		verdict func(bulk int, doc string) string
		cut     bool
		noDead  bool
		bulks   int    // requests wanted; 0: any number
		dead    int    // letters wanted
		err     string // of Commit
	}{
		{name: "created", bulks: 1},
		{name: "there already", verdict: func(int, string) string { return `"status":409,"error":{"type":"version_conflict_engine_exception"}` }, bulks: 1},
		{name: "one refused for now", bulks: 3, verdict: func(bulk int, doc string) string {
			if doc == id(2) && bulk < 3 {
				return `"status":429,"error":{"type":"es_rejected_execution_exception"}`
			}
			return ""
		}},
		{name: "blocked by the cluster", bulks: 2, verdict: func(bulk int, doc string) string {
			if bulk == 1 {
				return `"status":403,"error":{"type":"cluster_block_exception","reason":"disk"}`
			}
			return ""
		}},
		{name: "one refused for good", bulks: 1, dead: 1, verdict: func(_ int, doc string) string {
			if doc == id(3) {
				return refused
			}
			return ""
		}},
		{name: "refused for good, no dead letters", noDead: true, err: "there are no dead letters", verdict: func(int, string) string { return refused }},
		{name: "sent to the failure store", bulks: 1, dead: 5, verdict: func(int, string) string { return `"status":201,"failure_store":"used"` }},
		{name: "request refused for now", bulks: 3, status: func(bulk, _ int) int { return []int{0, 429, 503, 0}[bulk] }},
		{name: "no permission at first", bulks: 3, status: func(bulk, _ int) int { return []int{0, 401, 403, 0}[bulk] }},
		{name: "no permission for one stream", bulks: 2, verdict: func(bulk int, doc string) string {
			if bulk == 1 && doc == id(4) {
				return `"status":403,"error":{"type":"security_exception"}`
			}
			return ""
		}},
		{name: "no shards left", bulks: 2, verdict: func(bulk int, _ string) string {
			if bulk == 1 {
				return `"status":400,"error":{"type":"validation_exception","reason":"this action would add [2] shards"}`
			}
			return ""
		}},
		{name: "no such API", err: "status 405", status: func(int, int) int { return 405 }},
		{name: "request refused for one document", dead: 1, status: func(_, n int) int {
			if n > 1 || len(dead.all) == 0 {
				return 400
			}
			return 0
		}},
		{name: "request too large", bulks: 3, status: func(_, n int) int {
			if n > 3 {
				return 413
			}
			return 0
		}},
		{name: "every document too large", dead: 5, status: func(int, int) int { return 413 }},
		{name: "not even the failure store", bulks: 1, dead: 5, verdict: func(int, string) string {
			return `"status":400,"failure_store":"failed","error":{"type":"document_parsing_exception","reason":"bad"}`
		}},
		{name: "an item is missing", cut: true, err: "5 items were sent, 4 answered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, url := newElastic(t)
			e.status, e.verdict, e.cut = c.status, c.verdict, c.cut
			dead.all = nil
			var sink DeadLetters = dead
			if c.noDead {
				sink = nil
			}
			p, _, err := testIndexer(t, url, sink).Open(t.Context(), tp)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Write(t.Context(), batch(5)); err != nil {
				t.Fatal(err)
			}
			err = p.Commit(t.Context(), ingest.Checkpoint{NextOffset: 8})
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if c.bulks > 0 && e.bulks != c.bulks {
				t.Errorf("%d requests, want %d", e.bulks, c.bulks)
			}
			if len(dead.all) != c.dead {
				t.Errorf("%d dead letters, want %d", len(dead.all), c.dead)
			}
			for _, d := range dead.all {
				if d.Topic != tp.Topic || d.Partition != tp.Partition || d.Offset != 7 || d.Reason == "" || d.Source != "docker/n/c" || !d.Whole() || !json.Valid(d.Document) || !bytes.Contains(d.Document, []byte(`"message"`)) {
					t.Errorf("letter %+v", d)
				}
			}
		})
	}
}

// TestCrashedPartition: after a crash, what is there is not sent again, whatever index it is in; and once nothing is, nobody asks any more.
func TestCrashedPartition(t *testing.T) {
	e, url := newElastic(t)
	b := batch(10)
	for i := range 4 {
		e.docs[b.ID(&b.Records[i])] = 1
	}
	x := testIndexer(t, url, nil)
	p := open(t, x, 1)
	for i := range 4 {
		n := batch(10)
		for j := range n.Records {
			n.Records[j].Offset += int64(10 * i)
		}
		if err := p.Write(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil {
			t.Fatal(err)
		}
	}
	e.private = true
	p = open(t, x, 1) // without the privilege it goes on, and asks once
	for range 2 {
		if err := p.Write(t.Context(), batch(10)); err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil {
			t.Fatal(err)
		}
	}
	if e.searches != 3 {
		t.Errorf("%d searches", e.searches)
	}
	if len(e.docs) != 40 || testutil.ToFloat64(x.m.documents.WithLabelValues("repeated")) != 24 || testutil.ToFloat64(x.m.documents.WithLabelValues("created")) != 36 {
		t.Errorf("%d searches, %d documents, %v repeated", e.searches, len(e.docs), testutil.ToFloat64(x.m.documents.WithLabelValues("repeated")))
	}
}
