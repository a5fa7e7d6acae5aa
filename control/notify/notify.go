// Package notify tells Alertmanager and webhooks what fires: signals become alerts, told until they are taken, told again while they fire, and told
// to be over when they are.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"weir/ingest"
	"weir/processor/signal"
	"weir/schema"
)

// Group is the consumer group, and Table the compacted topic that keeps the alerts.
const Group = "notify"

// Table names the topic that keeps what fires and who was told.
const Table = schema.StateTopicPrefix + "notify.alerts"

// table keeps alerts beyond this process; *ingest.Table is one.
type table interface {
	Load(ctx context.Context, partition int) (map[string][]byte, error)
	Save(ctx context.Context, partition int, rows map[string][]byte) error
}

// Notifier is a sink on weir.signals. Partitions write into its alerts from their goroutines and make them durable at their commits; a goroutine for
// each target tells them. Nothing waits for a target: an alert stays until every target took it, or give_up is over.
type Notifier struct {
	cfg     Config
	table   table
	log     *slog.Logger
	targets []*target
	least   int32
	m       metrics

	mu         sync.Mutex
	partitions map[int]*partition
}

type metrics struct {
	requests, givenUp, dropped *prometheus.CounterVec
	bad                        prometheus.Counter
}

// New prepares a notifier; Run tells what its partitions have.
func New(cfg Config, t *ingest.Table, log *slog.Logger, reg prometheus.Registerer) (*Notifier, error) {
	return newNotifier(cfg, t, log, reg)
}

func newNotifier(cfg Config, t table, log *slog.Logger, reg prometheus.Registerer) (*Notifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("control.notify: %w", err)
	}
	f := promauto.With(reg)
	n := &Notifier{cfg: cfg, table: t, log: log.With("component", "notify"), least: schema.SeverityOf(cfg.MinSeverity), partitions: map[int]*partition{}, m: metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "weir_notify_requests_total", Help: "Requests to a target, by result: taken, failed (tried again), refused (the alert in it never will be taken)."}, []string{"target", "result"}),
		givenUp:  f.NewCounterVec(prometheus.CounterOpts{Name: "weir_notify_given_up_alerts_total", Help: "Alerts that were over for control.notify.give_up and that the target did not take."}, []string{"target"}),
		dropped:  f.NewCounterVec(prometheus.CounterOpts{Name: "weir_notify_dropped_alerts_total", Help: "Alerts that nobody is told of, by reason: full (there are control.notify.max_alerts of them), old (over for control.notify.give_up when they were read)."}, []string{"reason"}),
		bad:      f.NewCounter(prometheus.CounterOpts{Name: "weir_notify_bad_signals_total", Help: "Records of weir.signals that are not what a signal is; they are passed over."}),
	}}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_notify_firing_alerts", Help: "Alerts that fire."}, func() float64 { return n.count(func(a *alert, now time.Time) bool { return !a.over(now) }) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_notify_waiting_alerts", Help: "Alerts whose begin or end not every target took yet."}, func() float64 {
		return n.count(func(a *alert, now time.Time) bool { return !n.toldAll(a, now) })
	})
	for _, reason := range []string{"full", "old"} {
		n.m.dropped.WithLabelValues(reason)
	}
	for kind, targets := range map[string][]Target{"alertmanager": cfg.Alertmanager, "webhooks": cfg.Webhooks} {
		for i := range targets {
			t, err := newTarget(n, fmt.Sprintf("%s[%d]", kind, i), &targets[i], kind == "alertmanager")
			if err != nil {
				return nil, fmt.Errorf("control.notify.%s[%d].%w", kind, i, err)
			}
			n.targets = append(n.targets, t)
		}
	}
	return n, nil
}

func (n *Notifier) count(is func(*alert, time.Time) bool) (sum float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for _, p := range n.partitions {
		for _, a := range p.alerts {
			if is(a, now) {
				sum++
			}
		}
	}
	return sum
}

func (n *Notifier) toldAll(a *alert, now time.Time) bool {
	for _, t := range n.targets {
		if a.Told[t.id] != a.state(now) {
			return false
		}
	}
	return true
}

const tick = time.Second

// Run tells until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, t := range n.targets {
		wg.Go(func() { t.run(ctx) })
	}
	for sleep(ctx, tick) {
		n.clean(time.Now())
		n.mu.Lock()
		owned := slices.Collect(maps.Values(n.partitions))
		n.mu.Unlock()
		for _, p := range owned {
			if err := p.save(ctx); err != nil && !errors.Is(err, errClosed) && ctx.Err() == nil {
				n.log.Warn("cannot keep what was told; after a restart it may be told twice", "partition", p.number, "err", err)
			}
		}
	}
	wg.Wait()
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// clean gives up what is over for long, and marks for removal what everybody took.
func (n *Notifier) clean(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.partitions {
		for k, a := range p.alerts {
			if !a.over(now) {
				continue
			}
			if now.Sub(a.Ends) > n.cfg.GiveUp {
				for _, t := range n.targets {
					if a.Told[t.id] != a.state(now) {
						n.m.givenUp.WithLabelValues(t.name).Inc()
						t.say("an alert is over for long and was not taken; it is given up", "alert", a.Labels["alertname"], "group", a.Annotations["group"])
						a.tell(t.id, a.state(now))
					}
				}
			}
			if n.toldAll(a, now) {
				delete(p.alerts, k)
				p.removed[k] = true
			}
		}
	}
}

func (a *alert) tell(target string, state int64) { a.Told[target], a.dirty = state, true }

// partition is the alerts of one partition of weir.signals.
type partition struct {
	n      *Notifier
	number int

	saving  sync.Mutex // one save at a time, and none after Close
	closed  bool
	alerts  map[string]*alert // by key; under the notifier's mu, as removed is
	removed map[string]bool   // not yet in the table
}

// Open reads the partition's alerts from the table.
func (n *Notifier) Open(ctx context.Context, tp ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	rows, err := n.table.Load(ctx, tp.Partition)
	if err != nil {
		return nil, nil, fmt.Errorf("alerts of %s: %w", tp, err)
	}
	p := &partition{n: n, number: tp.Partition, alerts: map[string]*alert{}, removed: map[string]bool{}}
	for k, row := range rows {
		name, mine := strings.CutPrefix(k, p.prefix())
		if !mine {
			continue
		}
		a := &alert{changed: time.Now()}
		if err := json.Unmarshal(row, a); err != nil {
			return nil, nil, fmt.Errorf("alerts of %s: %s in %s is damaged: %w", tp, k, Table, err)
		}
		if a.Told == nil {
			a.Told = map[string]int64{}
		}
		p.alerts[name] = a
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.partitions[tp.Partition] = p
	return p, nil, nil
}

func (p *partition) prefix() string { return fmt.Sprintf("%d/", p.number) }

// Write turns signals into alerts.
func (p *partition) Write(_ context.Context, b *schema.Batch) error {
	if b.Topic != schema.TopicSignals {
		return nil
	}
	now := time.Now()
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	for i := range b.Records {
		r := &b.Records[i]
		if r.EventName != schema.EventSignal {
			continue
		}
		s, err := signal.FromRecord(r)
		if err != nil {
			p.n.m.bad.Inc()
			continue
		}
		p.apply(&s, now)
	}
	return nil
}

// apply is called with the notifier's mu held.
func (p *partition) apply(s *signal.Signal, now time.Time) {
	k := key(s)
	a := p.alerts[k]
	if a != nil && a.older(s) || s.Kind == signal.Window { // a window is a count that nobody has to look at
		return
	}
	at := time.Unix(0, s.End)
	if at.After(now) {
		at = now
	}
	if s.State == signal.Resolved {
		if a == nil {
			return // never told, so there is nothing to take back
		}
		a.At, a.Revision, a.dirty = s.End, s.Revision, true
		if !a.over(now) {
			a.Annotations, a.Ends, a.changed = annotations(s), later(at, a.Starts), now
		}
		return
	}
	if s.Severity < p.n.least {
		return
	}
	if s.State == signal.Point && now.Sub(at) > p.n.cfg.PointFor+p.n.cfg.GiveUp {
		p.n.m.dropped.WithLabelValues("old").Inc()
		return
	}
	if a == nil {
		if !p.room(now) {
			p.n.m.dropped.WithLabelValues("full").Inc()
			p.n.log.Error("an alert is not told: there are too many", "alert", s.Rule, "group", s.Group, "remedy", "see what fires, or raise control.notify.max_alerts")
			return
		}
		a = &alert{Labels: labels(s), Told: map[string]int64{}}
		p.alerts[k] = a
		delete(p.removed, k)
	}
	if a.Version == 0 || a.over(now) { // it begins, perhaps anew
		a.Version, a.Starts, a.changed = a.Version+1, at, now
	}
	a.Annotations, a.At, a.Revision, a.dirty, a.Ends = annotations(s), s.End, s.Revision, true, time.Time{}
	if s.State == signal.Point {
		a.Ends = at.Add(p.n.cfg.PointFor)
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// room makes sure that there is place for one alert more; the one that has been over for longest makes place.
func (p *partition) room(now time.Time) bool {
	sum := 0
	for _, o := range p.n.partitions {
		sum += len(o.alerts)
	}
	if sum < p.n.cfg.MaxAlerts {
		return true
	}
	oldest := ""
	for k, a := range p.alerts {
		if a.over(now) && (oldest == "" || a.Ends.Before(p.alerts[oldest].Ends)) {
			oldest = k
		}
	}
	if oldest == "" {
		return false
	}
	p.n.m.dropped.WithLabelValues("full").Inc()
	delete(p.alerts, oldest)
	p.removed[oldest] = true
	return true
}

// Commit makes the alerts durable. Who is to be told of them is told later, also after a crash.
func (p *partition) Commit(ctx context.Context, _ ingest.Checkpoint) error { return p.save(ctx) }

// closeTimeout bounds the last save of a partition, so that a Kafka that is away does not hold up the stop.
const closeTimeout = 5 * time.Second

// Close forgets the alerts: who has the partition next reads them from the table. Who was told is saved first. Signals that are not committed are saved
// with it, and do nothing when they are read again.
func (p *partition) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := p.save(ctx); err != nil {
		p.n.log.Warn("cannot keep what was told; it may be told twice", "partition", p.number, "err", err)
	}
	p.saving.Lock()
	defer p.saving.Unlock()
	p.closed = true
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	if p.n.partitions[p.number] == p {
		delete(p.n.partitions, p.number)
	}
	return nil
}

var errClosed = errors.New("the partition belongs to somebody else now")

// save writes what changed into the table.
func (p *partition) save(ctx context.Context) error {
	p.saving.Lock()
	defer p.saving.Unlock()
	rows := map[string][]byte{}
	p.n.mu.Lock()
	if p.closed {
		p.n.mu.Unlock()
		return errClosed
	}
	var saved []*alert
	for k, a := range p.alerts {
		if a.dirty {
			rows[p.prefix()+k], _ = json.Marshal(a) // of texts, numbers and times alone
			a.dirty = false
			saved = append(saved, a)
		}
	}
	gone := slices.Collect(maps.Keys(p.removed))
	for _, k := range gone {
		rows[p.prefix()+k] = nil
	}
	clear(p.removed)
	p.n.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	err := p.n.table.Save(ctx, p.number, rows)
	if err != nil {
		p.n.mu.Lock()
		defer p.n.mu.Unlock()
		for _, a := range saved {
			a.dirty = true
		}
		for _, k := range gone {
			if p.alerts[k] == nil {
				p.removed[k] = true
			}
		}
	}
	return err
}
