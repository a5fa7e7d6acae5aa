package window

import (
	"encoding/binary"
	"fmt"

	"weir/internal/unpack"
	"weir/schema"
)

// The entries of a machine's state.
const (
	entryMachine = 'm'
	entryRule    = 'r'
	entryGroup   = 'g'
	entryGone    = 'd'
)

// Changes gives the entries of what changed since the last time, each a whole.
func (m *Machine) Changes(put func(entry []byte)) {
	var b []byte
	b = m.appendMachine(b[:0])
	put(b)
	for rs := range m.metas {
		b = rs.append(b[:0])
		put(b)
	}
	// What was removed goes first: a group of the same key may have come since.
	for _, d := range m.gone {
		b = append(b[:0], entryGone)
		b = binary.LittleEndian.AppendUint64(b, d.rule)
		b = appendString(b, d.key)
		put(b)
	}
	for g := range m.changed {
		b = g.append(b[:0])
		put(b)
	}
	m.clean()
}

// Changed says that Changes has more to give than the mark.
func (m *Machine) Changed() bool { return len(m.metas)+len(m.gone)+len(m.changed) > 0 }

// Snapshot gives the entries of the whole state.
func (m *Machine) Snapshot(put func(entry []byte)) {
	b := m.appendMachine(nil)
	put(b)
	for _, rs := range m.rules {
		b = rs.append(b[:0])
		put(b)
		for _, g := range rs.groups {
			b = g.append(b[:0])
			put(b)
		}
	}
	m.clean()
}

func (m *Machine) clean() {
	clear(m.metas)
	clear(m.changed)
	m.gone = m.gone[:0]
}

func (m *Machine) appendMachine(b []byte) []byte {
	b = append(b, entryMachine)
	b = binary.AppendVarint(b, m.mark)
	return binary.AppendVarint(b, m.last)
}

func (rs *ruleState) append(b []byte) []byte {
	b = append(b, entryRule)
	b = binary.LittleEndian.AppendUint64(b, rs.id)
	b = binary.AppendVarint(b, rs.done)
	return binary.AppendVarint(b, rs.since)
}

func (g *group) append(b []byte) []byte {
	b = append(b, entryGroup)
	b = binary.LittleEndian.AppendUint64(b, g.rule.id)
	b = appendString(b, g.key)
	b = appendAttrs(b, g.subject)
	b = binary.AppendUvarint(b, uint64(len(g.records)))
	for _, id := range g.records {
		b = appendString(b, id)
	}
	b = binary.AppendUvarint(b, uint64(len(g.panes)))
	for _, p := range g.panes {
		b = binary.AppendVarint(b, p.start)
		b = appendString(b, string(p.data))
	}
	b = binary.AppendUvarint(b, uint64(len(g.sent)))
	for _, s := range g.sent {
		b = binary.AppendVarint(b, s.end)
		b = binary.AppendVarint(b, s.revision)
		b = binary.AppendVarint(b, s.count)
		b = append(b, flag(s.firing))
	}
	b = binary.AppendVarint(b, g.pending)
	b = binary.AppendVarint(b, g.fired)
	b = append(b, flag(g.firing))
	return binary.AppendVarint(b, g.seen)
}

func flag(is bool) byte {
	if is {
		return 1
	}
	return 0
}

// Restore takes one entry of Changes or Snapshot, and does not keep it.
func (m *Machine) Restore(b []byte) error {
	r := unpack.Reader{B: b}
	switch kind := r.Byte(); kind {
	case entryMachine:
		m.mark, m.last = r.Varint(), r.Varint()
	case entryRule:
		rs := m.rule(r.Fixed())
		rs.done, rs.since = r.Varint(), r.Varint()
	case entryGone:
		rs := m.rule(r.Fixed())
		if g := rs.groups[r.String()]; g != nil {
			delete(rs.groups, g.key)
			m.groups--
		}
	case entryGroup:
		m.restoreGroup(&r)
	default:
		return fmt.Errorf("%w: entry %q", errDamaged, kind)
	}
	if !r.Whole() {
		return errDamaged
	}
	return nil
}

// Restored ends a restoring: what was read is not new.
func (m *Machine) Restored() { m.clean() }

// Reset forgets all, as a snapshot begins.
func (m *Machine) Reset() {
	fresh := New(m.set, m.limits)
	*m = *fresh
}

func (m *Machine) restoreGroup(r *unpack.Reader) {
	rs := m.rule(r.Fixed())
	key := r.String()
	g := rs.groups[key]
	if g == nil {
		g = &group{rule: rs, key: key}
		rs.groups[key] = g
		m.groups++
	}
	g.subject = attrs(r)
	g.records, g.panes, g.sent = nil, nil, nil
	for range r.Count(1) {
		g.records = append(g.records, r.String())
	}
	if n := r.Count(2); n > 0 {
		g.panes = make([]pane, n)
		for i := range g.panes {
			g.panes[i] = pane{start: r.Varint(), data: append([]byte(nil), r.Bytes()...)}
		}
	}
	if n := r.Count(4); n > 0 {
		g.sent = make([]sent, n)
		for i := range g.sent {
			g.sent[i] = sent{end: r.Varint(), revision: r.Varint(), count: r.Varint(), firing: r.Byte() != 0}
		}
	}
	g.pending, g.fired, g.firing, g.seen = r.Varint(), r.Varint(), r.Byte() != 0, r.Varint()
}

// Subject copies the attributes that a signal shows of a batch's resource: those with names, and labels where wanted.
func Subject(resource []schema.Attr, labels bool) []schema.Attr {
	var out []schema.Attr
	for i := range resource {
		a := &resource[i]
		switch a.Key {
		case schema.AttrContainerID, schema.AttrContainerName, schema.AttrImageName, schema.AttrHostName, schema.AttrApp, schema.AttrSite, schema.AttrTenant, schema.AttrCell,
			schema.AttrK8sNamespace, schema.AttrK8sPod, schema.AttrK8sContainer, schema.AttrK8sNode:
		default:
			if !labels || len(a.Key) <= len(schema.LabelPrefix) || a.Key[:len(schema.LabelPrefix)] != schema.LabelPrefix {
				continue
			}
		}
		out = append(out, schema.Attr{Key: string(append([]byte(nil), a.Key...)), Kind: a.Kind, Str: string(append([]byte(nil), a.Str...)), Num: a.Num})
	}
	return out
}
