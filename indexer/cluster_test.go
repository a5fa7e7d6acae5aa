package indexer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/ingest"
	"weir/schema"
)

// roundTripper answers in place of the network.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"X-Elastic-Product": {"Elasticsearch"}}, Body: io.NopCloser(strings.NewReader(body))}
}

func virtualIndexer(t *testing.T, f roundTripper, change ...func(*Config)) *Indexer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Addresses = []string{"http://a:1"}
	for _, c := range change {
		c(&cfg)
	}
	c, err := connect(cfg, f, func() {})
	if err != nil {
		t.Fatal(err)
	}
	x := newIndexer(c, &letters{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	x.ready = true
	return x
}

func open(t *testing.T, x *Indexer, partition int) ingest.PartitionSink {
	t.Helper()
	p, _, err := x.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicLogs, Partition: partition})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestHourWithoutElasticsearch lets many partitions write while nothing answers: the heap stays below the bound of the buffers,
// tries become few, and the writers end with their context.
func TestHourWithoutElasticsearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		tries := 0
		x := virtualIndexer(t, func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			mu.Lock()
			defer mu.Unlock()
			if tries++; tries%3 == 0 {
				return respond(503, `{"error":{"type":"cluster_block_exception","reason":"no master"}}`), nil
			}
			return nil, errors.New("connection refused")
		}, func(c *Config) { c.BufferBytes = 8 << 20 })
		ctx, cancel := context.WithCancel(t.Context())
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		const partitions = 24
		written := make([]int, partitions)
		var writers sync.WaitGroup
		for i := range partitions {
			p := open(t, x, i)
			writers.Go(func() {
				defer p.Close()
				for ctx.Err() == nil {
					b := batch(100)
					for j := range b.Records {
						b.Records[j].Body = strings.Repeat("x", 1000)
					}
					if err := p.Write(ctx, b); err != nil {
						if ctx.Err() == nil {
							t.Error(err)
						}
						return
					}
					written[i]++
				}
			})
		}
		var most uint64
		var soon int
		for minute := range 60 {
			time.Sleep(time.Minute)
			synctest.Wait()
			if most = max(most, heap()-before); minute == 0 {
				mu.Lock()
				soon = tries
				mu.Unlock()
			}
		}
		if limit := uint64(24 << 20); most > limit {
			t.Errorf("the heap grew by %d bytes, want at most %d", most, limit)
		}
		mu.Lock()
		if tries > soon+60*12*partitions {
			t.Errorf("%d tries in the first minute, %d in the hour", soon, tries)
		}
		mu.Unlock()
		cancel()
		writers.Wait()
		for i, n := range written {
			if n > 10 {
				t.Errorf("partition %d took %d batches of 100 kB in its buffer", i, n)
			}
		}
	})
}

// TestPace follows the limits through refusals and slow answers and back.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Concurrency = 8
		p := newPace(&cfg)
		round := func(took time.Duration, refused bool) {
			var all []time.Time
			n, _ := p.now()
			for range int(n) {
				if err := p.enter(t.Context()); err != nil {
					t.Fatal(err)
				}
				all = append(all, time.Now())
			}
			time.Sleep(took)
			for _, start := range all {
				p.leave(start, refused)
			}
		}
		expect := func(requests, bytes float64) {
			t.Helper()
			if n, b := p.now(); n < requests-1 || n > requests+1 || b != bytes {
				t.Errorf("%.2f requests of %.0f bytes, want about %.0f of %.0f", n, b, requests, bytes)
			}
		}
		expect(8, 1<<20)
		round(time.Second, false)
		round(time.Second, false)
		expect(8, 4<<20)
		round(time.Second, true) // eight refusals of one round are one
		expect(4, 2<<20)
		round(time.Second, true)
		round(time.Second, true)
		round(time.Second, true)
		expect(1, 256<<10)
		for range 40 {
			round(time.Second, false)
		}
		expect(8, 4<<20)
		round(2*slowBulk, false)
		expect(8, 2<<20)
		for range 10 {
			round(2*slowBulk, false)
		}
		expect(8, minBulk)
		p.opened(1000)
		if p.size() != minBulk {
			t.Errorf("a thousand partitions gather %d bytes each", p.size())
		}
	})
}

func TestPaceEndsWithItsContext(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Concurrency = 1
	p := newPace(&cfg)
	if err := p.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.enter(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestDeadNode has two nodes of which one dies for ten minutes: all gets in, the dead one is asked seldom, and used again after.
func TestDeadNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[string]int{}
		dead := false
		x := virtualIndexer(t, func(r *http.Request) (*http.Response, error) {
			asked[r.URL.Host]++
			if dead && r.URL.Host == "b:1" {
				return nil, errors.New("connection refused")
			}
			return respond(200, `{"errors":false,"items":[]}`), nil
		}, func(c *Config) { c.Addresses = []string{"http://a:1", "http://b:1"} })
		request := func() error {
			req, _ := http.NewRequest(http.MethodPost, "/_bulk", strings.NewReader("x"))
			res, err := x.perform(req)
			if err == nil {
				res.Body.Close()
			}
			return err
		}
		run := func(n int) (failed int) {
			clear(asked)
			for range n {
				if request() != nil {
					failed++
				}
				time.Sleep(time.Second)
			}
			return failed
		}
		if failed := run(100); failed > 0 || asked["b:1"] != 50 {
			t.Errorf("both well: %d failed, %v", failed, asked)
		}
		dead = true
		if failed := run(600); failed > 30 || asked["b:1"] > 30 || asked["b:1"] < 10 {
			t.Errorf("one dead: %d failed, %v", failed, asked)
		}
		dead = false
		run(31)
		if run(100); asked["b:1"] != 50 {
			t.Errorf("well again: %v", asked)
		}
	})
}

// TestCredentials gives the sink a key that is refused, and then another in the same file.
func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	write := func(key string) {
		if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	e, _ := newElastic(t)
	refused := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "ApiKey new" {
			if refused++; refused == 3 {
				write("new")
			}
			w.Header().Set("X-Elastic-Product", "Elasticsearch")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":{"type":"security_exception","reason":"unable to authenticate"},"status":401}`)
			return
		}
		e.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	x := testIndexer(t, s.URL, nil, func(c *Config) { c.APIKeyFile = file })
	x.ready = true
	p := open(t, x, 1)
	if err := p.Write(t.Context(), batch(3)); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil || len(e.docs) != 3 || refused < 3 {
		t.Errorf("%v, %d documents, %d refusals", err, len(e.docs), refused)
	}
}

// TestLargeDocuments sends records that are more than a request should be, and forgets their memory.
func TestLargeDocuments(t *testing.T) {
	e, url := newElastic(t)
	x := testIndexer(t, url, nil)
	p := open(t, x, 1).(*partition)
	b := batch(4)
	for i := range b.Records {
		b.Records[i].Body = strings.Repeat("y", 5<<20)
	}
	if err := p.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil || len(e.docs) != 4 || e.bulks != 4 || cap(p.buf) > 0 {
		t.Errorf("%v, %d documents in %d requests, %d bytes kept", err, len(e.docs), e.bulks, cap(p.buf))
	}
}

// TestCreatedIsTheUsual makes sure that the usual answer takes the short way, and any other the long one.
func TestCreatedIsTheUsual(t *testing.T) {
	x := virtualIndexer(t, nil)
	p := open(t, x, 1).(*partition)
	if err := p.Write(t.Context(), batch(2)); err != nil {
		t.Fatal(err)
	}
	a, b := string(p.id(&p.docs[0])), string(p.id(&p.docs[1]))
	item := func(id string) string { return fmt.Sprintf(`{"create":{"_id":"%s","status":201}}`, id) }
	good := `{"errors":false,"items":[` + item(a) + "," + item(b) + "]}"
	for answer, want := range map[string]bool{
		good: true, good + " ": false, good[:len(good)-1]: false, strings.Replace(good, "201", "409", 1): false, strings.Replace(good, "false", "true", 1): false,
		`{"errors":false,"items":[` + item(b) + "," + item(a) + "]}": false, `{"errors":false,"items":[` + item(a) + "]}": false, "": false,
		`{"errors":false,"items":[` + item(a) + "," + item(b) + "," + item(b) + "]}": false,
	} {
		if got := p.allCreated([]byte(answer), p.docs); got != want {
			t.Errorf("%s: %v", answer, got)
		}
	}
	if n := testing.AllocsPerRun(10, func() { p.allCreated([]byte(good), p.docs) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestLetters(t *testing.T) {
	want := DeadLetter{Topic: schema.TopicLogs, Partition: 3, Offset: 42, ID: "a-1.2-3", Index: "logs-weir.container-default", Source: "docker/n/c", Reason: "document_parsing_exception: bad", Document: []byte(`{"message":"x"}`), Bytes: 15}
	read := func(l DeadLetter) DeadLetter {
		var d schema.Decoder
		var b schema.Batch
		info := schema.Info{Source: "s", Begin: schema.Position{Offset: 5}, End: schema.Position{Offset: 6}, Count: 1}
		if err := d.Decode(l.encode("s", 5), &info, &b); err != nil {
			t.Fatal(err)
		}
		got, ok := ReadDeadLetter(&b.Records[0])
		if !ok {
			t.Fatal("not a letter")
		}
		got.At = time.Time{}
		return got
	}
	if got := read(want); fmt.Sprint(got) != fmt.Sprint(want) || !got.Whole() {
		t.Errorf("%+v, want %+v", got, want)
	}
	want.Document = bytes.Repeat([]byte("x"), maxLetter+1)
	want.Bytes = len(want.Document)
	if got := read(want); got.Whole() || len(got.Document) != maxLetter || got.Bytes != maxLetter+1 {
		t.Errorf("a large letter: %d of %d bytes", len(got.Document), got.Bytes)
	}
	if _, ok := ReadDeadLetter(&schema.Record{Body: "x"}); ok {
		t.Error("a line is a letter")
	}
	w := &Letters{}
	last := int64(0)
	for range 1000 {
		if n := w.next(); n <= last {
			t.Fatal("positions do not rise")
		} else {
			last = n
		}
	}
}

// TestRefusedLetter: what is in the dead letters already makes no letter again.
func TestRefusedLetter(t *testing.T) {
	e, url := newElastic(t)
	e.verdict = func(int, string) string {
		return `"status":400,"error":{"type":"document_parsing_exception","reason":"bad"}`
	}
	dead := &letters{}
	x := testIndexer(t, url, dead)
	p, _, err := x.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicDeadLetter})
	if err != nil {
		t.Fatal(err)
	}
	b := batch(2)
	b.Topic = schema.TopicDeadLetter
	if err := p.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil || len(dead.all) > 0 || testutil.ToFloat64(x.m.documents.WithLabelValues("dead_letter")) != 2 {
		t.Errorf("%v, %d letters", err, len(dead.all))
	}
}
