// Package engine answers the part of the Docker Engine API that the agent uses
// (https://docs.docker.com/reference/api/engine/version/v1.41/) for containers that are only pretended: for a first look at
// weir without Docker, and for benchmarks with more containers than a machine could run. The agent runs unchanged.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

const apiVersion = "1.41"

// keptEvents is what an engine remembers for clients that connect again (moby, daemon/events).
const keptEvents = 256

// Container is what the engine says of one.
type Container struct {
	ID, Name, Image string
	Labels          map[string]string
	LogPath         string // of its json-file log
}

// Engine is a server on loopback.
type Engine struct {
	listener net.Listener

	mu         sync.Mutex
	containers []*held
	events     []events.Message
	changed    chan struct{} // closed and made anew with each event
}

type held struct {
	Container
	running bool
	started time.Time
}

// Listen takes any port of loopback.
func Listen() (*Engine, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("pretended engine: %w", err)
	}
	return &Engine{listener: l, changed: make(chan struct{})}, nil
}

// Address is what to give to a Docker client, as DOCKER_HOST.
func (e *Engine) Address() string { return "tcp://" + e.listener.Addr().String() }

// Serve answers until ctx ends.
func (e *Engine) Serve(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{version}/containers/json", e.list)
	mux.HandleFunc("GET /{version}/containers/{id}/json", e.inspect)
	mux.HandleFunc("GET /{version}/events", e.stream)
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", apiVersion)
		_, _ = w.Write([]byte("OK"))
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("pretended engine: %w", err)
	}
	return nil
}

// Add makes a container known; it does not run yet.
func (e *Engine) Add(c Container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.containers = append(e.containers, &held{Container: c})
}

// Start, OOM and Die change a container's state and tell it as events.
func (e *Engine) Start(id string) {
	e.emit(id, events.ActionStart, func(h *held) { h.running, h.started = true, time.Now() })
}

// OOM says that the container ran out of memory.
func (e *Engine) OOM(id string) { e.emit(id, events.ActionOOM, func(*held) {}) }

// Die ends the container with an exit code.
func (e *Engine) Die(id string, code int) {
	e.emit(id, events.ActionDie, func(h *held) { h.running = false }, "exitCode", strconv.Itoa(code))
}

func (e *Engine) find(id string) *held {
	for _, h := range e.containers {
		if h.ID == id {
			return h
		}
	}
	return nil
}

func (e *Engine) emit(id string, action events.Action, change func(*held), attrs ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.find(id)
	if h == nil {
		return
	}
	change(h)
	all := map[string]string{"name": h.Name, "image": h.Image}
	for k, v := range h.Labels {
		all[k] = v
	}
	for i := 0; i+1 < len(attrs); i += 2 {
		all[attrs[i]] = attrs[i+1]
	}
	at := time.Now().UnixNano()
	if n := len(e.events); n > 0 {
		at = max(at, e.events[n-1].TimeNano+1)
	}
	e.events = append(e.events, events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: id, Attributes: all}, Scope: "local", Time: at / 1e9, TimeNano: at})
	e.events = e.events[max(0, len(e.events)-keptEvents):]
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *Engine) list(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []container.Summary{}
	for _, h := range e.containers {
		all = append(all, container.Summary{ID: h.ID, Names: []string{"/" + h.Name}, Image: h.Image, Labels: h.Labels})
	}
	answer(w, all)
}

func (e *Engine) inspect(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.find(r.PathValue("id"))
	if h == nil {
		w.WriteHeader(http.StatusNotFound)
		answer(w, map[string]string{"message": "No such container: " + r.PathValue("id")})
		return
	}
	answer(w, container.InspectResponse{ID: h.ID, Name: "/" + h.Name, LogPath: h.LogPath,
		State:      &container.State{Running: h.running, StartedAt: h.started.UTC().Format(time.RFC3339Nano)},
		HostConfig: &container.HostConfig{LogConfig: container.LogConfig{Type: "json-file"}},
		Config:     &container.Config{Image: h.Image, Labels: h.Labels}})
}

func (e *Engine) stream(w http.ResponseWriter, r *http.Request) {
	seconds, nanos, _ := strings.Cut(r.URL.Query().Get("since"), ".")
	since, _ := strconv.ParseInt(seconds+(nanos + "000000000")[:9], 10, 64)
	if seconds == "" {
		since = time.Now().UnixNano()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := json.NewEncoder(w)
	for {
		e.mu.Lock()
		batch, changed := append([]events.Message(nil), e.events...), e.changed
		e.mu.Unlock()
		for _, m := range batch {
			if m.TimeNano >= since {
				if out.Encode(m) != nil {
					return
				}
				since = m.TimeNano + 1
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
