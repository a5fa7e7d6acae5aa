//go:build e2e

package indexer

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/schema"
)

func realURL(t *testing.T) string {
	t.Helper()
	url := os.Getenv("WEIR_ELASTICSEARCH_URL")
	if url == "" {
		t.Fatal("WEIR_ELASTICSEARCH_URL is not set: run `make e2e`")
	}
	return url
}

func ask(t *testing.T, method, url, body string, into any) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true // no connection is left behind
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 && res.StatusCode != http.StatusNotFound {
		t.Fatalf("%s %s: %d %v %.300s", method, url, res.StatusCode, err, b)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRealElasticsearch runs the sinks' suite on a real cluster, each test in a namespace of its own.
func TestRealElasticsearch(t *testing.T) {
	url := realURL(t)
	n := 0
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		n++
		namespace := fmt.Sprintf("suite%d.%d", time.Now().UnixNano(), n)
		stream := "logs-" + datasets[schema.TopicLogs] + "-" + namespace
		return sinktest.Harness{
			New: func(t *testing.T) ingest.Sink {
				x := testIndexer(t, url, nil)
				x.cfg.Namespace = namespace
				return x
			},
			Read: func(t *testing.T) map[string]int {
				var found struct {
					Hits struct {
						Hits []struct {
							ID string `json:"_id"`
						} `json:"hits"`
					} `json:"hits"`
				}
				ask(t, http.MethodPost, url+"/"+stream+"/_refresh?ignore_unavailable=true", "", nil)
				ask(t, http.MethodPost, url+"/"+stream+"/_search?ignore_unavailable=true", `{"size":10000,"_source":false}`, &found)
				ids := map[string]int{}
				for _, h := range found.Hits.Hits {
					ids[h.ID]++
				}
				return ids
			},
		}
	})
}

// TestRealMappings puts every kind of value through the real mappings: all are taken, and the nanoseconds are kept.
func TestRealMappings(t *testing.T) {
	url := realURL(t)
	dead := &letters{}
	x := testIndexer(t, url, dead)
	x.cfg.Namespace = fmt.Sprintf("mappings%d", time.Now().UnixNano())
	p, _, err := x.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	b := batch(3)
	b.Resource = append(b.Resource, schema.String(schema.LabelPrefix+"app", "x"), schema.String(schema.LabelPrefix+"app.kubernetes.io/name", "y"))
	b.Records[0].Attrs = []schema.Attr{schema.Int("value", 1)}
	b.Records[1].Attrs = []schema.Attr{schema.String("value", "a word"), schema.String("value.sub", "deeper"), schema.Bool("flag", true)}
	b.Records[2].Attrs = []schema.Attr{schema.Double("value", 0.5), schema.String("long", strings.Repeat("ü", 40_000))}
	if err := p.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(t.Context(), ingest.Checkpoint{NextOffset: 8}); err != nil {
		t.Fatal(err)
	}
	if len(dead.all) > 0 {
		t.Fatalf("dead letters: %+v", dead.all)
	}
	stream := url + "/logs-" + datasets[schema.TopicLogs] + "-" + x.cfg.Namespace
	ask(t, http.MethodPost, stream+"/_refresh", "", nil)
	var found struct {
		Hits struct {
			Total struct{ Value int } `json:"total"`
			Hits  []struct {
				Fields map[string][]any `json:"fields"`
			} `json:"hits"`
		} `json:"hits"`
	}
	ask(t, http.MethodPost, stream+"/_search", `{"query":{"bool":{"filter":[{"term":{"container.labels.app.kubernetes.io/name":"y"}},{"match":{"message":"line"}}]}},"fields":[{"field":"@timestamp","format":"strict_date_optional_time_nanos"}],"_source":false}`, &found)
	if found.Hits.Total.Value != 3 || fmt.Sprint(found.Hits.Hits[0].Fields["@timestamp"]) != "[2025-11-25T07:00:00.123456789Z]" {
		t.Errorf("found %+v", found.Hits)
	}
}
