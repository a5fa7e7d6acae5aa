package search

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// collect reads everything and wants each document once, in order.
func collect(t *testing.T, d *double, e *Elasticsearch, q *Query, want int) []string {
	t.Helper()
	var ids []string
	last := ""
	err := e.Each(t.Context(), q, func(h *Hit) error {
		var at string
		if err := json.Unmarshal(h.Sort[0], &at); err != nil {
			return err
		}
		if last != "" && (q.Oldest && at < last || !q.Oldest && at > last) {
			t.Errorf("%s after %s", at, last)
		}
		last = at
		ids = append(ids, h.ID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	if n := len(slices.Compact(slices.Clone(ids))); n != want || len(ids) != want {
		t.Errorf("%d hits, %d different ones, want %d", len(ids), n, want)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.pits) != 0 {
		t.Errorf("%d points in time are left behind", len(d.pits))
	}
	return ids
}

func TestPages(t *testing.T) {
	for _, oldest := range []bool{true, false} {
		for _, limit := range []int{-1, 0, 1, 99, 100, 101, 2345, 5000} {
			t.Run(fmt.Sprint(oldest, limit), func(t *testing.T) {
				d := newDouble(t)
				for i := range 2500 {
					d.add("a", 0, int64(i), epoch.Add(time.Duration(i/7)*time.Millisecond), int64(i%3))
				}
				e, _ := d.client()
				want := 2500
				if limit >= 0 {
					want = min(want, limit)
				}
				collect(t, d, e, &Query{Index: "a", Oldest: oldest, Limit: limit}, want)
			})
		}
	}
}

// TestLostPointInTime loses the point in time before every third page, with many documents at one place, so that pages end amid
// them, and with another order among those in each new point in time.
func TestLostPointInTime(t *testing.T) {
	for _, oldest := range []bool{true, false} {
		d := newDouble(t)
		for i := range 3000 {
			d.add("a", 0, int64(i), epoch.Add(time.Duration(i/170)*time.Millisecond), int64(i/85%2))
		}
		pages := 0
		d.fault = func(method, path string, _ int) (int, string) {
			if path == "/_search" {
				if pages++; pages%3 == 0 {
					clear(d.pits)
				}
			}
			return 0, ""
		}
		e, _ := d.client()
		collect(t, d, e, &Query{Index: "a", Oldest: oldest, Limit: -1}, 3000)
		if d.made < 2 {
			t.Error("no point in time was lost")
		}
	}
}

func TestPointInTimeIsLostForGood(t *testing.T) {
	d := newDouble(t)
	d.fault = func(_, path string, _ int) (int, string) {
		if path == "/_search" {
			return 404, contextMissing
		}
		return 0, ""
	}
	e, _ := d.client()
	if err := e.Each(t.Context(), &Query{Index: "a", Limit: -1}, nil); err == nil || !strings.Contains(err.Error(), "again and again") {
		t.Errorf("%v", err)
	}
}

// TestShardLosesPointInTime has one shard answer and one that lost its context: the page is not taken.
func TestShardLosesPointInTime(t *testing.T) {
	d := newDouble(t)
	for i := range 150 {
		d.add("a", 0, int64(i), epoch.Add(time.Duration(i)), 0)
	}
	first := true
	d.fault = func(_, path string, _ int) (int, string) {
		if path == "/_search" && first {
			first = false
			return 200, `{"_shards":{"total":2,"failed":1,"failures":[{"index":"b","reason":{"type":"search_context_missing_exception","reason":"gone"}}]},"hits":{"hits":[]}}`
		}
		return 0, ""
	}
	e, warnings := d.client()
	delete(d.pits, "pit1")
	var n int
	if err := e.Each(t.Context(), &Query{Index: "a", Limit: -1}, func(*Hit) error { n++; return nil }); err != nil || n != 150 || len(*warnings) > 0 || e.Complete() != nil {
		t.Errorf("%d hits, %v, %v", n, err, *warnings)
	}
}

func TestFullClusterAndLongAnswers(t *testing.T) {
	d := newDouble(t)
	for i := range 800 {
		d.add("a", 0, int64(i), epoch.Add(time.Duration(i)), 0)
	}
	d.fault = func(_, path string, n int) (int, string) {
		switch n {
		case 2:
			return 429, `{"error":{"type":"es_rejected_execution_exception","reason":"queue is full"},"status":429}`
		case 4:
			return 429, `{"error":{"type":"circuit_breaking_exception","reason":"too large"},"status":429}`
		}
		return 0, ""
	}
	e, _ := d.client()
	e.bytes = 40_000 // about 200 documents
	collect(t, d, e, &Query{Index: "a", Limit: -1}, 800)
}

func TestErrors(t *testing.T) {
	kql := func(reason string) string {
		return `{"error":{"root_cause":[{"type":"kql_parsing_exception","reason":"` + reason + `"}],"type":"search_phase_execution_exception","reason":"all shards failed","failed_shards":[{"index":"a","reason":{"type":"query_shard_exception","reason":"Failed to parse KQL query","caused_by":{"type":"kql_parsing_exception","reason":"` + reason + `"}}}]},"status":400}`
	}
	for _, c := range []struct {
		name, kql, body string
		status          int
		want            string
	}{
		{"place", "log.level: (error and x", kql("line 1:19: missing ')' at 'and'"), 400, "the query is not understood at character 19: missing ')' at 'and'\n    log.level: (error and x\n                      ^"},
		{"at the end", "a >", kql("line 1:4: mismatched input '<EOF>'"), 400, "    a >\n       ^"},
		{"second line", "a: 1 and\n\tb: (x", kql("line 2:5: no"), 400, "line 2, character 5: no\n    \tb: (x\n    \t   ^"},
		{"wide", "日本: ) é", kql("line 1:5: no"), 400, "    日本: ) é\n          ^"},
		{"control characters", "a\x1b[2J: )", kql("line 1:8: no \\u001b[2J"), 400, "no \\x1b[2J\n    a\\x1b[2J: )\n              ^"},
		{"place outside", "a", kql("line 7:5: no"), 400, "the query is not understood: no"},
		{"no place", "a", kql("[a] is no nested field"), 400, "the query is not understood: [a] is no nested field"},
		{"no kql", "a", `{"error":{"type":"parsing_exception","reason":"unknown query [kql]"},"status":400}`, 400, "has no kql query"},
		{"type", "n: a", `{"error":{"type":"search_phase_execution_exception","reason":"all shards failed","failed_shards":[{"reason":{"type":"query_shard_exception","reason":"failed to create query","caused_by":{"type":"number_format_exception","reason":"For input string: \"a\""}}}]},"status":400}`, 400, `not of its field's type: elasticsearch: status 400: For input string: "a"`},
		{"credentials", "", `{"error":{"type":"security_exception","reason":"missing authentication credentials"},"status":401}`, 401, "set indexer.username and password_env"},
		{"rights", "", `{"error":{"type":"security_exception","reason":"action [x] is unauthorized for user [u]"},"status":403}`, 403, "grant the user or the API key the index privileges read and view_index_metadata on logs-weir.* (action [x] is unauthorized for user [u])"},
		{"text", "", `{"error":"plain text","status":400}`, 400, "status 400"},
		{"proxy", "", "<html>bad gateway \x1b[2J</html>", 502, `<html>bad gateway \x1b[2J</html>`},
		{"no JSON", "", "<html>", 200, "not what it should be"},
		{"sort", "", `{"hits":{"hits":[{"_id":"x"}]}}`, 200, "0 sort values"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDouble(t)
			d.fault = func(_, path string, _ int) (int, string) {
				if path == "/_search" {
					return c.status, c.body
				}
				return 0, ""
			}
			e, _ := d.client()
			err := e.Each(t.Context(), &Query{Index: "a", KQL: c.kql, Limit: -1}, func(*Hit) error { return nil })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
	d := newDouble(t)
	e, _ := d.client()
	d.server.Close()
	if err := e.Each(t.Context(), &Query{Index: "a", Limit: -1}, nil); err == nil || !strings.Contains(err.Error(), "does not answer") || !strings.Contains(err.Error(), "WEIR_ELASTICSEARCH_URL") {
		t.Errorf("%v", err)
	}
}

func TestMissingShardsAreTold(t *testing.T) {
	d := newDouble(t)
	d.fault = func(_, path string, _ int) (int, string) {
		if path == "/_search" {
			return 200, `{"_shards":{"total":3,"failed":1,"failures":[{"index":"b","reason":{"type":"x","reason":"disk\u001b[31m broken"}}]},"_clusters":{"skipped":1},"hits":{"hits":[]}}`
		}
		return 0, ""
	}
	e, warnings := d.client()
	if err := e.Each(t.Context(), &Query{Index: "a", Limit: -1}, nil); err != nil {
		t.Fatal(err)
	}
	if want := []string{`1 of 3 shards failed: b: disk\x1b[31m broken; 1 remote clusters did not answer wholly`}; !slices.Equal(*warnings, want) || !errors.Is(e.Complete(), ErrPartial) {
		t.Errorf("%q, %v", *warnings, e.Complete())
	}
}

func TestCheckNamesFields(t *testing.T) {
	d := newDouble(t)
	d.fault = func(_, path string, _ int) (int, string) {
		switch path {
		case "/logs/_field_caps":
			return 200, `{"indices":["i"],"fields":{"log.level":{"keyword":{"type":"keyword"}},"container.name":{"keyword":{"type":"keyword"}},"message":{"text":{"type":"text"}},"weir.json":{"flattened":{"type":"flattened"}},"_index":{"_index":{}}}}`
		case "/none-*/_field_caps":
			return 200, `{"indices":[],"fields":{}}`
		}
		return 404, `{"error":{"type":"index_not_found_exception","reason":"no such index [x]"},"status":404}`
	}
	e, warnings := d.client()
	if err := e.Check(t.Context(), &Query{Index: "logs", KQL: `level: error and contaner.name: (a or b) and weir.json.status >= 5 and log.*: x and message: "a: b" and qqq: 1`}, []string{"mesage", "_id"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"no index has a field level; near to it: log.level", "no index has a field contaner.name; near to it: container.name", "no index has a field qqq", "no index has a field mesage; near to it: message"}
	if !slices.Equal(*warnings, want) {
		t.Errorf("%q", *warnings)
	}
	for index, want := range map[string]string{"none-*": `matches "none-*"`, "x": `index "x"`} {
		if err := e.Check(t.Context(), &Query{Index: index}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", index, err)
		}
	}
}

func TestNames(t *testing.T) {
	for kql, want := range map[string][]string{
		"":                                     nil,
		"error":                                nil,
		"a: 1 or not b.c : (x and y) and d>=5": {"a", "b.c", "d"},
		`"x: y" and a: "b: c" and a: 2`:        {"a"},
		`a\:b: 1`:                              {"a:b"},
		"error log.level: x":                   {"log.level"},
		`a: "unterminated`:                     {"a"},
		`tail\`:                                nil,
		"日本: x":                                {"日本"},
		"a: b*":                                {"a"},
		"url: http\\://x":                      {"url"},
		"(((":                                  nil,
		"a < 5 and b > 3 or c <= 1 or d: { e: 1}": {"a", "b", "c", "d", "e"},
	} {
		if got := Names(kql); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", kql, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.FixedZone("x", 3600))
	for s, want := range map[string]time.Time{
		"now": now, "90m": now.Add(-90 * time.Minute), "1h30m": now.Add(-90 * time.Minute), "2d": now.AddDate(0, 0, -2), "1w": now.AddDate(0, 0, -7), "0.5h": now.Add(-30 * time.Minute), "250ms": now.Add(-250 * time.Millisecond),
		"2026-11-24": time.Date(2026, 11, 24, 0, 0, 0, 0, now.Location()), "2026-11-24T10:00:00Z": time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC),
		"2026-11-24 10:00": time.Date(2026, 11, 24, 10, 0, 0, 0, now.Location()), "08:30": time.Date(2026, 11, 25, 8, 30, 0, 0, now.Location()),
	} {
		if got, err := ParseTime(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "5", "5x", "-1h", "1h-", "0s", "99999999999w", "1e9h", "yesterday", "2026-13-01", "25:00", "1h 2m"} {
		if got, err := ParseTime(s, now); err == nil || !strings.Contains(err.Error(), "2006-01-02 15:04") {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestPattern(t *testing.T) {
	for _, c := range [][4]string{{"", "", "", "logs-weir.*-*"}, {"", "container", "default", "logs-weir.container-default"}, {"", "weir.event", "", "logs-weir.event-*"}, {"other:logs-*,x", "", "", "other:logs-*,x"}} {
		if got, err := Pattern(c[0], c[1], c[2]); err != nil || got != c[3] {
			t.Errorf("%v: %s, %v", c, got, err)
		}
	}
	for _, c := range [][3]string{{"x", "y", ""}, {"x", "", "y"}, {"a/b", "", ""}, {"_all", "", ""}, {"a b", "", ""}, {"", "a-b", ""}, {"", "", "A"}, {"", "a,b", ""}} {
		if got, err := Pattern(c[0], c[1], c[2]); err == nil {
			t.Errorf("%v: %s", c, got)
		}
	}
}

func TestJSONIsComplete(t *testing.T) {
	for _, c := range []struct {
		source string
		fields []string
		want   string
	}{
		{`{"message":"<a>\n","n":12345678901234567890,"log":{"level":"info"}}`, nil, `{"_index":"i","_id":"1","message":"<a>\n","n":12345678901234567890,"log":{"level":"info"}}`},
		{"{\"message\":\"\u009b31m \u007f \u202e 日本\"}", nil, `{"_index":"i","_id":"1","message":"\u009b31m \u007f \u202e 日本"}`},
		{"{ \"a\" :\n 1 }", nil, `{"_index":"i","_id":"1","a":1}`},
		{"{ }", nil, `{"_index":"i","_id":"1"}`},
		{`{"log":{"level":"info"},"container":{"labels":{"a.b/c":"<x>"}},"n":9007199254740993}`, []string{"log.level", "container.labels.a.b/c", "n", "none"}, `{"_id":"1","_index":"i","container.labels.a.b/c":"<x>","log.level":"info","n":9007199254740993}`},
	} {
		var b bytes.Buffer
		h := &Hit{Index: "i", ID: "1", Source: json.RawMessage(c.source)}
		if err := h.AppendJSON(&b, c.fields); err != nil || b.String() != c.want+"\n" || !json.Valid(b.Bytes()) {
			t.Errorf("%v\n%s%s", err, b.String(), c.want)
		}
	}
}

// following makes a follower on the double that keeps what it was given.
func following(t *testing.T, d *double) (f *follower, given *[]string) {
	e, _ := d.client()
	given = new([]string)
	f = &follower{e: e, q: &Query{Index: "x"}, listed: map[string]struct{}{}, emit: func(h *Hit) error {
		*given = append(*given, h.ID)
		return nil
	}}
	if err := f.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f, given
}

func (f *follower) must(t *testing.T, steps ...func(context.Context) error) {
	t.Helper()
	for _, step := range steps {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFollowLateAndOutOfOrder: what was there is not shown; what comes is shown once, whatever its time, its shard, its index, and
// also where it is found after its successors.
func TestFollowLateAndOutOfOrder(t *testing.T) {
	d := newDouble(t)
	for i := range 250 {
		d.add("a", 0, int64(i), epoch, 0)
		d.add("a", 1, int64(i), epoch, 0)
	}
	f, given := following(t, d)
	f.must(t, f.poll)
	want := []string{}
	step := func(index string, shard int, seq int64, at time.Time) {
		d.add(index, shard, seq, at, 0)
		want = append(want, fmt.Sprintf("%s.%d.%d", index, shard, seq))
	}
	step("a", 0, 250, epoch.Add(-time.Hour)) // late by its time
	step("a", 1, 255, epoch)                 // 250 to 254 are not to be found yet
	step("b", 0, 3, epoch)                   // an index that is new
	step("b", 0, 1, epoch)
	f.must(t, f.poll, f.poll, f.turn, f.poll)
	step("a", 1, 252, epoch) // found after its successors
	step("b", 0, 0, epoch)
	step("a", 0, 251, epoch)
	f.must(t, f.poll, f.turn, f.poll, f.turn, f.turn, f.poll)
	for i := range 350 { // more than a page
		step("b", 0, int64(4+i), epoch)
	}
	f.must(t, f.poll, f.turn, f.poll, f.turn)
	slices.Sort(want)
	got := slices.Sorted(slices.Values(*given))
	if !slices.Equal(got, want) {
		missing := slices.DeleteFunc(slices.Clone(want), func(id string) bool { return slices.Contains(got, id) })
		t.Errorf("%d given, want %d, missing %v", len(got), len(want), missing)
	}
	f.must(t, f.turn, f.turn)
	if f.seen != 0 {
		t.Errorf("%d ids are still remembered when nothing comes", f.seen)
	}
}

// TestFollowGoesOn runs the loop: the last records first, then those that come, also over a time without answers.
func TestFollowGoesOn(t *testing.T) {
	d := newDouble(t)
	for i := range 30 {
		d.add("a", 0, int64(i), epoch.Add(time.Duration(i)*time.Second), 0)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var given []string
	e, warnings := d.client()
	err := e.Follow(ctx, &Query{Index: "x", Limit: 3}, time.Millisecond, func(h *Hit) error {
		given = append(given, h.ID)
		switch len(given) {
		case 3:
			d.add("a", 0, 30, epoch, 0)
		case 4:
			d.mu.Lock()
			from := len(d.requests)
			d.fault = func(_, _ string, n int) (int, string) {
				if n > from && n <= from+2*maxTries {
					return 503, `{}`
				}
				return 0, ""
			}
			d.mu.Unlock()
			d.add("a", 0, 31, epoch, 0)
		case 5:
			cancel()
		}
		return nil
	}, func() error { return nil })
	if want := []string{"a.0.27", "a.0.28", "a.0.29", "a.0.30", "a.0.31"}; err != nil || !slices.Equal(given, want) {
		t.Errorf("%v: %v", err, given)
	}
	if len(*warnings) == 0 || !strings.Contains((*warnings)[0], "tried again") {
		t.Errorf("%q", *warnings)
	}
}

func TestFollowEndsWithTheOutput(t *testing.T) {
	d := newDouble(t)
	d.add("a", 0, 0, epoch, 0)
	e, _ := d.client()
	closed := errors.New("closed")
	if err := e.Follow(t.Context(), &Query{Index: "x", Limit: 0}, time.Millisecond, func(*Hit) error { return closed }, func() error {
		d.add("a", 0, 1, epoch, 0)
		return nil
	}); !errors.Is(err, closed) {
		t.Error(err)
	}
}

func TestFollowStopsWhereItIsRefused(t *testing.T) {
	d := newDouble(t)
	e, _ := d.client()
	err := e.Follow(t.Context(), &Query{Index: "x"}, time.Millisecond, nil, func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.fault = func(_, _ string, _ int) (int, string) { return http.StatusUnauthorized, `{}` }
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "credentials") {
		t.Error(err)
	}
}

func TestQueryForKibana(t *testing.T) {
	for _, c := range [][3]string{{"a: 1 or b: 2", "", "a: 1 or b: 2"}, {"", `we"b`, `weir.app: "we\"b"`}, {"a: 1 or b: 2", "web", `(a: 1 or b: 2) and weir.app: "web"`}} {
		if got := (&Query{KQL: c[0], App: c[1]}).Kibana(); got != c[2] {
			t.Errorf("%v: %s", c, got)
		}
	}
}
