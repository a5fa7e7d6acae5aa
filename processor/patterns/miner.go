package patterns

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"weir/processor/signal"
	"weir/schema"
)

// Names of a pattern's attributes in signals, besides those that every signal has.
const (
	AttrID         = "weir.pattern.id"          // of the template; it stays when the template becomes more general
	AttrText       = "weir.pattern.text"        // the template, with <*> for what varies
	AttrLines      = "weir.pattern.lines"       // int: lines in the window, of pattern_rate
	AttrBaseline   = "weir.pattern.baseline"    // int: lines in the second busiest of the last 30 windows, of pattern_rate
	AttrImageSince = "weir.pattern.image_since" // int: when the app's first line under this image was, Unix ns, of new_pattern
)

// Miner finds templates and what is new of them.
type Miner struct {
	cfg     Config
	apps    map[string]*app
	batches uint64
	bytes   int
	gone    []string // apps forgotten since the last Changed
	line    line
	stats   Stats
}

// Stats are counts since the miner was made, and what it holds now.
type Stats struct {
	Apps, Templates, Bytes int // held; Bytes is an estimate
	Lines, Born, Merged    uint64
	ForgottenTemplates     uint64 // for the bounds
	ForgottenApps          uint64 // for the bounds or their age
	Untold                 uint64 // new patterns and jumps that were told by their number alone
}

// New makes a miner.
func New(cfg Config) (*Miner, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("patterns: %w", err)
	}
	return &Miner{cfg: cfg, apps: map[string]*app{}}, nil
}

// Stats says what the miner holds and did.
func (m *Miner) Stats() Stats {
	s := m.stats
	s.Apps, s.Bytes = len(m.apps), m.bytes
	for _, a := range m.apps {
		s.Templates += len(a.templates)
	}
	return s
}

// Write takes the lines of a batch and appends what they show. Events and records of weir itself are passed over.
func (m *Miner) Write(b *schema.Batch, out []signal.Signal) []signal.Signal {
	m.batches++
	var a *app
	for i := range b.Records {
		r := &b.Records[i]
		if r.EventName != "" || r.Body == "" {
			continue
		}
		at := timeOf(r)
		if a == nil {
			a, out = m.app(b, at, out)
		}
		out = m.write(a, b, r, at, out)
	}
	return out
}

// ahead is how far a line's time may be after it was read; a clock that is more wrong is not believed.
const ahead = int64(time.Minute)

func timeOf(r *schema.Record) int64 {
	if r.Time <= 0 || r.Observed > 0 && r.Time > r.Observed+ahead {
		return max(r.Observed, 0)
	}
	return r.Time
}

// app finds the app of a batch, or makes it.
func (m *Miner) app(b *schema.Batch, at int64, out []signal.Signal) (*app, []signal.Signal) {
	name := b.Source
	for _, key := range [...]string{schema.AttrContainerName, schema.AttrApp} {
		if attr, ok := b.ResourceAttr(key); ok && attr.Str != "" {
			name = attr.Str
		}
	}
	a := m.apps[name]
	if a == nil {
		if len(m.apps) >= m.cfg.MaxApps {
			old := m.pick(func(a, than *app) bool { return a.used < than.used })
			out = m.forget(old, out)
		}
		name = strings.Clone(name)
		a = &app{name: name, first: at, last: at, window: at / int64(m.cfg.Window), tree: map[uint64]*node{}}
		m.apps[name] = a
	}
	a.used, a.changed = m.batches, true
	if img, _ := b.ResourceAttr(schema.AttrImageName); img.Str != "" && !slices.ContainsFunc(a.images, func(i image) bool { return i.name == img.Str }) {
		a.images = append(a.images, image{strings.Clone(img.Str), at})
		a.images = a.images[max(0, len(a.images)-maxImages):]
	}
	return a, out
}

// pick gives the first app by an order; of equal ones the one whose name is first.
func (m *Miner) pick(before func(a, than *app) bool) (first *app) {
	for _, a := range m.apps {
		if first == nil || before(a, first) || !before(first, a) && a.name < first.name {
			first = a
		}
	}
	return first
}

// write takes one line.
func (m *Miner) write(a *app, b *schema.Batch, r *schema.Record, at int64, out []signal.Signal) []signal.Signal {
	l := &m.line
	l.read(r.Body, r.Severity, m.cfg.MaxLine, m.cfg.MaxWords)
	m.stats.Lines++
	a.lines++
	a.last = max(a.last, at)
	number := at / int64(m.cfg.Window)
	if number >= a.window+pending {
		out = m.closeUntil(a, number-pending+1, out)
		a.window = number - pending + 1
	}
	slot := max(number-a.window, 0)
	a.idle = false

	path := l.path
	n := a.leaf(&path, false)
	var t *template
	var equal bool
	if n != nil {
		t, equal = n.find(l, m.cfg.Similarity)
	}
	if t != nil {
		if !equal {
			before, had := a.bytes, len(a.templates)
			a.generalise(n, t, l)
			m.bytes += a.bytes - before
			m.stats.Merged += uint64(had - len(a.templates))
		}
		t.severity = max(t.severity, r.Severity)
		t.used = a.lines
		t.count(slot, b, r)
		return out
	}
	path = l.path
	n = a.leaf(&path, true)
	before := a.bytes
	t = a.born(n, l, path)
	m.bytes += a.bytes - before
	m.stats.Born++
	t.severity, t.used = r.Severity, a.lines
	t.count(slot, b, r)
	out = m.new(a, t, b, at, out)
	if len(n.templates) > maxLeaf {
		out = m.drop(a, oldest(n.templates, t), out)
	}
	if len(a.templates) > m.cfg.MaxTemplates {
		out = m.drop(a, oldest(a.templates, t), out)
	}
	for m.bytes > m.cfg.MaxBytes {
		most := m.pick(func(a, than *app) bool { return a.bytes > than.bytes })
		old := oldest(most.templates, t)
		if old == nil {
			break
		}
		out = m.drop(most, old, out)
	}
	return out
}

// learning reports whether the app is so young that all its patterns are new.
func (m *Miner) learning(a *app, at int64) bool {
	age := at - a.first
	return age < int64(m.cfg.Learn) || a.lines < uint64(m.cfg.LearnLines) && age < 6*int64(m.cfg.Learn)
}

// new tells of a template that was just born, where it is worth telling.
func (m *Miner) new(a *app, t *template, b *schema.Batch, at int64, out []signal.Signal) []signal.Signal {
	if t.severity < m.cfg.NewSeverity || m.learning(a, at) || slices.Contains(a.forgotten, t.id) {
		return out
	}
	if a.told >= m.cfg.ToldPerApp {
		a.untold++
		m.stats.Untold++
		return out
	}
	a.told++
	s := signal.Signal{Kind: signal.NewPattern, Rule: signal.NewPattern, State: signal.Point, Group: signal.Group("app", a.name, "pattern", idText(t.id)), Start: at, End: at,
		Severity: severityOf(t), Value: 1, Records: []string{string(t.example)}, Subject: subject(a, t)}
	s.Body = fmt.Sprintf("%s writes a line as it never did: %s", a.name, t.Text())
	for _, key := range [...]string{schema.AttrContainerID, schema.AttrContainerName, schema.AttrHostName, schema.AttrSite} {
		if attr, ok := b.ResourceAttr(key); ok {
			s.Subject = append(s.Subject, schema.String(key, strings.Clone(attr.Str)))
		}
	}
	img, _ := b.ResourceAttr(schema.AttrImageName)
	if i := slices.IndexFunc(a.images, func(i image) bool { return i.name == img.Str }); i >= 0 {
		s.Subject = append(s.Subject, schema.String(schema.AttrImageName, a.images[i].name), schema.Int(AttrImageSince, a.images[i].at))
		if i > 0 {
			s.Body = fmt.Sprintf("%s writes a line as it never did before image %s: %s", a.name, a.images[i].name, t.Text())
		}
	}
	return append(out, s)
}

func subject(a *app, t *template) []schema.Attr {
	return []schema.Attr{schema.String(schema.AttrApp, a.name), schema.String(AttrID, idText(t.id)), schema.String(AttrText, t.Text())}
}

// severityOf is a warning, or an error where the lines are.
func severityOf(t *template) int32 {
	if t.severity >= signal.Error {
		return signal.Error
	}
	return signal.Warn
}

// drop forgets a template for the bounds.
func (m *Miner) drop(a *app, t *template, out []signal.Signal) []signal.Signal {
	if t.firing {
		out = append(out, rateSignal(a, t, signal.Resolved, a.last, 0, fmt.Sprintf("%s: a pattern that had become frequent was forgotten for want of room: %s", a.name, t.Text())))
	}
	path, before := t.path, a.bytes
	a.remove(a.leaf(&path, false), t)
	m.bytes += a.bytes - before
	if !slices.Contains(a.forgotten, t.id) {
		a.forgotten = append(a.forgotten, t.id)
		a.fresh++
		a.forgotten = a.forgotten[max(0, len(a.forgotten)-m.cfg.MaxTemplates):]
	}
	a.changed, a.idle = true, a.isIdle()
	m.stats.ForgottenTemplates++
	return out
}

// forget drops an app.
func (m *Miner) forget(a *app, out []signal.Signal) []signal.Signal {
	for _, t := range a.templates {
		if t.firing {
			out = append(out, rateSignal(a, t, signal.Resolved, a.last, 0, fmt.Sprintf("%s was forgotten, and with it that a pattern had become frequent: %s", a.name, t.Text())))
		}
	}
	m.bytes -= a.bytes
	delete(m.apps, a.name)
	m.gone = append(m.gone, a.name)
	m.stats.ForgottenApps++
	return out
}

// Advance closes the windows that end at or before the watermark, and forgets apps that write no more.
func (m *Miner) Advance(watermark int64, out []signal.Signal) []signal.Signal {
	names := make([]string, 0, len(m.apps))
	for name := range m.apps {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		a := m.apps[name]
		if watermark-a.last >= int64(m.cfg.Expire) {
			out = m.forget(a, out)
			continue
		}
		if number := watermark / int64(m.cfg.Window); number > a.window {
			out = m.closeUntil(a, number, out)
		}
	}
	return out
}

// closeUntil closes all windows of an app before a number.
func (m *Miner) closeUntil(a *app, number int64, out []signal.Signal) []signal.Signal {
	for ; a.window < number && !a.idle; a.window++ {
		out = m.close(a, out)
	}
	return out
}

// close closes an app's oldest window.
func (m *Miner) close(a *app, out []signal.Signal) []signal.Signal {
	width := int64(m.cfg.Window)
	start, end := a.window*width, (a.window+1)*width
	jumps := 0
	for _, t := range a.templates {
		c := t.open[0]
		t.changed = t.changed || t.firing || t.windows < history || t.open != [pending]uint32{} || t.history != [history]uint32{}
		copy(t.open[:], t.open[1:])
		t.open[pending-1] = 0
		out = m.judge(a, t, c, end, &jumps, out)
		copy(t.history[1:], t.history[:])
		t.history[0] = c
		t.windows = min(t.windows+1, history)
	}
	a.changed = true
	more := func(kind string, n int, body string) {
		if n > 0 {
			out = append(out, signal.Signal{Kind: kind, Rule: kind, State: signal.Point, Group: signal.Group("app", a.name), Start: start, End: end, Severity: signal.Warn, Value: float64(n),
				Body: fmt.Sprintf(body, a.name, n), Subject: []schema.Attr{schema.String(schema.AttrApp, a.name)}})
		}
	}
	more(signal.NewPattern, a.untold, "%s writes %d more lines as it never did")
	more(signal.PatternRate, jumps-m.cfg.ToldPerApp, "%s: %d more patterns come much more often than before")
	a.told, a.untold = 0, 0
	a.idle = a.isIdle()
	return out
}

// judge compares a template's closed window with those before.
func (m *Miner) judge(a *app, t *template, c uint32, end int64, jumps *int, out []signal.Signal) []signal.Signal {
	if t.firing {
		usual := end-t.fired >= history*int64(m.cfg.Window)
		if !usual && float64(c) >= m.cfg.RateRatio*float64(max(t.baseline, 1))/2 && int(c) >= m.cfg.RateCount/2 {
			return out
		}
		t.firing = false
		body := fmt.Sprintf("%s: a pattern is as frequent as it was, %d lines in %s: %s", a.name, c, m.cfg.Window, t.Text())
		if usual {
			body = fmt.Sprintf("%s: a pattern has been frequent for so long that this counts as usual, %d lines in %s: %s", a.name, c, m.cfg.Window, t.Text())
		}
		return append(out, rateSignal(a, t, signal.Resolved, end, c, body))
	}
	if int(c) < m.cfg.RateCount || int(t.windows) < m.cfg.RateAfter || t.fired > 0 && end-t.fired < int64(m.cfg.CoolDown) {
		return out
	}
	usual := t.secondBusiest()
	if float64(c) < m.cfg.RateRatio*float64(max(usual, 1)) {
		return out
	}
	t.fired, t.baseline = end, usual
	if *jumps++; *jumps > m.cfg.ToldPerApp {
		m.stats.Untold++
		return out
	}
	t.firing = true
	return append(out, rateSignal(a, t, signal.Firing, end, c, fmt.Sprintf("%s: a pattern came %d times in %s, before at most about %d times: %s", a.name, c, m.cfg.Window, usual, t.Text())))
}

// rateSignal is of a template that has fired. Its window reaches from that moment to now.
func rateSignal(a *app, t *template, state string, at int64, c uint32, body string) signal.Signal {
	s := signal.Signal{Kind: signal.PatternRate, Rule: signal.PatternRate, State: state, Group: signal.Group("app", a.name, "pattern", idText(t.id)), Start: t.fired, End: at, Severity: severityOf(t), Value: float64(c),
		Body: body, Subject: append(subject(a, t), schema.Int(AttrLines, int64(c)), schema.Int(AttrBaseline, int64(t.baseline)))}
	if state == signal.Resolved {
		s.Severity, s.End = signal.Info, max(at, t.fired+1) // so its id is another
	}
	if len(t.example) > 0 {
		s.Records = []string{string(t.example)}
	}
	return s
}
