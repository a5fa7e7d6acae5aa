package control

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"weir/processor/signal"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) // of a Wednesday

// world is a decider with a clock that the test moves.
type world struct {
	t   *testing.T
	d   *decider
	now time.Time
	n   int
	key *Key // of the operator
}

func parse(t *testing.T, text string) *Policies {
	t.Helper()
	p := DefaultPolicies()
	if err := yaml.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	if err := p.Complete(); err != nil {
		t.Fatal(err)
	}
	return &p
}

func newTestKey(t *testing.T) *Key {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newWorld(t *testing.T, text string) *world {
	t.Helper()
	key := newTestKey(t)
	w := &world{t: t, now: noon, key: key}
	w.d = newDecider(parse(t, text), newTestKey(t), Trusted{Commands: key.Public()}, newState(), newFleet(), func(string) {})
	return w
}

// take gives an input and tells what was decided, each as "verdict action step" or "refused reason".
func (w *world) take(in input) []string {
	w.t.Helper()
	w.d.take(w.now, &in)
	return w.said()
}

// wake lets time pass and tells what was decided on what waited.
func (w *world) wake(pass time.Duration) []string {
	w.t.Helper()
	w.now = w.now.Add(pass)
	w.d.wake(w.now)
	return w.said()
}

func (w *world) said() []string {
	w.t.Helper()
	var said []string
	for _, s := range w.d.state.Outbox {
		var d Decision
		if err := json.Unmarshal([]byte(s.Payload), &d); err != nil {
			w.t.Fatal(err)
		}
		switch d.Verdict {
		case VerdictAct, VerdictWouldAct, VerdictNotify:
			said = append(said, fmt.Sprintf("%s %s %d", d.Verdict, d.Action, d.Step))
			if len(d.Signals) == 0 || d.Policy == "" {
				w.t.Errorf("it cites nothing: %+v", d)
			}
		case VerdictRefused:
			said = append(said, "refused "+d.Reason)
		default:
			said = append(said, d.Verdict)
		}
	}
	w.d.state.Outbox = nil
	return said
}

func container(name string) Subject {
	app, _, _ := strings.Cut(name, "-")
	return Subject{Node: "n1", Container: "id-of-" + name, Name: name, App: app, Image: "shop:1", Labels: map[string]string{"tier": "web"}}
}

func (w *world) event(s Subject, event, detail string, trouble string) input {
	w.n++
	in := input{change: &change{subject: s, event: event, detail: detail, at: w.now.UnixNano()}}
	if trouble != "" {
		in.trigger = &Trigger{ID: fmt.Sprint("e", w.n), Event: event, Detail: detail, Trouble: trouble, At: w.now.UnixNano(), Subject: s}
	}
	return in
}

func (w *world) die(s Subject) []string { return w.take(w.event(s, "docker.container.die", "", Down)) }

func (w *world) signal(s Subject, kind string) []string {
	w.n++
	return w.take(input{trigger: &Trigger{ID: fmt.Sprint("s", w.n), Signal: kind, Rule: kind, Trouble: Beyond, At: w.now.UnixNano(), Subject: s}})
}

// done says what became of the subject's last order.
func (w *world) done(policy string, s Subject, verdict string) {
	w.t.Helper()
	e := w.d.state.Entries[policy+"/"+s.Key()]
	if e == nil || e.Order == "" {
		w.t.Fatal("there is no order")
	}
	w.take(input{outcome: &Outcome{ID: e.Order, Verdict: verdict}})
}

func (w *world) command(what, name string) []string {
	w.n++
	c := &Command{ID: fmt.Sprint("c", w.n), What: what, Name: name, By: "ann", Reason: "drill", At: w.now.UnixNano()}
	return w.take(input{command: c, sealed: w.key.Seal(c)})
}

func (w *world) want(what string, got []string, want ...string) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

const restartOnDeath = `
policies:
- name: heal
  mode: act
  on: [{event: docker.container.die}]
  backoff: {first: 30s, factor: 2, max: 10m}
  steps: [{action: restart}, {action: recreate}, {action: notify}]
`

func TestEscalation(t *testing.T) {
	w := newWorld(t, restartOnDeath)
	web := container("web-1")
	w.want("first death", w.die(web), "act restart 1")
	w.want("while the order is out", w.die(web), "refused order_pending")
	w.done("heal", web, OutcomeDone)
	w.want("while it rests", w.die(web), "refused backoff")
	w.want("the same again is not recorded", w.die(web))
	w.now = w.now.Add(31 * time.Second)
	w.want("after the pause", w.die(web), "act recreate 2")
	w.done("heal", web, OutcomeDone)
	w.now = w.now.Add(45 * time.Second)
	w.want("the pause has doubled", w.die(web), "refused backoff")
	w.now = w.now.Add(20 * time.Second)
	w.want("the last step", w.die(web), "notify notify 3")
	w.now = w.now.Add(3 * time.Minute)
	w.want("after all steps", w.die(web), "refused steps_exhausted")
	w.now = w.now.Add(2 * time.Hour)
	w.want("after a quiet time", w.die(web), "act restart 1")
}

// TestWaiting has containers that die once more while they rest: nothing else would tell of them.
func TestWaiting(t *testing.T) {
	w := newWorld(t, "budgets:\n  total: {actions: 2, per: 10m}"+restartOnDeath)
	web, other := container("web-1"), container("other-1")
	w.want("first", w.die(web), "act restart 1")
	w.want("dies while the order is out", w.die(web), "refused order_pending")
	w.done("heal", web, OutcomeDone)
	w.want("not yet", w.wake(20*time.Second))
	w.want("after the pause", w.wake(11*time.Second), "act recreate 2")
	w.done("heal", web, OutcomeDone)
	w.want("dies while it rests", w.die(web), "refused backoff")
	w.want("the last step", w.wake(61*time.Second), "notify notify 3")
	w.want("nothing more", w.wake(4*time.Minute))

	w.want("no budget", w.die(other), "refused budget_total")
	w.want("still none, not recorded again", w.wake(time.Minute))
	w.want("when there is", w.wake(5*time.Minute), "act restart 1")
	w.want("no executor answers, and it is old by now", w.wake(10*time.Minute))
	for _, e := range w.d.state.Entries {
		if e.Waiting != nil {
			t.Errorf("%s still waits", e.Subject)
		}
	}

	w = newWorld(t, restartOnDeath)
	w.want("first", w.die(web), "act restart 1")
	first := w.d.state.Entries["heal/"+web.Key()].Order
	w.want("unanswered", w.wake(62*time.Second), "act restart 1")
	if again := w.d.state.Entries["heal/"+web.Key()].Order; again != first {
		t.Errorf("the order that nobody answered has another id: %s, %s", first, again)
	}
	w.take(w.event(web, "docker.container.start", "", ""))
	w.want("it was started", w.wake(3*time.Minute))
	w.want("signals that the live state does not show are not kept", w.signal(container("web-2"), signal.SilentContainer))
}

func TestStepIsTriedAgainWhereItWasNotDone(t *testing.T) {
	for outcome, want := range map[string]string{OutcomePassed: "act restart 1", OutcomeRefused: "act restart 1", "": "act restart 1", OutcomeFailed: "act recreate 2", OutcomeAlready: "act recreate 2", OutcomeUnknown: "act recreate 2"} {
		w := newWorld(t, restartOnDeath)
		web := container("web-1")
		w.want("first", w.die(web), "act restart 1")
		if outcome != "" {
			w.done("heal", web, outcome)
		}
		w.now = w.now.Add(2 * time.Minute)
		w.want("after "+outcome, w.die(web), want)
	}
}

func TestObservingIsTheDefault(t *testing.T) {
	p := BuiltIn()
	if err := p.Complete(); err != nil {
		t.Fatal(err)
	}
	if p.Acting() {
		t.Error("the built-in policy acts")
	}
	w := newWorld(t, strings.Replace(restartOnDeath, "mode: act", "", 1))
	for i := range 3 {
		w.want("death", w.die(container(fmt.Sprint("web-", i))), "would_act restart 1")
	}
	w.want("its own budget", w.die(container("web-4")), "refused budget_app")
	if n := len(w.d.state.Spent["total"]); n != 0 {
		t.Errorf("observing spent %d of the budget of those that act", n)
	}
}

func TestBudgets(t *testing.T) {
	for kind, c := range map[string]struct {
		budgets string
		subject func(i int) Subject
	}{
		"app":  {"app: {actions: 2, per: 10m}", func(i int) Subject { s := container(fmt.Sprint("web-", i)); s.Node = fmt.Sprint("n", i); return s }},
		"node": {"node: {actions: 2, per: 10m}", func(i int) Subject { return container(fmt.Sprintf("app%d-x", i)) }},
		"total": {"total: {actions: 2, per: 10m}", func(i int) Subject {
			s := container(fmt.Sprintf("app%d-x", i))
			s.Node = fmt.Sprint("n", i)
			return s
		}},
	} {
		w := newWorld(t, "budgets:\n  "+c.budgets+restartOnDeath)
		w.want(kind, w.die(c.subject(1)), "act restart 1")
		w.now = w.now.Add(6 * time.Minute)
		w.want(kind, w.die(c.subject(2)), "act restart 1")
		w.want(kind, w.die(c.subject(3)), "refused budget_"+kind)
		w.now = w.now.Add(5 * time.Minute)
		w.want(kind+", when the first is past", w.die(c.subject(3)), "act restart 1")
		w.want(kind+", sliding", w.die(c.subject(4)), "refused budget_"+kind)
		w.now = w.now.Add(-time.Hour)
		w.want(kind+", clock set back", w.die(c.subject(5)), "refused budget_"+kind)
	}
	w := newWorld(t, strings.Replace(restartOnDeath, "mode: act", "mode: act\n  budget: {actions: 1, per: 1h}", 1))
	w.want("policy", w.die(container("a-1")), "act restart 1")
	w.want("policy", w.die(container("b-1")), "refused budget_policy")
}

// TestManyAtOnce has twenty containers fail: the budget is spent, then the breaker opens, and nothing happens until a person closes it.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, "breaker: {subjects: 10, within: 5m}\nbudgets:\n  total: {actions: 5, per: 10m}\n  app: {actions: 100, per: 10m}\n  node: {actions: 100, per: 10m}"+restartOnDeath)
	var said []string
	for i := range 20 {
		said = append(said, w.die(container(fmt.Sprint("web-", i)))...)
	}
	count := func(what string) (n int) {
		for _, s := range said {
			if s == what {
				n++
			}
		}
		return n
	}
	if count("act restart 1") != 5 || count("refused budget_total") != 4 || count(VerdictOpened) != 1 || count("refused breaker_open") != 11 {
		t.Errorf("%q", said)
	}
	w.now = w.now.Add(24 * time.Hour)
	w.want("a day later", w.die(container("web-30")), "refused breaker_open")
	w.want("closing another", w.command(CloseBreaker, "heal"), VerdictCommandFailed)
	w.want("closing", w.command(CloseBreaker, totalBreaker), VerdictClosed)
	w.want("after it was closed", w.die(container("web-31")), "act restart 1")
}

func TestBreakerOpensWhenActionsDoNotHelp(t *testing.T) {
	w := newWorld(t, "breaker: {unhelped: 3}\nbudgets:\n  node: {actions: 100, per: 10m}\n  total: {actions: 100, per: 10m}"+restartOnDeath)
	a, b, c, d := container("a-1"), container("b-1"), container("c-1"), container("d-1")
	for s, outcome := range map[*Subject]string{&a: OutcomeDone, &b: OutcomeUnknown, &c: OutcomeFailed, &d: OutcomeAlready} {
		w.want("first", w.die(*s), "act restart 1")
		w.done("heal", *s, outcome)
	}
	w.now = w.now.Add(time.Minute)
	w.want("the engine's own restart is no action", w.die(d), "act recreate 2")
	w.want("one was not helped", w.die(a), "act recreate 2")
	w.done("heal", a, OutcomeDone)
	w.now = w.now.Add(2 * time.Minute)
	w.want("it is one still", w.die(a), "notify notify 3")
	w.want("two", w.die(b), "act recreate 2")
	w.want("three", w.die(c), VerdictOpened, "refused breaker_open")
	w.now = w.now.Add(10 * time.Minute)
	w.want("another container", w.die(container("e-1")), "refused breaker_open")
	w.want("closed", w.command(CloseBreaker, "heal"), VerdictClosed)
	w.want("closed", w.die(container("e-1")), "act restart 1")
	w.want("the next step", w.die(c), "act recreate 2")
}

func TestWhatKeepsItFromActing(t *testing.T) {
	web := container("web-1")
	optedOut := container("web-1")
	optedOut.Labels = map[string]string{OptOutLabel: OptOut}
	infra := container("kafka-1")
	const never = "never: {apps: [\"kafka*\"], namespaces: [kube-system]}\n"
	for name, c := range map[string]struct {
		policies string
		before   func(w *world)
		subject  Subject
		want     string
	}{
		"opt-out":               {restartOnDeath, nil, optedOut, "refused opted_out"},
		"infrastructure":        {never + restartOnDeath, nil, infra, "refused infrastructure"},
		"weir itself":           {restartOnDeath, nil, Subject{Node: "n1", Container: "x", Name: "control", Image: "registry:5000/bank/weir:1.2"}, "refused infrastructure"},
		"labelled so":           {restartOnDeath, nil, Subject{Node: "n1", Container: "x", Name: "db", Labels: map[string]string{"weir.infrastructure": "yes"}}, "refused infrastructure"},
		"frozen":                {restartOnDeath, func(w *world) { w.command(Freeze, "") }, web, "refused frozen"},
		"unfrozen":              {restartOnDeath, func(w *world) { w.command(Freeze, ""); w.command(Unfreeze, "") }, web, "act restart 1"},
		"maintenance":           {"maintenance: [{days: [wed], from: \"11:00\", to: \"13:00\"}]\n" + restartOnDeath, nil, web, "refused maintenance"},
		"maintenance elsewhere": {"maintenance: [{days: [wed], from: \"11:00\", to: \"13:00\", apps: [core]}]\n" + restartOnDeath, nil, web, "act restart 1"},
		"old":                   {restartOnDeath, func(w *world) { w.now = w.now.Add(-6 * time.Minute) }, web, ""},
		"other app":             {strings.Replace(restartOnDeath, "mode: act", "mode: act\n  match: {apps: [core]}", 1), nil, web, ""},
		"label":                 {strings.Replace(restartOnDeath, "mode: act", "mode: act\n  match: {labels: {tier: \"w?b\"}}", 1), nil, web, "act restart 1"},
		"ended by a person":     {restartOnDeath, func(w *world) { w.take(w.event(web, "docker.container.kill", "", "")) }, web, ""},
		"ended, started again": {restartOnDeath, func(w *world) {
			w.take(w.event(web, "docker.container.kill", "", ""))
			w.take(w.event(web, "docker.container.start", "", ""))
		}, web, "act restart 1"},
		"others are sick": {strings.Replace(restartOnDeath, "mode: act", "mode: act\n  min_healthy: 0.5", 1), func(w *world) {
			for i := range 3 {
				w.take(w.event(container(fmt.Sprint("web-1", i)), "docker.container.start", "", ""))
			}
			w.take(w.event(container("web-10"), "docker.container.health_status", "unhealthy", ""))
			w.take(w.event(container("web-11"), "docker.container.pause", "", ""))
		}, web, "refused min_healthy"},
		"half is enough": {strings.Replace(restartOnDeath, "mode: act", "mode: act\n  min_healthy: 0.5", 1), func(w *world) {
			for i := range 2 {
				w.take(w.event(container(fmt.Sprint("web-1", i)), "docker.container.start", "", ""))
			}
			w.take(w.event(container("web-10"), "docker.container.health_status", "unhealthy", ""))
		}, web, "act restart 1"},
		"alone": {strings.Replace(restartOnDeath, "mode: act", "mode: act\n  min_healthy: 1", 1), nil, web, "act restart 1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.policies)
			began := w.now
			if c.before != nil {
				c.before(w)
			}
			in := w.event(c.subject, "docker.container.die", "", Down)
			w.now = began
			got := strings.Join(w.take(in), ", ")
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestCounts(t *testing.T) {
	w := newWorld(t, `
policies:
- name: loop
  mode: act
  on: [{event: docker.container.die, count: 3, within: 1m}, {signal: crash_loop}]
  steps: [{action: restart}]
`)
	web := container("web-1")
	for range 4 { // never three within a minute
		w.want("seldom", w.die(web))
		w.now = w.now.Add(40 * time.Second)
	}
	w.now = w.now.Add(time.Minute)
	w.want("one", w.die(web))
	w.want("two", w.die(web))
	w.want("three", w.die(web), "act restart 1")
	w.want("a signal counts by itself", w.signal(container("web-2"), signal.CrashLoop), "act restart 1")
}

func TestCommands(t *testing.T) {
	w := newWorld(t, restartOnDeath)
	c := &Command{ID: "1", What: Freeze, By: "eve", At: w.now.UnixNano()}
	w.want("signed by nobody", w.take(input{command: c, sealed: (*Key)(nil).Seal(c)}), VerdictCommandFailed)
	w.want("signed by another", w.take(input{command: c, sealed: newTestKey(t).Seal(c)}), VerdictCommandFailed)
	w.want("signed", w.take(input{command: c, sealed: w.key.Seal(c)}), VerdictFrozen)
	w.want("thawed", w.command(Unfreeze, ""), VerdictUnfrozen)
	w.want("replayed", w.take(input{command: c, sealed: w.key.Seal(c)}), VerdictCommandFailed)
	w.now = w.now.Add(time.Hour)
	w.d.state.prune(w.now, w.d.byName)
	w.want("replayed later", w.take(input{command: c, sealed: w.key.Seal(c)}), VerdictCommandFailed)
	refused := 0
	for range 100 {
		refused += len(w.take(input{command: c, sealed: newTestKey(t).Seal(c)}))
	}
	if refused > 10 || w.d.state.Frozen != nil {
		t.Errorf("%d records of forged commands in a minute, frozen: %v", refused, w.d.state.Frozen)
	}
}

// TestRoomForSubjects has more containers in trouble than are remembered: those that were acted on stay.
func TestRoomForSubjects(t *testing.T) {
	w := newWorld(t, "breaker: {subjects: 1000000}\n"+strings.Replace(restartOnDeath, "event: docker.container.die", "event: docker.container.die, count: 2, within: 1m", 1))
	web := container("web-1")
	w.die(web)
	w.want("second death", w.die(web), "act restart 1")
	for i := range maxEntries + 10 {
		w.die(container(fmt.Sprint("other-", i)))
	}
	if n := len(w.d.state.Entries); n > maxEntries {
		t.Errorf("%d entries", n)
	}
	w.want("it is remembered", w.die(web), "refused order_pending")
}

func TestOutcomesNeedASignatureWhereKeysAreGiven(t *testing.T) {
	w := newWorld(t, restartOnDeath)
	node := newTestKey(t)
	w.d.trusted.Executors = node.Public()
	web := container("web-1")
	w.want("first", w.die(web), "act restart 1")
	e := w.d.state.Entries["heal/"+web.Key()]
	o := &Outcome{ID: e.Order, Verdict: OutcomeDone}
	for _, key := range []*Key{nil, newTestKey(t)} {
		w.take(input{outcome: o, sealed: key.Seal(o)})
		if e.Outcome != "" {
			t.Error("a forged outcome counts")
		}
	}
	w.take(input{outcome: o, sealed: node.Seal(o)})
	if e.Outcome != OutcomeDone {
		t.Error("a signed outcome does not count")
	}
}

func TestOrderIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []string{orderID("p", "s", "1", 0, 0), orderID("p", "s", "1", 0, 1), orderID("p", "s", "1", 1, 0), orderID("p", "s", "2", 0, 0), orderID("q", "s", "1", 0, 0), orderID("p", "s\" \"1", "", 0, 0)} {
		if seen[id] || len(id) != 32 {
			t.Errorf("id %s", id)
		}
		seen[id] = true
	}
	if id, want := orderID("p", "s", "1", 0, 0), "333cb75945f963bf0dd29b6de682b990"; id != want {
		t.Errorf("the id of an order is %s, and was %s in versions before", id, want)
	}
}

func TestWindows(t *testing.T) {
	night := Window{Days: []string{"fri"}, From: "22:00", To: "04:00", Zone: "Asia/Shanghai"}
	if errs := night.complete(); errs != nil {
		t.Fatal(errs)
	}
	for at, want := range map[string]bool{
		"2026-11-27T13:59:00Z": false, "2026-11-27T14:00:00Z": true, "2026-11-27T19:59:00Z": true, "2026-11-27T20:00:00Z": false, // Friday 22:00 in Shanghai is 14:00 UTC
		"2026-11-26T14:30:00Z": false, "2026-11-28T14:30:00Z": false,
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if night.holds(now, "x") != want {
			t.Errorf("at %s it should be %t", at, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{{"web*", "web-1", true}, {"web*", "we", false}, {"*", "", true}, {"", "", true}, {"", "a", false}, {"*-1", "web-1-1", true}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"*a*b*", "xxaxxbxx", true}, {"*a*b", "ab-", false}, {"x/*", "x/y/z", true}} {
		if fits(c.pattern, c.s) != c.want {
			t.Errorf("%q with %q is not %t", c.pattern, c.s, c.want)
		}
	}
}
