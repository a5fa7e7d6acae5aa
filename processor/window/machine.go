package window

import (
	"cmp"
	"slices"
	"time"

	"weir/internal/unpack"
	"weir/processor/rules"
	"weir/processor/signal"
	"weir/schema"
)

// Limits bound what a machine keeps.
type Limits struct {
	Lateness  time.Duration // how long after its end a window is corrected; what is later is told as an addition
	MaxGroups int           // of all rules together
	MaxSet    int           // of the things to be told apart in a pane
}

// Stats count what happened since they were last taken.
type Stats struct {
	Late    int64            // records that came after their window was closed
	TooLate int64            // records whose window was forgotten
	Other   map[string]int64 // by rule: deltas that went to the group "other"
}

// remember is how long a group of which nothing comes any more is kept by a rule that asks for absent.
const remember = 24 * time.Hour

// Machine holds the groups of one partition of deltas. It is not safe for concurrent use.
type Machine struct {
	limits Limits
	set    *rules.Set
	rules  map[uint64]*ruleState
	mark   int64
	last   int64 // the highest revision of a late addition
	groups int
	late   map[lateKey]*Pane
	out    []signal.Signal
	stats  Stats

	changed map[*group]bool
	gone    []gone // groups that were removed
	metas   map[*ruleState]bool
}

type lateKey struct {
	g   *group
	end int64
}

type gone struct {
	rule uint64
	key  string
}

// ruleState is what is kept of one rule; rule is nil where this process does not know it (yet, or any more).
type ruleState struct {
	id     uint64
	rule   *rules.Rule
	done   int64 // end of the last windows that were closed; -1: none yet
	since  int64 // mark when the rule was first heard of
	groups map[string]*group
	redo   map[*group][]int64 // ends of closed windows that got more
}

type group struct {
	rule    *ruleState
	key     string
	subject []schema.Attr
	records []string
	panes   []pane // sorted by start
	sent    []sent // sorted by end
	pending int64  // end of the first window of those in a row for which the rule holds; 0: none
	fired   int64  // end of the window of the last firing; 0: never
	firing  bool
	seen    int64 // end of the newest pane
}

// pane keeps counts in their encoded form, which is several times smaller.
type pane struct {
	start int64
	data  []byte
}

// sent remembers a signal, so that the next one of its window corrects it.
type sent struct {
	end, revision, count int64
	firing               bool
}

// New makes an empty machine.
func New(set *rules.Set, limits Limits) *Machine {
	m := &Machine{limits: limits, set: set, rules: map[uint64]*ruleState{}, late: map[lateKey]*Pane{}, changed: map[*group]bool{}, metas: map[*ruleState]bool{}}
	m.stats.Other = map[string]int64{}
	return m
}

// Mark is the end of the last windows that were closed, as a watermark.
func (m *Machine) Mark() int64 { return m.mark }

// Groups is how many are kept.
func (m *Machine) Groups() int { return m.groups }

// TakeStats returns the counts and begins anew.
func (m *Machine) TakeStats() Stats {
	s := m.stats
	m.stats = Stats{Other: map[string]int64{}}
	return s
}

// SetRules takes other rules up. What is kept of rules that are in both stays; firing ones that are gone are resolved.
func (m *Machine) SetRules(set *rules.Set) {
	m.set = set
	for id, rs := range m.rules {
		was := rs.rule
		if rs.rule = set.ByID[id]; rs.rule != nil || was == nil {
			continue
		}
		for _, g := range rs.groups {
			if g.firing {
				end, revision := max(rs.done, 0), int64(0)
				if at, known := g.find(end); known {
					revision = g.sent[at].revision + 1
				}
				g.firing = false
				m.say(g, was, signal.Resolved, end, revision, 0, rules.Values{})
			}
			m.remove(g)
		}
		rs.done = -1
		m.metas[rs] = true
	}
}

func (m *Machine) rule(id uint64) *ruleState {
	rs := m.rules[id]
	if rs == nil {
		rs = &ruleState{id: id, rule: m.set.ByID[id], done: -1, since: m.mark, groups: map[string]*group{}, redo: map[*group][]int64{}}
		m.rules[id] = rs
		m.metas[rs] = true
	}
	return rs
}

func (rs *ruleState) window() int64 {
	if rs.rule == nil {
		return int64(time.Hour)
	}
	return int64(rs.rule.Window)
}

func (rs *ruleState) slide() int64 {
	if rs.rule == nil {
		return int64(time.Second)
	}
	return int64(rs.rule.Slide)
}

// Add takes a delta. Its memory may be kept.
func (m *Machine) Add(d *Delta) {
	rs := m.rule(d.Rule)
	g, fresh := rs.groups[d.Key], false
	if g == nil {
		if m.full(rs) {
			d.Key, d.Subject = otherKey, nil
			m.stats.Other[rs.name()]++
			g = rs.groups[otherKey]
		}
		if g == nil {
			fresh = true
			g = &group{rule: rs, key: d.Key}
			rs.groups[d.Key] = g
			m.groups++
		}
	}
	m.changed[g] = true
	if len(d.Subject) > 0 {
		g.subject = d.Subject
	}
	if len(d.Records) > 0 {
		g.records = d.Records
	}
	for i := range d.Panes {
		m.addPane(g, &d.Panes[i])
	}
	if fresh && rs.rule != nil && rs.rule.FirstSeen && len(d.Panes) > 0 {
		m.firstSeen(g, &d.Panes[0])
	}
}

func (rs *ruleState) name() string {
	if rs.rule == nil {
		return "unknown"
	}
	return rs.rule.Name
}

func (m *Machine) full(rs *ruleState) bool {
	limit := 10_000
	if rs.rule != nil {
		limit = rs.rule.MaxGroups
	}
	return len(rs.groups) >= limit || m.groups >= m.limits.MaxGroups
}

func (m *Machine) addPane(g *group, p *Pane) {
	rs := g.rule
	slide, window := rs.slide(), rs.window()
	g.seen = max(g.seen, p.Start+slide)
	if rs.rule != nil && rs.rule.FirstSeen {
		return // it keeps that it was seen, and no counts
	}
	keeps, late := rs.rule == nil && p.Start+window+int64(m.limits.Lateness) > m.mark, false
	for end := floor(p.Start, slide) + slide; rs.rule != nil && end <= p.Start+window; end += slide {
		switch {
		case m.mark > 0 && end+int64(m.limits.Lateness) <= m.mark:
			m.addLate(g, end, p)
			continue
		case rs.done >= 0 && end <= rs.done:
			late = true
			if !slices.Contains(rs.redo[g], end) {
				rs.redo[g] = append(rs.redo[g], end)
			}
		}
		keeps = true
	}
	switch {
	case !keeps:
		m.stats.TooLate += p.at(Count)
		return
	case late:
		m.stats.Late += p.at(Count)
	}
	at, known := slices.BinarySearchFunc(g.panes, p.Start, func(p pane, start int64) int { return cmp.Compare(p.start, start) })
	whole := Pane{Start: p.Start}
	if known {
		r := unpack.Reader{B: g.panes[at].data}
		counts(&r, &whole)
	} else {
		g.panes = slices.Insert(g.panes, at, pane{start: p.Start})
	}
	whole.merge(p, m.limits.MaxSet)
	g.panes[at].data = slices.Clip(whole.appendCounts(make([]byte, 0, len(g.panes[at].data)+16)))
}

// addLate gathers what came after its window was forgotten.
func (m *Machine) addLate(g *group, end int64, p *Pane) {
	if g.rule.rule == nil || g.rule.rule.Kind != signal.Window {
		return
	}
	key := lateKey{g, end}
	whole := m.late[key]
	if whole == nil {
		whole = &Pane{}
		m.late[key] = whole
	}
	whole.merge(p, m.limits.MaxSet)
}

// floor rounds down to a multiple, also below zero.
func floor(t, step int64) int64 {
	if r := t % step; r < 0 {
		return t - r - step
	} else {
		return t - r
	}
}

// Advance closes every window that ends at or before mark, corrects those that got more since they were closed, and forgets what is too old. It
// returns what there is to say.
func (m *Machine) Advance(mark int64) []signal.Signal {
	m.sayLate(mark)
	for _, rs := range m.sorted() {
		if rs.rule != nil && !rs.rule.FirstSeen {
			m.correct(rs)
		}
	}
	if mark > m.mark {
		m.mark = mark
		for _, rs := range m.sorted() {
			m.close(rs)
			m.expire(rs)
			if rs.rule == nil && len(rs.groups) == 0 {
				delete(m.rules, rs.id)
				delete(m.metas, rs)
			}
		}
	}
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) sorted() []*ruleState {
	all := make([]*ruleState, 0, len(m.rules))
	for _, rs := range m.rules {
		all = append(all, rs)
	}
	slices.SortFunc(all, func(a, b *ruleState) int { return cmp.Compare(a.id, b.id) })
	return all
}

// sayLate tells what came too late to correct anything. Each such signal counts what no other did; a revision that rises with the
// mark keeps their ids apart.
func (m *Machine) sayLate(mark int64) {
	if len(m.late) == 0 {
		return
	}
	m.last = max(m.last+1, mark, m.mark)
	for key, p := range m.late {
		s := m.counted(key.g, key.end, p, m.last, p.at(Count))
		s.Late = true
		m.out = append(m.out, s)
	}
	clear(m.late)
}

func (m *Machine) correct(rs *ruleState) {
	for g, ends := range rs.redo {
		slices.Sort(ends)
		for _, end := range ends {
			m.evaluate(g, end, true)
		}
	}
	clear(rs.redo)
}

// close evaluates the windows that end after the last ones that were closed, up to the mark.
func (m *Machine) close(rs *ruleState) {
	if rs.rule == nil || rs.rule.FirstSeen {
		return
	}
	slide, last := rs.slide(), floor(m.mark, rs.slide())
	if rs.done < 0 {
		// What came before the first mark decides where the first window ends.
		first := last
		for _, g := range rs.groups {
			if len(g.panes) > 0 {
				first = min(first, floor(g.panes[0].start, slide))
			}
		}
		rs.done = first
	}
	if rs.done >= last {
		return
	}
	m.metas[rs] = true
	for len(rs.groups) > 0 && rs.done < last {
		rs.done += slide
		busy := false
		for _, g := range rs.groups {
			m.evaluate(g, rs.done, false)
			busy = busy || g.seen+rs.window()+int64(rs.rule.For)+slide > rs.done
		}
		if !busy {
			break // windows are empty from here on, and all that emptiness makes of a rule was said
		}
	}
	rs.done = last
}

func (m *Machine) expire(rs *ruleState) {
	keep := rs.window() + int64(m.limits.Lateness)
	for _, g := range rs.groups {
		if rs.rule != nil && rs.rule.FirstSeen {
			if g.seen+rs.window() <= m.mark {
				m.remove(g)
			}
			continue
		}
		n := 0
		for n < len(g.panes) && g.panes[n].start+keep <= m.mark {
			n++
		}
		s := 0
		for s < len(g.sent) && g.sent[s].end+int64(m.limits.Lateness) <= m.mark {
			s++
		}
		if n+s > 0 {
			g.panes, g.sent = slices.Delete(g.panes, 0, n), slices.Delete(g.sent, 0, s)
			m.changed[g] = true
		}
		idle := len(g.panes) == 0 && len(g.sent) == 0 && !g.firing && g.pending == 0
		if rs.rule != nil && rs.rule.Absent {
			idle = len(g.panes) == 0 && g.seen+rs.window()+int64(remember) <= m.mark
		}
		if rs.rule != nil && g.fired > 0 && g.fired+int64(rs.rule.Cooldown) > m.mark {
			idle = false
		}
		if idle {
			m.remove(g)
		}
	}
}

func (m *Machine) remove(g *group) {
	delete(g.rule.groups, g.key)
	delete(g.rule.redo, g)
	delete(m.changed, g)
	m.gone = append(m.gone, gone{g.rule.id, g.key})
	m.groups--
}

// sum adds up the panes of [from, to).
func (m *Machine) sum(g *group, from, to int64) (p Pane, any bool) {
	at, _ := slices.BinarySearchFunc(g.panes, from, func(p pane, start int64) int { return cmp.Compare(p.start, start) })
	for ; at < len(g.panes) && g.panes[at].start < to; at++ {
		var one Pane
		r := unpack.Reader{B: g.panes[at].data}
		counts(&r, &one)
		if !any {
			p, any = one, true
			continue
		}
		p.merge(&one, m.limits.MaxSet)
	}
	return p, any
}

func (m *Machine) evaluate(g *group, end int64, again bool) {
	p, any := m.sum(g, end-g.rule.window(), end)
	if g.rule.rule.Kind == signal.Window {
		if any {
			m.sayCounts(g, end, &p)
		}
		return
	}
	v := rules.Values{Count: p.at(Count), Bytes: p.at(Bytes), Total: p.at(Total), Distinct: int64(len(p.Set))}
	if again {
		m.again(g, end, v)
		return
	}
	r := g.rule.rule
	holds, value := r.Holds(v)
	switch {
	case holds:
		if g.pending == 0 {
			g.pending = end
			m.changed[g] = true
		}
		if !g.firing && end-g.pending >= int64(r.For) && g.cool(end) {
			g.firing, g.fired = true, end
			m.say(g, r, signal.Firing, end, 0, value, v)
		}
	case g.pending != 0 || g.firing:
		g.pending = 0
		m.changed[g] = true
		if g.firing {
			g.firing = false
			m.say(g, r, signal.Resolved, end, 0, value, v)
		}
	}
}

func (g *group) cool(end int64) bool {
	return g.fired == 0 || end-g.fired >= int64(g.rule.rule.Cooldown)
}

// again evaluates a window of a rule a second time, because more came.
func (m *Machine) again(g *group, end int64, v rules.Values) {
	r := g.rule.rule
	holds, value := r.Holds(v)
	if at, known := g.find(end); known {
		s := g.sent[at]
		state := signal.Resolved
		if holds {
			state = signal.Firing
		}
		if s.firing && !holds && g.fired == end {
			g.firing, g.pending = false, 0
		}
		m.say(g, r, state, end, s.revision+1, value, v)
		return
	}
	// The windows after it were closed without it, so how long it held for cannot be told any more.
	if holds && r.For == 0 && !g.firing && end > g.fired && g.cool(end) {
		g.firing, g.fired, g.pending = true, end, end
		m.say(g, r, signal.Firing, end, 0, value, v)
	}
}

func (g *group) find(end int64) (int, bool) {
	return slices.BinarySearchFunc(g.sent, end, func(s sent, end int64) int { return cmp.Compare(s.end, end) })
}

// note remembers a signal.
func (m *Machine) note(g *group, s sent) {
	m.changed[g] = true
	at, known := g.find(s.end)
	if !known {
		g.sent = slices.Insert(g.sent, at, s)
	}
	g.sent[at] = s
}

func (m *Machine) firstSeen(g *group, p *Pane) {
	r := g.rule.rule
	if m.mark > 0 && g.seen+int64(r.Window) <= m.mark { // it would be forgotten at once, and be new with every record
		m.stats.TooLate += p.at(Count)
		return
	}
	if r.Learn > 0 && p.Start < g.rule.since+int64(r.Learn) {
		return
	}
	s := m.signal(g, r, signal.Point, p.Start, p.Start+int64(r.Slide), 0)
	s.Value = float64(p.at(Count))
	r.Describe(&s, values(g.key), rules.Values{Count: p.at(Count), Bytes: p.at(Bytes)})
	m.out = append(m.out, s)
}

func (m *Machine) say(g *group, r *rules.Rule, state string, end, revision int64, value float64, v rules.Values) {
	s := m.signal(g, r, state, end-int64(r.Window), end, revision)
	s.Value = value
	r.Describe(&s, values(g.key), v)
	m.out = append(m.out, s)
	m.note(g, sent{end: end, revision: revision, count: v.Count, firing: state == signal.Firing})
}

func (m *Machine) sayCounts(g *group, end int64, p *Pane) {
	s := sent{end: end, count: p.at(Count)}
	added := s.count
	if at, known := g.find(end); known {
		s.revision = g.sent[at].revision + 1
		added -= g.sent[at].count
	}
	m.out = append(m.out, m.counted(g, end, p, s.revision, added))
	m.note(g, s)
}

// signal is what all signals of a group share.
func (m *Machine) signal(g *group, r *rules.Rule, state string, start, end, revision int64) signal.Signal {
	s := signal.Signal{Kind: r.Kind, Rule: r.Name, State: state, Start: start, End: end, Revision: revision, Severity: r.Severity, Records: g.records}
	if g.key == otherKey {
		s.Group = "other"
		return s
	}
	vs := values(g.key)
	var pairs []string
	s.Subject = append(s.Subject, g.subject...)
	for i := range r.By {
		if i >= len(vs) {
			break
		}
		pairs = append(pairs, r.By[i].Name, vs[i])
		if s.Attr(r.By[i].Attr) == "" {
			s.Subject = append(s.Subject, schema.String(r.By[i].Attr, vs[i]))
		}
	}
	s.Group = signal.Group(pairs...)
	return s
}
