package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/goleak"

	"weir/ingest"
	"weir/processor/signal"
	"weir/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broker pretends a Kafka: each topic gives its batches once.
type broker struct {
	mu      sync.Mutex
	batches map[string][]schema.Batch
	ends    map[ingest.TopicPartition][2]int64
	at      map[string]map[ingest.TopicPartition]int64
	err     error
}

func (k *broker) Watch(ctx context.Context, topic string, _ ingest.Looking, fn func(*schema.Batch), _ func(int64)) error {
	k.mu.Lock()
	for i := range k.batches[topic] {
		fn(&k.batches[topic][i])
	}
	k.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

func (k *broker) TopicOffsets(context.Context, ...string) (map[ingest.TopicPartition][2]int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ends, k.err
}

func (k *broker) GroupOffsets(_ context.Context, group string, _ map[ingest.TopicPartition][2]int64) (map[ingest.TopicPartition]int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.at[group], nil
}

// hostile is what a container may write.
const hostile = `<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>` + "\u202egnp.exe\x1b[2J"

func resource(i int) []schema.Attr {
	return []schema.Attr{schema.String(schema.AttrContainerID, fmt.Sprintf("c%03d", i)), schema.String(schema.AttrContainerName, fmt.Sprintf("web-%d", i)), schema.String(schema.AttrApp, "shop"),
		schema.String(schema.AttrHostName, "node-1"), schema.String(schema.AttrImageName, "shop/web:1")}
}

// filled is a page as it is after a while: two containers, and each list with one hostile entry among others.
func filled(t *testing.T, change func(*Config, *Deps)) *Page {
	t.Helper()
	now := time.Now().UnixNano()
	pos := schema.Position{Offset: 7}
	logs := func(i int) schema.Batch {
		b := schema.Batch{Topic: schema.TopicLogs, Source: fmt.Sprintf("docker/node-1/c%03d", i), Resource: resource(i), Begin: pos}
		for m := range 60 {
			for n := range 1 + (m*7+i*13)%20 {
				r := schema.Record{Time: now - int64(m)*60e9, Offset: int64(m*100 + n), Severity: 9, Body: hostile}
				if n%9 == 8 {
					r.Severity = 17
				}
				b.Records = append(b.Records, r)
			}
		}
		return b
	}
	one := func(topic string, i int, r schema.Record) schema.Batch {
		return schema.Batch{Topic: topic, Source: "weir/test/" + topic, Resource: resource(i), Begin: pos, Records: []schema.Record{r}}
	}
	loud := signal.Signal{Kind: signal.CrashLoop, Rule: "crash_loop", State: signal.Firing, Group: "container.name=web-1", Start: now - 60e9, End: now, Severity: signal.Error, Value: 5, Body: "web-1 died five times within a minute"}
	counts := signal.Signal{Kind: signal.Window, Rule: "lines", State: signal.Point, End: now}
	k := &broker{
		batches: map[string][]schema.Batch{
			schema.TopicLogs: {logs(1), logs(2)},
			schema.TopicEvents: {
				one(schema.TopicEvents, 1, schema.Record{Time: now, EventName: "docker.container.start"}),
				one(schema.TopicEvents, 2, schema.Record{Time: now, EventName: "docker.container.die", Attrs: []schema.Attr{schema.Int(schema.AttrExitCode, 137)}}),
				one(schema.TopicEvents, 1, schema.Record{Time: now - 1e9, EventName: schema.EventLoss, Severity: 17, SeverityText: "ERROR", Body: hostile, Attrs: []schema.Attr{schema.String(schema.AttrLossReason, "rotated_away")}}),
			},
			schema.TopicSignals: {one(schema.TopicSignals, 1, loud.Record()), one(schema.TopicSignals, 1, counts.Record()), one(schema.TopicSignals, 2, schema.Record{Time: now - 5e9, Offset: 9, EventName: schema.EventSignal, Severity: 13, SeverityText: "WARN", Body: hostile})},
			schema.TopicActions: {one(schema.TopicActions, 1, schema.Record{Time: now, EventName: "weir.action", Severity: 9, SeverityText: "INFO", Body: "would restart web-1 " + hostile})},
			schema.TopicDeadLetter: {one(schema.TopicDeadLetter, 1, schema.Record{Observed: now, EventName: schema.EventDeadLetter, Severity: 17, SeverityText: "ERROR", Body: hostile + strings.Repeat("ü", 5000), BodyBytes: true,
				Attrs: []schema.Attr{schema.String("error.message", hostile), schema.Double("weir.double", 1.5), schema.Bool("weir.bool", true)}})},
		},
		ends: map[ingest.TopicPartition][2]int64{{Topic: schema.TopicLogs}: {10, 110}, {Topic: schema.TopicEvents}: {0, 50}, {Topic: schema.TopicSignals}: {0, 3}},
		at:   map[string]map[ingest.TopicPartition]int64{"indexer": {{Topic: schema.TopicLogs}: 90, {Topic: schema.TopicEvents}: 50}, "control": {{Topic: schema.TopicEvents}: 50}},
	}
	reg := prometheus.NewRegistry()
	promauto.With(reg).NewGauge(prometheus.GaugeOpts{Name: "weir_agent_sources"}).Set(2)
	promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "weir_agent_loss_records_total"}, []string{"reason"}).WithLabelValues("rotated_away").Inc()
	promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "weir_ingest_records_total"}, []string{"group"}).WithLabelValues("indexer").Add(5)
	cfg := DefaultConfig()
	d := Deps{Kafka: k, Metrics: reg, Groups: []Group{{"indexer", []string{schema.TopicLogs, schema.TopicEvents}, time.Minute}, {"archiver", []string{schema.TopicLogs}, time.Minute}, {"control", []string{schema.TopicEvents}, time.Minute}},
		Version: "test", Local: true, Log: slog.New(slog.DiscardHandler),
		Search: func(_ context.Context, kql, since string, limit int) ([]Hit, []string, error) {
			if strings.Contains(kql, "((") {
				return nil, nil, errors.New("the query is not understood at character 2")
			}
			return []Hit{{ID: "h1", Time: time.Now().Format(time.RFC3339), Level: "ERROR", What: "web-1", Body: kql + " " + hostile}}, []string{"one shard did not answer"}, nil
		}}
	if change != nil {
		change(&cfg, &d)
	}
	p, err := New(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	p.began = time.Now().Add(-time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		full := len(p.flow.samples) > 0 && len(p.lists["deadletters"].entries) == 1 && len(p.lists["losses"].entries) == 1 && len(p.lists["signals"].entries) == 2 && len(p.lists["actions"].entries) == 1 &&
			(cfg.LogsBytes == 0 || len(p.containers) == 2 && p.nodes["node-1"] != nil && p.containers["c002"].state != "" && p.containers["c002"].hour.at > 0)
		p.mu.Unlock()
		if full {
			return p
		}
		if time.Now().After(end) {
			t.Fatal("the page was not filled")
		}
	}
}

func get(t *testing.T, h http.Handler, target string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9464"+target, nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func TestViews(t *testing.T) {
	h := filled(t, nil).Handler()
	for target, want := range map[string][]string{
		"/":                               {"page.js", "style.css"},
		"/page.js":                        {`"use strict"`},
		"/api/v1/path":                    {`"version":"test"`, `"behind":20`, `"name":"archiver","reads":["weir.logs"],"began":false`, `"name":"Loss records","count":1`, `"retained":100`, `"logs":2`},
		"/api/v1/nodes":                   {`"name":"node-1"`, `"containers":2`},
		"/api/v1/containers":              {`"of":2`, `"name":"web-1"`, `"state":"exited 137"`, `"state":"running"`},
		"/api/v1/containers?filter=WEB-2": {`"of":1`},
		"/api/v1/signals":                 {"web-1 died five times", `["weir.signal.rule","crash_loop"]`},
		"/api/v1/actions":                 {"would restart web-1"},
		"/api/v1/losses":                  {"rotated_away"},
		"/api/v1/deadletters":             {`["weir.double","1.5"]`, `["weir.bool","true"]`},
		"/api/v1/search?q=a:b":            {`"notes":["one shard did not answer"]`, `"body":"a:b `},
	} {
		res, body := get(t, h, target, nil)
		if res.StatusCode != 200 {
			t.Errorf("%s: %d %s", target, res.StatusCode, body)
		}
		for _, w := range want {
			if !strings.Contains(body, w) {
				t.Errorf("%s lacks %q:\n%.2000s", target, w, body)
			}
		}
		if strings.Contains(target, "/api/") && (strings.ContainsAny(body, "\x1b\u202e") || !utf8.ValidString(body) || !json.Valid([]byte(body))) {
			t.Errorf("%s is not safe text: %q", target, body)
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; script-src 'self';") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", target, csp)
		}
	}
	for target, want := range map[string]int{
		"/api/v1/search?q=((": 502, "/api/v1/search?q=" + strings.Repeat("a", maxQuery+1): 413, "/api/v1/none": 404, "/../status.go": 404,
	} {
		if res, body := get(t, h, target, nil); res.StatusCode != want && !(want == 404 && res.StatusCode/100 == 3) {
			t.Errorf("%.40s: %d, want %d: %.200s", target, res.StatusCode, want, body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		if res, _ := get(t, h, "/api/v1/path", func(r *http.Request) { r.Method = method }); res.StatusCode != 405 {
			t.Errorf("%s: %d: the page must be read-only", method, res.StatusCode)
		}
	}
}

func TestWithoutSearchAndLogs(t *testing.T) {
	p := filled(t, func(c *Config, d *Deps) { c.LogsBytes, d.Search = 0, nil })
	if res, body := get(t, p.Handler(), "/api/v1/search?q=a", nil); res.StatusCode != 501 || !strings.Contains(body, "indexer.addresses") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestWhoMayLook(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	const token = "0123456789abcdef"
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	for _, c := range []struct {
		name   string
		local  bool
		file   string
		change func(*http.Request)
		want   int
	}{
		{"loopback", true, "", nil, 200},
		{"loopback by name", true, "", host("localhost:9464"), 200},
		{"loopback by name alone", true, "", host("localhost"), 200},
		{"loopback of six", true, "", host("[::1]:9464"), 200},
		{"a name of somebody else's that leads to loopback", true, "", host("evil.example.com:9464"), 403},
		{"a name like it", true, "", host("localhost.evil.example.com"), 403},
		{"beyond loopback without a token set", false, "", nil, 403},
		{"beyond loopback without the token", false, file, nil, 401},
		{"a wrong token", false, file, bearer(token + "x"), 401},
		{"an empty token", false, file, bearer(""), 401},
		{"the token", false, file, bearer(token), 200},
		{"the token under another name", false, file, func(r *http.Request) { host("weir.example.com")(r); bearer(token)(r) }, 200},
		{"loopback where a token is set", true, file, nil, 401},
		{"the token in the wrong form", true, file, func(r *http.Request) { r.Header.Set("Authorization", "Basic "+token) }, 401},
	} {
		p, err := New(Config{TokenFile: c.file}, Deps{Local: c.local, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for _, view := range append([]string{"path", "nodes", "containers"}, listNames...) {
			if res, body := get(t, p.Handler(), "/api/v1/"+view, c.change); res.StatusCode != c.want || c.want != 200 && !strings.Contains(body, `"error"`) {
				t.Errorf("%s: %s: %d, want %d", c.name, view, res.StatusCode, c.want)
			}
		}
		if res, _ := get(t, p.Handler(), "/", c.change); res.StatusCode != 200 {
			t.Errorf("%s: the page itself: %d", c.name, res.StatusCode)
		}
	}
	t.Setenv("STATUS_TEST", "short")
	for want, cfg := range map[string]Config{"fewer than 16": {TokenEnv: "STATUS_TEST"}, "status.token_file": {TokenFile: file + "none"}} {
		if _, err := New(cfg, Deps{}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "short") {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
	if both := (&Config{TokenEnv: "a", TokenFile: "b"}).Validate(); both == nil {
		t.Error("both were taken")
	}
}

func TestLoopback(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, ":9464": false, "0.0.0.0:1": false, "10.0.0.1:1": false, "[::]:1": false, "": false, "127.0.0.1.evil.com:1": false} {
		if Loopback(addr) != want {
			t.Errorf("%q: %v", addr, !want)
		}
	}
}

// TestBounds gives the page far more than it keeps.
func TestBounds(t *testing.T) {
	p, err := New(DefaultConfig(), Deps{Local: true, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxContainers + 500 {
		res := resource(i)
		res[3] = schema.String(schema.AttrHostName, fmt.Sprintf("node-%d", i))
		p.take(&schema.Batch{Topic: schema.TopicLogs, Source: "s", Resource: res, Records: []schema.Record{{Time: time.Now().UnixNano()}}})
		p.take(&schema.Batch{Topic: schema.TopicEvents, Source: "s", Records: []schema.Record{{Offset: int64(i), Time: int64(i) * 1e6, EventName: schema.EventLoss, Body: strings.Repeat("x", 10_000), Attrs: make([]schema.Attr, 100)}}})
	}
	if len(p.containers) != maxContainers || len(p.nodes) != maxNodes {
		t.Errorf("%d containers, %d nodes", len(p.containers), len(p.nodes))
	}
	if p.containers["c000"] != nil || p.containers[fmt.Sprintf("c%03d", maxContainers+499)] == nil {
		t.Error("not the oldest ones were forgotten")
	}
	entries := p.lists["losses"].newest()
	if len(entries) != maxEntries || entries[0].Time != maxContainers+499 || entries[1].Time != maxContainers+498 || len(entries[0].Body) > maxBody+10 || len(entries[0].Attrs) > maxAttrs {
		t.Errorf("%d entries, the first at %d", len(entries), entries[0].Time)
	}
	_, body := get(t, p.Handler(), "/api/v1/containers", nil)
	var v containersView
	if err := json.Unmarshal([]byte(body), &v); err != nil || v.Of != maxContainers || len(v.Shown) != maxShown {
		t.Errorf("%v: %d of %d", err, len(v.Shown), v.Of)
	}
}

func TestHour(t *testing.T) {
	var h hour
	h.add(100, 100, false)
	h.add(100, 100, true)
	h.add(99, 101, false)  // late
	h.add(900, 101, false) // of the future
	h.add(41, 101, true)   // older than the hour
	if h.lines[minutes-1] != 1 || h.lines[minutes-2] != 2 || h.lines[minutes-3] != 1 || h.errors[minutes-2] != 1 || h.errors[0] != 0 {
		t.Errorf("%v %v", h.lines, h.errors)
	}
	h.move(101 + 2*minutes)
	if h.lines != [minutes]uint32{} {
		t.Errorf("%v after two hours", h.lines)
	}
}

func TestStandstill(t *testing.T) {
	var f flow
	at := time.Unix(1000, 0)
	for i, step := range []struct{ committed, behind int64 }{{5, 0}, {5, 0}, {5, 3}, {5, 4}, {6, 3}, {6, 3}} {
		f.add(sample{at: at.Add(time.Duration(i) * time.Second), committed: map[string]int64{"g": step.committed}, behind: map[string]int64{"g": step.behind}})
		if want := []int64{0, 0, 1, 2, 0, 1}[i]; int64(f.samples[len(f.samples)-1].at.Sub(f.moved["g"])/time.Second) != want {
			t.Errorf("step %d: since %v, want %d s", i, f.moved["g"], want)
		}
	}
}

// TestStuck gives each group its own patience.
func TestStuck(t *testing.T) {
	p, err := New(DefaultConfig(), Deps{Groups: []Group{{"indexer", nil, time.Minute}, {"archiver", nil, time.Hour}, {"idle", nil, time.Minute}}, Local: true, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1000, 0)
	for range 2 {
		p.flow.add(sample{at: at, committed: map[string]int64{"indexer": 5, "archiver": 5, "idle": 5}, behind: map[string]int64{"indexer": 1, "archiver": 1}})
		at = at.Add(5 * time.Minute)
	}
	for i, want := range []bool{true, false, false} {
		if g := p.path(at).Groups[i]; g.Stuck != want {
			t.Errorf("%+v", g)
		}
	}
}
