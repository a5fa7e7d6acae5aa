package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"weir/schema"
)

// store is a sink that outlives the consumers that crash over it. Rows and checkpoint change together at commit, as
// in a sink with its own commit; without own, rows alone become durable, and an id that is there is refused, as in Elasticsearch.
type store struct {
	own bool
	mu  sync.Mutex
	cps map[TopicPartition]*Checkpoint
	ids map[string]int // how often each record id is durable
	die func() bool    // asked at every Write and Commit
}

type storePart struct {
	s    *store
	tp   TopicPartition
	rows []string
}

var errFault = errors.New("injected fault")

func (s *store) Open(_ context.Context, tp TopicPartition) (PartitionSink, *Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own {
		return &storePart{s: s, tp: tp}, s.cps[tp], nil
	}
	return &storePart{s: s, tp: tp}, nil, nil
}

func (p *storePart) Write(_ context.Context, b *schema.Batch) error {
	if p.s.die() {
		return errFault
	}
	for i := range b.Records {
		p.rows = append(p.rows, b.ID(&b.Records[i]))
	}
	return nil
}

func (p *storePart) Commit(ctx context.Context, cp Checkpoint) error {
	if p.s.die() || ctx.Err() != nil {
		return errFault // before anything is durable
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for _, id := range p.rows {
		if p.s.own || p.s.ids[id] == 0 {
			p.s.ids[id]++
		}
	}
	p.rows = nil
	if p.s.own {
		p.s.cps[p.tp] = &cp
		if p.s.die() {
			return errFault // durable, but nobody was told
		}
	}
	return nil
}

func (p *storePart) Close() error { return nil }

// origin is a source of numbered records, and the agent that sends it: what was acknowledged moves its checkpoint, and
// a crash sends again from there, or from the start, in batches cut anew.
type origin struct {
	name  string
	files []int64 // length of each incarnation
	from  schema.Position
	prev  schema.Position
}

func (o *origin) ids() (ids []string) {
	for f, n := range o.files {
		for off := range n {
			ids = append(ids, string(schema.AppendID(nil, schema.SourceHash(o.name), o.at(f, off))))
		}
	}
	return ids
}

func (o *origin) at(file int, offset int64) schema.Position {
	return schema.Position{Incarnation: schema.Incarnation{Start: int64(file + 1), Print: 7}, Offset: offset}
}

// send produces from the checkpoint on, for at most limit batches.
func (o *origin) send(ctx context.Context, p *Producer, r *rand.Rand, limit int) {
	var mu sync.Mutex
	alive := true
	at, prev := o.from, o.prev
	for file := max(0, int(at.Start)-1); file < len(o.files); file++ {
		off := int64(0)
		if int64(file+1) == at.Start {
			off = at.Offset
		}
		for off < o.files[file] && limit > 0 {
			limit--
			end := min(off+1+r.Int64N(6), o.files[file])
			var e schema.Encoder
			e.Reset(o.name, o.at(file, 0).Incarnation, nil)
			for i := off; i < end; i++ {
				e.Append(&schema.Record{Offset: i, Body: fmt.Sprint(i)})
			}
			m := Message{Topic: schema.TopicLogs, Source: o.name, Begin: o.at(file, off), End: o.at(file, end), Prev: prev, PrevKnown: true, Count: e.Count(), Value: e.Bytes()}
			m.Acked = func() {
				mu.Lock()
				defer mu.Unlock()
				if alive {
					o.from, o.prev = m.End, m.End
				}
			}
			if p.Send(ctx, m) != nil {
				return
			}
			off, prev = end, m.End
		}
	}
	if r.IntN(2) == 0 {
		_ = p.Flush(ctx)
	}
	mu.Lock()
	alive = false // a crash: acknowledgements from now on come to nobody
	mu.Unlock()
}

func testKafka(t *testing.T, partitions int) (*kfake.Cluster, *Kafka) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(int32(partitions), schema.TopicLogs, schema.TopicEvents, schema.TopicDeadLetter, StateTopic("model")),
		kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg := DefaultKafkaConfig()
	cfg.Brokers = c.ListenAddrs()
	k, err := NewKafka(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return c, k
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// running starts a component and returns what stops it and waits.
func running(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = run(ctx) }()
	return func() { cancel(); <-done }
}

// TestModel drives random schedules of crashes, retries, repeats, cuts, rebalances and lost agent state through the real
// producer and consumers on an in-process broker: every record must be durable in the sink exactly once.
//
// Between a sink's commit and the state's, a sink without its own commit is given records again; its ids close that window.
func TestModel(t *testing.T) {
	for _, own := range []bool{true, false} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("own=%v/seed=%d", own, seed), func(t *testing.T) {
				t.Parallel()
				model(t, own, seed)
			})
		}
	}
}

func model(t *testing.T, own bool, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	cluster, k := testKafka(t, 3)
	var faults sync.Mutex
	fr := rand.New(rand.NewPCG(seed, 3))
	chance := func(n int) bool { faults.Lock(); defer faults.Unlock(); return fr.IntN(n) == 0 }
	// Some produce requests are appended, and then their answer is lost.
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if chance(12) {
			return nil, errFault, true
		}
		return nil, nil, false
	})
	st := &store{own: own, cps: map[TopicPartition]*Checkpoint{}, ids: map[string]int{}, die: func() bool { return chance(60) }}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	newProducer := func() (*Producer, func()) {
		p, err := NewProducer(k, ProducerConfig{InflightBytes: 4 << 10, RequestBytes: 600, RequestTimeout: 5 * time.Second}, quiet(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return p, running(p.Run)
	}
	aux, stopAux := newProducer()
	defer stopAux()
	consumer := func() func() {
		cfg := DefaultConsumerConfig("model", schema.TopicLogs)
		cfg.CommitInterval, cfg.CommitBytes, cfg.OwnCommit = 50*time.Millisecond, 1<<10, own
		c, err := NewConsumer(k, cfg, st, aux, quiet(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return running(c.Run)
	}
	var origins []*origin
	for i := range 5 {
		o := &origin{name: fmt.Sprintf("docker/n/%d", i)}
		for range 1 + r.IntN(3) {
			o.files = append(o.files, 20+r.Int64N(60))
		}
		origins = append(origins, o)
	}
	members := []func(){consumer()}
	for range 14 {
		p, stop := newProducer()
		for _, i := range r.Perm(len(origins)) {
			if o := origins[i]; r.IntN(10) == 0 {
				o.from, o.prev = schema.Position{}, schema.Position{} // the agent lost its state
			} else {
				o.send(ctx, p, r, 2+r.IntN(8))
			}
		}
		stop() // what was not acknowledged is sent again by the next agent
		switch r.IntN(3) {
		case 0:
			members = append(members, consumer())
		case 1:
			n := r.IntN(len(members))
			members[n]()
			members = slices.Delete(members, n, n+1)
		}
		if len(members) == 0 {
			members = append(members, consumer())
		}
	}
	p, stop := newProducer()
	for _, o := range origins {
		o.send(ctx, p, r, 1<<30)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	stop()

	want := map[string]bool{}
	for _, o := range origins {
		for _, id := range o.ids() {
			want[id] = true
		}
	}
	missing := func() int {
		st.mu.Lock()
		defer st.mu.Unlock()
		n := 0
		for id := range want {
			if st.ids[id] == 0 {
				n++
			}
		}
		return n
	}
	for missing() > 0 && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	for _, stop := range members {
		stop()
	}
	if n := missing(); n > 0 {
		t.Errorf("%d of %d records are not in the sink", n, len(want))
	}
	for id, n := range st.ids {
		if !want[id] || n != 1 {
			t.Errorf("record %s is %d times in the sink", id, n)
		}
	}
}

// TestPoison: what is not a batch goes to the dead letters and the rest goes on.
func TestPoison(t *testing.T) {
	_, k := testKafka(t, 1)
	p, err := NewProducer(k, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(p.Run)()
	o := &origin{name: "docker/n/0", files: []int64{10}}
	if err := p.Send(t.Context(), Message{Topic: schema.TopicLogs, Source: o.name, Begin: o.at(0, 100), End: o.at(0, 101), Count: 1, Value: []byte("\xff damaged")}); err != nil {
		t.Fatal(err)
	}
	o.send(t.Context(), p, rand.New(rand.NewPCG(1, 1)), 1<<30)
	st := &store{own: true, cps: map[TopicPartition]*Checkpoint{}, ids: map[string]int{}, die: func() bool { return false }}
	cfg := DefaultConsumerConfig("model", schema.TopicLogs)
	cfg.CommitInterval, cfg.OwnCommit = 50*time.Millisecond, true
	c, err := NewConsumer(k, cfg, st, p, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(c.Run)()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var why string
	done := errors.New("done")
	if err := k.Tail(ctx, []string{schema.TopicDeadLetter}, true, func(b *schema.Batch) error {
		a, _ := b.Records[0].Attr("error.message")
		why = a.Str
		return done
	}, nil); !errors.Is(err, done) {
		t.Fatal(err)
	}
	if want := "topic weir.logs partition 0 offset 0: not a weir batch: otlp: "; len(why) < len(want) || why[:len(want)] != want {
		t.Errorf("the dead letter says %q", why)
	}
	for ctx.Err() == nil {
		st.mu.Lock()
		n := len(st.ids)
		st.mu.Unlock()
		if n == 10 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the records behind the damaged message did not come")
}

// TestMissingTopic: a topic that is not there keeps nobody from the others, does not make the group join over and over, and is
// read when it comes.
func TestMissingTopic(t *testing.T) {
	t.Parallel()
	cluster, k := testKafka(t, 1)
	k.transport.MetadataTTL = 100 * time.Millisecond
	const later = "weir.later"
	var mu sync.Mutex
	joins := 0
	cluster.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		joins++
		return nil, nil, false
	})
	p, err := NewProducer(k, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(p.Run)()
	st := &store{own: true, cps: map[TopicPartition]*Checkpoint{}, ids: map[string]int{}, die: func() bool { return false }}
	cfg := DefaultConsumerConfig("model", schema.TopicLogs, later)
	cfg.CommitInterval, cfg.OwnCommit = 50*time.Millisecond, true
	c, err := NewConsumer(k, cfg, st, p, quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(c.Run)()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	arrive := func(topic, source string, want int) {
		t.Helper()
		var e schema.Encoder
		e.Reset(source, schema.Incarnation{}, nil)
		e.Append(&schema.Record{Body: "x"})
		if err := p.Send(ctx, Message{Topic: topic, Source: source, End: schema.Position{Offset: 1}, Count: 1, Value: e.Bytes()}); err != nil {
			t.Fatal(err)
		}
		for ctx.Err() == nil {
			st.mu.Lock()
			n := len(st.ids)
			st.mu.Unlock()
			if n == want {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatalf("the record in %s did not come", topic)
	}
	arrive(schema.TopicLogs, "a", 1)
	if err := ApplyTopics(ctx, k, []TopicChange{{Spec: TopicSpec{later, 1, 1, nil}, Create: true}}); err != nil {
		t.Fatal(err)
	}
	arrive(later, "b", 2)
	mu.Lock()
	defer mu.Unlock()
	if joins > 6 {
		t.Errorf("joined the group %d times", joins)
	}
}
