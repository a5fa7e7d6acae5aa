package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"weir/schema"
)

// SourceStatus is what the agent says of one source.
type SourceStatus struct {
	Source      string    `json:"source"`
	App         string    `json:"app"`
	State       string    `json:"state"`        // reading, quiet, held back, over quota, closing or no log yet
	Position    string    `json:"position"`     // up to where it is read
	Acked       string    `json:"acknowledged"` // up to where Kafka has it
	UnreadBytes int64     `json:"unread_bytes"` // of the file that is read and of those after it
	Lines       int64     `json:"lines"`
	PerSecond   float64   `json:"lines_per_second"` // over the last seconds
	LagSeconds  float64   `json:"lag_seconds"`      // how old the first line is that Kafka does not have
	Held        int       `json:"held_records"`     // read, and waiting for their end
	LastLine    time.Time `json:"last_line"`        // when the last line was read
}

// The states of a source.
const (
	stateReading = "reading"
	stateQuiet   = "quiet"
	stateHeld    = "held back" // Kafka does not take what was read
	stateQuota   = "over quota"
	stateClosing = "closing"
	stateNoLog   = "no log yet"
)

// shown is the part of a source's status that its reading goroutine leaves for others to see.
type shown struct {
	position schema.Position
	size     int64
	lines    int64
	rate     float64
	held     int
	waits    bool // something that was read is not sent yet
	state    string
	lastLine time.Time

	rateFrom  time.Time
	rateLines int64
}

// unread is how much of the log was not read at the last look.
func (v *shown) unread() int64 { return max(0, v.size-v.position.Offset) }

// lag is how old the first line is that Kafka does not have, nearly: as old as the last one that it has. The caller has s.mu.
func (s *source) lag(now time.Time) time.Duration {
	switch {
	case s.shown.unread() == 0 && !s.shown.waits && s.unacked == 0:
		return 0
	case s.ackedTime > 0:
		return max(0, now.Sub(time.Unix(0, s.ackedTime)))
	}
	return now.Sub(s.since)
}

const rateWindow = 5 * time.Second

// show leaves the source's status. Called by the reading goroutine after a turn.
func (s *source) show(now time.Time) {
	size := s.offset
	state := stateNoLog
	switch {
	case s.removed:
		state = stateClosing
	case s.engine != nil:
		state = s.engine.state()
	case s.armed:
		state = stateQuiet
	case s.file != nil || len(s.ahead) > 0 || s.goneTo > 0:
		state = stateReading
	}
	if s.goneTo > 0 {
		size = s.goneTo
	} else if s.file != nil {
		if info, err := s.file.Stat(); err == nil {
			size = info.Size()
		}
	}
	if wait := s.quota.wait(now); wait > 0 && state == stateReading {
		state = stateQuota
	}
	for _, f := range s.ahead {
		size += f.gone
		if f.f == nil {
			continue
		}
		if info, err := f.f.Stat(); err == nil {
			size += info.Size()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &s.shown
	if s.lines != v.lines {
		v.lastLine = now
	}
	v.waits = len(s.queue) > 0 || !s.due().IsZero()
	v.position, v.size, v.lines, v.held, v.state = schema.Position{Incarnation: s.inc, Offset: s.offset}, size, s.lines, len(s.queue), state
	if d := now.Sub(v.rateFrom); d >= rateWindow {
		if !v.rateFrom.IsZero() {
			v.rate = float64(s.lines-v.rateLines) / d.Seconds()
		}
		v.rateFrom, v.rateLines = now, s.lines
	}
}

// Status lists the sources, those with the most unread bytes first. It answers also while reading is held back.
func (a *Agent) Status() []SourceStatus {
	a.mu.Lock()
	sources := make([]*source, 0, len(a.sources))
	for _, s := range a.sources {
		sources = append(sources, s)
	}
	a.mu.Unlock()
	blocked, now := a.blocked.Load(), time.Now()
	all := make([]SourceStatus, 0, len(sources))
	for _, s := range sources {
		s.mu.Lock()
		v, acked, app, lag := s.shown, s.acked.At, s.app, s.lag(now)
		s.mu.Unlock()
		st := SourceStatus{Source: s.name, App: app, State: v.state, Position: v.position.String(), Acked: acked.String(), UnreadBytes: v.unread(), Lines: v.lines, PerSecond: v.rate, LagSeconds: lag.Seconds(), Held: v.held, LastLine: v.lastLine}
		if st.State == "" {
			st.State = stateNoLog
		}
		if blocked && st.State == stateReading {
			st.State = stateHeld
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b SourceStatus) int {
		if a.UnreadBytes != b.UnreadBytes {
			return int(min(1, max(-1, b.UnreadBytes-a.UnreadBytes)))
		}
		return strings.Compare(a.Source, b.Source)
	})
	return all
}

// SocketName is the file in the state folder through which `weir agent status` asks.
const SocketName = "agent.sock"

// serveStatus answers on the socket until ctx ends. Without it the agent works all the same.
func (a *Agent) serveStatus(ctx context.Context) {
	path := filepath.Join(a.cfg.StateDir, SocketName)
	_ = os.Remove(path) // of a process that was killed
	l, err := net.Listen("unix", path)
	if err != nil {
		a.log.Warn("`weir agent status` will not work", "socket", path, "err", err)
		return
	}
	if err := os.Chmod(path, 0o600); err != nil {
		a.log.Warn("cannot restrict the status socket", "socket", path, "err", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sources", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.Status())
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		a.log.Warn("the status socket is closed", "err", err)
	}
}

// AskStatus asks the agent whose state folder is dir.
func AskStatus(ctx context.Context, dir string) ([]SourceStatus, error) {
	path := filepath.Join(dir, SocketName)
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/sources", nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("no agent answers at %s: %w (agent.state_dir says where its socket is)", path, err)
	}
	defer res.Body.Close()
	var all []SourceStatus
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		return nil, fmt.Errorf("the agent at %s: %w", path, err)
	}
	return all, nil
}
