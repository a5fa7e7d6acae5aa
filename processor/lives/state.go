package lives

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Changed gives the keys whose state is another than at the last call, sorted. Those that were forgotten are among them.
func (t *Tracker) Changed() []string {
	keys := t.gone
	t.gone = nil
	for _, c := range t.containers {
		if c.changed {
			c.changed = false
			keys = append(keys, c.stateKey())
		}
	}
	for _, n := range t.nodes {
		if n.changed {
			n.changed = false
			keys = append(keys, n.stateKey())
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// AppendState appends the state of a key as JSON; nothing when there is no such key.
func (t *Tracker) AppendState(dst []byte, key string) []byte {
	kind, name, _ := strings.Cut(key, "/")
	var v any
	if c := t.containers[name]; kind == "container" && c != nil {
		v = c
	} else if n := t.nodes[name]; kind == "node" && n != nil {
		v = n
	} else {
		return dst
	}
	b, _ := json.Marshal(v) // of numbers and texts alone, it does not fail
	return append(dst, b...)
}

// Restore takes what AppendState gave. After an error nothing of the key is restored.
func (t *Tracker) Restore(key string, state []byte) error {
	kind, name, _ := strings.Cut(strings.Clone(key), "/")
	fail := func(err error) error { return fmt.Errorf("lives: state of %q: %w", key, err) }
	switch kind {
	case "container":
		c := &container{key: name}
		if err := json.Unmarshal(state, c); err != nil {
			return fail(err)
		}
		t.containers[name] = c
		t.writes = max(t.writes, c.Used)
	case "node":
		n := &node{name: name}
		if err := json.Unmarshal(state, n); err != nil {
			return fail(err)
		}
		t.nodes[name] = n
		t.writes = max(t.writes, n.Used)
	default:
		return fail(fmt.Errorf("the key is of no kind that is known here"))
	}
	return nil
}
