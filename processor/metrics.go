package processor

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	signals, other, reloads          *prometheus.CounterVec
	late, tooLate, ahead             prometheus.Counter
	groups, watermark                *prometheus.GaugeVec
	rules                            prometheus.Gauge
	skew                             *prometheus.GaugeVec
	restore, snapshot, signalSeconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: []float64{.01, .05, .1, .25, .5, 1, 2, 5, 10, 30, 60}})
	}
	m := &metrics{
		signals:       f.NewCounterVec(prometheus.CounterOpts{Name: "weir_processor_signals_total", Help: "Signals sent, by kind."}, []string{"kind"}),
		other:         f.NewCounterVec(prometheus.CounterOpts{Name: "weir_processor_over_limit_total", Help: "Counts that went to the group other, because a limit of groups was reached, by rule."}, []string{"rule"}),
		reloads:       f.NewCounterVec(prometheus.CounterOpts{Name: "weir_processor_rule_reloads_total", Help: "Changes of rule files: taken, or bad."}, []string{"result"}),
		late:          counter("weir_processor_late_records_total", "Records that came after their window was closed, and corrected it."),
		tooLate:       counter("weir_processor_too_late_records_total", "Records that came after their window was forgotten; windows tell them as additions, rules do not."),
		ahead:         counter("weir_processor_ahead_records_total", "Records whose time is more than ten minutes ahead, counted as of now."),
		groups:        f.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_processor_groups", Help: "Groups kept, by partition of weir.partials."}, []string{"partition"}),
		watermark:     f.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_processor_watermark_seconds", Help: "Unix time up to which windows are closed, by partition of weir.partials."}, []string{"partition"}),
		rules:         f.NewGauge(prometheus.GaugeOpts{Name: "weir_processor_rules", Help: "Rules that hold, windows among them."}),
		skew:          f.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_processor_clock_skew_seconds", Help: "How far a node's clock is behind the middle of all nodes, as their stamps arrive; below zero: ahead."}, []string{"node"}),
		restore:       seconds("weir_processor_restore_seconds", "Time to restore a partition's state."),
		snapshot:      seconds("weir_processor_snapshot_seconds", "Time to write a snapshot of a partition's state."),
		signalSeconds: seconds("weir_processor_signal_delay_seconds", "Time from the end of a window to its first signal in Kafka."),
	}
	for _, result := range []string{"taken", "bad"} {
		m.reloads.WithLabelValues(result)
	}
	return m
}

// maxNodes bounds the nodes whose clocks are watched.
const maxNodes = 10_000

// skews measures nodes' clocks: the least time between a node's stamp and its arrival here, in each half minute, set against the middle of
// all nodes. What the way takes is in all of them alike.
type skews struct {
	mu    sync.Mutex
	since time.Time
	least map[string]time.Duration
}

// observe notes a stamp of a node that arrived without having waited.
func (s *skews) observe(node string, stamp int64, now time.Time, show *prometheus.GaugeVec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.least == nil {
		s.least, s.since = map[string]time.Duration{}, now
	}
	delay := now.Sub(time.Unix(0, stamp))
	if old, known := s.least[node]; known {
		if delay < old {
			s.least[node] = delay
		}
	} else if len(s.least) < maxNodes {
		s.least[string(append([]byte(nil), node...))] = delay
	}
	if now.Sub(s.since) < 30*time.Second {
		return
	}
	all := make([]time.Duration, 0, len(s.least))
	for _, d := range s.least {
		all = append(all, d)
	}
	slices.Sort(all)
	show.Reset()
	for node, d := range s.least {
		show.WithLabelValues(node).Set((d - all[len(all)/2]).Seconds())
	}
	clear(s.least)
	s.since = now
}
