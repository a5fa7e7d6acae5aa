package control

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // maintenance windows name zones; images without a zone database must know them too

	"weir/processor/signal"
)

// Policies is the policy file: what may be done about what, and within which limits.
type Policies struct {
	MaxAge      time.Duration `yaml:"max_age"`      // what happened longer ago is passed over
	OrderExpiry time.Duration `yaml:"order_expiry"` // after which an executor refuses an order
	Budgets     Budgets       `yaml:"budgets"`      // of all policies together
	Breaker     Breaker       `yaml:"breaker"`
	Never       Match         `yaml:"never"` // infrastructure: what any of these lists names is never acted on
	Maintenance []Window      `yaml:"maintenance"`
	Policies    []Policy      `yaml:"policies"`
}

// Budgets bound actions over sliding windows: for each app, for each node, and of all.
type Budgets struct {
	App   Budget `yaml:"app"`
	Node  Budget `yaml:"node"`
	Total Budget `yaml:"total"`
}

// Budget is so many actions in any stretch of time of this length.
type Budget struct {
	Actions int           `yaml:"actions"`
	Per     time.Duration `yaml:"per"`
}

// Breaker says when all acting ends until a person closes the breaker.
type Breaker struct {
	Subjects int           `yaml:"subjects"` // so many different containers (or nodes) that call for an action
	Within   time.Duration `yaml:"within"`   // in this time open the breaker "total"
	Unhelped int           `yaml:"unhelped"` // so many containers of a policy that an action did not help, within reset, open the policy's breaker
}

// Match chooses subjects. Every list that is not empty must have a pattern that fits, and every label too; * and ? are wildcards.
type Match struct {
	Apps       []string          `yaml:"apps"`
	Names      []string          `yaml:"names"` // of containers
	Images     []string          `yaml:"images"`
	Nodes      []string          `yaml:"nodes"`
	Namespaces []string          `yaml:"namespaces"` // of Kubernetes
	Labels     map[string]string `yaml:"labels"`
}

// Window is a time of maintenance, in which nothing is done, since people work then.
type Window struct {
	Days []string `yaml:"days"` // mon … sun, on which it begins; empty: each
	From string   `yaml:"from"` // 15:04
	To   string   `yaml:"to"`   // not after From: on the next day
	Zone string   `yaml:"zone"` // such as Asia/Shanghai; UTC when empty
	Apps []string `yaml:"apps"` // empty: all

	from, to int // minutes
	zone     *time.Location
}

// Policy is what is done about one kind of trouble.
type Policy struct {
	Name       string        `yaml:"name"`
	Mode       string        `yaml:"mode"` // observe (when empty) or act
	On         []On          `yaml:"on"`
	Match      Match         `yaml:"match"`
	MinHealthy float64       `yaml:"min_healthy"` // share of the app's other containers that must be healthy, 0 to 1
	Budget     *Budget       `yaml:"budget"`      // of this policy, beside those of all
	Steps      []Step        `yaml:"steps"`
	Backoff    Backoff       `yaml:"backoff"`
	Reset      time.Duration `yaml:"reset"`   // without trouble for so long, a subject begins at the first step again
	Settled    time.Duration `yaml:"settled"` // a container that has run for so long is not in a crash loop any more
}

// The modes of a policy.
const (
	Observe = "observe"
	Act     = "act"
)

// On names what calls for an action: a signal or an event.
type On struct {
	Signal string        `yaml:"signal"` // kind
	Rule   string        `yaml:"rule"`   // of a signal; empty: any
	Event  string        `yaml:"event"`  // such as docker.container.die, which counts only with an exit code above zero
	Detail string        `yaml:"detail"` // of an event, such as unhealthy
	Count  int           `yaml:"count"`  // so many of them
	Within time.Duration `yaml:"within"` // in this time
}

// Step is one action of the escalation.
type Step struct {
	Action   string        `yaml:"action"`
	Times    int           `yaml:"times"`    // how often before the next step; 1 when empty
	Executor string        `yaml:"executor"` // who does it; the subject's node when empty
	Stop     time.Duration `yaml:"stop"`     // how long a container may take to end; its own time when empty
	Hook     string        `yaml:"hook"`     // of webhook: a name in executor.webhooks
	Key      string        `yaml:"key"`      // of taint and annotate
	Value    string        `yaml:"value"`
	Effect   string        `yaml:"effect"` // of taint
}

// Backoff is how long a subject is left alone after each action.
type Backoff struct {
	First  time.Duration `yaml:"first"`
	Factor float64       `yaml:"factor"`
	Max    time.Duration `yaml:"max"`
}

// Actions.
const (
	Restart   = "restart"
	Start     = "start"
	Stop      = "stop"
	Recreate  = "recreate"
	Webhook   = "webhook"
	Notify    = "notify"
	DeletePod = "delete_pod"
	Cordon    = "cordon"
	Taint     = "taint"
	Annotate  = "annotate"
)

// ContainerActions go through the engine of the subject's node, KubernetesActions through the cluster's API.
var (
	ContainerActions  = []string{Restart, Start, Stop, Recreate}
	KubernetesActions = []string{DeletePod, Cordon, Taint, Annotate}
)

// The most that a policy file may hold.
const (
	maxPolicies = 200
	maxSteps    = 20
	maxCount    = 20
)

// DefaultPolicies has the limits that hold where the file names none.
func DefaultPolicies() Policies {
	return Policies{MaxAge: 5 * time.Minute, OrderExpiry: time.Minute,
		Budgets: Budgets{App: Budget{3, 10 * time.Minute}, Node: Budget{5, 10 * time.Minute}, Total: Budget{10, 10 * time.Minute}},
		Never:   Infrastructure(),
		Breaker: Breaker{Subjects: 15, Within: 5 * time.Minute, Unhelped: 5}}
}

// Infrastructure is what is never acted on unless a list says otherwise: weir itself, the cluster's own, and what is labelled so.
func Infrastructure() Match {
	return Match{Images: []string{"weir", "weir:*", "*/weir", "*/weir:*", "*/weir@*"}, Namespaces: []string{"kube-system"}, Labels: map[string]string{"weir.infrastructure": "*"}}
}

// BuiltIn is what holds without a policy file. It only observes: what a restart after three crashes in five minutes would have done.
func BuiltIn() Policies {
	p := DefaultPolicies()
	p.Policies = []Policy{{Name: "crash-loop", On: []On{{Event: "docker.container.die", Count: 3, Within: 5 * time.Minute}}, Steps: []Step{{Action: Restart}, {Action: Notify}}}}
	return p
}

// Complete fills in what the file leaves out, and joins what is wrong, each with its key.
func (p *Policies) Complete() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(p.MaxAge < time.Second || p.MaxAge > 24*time.Hour, "max_age: %v is not within 1s and 24h", p.MaxAge)
	bad(p.OrderExpiry < time.Second || p.OrderExpiry > MaxOrderLife, "order_expiry: %v is not within 1s and %v", p.OrderExpiry, MaxOrderLife)
	for _, b := range []struct {
		name string
		Budget
	}{{"app", p.Budgets.App}, {"node", p.Budgets.Node}, {"total", p.Budgets.Total}} {
		bad(!b.good(), "budgets.%s: actions must be within 1 and 1000, and per within 1s and 24h", b.name)
	}
	bad(p.Breaker.Subjects < 1, "breaker.subjects: must be at least 1")
	bad(p.Breaker.Within < time.Second || p.Breaker.Within > 24*time.Hour, "breaker.within: %v is not within 1s and 24h", p.Breaker.Within)
	bad(p.Breaker.Unhelped < 1, "breaker.unhelped: must be at least 1")
	for i := range p.Maintenance {
		for _, err := range p.Maintenance[i].complete() {
			errs = append(errs, fmt.Errorf("maintenance[%d].%w", i, err))
		}
	}
	bad(len(p.Policies) > maxPolicies, "policies: %d are more than %d", len(p.Policies), maxPolicies)
	names := map[string]bool{}
	for i := range p.Policies {
		one := &p.Policies[i]
		for _, err := range one.complete() {
			errs = append(errs, fmt.Errorf("policies[%d].%w", i, err))
		}
		bad(one.Name != "" && names[one.Name], "policies[%d].name: %q is taken", i, one.Name)
		names[one.Name] = true
	}
	return errors.Join(errs...)
}

func (b *Budget) good() bool {
	return b.Actions >= 1 && b.Actions <= 1000 && b.Per >= time.Second && b.Per <= 24*time.Hour
}

// Acting tells whether any policy is switched on.
func (p *Policies) Acting() bool {
	return slices.ContainsFunc(p.Policies, func(p Policy) bool { return p.Mode == Act })
}

func (p *Policy) complete() (errs []error) {
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if p.Mode == "" {
		p.Mode = Observe
	}
	p.Backoff.First = cmp.Or(p.Backoff.First, 30*time.Second)
	p.Backoff.Factor = cmp.Or(p.Backoff.Factor, 2)
	p.Backoff.Max = cmp.Or(p.Backoff.Max, time.Hour)
	p.Reset = cmp.Or(p.Reset, time.Hour)
	p.Settled = cmp.Or(p.Settled, 30*time.Second)
	bad(p.Name == "" || p.Name == totalBreaker || strings.ContainsFunc(p.Name, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }), "name: %q is not a name: letters, digits and signs, without blanks and slashes, and not %q", p.Name, totalBreaker)
	bad(p.Mode != Observe && p.Mode != Act, "mode: %q is neither observe nor act", p.Mode)
	bad(p.MinHealthy < 0 || p.MinHealthy > 1, "min_healthy: %v is not within 0 and 1", p.MinHealthy)
	bad(p.Budget != nil && !p.Budget.good(), "budget: actions must be within 1 and 1000, and per within 1s and 24h")
	bad(p.Backoff.First < 0 || p.Backoff.Factor < 1 || p.Backoff.Max < p.Backoff.First, "backoff: first must not be below zero, factor not below 1, and max not below first")
	bad(p.Reset <= 0 || p.Reset > 7*24*time.Hour, "reset: %v is not within 0 and 168h", p.Reset)
	bad(p.Settled < 0, "settled: is below zero")
	bad(len(p.On) == 0, "on: names no signal and no event")
	for i := range p.On {
		for _, err := range p.On[i].complete() {
			errs = append(errs, fmt.Errorf("on[%d]%w", i, err))
		}
	}
	bad(len(p.Steps) == 0 || len(p.Steps) > maxSteps, "steps: %d are not within 1 and %d", len(p.Steps), maxSteps)
	for i := range p.Steps {
		for _, err := range p.Steps[i].complete() {
			errs = append(errs, fmt.Errorf("steps[%d].%w", i, err))
		}
	}
	return errs
}

var signalKinds = []string{signal.CrashLoop, signal.FlappingHealth, signal.OOM, signal.Unhealthy, signal.SilentContainer, signal.NoisyContainer,
	signal.EngineRestart, signal.NodeQuiet, signal.NewPattern, signal.PatternRate, signal.Window, signal.Rule}

func (o *On) complete() (errs []error) {
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	o.Count = cmp.Or(o.Count, 1)
	bad((o.Signal == "") == (o.Event == ""), ": give one of signal and event")
	bad(o.Signal != "" && !slices.Contains(signalKinds, o.Signal), ".signal: %q is not one of %s", o.Signal, strings.Join(signalKinds, ", "))
	bad(o.Event != "" && !strings.HasPrefix(o.Event, "docker."), ".event: %q does not begin with docker.", o.Event)
	bad(o.Signal == "" && o.Rule != "" || o.Event == "" && o.Detail != "", ": rule is of a signal, detail of an event")
	bad(o.Count < 1 || o.Count > maxCount, ".count: %d is not within 1 and %d", o.Count, maxCount)
	bad(o.Count > 1 && (o.Within < time.Second || o.Within > 24*time.Hour), ".within: with a count, give a time within 1s and 24h")
	return errs
}

func (s *Step) complete() (errs []error) {
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	s.Times = cmp.Or(s.Times, 1)
	all := slices.Concat(ContainerActions, []string{Webhook, Notify}, KubernetesActions)
	bad(!slices.Contains(all, s.Action), "action: %q is not one of %s", s.Action, strings.Join(all, ", "))
	bad(s.Times < 1 || s.Times > 100, "times: %d is not within 1 and 100", s.Times)
	bad(s.Stop < 0 || s.Stop > 5*time.Minute, "stop: %v is not within 0 and 5m", s.Stop)
	bad((s.Action == Webhook) != (s.Hook != ""), "hook: a webhook has one, and nothing else")
	bad(slices.Contains(KubernetesActions, s.Action) && s.Executor == "", "executor: name the executor that asks the cluster's API")
	bad(slices.Contains(ContainerActions, s.Action) && s.Executor != "", "executor: containers are acted on by their node's own")
	bad((s.Action == Taint || s.Action == Annotate) != (s.Key != ""), "key: taint and annotate have one, and nothing else")
	effects := []string{"NoSchedule", "PreferNoSchedule", "NoExecute"}
	bad(s.Action == Taint && !slices.Contains(effects, s.Effect), "effect: %q is not one of %s", s.Effect, strings.Join(effects, ", "))
	return errs
}

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (w *Window) complete() (errs []error) {
	minutes := func(key, s string) int {
		t, err := time.Parse("15:04", s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not a time of day such as 22:30", key, s))
		}
		return t.Hour()*60 + t.Minute()
	}
	w.from, w.to = minutes("from", w.From), minutes("to", w.To)
	for _, d := range w.Days {
		if !slices.Contains(days, d) {
			errs = append(errs, fmt.Errorf("days: %q is not one of mon, tue, wed, thu, fri, sat, sun", d))
		}
	}
	var err error
	if w.zone, err = time.LoadLocation(w.Zone); err != nil {
		errs = append(errs, fmt.Errorf("zone: %w", err))
	}
	return errs
}

// holds tells whether now is within the window, and it is of the app.
func (w *Window) holds(now time.Time, app string) bool {
	if len(w.Apps) > 0 && !anyFits(w.Apps, app) {
		return false
	}
	now = now.In(w.zone)
	began := func(day time.Weekday) bool { return len(w.Days) == 0 || slices.Contains(w.Days, days[day]) }
	at := now.Hour()*60 + now.Minute()
	if w.from < w.to {
		return at >= w.from && at < w.to && began(now.Weekday())
	}
	return at >= w.from && began(now.Weekday()) || at < w.to && began((now.Weekday()+6)%7)
}

// takes tells whether the subject is one of those chosen.
func (m *Match) takes(s *Subject) bool {
	for _, list := range m.lists(s) {
		if len(list.patterns) > 0 && !anyFits(list.patterns, list.value) {
			return false
		}
	}
	for key, pattern := range m.Labels {
		if value, ok := s.Labels[key]; !ok || !fits(pattern, value) {
			return false
		}
	}
	return true
}

// Touches tells whether any of the lists names the subject.
func (m *Match) Touches(s *Subject) bool {
	for _, list := range m.lists(s) {
		if list.value != "" && anyFits(list.patterns, list.value) {
			return true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(m.Labels)) {
		if value, ok := s.Labels[key]; ok && fits(m.Labels[key], value) {
			return true
		}
	}
	return false
}

type matchList struct {
	patterns []string
	value    string
}

func (m *Match) lists(s *Subject) []matchList {
	return []matchList{{m.Apps, s.App}, {m.Names, s.Name}, {m.Images, s.Image}, {m.Nodes, s.Node}, {m.Namespaces, s.Namespace}}
}

func anyFits(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return fits(p, s) })
}

// fits matches s with a pattern in which * is any text and ? any byte. After a mismatch it goes back to the last *, which is enough.
func fits(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
