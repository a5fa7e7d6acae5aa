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
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/schema"
)

// elastic answers as Elasticsearch does. verdict decides about each document of each bulk request; nil creates it.
type elastic struct {
	t *testing.T

	mu        sync.Mutex
	docs      map[string]int // by _id: how often it was stored
	last      []string       // documents of the last bulk request
	bulks     int
	down      bool
	templates map[string]json.RawMessage
	status    func(bulk int) int // of the whole request; 0 goes on
	verdict   func(bulk int, id string) string
	cut       bool // answer one item too few
}

func newElastic(t *testing.T) (*elastic, string) {
	e := &elastic{t: t, docs: map[string]int{}, templates: map[string]json.RawMessage{}}
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
	switch {
	case strings.HasSuffix(r.URL.Path, "/_bulk"):
		e.bulk(w, body)
	case r.Method == http.MethodGet && e.templates[r.URL.Path] == nil:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		key := strings.Split(strings.Trim(r.URL.Path, "/_"), "/")[0] // component_template, index_template
		fmt.Fprintf(w, `{%q:[{"name":"weir",%q:%s}]}`, key+"s", key, e.templates[r.URL.Path])
	case r.Method == http.MethodPut:
		b, _ := io.ReadAll(body)
		e.templates[r.URL.Path] = b
		fmt.Fprint(w, `{"acknowledged":true}`)
	}
}

func (e *elastic) bulk(w http.ResponseWriter, body io.Reader) {
	e.bulks++
	if e.status != nil {
		if status := e.status(e.bulks); status != 0 {
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error":{"type":"x","reason":"y"}}`)
			return
		}
	}
	e.last = nil
	var items []string
	in := bufio.NewScanner(body)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var action struct {
			Create struct {
				ID string `json:"_id"`
			} `json:"create"`
		}
		if err := json.Unmarshal(in.Bytes(), &action); err != nil || action.Create.ID == "" {
			e.t.Errorf("action line %q: %v", in.Text(), err)
		}
		in.Scan()
		if !json.Valid(in.Bytes()) {
			e.t.Errorf("document is not JSON: %q", in.Text())
		}
		id := action.Create.ID
		e.last = append(e.last, in.Text())
		verdict := ""
		if e.verdict != nil {
			verdict = e.verdict(e.bulks, id)
		}
		if verdict == "" {
			if verdict = `"status":201`; e.docs[id] > 0 {
				verdict = `"status":409,"error":{"type":"version_conflict_engine_exception","reason":"exists"}`
			} else {
				e.docs[id]++
			}
		}
		items = append(items, fmt.Sprintf(`{"create":{"_id":%q,"_index":"x",%s}}`, id, verdict))
	}
	if e.cut {
		items = items[1:]
	}
	fmt.Fprintf(w, `{"errors":true,"items":[%s]}`, strings.Join(items, ","))
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

func testIndexer(t *testing.T, url string, dead DeadLetters) *Indexer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Addresses, cfg.RequestTimeout = []string{url}, 5*time.Second
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
	const refused = `"status":400,"error":{"type":"document_parsing_exception","reason":"bad field"}`
	for _, c := range []struct {
		name    string
		status  func(bulk int) int
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
		{name: "request refused for now", bulks: 3, status: func(bulk int) int { return []int{0, 429, 503, 0}[bulk] }},
		{name: "no permission at first", bulks: 2, status: func(bulk int) int { return []int{0, 403, 0}[bulk] }},
		{name: "request wrong", err: "status 400", status: func(int) int { return 400 }},
		{name: "request too large", bulks: 3, status: func(bulk int) int { return []int{0, 413, 0, 0}[bulk] }},
		{name: "one document too large", dead: 5, status: func(int) int { return 413 }},
		{name: "an item is missing", cut: true, err: "5 items were sent, 4 answered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, url := newElastic(t)
			e.status, e.verdict, e.cut = c.status, c.verdict, c.cut
			dead := &letters{}
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
				if d.Topic != tp.Topic || d.Partition != tp.Partition || d.Offset != 7 || d.Reason == "" || !json.Valid(d.Document) || !bytes.Contains(d.Document, []byte(`"message"`)) {
					t.Errorf("letter %+v", d)
				}
			}
		})
	}
}

func TestNewerTemplatesAreLeftAlone(t *testing.T) {
	e, url := newElastic(t)
	newer := json.RawMessage(`{"version":99}`)
	e.templates["/_index_template/weir"] = newer
	if _, _, err := testIndexer(t, url, nil).Open(t.Context(), tp); err != nil {
		t.Fatal(err)
	}
	if string(e.templates["/_index_template/weir"]) != string(newer) || len(e.templates["/_component_template/weir"]) < 100 {
		t.Errorf("templates: %v", e.templates)
	}
}

// TestDocuments compares documents with testdata/documents.ndjson; WEIR_REWRITE=1 writes it anew.
func TestDocuments(t *testing.T) {
	resource := []schema.Attr{schema.String(schema.AttrContainerID, "c0ffee"), schema.String(schema.AttrContainerName, "web"), schema.String(schema.AttrImageName, "shop/web:1"), schema.String(schema.AttrHostName, "n1"),
		schema.String(schema.AttrApp, "shop"), schema.String(schema.AttrSite, "east"), schema.String(schema.AttrFilePath, "/l/c.log"), schema.String(schema.LabelPrefix+"app", "x"), schema.String(schema.LabelPrefix+"app.kubernetes.io/name", "y"), schema.String("k8s.pod.name", "web-1")}
	records := []schema.Record{
		{Offset: 1, Time: 1764054000123456789, Observed: 1764054000200000000, Body: "plain", Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}},
		{Offset: 2, Time: 1764054000000000001, Body: "quote \" back \\ tab \t nul \x00 bad \xff\xfe é 😀 \u2028", Severity: 17, SeverityText: "ERROR", TraceID: [16]byte{1, 2, 15: 3}, SpanID: [8]byte{4, 7: 5}},
		{Offset: 3, Observed: 1764054000000000000, EventName: "docker.container.die", Body: "died", Attrs: []schema.Attr{schema.Int(schema.AttrExitCode, 137), schema.Bool(schema.AttrOOM, true), schema.Double("ratio", 0.5), schema.Double("nan", math.NaN()), schema.String("", "no name"), schema.Int("n", -1)}},
	}
	var got []byte
	for _, res := range [][]schema.Attr{resource, nil} {
		b := schema.Batch{Source: "docker/n1/c0ffee", Resource: res}
		var s share
		shareOf(&s, &b, "weir.container", "default")
		for i := range records {
			got = append(document(got, &records[i], &s), '\n')
		}
	}
	const golden = "testdata/documents.ndjson"
	if os.Getenv("WEIR_REWRITE") != "" {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i, l := range gotLines[:len(gotLines)-1] {
		if !json.Valid([]byte(l)) {
			t.Errorf("not JSON: %s", l)
		}
		if i >= len(wantLines) || l != wantLines[i] {
			t.Errorf("document %d:\n%s", i, l)
		}
	}
	if len(gotLines) != len(wantLines) {
		t.Errorf("%d documents, want %d", len(gotLines)-1, len(wantLines)-1)
	}
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\x1f\x7f\"\\/\n\r\t\u2028<&>\xff\xc3\xa9\xed\xa0\x80😀")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(appendJSON(nil, s), &got); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var want string
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("%q became %q, want %q", s, got, want)
		}
	})
}

func BenchmarkDocument(b *testing.B) {
	batch := batch(1)
	batch.Records[0].Body = strings.Repeat("a log line of two hundred bytes ", 6)
	batch.Records[0].Attrs = []schema.Attr{schema.String(schema.AttrStream, "stdout")}
	var s share
	shareOf(&s, batch, "weir.container", "default")
	buf := slices.Grow([]byte(nil), 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = document(buf[:0], &batch.Records[0], &s)
	}
	b.SetBytes(int64(len(buf)))
}
