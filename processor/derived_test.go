package processor

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"weir/ingest"
	"weir/processor/rules"
	"weir/processor/signal"
	"weir/schema"
)

// event puts an engine event on its topic.
func (m *model) event(node, container, name string, attrs ...schema.Attr) {
	source := "docker-events/" + node
	var e schema.Encoder
	e.Reset(source, schema.Incarnation{}, []schema.Attr{schema.String(schema.AttrContainerID, container+"id"), schema.String(schema.AttrContainerName, container), schema.String(schema.AttrApp, "app"), schema.String(schema.AttrHostName, node)})
	at := m.now.UnixNano()
	e.Append(&schema.Record{Offset: at, Time: at, Observed: at, EventName: name, Body: name, Attrs: attrs})
	tp := ingest.TopicPartition{Topic: schema.TopicEvents, Partition: int(hash(source) % uint64(m.d.parts))}
	m.d.topics[tp] = append(m.d.topics[tp], ingest.Message{Topic: schema.TopicEvents, Source: source, Begin: schema.Position{Offset: at}, End: schema.Position{Offset: at + 1}, Count: 1, Value: e.Take()})
}

func (m *model) line(container, body string, severity int32) {
	source := "docker/n1/" + container
	var e schema.Encoder
	inc, o := schema.Incarnation{Start: 1}, m.offsets[source]
	e.Reset(source, inc, []schema.Attr{schema.String(schema.AttrContainerID, container+"id"), schema.String(schema.AttrContainerName, container), schema.String(schema.AttrApp, "app"), schema.String(schema.AttrHostName, "n1")})
	e.Append(&schema.Record{Offset: o, Time: m.now.UnixNano(), Observed: m.now.UnixNano(), Body: body, Severity: severity})
	m.offsets[source]++
	tp := ingest.TopicPartition{Topic: schema.TopicLogs, Partition: int(hash(source) % uint64(m.d.parts))}
	at := func(o int64) schema.Position { return schema.Position{Incarnation: inc, Offset: o} }
	m.d.topics[tp] = append(m.d.topics[tp], ingest.Message{Topic: schema.TopicLogs, Source: source, Begin: at(o), End: at(o + 1), Prev: at(o), PrevKnown: true, Count: 1, Value: e.Take()})
}

// settle works everything off; crash forgets every session first.
func (m *model) settle(crash bool) {
	if crash {
		clear(m.sessions)
	}
	for range 4 {
		for _, tp := range m.inputs() {
			m.work(tp, 1<<30, true)
			m.work(tp, 1<<30, true)
		}
		m.now = m.now.Add(500 * time.Millisecond)
	}
}

func (m *model) said(kind string) (all []signal.Signal) {
	m.d.records(m.t, schema.TopicSignals, func(_ *schema.Batch, r *schema.Record) {
		s, err := signal.FromRecord(r)
		if err != nil {
			m.t.Fatal(err)
		}
		if s.Kind == kind {
			all = append(all, s)
		}
	})
	return all
}

// TestDerivedStatesSurvive: what is known of containers and patterns goes on in the process that takes a partition over.
func TestDerivedStatesSurvive(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprint(crash), func(t *testing.T) {
			m := newModel(t, 1)
			m.cfg.Patterns.LearnLines, m.cfg.Patterns.Learn = 20, 10*time.Second
			for i := range 4 {
				m.event("n1", "web", "docker.container.start")
				m.now = m.now.Add(10 * time.Second)
				m.event("n1", "web", "docker.container.die", schema.Int(schema.AttrExitCode, 1))
				for n := range 10 {
					m.line("web", fmt.Sprintf("posted entry %d", i*10+n), 9)
				}
				m.settle(crash)
			}
			loops := m.said(signal.CrashLoop)
			if len(loops) != 1 || loops[0].State != signal.Firing || loops[0].Attr(schema.AttrContainerName) != "web" {
				t.Errorf("crash loops: %+v", loops)
			}
			m.line("web", "cannot reach the ledger", 17)
			m.settle(crash)
			m.line("web", "cannot reach the ledger", 17)
			m.settle(crash)
			if found := m.said(signal.NewPattern); len(found) != 1 {
				t.Errorf("new patterns: %+v", found)
			}
		})
	}
}

// TestRulesAreTakenUpWithoutLosingOthers: a file changes between two halves of a window.
func TestRulesAreTakenUpWithoutLosingOthers(t *testing.T) {
	m := newModel(t, 1)
	parse := func(text string) []*rules.Rule {
		all, err := rules.Parse("r.yaml", []byte("rules:\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	const kept, gone = "- {name: kept, by: [app], when: count >= 4, window: 1m}\n", "- {name: gone, by: [app], when: count >= 1, window: 10s}\n"
	set := func(text string) *rules.Set {
		s, err := rules.NewSet(parse(text))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	m.processors = m.d.processor(t, m.cfg)
	m.processors.now = func() time.Time { return m.now }
	m.processors.rules.Store(set(kept + gone))
	for range 2 {
		m.line("web", "x", 9)
	}
	m.now = m.now.Add(15 * time.Second)
	m.settle(false)
	m.processors.rules.Store(set(kept + "- {name: fresh, by: [app], when: count >= 2, window: 10s}\n"))
	for range 2 {
		m.line("web", "x", 9)
	}
	m.settle(false)
	m.now = m.now.Add(time.Minute)
	m.settle(false)
	got := map[string]int{}
	for _, s := range m.said(signal.Rule) {
		got[s.Rule+" "+s.State]++
	}
	for name, want := range map[string]int{"kept firing": 1, "gone firing": 1, "gone resolved": 1, "fresh firing": 1} {
		if got[name] != want {
			t.Errorf("%s: %d times, want %d (%v)", name, got[name], want, got)
		}
	}
}

// TestAfterAnOutageNothingIsLate: partitions catch up at different speeds; the slowest is waited for, so windows and rules see all as if nothing had been.
func TestAfterAnOutageNothingIsLate(t *testing.T) {
	m := newModel(t, 1)
	all, err := rules.Parse("r.yaml", []byte("rules:\n- {name: burst, by: [app], when: count >= 20, window: 10s}\n"))
	if err != nil {
		t.Fatal(err)
	}
	windows, err := rules.Windows(modelWindows)
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.NewSet(windows, all)
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() {
		clear(m.sessions)
		m.processors = m.d.processor(t, m.cfg)
		m.processors.now = func() time.Time { return m.now }
		m.processors.rules.Store(set)
	}
	fresh()
	containers := []string{"a", "b", "c", "d", "e"} // in several partitions
	for range 20 {
		for _, c := range containers {
			m.line(c, "x", 9)
		}
		m.settle(false)
	}
	burst := m.now.Add(10 * time.Minute).Truncate(10 * time.Second)
	for range 240 { // twenty minutes without a processor; lateness is one
		m.now = m.now.Add(5 * time.Second)
		for i, c := range containers {
			for range 1 + 3*i { // some partitions have much more to catch up with
				if m.now.Before(burst) || !m.now.Before(burst.Add(10*time.Second)) {
					if i == 0 || m.now.Unix()%60 == 0 {
						m.line(c, "x", 9)
					}
				} else {
					m.line(c, "burst", 9)
				}
			}
		}
	}
	m.now = m.now.Add(time.Second)
	fresh()
	for range 600 {
		m.now = m.now.Add(50 * time.Millisecond)
		for _, tp := range m.inputs() {
			m.work(tp, 3, true)
		}
	}
	m.now = m.now.Add(time.Minute)
	m.settle(false)
	var fired []time.Time
	for _, s := range m.said(signal.Rule) {
		if s.State == signal.Firing && s.Revision == 0 {
			fired = append(fired, time.Unix(0, s.End))
		}
	}
	if len(fired) == 0 || !slices.ContainsFunc(fired, burst.Add(10*time.Second).Equal) {
		t.Errorf("the rule fired at %v, not at %v", fired, burst.Add(10*time.Second))
	}
	for _, s := range m.said(signal.Window) {
		if s.Late {
			t.Fatalf("late: %s %s at %v", s.Rule, s.Group, time.Unix(0, s.End))
		}
	}
}
