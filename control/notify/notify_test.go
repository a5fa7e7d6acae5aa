package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/processor/signal"
	"weir/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rows is a table in memory; a broken one takes nothing.
type rows struct {
	mu     sync.Mutex
	rows   map[string][]byte
	broken bool
}

func (r *rows) Load(context.Context, int) (map[string][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.rows), nil
}

func (r *rows) Save(_ context.Context, _ int, rows map[string][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return errors.New("no broker")
	}
	for k, v := range rows {
		if len(v) == 0 {
			delete(r.rows, k)
		} else {
			r.rows[k] = v
		}
	}
	return nil
}

func (r *rows) len() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.rows) }

// receiver is an Alertmanager or a webhook.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	status   int    // of the answer
	never    string // a body with this in it is refused
	requests []string
	auth     []string
	paths    []string
}

func receive(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{status: 200}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		body, _ := io.ReadAll(q.Body)
		switch {
		case r.status/100 == 3:
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(r.status)
		case r.status != 200:
			http.Error(w, "not now", r.status)
		case r.never != "" && bytes.Contains(body, []byte(r.never)):
			http.Error(w, "bad labels", 400)
		default:
			r.requests, r.auth, r.paths = append(r.requests, string(body)), append(r.auth, q.Header.Get("Authorization")), append(r.paths, q.URL.Path)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status int) { r.mu.Lock(); defer r.mu.Unlock(); r.status = status }

// got empties what came.
func (r *receiver) got() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, r.requests = r.requests, nil
	return all
}

// bench is a notifier with an Alertmanager and a webhook, whose clock the test turns.
type bench struct {
	t            *testing.T
	now          time.Time
	table        *rows
	manager, web *receiver
	n            *Notifier
	p            *partition
	log          bytes.Buffer
	change       func(*Config)
}

func newBench(t *testing.T, change func(*Config)) *bench {
	b := &bench{t: t, now: time.Now(), table: &rows{rows: map[string][]byte{}}, manager: receive(t), web: receive(t), change: change}
	b.start()
	return b
}

// start is a process that begins.
func (b *bench) start() {
	b.t.Helper()
	cfg := DefaultConfig()
	cfg.Alertmanager, cfg.Webhooks = []Target{{URL: b.manager.URL + "/"}}, []Target{{URL: b.web.URL + "/hook"}}
	if b.change != nil {
		b.change(&cfg)
	}
	var err error
	if b.n, err = newNotifier(cfg, b.table, slog.New(slog.NewTextHandler(&b.log, nil)), prometheus.NewRegistry()); err != nil {
		b.t.Fatal(err)
	}
	slices.SortFunc(b.n.targets, func(x, y *target) int { return strings.Compare(x.name, y.name) })
	b.t.Cleanup(func() {
		for _, t := range b.n.targets {
			t.client.CloseIdleConnections()
		}
	})
	s, _, err := b.n.Open(b.t.Context(), ingest.TopicPartition{Topic: schema.TopicSignals, Partition: 3})
	if err != nil {
		b.t.Fatal(err)
	}
	b.p = s.(*partition)
	for _, a := range b.p.alerts {
		a.changed = b.now
	}
}

func (b *bench) signal(rule, container, state string, change ...func(*signal.Signal)) {
	s := signal.Signal{Kind: signal.CrashLoop, Rule: rule, Group: signal.Group("container.name", container), State: state, End: b.now.UnixNano(), Severity: signal.Error, Value: 5, Body: container + " is " + state,
		Records: []string{"r1", "r2"}, Subject: []schema.Attr{schema.String(schema.AttrContainerName, container), schema.String(schema.AttrHostName, "node-1")}}
	for _, c := range change {
		c(&s)
	}
	b.n.mu.Lock()
	defer b.n.mu.Unlock()
	b.p.apply(&s, b.now)
}

// after turns the clock, tells, cleans and saves.
func (b *bench) after(d time.Duration) (manager, web []string) {
	b.t.Helper()
	b.now = b.now.Add(d)
	for _, t := range b.n.targets {
		_ = t.tell(b.t.Context(), b.now) // what is not taken is seen by what comes
	}
	b.n.clean(b.now)
	if err := b.p.save(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return b.manager.got(), b.web.got()
}

// brief is what was told, one word an alert: + fires, - is over. A bracket begins a message to a webhook.
func (b *bench) brief(requests []string) string {
	b.t.Helper()
	var words []string
	for _, r := range requests {
		var list []told
		bracket := ""
		if json.Unmarshal([]byte(r), &list) != nil {
			var m message
			if err := json.Unmarshal([]byte(r), &m); err != nil {
				b.t.Fatalf("%v: %s", err, r)
			}
			list, bracket = m.Alerts, "["
		}
		for _, a := range list {
			mark := "+"
			if !a.EndsAt.IsZero() && !a.EndsAt.After(b.now) {
				mark = "-"
			}
			if a.Status != "" && (a.Status == "resolved") != (mark == "-") {
				b.t.Errorf("status %s with the end %v at %v", a.Status, a.EndsAt, b.now)
			}
			words = append(words, bracket+mark+a.Labels["container"])
			bracket = ""
		}
	}
	return strings.Join(words, " ")
}

// step is a signal, or only time that goes by, and what each is told then.
type step struct {
	rule, container, state string
	change                 func(*signal.Signal)
	after                  time.Duration
	manager, web           string
	do                     func(*bench)
}

func run(t *testing.T, b *bench, steps []step) {
	t.Helper()
	for i, s := range steps {
		if s.do != nil {
			s.do(b)
		}
		if s.rule != "" {
			change := s.change
			if change == nil {
				change = func(*signal.Signal) {}
			}
			b.signal(s.rule, s.container, s.state, change)
		}
		manager, web := b.after(s.after)
		if got := b.brief(manager); got != s.manager {
			t.Errorf("step %d: Alertmanager was told %q, want %q", i, got, s.manager)
		}
		if got := b.brief(web); got != s.web {
			t.Errorf("step %d: the webhook was told %q, want %q", i, got, s.web)
		}
	}
}

const second, minute = time.Second, time.Minute

func TestFireAndResolve(t *testing.T) {
	b := newBench(t, nil)
	run(t, b, []step{
		{rule: "loop", container: "a", state: signal.Firing, after: second, manager: "+a"},
		{rule: "loop", container: "b", state: signal.Firing, after: second, manager: "+b"},
		{after: 4 * second, web: "[+a +b"},                                       // the group waited for more
		{rule: "loop", container: "a", state: signal.Firing, after: 10 * second}, // nothing new
		{after: minute, manager: "+a +b"},                                        // it forgets otherwise
		{rule: "loop", container: "a", state: signal.Resolved, after: 5 * second, manager: "-a", web: "[-a +b"},
		{after: minute, manager: "+b"},
		{rule: "loop", container: "a", state: signal.Firing, after: 5 * second, manager: "+a", web: "[+b +a"}, // anew
		{rule: "loop", container: "a", state: signal.Resolved, after: 5 * second, manager: "-a", web: "[+b -a"},
		{after: 4 * time.Hour, manager: "+b", web: "[+b"}, // the webhook is told again
		{rule: "loop", container: "b", state: signal.Resolved, after: 5 * second, manager: "-b", web: "[-b"},
		{after: time.Hour},
		{rule: "loop", container: "c", state: signal.Resolved, after: time.Hour}, // nothing was told
	})
	if n := b.table.len(); n != 0 {
		t.Errorf("%d alerts are left in the table", n)
	}
}

func TestGroups(t *testing.T) {
	b := newBench(t, func(c *Config) { c.GroupBy = []string{"alertname", "node"} })
	run(t, b, []step{
		{rule: "loop", container: "a", state: signal.Firing, manager: "+a"},
		{rule: "oom", container: "b", state: signal.Firing, manager: "+b"},
	})
	_, web := b.after(5 * second)
	if len(web) != 2 || !strings.Contains(web[0], `"groupKey":"{\"alertname\":\"loop\",\"node\":\"node-1\"}"`) || !strings.Contains(web[0], `"groupLabels":{"alertname":"loop","node":"node-1"}`) {
		t.Errorf("%q", web)
	}
	var m message
	if err := json.Unmarshal([]byte(web[0]), &m); err != nil {
		t.Fatal(err)
	}
	a := m.Alerts[0]
	want := map[string]string{"alertname": "loop", "kind": "crash_loop", "severity": "critical", "source": "weir", "node": "node-1", "container": "a", "container_name": "a"}
	if !maps.Equal(a.Labels, want) || a.Annotations["summary"] != "a is firing" || a.Annotations["records"] != "r1,r2" || a.Annotations["value"] != "5" || m.Version != "4" || m.CommonLabels["severity"] != "critical" || a.Fingerprint == "" {
		t.Errorf("%+v", m)
	}
}

func TestRevisionsAndRepeats(t *testing.T) {
	at := time.Now().UnixNano()
	window := func(end, revision int64) func(*signal.Signal) {
		return func(s *signal.Signal) { s.Start, s.End, s.Revision = at+end-60, at+end, revision }
	}
	b := newBench(t, func(c *Config) { c.Wait = 0 })
	b.now = b.now.Add(minute)
	run(t, b, []step{
		{rule: "r", container: "a", state: signal.Firing, change: window(100, 0), after: second, manager: "+a", web: "[+a"},
		{rule: "r", container: "a", state: signal.Firing, change: window(100, 0), after: second},                              // told twice by Kafka
		{rule: "r", container: "a", state: signal.Resolved, change: window(40, 5), after: second},                             // of before
		{rule: "r", container: "a", state: signal.Resolved, change: window(100, 1), after: second, manager: "-a", web: "[-a"}, // it was an error
		{rule: "r", container: "b", state: signal.Firing, change: func(s *signal.Signal) { s.Severity = signal.Info }, after: second},
		{rule: "r", container: "c", state: signal.Firing, change: func(s *signal.Signal) { s.Kind = signal.Window }, after: second},
	})
}

func TestPoint(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Wait = 0 })
	old := func(s *signal.Signal) { s.End = b.now.Add(-2 * time.Hour).UnixNano() }
	run(t, b, []step{
		{rule: "oom", container: "a", state: signal.Point, manager: "+a", web: "[+a"},
		{after: 2 * minute, manager: "+a"},
		{rule: "oom", container: "a", state: signal.Point, after: 4 * minute, manager: "+a"}, // again: it lasts longer
		{after: minute, manager: "-a", web: "[-a"},
		{rule: "oom", container: "b", state: signal.Point, change: old, after: minute}, // nobody wants to know
	})
	if n := testutil.ToFloat64(b.n.m.dropped.WithLabelValues("old")); n != 1 || b.table.len() != 0 {
		t.Errorf("%v old ones, %d left", n, b.table.len())
	}
}

// TestRestart starts a new process in every place: what fires is told to Alertmanager again, to the webhook not, and what ended is told once.
func TestRestart(t *testing.T) {
	again := func(b *bench) {
		if err := b.p.Close(); err != nil {
			t.Fatal(err)
		}
		b.start()
	}
	b := newBench(t, func(c *Config) { c.Wait = 0 })
	run(t, b, []step{
		{rule: "r", container: "a", state: signal.Firing, manager: "+a", web: "[+a"},
		{do: again, after: second, manager: "+a"},
		{do: func(b *bench) { b.manager.answer(503); b.web.answer(503) }, rule: "r", container: "a", state: signal.Resolved, after: second},
		{do: again, after: second},
		{do: func(b *bench) { b.manager.answer(200); b.web.answer(200) }, after: second, manager: "-a", web: "[-a"},
		{do: again, after: minute},
	})
	if b.table.len() != 0 {
		t.Errorf("left: %v", b.table.rows)
	}
}

// TestStop stops right after the webhook was told.
func TestStop(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Wait = 0 })
	b.signal("r", "a", signal.Firing)
	for _, target := range b.n.targets {
		if err := target.tell(t.Context(), b.now); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.p.Close(); err != nil {
		t.Fatal(err)
	}
	b.web.got()
	b.start()
	if _, w := b.after(second); len(w) != 0 {
		t.Errorf("told again: %q", w)
	}
}

// TestAway lets each target be away in turn, for less and for more than give_up.
func TestAway(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Wait = 0 })
	run(t, b, []step{
		{do: func(b *bench) { b.manager.answer(500) }, rule: "r", container: "a", state: signal.Firing, web: "[+a"},
		{rule: "r", container: "a", state: signal.Resolved, after: minute, web: "[-a"},
		{rule: "r", container: "b", state: signal.Firing, after: 30 * minute, web: "[+b"},
		{do: func(b *bench) { b.manager.answer(200) }, after: second, manager: "-a +b"},
		{do: func(b *bench) { b.web.answer(404) }, rule: "r", container: "b", state: signal.Resolved, after: second, manager: "-b"},
		{rule: "r", container: "c", state: signal.Firing, after: 2 * time.Hour, manager: "+c"},
		{do: func(b *bench) { b.web.answer(200) }, after: second, web: "[+c"},
	})
	if n := testutil.ToFloat64(b.n.m.givenUp.WithLabelValues("webhooks[0]")); n != 1 || !strings.Contains(b.log.String(), "given up") {
		t.Errorf("%v given up\n%s", n, b.log.String())
	}
	if n := testutil.ToFloat64(b.n.m.givenUp.WithLabelValues("alertmanager[0]")); n != 0 {
		t.Errorf("%v given up of Alertmanager's", n)
	}
}

// TestRefused has one alert among others that a target will never take.
func TestRefused(t *testing.T) {
	b := newBench(t, nil)
	b.manager.never = `"container":"b"`
	b.signal("r", "a", signal.Firing)
	b.signal("r", "b", signal.Firing)
	b.signal("r", "c", signal.Firing)
	if m, _ := b.after(second); b.brief(m) != "+a +c" {
		t.Errorf("%q", m)
	}
	if m, _ := b.after(second); len(m) != 0 {
		t.Errorf("again: %q", m)
	}
	if n := testutil.ToFloat64(b.n.m.requests.WithLabelValues("alertmanager[0]", "refused")); n != 2 || !strings.Contains(b.log.String(), "bad labels") {
		t.Errorf("%v refusals\n%s", n, b.log.String())
	}
}

func TestFull(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxAlerts, c.Wait = 2, 0 })
	b.web.answer(500) // so that what is over stays
	b.signal("r", "a", signal.Firing)
	b.signal("r", "b", signal.Firing)
	b.signal("r", "c", signal.Firing)
	if m, _ := b.after(second); b.brief(m) != "+a +b" {
		t.Errorf("%q", m)
	}
	b.signal("r", "a", signal.Resolved)
	b.after(second)
	b.signal("r", "d", signal.Firing)
	if m, _ := b.after(second); b.brief(m) != "+d" {
		t.Errorf("%q", m)
	}
	if n := testutil.ToFloat64(b.n.m.dropped.WithLabelValues("full")); n != 2 || b.table.len() != 2 || !strings.Contains(b.log.String(), "max_alerts") {
		t.Errorf("%v dropped, %d kept\n%s", n, b.table.len(), b.log.String())
	}
}

func TestMany(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Wait = 0 })
	for i := range 2*perRequest + 1 {
		b.signal("r", fmt.Sprint("c", i), signal.Firing)
	}
	m, w := b.after(second)
	if len(m) != 3 || len(w) != 3 || strings.Count(b.brief(m), "+") != 2*perRequest+1 {
		t.Errorf("%d and %d requests", len(m), len(w))
	}
}

// TestSecrets takes addresses and tokens from files and the environment, anew each time, and says none of them.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	b := newBench(t, func(c *Config) {
		t.Setenv("NOTIFY_TEST", c.Alertmanager[0].URL)
		c.Wait = 0
		c.Alertmanager = []Target{{URLEnv: "NOTIFY_TEST", TokenFile: file("token", "tok3n\n")}}
		c.Webhooks = []Target{{URLFile: file("url", c.Webhooks[0].URL+"/s3cret\n")}}
	})
	run(t, b, []step{{rule: "r", container: "a", state: signal.Firing, manager: "+a", web: "[+a"}})
	if b.manager.auth[0] != "Bearer tok3n" || b.manager.paths[0] != "/api/v2/alerts" || b.web.paths[0] != "/hook/s3cret" || b.web.auth[0] != "" {
		t.Errorf("%q %q %q %q", b.manager.auth, b.manager.paths, b.web.auth, b.web.paths)
	}
	file("token", "other\n")
	b.after(minute)
	if last := b.manager.auth[len(b.manager.auth)-1]; last != "Bearer other" {
		t.Errorf("the token was not read anew: %s", last)
	}
	b.signal("r", "b", signal.Firing)
	for _, status := range []int{302, 401, 500} {
		b.web.answer(status)
		if err := b.n.targets[1].tell(t.Context(), b.now.Add(minute)); err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), b.web.URL) {
			t.Errorf("%d: %v", status, err)
		}
	}
	b.web.Close()
	if err := b.n.targets[1].tell(t.Context(), b.now.Add(minute)); err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), b.web.URL) {
		t.Errorf("closed: %v", err)
	}
	if strings.Contains(b.log.String(), "s3cret") || strings.Contains(b.log.String(), "tok3n") {
		t.Errorf("a secret is in the log:\n%s", b.log.String())
	}
}

func TestSaveFails(t *testing.T) {
	b := newBench(t, nil)
	b.signal("r", "a", signal.Firing)
	b.table.broken = true
	if err := b.p.Commit(t.Context(), ingest.Checkpoint{}); err == nil {
		t.Error("committed without the table")
	}
	b.table.broken = false
	if err := b.p.Commit(t.Context(), ingest.Checkpoint{}); err != nil || b.table.len() != 1 {
		t.Errorf("%v, %d rows", err, b.table.len())
	}
}

// TestRun is the whole of it, with signals as they come from Kafka.
func TestRun(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Wait = 0 })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.n.Run(ctx) }()
	s := signal.Signal{Kind: signal.OOM, Rule: "oom", State: signal.Firing, End: time.Now().UnixNano(), Severity: signal.Fatal, Body: "out of memory"}
	bad := s.Record()
	bad.Attrs = nil
	batch := schema.Batch{Topic: schema.TopicSignals, Source: "s", Records: []schema.Record{bad, s.Record(), {EventName: schema.EventWindow}}}
	if err := b.p.Write(t.Context(), &batch); err != nil {
		t.Fatal(err)
	}
	var manager, web []string
	for end := time.Now().Add(20 * time.Second); (manager == nil || web == nil) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		manager, web = append(manager, b.manager.got()...), append(web, b.web.got()...)
	}
	cancel()
	if err := <-done; err != nil || len(manager) != 1 || len(web) != 1 || !strings.Contains(web[0], "out of memory") {
		t.Errorf("%v: %q %q", err, manager, web)
	}
	if n := testutil.ToFloat64(b.n.m.bad); n != 1 {
		t.Errorf("%v bad signals", n)
	}
}

func TestSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		table := &rows{rows: map[string][]byte{}}
		return sinktest.Harness{New: func(t *testing.T) ingest.Sink {
			n, err := newNotifier(DefaultConfig(), table, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			return n
		}}
	})
}

func TestPairs(t *testing.T) {
	for _, want := range [][]string{{"a", "1"}, {"a", `x=y,z\`, "b.c", ""}, {}, {"container.name", "web", "host", "n=1"}} {
		var got []string
		for _, p := range pairs(signal.Group(want...)) {
			got = append(got, p[0], p[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	pairs(`=,\,==\`) // of others: no panic
}

func TestLabels(t *testing.T) {
	s := signal.Signal{Kind: signal.Rule, Rule: strings.Repeat("ü", 300), Group: signal.Group("1 a-b", "x\xff", "alertname", "evil", "empty", ""), Severity: signal.Warn}
	l := labels(&s)
	if l["_1_a_b"] != "x\ufffd" || len(l["alertname"]) > maxLabel || !strings.HasPrefix(l["alertname"], "ü") || l["severity"] != "warning" || slices.Contains(slices.Collect(maps.Values(l)), "") {
		t.Errorf("%q", l)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint("k", i), "v")
	}
	s.Group = signal.Group(many...)
	if n := len(labels(&s)); n != maxLabels {
		t.Errorf("%d labels", n)
	}
}

func TestConfig(t *testing.T) {
	good := DefaultConfig()
	if err := good.Validate(); err != nil || good.Any() {
		t.Errorf("%v", err)
	}
	for want, change := range map[string]func(*Config){
		"alertmanager[0].url: not an http or https URL":   func(c *Config) { c.Alertmanager = []Target{{URL: "localhost:9093"}} },
		"webhooks[0].url: give one of":                    func(c *Config) { c.Webhooks = []Target{{URL: "http://a", URLEnv: "b"}} },
		"webhooks[0].url: credentials do not belong":      func(c *Config) { c.Webhooks = []Target{{URL: "http://u:s3cret@a/"}} },
		"webhooks[0].token_env: give one of":              func(c *Config) { c.Webhooks = []Target{{URL: "http://a", TokenEnv: "a", TokenFile: "b"}} },
		"min_severity: \"loud\"":                          func(c *Config) { c.MinSeverity = "loud" },
		"group_by[0]: \"a.b\" is not the name of a label": func(c *Config) { c.GroupBy = []string{"a.b"} },
		"resend: 0s is not within":                        func(c *Config) { c.Resend = 0 },
		"repeat: 1s is less than 1m":                      func(c *Config) { c.Repeat = time.Second },
		"max_alerts: 0 is not within":                     func(c *Config) { c.MaxAlerts = 0 },
		"wait: -1s is not within":                         func(c *Config) { c.Wait = -time.Second },
		"point_for: 0s is less than":                      func(c *Config) { c.PointFor = 0 },
		"give_up: 0s is less than":                        func(c *Config) { c.GiveUp = 0 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for want, target := range map[string]Target{"url_file: ": {URLFile: "/none"}, "url_env, url_file: not an http": {URLEnv: "NOTIFY_NONE"}, "ca_file: ": {URL: "http://a", CAFile: "/none"}} {
		c := DefaultConfig()
		c.Webhooks = []Target{target}
		if _, err := newNotifier(c, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), "control.notify.webhooks[0]."+want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
