package status

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"weir/internal/show"
	"weir/processor/signal"
	"weir/schema"
)

// Bounds of what is kept. An hour of a container takes about half a kilobyte.
const (
	minutes       = 60
	maxContainers = 2000
	maxNodes      = 1000
	maxEntries    = 200 // of each list
	maxBody       = 2048
	maxAttrs      = 32
	maxValue      = 512
	maxName       = 256
)

// hour counts by minute; at is the minute of the last place.
type hour struct {
	at     int64
	lines  [minutes]uint32
	errors [minutes]uint32
}

// move shifts the places so that the last one is of the given minute.
func (h *hour) move(minute int64) {
	if by := minute - h.at; by > 0 {
		n := int(min(by, minutes))
		copy(h.lines[:], h.lines[n:])
		copy(h.errors[:], h.errors[n:])
		clear(h.lines[minutes-n:])
		clear(h.errors[minutes-n:])
		h.at = minute
	}
}

// add counts a line of a minute; one that is older than the hour is left out, one of the future is of now.
func (h *hour) add(minute, now int64, bad bool) {
	h.move(now)
	i := minutes - 1 - (h.at - min(minute, now))
	if i < 0 {
		return
	}
	h.lines[i]++
	if bad {
		h.errors[i]++
	}
}

type container struct {
	id, name, app, node, image string
	hour                       hour
	last                       int64 // Unix ns, when something came
	state                      string
}

type node struct {
	name, site string
	hour       hour
	last       int64 // Unix ns
	delay      int64 // ns between a line's time and its coming here, of the last one
}

// Entry is a record of a list as the page shows it.
type Entry struct {
	ID    string      `json:"id"`
	Time  int64       `json:"time"` // Unix ms
	Level string      `json:"level"`
	Event string      `json:"event"`
	What  string      `json:"what"`
	Node  string      `json:"node"`
	Body  string      `json:"body"`
	Attrs [][2]string `json:"attrs"`
}

// list keeps the newest entries.
type list struct {
	entries []Entry // a ring
	next    int
}

// add leaves out what is there: repeats are of Kafka's nature.
func (l *list) add(e Entry) {
	if slices.ContainsFunc(l.entries, func(o Entry) bool { return o.ID == e.ID }) {
		return
	}
	if len(l.entries) < maxEntries {
		l.entries = append(l.entries, e)
		return
	}
	l.entries[l.next] = e
	l.next = (l.next + 1) % maxEntries
}

// newest are the entries, the newest first.
func (l *list) newest() []Entry {
	all := make([]Entry, 0, len(l.entries))
	for i := range l.entries {
		all = append(all, l.entries[(l.next+len(l.entries)-1-i)%len(l.entries)])
	}
	return all
}

var listNames = []string{"signals", "actions", "losses", "deadletters"}

// listOf says in which list a record belongs, "" for none.
func listOf(topic string, r *schema.Record) string {
	switch kind, _ := r.Attr(schema.AttrSignalKind); {
	case r.EventName == schema.EventLoss || r.EventName == schema.EventGapOpened:
		return "losses"
	case topic == schema.TopicSignals && (r.EventName == schema.EventWindow || kind.Str == signal.Window):
		return "" // counts, every minute of every container
	case topic == schema.TopicSignals:
		return "signals"
	case topic == schema.TopicActions:
		return "actions"
	case topic == schema.TopicDeadLetter:
		return "deadletters"
	}
	return ""
}

// take counts a batch and keeps what the lists want. The batch's memory is lent.
func (p *Page) take(b *schema.Batch) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	var c *container
	var n *node
	resource := func(key string) string { a, _ := b.ResourceAttr(key); return a.Str }
	if b.Topic == schema.TopicLogs || b.Topic == schema.TopicEvents {
		c, n = p.container(resource, now), p.node(resource, now)
	}
	for i := range b.Records {
		r := &b.Records[i]
		if name := listOf(b.Topic, r); name != "" {
			p.lists[name].add(entry(b, r, resource))
			continue
		}
		if b.Topic == schema.TopicEvents && c != nil {
			if s := state(r); s != "" {
				c.state = s
			}
		}
		if b.Topic != schema.TopicLogs || r.EventName != "" {
			continue
		}
		at := r.Time
		if at == 0 {
			at = r.Observed
		}
		if c != nil {
			c.hour.add(minuteOf(at), minuteOf(now.UnixNano()), r.Severity >= 17)
		}
		if n != nil {
			n.hour.add(minuteOf(at), minuteOf(now.UnixNano()), r.Severity >= 17)
			n.delay = max(0, now.UnixNano()-at)
		}
	}
}

func minuteOf(ns int64) int64 { return ns / int64(time.Minute) }

func (p *Page) container(resource func(string) string, now time.Time) *container {
	id := resource(schema.AttrContainerID)
	if id == "" || len(id) > maxName {
		return nil
	}
	c := p.containers[id]
	if c == nil {
		if len(p.containers) >= maxContainers {
			forget(p.containers, func(c *container) int64 { return c.last })
		}
		c = &container{id: strings.Clone(id), name: text(resource(schema.AttrContainerName), maxName), app: text(resource(schema.AttrApp), maxName),
			node: text(resource(schema.AttrHostName), maxName), image: text(resource(schema.AttrImageName), maxName)}
		p.containers[c.id] = c
	}
	c.last = now.UnixNano()
	return c
}

func (p *Page) node(resource func(string) string, now time.Time) *node {
	name := resource(schema.AttrHostName)
	if name == "" || len(name) > maxName {
		return nil
	}
	n := p.nodes[name]
	if n == nil {
		if len(p.nodes) >= maxNodes {
			forget(p.nodes, func(n *node) int64 { return n.last })
		}
		n = &node{name: strings.Clone(name), site: text(resource(schema.AttrSite), maxName)}
		p.nodes[n.name] = n
	}
	n.last = now.UnixNano()
	return n
}

// forget removes the one of which nothing came for longest.
func forget[T any](m map[string]T, last func(T) int64) {
	oldest, at := "", int64(math.MaxInt64)
	for k, v := range m {
		if l := last(v); l < at {
			oldest, at = k, l
		}
	}
	delete(m, oldest)
}

// state is what an engine event says of its container.
func state(r *schema.Record) string {
	switch strings.TrimPrefix(r.EventName, "docker.container.") {
	case "start", "restart", "unpause":
		return "running"
	case "die":
		if oom, _ := r.Attr(schema.AttrOOM); oom.Num != 0 {
			return "out of memory"
		}
		code, _ := r.Attr(schema.AttrExitCode)
		return "exited " + strconv.FormatInt(code.Num, 10)
	case "pause":
		return "paused"
	case "destroy":
		return "removed"
	case "health_status":
		detail, _ := r.Attr("docker.action.detail")
		return text(detail.Str, maxName)
	}
	return ""
}

func entry(b *schema.Batch, r *schema.Record, resource func(string) string) Entry {
	e := Entry{ID: b.ID(r), Time: r.Time / 1e6, Level: text(r.SeverityText, maxName), Event: text(r.EventName, maxName), Body: text(r.Body, maxBody)}
	if r.Time == 0 {
		e.Time = r.Observed / 1e6
	}
	of := func(key string) string {
		if a, ok := r.Attr(key); ok {
			return text(a.Str, maxName)
		}
		return text(resource(key), maxName)
	}
	if e.What = of(schema.AttrContainerName); e.What == "" {
		e.What = of(schema.AttrApp)
	}
	e.Node = of(schema.AttrHostName)
	for _, attrs := range [][]schema.Attr{r.Attrs, b.Resource} {
		for i := range attrs {
			if len(e.Attrs) == maxAttrs {
				break
			}
			e.Attrs = append(e.Attrs, [2]string{text(attrs[i].Key, maxName), text(attrs[i].Text(), maxValue)})
		}
	}
	return e
}

// text is a copy of at most n bytes in which nothing can hide: what would change the direction of text, or not be seen, is written out. Ends of lines stay.
func text(s string, n int) string {
	cut := len(s) > n
	if cut {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	lines := strings.Split(strings.TrimRight(s, "\r\n"), "\n")
	for i := range lines {
		lines[i] = show.Clean(strings.TrimSuffix(lines[i], "\r"))
	}
	s = strings.Join(lines, "\n")
	if cut {
		s += "…"
	}
	return strings.Clone(s)
}
