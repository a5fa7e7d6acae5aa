package search

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"weir/indexer"
)

// TestCountBySource goes through the pages of the counts.
func TestCountBySource(t *testing.T) {
	answers := []string{
		`{"aggregations":{"by":{"after_key":{"source":"b","hour":3600000},"buckets":[{"key":{"source":"a","hour":0},"doc_count":7},{"key":{"source":"b","hour":3600000},"doc_count":1}]}}}`,
		`{"aggregations":{"by":{"after_key":{"source":"c","hour":0},"buckets":[{"key":{"source":"c","hour":0},"doc_count":2}]}}}`,
		`{"aggregations":{"by":{"buckets":[]}}}`,
	}
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		fmt.Fprint(w, answers[min(len(asked), len(answers)-1)])
		asked = append(asked, string(b))
	}))
	defer server.Close()
	cfg := indexer.DefaultConfig()
	cfg.Addresses = []string{server.URL}
	e, err := New(cfg, func(w string) { t.Error(w) })
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var got []string
	q := &Query{Index: "logs-*", Since: time.Unix(0, 0), Limit: -1}
	if err := e.CountBySource(t.Context(), q, func(source string, hour time.Time, n int64) error {
		got = append(got, fmt.Sprint(source, hour.Unix(), "=", n))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := "a0=7 b3600=1 c0=2"; strings.Join(got, " ") != want {
		t.Errorf("counts %v, want %s", got, want)
	}
	if len(asked) != 3 || strings.Contains(asked[0], "after") || !strings.Contains(asked[1], `"after":{"source":"b","hour":3600000}`) {
		t.Errorf("asked %v", asked)
	}
}
