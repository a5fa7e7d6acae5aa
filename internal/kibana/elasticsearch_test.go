//go:build e2e

package kibana

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/indexer"
	"weir/ingest"
	"weir/schema"
)

// Kibana does not run here. What it would ask Elasticsearch is made from the committed objects alone, sent to a real one, and compared
// with what is known of a set of records that the real indexer wrote.

// cluster is a real Elasticsearch with the set of records in a namespace of its own.
type cluster struct {
	t              *testing.T
	url, namespace string
}

func (c *cluster) try(method, path string, body any, into any) (status int, answer []byte) {
	c.t.Helper()
	var b []byte
	var err error
	if body != nil {
		if b, err = json.Marshal(body); err != nil {
			c.t.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, c.url+path, bytes.NewReader(b))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		c.t.Fatal(err)
	}
	if into != nil && res.StatusCode < 300 {
		if err := json.Unmarshal(answer, into); err != nil {
			c.t.Fatal(err)
		}
	}
	return res.StatusCode, answer
}

func (c *cluster) ask(method, path string, body any, into any) {
	c.t.Helper()
	if status, answer := c.try(method, path, body, into); status >= 300 {
		c.t.Fatalf("%s %s: %d %.800s", method, path, status, answer)
	}
}

// indices is a data view's pattern, narrowed to the namespace.
func (c *cluster) indices(pattern string) string {
	var parts []string
	for _, p := range strings.Split(pattern, ",") {
		head, ok := strings.CutSuffix(p, "-*")
		if !ok {
			c.t.Fatalf("the pattern %q does not end with a namespace", p)
		}
		parts = append(parts, head+"-"+c.namespace+"*") // without the star nothing is left out
	}
	return strings.Join(parts, ",")
}

type object = map[string]any

var begin = time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)

// within is the filter that Kibana makes of its time picker and of a query.
func within(query string) object {
	filters := []any{object{"range": object{"@timestamp": object{"gte": begin.Format(time.RFC3339), "lte": begin.Add(time.Hour).Format(time.RFC3339), "format": "strict_date_optional_time"}}}}
	if query != "" {
		filters = append(filters, object{"kql": object{"query": query}})
	}
	return object{"bool": object{"filter": filters}}
}

// records are the set: a name, which is the message, and what else is said. One starts each second.
func records() []*schema.Batch {
	at := 0
	batch := func(topic, source string, resource []schema.Attr, all ...schema.Record) *schema.Batch {
		b := &schema.Batch{Topic: topic, Source: source, Resource: resource, Begin: schema.Position{Incarnation: schema.Incarnation{Start: 1, Print: 1}}}
		for i, r := range all {
			at++
			r.Time = begin.Add(time.Duration(at) * time.Second).UnixNano()
			r.Observed, r.Offset = r.Time+1, int64(at*100+i)
			b.Records = append(b.Records, r)
		}
		return b
	}
	str, num, yes := schema.String, schema.Int, schema.Bool
	line := func(name, level string, attrs ...schema.Attr) schema.Record {
		return schema.Record{Body: name, SeverityText: level, Attrs: attrs}
	}
	event := func(name, action, level string, attrs ...schema.Attr) schema.Record {
		return schema.Record{Body: name, EventName: action, SeverityText: level, Attrs: attrs}
	}
	of := func(id, name, app, image, node string) []schema.Attr {
		return []schema.Attr{str(schema.AttrContainerID, id), str(schema.AttrContainerName, name), str(schema.AttrApp, app), str(schema.AttrImageName, image), str(schema.AttrHostName, node)}
	}
	pay, web, web2 := of("c1", "pay-1", "pay", "pay:1", "n1"), of("c2", "web-1", "web", "web:2", "n2"), of("c3", "web-2", "web", "web:2", "n2")
	n1 := []schema.Attr{str(schema.AttrHostName, "n1")}
	window := func(name, id, container, app string, lines int64) schema.Record {
		return event(name, schema.EventSignal, "", str(schema.AttrSignalRule, "window_app_1m"), str(schema.AttrContainerID, id), str(schema.AttrContainerName, container), str(schema.AttrApp, app), num("weir.window.lines", lines), num("weir.window.lines_added", lines))
	}
	letter := func(name, action, level, index, source string, size int64) schema.Record {
		r := event(name, action, level, str("error.message", "mapping refused a field"), str("weir.deadletter.topic", schema.TopicLogs), num("weir.deadletter.offset", 1))
		if index != "" {
			r.Attrs = append(r.Attrs, str("weir.deadletter.index", index), str("weir.deadletter.source", source), num("weir.deadletter.bytes", size))
		}
		return r
	}
	const die, refused, status, path = "docker.container.die", "logs-weir.container-default", "http.response.status_code", "url.path"
	return []*schema.Batch{
		batch(schema.TopicLogs, "docker/n1/c1", pay,
			line("L1", "INFO"), line("L2", "ERROR", str("exception.type", "java.sql.SQLException")), line("L3", "WARN", num(schema.AttrRedacted, 2)),
			line("L4", "FATAL", str("exception.type", "java.lang.OutOfMemoryError")), line("L5", "", yes(schema.AttrTruncated, true)),
			line("L6", "INFO", num(status, 500), str(path, "/pay")), line("L7", "INFO", num(status, 200), str(path, "/ok")),
			event("L8", schema.EventSourceClosed, "", num(schema.AttrLines, 7), num(schema.AttrBytes, 700))),
		batch(schema.TopicLogs, "docker/n2/c2", web,
			line("W1", "INFO", num(status, 503), str(path, "/pay"), num(schema.AttrRedacted, 1)), line("W2", "ERROR", str("exception.type", "java.sql.SQLException")), line("W3", "", yes(schema.AttrDamaged, true)),
			event("W4", schema.EventLoss, "ERROR", str(schema.AttrLossReason, "rotated_away")), event("W5", schema.EventLoss, "ERROR", str(schema.AttrLossReason, "removed_unread"))),
		batch(schema.TopicLogs, "docker/n2/c3", web2, line("W6", "INFO", yes(schema.AttrPartial, true))),
		batch(schema.TopicEvents, "docker-events/n1", pay, event("E1", "docker.container.start", "INFO"), event("E2", "docker.container.oom", "ERROR"),
			event("E3", die, "ERROR", num(schema.AttrExitCode, 137), yes(schema.AttrOOM, true))),
		batch(schema.TopicEvents, "docker-events/n2", web, event("E4", die, "INFO", num(schema.AttrExitCode, 0), yes(schema.AttrOOM, false)),
			event("E5", die, "ERROR", num(schema.AttrExitCode, 1), yes(schema.AttrOOM, false))),
		batch(schema.TopicEvents, "docker-events/n1", n1, event("E6", "docker.network.connect", "INFO", str(schema.AttrActorID, "net")), event("E7", schema.EventGapOpened, "WARN")),
		batch(schema.TopicEvents, "weir/indexer/weir.logs/0", nil, event("E8", schema.EventGapOpened, "WARN", str("weir.gap.source", "docker/n1/c1"))),
		batch(schema.TopicSignals, "weir/processor/weir.logs/0", nil, window("S1", "c1", "pay-1", "pay", 7), window("S2", "c2", "web-1", "web", 3), window("S3", "c1", "pay-1", "pay", 2)),
		batch(schema.TopicActions, "weir/control", n1, event("A1", "weir.action.restart", "INFO", str(schema.AttrContainerID, "c1"), str(schema.AttrContainerName, "pay-1"))),
		batch(schema.TopicDeadLetter, "weir/indexer/weir.logs/0", nil, letter("D1", schema.EventDeadLetter, "ERROR", refused, "docker/n1/c1", 100), letter("D2", schema.EventDeadLetter, "ERROR", refused, "docker/n2/c2", 50),
			letter("D3", schema.EventReplayed, "INFO", refused, "docker/n1/c1", 100), letter("D4", schema.EventDeadLetter, "ERROR", "", "", 0)),
	}
}

// wantSearches are the records that each search finds, in its order.
var wantSearches = map[string]string{
	"weir-app-errors":     "W2 L4 L2",
	"weir-container-life": "L1 L2 L3 L4 L5 L6 L7 L8 W1 W2 W3 W4 W5 W6 E1 E2 E3 E4 E5 S1 S2 S3 A1",
	"weir-crashes":        "E5 E3 E2",
	"weir-healing":        "A1",
	"weir-losses":         "W5 W4",
	"weir-gaps":           "E8 E7",
	"weir-dead-letters":   "D4 D3 D2 D1",
}

// wantPanels are the rows that each panel shows: what they are divided by, and the measures. Of a chart over time they are summed up.
var wantPanels = map[string][]string{
	"weir-records":          {"30"},
	"weir-nodes":            {"2"},
	"weir-apps":             {"2"},
	"weir-containers":       {"3"},
	"weir-errors":           {"3"},
	"weir-crashed":          {"2"},
	"weir-oom":              {"1"},
	"weir-lost":             {"2"},
	"weir-gaps-opened":      {"2"},
	"weir-letters":          {"3"},
	"weir-damaged":          {"3"},
	"weir-redacted":         {"3"},
	"weir-by-level":         {"(none) 2", "error 2", "fatal 1", "info 5", "warn 1"},
	"weir-by-app":           {"pay 7", "web 4"},
	"weir-errors-by-app":    {"pay 2", "web 1"},
	"weir-events-by-action": {"docker.container.die 3", "docker.container.oom 1", "docker.container.start 1", "docker.network.connect 1"},
	"weir-losses-by-reason": {"removed_unread 1", "rotated_away 1"},
	"weir-counted":          {"pay 9", "web 3"},
	"weir-by-status":        {"200 1", "500 1", "503 1"},
	"weir-error-types":      {"java.lang.OutOfMemoryError 1", "java.sql.SQLException 2"},
	"weir-failed-paths":     {"/pay 2"},
	"weir-images":           {"pay:1 1", "web:2 2"},
	"weir-app-table":        {"pay 13 1 2 1 0", "web 9 2 1 1 2"},
	"weir-node-table":       {"n1 14 1 2 1 0", "n2 8 2 1 1 2"},
	"weir-container-table":  {"pay-1 n1 12 2 1 1", "web-1 n2 7 1 0 1", "web-2 n2 1 0 0 0"},
	"weir-loss-table":       {"docker/n2/c2 removed_unread 1", "docker/n2/c2 rotated_away 1"},
	"weir-letter-table":     {"logs-weir.container-default 2 150 2"},
	"weir-closed-table":     {"n1 1 7 700"},
}

var wantViews = map[string]int{"weir-all": 30, "weir-logs": 14, "weir-events": 8, "weir-signals": 3, "weir-actions": 1}

var wantControls = map[string]string{"weir.app": "pay web", "host.name": "n1 n2", "container.name": "pay-1 web-1 web-2"}

func TestRealElasticsearch(t *testing.T) {
	c := &cluster{t: t, url: os.Getenv("WEIR_ELASTICSEARCH_URL"), namespace: fmt.Sprint("kibana", time.Now().UnixNano())}
	if c.url == "" {
		t.Fatal("WEIR_ELASTICSEARCH_URL is not set: run `make e2e`")
	}
	c.fill()
	all := committed(t)
	patterns := map[string]string{} // by the data view's id
	for i := range all {
		if all[i].Type == "index-pattern" {
			patterns[all[i].ID] = c.indices(all[i].Attributes["title"].(string))
		}
	}
	t.Run("parser", func(t *testing.T) { // what says yes must be able to say no
		body := object{"query": object{"kql": object{"query": "log.level: (error or"}}}
		if status, answer := c.try(http.MethodPost, "/"+patterns["weir-all"]+"/_search", body, nil); status != http.StatusBadRequest {
			t.Errorf("a broken query: %d %s", status, answer)
		}
	})
	t.Run("examples of docs/search.md", func(t *testing.T) {
		doc, err := os.ReadFile("../../docs/search.md")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(doc), "\n## Queries\n")
		block, _, _ := strings.Cut(rest, "\n- ")
		n := 0
		for line := range strings.Lines(block) {
			if q, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    "); ok {
				n++
				if status, answer := c.try(http.MethodPost, "/"+patterns["weir-all"]+"/_search?size=0", object{"query": object{"kql": object{"query": q}}}, nil); status != http.StatusOK {
					t.Errorf("%s: %d %.400s", q, status, answer)
				}
			}
		}
		if n < 5 {
			t.Errorf("%d examples", n)
		}
	})
	seen := map[string]int{}
	for i := range all {
		o := &all[i]
		seen[o.Type]++
		t.Run(o.Type+"/"+o.ID, func(t *testing.T) {
			c := &cluster{t, c.url, c.namespace}
			indices := patterns["weir-all"]
			for _, r := range o.References {
				if r.Type == "index-pattern" {
					indices = patterns[r.ID]
				}
			}
			if o.Type == "index-pattern" {
				indices = patterns[o.ID]
			}
			c.fields(o, indices)
			for at, q := range queries(t, o) {
				if status, answer := c.try(http.MethodPost, "/"+indices+"/_search?size=0", object{"query": object{"kql": object{"query": q}}}, nil); status != http.StatusOK {
					t.Errorf("%s: %s: %d %.400s", at, q, status, answer)
				}
			}
			switch o.Type {
			case "index-pattern":
				if got := len(c.hits(indices, within(""), "asc")); got != wantViews[o.ID] {
					t.Errorf("%d records, want %d", got, wantViews[o.ID])
				}
			case "search":
				order := o.Attributes["sort"].([]any)[0].([]any)[1].(string)
				if got := strings.Join(c.hits(indices, within(queries(t, o)["query"]), order), " "); got != wantSearches[o.ID] || got == "" {
					t.Errorf("finds %s\nwant  %s", got, wantSearches[o.ID])
				}
			case "lens":
				if got := c.panel(o, indices); !slices.Equal(got, wantPanels[o.ID]) || len(got) == 0 {
					t.Errorf("shows %q\nwant  %q", got, wantPanels[o.ID])
				}
			case "dashboard":
				for _, u := range fieldUses(t, o) {
					if got := c.values(indices, u.field); got != wantControls[u.field] || got == "" {
						t.Errorf("the control offers %s\nwant %s", got, wantControls[u.field])
					}
				}
			}
		})
	}
	for kind, want := range map[string]int{"index-pattern": len(wantViews), "search": len(wantSearches), "lens": len(wantPanels)} {
		if seen[kind] != want {
			t.Errorf("%d objects of type %s, and %d are known here", seen[kind], kind, want)
		}
	}
}

// fill writes the set with the real sink.
func (c *cluster) fill() {
	c.t.Helper()
	cfg := indexer.DefaultConfig()
	apply := true
	cfg.Addresses, cfg.Namespace, cfg.Apply = []string{c.url}, c.namespace, &apply
	x, err := indexer.New(cfg, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		c.t.Fatal(err)
	}
	defer x.Close()
	for i, b := range records() {
		b.Begin.Incarnation.Start = int64(i + 1)
		p, _, err := x.Open(c.t.Context(), ingest.TopicPartition{Topic: b.Topic})
		if err != nil {
			c.t.Fatal(err)
		}
		if err := p.Write(c.t.Context(), b); err != nil {
			c.t.Fatal(err)
		}
		if err := p.Commit(c.t.Context(), ingest.Checkpoint{NextOffset: 1}); err != nil {
			c.t.Fatal(err)
		}
		p.Close()
	}
	c.t.Cleanup(func() { c.try(http.MethodDelete, "/_data_stream/logs-weir.*-"+c.namespace, nil, nil) })
	c.ask(http.MethodPost, "/"+c.indices("logs-weir.*-*")+"/_refresh", nil, nil)
}

// fields asks whether Elasticsearch can do with each field what the object does.
func (c *cluster) fields(o *Object, indices string) {
	c.t.Helper()
	for _, u := range fieldUses(c.t, o) {
		var caps struct {
			Fields map[string]map[string]struct {
				Searchable   bool `json:"searchable"`
				Aggregatable bool `json:"aggregatable"`
			} `json:"fields"`
		}
		c.ask(http.MethodGet, "/"+indices+"/_field_caps?fields="+u.field, nil, &caps)
		kinds := slices.Sorted(maps.Keys(caps.Fields[u.field]))
		if len(kinds) != 1 {
			c.t.Errorf("%s: %s has the types %q", u.where, u.field, kinds)
			continue
		}
		can := caps.Fields[u.field][kinds[0]]
		ok := true
		switch u.operation {
		case "query":
			ok = can.Searchable
		case "terms", "unique_count":
			ok = can.Aggregatable
		case "sum":
			ok = can.Aggregatable && kinds[0] == "long"
		case "date_histogram", "sort":
			ok = can.Aggregatable && kinds[0] == "date_nanos"
		}
		if !ok {
			c.t.Errorf("%s: %s of %s, which is %s: %+v", u.where, u.operation, u.field, kinds[0], can)
		}
	}
}

// hits are the names of the records that a query finds.
func (c *cluster) hits(indices string, query object, order string) []string {
	c.t.Helper()
	var found struct {
		Hits struct {
			Hits []struct {
				Source struct {
					Message string `json:"message"`
				} `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	c.ask(http.MethodPost, "/"+indices+"/_search", object{"size": 1000, "query": query, "sort": []any{object{"@timestamp": object{"order": order, "format": "strict_date_optional_time_nanos"}}}}, &found)
	var names []string
	for _, h := range found.Hits.Hits {
		names = append(names, h.Source.Message)
	}
	return names
}

// values are what an options list offers.
func (c *cluster) values(indices, field string) string {
	c.t.Helper()
	var found struct {
		Aggregations struct {
			Values struct {
				Buckets []struct {
					Key string `json:"key"`
				} `json:"buckets"`
			} `json:"values"`
		} `json:"aggregations"`
	}
	c.ask(http.MethodPost, "/"+indices+"/_search", object{"size": 0, "query": within(""), "aggs": object{"values": object{"terms": object{"field": field, "size": 10, "order": object{"_key": "asc"}}}}}, &found)
	var keys []string
	for _, b := range found.Aggregations.Values.Buckets {
		keys = append(keys, b.Key)
	}
	return strings.Join(keys, " ")
}

// panel runs the aggregations that a panel's state asks for and gives the rows that it would show.
func (c *cluster) panel(o *Object, indices string) []string {
	c.t.Helper()
	order := columnOrder(o)
	var found struct {
		Aggregations object `json:"aggregations"`
	}
	body := object{"size": 0, "track_total_hits": true, "query": within(dig(o.Attributes, "state", "query", "query").(string)), "aggs": aggregations(c.t, o, order)}
	if len(body["aggs"].(object)) == 0 { // one count alone is the number of hits
		var hits struct {
			Hits struct {
				Total struct {
					Value int `json:"value"`
				} `json:"total"`
			} `json:"hits"`
		}
		c.ask(http.MethodPost, "/"+indices+"/_search", body, &hits)
		return []string{fmt.Sprint(hits.Hits.Total.Value)}
	}
	c.ask(http.MethodPost, "/"+indices+"/_search", body, &found)
	sums, times := map[string][]float64{}, map[any]bool{}
	rows(o, order, found.Aggregations, 0, "", sums, times)
	if slices.Contains(order, "time") && len(times) < 2 {
		c.t.Errorf("the records lie in %d intervals", len(times))
	}
	var all []string
	for key, values := range sums {
		all = append(all, strings.TrimSpace(key+" "+strings.Trim(fmt.Sprint(values), "[]")))
	}
	slices.Sort(all)
	return all
}

// aggregations of the columns, each divider within the one before, the measures within the last.
func aggregations(t *testing.T, o *Object, order []string) object {
	t.Helper()
	aggs := object{}
	for i, id := range order {
		col := column(o, id)
		field := col["sourceField"].(string)
		switch col["operationType"] {
		case "date_histogram":
			return object{id: object{"date_histogram": object{"field": field, "fixed_interval": "1s", "time_zone": "UTC", "min_doc_count": 0}, "aggs": aggregations(t, o, order[i+1:])}}
		case "terms":
			p := col["params"].(object)
			inner := aggregations(t, o, order[i+1:])
			by := dig(p, "orderBy", "columnId").(string)
			if agg := measured(t, o, by); agg != nil {
				inner[by] = agg // as Kibana does: what is sorted by stands beside what is within
			} else {
				by = "_count"
			}
			terms := object{"field": field, "size": p["size"], "order": object{by: p["orderDirection"]}}
			if p["missingBucket"] == true {
				terms["missing"] = "(none)"
			}
			return object{id: object{"terms": terms, "aggs": inner}}
		}
		if agg := measured(t, o, id); agg != nil {
			aggs[id] = agg
		}
	}
	return aggs
}

// measured is the aggregation of a measure; a count of all has none.
func measured(t *testing.T, o *Object, id string) object {
	t.Helper()
	col := column(o, id)
	var agg object
	switch col["operationType"] {
	case "count":
	case "sum":
		agg = object{"sum": object{"field": col["sourceField"]}}
	case "unique_count":
		agg = object{"cardinality": object{"field": col["sourceField"]}}
	default:
		t.Fatalf("%s: nobody knows the operation %v", o.ID, col["operationType"])
	}
	where, ok := dig(col, "filter", "query").(string)
	if !ok {
		return agg
	}
	narrowed := object{"filter": object{"bool": object{"filter": []any{object{"kql": object{"query": where}}}}}}
	if agg != nil {
		narrowed["aggs"] = object{"within": agg}
	}
	return narrowed
}

// rows reads the answer; values of one key at several times add up.
func rows(o *Object, order []string, bucket object, count float64, key string, sums map[string][]float64, times map[any]bool) {
	if op := column(o, order[0])["operationType"]; op == "date_histogram" || op == "terms" {
		for _, b := range dig(bucket, order[0], "buckets").([]any) {
			b := b.(object)
			under := key
			if op == "terms" {
				under = strings.TrimSpace(key + " " + fmt.Sprint(b["key"]))
			} else if b["doc_count"].(float64) > 0 {
				times[b["key"]] = true
			}
			rows(o, order[1:], b, b["doc_count"].(float64), under, sums, times)
		}
		return
	}
	if sums[key] == nil {
		sums[key] = make([]float64, len(order))
	}
	for i, id := range order {
		v := count
		if answer, ok := bucket[id].(object); ok {
			if within, ok := answer["within"].(object); ok {
				answer = within
			}
			if v, ok = answer["value"].(float64); !ok {
				v = answer["doc_count"].(float64)
			}
		}
		sums[key][i] += v
	}
}
