package patterns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// AppendState appends the state of an app; nothing when there is no such app.
func (m *Miner) AppendState(dst []byte, name string) []byte {
	a := m.apps[name]
	if a == nil {
		return dst
	}
	u := func(vs ...uint64) {
		for _, v := range vs {
			dst = binary.AppendUvarint(dst, v)
		}
	}
	str := func(s string) { u(uint64(len(s))); dst = append(dst, s...) }
	dst = append(dst, stateVersion)
	u(uint64(a.first), uint64(a.last), a.lines, a.used, uint64(a.window), uint64(a.told), uint64(a.untold), uint64(len(a.images)))
	for _, i := range a.images {
		str(i.name)
		u(uint64(i.at))
	}
	u(uint64(len(a.forgotten)))
	for _, id := range a.forgotten {
		dst = binary.LittleEndian.AppendUint64(dst, id)
	}
	u(uint64(len(a.templates)))
	for _, t := range a.templates {
		dst = binary.LittleEndian.AppendUint64(dst, t.id)
		for _, p := range t.path {
			dst = binary.LittleEndian.AppendUint64(dst, p)
		}
		str(string(t.text))
		u(uint64(t.content), uint64(t.severity), t.lines, t.used, uint64(t.windows))
		for _, c := range t.open {
			u(uint64(c))
		}
		n := history
		for n > 0 && t.history[n-1] == 0 {
			n--
		}
		u(uint64(n))
		for _, c := range t.history[:n] {
			u(uint64(c))
		}
		str(string(t.example))
		firing := uint64(0)
		if t.firing {
			firing = 1
		}
		u(firing, uint64(t.fired), uint64(t.baseline))
	}
	return dst
}

var errState = errors.New("the state is cut off or damaged")

// Restore takes what AppendState gave. After an error nothing of the app is restored.
func (m *Miner) Restore(name string, state []byte) error {
	r := reader{b: state}
	if v := r.byte(); v != stateVersion || r.bad {
		return fmt.Errorf("patterns: app %q: state of version %d is not known here (this build reads %d)", name, v, stateVersion)
	}
	a := &app{name: strings.Clone(name), tree: map[uint64]*node{}}
	a.first, a.last, a.lines, a.used, a.window, a.told, a.untold = r.int(), r.int(), r.uvarint(), r.uvarint(), r.int(), int(r.int()), int(r.int())
	for n := r.count(); n > 0 && !r.bad; n-- {
		a.images = append(a.images, image{string(r.bytes()), r.int()})
	}
	for n := r.count(); n > 0 && !r.bad; n-- {
		a.forgotten = append(a.forgotten, r.fixed())
	}
	var l line
	for n := r.count(); n > 0 && !r.bad; n-- {
		t := &template{id: r.fixed(), path: [3]uint64{r.fixed(), r.fixed(), r.fixed()}, text: slices.Clone(r.bytes())}
		t.content, t.severity, t.lines, t.used, t.windows = int(r.int()), int32(r.int()), r.uvarint(), r.uvarint(), uint8(min(r.uvarint(), history))
		for i := range t.open {
			t.open[i] = uint32(r.uvarint())
		}
		closed := r.count()
		if closed > history {
			r.bad = true
			break
		}
		for i := range closed {
			t.history[i] = uint32(r.uvarint())
		}
		t.example = slices.Clone(r.bytes())
		t.firing, t.fired, t.baseline = r.uvarint() != 0, r.int(), uint32(r.uvarint())
		l.text = t.text
		l.split(len(t.text) + 1)
		if t.content < 0 || t.content > len(l.words) {
			r.bad = true
			break
		}
		for _, w := range l.words {
			t.words = append(t.words, w.hash)
		}
		leaf := a.place(t)
		leaf.templates = append(leaf.templates, t)
		a.templates = append(a.templates, t)
		a.bytes += t.size()
	}
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("patterns: app %q: %w", name, errState)
	}
	if old := m.apps[name]; old != nil {
		m.bytes -= old.bytes
	}
	a.idle = a.isIdle()
	m.apps[a.name] = a
	m.bytes += a.bytes
	m.batches = max(m.batches, a.used)
	return nil
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

// reader takes a state apart. Past its end it is bad and gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 { return int64(r.uvarint()) }

// count is a number of things that take at least a byte each.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) bytes() []byte {
	n := r.count()
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) fixed() uint64 {
	if len(r.b) < 8 {
		r.bad, r.b = true, nil
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}
