package indexer

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/ingest"
	"weir/schema"
)

func testCluster(t *testing.T, url string, change ...func(*Config)) *Cluster {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Addresses = []string{url}
	for _, c := range change {
		c(&cfg)
	}
	c, err := Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.idle)
	return c
}

func plan(t *testing.T, c *Cluster) *IndexPlan {
	t.Helper()
	p, err := c.PlanIndex(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func differences(p *IndexPlan) (n int) {
	for _, c := range p.Changes {
		n += len(c.Lines)
	}
	return n
}

func TestIndexIsAppliedOnce(t *testing.T) {
	e, url := newElastic(t)
	e.streams = []string{"logs-weir.container-default", "logs-weir.event-default"}
	c := testCluster(t, url)
	p := plan(t, c)
	if len(p.Changes) != 4 || differences(p) < 100 || len(p.Rollover) != 2 || len(p.Notes) != 1 {
		t.Fatalf("plan: %d changes, %d differences, rollover %v, notes %v", len(p.Changes), differences(p), p.Rollover, p.Notes)
	}
	if err := c.ApplyIndex(t.Context(), p, false); err != nil {
		t.Fatal(err)
	}
	if len(e.objects) != 4 || len(e.rolled) != 2 {
		t.Errorf("installed %d objects, rolled over %v", len(e.objects), e.rolled)
	}
	mappings := string(e.objects["/_component_template/weir@mappings"])
	for want, there := range map[string]bool{`"type":"match_only_text"`: true, `"type":"wildcard"`: true, "constant_keyword": false, `"dynamic":"false"`: true} {
		if strings.Contains(mappings, want) != there {
			t.Errorf("mappings contain %s: %v", want, !there)
		}
	}
	if p = plan(t, c); differences(p) != 0 || len(p.Rollover) != 0 {
		t.Errorf("a second plan changes %+v", p)
	}
	// Another lifecycle changes the policy alone, and no index.
	c = testCluster(t, url, func(c *Config) { c.Lifecycle.DeleteAfter, c.Lifecycle.WarmAfter = "", "2d" })
	p = plan(t, c)
	var lines []string
	for _, ch := range p.Changes {
		lines = append(lines, ch.Lines...)
	}
	want := []string{"- phases.delete.actions.delete.delete_searchable_snapshot: true", "- phases.delete.min_age: 30d", "+ phases.warm.actions.forcemerge.max_num_segments: 1", "+ phases.warm.actions.set_priority.priority: 50", "+ phases.warm.min_age: 2d"}
	if !slices.Equal(lines, want) || len(p.Rollover) != 0 {
		t.Errorf("differences %q, rollover %v", lines, p.Rollover)
	}
}

func TestNewerIndexIsLeftAlone(t *testing.T) {
	e, url := newElastic(t)
	newer := json.RawMessage(`{"version":99}`)
	e.objects["/_index_template/weir"] = newer
	c := testCluster(t, url)
	err := c.ApplyIndex(t.Context(), plan(t, c), false)
	if err == nil || !strings.Contains(err.Error(), "index template weir (version 99)") || !strings.Contains(err.Error(), "--force") || len(e.objects) != 1 {
		t.Errorf("error %v, objects %v", err, e.objects)
	}
	if _, _, err := testIndexer(t, url, nil).Open(t.Context(), tp); err != nil {
		t.Errorf("the indexer does not work with a newer index: %v", err)
	}
	if string(e.objects["/_index_template/weir"]) != string(newer) {
		t.Error("it was overwritten")
	}
	if err := c.ApplyIndex(t.Context(), plan(t, c), true); err != nil || len(e.objects) != 4 || string(e.objects["/_index_template/weir"]) == string(newer) {
		t.Errorf("forced: %v", err)
	}
}

func TestOldIndexStopsTheIndexer(t *testing.T) {
	e, url := newElastic(t)
	e.ilm = false
	e.objects["/_index_template/weir"] = json.RawMessage(`{"version":1}`)
	no := false
	x := testIndexer(t, url, nil, func(c *Config) { c.Apply = &no })
	_, _, err := x.Open(t.Context(), tp)
	if err == nil || !strings.Contains(err.Error(), "weir index apply") || !strings.Contains(err.Error(), "index template weir (version 1)") || !strings.Contains(err.Error(), "component template weir@mappings (version 0)") {
		t.Errorf("error %v", err)
	}
	c := testCluster(t, url)
	p := plan(t, c)
	if err := c.ApplyIndex(t.Context(), p, false); err != nil || len(e.objects) != 3 || strings.Contains(string(e.objects["/_component_template/weir@settings"]), "lifecycle") {
		t.Errorf("without lifecycles: %v, %v", err, p.Notes)
	}
	if _, _, err := x.Open(t.Context(), tp); err != nil {
		t.Error(err)
	}
}

// TestIndexVersionRises compares the index design with testdata/index.json; WEIR_REWRITE=1 writes it anew. What changes it must raise
// IndexVersion, or clusters keep the old one.
func TestIndexVersionRises(t *testing.T) {
	l := DefaultConfig().Lifecycle
	design := map[string]any{}
	for _, o := range objects(&l, &features{types: map[string]bool{"match_only_text": true, "wildcard": true, "constant_keyword": true}, ilm: true}) {
		design[o.path] = o.body
	}
	got, err := json.MarshalIndent(design, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const golden = "testdata/index.json"
	if os.Getenv("WEIR_REWRITE") != "" {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(got) != string(want) {
		t.Errorf("the index design is not that of %s (%v): raise IndexVersion and write it anew with WEIR_REWRITE=1", golden, err)
	}
}

func TestRouting(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Namespace, cfg.MaxDataStreams = "prod", 12
	cfg.Routing = []Rule{
		{Match: Match{App: "audit*"}, Dataset: "audit", Namespace: "{tenant}"},
		{Match: Match{Topic: "weir.events"}, Namespace: "ops"},
		{Match: Match{Namespace: "pay?", Labels: map[string]string{"tier": "*"}}, Dataset: "{app}"},
		{Match: Match{Tenant: "big"}, Dataset: "{app}.{cell}"},
	}
	diverted := prometheus.NewCounter(prometheus.CounterOpts{})
	rt := newRouter(&cfg, slog.New(slog.DiscardHandler), diverted)
	attrs := func(pairs ...string) (all []schema.Attr) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, schema.String(pairs[i], pairs[i+1]))
		}
		return all
	}
	const app, ns, tenant = schema.AttrApp, schema.AttrK8sNamespace, schema.AttrTenant
	for _, c := range []struct {
		topic    string
		resource []schema.Attr
		record   []schema.Attr
		want     string
	}{
		{topic: schema.TopicLogs, want: "logs-weir.container-prod"},
		{topic: schema.TopicLogs, resource: attrs(app, "audit-log", tenant, "Bank/One"), want: "logs-weir.audit-bank_one"},
		{topic: schema.TopicLogs, resource: attrs(app, "audit-log"), want: "logs-weir.container-prod"}, // it has no tenant
		{topic: schema.TopicEvents, resource: attrs(app, "shop"), want: "logs-weir.event-ops"},
		{topic: schema.TopicLogs, resource: attrs(app, "Shop Würze", ns, "pay1", schema.LabelPrefix+"tier", "web"), want: "logs-weir.shop_w__rze-prod"},
		{topic: schema.TopicLogs, resource: attrs(app, "shop", ns, "pay12", schema.LabelPrefix+"tier", "web"), want: "logs-weir.container-prod"},
		{topic: schema.TopicLogs, resource: attrs(app, "shop", ns, "pay1"), want: "logs-weir.container-prod"},
		{topic: schema.TopicSignals, record: attrs(tenant, "big", app, strings.Repeat("x", 300), schema.AttrCell, "c"), want: "logs-weir." + strings.Repeat("x", 95) + "-prod"},
		{topic: schema.TopicLogs, resource: attrs(app, "", tenant, "big"), want: "logs-weir.container-prod"},
	} {
		b := &schema.Batch{Topic: c.topic, Resource: c.resource}
		var r *schema.Record
		if c.record != nil {
			r = &schema.Record{Attrs: c.record}
		}
		if got := rt.route(b, r).name; got != c.want {
			t.Errorf("%s %v %v: %s, want %s", c.topic, c.resource, c.record, got, c.want)
		}
	}
	if testutil.ToFloat64(diverted) != 0 {
		t.Error("something was diverted below the bound")
	}
	names := map[string]bool{}
	for i := range 20 {
		b := &schema.Batch{Topic: schema.TopicLogs, Resource: attrs(app, fmt.Sprint("a", i), tenant, "big", schema.AttrCell, "c"), Records: make([]schema.Record, 3)}
		names[rt.route(b, nil).name] = true
	}
	// 5 defaults and 4 of above are known: 3 more fit.
	if len(names) != 4 || !names["logs-weir.a2.c-prod"] || !names["logs-weir.container-prod"] || testutil.ToFloat64(diverted) != 17*3 {
		t.Errorf("past the bound: %v, diverted %v", names, testutil.ToFloat64(diverted))
	}
}

// TestRoutingKnowsTheCluster is about the bound: streams that are there already count, and are used.
func TestRoutingKnowsTheCluster(t *testing.T) {
	e, url := newElastic(t)
	for i := range 10 {
		e.streams = append(e.streams, fmt.Sprintf("logs-weir.a%d-default", i))
	}
	x := testIndexer(t, url, nil, func(c *Config) { c.MaxDataStreams, c.Routing = 5, []Rule{{Dataset: "{app}"}} })
	p, _, err := x.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	for _, app := range []string{"a3", "new"} {
		b := batch(2)
		b.Source, b.Resource = app, append(b.Resource, schema.String(schema.AttrApp, app))
		if err := p.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil {
		t.Fatal(err)
	}
	if e.indices["logs-weir.a3-default"] != 2 || e.indices["logs-weir.container-default"] != 2 || len(e.indices) != 2 {
		t.Errorf("documents by stream: %v", e.indices)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"addresses[0]: credentials":                     func(c *Config) { c.Addresses = []string{"http://u:p@h"} },
		"addresses[0]: \"h:9200\" is not":               func(c *Config) { c.Addresses = []string{"h:9200"} },
		"username: is empty":                            func(c *Config) { c.PasswordEnv = "X" },
		"namespace: \"A\"":                              func(c *Config) { c.Namespace = "A" },
		"routing[0].neither dataset nor namespace":      func(c *Config) { c.Routing = []Rule{{}} },
		"routing[0].dataset: {pod} is not one of":       func(c *Config) { c.Routing = []Rule{{Dataset: "{pod}"}} },
		"routing[0].namespace: \"a-b\" may hold":        func(c *Config) { c.Routing = []Rule{{Namespace: "a-b"}} },
		"max_data_streams: 2":                           func(c *Config) { c.MaxDataStreams = 2 },
		"lifecycle.rollover_size: \"\"":                 func(c *Config) { c.Lifecycle.RolloverSize = "" },
		"lifecycle.rollover_age: \"0d\"":                func(c *Config) { c.Lifecycle.RolloverAge = "0d" },
		"lifecycle.warm_after: \"soon\"":                func(c *Config) { c.Lifecycle.WarmAfter = "soon" },
		"bulk_bytes: 1 ":                                func(c *Config) { c.BulkBytes = 1 },
		"buffer_bytes: 1 is less":                       func(c *Config) { c.BufferBytes = 1 },
		"concurrency: 0":                                func(c *Config) { c.Concurrency = 0 },
		"request_timeout: must be above zero":           func(c *Config) { c.RequestTimeout = 0 },
		"addresses: at least one URL is needed":         func(c *Config) { c.Addresses = nil },
		"indexer.password_file: open /no/such":          func(c *Config) { c.Username, c.PasswordFile = "u", "/no/such" },
		"indexer.ca_file: testdata/log.ndjson holds no": func(c *Config) { c.CAFile = "testdata/log.ndjson" },
	} {
		cfg := DefaultConfig()
		cfg.Addresses = []string{"http://127.0.0.1:9200"}
		change(&cfg)
		if _, err := Connect(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
