package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"weir/agent/kube/kubetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		api  string
		wait time.Duration
		want string
	}{
		{Auto, 0, ""}, {Off, time.Minute, ""}, {"https://10.0.0.1:6443", 0, ""}, {"https://[::1]:6443/", 0, ""},
		{"http://10.0.0.1:6443", 0, "api: is not"}, {"", 0, "api: is not"}, {"on", 0, "api: is not"}, {"https://u:p@host", 0, "api: is not"}, {"https://host/x", 0, "api: is not"}, {"https://host?x", 0, "api: is not"},
		{"://", 0, "api: is not"}, {Auto, -1, "wait: "}, {Auto, time.Hour, "wait: "},
	} {
		err := Config{API: c.api, Wait: c.wait}.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestResolve(t *testing.T) {
	cluster := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
	for _, c := range []struct {
		in   Config
		env  map[string]string
		want Config
		why  bool
	}{
		{Config{API: Auto}, nil, Config{API: Off}, false},
		{Config{API: Auto, TokenFile: "/t"}, cluster, Config{API: "https://[fd00::1]:443", TokenFile: "/t", CAFile: serviceAccount + "ca.crt"}, false},
		{Config{API: Auto, TokenFile: "/t", CAFile: "/c"}, cluster, Config{API: "https://[fd00::1]:443", TokenFile: "/t", CAFile: "/c"}, false},
		{Config{API: Auto}, cluster, Config{API: Off, TokenFile: serviceAccount + "token", CAFile: serviceAccount + "ca.crt"}, true}, // no token here
		{Config{API: Off}, cluster, Config{API: Off}, false},
		{Config{API: "https://h:1"}, cluster, Config{API: "https://h:1"}, false},
	} {
		got, why := c.in.resolve(func(k string) string { return c.env[k] })
		if got != c.want || (why != "") != c.why {
			t.Errorf("%+v: %+v, %q", c.in, got, why)
		}
	}
}

// logged keeps what a client logs.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

type fixture struct {
	*Client
	t   *testing.T
	api *kubetest.API
	log *logged
}

// setup makes a client that runs until the test ends. Its pauses are short.
func setup(t *testing.T, api *kubetest.API, change func(*Client)) *fixture {
	f := &fixture{t: t, api: api, log: &logged{}}
	f.Client = New(Config{API: api.URL, CAFile: api.CAFile, TokenFile: api.TokenFile, Node: "n1"}, os.Getenv, slog.New(slog.NewTextHandler(f.log, nil)), prometheus.NewRegistry())
	f.minPause, f.maxPause = time.Millisecond, 20*time.Millisecond
	if change != nil {
		change(f.Client)
	}
	f.start(t)
	return f
}

func (f *fixture) start(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (f *fixture) await(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s did not come; asked %q; log:\n%s", what, f.api.Asked(), f.log.b.String())
		}
	}
}

func (f *fixture) label(uid, key string) string {
	if p := f.Pod(uid); p != nil {
		return p.Labels[key]
	}
	return ""
}

func (f *fixture) results(result string) int {
	return int(testutil.ToFloat64(f.requests.WithLabelValues(result)))
}

// isWatch tells a watch from a list.
func isWatch(r *http.Request) bool { return r.URL.Query().Get("watch") != "" }

// once lets a fault happen to the first request that it is meant for.
func once(wanted func(*http.Request) bool, f http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	done := false
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		now := !done && wanted(r)
		done = done || now
		mu.Unlock()
		if now {
			f(w, r)
		}
		return now
	}
}

func TestListAndWatch(t *testing.T) {
	api := kubetest.New(t)
	api.Put(kubetest.Make("u1", "web-7d9-a", map[string]any{"app": "web", "pod-template-hash": "7d9"}))
	other := kubetest.Make("u2", "elsewhere", nil)
	other["spec"].(map[string]any)["nodeName"] = "n2"
	api.Put(other)
	f := setup(t, api, nil)
	f.await("the first pod", func() bool { return f.Pod("u1") != nil })
	want := &Pod{UID: "u1", Namespace: "shop", Name: "web-7d9-a", Node: "n1", Labels: map[string]string{"app": "web", "pod-template-hash": "7d9"}, Owner: Owner{"Deployment", "web"},
		Containers: map[string]Container{"app": {Image: "registry/web:1", id: "u1-c0"}}}
	if got := f.Pod("u1"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	<-f.Changed()
	api.Put(kubetest.Make("u3", "web-7d9-b", map[string]any{"app": "web"}))
	f.await("an added pod", func() bool { return f.Pod("u3") != nil })
	<-f.Changed()
	before := f.Pod("u3")
	same := kubetest.Make("u3", "web-7d9-b", map[string]any{"app": "web"})
	same["status"].(map[string]any)["conditions"] = []any{map[string]any{"type": "Ready"}}
	api.Put(same)
	api.Put(kubetest.Make("u1", "web-7d9-a", map[string]any{"app": "changed"}))
	f.await("a changed label", func() bool { return f.label("u1", "app") == "changed" })
	if f.Pod("u3") != before {
		t.Error("a change of what is not read made another pod")
	}
	api.Delete("u3")
	f.await("the removal", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return !f.gone["u3"].IsZero() })
	if f.Pod("u3") == nil {
		t.Error("a removed pod is forgotten at once")
	}
	f.mu.Lock()
	f.gone["u3"] = time.Now().Add(-2 * keepGone)
	f.mu.Unlock()
	api.Put(kubetest.Make("u4", "web-7d9-c", nil))
	f.await("the next change", func() bool { return f.Pod("u4") != nil })
	if f.Pod("u3") != nil || f.Pod("u2") != nil {
		t.Error("a pod of long ago or of another node is known")
	}
	if n := f.results("ok"); n != 1 {
		t.Errorf("%d requests ended well, want the list alone", n)
	}
}

func TestPages(t *testing.T) {
	api := kubetest.New(t)
	for i := range 600 {
		api.Put(kubetest.Make(fmt.Sprintf("u%03d", i), fmt.Sprintf("p%d", i), nil))
	}
	f := setup(t, api, nil)
	f.await("all pods", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.pods) == 600 })
	if asked := api.Asked(); len(asked) < 3 || !strings.Contains(asked[0], "resourceVersion=0") || strings.Contains(asked[1], "resourceVersion") || !strings.Contains(asked[2], "continue=") {
		t.Errorf("asked %q", asked)
	}
}

// TestTheWatchGoesOn ends watches in ways that happen. Nothing may be missed, and what is not needed must not be listed again.
func TestTheWatchGoesOn(t *testing.T) {
	partial := `{"type":"MODIFIED","object":{"metadata":{"uid":"u1","labels":{"app":"half`
	for name, c := range map[string]struct {
		fault  http.HandlerFunc
		result string
		lists  int // beside the first
	}{
		"closed in order":      {func(http.ResponseWriter, *http.Request) {}, "broken", 0},
		"cut within an object": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, partial) }, "broken", 0},
		"connection aborted": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, partial)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "broken", 0},
		"not JSON":        {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>proxy</html>") }, "broken", 0},
		"unknown event":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"type":"X","object":{}}`) }, "broken", 0},
		"pod without uid": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"type":"ADDED","object":{}}`) }, "broken", 0},
		"unavailable": {func(w http.ResponseWriter, _ *http.Request) {
			kubetest.Refuse(w, 503, "ServiceUnavailable", "starting")
		}, "refused", 0},
		"too many requests": {func(w http.ResponseWriter, _ *http.Request) { kubetest.Refuse(w, 429, "TooManyRequests", "later") }, "refused", 0},
		"redirected": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://192.0.2.1/")
			w.WriteHeader(302)
		}, "refused", 0},
		"gone": {func(w http.ResponseWriter, _ *http.Request) { kubetest.Refuse(w, 410, "Expired", "too old") }, "expired", 1},
		"version of the future": {func(w http.ResponseWriter, _ *http.Request) {
			kubetest.Refuse(w, 504, "Timeout", "Too large resource version")
		}, "refused", 1},
		"gone within the stream": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}`)
		}, "expired", 1},
		"error in the stream": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"type":"ERROR","object":{"kind":"Status","code":500}}`)
		}, "refused", 1},
	} {
		t.Run(name, func(t *testing.T) {
			api := kubetest.New(t)
			api.Put(kubetest.Make("u1", "web", map[string]any{"app": "web"}))
			api.Fault(once(isWatch, func(w http.ResponseWriter, r *http.Request) {
				api.Put(kubetest.Make("u1", "web", map[string]any{"app": "changed"})) // between the list and the next watch
				c.fault(w, r)
			}))
			f := setup(t, api, nil)
			f.await("the change", func() bool { return f.label("u1", "app") == "changed" })
			if f.results(c.result) != 1 {
				t.Errorf("result %s was not counted", c.result)
			}
			lists := 0
			for _, q := range api.Asked() {
				if !strings.Contains(q, "watch=1") {
					lists++
				}
			}
			if lists != 1+c.lists {
				t.Errorf("%d lists: %q", lists, api.Asked())
			}
		})
	}
}

// TestCompacted compacts while the watch is away: with a bookmark before that it goes on, without it must list.
func TestCompacted(t *testing.T) {
	for _, marked := range []bool{true, false} {
		api := kubetest.New(t)
		api.Put(kubetest.Make("u1", "web", map[string]any{"app": "web"}))
		api.Put(kubetest.Make("u2", "removed meanwhile", nil))
		f := setup(t, api, nil)
		f.await("the first list", func() bool { return f.Pod("u1") != nil })
		f.await("the watch", func() bool { return len(api.Asked()) == 2 })
		away := func(w http.ResponseWriter, _ *http.Request) bool { kubetest.Refuse(w, 503, "", ""); return true }
		if marked {
			api.Bookmark()
			api.Put(kubetest.Make("u3", "seen", nil))
			f.await("the bookmark and what follows it", func() bool { return f.Pod("u3") != nil })
		}
		api.Fault(away)
		api.Cut()
		f.await("a failure", func() bool { return f.results("refused") > 0 })
		if !marked {
			api.Delete("u2")
			api.Bookmark()
		}
		api.Compact()
		api.Put(kubetest.Make("u1", "web", map[string]any{"app": "changed"}))
		api.Fault(nil)
		f.await("the change", func() bool { return f.label("u1", "app") == "changed" })
		if got := f.results("expired"); (got == 0) != marked {
			t.Errorf("with a bookmark %v: expired %d times", marked, got)
		}
		f.mu.Lock()
		if f.gone["u2"].IsZero() != marked {
			t.Error("the removal of a pod was missed")
		}
		f.mu.Unlock()
	}
}

// TestContinueExpires compacts between two pages.
func TestContinueExpires(t *testing.T) {
	api := kubetest.New(t)
	for i := range 300 {
		api.Put(kubetest.Make(fmt.Sprintf("u%03d", i), "p", nil))
	}
	api.Fault(once(func(r *http.Request) bool { return r.URL.Query().Get("continue") != "" }, func(w http.ResponseWriter, _ *http.Request) {
		kubetest.Refuse(w, 410, "Expired", "The provided continue parameter is too old")
	}))
	f := setup(t, api, nil)
	f.await("all pods", func() bool { return f.Pod("u299") != nil })
}

func TestTokenRotation(t *testing.T) {
	api := kubetest.New(t)
	api.Put(kubetest.Make("u1", "web", nil))
	api.Take("second-token")
	f := setup(t, api, nil)
	f.await("a refusal", func() bool { return f.results("unauthorized") > 0 && f.log.count("token_file") > 0 })
	if err := os.WriteFile(api.TokenFile, []byte("second-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.await("the pod", func() bool { return f.Pod("u1") != nil })
	if f.log.count("-token\"") > 0 || f.log.count("second") > 0 || f.log.count("first") > 0 {
		t.Error("a token was logged")
	}
	for name, content := range map[string]string{"empty": "", "two lines": "a\nb"} {
		if err := os.WriteFile(api.TokenFile, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		before := f.results("broken")
		f.await(name, func() bool {
			api.Cut() // again and again: a watch may begin after the first cut, with the token of before
			return f.results("broken") > before
		})
	}
}

// TestAuthorities has the wrong certificates at first.
func TestAuthorities(t *testing.T) {
	api := kubetest.New(t)
	api.Put(kubetest.Make("u1", "web", nil))
	right, err := os.ReadFile(api.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(api.CAFile, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := setup(t, api, nil)
	f.await("the error", func() bool { return f.log.count("agent.kubernetes.ca_file") > 0 })
	if err := os.WriteFile(api.CAFile, right, 0o600); err != nil {
		t.Fatal(err)
	}
	f.await("the pod", func() bool { return f.Pod("u1") != nil })
}

func TestForbidden(t *testing.T) {
	api := kubetest.New(t)
	api.Put(kubetest.Make("u1", "web", nil))
	api.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
		kubetest.Refuse(w, 403, "Forbidden", `pods is forbidden: User "system:serviceaccount:x:weir" cannot list resource "pods" in API group "" at the cluster scope`)
		return true
	})
	f := setup(t, api, nil)
	f.await("some tries", func() bool { return f.results("forbidden") > 3 })
	if n := f.log.count("ClusterRole"); n != 1 {
		t.Errorf("what to grant was logged %d times", n)
	}
	api.Fault(nil)
	f.await("the pod", func() bool { return f.Pod("u1") != nil })
	f.await("the good news", func() bool { return f.log.count("metadata of pods come") == 1 })
}

// TestNoAnswer hangs before the answer, in the middle of a list, and in a watch.
func TestNoAnswer(t *testing.T) {
	api := kubetest.New(t)
	api.Put(kubetest.Make("u1", "web", nil))
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	begun := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"kind":"PodList","items":[`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	faults := []func(http.ResponseWriter, *http.Request) bool{once(func(r *http.Request) bool { return !isWatch(r) }, hang), once(func(r *http.Request) bool { return !isWatch(r) }, begun),
		once(isWatch, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			api.Put(kubetest.Make("u2", "web", nil))
		})}
	api.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		for _, f := range faults {
			if f(w, r) {
				return true
			}
		}
		return false
	})
	f := setup(t, api, func(c *Client) { c.callTimeout, c.watchFor = 50*time.Millisecond, 50*time.Millisecond })
	f.await("the pods", func() bool { return f.Pod("u1") != nil && f.Pod("u2") != nil })
	if f.results("unreachable") < 3 {
		t.Errorf("%d requests without an answer", f.results("unreachable"))
	}
}

func TestAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	api := kubetest.New(t)
	f := setup(t, api, func(c *Client) { c.cfg.API = "https://" + l.Addr().String() })
	f.await("some tries", func() bool { return f.results("unreachable") > 3 })
	if n := f.log.count("level=WARN"); n != 1 {
		t.Errorf("%d lines", n)
	}
}

// endless gives the same text again and again.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.text[e.at%len(e.text)]
		e.at++
	}
	return len(p), nil
}

func TestGiantAnswers(t *testing.T) {
	pod := func(i int) string { return fmt.Sprintf(`{"metadata":{"uid":"u%d"}},`, i) }
	for name, c := range map[string]struct {
		head string
		rest string
		want error
	}{
		"a string without end":        {`{"kind":"`, "x", errTooBig},
		"blanks":                      {`{"metadata":{},`, "  ", errTooBig},
		"keys without end":            {`{`, `"k":1,`, errTooBig},
		"a pod without end":           {`{"items":[{"metadata":{"uid":"u"},"spec":{"containers":[`, `{"name":"x"},`, errTooBig},
		"a label without end":         {`{"items":[{"metadata":{"labels":{"a":"`, "x", errTooBig},
		"the same pod for ever":       {`{"items":[`, pod(0), errTooMany},
		"depth":                       {`{"items":[`, `{"spec":`, nil},
		"a version that does not end": {`{"metadata":{"resourceVersion":"`, "1", errTooBig},
	} {
		n := 0
		_, _, err := readList(io.MultiReader(strings.NewReader(c.head), &endless{text: c.rest}), func(*object) error {
			if n++; n > maxPods {
				return errTooMany
			}
			return nil
		})
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := readEvents(io.MultiReader(strings.NewReader(`{"type":"ADDED","object":{"metadata":{"uid":"`), &endless{text: "x"}), nil); !errors.Is(err, errTooBig) {
		t.Errorf("an event without end: %v", err)
	}
	labels := map[string]string{}
	for i := range 2000 {
		labels[fmt.Sprintf("label-%04d", i)] = strings.Repeat("v", 60)
	}
	var o object
	o.Metadata.Labels = labels
	p, cut := o.pod()
	size := 0
	for k, v := range p.Labels {
		size += len(k) + len(v)
	}
	if !cut || size > maxLabels || p.Labels["label-0000"] == "" {
		t.Errorf("cut %v, %d bytes of labels", cut, size)
	}
}

func TestPodObjects(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want Pod
	}{
		"nothing but nulls": {`{"metadata":{"uid":"u","labels":null,"annotations":null,"ownerReferences":null},"spec":{"containers":null},"status":null}`, Pod{UID: "u"}},
		"static pod":        {`{"metadata":{"uid":"u","annotations":{"kubernetes.io/config.mirror":"hash"},"ownerReferences":[{"kind":"Node","name":"n1","controller":true}]}}`, Pod{UID: "hash", Owner: Owner{"Node", "n1"}}},
		"our annotations":   {`{"metadata":{"uid":"u","labels":{"a":"b"},"annotations":{"weir.quota":"lines=100,over=drop","other":"x"}}}`, Pod{UID: "u", Labels: map[string]string{"a": "b", "weir.quota": "lines=100,over=drop"}}},
		"replica set alone": {`{"metadata":{"uid":"u","ownerReferences":[{"kind":"ReplicaSet","name":"web-7d9","controller":true}]}}`, Pod{UID: "u", Owner: Owner{"ReplicaSet", "web-7d9"}}},
		"not a controller":  {`{"metadata":{"uid":"u","ownerReferences":[{"kind":"Job","name":"x"}]}}`, Pod{UID: "u"}},
		"all kinds of containers": {`{"metadata":{"uid":"u"},"spec":{"containers":[{"name":"a","image":"ia"}],"initContainers":[{"name":"b","image":"ib"}],"ephemeralContainers":[{"name":"c","image":"ic"}]},
			"status":{"containerStatuses":[{"name":"a","restartCount":2,"containerID":"cri-o://a2","lastState":{"terminated":{"containerID":"cri-o://a1"}}},{"name":"unknown"}],
			"initContainerStatuses":[{"name":"b","containerID":"cri-o://b0","lastState":{}}],"ephemeralContainerStatuses":[{"name":"c","restartCount":0}]}}`,
			Pod{UID: "u", Containers: map[string]Container{"a": {"ia", 2, "a2", "a1"}, "b": {Image: "ib", id: "b0"}, "c": {Image: "ic"}}}},
		"waits to be started again": {`{"metadata":{"uid":"u"},"spec":{"containers":[{"name":"a","image":"i"}]},"status":{"containerStatuses":[{"name":"a","restartCount":1,"containerID":"x://1","state":{"waiting":{}},"lastState":{"terminated":{"containerID":"x://1"}}}]}}`,
			Pod{UID: "u", Containers: map[string]Container{"a": {"i", 1, "1", ""}}}},
	} {
		var o object
		if err := json.Unmarshal([]byte(c.in), &o); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.want.Labels == nil {
			c.want.Labels = map[string]string{}
		}
		if c.want.Containers == nil {
			c.want.Containers = map[string]Container{}
		}
		if got, _ := o.pod(); !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, *got, c.want)
		}
	}
}

func TestContainerID(t *testing.T) {
	c := Container{Restarts: 3, id: "c3", before: "c2"}
	for restarts, want := range map[int]struct {
		id      string
		settled bool
	}{0: {"", true}, 1: {"", true}, 2: {"c2", true}, 3: {"c3", true}, 4: {"", false}} {
		if id, settled := c.ID(restarts); id != want.id || settled != want.settled {
			t.Errorf("%d restarts: %q %v", restarts, id, settled)
		}
	}
	if id, settled := (Container{}).ID(0); id != "" || settled {
		t.Error("a container that was not started has its id")
	}
}

// FuzzEvents reads any bytes at once, byte by byte, and cut off: the events must be the same, as far as they go.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"type":"ADDED","object":{"metadata":{"uid":"u","labels":{"a":"b"},"resourceVersion":"1"},"spec":{"containers":[{"name":"c","image":"i"}]}}}{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"2"}}}`), 20)
	f.Add([]byte(`{"type":"ERROR","object":{"code":410,"reason":"Expired","message":"m"}}`), 3)
	f.Add([]byte(`{"type":"DELETED","object":{"metadata":{"uid":"u"}}}`+"\n"+`{"type":"MODIFIED","object":{"metadata":{"uid":"v","ownerReferences":[{"kind":"ReplicaSet","controller":true}]}}}`), 60)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		read := func(r io.Reader) (all []string, err error) {
			err = readEvents(r, func(kind string, o *object) error {
				p, _ := o.pod()
				if o.Metadata.UID == "" && kind != bookmark {
					t.Fatal("a pod without a uid was taken")
				}
				all = append(all, fmt.Sprint(kind, o.Metadata.ResourceVersion, *p))
				return nil
			})
			return all, err
		}
		whole, err := read(bytes.NewReader(b))
		bytewise, err2 := read(iotest.OneByteReader(bytes.NewReader(b)))
		if !reflect.DeepEqual(whole, bytewise) || (err == nil) != (err2 == nil) {
			t.Fatalf("%q %v, byte by byte %q %v", whole, err, bytewise, err2)
		}
		part, _ := read(bytes.NewReader(b[:max(0, min(cut, len(b)))]))
		if len(part) > len(whole) || len(part) > 0 && !reflect.DeepEqual(part, whole[:len(part)]) {
			t.Fatalf("cut at %d: %q, whole %q", cut, part, whole)
		}
	})
}
