//go:build e2e

package search

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/indexer"
	"weir/ingest"
	"weir/schema"
)

const (
	records    = 25_000
	containers = 5
)

var written = time.Now().Add(-10 * time.Minute).Truncate(time.Second)

// rig is a namespace of the real Elasticsearch, filled by the real indexer.
type rig struct {
	t         *testing.T
	url       string
	namespace string
	sink      *indexer.Indexer
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, url: os.Getenv("WEIR_ELASTICSEARCH_URL"), namespace: fmt.Sprintf("search%d", time.Now().UnixNano())}
	if r.url == "" {
		t.Fatal("WEIR_ELASTICSEARCH_URL is not set: run `make e2e`")
	}
	cfg := r.config(r.url)
	apply := true
	cfg.Apply = &apply
	var err error
	if r.sink, err = indexer.New(cfg, nil, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.sink.Close()
		r.try(http.MethodDelete, "/_data_stream/logs-weir.*-"+r.namespace, "") // not every build has it
	})
	return r
}

func (r *rig) config(url string) indexer.Config {
	cfg := indexer.DefaultConfig()
	cfg.Addresses, cfg.Namespace = []string{url}, r.namespace
	return cfg
}

func (r *rig) search(url string) *Elasticsearch {
	e, err := New(r.config(url), func(w string) { r.t.Log("warning:", w) })
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = e.Close() })
	return e
}

func (r *rig) index() string { return "logs-weir.*-" + r.namespace }

// ask fails the test on an error.
func (r *rig) ask(method, path, body string) {
	r.t.Helper()
	if status, answer := r.try(method, path, body); status >= 300 {
		r.t.Errorf("%s %s: %d %s", method, path, status, answer)
	}
}

func (r *rig) try(method, path, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// write gives batches to a new partition of the indexer, each a commit.
func (r *rig) write(partition int, batches ...*schema.Batch) {
	p, _, err := r.sink.Open(context.Background(), ingest.TopicPartition{Topic: schema.TopicLogs, Partition: partition})
	if err != nil {
		r.t.Error(err)
		return
	}
	defer p.Close()
	for _, b := range batches {
		b.Topic = schema.TopicLogs
		if err := errors.Join(p.Write(context.Background(), b), p.Commit(context.Background(), ingest.Checkpoint{})); err != nil {
			r.t.Error(err)
		}
	}
}

func batch(container int, incarnation int64, records ...schema.Record) *schema.Batch {
	in := schema.Incarnation{Start: incarnation, Print: 7}
	b := &schema.Batch{Source: fmt.Sprintf("docker/n1/c%d", container), Begin: schema.Position{Incarnation: in, Offset: records[0].Offset}, End: schema.Position{Incarnation: in, Offset: records[len(records)-1].Offset + 100}, Records: records}
	b.Resource = []schema.Attr{schema.String(schema.AttrContainerName, fmt.Sprintf("web-%d", container)), schema.String(schema.AttrApp, map[bool]string{true: "shop", false: "pay"}[container < 2]),
		schema.String(schema.AttrIncarnation, in.String()), schema.String(schema.LabelPrefix+"team.example/x", fmt.Sprint("t", container))}
	return b
}

var levels = []string{"ERROR", "WARN", "INFO", "DEBUG", ""}

// record is the ith record; seven have the same time.
func record(i int) schema.Record {
	r := schema.Record{Time: written.Add(time.Duration(i/7) * time.Millisecond).UnixNano(), SeverityText: levels[i%len(levels)], Offset: int64(i) * 100, Body: fmt.Sprintf("request %d took a while", i)}
	if i%10 == 3 {
		r.Body = fmt.Sprintf(`{"status":%d,"path":"/pay/%d"}`, 500+i%3, i)
	}
	return r
}

// fill writes the records, of container i%containers.
func (r *rig) fill() {
	var all []*schema.Batch
	for c := range containers {
		for from := 0; from < records; from += 2500 {
			var part []schema.Record
			for i := from; i < from+2500; i++ {
				if i/11%containers == c {
					part = append(part, record(i))
				}
			}
			all = append(all, batch(c, 1_790_000_000_000_000_000, part...))
		}
	}
	r.write(0, all...)
	r.ask(http.MethodPost, "/"+r.index()+"/_refresh", "")
}

// TestRealSearch reads everything in both orders, also where the server forgets the point in time on the way, and checks KQL,
// histogram and errors on the same records.
func TestRealSearch(t *testing.T) {
	r := newRig(t)
	r.fill()
	for _, oldest := range []bool{true, false} {
		for _, lose := range []bool{false, true} {
			t.Run(fmt.Sprintf("oldest=%t/lose=%t", oldest, lose), func(t *testing.T) { r.pages(t, oldest, lose) })
		}
	}
	t.Run("KQL", r.kql)
	t.Run("histogram", func(t *testing.T) {
		for _, q := range []*Query{{Index: r.index()}, {Index: r.index(), Since: written.Add(-time.Hour), Until: time.Now()}, {Index: r.index(), KQL: "log.level: error"}} {
			buckets, step, err := r.search(r.url).Histogram(t.Context(), q, 30)
			if err != nil {
				t.Fatal(err)
			}
			var sum, bad int64
			for _, b := range buckets {
				for level, n := range b.Levels {
					if sum += n; level == "error" {
						bad += n
					}
				}
			}
			want := int64(records)
			if q.KQL != "" {
				want = records / 5
			}
			if sum != want || bad != records/5 || len(buckets) > 31 {
				t.Errorf("%v: %d records, %d errors, in %d steps of %s", q, sum, bad, len(buckets), step)
			}
		}
		if buckets, _, err := r.search(r.url).Histogram(t.Context(), &Query{Index: r.index(), KQL: "message: nothing_such"}, 30); err != nil || len(buckets) != 0 {
			t.Errorf("%v, %v", buckets, err)
		}
	})
	t.Run("errors", func(t *testing.T) {
		for kql, want := range map[string]string{
			"log.level: (error and x": "at character 19: missing ')' at 'and'\n    log.level: (error and x\n                      ^",
			"a: 1 or\n日本: (x or":      "line 2, character 10",
			`message: "x`:             "at character 10",
			"log.level: (error or x)": "write (field: a or field: b)",
			"log.offset: abc":         "not of its field's type",
		} {
			err := r.search(r.url).Each(t.Context(), &Query{Index: r.index(), KQL: kql, Limit: -1}, nil)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", kql, err)
			}
		}
		if err := r.search(r.url).Check(t.Context(), &Query{Index: "logs-weir.*-" + r.namespace + "x"}, nil); err == nil || !strings.Contains(err.Error(), "no data stream") {
			t.Error(err)
		}
		var warnings []string
		e := r.search(r.url)
		e.warn = func(w string) { warnings = append(warnings, w) }
		if err := e.Check(t.Context(), &Query{Index: r.index(), KQL: "level: x and container.labels.any.thing: y and weir.json.status: 5 and container.nmae: z"}, nil); err != nil {
			t.Fatal(err)
		}
		if want := []string{"no index has a field level; near to it: log.level", "no index has a field container.nmae; near to it: container.name"}; !slices.Equal(warnings, want) {
			t.Errorf("%q", warnings)
		}
	})
}

// pages reads through a proxy that deletes the point in time before every tenth page.
func (r *rig) pages(t *testing.T, oldest, lose bool) {
	target, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }, Transport: transport}
	searches, lost := 0, 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/_search" {
			if searches++; lose && searches%10 == 0 {
				body, _ := io.ReadAll(req.Body)
				req.Body = io.NopCloser(bytes.NewReader(body))
				var got struct{ PIT struct{ ID string } }
				if err := json.Unmarshal(body, &got); err != nil {
					t.Error(err)
				}
				r.ask(http.MethodDelete, "/_pit", fmt.Sprintf(`{"id":%q}`, got.PIT.ID))
				lost++
			}
		}
		proxy.ServeHTTP(w, req)
	}))
	defer server.Close()
	e := r.search(server.URL)
	defer e.Close()
	seen := map[string]bool{}
	n, last := 0, ""
	if err := e.Each(t.Context(), &Query{Index: r.index(), Oldest: oldest, Limit: -1}, func(h *Hit) error {
		doc, err := h.Document()
		if err != nil {
			return err
		}
		at := doc.Text("@timestamp")
		if last != "" && (oldest && at < last || !oldest && at > last) {
			t.Errorf("%s after %s", at, last)
		}
		last = at
		seen[h.ID] = true
		n++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n != records || len(seen) != records || e.Complete() != nil || lose && lost < 2 {
		t.Errorf("%d hits, %d different ones, want %d; %d points in time lost; %v", n, len(seen), records, lost, e.Complete())
	}
}

func (r *rig) kql(t *testing.T) {
	is := func(i int, level string) bool { return levels[i%len(levels)] == level }
	in := func(i int) int { return i / 11 % containers }
	for _, c := range []struct {
		q    Query
		want func(i int) bool
	}{
		{Query{}, func(int) bool { return true }},
		{Query{KQL: "log.level: error and container.name: web*"}, func(i int) bool { return is(i, "ERROR") }},
		{Query{KQL: "(log.level: error or log.level: warn) and not container.name: web-1"}, func(i int) bool { return (is(i, "ERROR") || is(i, "WARN")) && in(i) != 1 }},
		{Query{KQL: `message: "request 77 took"`}, func(i int) bool { return i == 77 }},
		{Query{KQL: "4711"}, func(i int) bool { return i == 4711 }},
		{Query{KQL: "weir.json.status: 501"}, func(i int) bool { return i%10 == 3 && i%3 == 1 }},
		{Query{KQL: "container.labels.team.example/x: t3"}, func(i int) bool { return in(i) == 3 }},
		{Query{KQL: "log.offset >= 1000 and log.offset < 1500"}, func(i int) bool { return i >= 10 && i < 15 }},
		{Query{KQL: "not log.level: *"}, func(i int) bool { return is(i, "") }},
		{Query{KQL: "log.level: error or log.level: warn", App: "shop"}, func(i int) bool { return (is(i, "ERROR") || is(i, "WARN")) && in(i) < 2 }},
		{Query{Since: written.Add(time.Second), Until: written.Add(2 * time.Second)}, func(i int) bool { return i/7 >= 1000 && i/7 < 2000 }},
		{Query{KQL: "message: nothing_such"}, func(int) bool { return false }},
	} {
		want := map[int]bool{}
		for i := range records {
			if c.want(i) {
				want[i] = true
			}
		}
		n := 0
		c.q.Index, c.q.Limit = r.index(), -1
		if err := r.search(r.url).Each(t.Context(), &c.q, func(h *Hit) error {
			doc, err := h.Document()
			n++
			var offset int
			if _, err := fmt.Sscan(doc.Text("log.offset"), &offset); err != nil || !want[offset/100] {
				t.Errorf("%q finds %s", c.q.KQL, h.Source)
			}
			return err
		}); err != nil || n != len(want) {
			t.Errorf("%q: %v: %d found, want %d", c.q.KQL, err, n, len(want))
		}
	}
}

// TestRealAround: two files of a container, the second with offsets from zero again and with the time of the first one's last
// records; and another container between them.
func TestRealAround(t *testing.T) {
	r := newRig(t)
	at := func(ms int) int64 { return written.Add(time.Duration(ms) * time.Millisecond).UnixNano() }
	line := func(body string, ms int, offset int64) schema.Record {
		return schema.Record{Time: at(ms), Body: body, Offset: offset}
	}
	second := batch(1, 1_790_000_000_000_000_001, line("b0", 3, 0), line("b1", 3, 100), line("b2", 4, 200), line("b3", 5, 300))
	id := second.ID(&second.Records[1])
	r.write(0, batch(1, 1_790_000_000_000_000_000, line("a0", 1, 0), line("a1", 2, 50_000), line("a2", 3, 60_000), line("a3", 3, 70_000)), batch(2, 1_790_000_000_000_000_000, line("x", 3, 60_500), line("y", 4, 0)), second)
	r.ask(http.MethodPost, "/"+r.index()+"/_refresh", "")
	for n, want := range map[int]string{0: "b1", 1: "b0 b1 b2", 3: "a2 a3 b0 b1 b2 b3", 250: "a0 a1 a2 a3 b0 b1 b2 b3"} {
		before, hit, after, err := r.search(r.url).Around(t.Context(), r.index(), id, n)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range slices.Concat(before, []Hit{*hit}, after) {
			doc, err := h.Document()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, doc.Text("message"))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%d around: %v, want %s", n, got, want)
		}
	}
	if _, _, _, err := r.search(r.url).Around(t.Context(), r.index(), "nosuch", 5); err == nil || !strings.Contains(err.Error(), `no record with the id "nosuch"`) {
		t.Error(err)
	}
}

// follow counts what Follow gives by message, until all want are there and then two recounts more.
func (r *rig) follow(index string, want int, during func()) map[string]int {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	defer cancel()
	counts, given := map[string]int{}, 0
	var began, ended sync.Once
	var writers sync.WaitGroup
	err := r.search(r.url).Follow(ctx, &Query{Index: index, Limit: 0}, 200*time.Millisecond, func(h *Hit) error {
		doc, err := h.Document()
		counts[doc.Text("message")]++
		if given++; given == want {
			ended.Do(func() { time.AfterFunc(2*recount+2*time.Second, cancel) })
		}
		return err
	}, func() error {
		began.Do(func() { writers.Go(during) })
		return nil
	})
	writers.Wait()
	if err != nil {
		r.t.Fatal(err)
	}
	return counts
}

func (r *rig) wantOnce(counts map[string]int, n int) {
	r.t.Helper()
	repeated := 0
	for _, c := range counts {
		if c > 1 {
			repeated++
		}
	}
	if len(counts) != n || repeated > 0 {
		r.t.Errorf("%d records were seen, want %d; %d of them more than once", len(counts), n, repeated)
	}
}

// TestRealFollow writes 2,000 records with four writers while they are followed, with times from an hour ago and from now, and a
// rollover on the way.
func TestRealFollow(t *testing.T) {
	r := newRig(t)
	r.write(0, batch(0, 1_790_000_000_000_000_000, record(0), record(1)))
	r.ask(http.MethodPost, "/"+r.index()+"/_refresh", "")
	r.wantOnce(r.follow(r.index(), 2000, func() {
		var all sync.WaitGroup
		for w := range 4 {
			all.Go(func() {
				for i := range 50 {
					var part []schema.Record
					for j := range 10 {
						rec := record(i*10 + j)
						rec.Body = fmt.Sprintf("writer %d record %d", w, i*10+j)
						rec.Time = time.Now().Add(-time.Duration(j%2) * time.Hour).UnixNano()
						part = append(part, rec)
					}
					r.write(w, batch(w, 1_790_000_000_000_000_001, part...))
					if w == 0 && i == 25 {
						r.ask(http.MethodPost, "/logs-weir.container-"+r.namespace+"/_rollover", "")
					}
				}
			})
		}
		all.Wait()
	}), 2000)
}

// TestRealFollowShards follows an index of three shards, each of which numbers its documents by itself.
func TestRealFollowShards(t *testing.T) {
	r := newRig(t)
	index := "weir-" + r.namespace
	r.ask(http.MethodPut, "/"+index, `{"settings":{"number_of_shards":3,"number_of_replicas":0},"mappings":{"properties":{"@timestamp":{"type":"date"},"message":{"type":"keyword"}}}}`)
	defer r.ask(http.MethodDelete, "/"+index, "")
	bulk := func(from, to int) {
		var b strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, "{\"index\":{}}\n{\"@timestamp\":%q,\"message\":\"m%d\"}\n", written.Format(time.RFC3339), i)
		}
		r.ask(http.MethodPost, "/"+index+"/_bulk", b.String())
	}
	bulk(0, 100)
	r.ask(http.MethodPost, "/"+index+"/_refresh", "")
	r.wantOnce(r.follow(index, 600, func() {
		for i := range 60 {
			bulk(1000+i*10, 1010+i*10)
		}
	}), 600)
}
