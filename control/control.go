// Package control decides what is done about trouble: it reads signals and events, looks at its policies and limits, and writes every decision
// as a link of a chain to weir.actions. Decisions to act are orders, signed, for the executors (package control/executor).
//
// One process of the group decides for everything; the others stand by. What it must not forget is in one entry of the
// journal weir.control, which is written before what follows from it leaves the process. docs/control.md has the reasons.
package control

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"weir/ingest"
	"weir/schema"
)

// Config of the decider.
type Config struct {
	Policies    string   `yaml:"policies"`      // the policy file; empty: a built-in policy that only observes
	SignKeyFile string   `yaml:"sign_key_file"` // Ed25519, PKCS#8, PEM; needed as soon as a policy acts
	CommandKeys []string `yaml:"command_keys"`  // files with the public keys of those who may freeze, unfreeze and close breakers
	// ExecutorKeys are files with the public keys of executors. Where there are any, an outcome that none of them signed does not count.
	ExecutorKeys []string `yaml:"executor_keys"`
}

// MaxCommitBytes is the most that one partition should collect for a commit: the state has the hashes of its triggers.
const MaxCommitBytes = 1 << 20

// sender is the part of the producer that control uses.
type sender interface {
	Send(ctx context.Context, m ingest.Message) error
	Flush(ctx context.Context) error
}

// journal is the part of ingest.Journal that control uses.
type journal interface {
	Claim(ctx context.Context, e ingest.JournalEntry) (int64, error)
	Read(ctx context.Context, fn func(key string, value []byte) error) error
	Append(ctx context.Context, entries ...ingest.JournalEntry) error
}

// Control is a sink. Its partitions collect inputs; a commit decides on them, and all commits take turns, because they share the
// limits and the chain.
type Control struct {
	policies *Policies
	key      *Key
	trusted  Trusted
	journal  journal
	out      sender
	now      func() time.Time
	log      *slog.Logger
	m        metrics

	turn    chan struct{} // holds one token: who has it may touch what follows
	session *session
	open    int // partitions of this process
}

// session is a stretch of time in which this process is the decider.
type session struct {
	decider *decider
	lost    bool // what the journal holds is not known any more: it must be read again
	pruned  time.Time
}

type metrics struct {
	decisions   *prometheus.CounterVec
	passed      *prometheus.CounterVec
	bad         prometheus.Counter
	takeovers   prometheus.Counter
	epoch, open prometheus.Gauge
	frozen      prometheus.Gauge
	containers  prometheus.Gauge
}

// New makes the decider. The policies must be complete.
func New(cfg Config, policies *Policies, k *ingest.Kafka, out *ingest.Producer, log *slog.Logger, reg prometheus.Registerer) (*Control, error) {
	var key *Key
	var err error
	if cfg.SignKeyFile != "" {
		if key, err = ReadKey(cfg.SignKeyFile); err != nil {
			return nil, fmt.Errorf("control.sign_key_file: %w", err)
		}
	}
	var trusted Trusted
	if trusted.Commands, err = ReadKeys(cfg.CommandKeys); err != nil {
		return nil, fmt.Errorf("control.command_keys: %w", err)
	}
	if trusted.Executors, err = ReadKeys(cfg.ExecutorKeys); err != nil {
		return nil, fmt.Errorf("control.executor_keys: %w", err)
	}
	if policies.Acting() && key == nil {
		return nil, errors.New("control.sign_key_file: is needed, because a policy's mode is act; make keys with `weir control keygen`")
	}
	if policies.Acting() && len(trusted.Commands) == 0 {
		return nil, errors.New("control.command_keys: at least one is needed, because a policy's mode is act: without it nobody can freeze it or close a breaker")
	}
	return newControl(policies, key, trusted, k.Journal(schema.TopicControl), out, time.Now, log, reg), nil
}

func newControl(policies *Policies, key *Key, trusted Trusted, j journal, out sender, now func() time.Time, log *slog.Logger, reg prometheus.Registerer) *Control {
	f := promauto.With(reg)
	c := &Control{policies: policies, key: key, trusted: trusted, journal: j, out: out, now: now, log: log.With("component", "control"), turn: make(chan struct{}, 1), m: metrics{
		decisions:  f.NewCounterVec(prometheus.CounterOpts{Name: "weir_control_decisions_total", Help: "Decisions, by policy and verdict."}, []string{"policy", "verdict"}),
		passed:     f.NewCounterVec(prometheus.CounterOpts{Name: "weir_control_passed_total", Help: "What called for a decision and got no record of its own, by reason."}, []string{"reason"}),
		bad:        f.NewCounter(prometheus.CounterOpts{Name: "weir_control_bad_records_total", Help: "Signals, outcomes and commands that could not be read."}),
		takeovers:  f.NewCounter(prometheus.CounterOpts{Name: "weir_control_takeovers_total", Help: "Times that this process became the decider."}),
		epoch:      f.NewGauge(prometheus.GaugeOpts{Name: "weir_control_epoch", Help: "Epoch of this decider; 0 while it stands by."}),
		open:       f.NewGauge(prometheus.GaugeOpts{Name: "weir_control_breakers_open", Help: "Breakers that are open."}),
		frozen:     f.NewGauge(prometheus.GaugeOpts{Name: "weir_control_frozen", Help: "1 while everything is frozen."}),
		containers: f.NewGauge(prometheus.GaugeOpts{Name: "weir_control_containers", Help: "Containers that are known."}),
	}}
	c.turn <- struct{}{}
	return c
}

func (c *Control) take(ctx context.Context) error {
	select {
	case <-c.turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Control) give() { c.turn <- struct{}{} }

// Open becomes the decider with the first partition that this process is given.
func (c *Control) Open(ctx context.Context, tp ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	if err := c.take(ctx); err != nil {
		return nil, nil, err
	}
	defer c.give()
	if c.session == nil || c.session.lost {
		s, err := c.takeOver(ctx)
		if err != nil {
			return nil, nil, err
		}
		c.session = s
	}
	c.open++
	p := &partition{c: c, tp: tp, session: c.session, skip: map[uint64]bool{}}
	for _, h := range c.session.decider.state.Handled[tp.String()] {
		p.skip[h] = true
	}
	return p, nil, nil
}

// claimKey is that of claims. stateKey begins the keys of states; the epoch follows, so that a late entry of a decider that was overtaken cannot
// push out its successor's.
const (
	claimKey = "claim"
	stateKey = "state/"
)

func keyOf(epoch int64) string { return stateKey + strconv.FormatInt(epoch, 10) }

// takeOver claims the journal, which gives the epoch, reads it, and sends again what the decider before may not have sent. Its orders keep
// their positions and ids, so whoever has them drops them.
func (c *Control) takeOver(ctx context.Context) (*session, error) {
	host, _ := os.Hostname()
	epoch, err := c.journal.Claim(ctx, ingest.JournalEntry{Key: claimKey, Value: fmt.Appendf(nil, "process %d of %s", os.Getpid(), host)})
	if err != nil {
		return nil, err
	}
	state, fleet := newState(), newFleet()
	err = c.journal.Read(ctx, func(key string, value []byte) error {
		if id, ok := strings.CutPrefix(key, fleetKey); ok {
			return fleet.load(id, value)
		}
		return state.replace(key, value)
	})
	if err != nil {
		return nil, err
	}
	now := c.now()
	d := newDecider(c.policies, c.key, c.trusted, state, fleet, func(reason string) { c.m.passed.WithLabelValues(reason).Inc() })
	if state.Chain == 0 {
		state.Chain = now.UnixNano()
	}
	before := state.Epoch
	if before >= epoch {
		return nil, fmt.Errorf("epoch %d: %w", epoch, ingest.ErrOvertaken)
	}
	state.Epoch = epoch
	d.append(now, &Decision{Verdict: VerdictEpoch, Reason: fmt.Sprintf("policies: %d, acting: %t", len(c.policies.Policies), c.policies.Acting())})
	fleet.prune(now)
	state.prune(now, d.byName)
	s := &session{decider: d, pruned: now}
	// The removal of the old state is written with the new one, or not at all.
	var also []ingest.JournalEntry
	if before > 0 {
		also = append(also, ingest.JournalEntry{Key: keyOf(before)})
	}
	if err := c.save(ctx, s, also...); err != nil {
		return nil, err
	}
	c.m.takeovers.Inc()
	c.m.epoch.Set(float64(state.Epoch))
	c.log.Info("this process decides now", "epoch", state.Epoch, "containers", len(fleet.all), "subjects", len(state.Entries), "breakers_open", len(state.Breakers), "frozen", state.Frozen != nil)
	return s, nil
}

// saveBytes keeps a request under Kafka's default message.max.bytes.
const saveBytes = 512 << 10

// save makes the state durable and then sends its outbox. After an error the session is lost.
func (c *Control) save(ctx context.Context, s *session, also ...ingest.JournalEntry) (err error) {
	defer func() { s.lost = s.lost || err != nil }()
	d := s.decider
	var some []ingest.JournalEntry
	size := 0
	for _, e := range d.fleet.take() {
		if size += len(e.Key) + len(e.Value) + 20; size > saveBytes {
			if err := c.journal.Append(ctx, some...); err != nil {
				return err
			}
			some, size = nil, 0
		}
		some = append(some, e)
	}
	if len(some) > 0 {
		if err := c.journal.Append(ctx, some...); err != nil {
			return err
		}
	}
	value, err := json.Marshal(d.state)
	if err != nil {
		return err
	}
	if err := c.journal.Append(ctx, append([]ingest.JournalEntry{{Key: keyOf(d.state.Epoch), Value: value}}, also...)...); err != nil {
		return err
	}
	if err := c.send(ctx, d.state); err != nil {
		return err
	}
	d.state.Outbox = nil
	c.m.open.Set(float64(len(d.state.Breakers)))
	c.m.containers.Set(float64(len(d.fleet.all)))
	c.m.frozen.Set(0)
	if d.state.Frozen != nil {
		c.m.frozen.Set(1)
	}
	return nil
}

// source is the stream of decisions; it is one partition of weir.actions.
const source = "weir/control"

func (c *Control) send(ctx context.Context, s *State) error {
	if len(s.Outbox) == 0 {
		return nil
	}
	chain := schema.Incarnation{Start: s.Chain}
	var e schema.Encoder
	e.Reset(source, chain, nil)
	first := s.Seq - int64(len(s.Outbox))
	for i := range s.Outbox {
		r, dec, err := DecisionRecord(&s.Outbox[i])
		if err != nil {
			return err
		}
		e.Append(&r)
		c.m.decisions.WithLabelValues(dec.Policy, dec.Verdict).Inc()
		if dec.Verdict != VerdictRefused {
			c.log.Info("decision: "+r.Body, "verdict", dec.Verdict, "policy", dec.Policy, "seq", dec.Seq)
		}
	}
	m := ingest.Message{Topic: schema.TopicActions, Source: source, Begin: schema.Position{Incarnation: chain, Offset: first}, End: schema.Position{Incarnation: chain, Offset: s.Seq}, Count: e.Count(), Value: e.Bytes()}
	if first > 0 {
		m.Prev, m.PrevKnown = m.Begin, true
	}
	if err := c.out.Send(ctx, m); err != nil {
		return err
	}
	return c.out.Flush(ctx)
}

// One save takes at most so many inputs, and ends with the one that fills the outbox: it is part of an entry of the journal.
const (
	inputsPerSave = 100
	outboxPerSave = 300
)

// pruneEvery is between the looks for what can be forgotten.
const pruneEvery = 10 * time.Minute

// dropGone takes the triggers of containers away that are removed by a later input: an agent that begins anew tells of the engine's last events at
// once.
func dropGone(inputs []input, passed func()) {
	gone := map[string]bool{}
	for i := len(inputs) - 1; i >= 0; i-- {
		in := &inputs[i]
		if in.change != nil && in.change.event == "docker.container.destroy" {
			gone[in.change.subject.Container] = true
		} else if in.trigger != nil && gone[in.trigger.Subject.Container] {
			in.trigger = nil
			passed()
		}
	}
}

func (s *session) prune(now time.Time) {
	if now.Sub(s.pruned) > pruneEvery {
		s.decider.state.prune(now, s.decider.byName)
		s.decider.fleet.prune(now)
		s.pruned = now
	}
}

// lookEvery is between looks at subjects that wait.
const lookEvery = time.Second

// Run looks again at what could not be done at once, until ctx ends. It does nothing while this process stands by.
func (c *Control) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.look(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("cannot decide on what waits; trying again", "err", err)
		}
	}
}

func (c *Control) look(ctx context.Context) (err error) {
	if err := c.take(ctx); err != nil {
		return nil
	}
	defer c.give()
	if c.open == 0 {
		return nil
	}
	if c.session == nil || c.session.lost {
		// The partitions notice with their next commit, which comes only with the next record.
		if c.session, err = c.takeOver(ctx); err != nil {
			return err
		}
	}
	now := c.now()
	c.session.prune(now)
	if !c.session.decider.wake(now) {
		return nil
	}
	return c.save(ctx, c.session)
}

// partition collects the inputs of one partition.
type partition struct {
	c       *Control
	tp      ingest.TopicPartition
	session *session
	skip    map[uint64]bool // handled before this partition was opened
	inputs  []input
	hashes  []uint64 // of the inputs; 0 where there is nothing that must not be done twice
	again   []uint64 // of what was skipped since the last commit
	closed  bool
}

// Write finds what the records mean.
func (p *partition) Write(_ context.Context, b *schema.Batch) error {
	for i := range b.Records {
		r := &b.Records[i]
		in, err := read(b, r)
		if err != nil {
			p.c.m.bad.Inc()
			p.c.log.Warn("a record cannot be read and is passed over", "record", b.ID(r), "topic", b.Topic, "err", err)
			continue
		}
		var hash uint64
		if in.trigger != nil {
			sum := sha256.Sum256(b.AppendID(nil, r))
			hash = binary.BigEndian.Uint64(sum[:])
			if p.skip[hash] {
				p.again = append(p.again, hash)
				continue
			}
		}
		if in != (input{}) {
			p.inputs, p.hashes = append(p.inputs, in), append(p.hashes, hash)
		}
	}
	return nil
}

// Commit decides on what was written since the last.
func (p *partition) Commit(ctx context.Context, _ ingest.Checkpoint) error {
	if err := p.c.take(ctx); err != nil {
		return err
	}
	defer p.c.give()
	if p.session.lost || p.session != p.c.session {
		return errors.New("control: the state is not known any more and must be read again")
	}
	d := p.session.decider
	key, all := p.tp.String(), len(p.inputs)+len(p.again)
	dropGone(p.inputs, func() { p.c.m.passed.WithLabelValues("gone").Inc() })
	for len(p.inputs) > 0 {
		n := 0
		now := p.c.now()
		p.session.prune(now)
		for n < min(len(p.inputs), inputsPerSave) && len(d.state.Outbox) < outboxPerSave {
			d.take(now, &p.inputs[n])
			n++
		}
		handled := d.state.Handled[key].add(slices.Concat(p.again, slices.DeleteFunc(slices.Clone(p.hashes[:n]), func(h uint64) bool { return h == 0 }))...)
		d.state.Handled[key], p.again = handled[max(0, len(handled)-all-keptHashes):], nil
		if err := p.c.save(ctx, p.session); err != nil {
			return err
		}
		p.inputs, p.hashes = p.inputs[n:], p.hashes[n:]
	}
	p.inputs, p.hashes = nil, nil
	return nil
}

// Close gives the session up with the last partition.
func (p *partition) Close() error {
	<-p.c.turn
	defer p.c.give()
	if p.closed {
		return nil
	}
	p.closed = true
	if p.c.open--; p.c.open == 0 {
		p.c.session = nil
		for _, g := range []prometheus.Gauge{p.c.m.epoch, p.c.m.open, p.c.m.frozen, p.c.m.containers} {
			g.Set(0) // they are the decider's, which is another process now
		}
	}
	return nil
}
