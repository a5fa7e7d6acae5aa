// Package telemetry is how a weir process shows itself: its log, its metrics, its health, its profiles.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Logger writes text or JSON at the given level.
func Logger(w io.Writer, format, level string) *slog.Logger {
	opts := &slog.HandlerOptions{}
	var l slog.Level
	if l.UnmarshalText([]byte(level)) == nil {
		opts.Level = l
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// Metrics is what a *prometheus.Registry is.
type Metrics interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// Registry has the Go runtime's and the process's own metrics.
func Registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Check is one thing that must hold for a process to be ready.
type Check struct {
	Name string
	Ask  func(context.Context) error
}

// Handler serves /metrics, /healthz (the process answers) and /readyz (every check holds; the body names the one that does not).
func Handler(reg Metrics, checks ...Check) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		var body strings.Builder
		status := http.StatusOK
		for _, c := range checks {
			if err := c.Ask(ctx); err != nil {
				status = http.StatusServiceUnavailable
				fmt.Fprintf(&body, "%s: %v\n", c.Name, err)
			} else {
				fmt.Fprintf(&body, "%s: ok\n", c.Name)
			}
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body.String())
	})
	return mux
}

// Profiles serves net/http/pprof.
func Profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// Listener is where a process answers.
type Listener struct {
	Addr        string       // host:port; empty: nowhere
	Key         string       // of the configuration, for errors
	Certificate *Certificate // nil: clear text
	Log         *slog.Logger
}

// Serve answers until ctx ends.
func (l Listener) Serve(ctx context.Context, h http.Handler) error {
	if l.Addr == "" {
		<-ctx.Done()
		return nil
	}
	socket, err := net.Listen("tcp", l.Addr)
	if err != nil {
		return fmt.Errorf("%s: %w (set another address, or \"\" for none)", l.Key, err)
	}
	// Whoever reaches the port could fill the log with handshakes that fail: they are told at the level debug.
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(l.Log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Shutdown(last)
	})
	defer stop()
	serve := func() error { return s.Serve(socket) }
	if l.Certificate != nil {
		s.TLSConfig = l.Certificate.config()
		serve = func() error { return s.ServeTLS(socket, "", "") }
		var watching sync.WaitGroup
		defer watching.Wait()
		watched, stopWatching := context.WithCancel(ctx)
		defer stopWatching()
		watching.Go(func() { l.Certificate.watch(watched) })
	}
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s: %w", l.Key, err)
	}
	return nil
}
