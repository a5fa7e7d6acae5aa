package control

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Reasons of refusals.
const (
	refusedOptOut      = "opted_out"
	refusedNever       = "infrastructure"
	refusedFrozen      = "frozen"
	refusedBreaker     = "breaker_open"
	refusedMaintenance = "maintenance"
	refusedExhausted   = "steps_exhausted"
	refusedPending     = "order_pending"
	refusedBackoff     = "backoff"
	refusedHealthy     = "min_healthy"
	refusedBudget      = "budget_" // and its name
	refusedSubject     = "subject_unknown"
	refusedFull        = "too_many_subjects"
)

// decider decides. It knows no clock and no network: the same state, input and time give the same decisions, but for nonces.
type decider struct {
	policies *Policies
	byName   map[string]*Policy
	key      *Key
	state    *State
	fleet    *Fleet
	trusted  Trusted
	passed   func(reason string)
}

// Trusted are the keys of those who speak to the decider.
type Trusted struct {
	Commands  Keys // of people
	Executors Keys // none: outcomes need no signature
}

func newDecider(p *Policies, key *Key, trusted Trusted, s *State, f *Fleet, passed func(string)) *decider {
	d := &decider{policies: p, byName: map[string]*Policy{}, key: key, state: s, fleet: f, trusted: trusted, passed: passed}
	for i := range p.Policies {
		d.byName[p.Policies[i].Name] = &p.Policies[i]
	}
	return d
}

// take works on one input and appends what follows from it to the chain.
func (d *decider) take(now time.Time, in *input) {
	switch {
	case in.outcome != nil:
		d.outcome(in.outcome, in.sealed)
	case in.command != nil:
		d.command(now, in.command, in.sealed)
	}
	if in.change != nil {
		d.fleet.note(in.change)
		switch id := in.change.subject.Container; in.change.event {
		case "docker.container.kill", "docker.container.stop":
			if len(d.state.Ended) < maxEnded {
				d.state.Ended[id] = in.change.at
			}
		case "docker.container.start", "docker.container.destroy":
			delete(d.state.Ended, id)
			d.relieve(id)
		case "docker.container.health_status":
			if in.change.detail == "healthy" {
				d.relieve(id)
			}
		}
	}
	if in.trigger != nil {
		d.trigger(now, in.trigger)
	}
}

func (d *decider) trigger(now time.Time, t *Trigger) {
	for i := range d.policies.Policies {
		p := &d.policies.Policies[i]
		at := slices.IndexFunc(p.On, func(o On) bool { return o.calls(t) })
		if at < 0 || !p.Match.takes(&t.Subject) {
			continue
		}
		if now.UnixNano()-t.At > int64(d.policies.MaxAge) {
			d.passed("old")
			continue
		}
		if ended, ok := d.state.Ended[t.Subject.Container]; ok && t.Trouble == Down && t.At-ended <= int64(endedFor) {
			d.passed("ended_on_purpose")
			continue
		}
		e := d.state.entry(p, &t.Subject)
		if e == nil {
			if d.recently(now, refusedFull) {
				d.passed(refusedFull)
			} else {
				d.refuse(now, p, &Entry{}, t, refusedFull)
			}
			continue
		}
		if now.UnixNano()-e.Last > int64(p.Reset) {
			*e = Entry{Policy: e.Policy, Subject: e.Subject, Fired: e.Fired}
		}
		e.fire(now, t)
		if on := p.On[at]; e.fired(t.At, on.Within) < on.Count {
			continue
		}
		d.call(now, p, e, t)
	}
}

// relieve gives up waiting for a container that was started or is healthy: if it fails again, there is another trigger.
func (d *decider) relieve(id string) {
	for _, e := range d.state.Entries {
		if e.Waiting != nil && e.Waiting.Subject.Container == id {
			e.Waiting = nil
		}
	}
}

// dueAtOnce bounds the work of one look at what waits.
const dueAtOnce = 100

// wake looks again at subjects that could not be acted on at once. It reports whether there were any.
func (d *decider) wake(now time.Time) bool {
	var due []string
	for key, e := range d.state.Entries {
		if e.Waiting != nil && now.UnixNano() >= e.Due {
			due = append(due, key)
		}
	}
	slices.Sort(due)
	for _, key := range due[:min(len(due), dueAtOnce)] {
		e := d.state.Entries[key]
		p, t := d.byName[e.Policy], e.Waiting
		e.Waiting = nil
		age := time.Duration(now.UnixNano() - t.At)
		unanswered := e.Order != "" && e.Outcome == "" && e.Order == orderID(p.Name, e.Subject, t.ID, e.Step, e.Times)
		if age <= d.policies.MaxAge || age <= p.Reset && !unanswered {
			d.decide(now, p, e, t, true)
		}
	}
	return len(due) > 0
}

// wait keeps a trigger for another look, where the live state will show whether the trouble is still there.
func (e *Entry) wait(t *Trigger, due int64) {
	if t.Trouble != Beyond {
		e.Waiting, e.Due = t, due
	}
}

// retryEvery is between looks at a subject for which there was no budget, or of whose app too few are healthy.
const retryEvery = 30 * time.Second

// fire notes a trigger.
func (e *Entry) fire(now time.Time, t *Trigger) {
	e.Last = now.UnixNano()
	e.Fired = append(e.Fired, t.At)
	e.Fired = e.Fired[max(0, len(e.Fired)-maxCount):]
	e.Cites = append(e.Cites, t.ID)
	e.Cites = e.Cites[max(0, len(e.Cites)-maxCites):]
}

// fired counts the triggers of the time before the last.
func (e *Entry) fired(last int64, within time.Duration) (n int) {
	if within == 0 {
		return 1
	}
	for _, at := range e.Fired {
		if last-at < int64(within) {
			n++
		}
	}
	return n
}

// call decides on what is enough trouble for an action.
func (d *decider) call(now time.Time, p *Policy, e *Entry, t *Trigger) {
	e.Called = now.UnixNano()
	d.decide(now, p, e, t, false)
}

// decide acts, or refuses. again says that the trigger was refused before: that is not recorded anew for the same reason.
func (d *decider) decide(now time.Time, p *Policy, e *Entry, t *Trigger, again bool) {
	d.look(now, p, e, t)
	if reason := d.against(now, p, e, t); reason != "" {
		switch {
		case reason == refusedBackoff:
			e.wait(t, e.NotBefore)
		case reason == refusedPending:
			e.wait(t, max(e.NotBefore, e.Expires+1))
		case strings.HasPrefix(reason, refusedBudget), reason == refusedHealthy:
			e.wait(t, now.Add(retryEvery).UnixNano())
		}
		if !again || e.Refused != reason {
			d.refuse(now, p, e, t, reason)
		}
		return
	}
	e.Waiting = nil
	step := p.Steps[e.Step]
	dec := d.decision(p, e, t)
	dec.Verdict, dec.Action, dec.Step = VerdictAct, step.Action, e.Step+1
	id := orderID(p.Name, e.Subject, t.ID, e.Step, e.Times)
	switch {
	case step.Action == Notify:
		dec.Verdict = VerdictNotify
		e.Outcome = OutcomeDone
	case p.Mode == Observe:
		dec.Verdict = VerdictWouldAct
		e.Outcome = OutcomeDone
	default:
		dec.Order = p.order(&step, t, id, now.Add(d.policies.OrderExpiry))
		e.Outcome, e.Expires = "", dec.Order.Expires
	}
	if step.Action != Notify {
		for _, b := range d.budgets(p, t) {
			d.state.spend(b.name, now, b.Per)
		}
	}
	e.Order = id
	e.NotBefore = now.Add(p.Backoff.after(e.Acts)).UnixNano()
	if dec.Order != nil {
		e.wait(t, max(e.NotBefore, e.Expires+1)) // until its outcome comes
	} else {
		e.Expires = 0
	}
	e.Acts++
	e.Refused, e.Repeats = "", 0
	d.append(now, dec)
	e.Cites = nil
}

// orderID is the same for the same policy, subject, signal and step, whoever decides and however often.
func orderID(policy, subject, signal string, step, times int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d %d", policy, subject, signal, step, times))
	return hex.EncodeToString(sum[:16])
}

func (p *Policy) order(s *Step, t *Trigger, id string, expires time.Time) *Order {
	o := &Order{ID: id, Executor: s.Executor, Nonce: nonce(), Expires: expires.UnixNano(), Trouble: t.Trouble, Since: t.At, Settled: int64(p.Settled), Stop: int64(s.Stop)}
	if o.Executor == "" {
		o.Executor = t.Subject.Node
	}
	switch s.Action {
	case Webhook:
		o.Args = map[string]string{"hook": s.Hook}
	case Taint:
		o.Args = map[string]string{"key": s.Key, "value": s.Value, "effect": s.Effect}
	case Annotate:
		o.Args = map[string]string{"key": s.Key, "value": s.Value}
	}
	return o
}

// after is the pause after an action when so many were before it.
func (b *Backoff) after(acts int) time.Duration {
	d := float64(b.First) * math.Pow(b.Factor, float64(acts))
	return time.Duration(min(d, float64(b.Max)))
}

// look finds what became of the last action, now that the subject is in trouble again.
func (d *decider) look(now time.Time, p *Policy, e *Entry, t *Trigger) {
	if e.Order == "" || e.Outcome == "" && now.UnixNano() <= e.Expires {
		return
	}
	switch e.Outcome {
	case OutcomeDone, OutcomeFailed, OutcomeUnknown, OutcomeAlready:
		step := p.Steps[min(e.Step, len(p.Steps)-1)]
		e.Unhelped = e.Unhelped || p.Mode == Act && step.Action != Notify && e.Outcome != OutcomeAlready
		if e.Times++; e.Times >= step.Times {
			e.Step, e.Times = e.Step+1, 0
		}
	}
	e.Order = "" // otherwise it was not done, and the same step is tried again
	if n := d.count(func(o *Entry) bool { return o.Policy == p.Name && o.Unhelped }); n >= d.policies.Breaker.Unhelped && p.Mode == Act {
		d.open(now, p, e, t, p.Name, fmt.Sprintf("actions did not help %d containers or nodes", n))
	}
}

// against finds what speaks against acting now; empty where nothing does.
func (d *decider) against(now time.Time, p *Policy, e *Entry, t *Trigger) string {
	s := &t.Subject
	switch {
	case s.Labels[OptOutLabel] == OptOut:
		return refusedOptOut
	case d.policies.Never.Touches(s):
		return refusedNever
	case d.state.Frozen != nil:
		return refusedFrozen
	case slices.ContainsFunc(d.policies.Maintenance, func(w Window) bool { return w.holds(now, s.App) }):
		return refusedMaintenance
	case d.broken(now, p, e, t):
		return refusedBreaker
	case e.Step >= len(p.Steps):
		return refusedExhausted
	case e.Order != "":
		return refusedPending
	case now.UnixNano() < e.NotBefore:
		return refusedBackoff
	}
	step := &p.Steps[e.Step]
	if step.Action == Notify {
		return ""
	}
	if !s.fit(step) {
		return refusedSubject
	}
	if p.MinHealthy > 0 {
		if all, healthy := d.fleet.others(s); float64(healthy) < p.MinHealthy*float64(all) {
			return refusedHealthy
		}
	}
	for _, b := range d.budgets(p, t) {
		if d.state.spent(b.name, now, b.Per) >= b.Actions {
			return refusedBudget + b.kind
		}
	}
	return ""
}

// fit tells whether what is known of the subject is enough for the action.
func (s *Subject) fit(step *Step) bool {
	switch step.Action {
	case Restart, Start, Stop, Recreate:
		return s.Node != "" && s.Container != ""
	case DeletePod:
		return s.Namespace != "" && s.Pod != "" && s.PodUID != ""
	case Annotate:
		return s.Namespace != "" && s.Pod != "" || s.Node != ""
	case Cordon, Taint:
		return s.Node != ""
	}
	return step.Executor != "" || s.Node != ""
}

type namedBudget struct {
	Budget
	name, kind string
}

// budgets are those that an action spends. Policies that observe spend budgets of their own, so that they show what they would do and take
// nothing from those that act.
func (d *decider) budgets(p *Policy, t *Trigger) []namedBudget {
	all := d.policies.Budgets
	list := []namedBudget{{all.App, "app/" + t.Subject.App, "app"}, {all.Node, "node/" + t.Subject.Node, "node"}, {all.Total, "total", "total"}}
	if p.Budget != nil {
		list = append(list, namedBudget{*p.Budget, "policy/" + p.Name, "policy"})
	}
	if p.Mode == Observe {
		for i := range list {
			list[i].name = "observe/" + p.Name + "/" + list[i].name
		}
	}
	return list
}

// broken tells whether a breaker keeps the policy from acting, and opens the one of everything when too many subjects call at once. What only observes
// opens none.
func (d *decider) broken(now time.Time, p *Policy, e *Entry, t *Trigger) bool {
	b := &d.policies.Breaker
	since := now.Add(-b.Within).UnixNano()
	acting := map[string]bool{}
	for _, o := range d.state.Entries {
		if other := d.byName[o.Policy]; other != nil && other.Mode == p.Mode && o.Called > since {
			acting[o.Subject] = true
		}
	}
	if p.Mode == Observe {
		return len(acting) >= b.Subjects
	}
	if len(acting) >= b.Subjects {
		d.open(now, p, e, t, totalBreaker, fmt.Sprintf("%d containers or nodes call for actions within %v", len(acting), b.Within))
	}
	return d.state.Breakers[totalBreaker] != nil || d.state.Breakers[p.Name] != nil
}

func (d *decider) count(f func(*Entry) bool) (n int) {
	for _, e := range d.state.Entries {
		if f(e) {
			n++
		}
	}
	return n
}

// open opens a breaker, if it is not.
func (d *decider) open(now time.Time, p *Policy, e *Entry, t *Trigger, name, why string) {
	if d.state.Breakers[name] != nil {
		return
	}
	d.state.Breakers[name] = &Opening{Why: why, At: now.UnixNano()}
	dec := d.decision(p, e, t)
	dec.Verdict, dec.Reason = VerdictOpened, "breaker "+name+": "+why
	d.append(now, dec)
}

// refuse records a refusal, unless it is the one of a moment ago.
func (d *decider) refuse(now time.Time, p *Policy, e *Entry, t *Trigger, reason string) {
	if e.Refused == reason && now.UnixNano()-e.RefusedAt < int64(repeatEvery) {
		e.Repeats++
		d.passed("refused_again")
		return
	}
	dec := d.decision(p, e, t)
	dec.Verdict, dec.Reason, dec.Repeats = VerdictRefused, reason, e.Repeats
	if e.Step < len(p.Steps) {
		dec.Action, dec.Step = p.Steps[e.Step].Action, e.Step+1
	}
	e.Refused, e.RefusedAt, e.Repeats = reason, now.UnixNano(), 0
	d.append(now, dec)
}

func (d *decider) decision(p *Policy, e *Entry, t *Trigger) *Decision {
	s := t.Subject
	cites := e.Cites
	if len(cites) == 0 {
		cites = []string{t.ID}
	}
	return &Decision{Policy: p.Name, Mode: p.Mode, Subject: &s, Trigger: t.what(), Signals: slices.Clone(cites)}
}

// append makes the decision the next link of the chain, and puts it into the outbox.
func (d *decider) append(now time.Time, dec *Decision) {
	s := d.state
	dec.Chain, dec.Seq, dec.Prev, dec.Epoch, dec.At = s.Chain, s.Seq, s.Head, s.Epoch, now.UnixNano()
	sealed := d.key.Seal(dec)
	s.Seq, s.Head = s.Seq+1, sealed.Hash
	s.Outbox = append(s.Outbox, sealed)
}

// outcome notes what became of an order. A forged one can at most have a subject's next step come sooner, within the budgets, or a breaker open.
func (d *decider) outcome(o *Outcome, sealed Sealed) {
	if len(d.trusted.Executors) > 0 && !d.trusted.Executors.Signed(sealed) {
		d.passed("outcome_not_signed")
		return
	}
	for _, e := range d.state.Entries {
		if e.Order == o.ID && e.Outcome == "" {
			e.Outcome = o.Verdict
			if w := e.Waiting; w != nil && o.ID == orderID(e.Policy, e.Subject, w.ID, e.Step, e.Times) {
				e.Waiting = nil // it was for this one
			} else if w != nil {
				e.Due = e.NotBefore // there is no need to wait for the order's end
			}
			return
		}
	}
}

// command carries out what a person asks for, once.
func (d *decider) command(now time.Time, c *Command, sealed Sealed) {
	dec := &Decision{Verdict: VerdictCommandFailed, Trigger: "command " + clip(c.ID) + " of " + clip(c.By), Signals: []string{clip(c.ID)}}
	age := time.Duration(now.UnixNano() - c.At)
	_, done := d.state.Commands[c.ID]
	switch {
	case !d.trusted.Commands.Signed(sealed):
		dec.Reason = "no trusted key signed it"
	case done:
		dec.Reason = "it was carried out before"
	case age > commandLife || age < -commandLife:
		dec.Reason = "it is not of now"
	case len(d.state.Commands) >= maxCommands:
		dec.Reason = "too many commands"
	default:
		d.state.Commands[c.ID] = now.UnixNano()
		dec.Verdict, dec.Reason = d.obey(now, c)
	}
	if dec.Verdict == VerdictCommandFailed && d.recently(now, "refused_commands") {
		d.passed("command_refused")
		return
	}
	d.append(now, dec)
}

// recently bounds records that others could cause without end, to ten a minute.
func (d *decider) recently(now time.Time, name string) bool {
	if d.state.spent(name, now, time.Minute) >= 10 {
		return true
	}
	d.state.spend(name, now, time.Minute)
	return false
}

func (d *decider) obey(now time.Time, c *Command) (verdict, reason string) {
	s := d.state
	reason = clip(c.By) + ": " + clip(c.Reason)
	switch c.What {
	case Freeze:
		s.Frozen = &Freezing{By: clip(c.By), Reason: clip(c.Reason), At: now.UnixNano()}
		return VerdictFrozen, reason
	case Unfreeze:
		s.Frozen = nil
		return VerdictUnfrozen, reason
	case CloseBreaker:
		if s.Breakers[c.Name] == nil {
			return VerdictCommandFailed, fmt.Sprintf("breaker %q is not open", clip(c.Name))
		}
		delete(s.Breakers, c.Name)
		for _, e := range s.Entries { // what opened it counts no more
			if c.Name == totalBreaker {
				e.Called = 0
			} else if e.Policy == c.Name {
				e.Unhelped = false
			}
		}
		return VerdictClosed, "breaker " + c.Name + ": " + reason
	}
	return VerdictCommandFailed, fmt.Sprintf("command %q is not known", clip(c.What))
}

// clip bounds text that others wrote.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}
