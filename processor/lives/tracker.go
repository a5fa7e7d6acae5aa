package lives

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"weir/processor/signal"
	"weir/schema"
)

// Tracker keeps what is known of containers and nodes.
type Tracker struct {
	cfg        Config
	containers map[string]*container // by key
	nodes      map[string]*node      // by name
	writes     uint64
	gone       []string // keys forgotten since the last Changed
	forgotten  uint64
	out        []signal.Signal // of the call that is under way
}

// New makes a tracker.
func New(cfg Config) (*Tracker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("lives: %w", err)
	}
	return &Tracker{cfg: cfg, containers: map[string]*container{}, nodes: map[string]*node{}}, nil
}

// Stats are what a tracker holds, and how much it forgot for its bounds.
type Stats struct {
	Containers, Nodes int
	Forgotten         uint64
}

// Stats says what the tracker holds.
func (t *Tracker) Stats() Stats { return Stats{len(t.containers), len(t.nodes), t.forgotten} }

// state is one that a container or node can be in. Since is when it fired; 0: it is not in it. Fired is when it did last.
type state struct {
	Since int64 `json:"since,omitempty"`
	Fired int64 `json:"fired,omitempty"`
}

// due gives the time at which a state fires whose condition has held since a time, after its cool-down; it may not be now yet. So the
// time is the same however often it is looked at.
func (t *Tracker) due(s *state, since, now int64) (at int64, ok bool) {
	if at = since; s.Fired != 0 {
		at = max(at, s.Fired+int64(t.cfg.CoolDown))
	}
	return at, s.Since == 0 && at <= now
}

// fire appends a signal unless the state fires already, or did too short a time ago.
func (t *Tracker) fire(s *state, at int64, sig signal.Signal) {
	if _, ok := t.due(s, at, at); !ok {
		return
	}
	s.Since, s.Fired = max(at, 1), max(at, 1)
	sig.Rule, sig.State, sig.Start, sig.End = sig.Kind, signal.Firing, s.Since, s.Since
	t.out = append(t.out, sig)
}

// resolve appends the end of a state that fires. Its window reaches from the firing to now, and is never empty: so the ids differ.
func (t *Tracker) resolve(s *state, at int64, sig signal.Signal) {
	if s.Since == 0 {
		return
	}
	sig.Rule, sig.State, sig.Start, sig.End, sig.Severity = sig.Kind, signal.Resolved, s.Since, max(at, s.Since+1), signal.Info
	t.out = append(t.out, sig)
	s.Since = 0
}

// point appends a single happening.
func (t *Tracker) point(s *state, at int64, sig signal.Signal) {
	if _, ok := t.due(s, at, at); !ok {
		return
	}
	s.Fired = max(at, 1)
	sig.Rule, sig.State, sig.Start, sig.End = sig.Kind, signal.Point, s.Fired, s.Fired
	t.out = append(t.out, sig)
}

// Write takes a batch of weir.logs or weir.events, and appends what it shows.
func (t *Tracker) Write(b *schema.Batch, out []signal.Signal) []signal.Signal {
	t.out = out
	t.take(b, true)
	out, t.out = t.out, nil
	return out
}

// Note takes the facts of a batch of events that another tracker judges: which containers run, and that the node is alive.
func (t *Tracker) Note(b *schema.Batch) {
	if strings.HasPrefix(b.Source, "docker-events/") {
		t.take(b, false)
		t.out = nil
	}
}

// Alive says that something of a node was seen elsewhere.
func (t *Tracker) Alive(name string, at int64) {
	if n := t.nodes[name]; n != nil {
		n.heard(at)
		n.changed = true
	}
}

func (t *Tracker) take(b *schema.Batch, judge bool) {
	t.writes++
	kind, rest, _ := strings.Cut(b.Source, "/")
	if kind == "weir" || rest == "" {
		return
	}
	name := attr(b, schema.AttrHostName)
	if name == "" {
		name, _, _ = strings.Cut(rest, "/")
	}
	n := t.node(name)
	name = n.name
	n.Used, n.changed = t.writes, true
	switch kind {
	case "docker-events":
		for i := range b.Records {
			t.event(n, b, &b.Records[i], judge)
		}
	case "docker":
		if c := attr(b, schema.AttrContainerName); c != "" {
			t.log(n, t.container("docker/"+name+"/"+c, n, b), b)
			return
		}
	case "cri":
		if pod := rest[:max(strings.LastIndexByte(rest, '/'), 0)]; strings.Count(pod, "/") == 2 {
			c := t.container("cri/"+pod, n, b)
			t.attempt(c, b, rest[len(pod)+1:])
			t.log(n, c, b)
			return
		}
	}
	for i := range b.Records {
		n.heard(timeOf(&b.Records[i]))
	}
}

// ahead is how far a record's time may be after it was read; a clock that is more wrong is not believed.
const ahead = int64(time.Minute)

func timeOf(r *schema.Record) int64 {
	if r.Time <= 0 || r.Observed > 0 && r.Time > r.Observed+ahead {
		return max(r.Observed, 0)
	}
	return r.Time
}

// attr is a text of the batch's resource. It lives as long as the batch.
func attr(b *schema.Batch, key string) string {
	a, _ := b.ResourceAttr(key)
	if a.Kind != schema.KindString {
		return ""
	}
	return a.Str
}

// node finds a node, or makes it.
func (t *Tracker) node(name string) *node {
	if len(name) > maxText || !utf8.ValidString(name) {
		name = text(name)
	}
	n := t.nodes[name]
	if n == nil {
		if len(t.nodes) >= t.cfg.MaxNodes {
			t.forgotten++
			old := oldest(t.nodes, func(n *node) uint64 { return n.Used })
			t.forgetNode(old, old.Seen)
		}
		name = strings.Clone(name)
		n = &node{name: name}
		t.nodes[name] = n
	}
	return n
}

// maxKey bounds a container's key; the names of engines and pods are shorter.
const maxKey = 1024

// container finds a container, or makes it, and takes over what the batch says of it.
func (t *Tracker) container(key string, n *node, b *schema.Batch) *container {
	if len(key) > maxKey || !utf8.ValidString(key) {
		key = strings.ToValidUTF8(key[:min(len(key), maxKey)], "\ufffd")
	}
	c := t.containers[key]
	if c == nil {
		if len(t.containers) >= t.cfg.MaxContainers {
			t.forgotten++
			old := oldest(t.containers, func(c *container) uint64 { return c.Used })
			t.forget(old, old.Seen, "was forgotten for want of room")
		}
		c = &container{key: strings.Clone(key), Node: n.name}
		t.containers[c.key] = c
	}
	c.Used, c.changed = t.writes, true
	c.describe(b)
	return c
}

// oldest gives the value that was used longest ago; of equal ones that with the lowest key.
func oldest[V any](m map[string]V, used func(V) uint64) (old V) {
	first := ""
	for key, v := range m {
		if first == "" || used(v) < used(old) || used(v) == used(old) && key < first {
			old, first = v, key
		}
	}
	return old
}

// forget ends all states of a container and drops it.
func (t *Tracker) forget(c *container, at int64, why string) {
	t.end(c, at, why)
	t.resolve(&c.Crash, at, c.signal(signal.CrashLoop, signal.Info, 0, why, nil))
	t.resolve(&c.Noise, at, c.signal(signal.NoisyContainer, signal.Info, 0, why, nil))
	delete(t.containers, c.key)
	t.gone = append(t.gone, c.stateKey())
}

func (t *Tracker) forgetNode(n *node, at int64) {
	t.resolve(&n.Quiet, at, n.signal(signal.NodeQuiet, signal.Info, 0, "was forgotten", nil))
	delete(t.nodes, n.name)
	t.gone = append(t.gone, n.stateKey())
}

// Advance appends what follows from time passing.
func (t *Tracker) Advance(watermark int64, out []signal.Signal) []signal.Signal {
	t.out = nil
	for _, c := range t.containers {
		if watermark-c.Seen >= int64(t.cfg.Expire) {
			t.forget(c, c.Seen+int64(t.cfg.Expire), "was not heard of for so long that it is forgotten")
			continue
		}
		t.judge(c, watermark)
	}
	for _, n := range t.nodes {
		t.judgeNode(n, watermark)
		if watermark-n.Seen >= int64(t.cfg.Expire) {
			t.forgetNode(n, n.Seen+int64(t.cfg.Expire))
		}
	}
	slices.SortStableFunc(t.out, func(a, b signal.Signal) int {
		return cmp.Or(cmp.Compare(a.End, b.End), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Start, b.Start), cmp.Compare(a.Body, b.Body))
	})
	out, t.out = append(out, t.out...), nil
	return out
}

// Attributes of signals, besides those that every signal has.
const (
	AttrRestarts  = "weir.life.restarts"   // int: starts after the first that was seen
	AttrExitCodes = "weir.life.exit_codes" // "137:2,1:1": how often the container ended with which code, the last one first
	AttrReady     = "weir.life.ready_ms"   // int: from the last start that came so far to the first time healthy
	AttrExits     = "weir.life.exits"      // int: of crash_loop, short runs in a row
	AttrPause     = "weir.life.pause_ms"   // int: of crash_loop, the last pause before a start
	AttrBackOff   = "weir.life.back_off"   // bool: of crash_loop, the pauses grow, as those of an engine or a kubelet do that holds the container back
	AttrLast      = "weir.life.last"       // int: when the last line was, Unix ns, of silent_container and node_quiet
	AttrEvidence  = "weir.life.evidence"   // of engine_restart: containers, or events_forgotten
)
