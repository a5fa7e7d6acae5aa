package processor

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"weir/ingest"
	"weir/processor/rules"
	"weir/processor/signal"
	"weir/schema"
)

// model plays agents, Kafka and two processors on a clock of its own.
type model struct {
	t          *testing.T
	rnd        *rand.Rand
	d          *double
	cfg        Config
	now        time.Time
	saved      map[ingest.TopicPartition]*saved
	sessions   map[ingest.TopicPartition]*session
	zombies    []*session
	processors *Processor       // nil: one of its own for each session
	offsets    map[string]int64 // by source
	want       map[windowKey]counts
}

// saved is what the consumer has saved of a partition.
type saved struct {
	next int64
	seen map[string][]byte
}

type session struct {
	sink ingest.PartitionSink
	next int64
	seen map[string]*ingest.Seen
}

type windowKey struct {
	rule, group string
	end         int64
}

type counts struct{ lines, bytes, errors, added int64 }

var modelWindows = []rules.WindowSpec{{By: []string{"container_id"}, Window: 10 * time.Second}, {By: []string{"app"}, Window: 10 * time.Second}, {By: []string{"app", "node"}, Window: 30 * time.Second, Slide: 10 * time.Second}}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), d: newDouble(3), cfg: DefaultConfig(), now: time.Unix(1_764_054_000, 0), saved: map[ingest.TopicPartition]*saved{},
		sessions: map[ingest.TopicPartition]*session{}, offsets: map[string]int64{}, want: map[windowKey]counts{}}
	m.cfg.Windows, m.cfg.Lateness, m.cfg.Hold = modelWindows, time.Minute, 5*time.Second
	return m
}

func (m *model) inputs() (tps []ingest.TopicPartition) {
	for _, topic := range Topics() {
		for p := range m.d.parts {
			tps = append(tps, ingest.TopicPartition{Topic: topic, Partition: p})
		}
	}
	return tps
}

// write makes a batch of one of eight containers: of three apps on two nodes, whose sources lie in several partitions.
func (m *model) write() {
	c := m.rnd.IntN(8)
	source, app, node, id := fmt.Sprintf("docker/n%d/c%d", c%2, c), fmt.Sprintf("app%d", c%3), fmt.Sprintf("n%d", c%2), fmt.Sprintf("c%d", c)
	var e schema.Encoder
	e.Reset(source, schema.Incarnation{Start: 1}, []schema.Attr{schema.String(schema.AttrContainerID, id), schema.String(schema.AttrApp, app), schema.String(schema.AttrHostName, node)})
	begin := m.offsets[source]
	n := 1 + m.rnd.IntN(5)
	for range n {
		at := m.now.UnixNano() - m.rnd.Int64N(int64(time.Second))
		switch m.rnd.IntN(20) {
		case 0, 1:
			at -= m.rnd.Int64N(int64(50 * time.Second)) // late
		case 2:
			at -= int64(2*time.Minute) + m.rnd.Int64N(int64(time.Minute)) // so late that its window is forgotten
		}
		r := schema.Record{Offset: m.offsets[source], Time: at, Observed: m.now.UnixNano(), Body: fmt.Sprintf("line %d", m.offsets[source]), Severity: int32(9 + 8*m.rnd.IntN(2))}
		m.offsets[source]++
		e.Append(&r)
		for _, w := range modelWindows {
			slide := int64(w.Slide)
			if slide == 0 {
				slide = int64(w.Window)
			}
			values := map[string]string{"container_id": id, "app": app, "node": node}
			var pairs []string
			for _, by := range w.By {
				pairs = append(pairs, by, values[by])
			}
			made, err := rules.Windows([]rules.WindowSpec{w})
			if err != nil {
				m.t.Fatal(err)
			}
			for end := floor(at, slide) + slide; end <= floor(at, slide)+int64(w.Window); end += slide {
				key := windowKey{made[0].Name, signal.Group(pairs...), end}
				sum := m.want[key]
				sum.lines, sum.bytes = sum.lines+1, sum.bytes+int64(len(r.Body))
				if r.Severity == signal.Error {
					sum.errors++
				}
				m.want[key] = sum
			}
		}
	}
	at := func(o int64) schema.Position {
		return schema.Position{Incarnation: schema.Incarnation{Start: 1}, Offset: o}
	}
	msg := ingest.Message{Topic: schema.TopicLogs, Source: source, Begin: at(begin), End: at(begin + int64(n)), Prev: at(begin), PrevKnown: true, Count: n, Value: e.Take()}
	for range 1 + m.rnd.IntN(6)/5 { // a try that seemed to fail leaves a repeat
		tp := ingest.TopicPartition{Topic: schema.TopicLogs, Partition: int(hash(source) % uint64(m.d.parts))}
		m.d.topics[tp] = append(m.d.topics[tp], msg)
	}
}

// open gives a partition to a processor, as a rebalance does.
func (m *model) open(tp ingest.TopicPartition) *session {
	p := m.processors
	if p == nil {
		p = m.d.processor(m.t, m.cfg)
		p.now = func() time.Time { return m.now }
	}
	sink, _, err := p.Open(m.t.Context(), tp)
	if err != nil {
		if !errors.Is(err, errInjected) {
			m.t.Fatal(err)
		}
		return nil
	}
	s := &session{sink: sink, seen: map[string]*ingest.Seen{}}
	if v := m.saved[tp]; v != nil {
		s.next = v.next
		for source, b := range v.seen {
			seen := &ingest.Seen{}
			if err := seen.UnmarshalBinary(b); err != nil {
				m.t.Fatal(err)
			}
			s.seen[source] = seen
		}
	}
	m.sessions[tp] = s
	return s
}

// work plays the consumer loop for one partition: at most n messages, a tick, and perhaps a commit. After an error the session is gone.
func (m *model) work(tp ingest.TopicPartition, n int, mayCommit bool) {
	s := m.sessions[tp]
	if s == nil {
		if s = m.open(tp); s == nil {
			return
		}
	}
	err := func() error {
		log := m.d.topics[tp]
		for ; n > 0 && s.next < int64(len(log)); n-- {
			b, info := decoded(m.t, log[s.next])
			b.Topic, b.Partition, b.KafkaOffset = tp.Topic, tp.Partition, s.next
			seen := s.seen[info.Source]
			if seen == nil {
				seen = &ingest.Seen{}
				s.seen[info.Source] = seen
			}
			v := seen.Admit(&info)
			kept := b.Records[:0]
			for _, r := range b.Records {
				if v.Admits(r.Offset) {
					kept = append(kept, r)
				}
			}
			b.Records = kept
			if len(kept) > 0 {
				if err := s.sink.Write(m.t.Context(), &b); err != nil {
					return err
				}
			}
			s.next++
		}
		wants, err := s.sink.(ingest.Ticker).Tick(m.t.Context(), s.next == int64(len(log)))
		if err != nil || !wants && (!mayCommit || m.rnd.IntN(2) == 0) {
			return err
		}
		if err := s.sink.Commit(m.t.Context(), ingest.Checkpoint{NextOffset: s.next}); err != nil {
			return err
		}
		if m.d.fail() {
			return errInjected // a crash before the consumer has saved how far it is
		}
		v := &saved{next: s.next, seen: map[string][]byte{}}
		for source, seen := range s.seen {
			b, _ := seen.AppendBinary(nil)
			v.seen[source] = bytes.Clone(b)
		}
		m.saved[tp] = v
		return nil
	}()
	if err != nil {
		if !errors.Is(err, errInjected) && !errors.Is(err, ingest.ErrFenced) {
			m.t.Fatal(err)
		}
		delete(m.sessions, tp)
	}
}

// got adds up what a consumer of the signals would count.
func (m *model) got() map[windowKey]counts {
	sums := map[windowKey]counts{}
	revisions := map[windowKey]int64{}
	ids := map[string]bool{}
	m.d.records(m.t, schema.TopicSignals, func(_ *schema.Batch, r *schema.Record) {
		s, err := signal.FromRecord(r)
		if err != nil {
			m.t.Fatal(err)
		}
		if ids[s.ID()] {
			m.t.Errorf("signal %s of %s %s is there twice", s.ID(), s.Rule, s.Group)
		}
		ids[s.ID()] = true
		number := func(name string) int64 {
			a, _ := r.Attr(name)
			return a.Num
		}
		key := windowKey{s.Rule, s.Group, s.End}
		sum := sums[key]
		lines, size, errs := number("weir.window.lines"), number("weir.window.bytes"), number("weir.window.error")
		sum.added += number("weir.window.lines_added")
		if s.Late {
			sum.lines, sum.bytes, sum.errors = sum.lines+lines, sum.bytes+size, sum.errors+errs
		} else {
			if want := revisions[key]; s.Revision != want {
				m.t.Errorf("%v has revision %d after %d", key, s.Revision, want-1)
			}
			revisions[key]++
			late := sums[windowKey{key.rule, key.group + "#last", key.end}]
			sum.lines, sum.bytes, sum.errors = sum.lines-late.lines+lines, sum.bytes-late.bytes+size, sum.errors-late.errors+errs
			sums[windowKey{key.rule, key.group + "#last", key.end}] = counts{lines: lines, bytes: size, errors: errs}
		}
		sums[key] = sum
	})
	for key := range revisions {
		delete(sums, windowKey{key.rule, key.group + "#last", key.end})
	}
	return sums
}

// TestModel: whatever crashes, is repeated, comes late or out of order, the last word on every window is the naive count of the input.
func TestModel(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed)
			tps := m.inputs()
			m.d.fail = func() bool { return m.rnd.IntN(60) == 0 }
			for range 3000 {
				switch m.rnd.IntN(12) {
				case 0, 1, 2, 3:
					m.write()
				case 4, 5:
					m.now = m.now.Add(time.Duration(m.rnd.IntN(800)) * time.Millisecond)
				case 6:
					if m.rnd.IntN(8) == 0 { // killed, or frozen and taken for dead
						tp := tps[m.rnd.IntN(len(tps))]
						if s := m.sessions[tp]; s != nil && m.rnd.IntN(2) == 0 {
							m.zombies = append(m.zombies, s)
						}
						delete(m.sessions, tp)
					}
				case 7:
					if len(m.zombies) > 0 {
						z := m.zombies[0]
						m.zombies = m.zombies[1:]
						_ = z.sink.Commit(t.Context(), ingest.Checkpoint{NextOffset: z.next})
					}
				default:
					m.work(tps[m.rnd.IntN(len(tps))], 1+m.rnd.IntN(20), true)
				}
			}
			m.d.fail = func() bool { return false }
			for range 60 {
				m.now = m.now.Add(2 * time.Second)
				for _, tp := range tps {
					m.work(tp, 1<<30, true)
				}
			}
			for _, tp := range tps { // the end of the input: nothing is held back
				m.work(tp, 1<<30, true)
			}
			got := m.got()
			for key, want := range m.want {
				want.added = want.lines
				if got[key] != want {
					t.Errorf("%v: %+v, want %+v", key, got[key], want)
				}
				delete(got, key)
			}
			for key, sum := range got {
				t.Errorf("%v: %+v was never written", key, sum)
			}
		})
	}
}
