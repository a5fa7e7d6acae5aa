package search

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/indexer"
)

// double is an Elasticsearch of the tests: it keeps documents, pages through points in time and counts numbers of documents. It
// takes every query for one that finds everything, but for the conditions on _seq_no.
type double struct {
	t      *testing.T
	server *httptest.Server

	mu       sync.Mutex
	docs     []doc
	pits     map[string][]doc
	made     int
	requests []string
	bodies   []string
	fault    func(method, path string, n int) (status int, body string) // of the nth request, from 1; 0: none
}

type doc struct {
	index, id  string
	shard      int
	seq, off   int64
	at         time.Time
	source     string
	shardOrder int64 // _shard_doc in a point in time
}

func newDouble(t *testing.T) *double {
	d := &double{t: t, pits: map[string][]doc{}}
	d.server = httptest.NewServer(http.HandlerFunc(d.serve))
	t.Cleanup(d.server.Close)
	return d
}

// client is a search on the double, and what it warned of.
func (d *double) client() (*Elasticsearch, *[]string) {
	cfg := indexer.DefaultConfig()
	cfg.Addresses = []string{d.server.URL}
	var warnings []string
	e, err := New(cfg, func(w string) { warnings = append(warnings, w) })
	if err != nil {
		d.t.Fatal(err)
	}
	e.pause = time.Microsecond
	d.t.Cleanup(func() { _ = e.Close() })
	return e, &warnings
}

var epoch = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// add makes a document visible.
func (d *double) add(index string, shard int, seq int64, at time.Time, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := fmt.Sprintf("%s.%d.%d", index, shard, seq)
	d.docs = append(d.docs, doc{index: index, id: id, shard: shard, seq: seq, at: at, off: off,
		source: fmt.Sprintf(`{"@timestamp":%q,"message":%q,"log":{"level":"info","offset":%d},"container":{"name":"web-1"}}`, at.Format(time.RFC3339Nano), "line "+id, off)})
}

func (d *double) serve(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	d.requests = append(d.requests, r.Method+" "+r.URL.Path)
	d.bodies = append(d.bodies, string(body))
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", "application/json")
	if d.fault != nil {
		if status, text := d.fault(r.Method, r.URL.Path, len(d.requests)); status != 0 {
			w.WriteHeader(status)
			fmt.Fprint(w, text)
			return
		}
	}
	switch {
	case r.Method == http.MethodDelete:
		var got struct{ ID string }
		_ = json.Unmarshal(body, &got)
		delete(d.pits, got.ID)
		fmt.Fprint(w, `{"succeeded":true}`)
	case strings.HasSuffix(r.URL.Path, "/_pit"):
		// Another point in time has another order among the documents of one place.
		d.made++
		docs := slices.Clone(d.docs)
		rand.New(rand.NewPCG(7, uint64(d.made))).Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
		for i := range docs {
			docs[i].shardOrder = int64(i)
		}
		id := fmt.Sprint("pit", d.made)
		d.pits[id] = docs
		fmt.Fprintf(w, `{"id":%q,"_shards":{"total":1,"failed":0}}`, id)
	case strings.HasSuffix(r.URL.Path, "/_search"):
		d.search(w, r.URL, body)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

const contextMissing = `{"error":{"type":"search_phase_execution_exception","reason":"all shards failed","root_cause":[{"type":"search_context_missing_exception","reason":"No search context found for id [1]"}]},"status":404}`

type searchBody struct {
	Size   int
	Source *bool `json:"_source"`
	PIT    *struct{ ID string }
	Sort   []map[string]json.RawMessage
	After  []any `json:"search_after"`
	Query  json.RawMessage
	Aggs   struct {
		I *struct{ Aggs json.RawMessage }
	}
}

func (d *double) search(w http.ResponseWriter, u *url.URL, body []byte) {
	if bytes.Contains(body, []byte("null")) {
		d.t.Errorf("Elasticsearch takes no null: %s", body)
	}
	var q searchBody
	if err := json.Unmarshal(body, &q); err != nil {
		d.t.Errorf("%v in %s", err, body)
	}
	if q.PIT != nil {
		docs, ok := d.pits[q.PIT.ID]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, contextMissing)
			return
		}
		down := strings.Contains(string(q.Sort[0]["@timestamp"]), "desc")
		key := func(x *doc) []any { return []any{x.at.Format(time.RFC3339Nano), float64(x.off), float64(x.shardOrder)} }
		d.answer(w, &q, docs, key, down, 1)
		return
	}
	n, _ := strconv.Atoi(strings.TrimPrefix(strings.Split(u.Query().Get("preference"), "|")[0], "_shards:"))
	var docs []doc
	total := 0
	counts, tops := map[string]int{}, map[string]int64{}
	for _, x := range d.docs {
		if x.shard == n {
			total = 1
			if d.above(q.Query, &x) {
				docs = append(docs, x)
				counts[x.index]++
				tops[x.index] = max(tops[x.index], x.seq)
			}
		}
	}
	if q.Aggs.I != nil {
		var buckets []string
		for _, index := range slices.Sorted(maps.Keys(counts)) {
			buckets = append(buckets, fmt.Sprintf(`{"key":%q,"doc_count":%d,"top":{"value":%d}}`, index, counts[index], tops[index]))
		}
		fmt.Fprintf(w, `{"_shards":{"total":%d},"hits":{"hits":[]},"aggregations":{"i":{"buckets":[%s]}}}`, total, strings.Join(buckets, ","))
		return
	}
	d.answer(w, &q, docs, func(x *doc) []any { return []any{float64(x.seq), x.index} }, false, total)
}

// above evaluates the conditions on numbers.
func (d *double) above(query json.RawMessage, x *doc) bool {
	var q struct {
		Bool struct {
			Filter []struct {
				Bool struct {
					Should []struct {
						Bool struct {
							Filter []struct {
								Term  map[string]string
								Range map[string]struct{ GT, LTE *int64 }
							}
							MustNot struct{ Terms map[string][]string } `json:"must_not"`
						}
					}
				}
			}
		}
	}
	_ = json.Unmarshal(query, &q)
	for _, f := range q.Bool.Filter {
		for _, s := range f.Bool.Should {
			if known, ok := s.Bool.MustNot.Terms["_index"]; ok {
				if !slices.Contains(known, x.index) {
					return true
				}
				continue
			}
			r := s.Bool.Filter[1].Range["_seq_no"]
			if s.Bool.Filter[0].Term["_index"] == x.index && x.seq > *r.GT && (r.LTE == nil || x.seq <= *r.LTE) {
				return true
			}
		}
		if len(f.Bool.Should) > 0 {
			return false
		}
	}
	return true
}

func compareKeys(a, b []any) int {
	for i := range a {
		c := 0
		if s, ok := a[i].(string); ok {
			c = cmp.Compare(s, b[i].(string))
		} else {
			c = cmp.Compare(a[i].(float64), b[i].(float64))
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func (d *double) answer(w io.Writer, q *searchBody, docs []doc, key func(*doc) []any, down bool, total int) {
	sign := 1
	if down {
		sign = -1
	}
	slices.SortFunc(docs, func(a, b doc) int { return sign * compareKeys(key(&a), key(&b)) })
	var hits []string
	for i := range docs {
		x := &docs[i]
		if q.After != nil && sign*compareKeys(key(x), q.After) <= 0 || len(hits) == q.Size {
			continue
		}
		sort, _ := json.Marshal(key(x))
		source := ""
		if q.Source == nil || *q.Source {
			source = `,"_source":` + x.source
		}
		hits = append(hits, fmt.Sprintf(`{"_index":%q,"_id":%q,"_seq_no":%d,"sort":%s%s}`, x.index, x.id, x.seq, sort, source))
	}
	fmt.Fprintf(w, `{"_shards":{"total":%d},"hits":{"hits":[%s]}}`, total, strings.Join(hits, ","))
}
