// Package executor carries out the orders that a decider signed: it has the engine's socket, so that nothing else on the node needs it for
// writing. An order is checked, looked at against the live state, noted before it is carried out and after, and its outcome is written to
// weir.actions. What was begun and not noted as done is never done again.
package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"weir/control"
	"weir/ingest"
	"weir/schema"
)

// sender is the part of the producer that the executor uses.
type sender interface {
	Send(ctx context.Context, m ingest.Message) error
	Flush(ctx context.Context) error
}

// orders is the part of ingest.Kafka that the executor uses.
type orders interface {
	Ends(ctx context.Context, topic string) (map[ingest.TopicPartition]int64, error)
	Follow(ctx context.Context, from map[ingest.TopicPartition]int64, fn func(*schema.Batch) error, bad func(ingest.TopicPartition, int64, error)) error
}

// Executor works in one goroutine: it reads, acts and reports in turn.
type Executor struct {
	cfg    Config
	keys   control.Keys
	key    *control.Key // its own; nil: outcomes are not signed
	engine engine       // nil where there is none
	kube   *cluster     // likewise
	hooks  *hooks
	in     orders
	out    sender
	now    func() time.Time
	self   string // id of the container that this process is in
	log    *slog.Logger

	ledger  *ledger
	saved   time.Time
	refused [refusalsPerMinute]time.Time // when the last refusals were recorded; a ring
	next    int                          // in it
	m       metrics
}

type metrics struct {
	outcomes *prometheus.CounterVec
	unread   prometheus.Counter
	silent   prometheus.Counter
}

// actionTimeout bounds one action, beside the time that a container is given to end.
const actionTimeout = 2 * time.Minute

// refusalsPerMinute is of how many refused orders a record is written: anybody who can write to the topic can cause them.
const refusalsPerMinute = 60

const forged = "forged: no trusted key signed it"

// skew is how far the clocks of decider and executor may differ.
const skew = time.Minute

// New prepares an executor.
func New(cfg Config, k *ingest.Kafka, out *ingest.Producer, log *slog.Logger, reg prometheus.Registerer) (*Executor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("executor: %w", err)
	}
	keys, err := control.ReadKeys(cfg.TrustedKeys)
	if err != nil {
		return nil, fmt.Errorf("executor.trusted_keys: %w", err)
	}
	x := newExecutor(cfg, keys, k, out, time.Now, log, reg)
	if cfg.DockerHost != NoDocker {
		if x.engine, err = newDocker(cfg.DockerHost); err != nil {
			return nil, err
		}
	}
	if cfg.SignKeyFile != "" {
		if x.key, err = control.ReadKey(cfg.SignKeyFile); err != nil {
			return nil, fmt.Errorf("executor.sign_key_file: %w", err)
		}
	}
	x.kube = newCluster(cfg.Kubernetes)
	x.self = ownContainer("/proc/self/mountinfo")
	return x, nil
}

func newExecutor(cfg Config, keys control.Keys, in orders, out sender, now func() time.Time, log *slog.Logger, reg prometheus.Registerer) *Executor {
	f := promauto.With(reg)
	return &Executor{cfg: cfg, keys: keys, in: in, out: out, now: now, log: log.With("component", "executor"), hooks: newHooks(cfg.Webhooks), m: metrics{
		outcomes: f.NewCounterVec(prometheus.CounterOpts{Name: "weir_executor_outcomes_total", Help: "What became of orders, by action and verdict."}, []string{"action", "verdict"}),
		unread:   f.NewCounter(prometheus.CounterOpts{Name: "weir_executor_unread_total", Help: "Messages of weir.actions that could not be read."}),
		silent:   f.NewCounter(prometheus.CounterOpts{Name: "weir_executor_unrecorded_refusals_total", Help: "Refusals beyond those of which a record is written, sixty a minute."}),
	}}
}

// Run carries out orders until ctx ends.
func (x *Executor) Run(ctx context.Context) (err error) {
	if x.ledger, err = openLedger(x.cfg.StateDir, x.now()); err != nil {
		return err
	}
	defer func() {
		if saveErr := x.ledger.save(); saveErr != nil {
			err = errors.Join(err, saveErr)
		}
		err = errors.Join(err, x.ledger.close())
	}()
	from, err := x.begin(ctx)
	if err != nil {
		return err
	}
	if err := x.settle(ctx); err != nil {
		return err
	}
	x.log.Info("carrying out orders", "name", x.cfg.Name, "actions", x.cfg.Actions, "known_orders", len(x.ledger.Orders), "own_container", cmp.Or(x.self, "none"))
	err = x.in.Follow(ctx, from, func(b *schema.Batch) error { return x.read(ctx, b) }, func(tp ingest.TopicPartition, offset int64, err error) {
		x.m.unread.Inc()
		x.log.Warn("cannot read weir.actions here; reading on", "partition", tp.Partition, "offset", offset, "err", err)
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// begin finds where to read. What was ordered before the executor was installed is not its affair.
func (x *Executor) begin(ctx context.Context) (map[ingest.TopicPartition]int64, error) {
	for try := 0; ; try++ {
		ends, err := x.in.Ends(ctx, schema.TopicActions)
		if err == nil {
			for tp, offset := range x.ledger.from() {
				if _, ok := ends[tp]; ok {
					ends[tp] = offset
				}
			}
			for tp, offset := range ends {
				x.ledger.Offsets[tp.String()] = offset
			}
			return ends, x.ledger.save()
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if try%10 == 0 {
			x.log.Warn("cannot read weir.actions; trying again", "err", err, "remedy", "create it with `weir topics apply`, or check kafka.brokers")
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// saveEvery is how often the place to read on is kept while nothing is ordered.
const saveEvery = 5 * time.Second

func (x *Executor) read(ctx context.Context, b *schema.Batch) error {
	at := ingest.TopicPartition{Topic: b.Topic, Partition: b.Partition}.String()
	acted := false
	for i := range b.Records {
		if b.Records[i].EventName != schema.EventDecision {
			continue
		}
		mine, err := x.decision(ctx, &b.Records[i], place{at, b.KafkaOffset, i})
		if err != nil {
			return err
		}
		acted = acted || mine
	}
	if acted {
		if err := x.out.Flush(ctx); err != nil {
			return err
		}
	}
	x.ledger.Offsets[at] = b.KafkaOffset + 1
	if now := x.now(); acted || now.Sub(x.saved) >= saveEvery {
		x.saved = now
		x.ledger.prune(now, x.cfg.Limit.Per)
		return x.ledger.save()
	}
	return nil
}

// decision takes one record. It reports whether it was an order for this executor.
func (x *Executor) decision(ctx context.Context, r *schema.Record, at place) (mine bool, err error) {
	d := new(control.Decision)
	sealed, err := control.Unseal(r, d)
	if err != nil {
		x.m.unread.Inc()
		x.log.Warn("a decision cannot be read", "partition", at.Partition, "offset", at.Offset, "err", err)
		return false, nil
	}
	o := d.Order
	if o == nil || o.Executor != x.cfg.Name {
		if newer := d.Chain > x.ledger.Chain || d.Chain == x.ledger.Chain && d.Epoch > x.ledger.Epoch; newer && x.keys.Signed(sealed) {
			x.ledger.known(d)
		}
		return false, nil
	}
	if !x.keys.Signed(sealed) {
		return true, x.refuse(ctx, d, forged)
	}
	if was := x.ledger.Orders[o.ID]; was != nil {
		if was.Place == at && was.Outcome != nil {
			return true, x.send(ctx, was.Outcome) // read again after a crash
		}
		return true, x.refuse(ctx, d, "it was taken before: sent again, or replayed")
	}
	if why := x.against(d); why != "" {
		return true, x.refuse(ctx, d, why)
	}
	return true, x.carryOut(ctx, d, at)
}

// against finds what speaks against an order that a trusted key signed.
func (x *Executor) against(d *control.Decision) string {
	now, o := x.now().UnixNano(), d.Order
	switch {
	case now > o.Expires:
		return "expired"
	case d.At > now+int64(skew) || o.Expires-d.At > int64(control.MaxOrderLife):
		return "its times are not of now"
	case !x.ledger.known(d):
		return "its decider was succeeded by another"
	case d.Verdict != control.VerdictAct || d.Subject == nil:
		return "it is not whole"
	case !slices.Contains(x.cfg.Actions, d.Action):
		return d.Action + " is not among executor.actions"
	}
	n := 0
	for _, t := range x.ledger.Acted {
		if now-t < int64(x.cfg.Limit.Per) {
			n++
		}
	}
	if n >= x.cfg.Limit.Actions {
		return fmt.Sprintf("executor.limit: %d actions within %v", n, x.cfg.Limit.Per)
	}
	return ""
}

// refuse writes of an order that is not taken. The ledger does not grow by it. What anybody who writes to the topic can cause is bounded.
func (x *Executor) refuse(ctx context.Context, d *control.Decision, why string) error {
	action := "unknown"
	if slices.Contains(x.cfg.Actions, d.Action) {
		action = d.Action
	}
	x.m.outcomes.WithLabelValues(action, control.OutcomeRefused).Inc()
	if now := x.now(); now.Sub(x.refused[x.next]) < time.Minute {
		x.m.silent.Inc()
		return nil
	} else {
		x.refused[x.next], x.next = now, (x.next+1)%refusalsPerMinute
	}
	id := strings.ToValidUTF8(d.Order.ID[:min(64, len(d.Order.ID))], "")
	if why == forged {
		id = "forged " + id // else it could be taken for what became of the true one
	}
	x.log.Warn("order refused", "order", id, "why", why)
	return x.send(ctx, x.outcome(&control.Outcome{ID: id, Verdict: control.OutcomeRefused, Reason: why, Action: action}))
}

// outcome gives it its place in this executor's stream.
func (x *Executor) outcome(o *control.Outcome) *control.Outcome {
	o.Seq, o.Executor, o.At = x.ledger.Seq, x.cfg.Name, x.now().UnixNano()
	x.ledger.Seq++
	return o
}

func (x *Executor) send(ctx context.Context, o *control.Outcome) error {
	source, born := "weir/executor/"+x.cfg.Name, schema.Incarnation{Start: x.ledger.Born}
	var e schema.Encoder
	e.Reset(source, born, []schema.Attr{schema.String(schema.AttrHostName, x.cfg.Name)})
	sealed := x.key.Seal(o)
	r := control.OutcomeRecord(&sealed, o)
	e.Append(&r)
	return x.out.Send(ctx, ingest.Message{Topic: schema.TopicActions, Source: source, Begin: schema.Position{Incarnation: born, Offset: o.Seq}, End: schema.Position{Incarnation: born, Offset: o.Seq + 1}, Count: 1, Value: e.Bytes()})
}

// carryOut looks, notes that it begins, acts, notes that it is done, and reports.
func (x *Executor) carryOut(ctx context.Context, d *control.Decision, at place) error {
	e := &entry{Place: at, Decision: d, Began: x.now().UnixNano()}
	// What was begun is finished, also when the process is asked to end.
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout+time.Duration(d.Order.Stop))
	defer cancel()
	o := &control.Outcome{ID: d.Order.ID, Action: d.Action, Before: d.Subject.Container}
	if o.Verdict, o.Reason = x.look(work, d, e); o.Verdict == "" {
		x.ledger.Acted = append(x.ledger.Acted, e.Began)
		x.ledger.Orders[d.Order.ID] = e
		if err := x.ledger.save(); err != nil {
			return fmt.Errorf("an order is not carried out, because it cannot be noted: %w", err)
		}
		after, err := x.act(work, d, e)
		if o.Verdict, o.After = control.OutcomeDone, after; err != nil {
			o.Verdict, o.Reason = control.OutcomeFailed, err.Error()
		}
	}
	x.ledger.Orders[d.Order.ID] = e
	return x.end(ctx, e, o)
}

// end notes and reports an outcome.
func (x *Executor) end(ctx context.Context, e *entry, o *control.Outcome) error {
	e.Outcome = x.outcome(o)
	if err := x.ledger.save(); err != nil {
		return err
	}
	x.m.outcomes.WithLabelValues(o.Action, o.Verdict).Inc()
	x.log.Info("order", "order", o.ID, "action", o.Action, "container", e.Decision.Subject.Name, "outcome", o.Verdict, "reason", o.Reason)
	return x.send(ctx, o)
}

// look asks for the live state. A verdict says that nothing is to be done, and the reason why.
func (x *Executor) look(ctx context.Context, d *control.Decision, e *entry) (verdict, reason string) {
	switch {
	case slices.Contains(control.KubernetesActions, d.Action):
		return x.kube.look(ctx, d)
	case !slices.Contains(control.ContainerActions, d.Action):
		return "", ""
	}
	l, err := x.engine.look(ctx, d.Subject.Container)
	if err != nil {
		return control.OutcomeRefused, err.Error()
	}
	e.Before = l
	s := control.Subject{Node: x.cfg.Name, Container: l.ID, Name: l.Name, App: d.Subject.App, Image: l.Image, Labels: l.Labels}
	recreate := d.Action == control.Recreate
	switch {
	case l.ID != d.Subject.Container:
		return control.OutcomeRefused, "the order does not name a container by its whole id"
	case l.ID == x.self:
		return control.OutcomeRefused, "it is the executor's own container"
	case l.Labels[control.OptOutLabel] == control.OptOut:
		return control.OutcomeRefused, "the container's label " + control.OptOutLabel + " is " + control.OptOut
	case x.cfg.Never.Touches(&s):
		return control.OutcomeRefused, "executor.never names it"
	case recreate && l.AutoRemove:
		return control.OutcomeRefused, "the engine removes it when it ends (--rm)"
	case recreate && l.Labels["com.docker.swarm.task.id"] != "":
		return control.OutcomeRefused, "a swarm makes it anew by itself"
	}
	return over(d.Action, d.Order, l, x.now())
}

func (x *Executor) act(ctx context.Context, d *control.Decision, e *entry) (after string, err error) {
	var timeout *int
	if d.Order.Stop > 0 {
		seconds := int((time.Duration(d.Order.Stop) + time.Second - 1) / time.Second)
		timeout = &seconds
	}
	id := d.Subject.Container
	switch d.Action {
	case control.Restart:
		return "", x.engine.restart(ctx, id, timeout)
	case control.Start:
		return "", x.engine.start(ctx, id)
	case control.Stop:
		return "", x.engine.stop(ctx, id, timeout)
	case control.Recreate:
		return x.engine.recreate(ctx, id, aside(d, e), timeout)
	case control.Webhook:
		return "", x.hooks.call(ctx, d)
	}
	return "", x.kube.act(ctx, d)
}

// aside names the old container while a new one takes its place.
func aside(d *control.Decision, e *entry) string {
	return e.Before.Name + "-weir-" + d.Order.ID[:min(8, len(d.Order.ID))]
}

// settle finds out about orders that were begun when the executor ended. None is done again: where the live state does not show that it was
// done, the outcome is unknown.
func (x *Executor) settle(ctx context.Context) error {
	for _, e := range x.ledger.Orders {
		if e.Outcome != nil {
			continue
		}
		d := e.Decision
		o := &control.Outcome{ID: d.Order.ID, Action: d.Action, Before: d.Subject.Container, Verdict: control.OutcomeUnknown, Reason: "the executor ended before it could note what became of it; it is not done again"}
		if slices.Contains(control.ContainerActions, d.Action) {
			work, cancel := context.WithTimeout(ctx, actionTimeout)
			if after, found := x.found(work, e); found != "" {
				o.Verdict, o.Reason, o.After = control.OutcomeDone, "seen after the executor was started again: "+found, after
			} else if after != "" {
				o.Reason += "; " + after
			}
			cancel()
		}
		if err := x.end(ctx, e, o); err != nil {
			return err
		}
	}
	return x.out.Flush(ctx)
}

// found looks for the effect of an action. Where it finds none, after may say more.
func (x *Executor) found(ctx context.Context, e *entry) (after, found string) {
	d := e.Decision
	if d.Action == control.Recreate {
		fresh, done, err := x.engine.mend(ctx, e.Before, aside(d, e))
		switch {
		case err != nil:
			return "the old container could not be brought back: " + err.Error(), ""
		case done:
			return fresh, "the new container is there"
		}
		return "the old container was left or brought back as it was", ""
	}
	l, err := x.engine.look(ctx, d.Subject.Container)
	switch {
	case err != nil:
		return err.Error(), ""
	case d.Action == control.Stop && !l.Running:
		return "", "it does not run"
	case d.Action != control.Stop && l.Started > e.Began:
		return "", "it was started since"
	}
	return "", ""
}

// ownContainer finds the id of the container that this process is in: the engine mounts files of its own folder for it into it.
func ownContainer(mountinfo string) string {
	b, err := os.ReadFile(mountinfo)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[4] != "/etc/hostname" {
			continue
		}
		for part := range strings.SplitSeq(fields[3], "/") {
			if len(part) == 64 && strings.Trim(part, "0123456789abcdef") == "" {
				return part
			}
		}
	}
	return ""
}
