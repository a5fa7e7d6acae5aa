package patterns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"weir/internal/unpack"
)

const stateVersion = 1

// Changed gives the apps whose state is another than at the last call, sorted. Those that were forgotten are among them.
func (m *Miner) Changed() []string {
	names := m.gone
	m.gone = nil
	for name, a := range m.apps {
		if a.changed {
			a.changed = false
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// AppendState appends the whole state of an app; nothing when there is no such app.
func (m *Miner) AppendState(dst []byte, name string) []byte {
	if a := m.apps[name]; a != nil {
		a.saved = false
		dst = m.AppendDelta(dst, name)
	}
	return dst
}

// AppendDelta appends what has changed of an app since the last AppendDelta or AppendState of it, or all where there was none; nothing
// when there is no such app. A line changes some numbers of one template, so this is much shorter than the state.
func (m *Miner) AppendDelta(dst []byte, name string) []byte {
	a := m.apps[name]
	if a == nil {
		return dst
	}
	e := encoder{append(dst, stateVersion)}
	e.bool(a.saved)
	e.int(a.first, a.last, int64(a.lines), int64(a.used), a.window, int64(a.told), int64(a.untold), int64(len(a.images)))
	for _, i := range a.images {
		e.str(i.name)
		e.int(i.at)
	}
	if !a.saved {
		a.fresh, a.removed = len(a.forgotten), nil
		for _, t := range a.templates {
			t.changed = true
		}
	}
	e.ids(a.forgotten[len(a.forgotten)-min(a.fresh, len(a.forgotten)):])
	e.ids(a.removed)
	changed := int64(0)
	for _, t := range a.templates {
		if t.changed {
			changed++
		}
	}
	e.int(changed)
	for _, t := range a.templates {
		if t.changed {
			e.template(t)
			t.changed = false
		}
	}
	a.saved, a.fresh, a.removed = true, 0, nil
	return e.b
}

type encoder struct{ b []byte }

func (e *encoder) int(vs ...int64) {
	for _, v := range vs {
		e.b = binary.AppendUvarint(e.b, uint64(v))
	}
}

func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) str(s string) {
	e.int(int64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) fixed(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }

func (e *encoder) ids(all []uint64) {
	e.int(int64(len(all)))
	for _, id := range all {
		e.fixed(id)
	}
}

func (e *encoder) template(t *template) {
	e.fixed(t.id)
	for _, p := range t.path {
		e.fixed(p)
	}
	e.str(string(t.text))
	e.int(int64(t.content), int64(t.severity), int64(t.lines), int64(t.used), int64(t.windows))
	for _, c := range t.open {
		e.int(int64(c))
	}
	n := history
	for n > 0 && t.history[n-1] == 0 {
		n--
	}
	e.int(int64(n))
	for _, c := range t.history[:n] {
		e.int(int64(c))
	}
	e.str(string(t.example))
	e.bool(t.firing)
	e.int(t.fired, int64(t.baseline))
}

var errState = errors.New("the state is cut off or damaged, or a delta of another one")

// Restore takes what AppendState and AppendDelta gave: of an app a whole state, and then all deltas since, in their order. After
// an error the miner is of no use.
func (m *Miner) Restore(name string, state []byte) error {
	r := unpack.Reader{B: state}
	if v := r.Byte(); v != stateVersion || r.Bad {
		return fmt.Errorf("patterns: app %q: state of version %d is not known here (this build reads %d)", name, v, stateVersion)
	}
	old := m.apps[name]
	a := old
	if delta := r.Byte() != 0; !delta {
		a = &app{name: strings.Clone(name), tree: map[uint64]*node{}}
	} else if a == nil {
		return fmt.Errorf("patterns: app %q: %w", name, errState)
	}
	if old != nil {
		m.bytes -= old.bytes
	}
	m.apps[a.name] = a
	a.read(&r, m.cfg.MaxTemplates)
	if !r.Whole() {
		return fmt.Errorf("patterns: app %q: %w", name, errState)
	}
	a.idle, a.saved = a.isIdle(), true
	m.bytes += a.bytes
	m.batches = max(m.batches, a.used)
	return nil
}

// read takes a state or a delta over.
func (a *app) read(r *unpack.Reader, maxForgotten int) {
	a.first, a.last, a.lines, a.used, a.window, a.told, a.untold = int64(r.Uvarint()), int64(r.Uvarint()), r.Uvarint(), r.Uvarint(), int64(r.Uvarint()), int(r.Uvarint()), int(r.Uvarint())
	a.images = nil
	for n := r.Count(1); n > 0 && !r.Bad; n-- {
		a.images = append(a.images, image{string(r.Bytes()), int64(r.Uvarint())})
	}
	for n := r.Count(1); n > 0 && !r.Bad; n-- {
		a.forgotten = append(a.forgotten, r.Fixed())
	}
	a.forgotten = a.forgotten[max(0, len(a.forgotten)-maxForgotten):]
	have := make(map[uint64]*template, len(a.templates))
	for _, t := range a.templates {
		have[t.id] = t
	}
	for n := r.Count(1); n > 0 && !r.Bad; n-- {
		id := r.Fixed()
		if t := have[id]; t != nil {
			a.remove(a.place(t), t)
			delete(have, id)
		}
	}
	a.removed = nil
	var l line
	for n := r.Count(1); n > 0 && !r.Bad; n-- {
		t := readTemplate(r, &l)
		old := have[t.id]
		switch {
		case r.Bad:
		case old == nil:
			leaf := a.place(t)
			leaf.templates = append(leaf.templates, t)
			a.templates = append(a.templates, t)
			a.bytes += t.size()
			have[t.id] = t
		case old.path != t.path:
			r.Bad = true
		default:
			a.bytes += t.size() - old.size()
			*old = *t
		}
	}
}

func readTemplate(r *unpack.Reader, l *line) *template {
	t := &template{id: r.Fixed(), path: [3]uint64{r.Fixed(), r.Fixed(), r.Fixed()}, text: slices.Clone(r.Bytes())}
	t.content, t.severity, t.lines, t.used, t.windows = int(r.Uvarint()), int32(r.Uvarint()), r.Uvarint(), r.Uvarint(), uint8(min(r.Uvarint(), history))
	for i := range t.open {
		t.open[i] = uint32(r.Uvarint())
	}
	closed := r.Count(1)
	r.Bad = r.Bad || closed > history
	for i := range min(closed, history) {
		t.history[i] = uint32(r.Uvarint())
	}
	t.example = slices.Clone(r.Bytes())
	t.firing, t.fired, t.baseline = r.Byte() != 0, int64(r.Uvarint()), uint32(r.Uvarint())
	l.text = t.text
	l.split(len(t.text) + 1)
	for _, w := range l.words {
		t.words = append(t.words, w.hash)
	}
	r.Bad = r.Bad || t.content < 0 || t.content > len(l.words)
	return t
}

// place makes the leaf of a template whose path has its overflows already.
func (a *app) place(t *template) *node {
	n := a.tree[t.path[0]]
	if n == nil {
		n = &node{}
		a.tree[t.path[0]] = n
	}
	for _, key := range t.path[1:] {
		if n.children == nil {
			n.children = map[uint64]*node{}
		}
		next := n.children[key]
		if next == nil {
			next = &node{}
			n.children[key] = next
		}
		n = next
	}
	return n
}
