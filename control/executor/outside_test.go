package executor

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"weir/control"
)

// api is an HTTP double of the Kubernetes API with one pod and one node.
type api struct {
	pod, node string // JSON
	status    int    // of every answer, where set
	asked     []string
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodGet {
		a.asked = append(a.asked, fmt.Sprintf("%s %s %s %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"), body))
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer secret-token":
		w.WriteHeader(http.StatusUnauthorized)
	case a.status != 0:
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, `{"reason":"Conflict","message":"the object has been modified"}`)
	case r.URL.Path == "/api/v1/namespaces/shop/pods/web-1":
		_, _ = io.WriteString(w, a.pod)
	case r.URL.Path == "/api/v1/nodes/n7":
		_, _ = io.WriteString(w, a.node)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func newAPI(t *testing.T) (*api, *cluster) {
	t.Helper()
	a := &api{pod: `{"metadata":{"uid":"u1","ownerReferences":[{"kind":"ReplicaSet"}]}}`, node: `{"metadata":{"resourceVersion":"42"},"spec":{"taints":[{"key":"old","effect":"NoExecute","timeAdded":"2026-11-25T12:00:00Z"}]}}`}
	s := httptest.NewTLSServer(a)
	t.Cleanup(s.Close)
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return a, newCluster(Kubernetes{API: s.URL, TokenFile: file("token", "secret-token\n"), CAFile: file("ca.crt", string(ca))})
}

func kubeOrder(action string) *control.Decision {
	return &control.Decision{Action: action, Subject: &control.Subject{Node: "n7", Namespace: "shop", Pod: "web-1", PodUID: "u1"}, Order: &control.Order{ID: "1", Args: map[string]string{"key": "weir", "value": "sick", "effect": "NoSchedule"}}}
}

func TestKubernetesActions(t *testing.T) {
	for action, want := range map[string]string{
		control.DeletePod: `DELETE /api/v1/namespaces/shop/pods/web-1 application/json {"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u1"}}`,
		control.Cordon:    `PATCH /api/v1/nodes/n7 application/merge-patch+json {"spec":{"unschedulable":true}}`,
		control.Annotate:  `PATCH /api/v1/namespaces/shop/pods/web-1 application/merge-patch+json {"metadata":{"annotations":{"weir":"sick"}}}`,
		control.Taint:     `PATCH /api/v1/nodes/n7 application/merge-patch+json {"metadata":{"resourceVersion":"42"},"spec":{"taints":[{"key":"old","effect":"NoExecute","timeAdded":"2026-11-25T12:00:00Z"},{"key":"weir","value":"sick","effect":"NoSchedule"}]}}`,
	} {
		a, c := newAPI(t)
		d := kubeOrder(action)
		if verdict, reason := c.look(t.Context(), d); verdict != "" {
			t.Errorf("%s: %s %s", action, verdict, reason)
		}
		if err := c.act(t.Context(), d); err != nil {
			t.Errorf("%s: %v", action, err)
		}
		if len(a.asked) != 1 || a.asked[0] != want {
			t.Errorf("%s asked\n%q, want\n%q", action, a.asked, want)
		}
		a.status = http.StatusConflict
		if err := c.act(t.Context(), d); err == nil || !strings.Contains(err.Error(), "409 Conflict: the object has been modified") {
			t.Errorf("%s: a refusal of the API gives %v", action, err)
		}
	}
}

func TestKubernetesLooksFirst(t *testing.T) {
	for name, c := range map[string]struct {
		action  string
		change  func(a *api, d *control.Decision)
		verdict string
	}{
		"gone":          {control.DeletePod, func(_ *api, d *control.Decision) { d.Subject.Pod = "web-2" }, control.OutcomePassed},
		"another":       {control.DeletePod, func(a *api, _ *control.Decision) { a.pod = strings.Replace(a.pod, "u1", "u2", 1) }, control.OutcomePassed},
		"being deleted": {control.DeletePod, func(a *api, _ *control.Decision) { a.pod = `{"metadata":{"uid":"u1","deletionTimestamp":"x"}}` }, control.OutcomePassed},
		"without owner": {control.DeletePod, func(a *api, _ *control.Decision) { a.pod = `{"metadata":{"uid":"u1"}}` }, control.OutcomeRefused},
		"opted out": {control.DeletePod, func(a *api, _ *control.Decision) {
			a.pod = `{"metadata":{"uid":"u1","annotations":{"weir.control":"off"}}}`
		}, control.OutcomeRefused},
		"cordoned": {control.Cordon, func(a *api, _ *control.Decision) { a.node = `{"spec":{"unschedulable":true}}` }, control.OutcomePassed},
		"tainted": {control.Taint, func(a *api, _ *control.Decision) {
			a.node = `{"spec":{"taints":[{"key":"weir","effect":"NoSchedule"}]}}`
		}, control.OutcomePassed},
		"API is not well": {control.Cordon, func(a *api, _ *control.Decision) { a.status = 500 }, control.OutcomeRefused},
		"not JSON":        {control.Cordon, func(a *api, _ *control.Decision) { a.node = "<html>" }, control.OutcomeRefused},
	} {
		a, cl := newAPI(t)
		d := kubeOrder(c.action)
		c.change(a, d)
		if verdict, reason := cl.look(t.Context(), d); verdict != c.verdict {
			t.Errorf("%s: %q %s, want %q", name, verdict, reason, c.verdict)
		}
		if len(a.asked) != 0 {
			t.Errorf("%s: it changed something: %q", name, a.asked)
		}
	}
}

func TestWebhook(t *testing.T) {
	var got []string
	status := http.StatusNoContent
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d struct{ Text, Policy string }
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			t.Error(err)
		}
		got = append(got, fmt.Sprint(r.Header.Get("Idempotency-Key"), " ", r.Header.Get("Authorization"), " ", d.Policy, " ", d.Text != ""))
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	defer s.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHooks(map[string]Webhook{"pager": {URL: s.URL, TokenFile: token}})
	defer h.http.CloseIdleConnections()
	d := &control.Decision{Policy: "heal", Verdict: control.VerdictAct, Order: &control.Order{ID: "7", Args: map[string]string{"hook": "pager"}}}
	if err := h.call(t.Context(), d); err != nil {
		t.Error(err)
	}
	for _, status = range []int{http.StatusFound, http.StatusInternalServerError} {
		if err := h.call(t.Context(), d); err == nil {
			t.Errorf("%d is taken for success", status)
		}
	}
	if want := "7 Bearer x heal true"; len(got) != 3 || got[0] != want {
		t.Errorf("%q, want %q three times", got, want)
	}
	d.Order.Args["hook"] = "http://10.0.0.1/"
	if err := h.call(t.Context(), d); err == nil || !strings.Contains(err.Error(), "executor.webhooks") {
		t.Errorf("an address out of an order: %v", err)
	}
}

// TestLikeness is what a container that takes another's place keeps, and what it must not.
func TestLikeness(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	address := &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.1.0.7")}
	old := &container.InspectResponse{ID: id, Name: "/web",
		Config:     &container.Config{Hostname: id[:12], Image: "shop:1", Env: []string{"A=1"}, Labels: map[string]string{"weir.app": "shop"}, Volumes: map[string]struct{}{"/cache": {}, "/named": {}}},
		HostConfig: &container.HostConfig{NetworkMode: "front", Binds: []string{"/srv:/srv:ro", "data:/data"}, Mounts: []mount.Mount{{Type: mount.TypeVolume, Target: "/anon"}, {Type: mount.TypeTmpfs, Target: "/tmp"}, {Type: mount.TypeVolume, Source: "named", Target: "/named"}}},
		Mounts: []container.MountPoint{{Type: mount.TypeBind, Source: "/srv", Destination: "/srv"}, {Type: mount.TypeVolume, Name: "data", Destination: "/data", RW: true}, {Type: mount.TypeVolume, Name: "aaaa", Destination: "/anon", RW: true},
			{Type: mount.TypeVolume, Name: "bbbb", Destination: "/cache", RW: true}, {Type: mount.TypeVolume, Name: "named", Destination: "/named", RW: true}},
		NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{
			"front": {IPAMConfig: address, Aliases: []string{"shop", id[:12]}, NetworkID: "x", EndpointID: "y"}, "back": {Aliases: []string{"shop-back"}}}}}
	opts, later := likeness(old)
	if c := opts.Config; c.Hostname != "" || c.Image != "shop:1" || !reflect.DeepEqual(c.Labels, old.Config.Labels) || !reflect.DeepEqual(c.Volumes, map[string]struct{}{"/named": {}}) {
		t.Errorf("configuration %+v", c)
	}
	want := []mount.Mount{{Type: mount.TypeVolume, Source: "aaaa", Target: "/anon"}, {Type: mount.TypeTmpfs, Target: "/tmp"}, {Type: mount.TypeVolume, Source: "named", Target: "/named"}, {Type: mount.TypeVolume, Source: "bbbb", Target: "/cache"}}
	if !reflect.DeepEqual(opts.HostConfig.Mounts, want) || !reflect.DeepEqual(opts.HostConfig.Binds, old.HostConfig.Binds) {
		t.Errorf("mounts %+v", opts.HostConfig.Mounts)
	}
	front := opts.NetworkingConfig.EndpointsConfig["front"]
	if len(opts.NetworkingConfig.EndpointsConfig) != 1 || !reflect.DeepEqual(front, &network.EndpointSettings{IPAMConfig: address, Aliases: []string{"shop"}}) {
		t.Errorf("network %+v", front)
	}
	if len(later) != 1 || !reflect.DeepEqual(later["back"], &network.EndpointSettings{Aliases: []string{"shop-back"}}) {
		t.Errorf("other networks %+v", later)
	}
	if old.Config.Hostname == "" || len(old.Config.Volumes) != 2 || old.HostConfig.Mounts[0].Source != "" {
		t.Error("the old container's description was changed")
	}
	for _, mode := range []container.NetworkMode{"host", "none", "container:x"} {
		old.HostConfig.NetworkMode = mode
		if opts, later := likeness(old); opts.NetworkingConfig != nil || later != nil {
			t.Errorf("mode %s: %+v %+v", mode, opts.NetworkingConfig, later)
		}
	}
}

func TestConfig(t *testing.T) {
	c := DefaultConfig()
	c.Name, c.TrustedKeys = "n1", []string{"x.pub"}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c = Config{Name: "a/b", Actions: []string{control.Cordon, "format"}, Webhooks: map[string]Webhook{"w": {URL: "ftp://x"}}, Kubernetes: Kubernetes{}}
	err := c.Validate()
	for _, want := range []string{"name: ", "state_dir: ", "trusted_keys: ", "actions[0]: cordon needs kubernetes.api", `actions[1]: "format"`, "limit: ", "webhooks.w.url: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}
