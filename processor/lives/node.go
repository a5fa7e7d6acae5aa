package lives

import (
	"fmt"
	"slices"
	"time"

	"weir/processor/signal"
	"weir/schema"
)

// maxDowns bounds the ends of containers that are kept of a node.
const maxDowns = 1000

// engineBack is how long after its containers ended an engine may take to start them again.
const engineBack = int64(10 * time.Minute)

// node is what is known of one. The fields that have names of JSON are its state.
type node struct {
	name    string
	changed bool

	Used   uint64 `json:"used"`
	First  int64  `json:"first,omitempty"`
	Seen   int64  `json:"seen,omitempty"` // highest time of what was heard of it
	Gap    gaps   `json:"gap,omitzero"`
	Events bool   `json:"events,omitempty"` // its engine's events are known here

	Downs   []down `json:"downs,omitempty"`   // containers that ended close together
	Stopped int64  `json:"stopped,omitempty"` // when so many had that it must be the engine
	Ups     int    `json:"ups,omitempty"`     // of Downs, started again

	Engine state `json:"engine,omitzero"`
	Quiet  state `json:"quiet,omitzero"`
	Back   int64 `json:"back,omitempty"` // when it was heard again
}

type down struct {
	Key string `json:"key"`
	At  int64  `json:"at"`
	Up  bool   `json:"up,omitempty"`
}

func (n *node) stateKey() string { return "node/" + n.name }

// heard notes that there was something of the node.
func (n *node) heard(at int64) {
	if n.First == 0 {
		n.First, n.Seen = max(at, 1), at
	}
	if at < n.Seen {
		return
	}
	if n.Quiet.Since == 0 { // a silence that was told is not what is usual
		n.Gap.add(at-n.Seen, at)
	} else if n.Back == 0 && at > n.Seen {
		n.Back = at
	}
	n.Seen = at
}

func (n *node) signal(kind string, severity int32, value float64, says string, records []string, more ...schema.Attr) signal.Signal {
	return signal.Signal{Kind: kind, Group: signal.Group(schema.AttrHostName, n.name), Severity: severity, Value: value, Body: "node " + n.name + ": " + says, Records: records,
		Subject: append([]schema.Attr{schema.String(schema.AttrHostName, n.name)}, more...)}
}

// down notes that one of the node's running containers ended.
func (n *node) down(key string, at int64, running int, cfg Engine) {
	if n.Stopped > 0 && at-n.Stopped > engineBack {
		n.Downs, n.Ups, n.Stopped = nil, 0, 0
	}
	n.Downs = slices.DeleteFunc(n.Downs, func(d down) bool { return d.Key == key && !d.Up || n.Stopped == 0 && at-d.At > int64(cfg.Within) })
	if len(n.Downs) == maxDowns {
		return
	}
	n.Downs = append(n.Downs, down{Key: key, At: at})
	total := running + len(n.Downs) - 1
	if n.Stopped == 0 && len(n.Downs) >= cfg.Containers && float64(len(n.Downs)) >= cfg.Share*float64(total) {
		n.Stopped = at
	}
}

// restarted notes that a container that had ended is started again, and reports whether the engine was.
func (n *node) restarted(key string, at int64) bool {
	if n.Stopped == 0 || at-n.Stopped > engineBack {
		return false
	}
	i := slices.IndexFunc(n.Downs, func(d down) bool { return d.Key == key && !d.Up })
	if i < 0 {
		return false
	}
	n.Downs[i].Up = true
	n.Ups++
	return n.Ups >= 2 && 2*n.Ups >= len(n.Downs)
}

// judgeNode sees whether a node is quiet.
func (t *Tracker) judgeNode(n *node, now int64) {
	before := len(t.out)
	if n.Back != 0 {
		t.resolve(&n.Quiet, n.Back, n.signal(signal.NodeQuiet, signal.Info, float64(max(n.Back-n.Quiet.Since, 0))/1e9, "is heard again", nil))
		n.Back = 0
	}
	wait := max(int64(t.cfg.NodeQuiet.After), int64(t.cfg.NodeQuiet.Gaps*float64(n.Gap.longest())))
	if at, ok := t.due(&n.Quiet, n.Seen+wait, now); ok && n.Seen-n.First >= int64(t.cfg.NodeQuiet.Age) {
		t.fire(&n.Quiet, at, n.signal(signal.NodeQuiet, signal.Error, float64(at-n.Seen)/1e9, fmt.Sprintf("no line and no event for %s; the longest pause of the last day was %s", time.Duration(at-n.Seen).Round(time.Second), time.Duration(n.Gap.longest()).Round(time.Second)), nil, schema.Int(AttrLast, n.Seen)))
	}
	n.changed = n.changed || len(t.out) > before
}
