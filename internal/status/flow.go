package status

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/schema"
)

// lookEvery is between two looks at the metrics and at Kafka's offsets; rates are over keptSamples of them.
const lookEvery, keptSamples = 2 * time.Second, 6

// sample is what was seen at one moment.
type sample struct {
	at        time.Time
	metrics   map[string]float64 // by name, and by name and group
	next      map[string]int64   // by topic: the sum of the partitions' ends
	first     map[string]int64
	committed map[string]int64 // by group
	behind    map[string]int64
	fault     string // of Kafka
}

// flow is the last samples, oldest first, and since when a group that is behind did not move.
type flow struct {
	samples []sample
	moved   map[string]time.Time
}

var shownTopics = []string{schema.TopicLogs, schema.TopicEvents, schema.TopicSignals, schema.TopicActions, schema.TopicDeadLetter}

// look takes a sample.
func (p *Page) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s := sample{at: time.Now(), metrics: sums(p.deps.Metrics), next: map[string]int64{}, first: map[string]int64{}, committed: map[string]int64{}, behind: map[string]int64{}}
	ends, err := p.deps.Kafka.TopicOffsets(ctx, shownTopics...)
	for tp, e := range ends {
		s.first[tp.Topic] += e[0]
		s.next[tp.Topic] += e[1]
	}
	for _, g := range p.deps.Groups {
		if err != nil {
			break
		}
		at, e := p.deps.Kafka.GroupOffsets(ctx, g.Name, ends)
		if err = e; err != nil || len(at) == 0 {
			continue
		}
		for tp, e := range ends {
			if !slices.Contains(g.Topics, tp.Topic) {
				continue
			}
			c, ok := at[tp]
			if !ok {
				c = e[0]
			}
			s.committed[g.Name] += c
			s.behind[g.Name] += max(0, e[1]-max(c, e[0]))
		}
	}
	if err != nil && ctx.Err() == nil {
		s.fault = text(err.Error(), maxValue)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flow.add(s)
}

func (f *flow) add(s sample) {
	if f.moved == nil {
		f.moved = map[string]time.Time{}
	}
	for group, at := range s.committed {
		if n := len(f.samples); n == 0 || f.samples[n-1].committed[group] != at || s.behind[group] == 0 {
			f.moved[group] = s.at
		}
	}
	f.samples = append(f.samples, s)
	if len(f.samples) > keptSamples {
		f.samples = append(f.samples[:0], f.samples[1:]...)
	}
}

// sums adds up counters and gauges over their labels, and once more by group where they have one.
func sums(g prometheus.Gatherer) map[string]float64 {
	all := map[string]float64{}
	families, _ := g.Gather() // what could be gathered is shown
	for _, f := range families {
		for _, m := range f.GetMetric() {
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			all[f.GetName()] += v
			for _, l := range m.GetLabel() {
				if l.GetName() == "group" {
					all[f.GetName()+" "+l.GetValue()] += v
				}
			}
		}
	}
	return all
}

// PathView is the data path as the page shows it.
type PathView struct {
	Version  string      `json:"version"`
	Uptime   int64       `json:"uptime"` // seconds
	Fault    string      `json:"fault"`  // of Kafka
	Skipped  int64       `json:"skipped"`
	Agent    *AgentView  `json:"agent"` // of this process, if it is one
	Topics   []TopicView `json:"topics"`
	Groups   []GroupView `json:"groups"`
	Troubles []Trouble   `json:"troubles"`
	Nodes    int         `json:"nodes"`
	Lines    float64     `json:"lines"` // a second, of all nodes, as this page reads them
}

// AgentView is what the agent of this process does.
type AgentView struct {
	Records   float64 `json:"records"`
	PerSecond float64 `json:"perSecond"`
	Bytes     float64 `json:"bytesPerSecond"`
	Unread    float64 `json:"unread"`
	Logs      float64 `json:"logs"`
	Held      float64 `json:"held"`
}

// TopicView is a topic; its messages are batches.
type TopicView struct {
	Name      string  `json:"name"`
	PerSecond float64 `json:"perSecond"`
	Retained  int64   `json:"retained"`
}

// GroupView is a consumer group. Records are known of this process alone.
type GroupView struct {
	Name      string   `json:"name"`
	Reads     []string `json:"reads"`
	Began     bool     `json:"began"` // it committed something once
	PerSecond float64  `json:"perSecond"`
	Records   *float64 `json:"recordsPerSecond"`
	Behind    int64    `json:"behind"`
	Still     int64    `json:"still"` // seconds that it is behind and did not move
	Stuck     bool     `json:"stuck"`
}

// Trouble is a count that should be zero, or nearly so.
type Trouble struct {
	Name  string  `json:"name"`
	Count float64 `json:"count"`
	Means string  `json:"means"`
}

var troubles = []struct {
	name, means string
	plus, minus []string
}{
	{"Loss records", "ranges that no sink will have; each is in the list of losses", []string{"weir_agent_loss_records_total", "weir_ingest_expired_offsets_total"}, nil},
	{"Gaps open", "records that are missing or late", []string{"weir_ingest_gaps_opened_total"}, []string{"weir_ingest_gaps_filled_total"}},
	{"Dead letters", "messages that could not be read", []string{"weir_ingest_dead_letters_total"}, nil},
	{"Repeats dropped", "records that came twice and were given to the sink once", []string{"weir_ingest_repeated_records_total"}, nil},
	{"Sends tried again", "requests that Kafka did not take at once", []string{"weir_producer_retries_total"}, nil},
	{"Sinks tried again", "errors after which a partition went back to its last commit", []string{"weir_ingest_errors_total"}, nil},
}

// path is called with mu held.
func (p *Page) path(now time.Time) PathView {
	v := PathView{Version: p.deps.Version, Uptime: int64(now.Sub(p.began) / time.Second), Skipped: p.skipped, Nodes: len(p.nodes)}
	for _, n := range p.nodes {
		v.Lines += n.hour.rate(p.began, now)
	}
	if len(p.flow.samples) == 0 {
		return v
	}
	old, s := &p.flow.samples[0], &p.flow.samples[len(p.flow.samples)-1]
	rate := func(old, new float64) float64 {
		if d := s.at.Sub(p.flow.samples[0].at).Seconds(); d > 0 {
			return max(0, new-old) / d
		}
		return 0
	}
	metric := func(name string) float64 { return rate(old.metrics[name], s.metrics[name]) }
	v.Fault = s.fault
	if logs, ok := s.metrics["weir_agent_sources"]; ok {
		v.Agent = &AgentView{Records: s.metrics["weir_agent_records_total"], PerSecond: metric("weir_agent_records_total"), Bytes: metric("weir_agent_read_bytes_total"),
			Unread: s.metrics["weir_agent_lag_bytes"], Logs: logs, Held: s.metrics["weir_agent_held_bytes"]}
	}
	for _, t := range shownTopics {
		if _, ok := s.next[t]; ok {
			v.Topics = append(v.Topics, TopicView{t, rate(float64(old.next[t]), float64(s.next[t])), s.next[t] - s.first[t]})
		}
	}
	for _, group := range p.deps.Groups {
		name := group.Name
		g := GroupView{Name: name, Reads: group.Topics, Behind: s.behind[name]}
		if at, ok := s.committed[name]; ok {
			g.Began = true
			if before, ok := old.committed[name]; ok {
				g.PerSecond = rate(float64(before), float64(at))
			}
			still := s.at.Sub(p.flow.moved[name])
			g.Still, g.Stuck = int64(still/time.Second), still > group.Patience
		}
		if _, ok := s.metrics["weir_ingest_records_total "+name]; ok {
			n := metric("weir_ingest_records_total " + name)
			g.Records = &n
		}
		v.Groups = append(v.Groups, g)
	}
	for _, t := range troubles {
		n := 0.0
		for _, name := range t.plus {
			n += s.metrics[name]
		}
		for _, name := range t.minus {
			n -= s.metrics[name]
		}
		v.Troubles = append(v.Troubles, Trouble{t.name, max(0, n), t.means})
	}
	return v
}

// rate is lines a second, over the minute before this one and what is over of this one; since began, where that is later.
func (h *hour) rate(began, now time.Time) float64 {
	h.move(minuteOf(now.UnixNano()))
	over := min(60+float64(now.UnixNano()%int64(time.Minute))/1e9, max(1, now.Sub(began).Seconds()))
	return float64(h.lines[minutes-1]+h.lines[minutes-2]) / over
}
