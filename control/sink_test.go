package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/schema"
)

var errFault = errors.New("injected fault")

// topic is the journal's topic, over all processes.
type topic struct {
	entries []ingest.JournalEntry
	fault   func() string // "", "before" or "after" an append
}

// handle is one process's journal.
type handle struct {
	t    *topic
	next int
	// pause, where set, is called once before the next append, as if the process stood still there.
	pause func()
}

func (h *handle) Read(_ context.Context, fn func(string, []byte) error) error {
	// Compacted: only the last entry of a key is there, at its place.
	last := map[string]int{}
	for i, e := range h.t.entries {
		last[e.Key] = i
	}
	h.next = len(h.t.entries)
	for _, i := range slices.Sorted(maps.Values(last)) {
		if err := fn(h.t.entries[i].Key, h.t.entries[i].Value); err != nil {
			return err
		}
	}
	return nil
}

func (h *handle) Claim(ctx context.Context, e ingest.JournalEntry) (int64, error) {
	h.next = len(h.t.entries)
	err := h.Append(ctx, e)
	if errors.Is(err, ingest.ErrOvertaken) {
		err = nil
	}
	return int64(len(h.t.entries)), err
}

func (h *handle) Append(_ context.Context, entries ...ingest.JournalEntry) error {
	if p := h.pause; p != nil {
		h.pause = nil
		p()
	}
	fault := ""
	if h.t.fault != nil {
		fault = h.t.fault()
	}
	if fault == "before" {
		return errFault
	}
	base := len(h.t.entries)
	h.t.entries = append(h.t.entries, entries...)
	if fault == "after" {
		return errFault
	}
	if base != h.next {
		return ingest.ErrOvertaken
	}
	h.next += len(entries)
	return nil
}

// actions is weir.actions.
type actions struct {
	t     *testing.T
	sent  map[schema.Position]Sealed
	fault func() string
}

func (a *actions) Send(_ context.Context, m ingest.Message) error {
	fault := ""
	if a.fault != nil {
		fault = a.fault()
	}
	if fault == "before" {
		return errFault
	}
	var b schema.Batch
	if err := new(schema.Decoder).Decode(m.Value, &schema.Info{Source: m.Source, Begin: m.Begin, End: m.End, Count: m.Count}, &b); err != nil {
		a.t.Error(err)
	}
	for i := range b.Records {
		s, err := Unseal(&b.Records[i], new(Decision))
		if err != nil {
			a.t.Error(err)
		}
		at := b.Position(&b.Records[i])
		if was, ok := a.sent[at]; ok && was != s {
			a.t.Errorf("two decisions at %v:\n%s\n%s", at, was.Payload, s.Payload)
		}
		a.sent[at] = s
	}
	if fault == "after" {
		return errFault
	}
	return nil
}

func (a *actions) Flush(context.Context) error { return nil }

func TestSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		j, broken := &topic{}, false
		j.fault = func() string {
			if broken {
				return "before"
			}
			return ""
		}
		out := &actions{t: t, sent: map[schema.Position]Sealed{}}
		policies := BuiltIn()
		if err := policies.Complete(); err != nil {
			t.Fatal(err)
		}
		return sinktest.Harness{New: func(*testing.T) ingest.Sink {
			return newControl(&policies, nil, Trusted{}, &handle{t: j}, out, time.Now, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		}}
	})
}

// process is one decider of the model, and its places in two partitions.
type process struct {
	c     *Control
	h     *handle
	parts [2]ingest.PartitionSink
	next  [2]int
}

// TestModel has deciders killed, overtaken while they stand still, and their writes fail before or after they took effect, on random
// schedules. Each container's death must be decided on once, the chain must have no gap and no fork, and the budget must hold.
func TestModel(t *testing.T) {
	for seed := range uint64(10) {
		if t.Run(fmt.Sprint(seed), func(t *testing.T) { model(t, seed) }); t.Failed() {
			return
		}
	}
}

func model(t *testing.T, seed uint64) {
	const perPartition, budget = 20, 7
	rnd := rand.New(rand.NewPCG(seed, 7))
	faults := true
	fault := func() string {
		if faults {
			switch rnd.IntN(12) {
			case 0:
				return "before"
			case 1:
				return "after"
			}
		}
		return ""
	}
	key := newTestKey(t)
	policies := parse(t, fmt.Sprintf("breaker: {subjects: 1000}\nbudgets:\n  app: {actions: 100, per: 1h}\n  node: {actions: 100, per: 1h}\n  total: {actions: %d, per: 1h}%s", budget, restartOnDeath))
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	j, out := &topic{fault: fault}, &actions{t: t, sent: map[schema.Position]Sealed{}, fault: fault}

	var batches [2][]*schema.Batch
	for p := range batches {
		for i := range perPartition {
			name := fmt.Sprintf("app%d-%d", p, i)
			batches[p] = append(batches[p], &schema.Batch{Topic: schema.TopicEvents, Partition: p, KafkaOffset: int64(i), Source: fmt.Sprint("docker-events/n", p),
				Resource: []schema.Attr{schema.String(schema.AttrContainerID, "id-"+name), schema.String(schema.AttrContainerName, name), schema.String(schema.AttrApp, name), schema.String(schema.AttrHostName, fmt.Sprint("n", p))},
				Records:  []schema.Record{{Offset: int64(i), Time: now.UnixNano() + int64(i), EventName: "docker.container.die", Attrs: []schema.Attr{schema.Int(schema.AttrExitCode, 1)}}}})
		}
	}
	committed := [2]int{} // Kafka's offsets
	start := func() *process {
		h := &handle{t: j}
		p := &process{h: h, next: committed, c: newControl(policies, key, Trusted{}, h, out, func() time.Time { return now }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())}
		return p
	}
	// step writes and commits a few batches of one partition; it reports whether the process goes on.
	step := func(p *process, at int, owner func() bool) {
		if p.parts[at] == nil {
			part, _, err := p.c.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicEvents, Partition: at})
			if err != nil {
				return
			}
			p.parts[at], p.next[at] = part, committed[at]
		}
		part := p.parts[at]
		for range rnd.IntN(5) {
			if p.next[at] < perPartition {
				if err := part.Write(t.Context(), batches[at][p.next[at]]); err != nil {
					t.Fatal(err)
				}
				p.next[at]++
			}
		}
		if err := part.Commit(t.Context(), ingest.Checkpoint{NextOffset: int64(p.next[at])}); err != nil {
			_ = part.Close()
			p.parts[at] = nil
			return
		}
		if owner() && (!faults || rnd.IntN(8) > 0) { // else it ended before Kafka had its offset
			committed[at] = p.next[at]
			return
		}
		_ = part.Close()
		p.parts[at] = nil
	}
	current := start()
	mine := func(p *process) func() bool { return func() bool { return p == current } }
	for round := 0; ; round++ {
		if committed[0] == perPartition && committed[1] == perPartition {
			break
		}
		if faults = round < 200; round > 1000 {
			t.Fatalf("it does not end: %v", committed)
		}
		if faults && rnd.IntN(10) == 0 {
			current = start() // the one before was killed
		}
		if faults && rnd.IntN(10) == 0 {
			old := current
			old.h.pause = func() { // it stands still before it writes, and another takes over meanwhile
				current = start()
				for range rnd.IntN(4) {
					step(current, rnd.IntN(2), mine(current))
				}
			}
			step(old, rnd.IntN(2), mine(old))
			continue
		}
		step(current, rnd.IntN(2), mine(current))
	}

	var chain []Sealed
	for _, at := range slices.SortedFunc(maps.Keys(out.sent), schema.Position.Compare) {
		chain = append(chain, out.sent[at])
		if !key.Public().Signed(out.sent[at]) {
			t.Errorf("the decision at %v is not signed", at)
		}
	}
	links, problems := Verify(chain)
	if len(problems) > 0 {
		t.Fatalf("%d links: %v", len(chain), problems)
	}
	decided, acts, orders := map[string]int{}, 0, map[string]bool{}
	for _, d := range links {
		if d.Subject == nil {
			continue
		}
		decided[d.Subject.Name]++
		if d.Verdict == VerdictAct {
			acts++
			if orders[d.Order.ID] {
				t.Errorf("order %s twice", d.Order.ID)
			}
			orders[d.Order.ID] = true
		}
	}
	if len(decided) != 2*perPartition || acts != budget {
		t.Errorf("%d of %d deaths were decided on, %d acted on, want %d", len(decided), 2*perPartition, acts, budget)
	}
	for name, n := range decided {
		if n != 1 {
			t.Errorf("%s was decided on %d times", name, n)
		}
	}
}

func TestNewerStateIsRefused(t *testing.T) {
	j := &topic{entries: []ingest.JournalEntry{{Key: keyOf(1), Value: []byte(`{"version":2,"epoch":1}`)}}}
	policies := parse(t, restartOnDeath)
	c := newControl(policies, newTestKey(t), Trusted{}, &handle{t: j}, &actions{t: t, sent: map[schema.Position]Sealed{}}, time.Now, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if _, _, err := c.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicEvents}); err == nil || !strings.Contains(err.Error(), "version 2 is not known") {
		t.Errorf("%v", err)
	}
}

func TestDropGone(t *testing.T) {
	in := func(id, event string) input {
		s := Subject{Container: id}
		return input{change: &change{subject: s, event: event}, trigger: &Trigger{Subject: s}}
	}
	inputs := []input{in("a", "docker.container.die"), in("b", "docker.container.die"), {change: &change{subject: Subject{Container: "a"}, event: "docker.container.destroy"}}, in("a", "docker.container.die"), {command: &Command{}}}
	n := 0
	dropGone(inputs, func() { n++ })
	if n != 1 || inputs[0].trigger != nil || inputs[0].change == nil || inputs[1].trigger == nil || inputs[3].trigger == nil {
		t.Errorf("%d dropped: %+v", n, inputs)
	}
}

// TestStateIsOneMessage fills the state with the longest that outsiders can put into it.
func TestStateIsOneMessage(t *testing.T) {
	w := newWorld(t, "breaker: {subjects: 1000000}\nbudgets:\n  app: {actions: 1000, per: 1h}\n  node: {actions: 1000, per: 1h}\n  total: {actions: 1000, per: 1h}"+strings.Replace(restartOnDeath, "event: docker.container.die", "event: docker.container.die, count: 20, within: 1h", 1))
	long := strings.Repeat("x", 300)
	for i := range maxEntries {
		name := fmt.Sprint(i, long)
		b := &schema.Batch{Source: "docker-events/" + long, Resource: []schema.Attr{schema.String(schema.AttrHostName, long), schema.String(schema.AttrContainerID, name), schema.String(schema.AttrContainerName, name), schema.String(schema.AttrApp, name), schema.String(schema.AttrImageName, name), schema.String(schema.LabelPrefix+"a", long)}}
		for n := range maxCount {
			r := schema.Record{Offset: int64(n), Time: w.now.UnixNano(), EventName: "docker.container.die", Attrs: []schema.Attr{schema.Int(schema.AttrExitCode, 1), schema.String("docker.action.detail", long)}}
			in, err := read(b, &r)
			if err != nil {
				t.Fatal(err)
			}
			w.take(in)
		}
	}
	value, err := json.Marshal(w.d.state)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.d.state.Entries) != maxEntries || len(value) > 8<<20 {
		t.Errorf("%d entries in %d bytes", len(w.d.state.Entries), len(value))
	}
	t.Logf("%d bytes", len(value))
}
