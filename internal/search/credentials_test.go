//go:build e2e

package search

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"weir/indexer"
	"weir/indexer/elastictest"
)

// TestRealCredentials: the privileges that the documents name are enough for everything, and without them it is said what to grant.
func TestRealCredentials(t *testing.T) {
	node := elastictest.Start(t, elastictest.Options{Keystore: map[string]string{"bootstrap.password": "test-password"}, Settings: "xpack.security.enabled: true\nxpack.security.transport.ssl.enabled: false\n"})
	ask := func(method, path, body string) {
		req, err := http.NewRequest(method, node.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("elastic", "test-password")
		req.Header.Set("Content-Type", "application/json")
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, _ := io.ReadAll(res.Body); res.StatusCode >= 300 {
			t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, b)
		}
	}
	ask(http.MethodPut, "/logs-weir.test", `{"mappings":{"properties":{"@timestamp":{"type":"date_nanos"},"log":{"properties":{"offset":{"type":"long"},"level":{"type":"keyword"}}},"weir":{"properties":{"source":{"type":"keyword"},"incarnation":{"type":"keyword"}}}}}}`)
	for i := range 3 {
		ask(http.MethodPut, fmt.Sprintf("/logs-weir.test/_doc/%d?refresh=true", i), fmt.Sprintf(`{"@timestamp":"2026-11-25T12:00:0%dZ","log":{"offset":%[1]d,"level":"info"},"weir":{"source":"s","incarnation":"i"}}`, i))
	}
	ask(http.MethodPut, "/_security/role/reader", `{"indices":[{"names":["logs-weir.*"],"privileges":["read","view_index_metadata"]}]}`)
	ask(http.MethodPut, "/_security/role/stranger", `{"indices":[{"names":["other-*"],"privileges":["read"]}]}`)
	for _, user := range []string{"reader", "stranger"} {
		ask(http.MethodPut, "/_security/user/"+user, fmt.Sprintf(`{"password":"test-password","roles":[%q]}`, user))
	}
	as := func(user, password string) *Elasticsearch {
		t.Setenv("WEIR_TEST_PASSWORD", password)
		cfg := indexer.DefaultConfig()
		cfg.Addresses, cfg.Username, cfg.PasswordEnv = []string{node.URL}, user, "WEIR_TEST_PASSWORD"
		e, err := New(cfg, func(w string) { t.Log("warning:", w) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		return e
	}
	q := &Query{Index: "logs-weir.test", KQL: "log.level: info", Limit: -1}

	e := as("reader", "test-password")
	n := 0
	count := func(*Hit) error { n++; return nil }
	if err := e.Check(t.Context(), q, nil); err != nil {
		t.Error(err)
	}
	if err := e.Each(t.Context(), q, count); err != nil || n != 3 {
		t.Errorf("%d found: %v", n, err)
	}
	if buckets, _, err := e.Histogram(t.Context(), q, 30); err != nil || len(buckets) != 3 {
		t.Errorf("%v, %v", buckets, err)
	}
	if before, _, after, err := e.Around(t.Context(), q.Index, "1", 5); err != nil || len(before) != 1 || len(after) != 1 {
		t.Errorf("%d before, %d after: %v", len(before), len(after), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	flushes := 0
	if err := e.Follow(ctx, &Query{Index: q.Index, KQL: q.KQL, Limit: 0}, 100*time.Millisecond, func(h *Hit) error {
		if h.ID != "new" {
			t.Errorf("%s is shown as new", h.ID)
		}
		cancel()
		return nil
	}, func() error {
		if flushes++; flushes == 1 {
			ask(http.MethodPut, "/logs-weir.test/_doc/new?refresh=true", `{"@timestamp":"2026-11-25T11:00:00Z","log":{"level":"info"}}`)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}

	for user, want := range map[string]string{"stranger/test-password": "grant the user or the API key the index privileges read and view_index_metadata on logs-weir.*", "reader/wrong": "refuses the credentials: set indexer.username"} {
		name, password, _ := strings.Cut(user, "/")
		e := as(name, password)
		for what, err := range map[string]error{"check": e.Check(t.Context(), q, nil), "each": e.Each(t.Context(), q, count), "follow": e.Follow(t.Context(), q, time.Second, count, func() error { return nil })} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: %v", user, what, err)
			}
		}
		// A pattern is no name that could be refused: it matches what one may see.
		if err := e.Check(t.Context(), &Query{Index: "logs-weir.*"}, nil); name == "stranger" && (err == nil || !strings.Contains(err.Error(), "none that these credentials may see")) {
			t.Errorf("%s: %v", user, err)
		}
	}
}
