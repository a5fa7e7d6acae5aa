// Package kubetest is a double of the Kubernetes API for tests: pods of nodes, listed and watched over TLS as the real one
// does, with faults on demand.
package kubetest

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Pod is a pod's object, as JSON.
type Pod = map[string]any

// Token is what the token file holds at first.
const Token = "first-token"

// API is the server. Its methods may be called at any time.
type API struct {
	URL, CAFile, TokenFile string

	t       *testing.T
	server  *httptest.Server
	mu      sync.Mutex
	pods    map[string]Pod // by uid
	version int
	oldest  int // versions before it are compacted
	history []event
	moved   chan struct{} // closed at each change
	cut     chan struct{} // closed to end all watches
	token   string
	fault   func(w http.ResponseWriter, r *http.Request) (handled bool)
	asked   []string // the query of each request
}

type event struct {
	version int
	kind    string
	pod     Pod
}

// New starts an API without pods, until the test ends.
func New(t *testing.T) *API {
	dir := t.TempDir()
	a := &API{t: t, pods: map[string]Pod{}, version: 100, moved: make(chan struct{}), cut: make(chan struct{}), token: Token, CAFile: filepath.Join(dir, "ca.crt"), TokenFile: filepath.Join(dir, "token")}
	a.server = httptest.NewUnstartedServer(a)
	a.server.EnableHTTP2 = true
	a.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	a.server.StartTLS()
	t.Cleanup(func() {
		a.Cut()
		a.server.CloseClientConnections()
		a.server.Close()
	})
	a.URL = a.server.URL
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
	for file, data := range map[string][]byte{a.CAFile: ca, a.TokenFile: []byte(Token + "\n")} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// Make is a pod on node n1 with one container named app, as a deployment makes it, that runs. Change it at will.
func Make(uid, name string, labels map[string]any) Pod {
	return Pod{
		"metadata": map[string]any{"name": name, "namespace": "shop", "uid": uid, "labels": labels, "annotations": map[string]any{"note": "x"},
			"managedFields":   []any{map[string]any{"manager": "kubelet", "fieldsV1": map[string]any{"f:status": map[string]any{}}}},
			"ownerReferences": []any{map[string]any{"kind": "ReplicaSet", "name": "web-7d9", "controller": true}}},
		"spec": map[string]any{"nodeName": "n1", "containers": []any{map[string]any{"name": "app", "image": "registry/web:1"}}},
		"status": map[string]any{"phase": "Running", "containerStatuses": []any{map[string]any{"name": "app", "restartCount": 0, "image": "sha256:1", "containerID": "containerd://" + uid + "-c0",
			"lastState": map[string]any{}}}},
	}
}

// Put adds or changes a pod.
func (a *API) Put(p Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p = clone(p)
	uid := p["metadata"].(map[string]any)["uid"].(string)
	kind := "MODIFIED"
	if a.pods[uid] == nil {
		kind = "ADDED"
	}
	a.pods[uid] = p
	a.emit(kind, p)
}

// Delete removes a pod.
func (a *API) Delete(uid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := clone(a.pods[uid])
	delete(a.pods, uid)
	a.emit("DELETED", p)
}

// Bookmark raises the version without a change of pods of the node, and tells the watches.
func (a *API) Bookmark() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emit("BOOKMARK", Pod{"kind": "Pod", "metadata": map[string]any{"creationTimestamp": nil}, "spec": map[string]any{"containers": nil}, "status": map[string]any{}})
}

func (a *API) emit(kind string, p Pod) {
	a.version++
	p["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(a.version)
	a.history = append(a.history, event{a.version, kind, p})
	close(a.moved)
	a.moved = make(chan struct{})
}

// Compact forgets history: a watch from an earlier version than now is refused.
func (a *API) Compact() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.oldest = a.version
}

// Cut ends all watches.
func (a *API) Cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.cut)
	a.cut = make(chan struct{})
}

// Take makes the API take another token than before.
func (a *API) Take(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = token
}

// Fault lets f answer requests instead, when it says that it did; nil: none.
func (a *API) Fault(f func(w http.ResponseWriter, r *http.Request) (handled bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault = f
}

// Asked lists the requests so far, as their queries.
func (a *API) Asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// Refuse answers as the API does when it refuses.
func Refuse(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(failure(code, reason, message))
}

func failure(code int, reason, message string) map[string]any {
	return map[string]any{"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "message": message, "reason": reason, "code": code}
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a.mu.Lock()
	a.asked = append(a.asked, r.URL.RawQuery)
	fault, token := a.fault, a.token
	a.mu.Unlock()
	switch {
	case fault != nil && fault(w, r):
	case r.Header.Get("Authorization") != "Bearer "+token:
		Refuse(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
	case r.Method != http.MethodGet || r.URL.Path != "/api/v1/pods":
		Refuse(w, http.StatusNotFound, "NotFound", "the server could not find the requested resource")
	case q.Get("watch") != "":
		a.watch(w, r)
	default:
		a.list(w, r)
	}
}

func node(r *http.Request) string {
	return strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "spec.nodeName=")
}

func on(p Pod, node string) bool { return p["spec"].(map[string]any)["nodeName"] == node }

func (a *API) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	version, after, _ := strings.Cut(q.Get("continue"), "/")
	a.mu.Lock()
	defer a.mu.Unlock()
	if version == "" {
		version = strconv.Itoa(a.version)
	} else if at, _ := strconv.Atoi(version); at < a.oldest {
		Refuse(w, http.StatusGone, "Expired", "The provided continue parameter is too old")
		return
	}
	more := ""
	items := []any{}
	last := ""
	for _, uid := range slices.Sorted(maps.Keys(a.pods)) {
		if uid <= after || !on(a.pods[uid], node(r)) {
			continue
		}
		if limit > 0 && len(items) == limit {
			more = version + "/" + last
			break
		}
		items = append(items, a.pods[uid])
		last = uid
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "PodList", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": version, "continue": more}, "items": items})
}

func (a *API) watch(w http.ResponseWriter, r *http.Request) {
	at, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		Refuse(w, http.StatusBadRequest, "BadRequest", "invalid resource version")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := json.NewEncoder(w)
	a.mu.Lock()
	cut := a.cut
	old := at < a.oldest
	a.mu.Unlock()
	if old { // as the real one: the answer is fine, and the stream says that it is not
		_ = out.Encode(map[string]any{"type": "ERROR", "object": failure(http.StatusGone, "Expired", fmt.Sprintf("too old resource version: %d", at))})
		return
	}
	for {
		_ = http.NewResponseController(w).Flush()
		a.mu.Lock()
		moved := a.moved
		var due []event
		for _, e := range a.history {
			if e.version > at && (e.kind == "BOOKMARK" || on(e.pod, node(r))) {
				due = append(due, e)
			}
		}
		at = a.version
		a.mu.Unlock()
		for _, e := range due {
			if err := out.Encode(map[string]any{"type": e.kind, "object": e.pod}); err != nil {
				return
			}
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-moved:
		case <-cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func clone(p Pod) (q Pod) {
	b, err := json.Marshal(p)
	if err == nil {
		err = json.Unmarshal(b, &q)
	}
	if err != nil {
		panic(err)
	}
	return q
}
