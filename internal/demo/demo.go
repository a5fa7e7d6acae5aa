// Package demo is a make-believe container host for a first look at weir on a machine without Docker: a few pretended
// containers write genuine Docker json-file logs, with rotation, and a small server answers the part of the Docker Engine
// API that the agent uses (https://docs.docker.com/reference/api/engine/version/v1.41/). The agent runs unchanged.
package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sync/errgroup"
)

const apiVersion = "1.41"

// keptEvents is what an engine remembers for clients that connect again (moby, daemon/events).
const keptEvents = 256

// Host is the make-believe container host.
type Host struct {
	listener   net.Listener
	containers []*pretended

	mu      sync.Mutex
	events  []events.Message
	changed chan struct{} // closed and made anew with each event
}

type pretended struct {
	id, name, image string
	labels          map[string]string
	log             *logFile
	life            func(context.Context, *Host, *pretended) error

	mu      sync.Mutex
	running bool
	started time.Time
}

// Open makes the containers' folders under dir, or takes up those of an earlier run, and listens on loopback.
func Open(dir string) (*Host, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	h := &Host{listener: l, changed: make(chan struct{})}
	for _, c := range []struct {
		name, image, app string
		life             func(context.Context, *Host, *pretended) error
	}{
		{"gateway-1", "shop/gateway:2.4", "gateway", gateway},
		{"checkout-1", "shop/checkout:1.9.1", "checkout", checkout},
		{"checkout-2", "shop/checkout:1.9.1", "checkout", checkout},
		{"ledger-1", "bank/ledger:7.0", "ledger", ledger},
		{"report-1", "bank/report:3", "report", report},
		{"cache-1", "shop/cache:5", "cache", cache},
	} {
		sum := sha256.Sum256([]byte(dir + c.name))
		p := &pretended{id: hex.EncodeToString(sum[:]), name: c.name, image: c.image, life: c.life, labels: map[string]string{"weir.app": c.app, "weir.demo": "true"}}
		folder := filepath.Join(dir, p.id)
		if err := os.MkdirAll(folder, 0o750); err != nil {
			return nil, errors.Join(fmt.Errorf("demo: %w", err), l.Close())
		}
		p.log = &logFile{path: filepath.Join(folder, p.id+"-json.log")}
		h.containers = append(h.containers, p)
	}
	return h, nil
}

// Address is what to give to a Docker client, as DOCKER_HOST.
func (h *Host) Address() string { return "tcp://" + h.listener.Addr().String() }

// Containers is how many are pretended.
func (h *Host) Containers() int { return len(h.containers) }

// Run lets the containers live and answers the API until ctx ends. The API goes on for as long as serving lasts, so that
// an agent that stops later still finds it.
func (h *Host) Run(ctx, serving context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{version}/containers/json", h.list)
	mux.HandleFunc("GET /{version}/containers/{id}/json", h.inspect)
	mux.HandleFunc("GET /{version}/events", h.stream)
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", apiVersion)
		_, _ = w.Write([]byte("OK"))
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(serving, func() { _ = s.Close() })
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		if err := s.Serve(h.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("demo: %w", err)
		}
		return nil
	})
	for _, p := range h.containers {
		g.Go(func() error {
			err := p.life(ctx, h, p)
			if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				err = nil
			}
			return errors.Join(err, p.log.close())
		})
	}
	return g.Wait()
}

func (h *Host) emit(p *pretended, action events.Action, attrs ...string) {
	all := map[string]string{"name": p.name, "image": p.image}
	for k, v := range p.labels {
		all[k] = v
	}
	for i := 0; i+1 < len(attrs); i += 2 {
		all[attrs[i]] = attrs[i+1]
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	at := time.Now().UnixNano()
	if n := len(h.events); n > 0 {
		at = max(at, h.events[n-1].TimeNano+1)
	}
	h.events = append(h.events, events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: p.id, Attributes: all}, Scope: "local", Time: at / 1e9, TimeNano: at})
	h.events = h.events[max(0, len(h.events)-keptEvents):]
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *Host) start(p *pretended) {
	p.mu.Lock()
	p.running, p.started = true, time.Now()
	p.mu.Unlock()
	h.emit(p, events.ActionStart)
}

func (h *Host) die(p *pretended, code int) {
	p.mu.Lock()
	p.running = false
	p.mu.Unlock()
	h.emit(p, events.ActionDie, "exitCode", strconv.Itoa(code))
}

func (h *Host) list(w http.ResponseWriter, _ *http.Request) {
	var all []container.Summary
	for _, p := range h.containers {
		all = append(all, container.Summary{ID: p.id, Names: []string{"/" + p.name}, Image: p.image, Labels: p.labels})
	}
	answer(w, all)
}

func (h *Host) inspect(w http.ResponseWriter, r *http.Request) {
	i := slices.IndexFunc(h.containers, func(p *pretended) bool { return p.id == r.PathValue("id") })
	if i < 0 {
		w.WriteHeader(http.StatusNotFound)
		answer(w, map[string]string{"message": "No such container: " + r.PathValue("id")})
		return
	}
	p := h.containers[i]
	p.mu.Lock()
	state := &container.State{Running: p.running, StartedAt: p.started.UTC().Format(time.RFC3339Nano)}
	p.mu.Unlock()
	answer(w, container.InspectResponse{ID: p.id, Name: "/" + p.name, State: state, LogPath: p.log.path,
		HostConfig: &container.HostConfig{LogConfig: container.LogConfig{Type: "json-file"}},
		Config:     &container.Config{Image: p.image, Labels: p.labels}})
}

func (h *Host) stream(w http.ResponseWriter, r *http.Request) {
	seconds, nanos, _ := strings.Cut(r.URL.Query().Get("since"), ".")
	since, _ := strconv.ParseInt(seconds+(nanos + "000000000")[:9], 10, 64)
	if seconds == "" {
		since = time.Now().UnixNano()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := json.NewEncoder(w)
	for {
		h.mu.Lock()
		batch, changed := slices.Clone(h.events), h.changed
		h.mu.Unlock()
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

// sleep waits for about d, and says whether ctx still holds.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
