// Package view shows a running weir in a terminal: rates, lags, what went wrong, and the last records.
package view

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// View gathers what it shows from the process's own metrics.
type View struct {
	Title   string
	Metrics prometheus.Gatherer
	Groups  []string // consumer groups in the order to show them
	Notes   []string // lines that do not change

	mu      sync.Mutex
	records []string // the last ones, oldest first
	warning string
	began   time.Time
	before  sample
}

const keptRecords = 64

// Record adds a line of the stream of records.
func (v *View) Record(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.records = append(v.records, line)
	if len(v.records) > 2*keptRecords {
		v.records = append(v.records[:0], v.records[keptRecords:]...)
	}
}

// Log returns a writer for the process's log that passes it on to w and keeps the last warning to show.
func (v *View) Log(w io.Writer) io.Writer { return logWriter{v, w} }

type logWriter struct {
	v *View
	w io.Writer
}

func (l logWriter) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("level=WARN")) || bytes.Contains(p, []byte("level=ERROR")) {
		l.v.mu.Lock()
		l.v.warning = strings.TrimSpace(string(p))
		l.v.mu.Unlock()
	}
	return l.w.Write(p)
}

// sample is what the metrics said at one moment.
type sample struct {
	at                                             time.Time
	read, bytes, unread, logs, acked               float64
	lost, gaps, repeated, dead, retries, unhealthy float64
	records, lag                                   map[string]float64 // by group
}

func (v *View) sample(now time.Time) sample {
	s := sample{at: now, records: map[string]float64{}, lag: map[string]float64{}}
	families, _ := v.Metrics.Gather() // what could be gathered is shown
	for _, f := range families {
		for _, m := range f.GetMetric() {
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			switch f.GetName() {
			case "weir_agent_records_total":
				s.read += value
			case "weir_agent_read_bytes_total":
				s.bytes += value
			case "weir_agent_lag_bytes":
				s.unread += value
			case "weir_agent_sources":
				s.logs += value
			case "weir_producer_acked_batches_total":
				s.acked += value
			case "weir_producer_retries_total":
				s.retries += value
			case "weir_agent_loss_records_total", "weir_ingest_expired_offsets_total":
				s.lost += value
			case "weir_ingest_gaps_opened_total":
				s.gaps += value
			case "weir_ingest_gaps_filled_total":
				s.gaps -= value
			case "weir_ingest_repeated_records_total":
				s.repeated += value
			case "weir_ingest_dead_letters_total":
				s.dead += value
			case "weir_ingest_errors_total":
				s.unhealthy += value
			case "weir_ingest_records_total":
				s.records[group(m)] += value
			case "weir_ingest_lag_batches":
				s.lag[group(m)] += value
			}
		}
	}
	return s
}

func group(m *dto.Metric) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == "group" {
			return l.GetValue()
		}
	}
	return ""
}

// Frame is the picture of this moment, of at most the given size in characters.
func (v *View) Frame(now time.Time, width, height int) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.began.IsZero() {
		v.began, v.before = now, v.sample(now)
	}
	s := v.sample(now)
	rate := func(new, old float64) float64 {
		if d := s.at.Sub(v.before.at).Seconds(); d > 0 {
			return (new - old) / d
		}
		return 0
	}
	lines := []string{fmt.Sprintf("%s   up %s   Ctrl-C stops", v.Title, now.Sub(v.began).Truncate(time.Second)), ""}
	lines = append(lines, fmt.Sprintf("%-14s %12s %14s   %s", "", "records/s", "total", "behind"))
	lines = append(lines, fmt.Sprintf("%-14s %12.1f %14.0f   %s unread in %.0f logs", "agent", rate(s.read, v.before.read), s.read, Bytes(s.unread), s.logs))
	for _, g := range v.Groups {
		lines = append(lines, fmt.Sprintf("%-14s %12.1f %14.0f   %.0f batches", g, rate(s.records[g], v.before.records[g]), s.records[g], s.lag[g]))
	}
	lines = append(lines, "", fmt.Sprintf("loss records %.0f   gaps open %.0f   dead letters %.0f   repeats dropped %.0f   retries %.0f   went back %.0f",
		s.lost, s.gaps, s.dead, s.repeated, s.retries, s.unhealthy))
	if v.warning != "" {
		lines = append(lines, "last warning   "+v.warning)
	}
	lines = append(append(lines, ""), v.Notes...)
	lines = append(lines, "")
	if room := height - len(lines) - 1; room > 0 {
		lines = append(lines, v.records[max(0, len(v.records)-min(room, keptRecords)):]...)
	}
	if s.at.Sub(v.before.at) >= time.Second {
		v.before = s
	}
	var b strings.Builder
	for i, l := range lines[:min(len(lines), max(1, height-1))] {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(cut(l, width))
	}
	return b.String()
}

// Show redraws the terminal w once a second until ctx ends. size tells the terminal's columns and rows.
func (v *View) Show(ctx context.Context, w io.Writer, size func() (int, int)) {
	const alternate, back, home, clearLine, clearRest = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[K", "\x1b[J"
	fmt.Fprint(w, alternate)
	defer fmt.Fprint(w, back)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		width, height := size()
		frame := v.Frame(time.Now(), width, height)
		fmt.Fprint(w, home+strings.ReplaceAll(frame, "\n", clearLine+"\r\n")+clearLine+clearRest)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Tell logs one line every interval until ctx ends, where there is no terminal.
func (v *View) Tell(ctx context.Context, log *slog.Logger, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	before := v.sample(time.Now())
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := v.sample(time.Now())
		args := []any{"records_per_second", fmt.Sprintf("%.1f", (s.read-before.read)/s.at.Sub(before.at).Seconds()), "agent", s.read, "unread_bytes", s.unread}
		for _, g := range v.Groups {
			args = append(args, g, s.records[g])
		}
		log.Info("flow", append(args, "losses", s.lost, "gaps", s.gaps, "dead_letters", s.dead)...)
		before = s
	}
}

// Summary is one line about the whole run.
func (v *View) Summary() string {
	s := v.sample(time.Now())
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f log records read (%s)", s.read, Bytes(s.bytes))
	for _, g := range v.Groups {
		fmt.Fprintf(&b, ", %s %.0f", g, s.records[g])
	}
	fmt.Fprintf(&b, "; %.0f loss records, %.0f dead letters", s.lost, s.dead)
	return b.String()
}

// Bytes writes a size in the unit that fits.
func Bytes(n float64) string {
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 || u == "GiB" {
			if u == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.1f %s", n, u)
		}
		n /= 1024
	}
	return ""
}

// cut shortens a line to n characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:max(0, n-1)]) + "…"
}
