//go:build e2e

package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"

	"weir/schema"
)

// trio is three real brokers of a test's own, each a controller too. Node n is brokers[n-1].
type trio struct {
	t       *testing.T
	brokers [3]*broker
	cfg     KafkaConfig
	admin   *Kafka // knows of changes at once
}

func startTrio(t *testing.T) *trio {
	t.Helper()
	c := &trio{t: t, cfg: DefaultKafkaConfig()}
	c.cfg.Brokers = nil
	var controllers []int
	var voters []string
	for i := range c.brokers {
		c.cfg.Brokers = append(c.cfg.Brokers, fmt.Sprintf("127.0.0.1:%d", freePort(t)))
		controllers = append(controllers, freePort(t))
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", i+1, controllers[i]))
	}
	for i := range c.brokers {
		dir := t.TempDir()
		// A dead broker is noticed after 3 s instead of Kafka's 9, so that the test takes less time.
		c.brokers[i] = formatBroker(t, dir, fmt.Sprintf(`process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
listeners=PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=%s/data
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
offsets.topic.replication.factor=3
offsets.topic.num.partitions=3
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
auto.leader.rebalance.enable=false
log.cleaner.dedupe.buffer.size=4194304
`, i+1, strings.Join(voters, ","), c.cfg.Brokers[i], controllers[i], dir))
		c.brokers[i].start()
	}
	var err error
	if c.admin, err = NewKafka(c.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.admin.Close)
	c.admin.transport.MetadataTTL = 200 * time.Millisecond
	c.wait("three brokers", func() bool {
		m, err := c.admin.client.Metadata(t.Context(), &kafka.MetadataRequest{})
		return err == nil && len(m.Brokers) == 3
	})
	return c
}

// wait polls until ok; what names it in the failure.
func (c *trio) wait(what string, ok func() bool) { waitFor(c.t, what, ok) }

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain for: %s", what)
		}
	}
}

func (c *trio) create(topics ...TopicSpec) {
	c.t.Helper()
	plan, err := PlanTopics(c.t.Context(), c.admin, topics)
	if err == nil {
		err = ApplyTopics(c.t.Context(), c.admin, plan)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func durable(topic string, partitions int) TopicSpec {
	return TopicSpec{topic, partitions, 3, map[string]string{"min.insync.replicas": "2"}}
}

func (c *trio) partition(topic string, partition int) kafka.Partition {
	m, err := c.admin.client.Metadata(c.t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil || len(m.Topics) == 0 || len(m.Topics[0].Partitions) <= partition {
		return kafka.Partition{}
	}
	return m.Topics[0].Partitions[partition]
}

// healthy waits until every replica of the topic is in sync.
func (c *trio) healthy(topic string, partitions int) {
	c.t.Helper()
	c.wait(topic+" in sync", func() bool {
		for p := range partitions {
			if len(c.partition(topic, p).Isr) != 3 {
				return false
			}
		}
		return true
	})
}

func (c *trio) node(id int) *broker { return c.brokers[id-1] }

// load is a few sources that send numbered records until they are stopped, and what became of these.
type load struct {
	t     *testing.T
	k     *Kafka
	p     *Producer
	topic string
	stop  func()

	mu       sync.Mutex
	sent     map[string]bool // id -> acknowledged
	acked    int
	held     int64 // bytes accepted and not acknowledged
	lastAck  map[string]time.Time
	worst    time.Duration // the longest that a source waited between two acknowledgements
	next     map[string]int64
	disorder int
}

func (c *trio) load(topic string, sources int, pace time.Duration, cfg ProducerConfig, log *slog.Logger) *load {
	c.t.Helper()
	k, err := NewKafka(c.cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(k.Close)
	l := &load{t: c.t, k: k, topic: topic, sent: map[string]bool{}, lastAck: map[string]time.Time{}, next: map[string]int64{}}
	if l.p, err = NewProducer(k, cfg, log, prometheus.NewRegistry()); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(running(l.p.Run))
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	for i := range sources {
		wg.Go(func() { l.source(ctx, fmt.Sprintf("docker/n/%d", i), pace) })
	}
	l.stop = func() { cancel(); wg.Wait() }
	c.t.Cleanup(l.stop)
	return l
}

func (l *load) source(ctx context.Context, name string, pace time.Duration) {
	inc, hash := schema.Incarnation{Start: 1, Print: 7}, schema.SourceHash(name)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for offset := int64(0); ctx.Err() == nil; offset += 5 {
		var e schema.Encoder
		e.Reset(name, inc, nil)
		var ids []string
		for i := offset; i < offset+5; i++ {
			e.Append(&schema.Record{Offset: i, Body: fmt.Sprintf("%s %d %s", name, i, strings.Repeat("x", rand.IntN(200)))})
			ids = append(ids, string(schema.AppendID(nil, hash, schema.Position{Incarnation: inc, Offset: i})))
		}
		at := schema.Position{Incarnation: inc, Offset: offset}
		m := Message{Topic: l.topic, Source: name, Begin: at, End: schema.Position{Incarnation: inc, Offset: offset + 5}, Prev: at, PrevKnown: true, Count: 5, Value: e.Bytes()}
		size := int64(len(m.Value))
		m.Acked = func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, id := range ids {
				l.sent[id] = true
			}
			l.acked += len(ids)
			l.held -= size
			if l.next[name] != offset {
				l.disorder++
			}
			l.next[name] = offset + 5
			now := time.Now()
			if last := l.lastAck[name]; !last.IsZero() {
				l.worst = max(l.worst, now.Sub(last))
			}
			l.lastAck[name] = now
		}
		// Noted before it is sent: an acknowledgement may come first.
		l.mu.Lock()
		for _, id := range ids {
			l.sent[id] = false
		}
		l.held += size
		l.mu.Unlock()
		if l.p.Send(ctx, m) != nil {
			l.mu.Lock()
			for _, id := range ids {
				delete(l.sent, id)
			}
			l.held -= size
			l.mu.Unlock()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (l *load) ackedSoFar() int { l.mu.Lock(); defer l.mu.Unlock(); return l.acked }

// flows waits until every source had acknowledgements that came after this call, and gives back the longest wait of any
// source since the last call.
func (l *load) flows(sources int) time.Duration {
	l.t.Helper()
	since := time.Now()
	waitFor(l.t, "acknowledgements for every source", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := 0
		for _, at := range l.lastAck {
			if at.After(since) {
				n++
			}
		}
		return n == sources
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	worst := l.worst
	l.worst = 0
	return worst.Round(time.Millisecond)
}

func (l *load) retries(kind string) float64 {
	return testutil.ToFloat64(l.p.retries.WithLabelValues(kind))
}

func (l *load) retried() string {
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(remedies)) {
		if n := l.retries(kind); n > 0 {
			fmt.Fprintf(&b, " %s=%v", kind, n)
		}
	}
	return b.String()
}

// finish stops the sources, waits until all is acknowledged and returns the ids.
func (l *load) finish() []string {
	l.t.Helper()
	l.stop()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	if err := l.p.Flush(ctx); err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.disorder > 0 || l.held != 0 {
		l.t.Errorf("%d acknowledgements out of order, %d bytes without one", l.disorder, l.held)
	}
	for id, acked := range l.sent {
		if !acked {
			l.t.Errorf("record %s is not acknowledged", id)
		}
	}
	return slices.Collect(maps.Keys(l.sent))
}

// raw counts a topic's batches as they are on the brokers, repeats and all.
func (c *trio) raw(topic string, partitions int) (n int64) {
	for p := range partitions {
		first, next, err := c.admin.bounds(c.t.Context(), TopicPartition{topic, p})
		if err != nil {
			c.t.Fatal(err)
		}
		n += next - first
	}
	return n
}

// tally is a consumer with a sink that counts.
type tally struct {
	t     *testing.T
	group string
	topic string
	c     *Consumer
	st    *store
	stop  func()
}

// read starts a consumer; with own, its sink keeps the commit, and each record must come once; else the state is in a topic.
func (c *trio) read(group, topic string, own bool) *tally {
	c.t.Helper()
	k, err := NewKafka(c.cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(k.Close)
	cfg := DefaultConsumerConfig(group, topic)
	cfg.CommitInterval, cfg.OwnCommit = 200*time.Millisecond, own
	r := &tally{t: c.t, group: group, topic: topic, st: &store{own: own, cps: map[TopicPartition]*Checkpoint{}, ids: map[string]int{}, die: func() bool { return false }}}
	if r.c, err = NewConsumer(k, cfg, r.st, nil, quiet(), prometheus.NewRegistry()); err != nil {
		c.t.Fatal(err)
	}
	r.stop = running(r.c.Run)
	c.t.Cleanup(r.stop)
	return r
}

func (r *tally) count() int { r.st.mu.Lock(); defer r.st.mu.Unlock(); return len(r.st.ids) }

// has waits for the ids, and wants each once, nothing else and no gap.
func (r *tally) has(ids []string) {
	r.t.Helper()
	waitFor(r.t, fmt.Sprintf("%d records in %s", len(ids), r.group), func() bool { return r.count() >= len(ids) })
	r.stop()
	for _, id := range ids {
		if n := r.st.ids[id]; n != 1 {
			r.t.Errorf("%s: record %s is there %d times", r.group, id, n)
		}
	}
	if n := r.count(); n != len(ids) {
		r.t.Errorf("%s: %d records, %d were sent", r.group, n, len(ids))
	}
	if n := testutil.ToFloat64(r.c.m.gaps.WithLabelValues(r.topic)); n != 0 {
		r.t.Errorf("%s: %v gaps", r.group, n)
	}
}

// TestFaults runs the producer and consumers against three real brokers that die, move and refuse.
func TestFaults(t *testing.T) {
	began := time.Now()
	c := startTrio(t)
	t.Logf("three brokers up in %s", time.Since(began).Round(time.Millisecond))
	for _, f := range []struct {
		name string
		run  func(*trio)
	}{{"compression", compressionFault}, {"too large", tooLargeFault}, {"topics", topicFault}, {"leaders", leaderFault}, {"replicas", replicaFault}} {
		t.Run(f.name, func(t *testing.T) {
			began := time.Now()
			sub := *c
			sub.t = t
			f.run(&sub)
			t.Logf("took %s", time.Since(began).Round(time.Millisecond))
		})
	}
}

// compressionFault: whatever the batches are compressed with, the broker can decompress them (it does, to store them
// uncompressed), and so can our reader and kcat, where there is one.
func compressionFault(c *trio) {
	codecs := slices.Sorted(maps.Keys(compressions))
	var topics []TopicSpec
	for _, name := range codecs {
		for _, stored := range []string{"producer", "uncompressed"} {
			topics = append(topics, TopicSpec{"weir.compression." + name + "." + stored, 1, 3, map[string]string{"compression.type": stored}})
		}
	}
	c.create(topics...)
	for _, name := range codecs {
		k := c.withCompression(name)
		for _, stored := range []string{"producer", "uncompressed"} {
			topic := "weir.compression." + name + "." + stored
			p, err := NewProducer(k, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
			if err != nil {
				c.t.Fatal(err)
			}
			stop := running(p.Run)
			body := strings.Repeat(name+" says the same again and again; ", 300)
			var e schema.Encoder
			e.Reset("s", schema.Incarnation{}, nil)
			e.Append(&schema.Record{Body: body})
			if err := errors.Join(p.Send(c.t.Context(), Message{Topic: topic, Source: "s", End: schema.Position{Offset: 1}, Count: 1, Value: e.Bytes()}), p.Flush(c.t.Context())); err != nil {
				c.t.Fatal(err)
			}
			stop()
			found := errors.New("found")
			if err := k.Tail(c.t.Context(), []string{topic}, true, func(b *schema.Batch) error {
				if b.Records[0].Body != body {
					c.t.Errorf("%s: another body of %d bytes", topic, len(b.Records[0].Body))
				}
				return found
			}, func(err error) { c.t.Error(err) }); !errors.Is(err, found) {
				c.t.Fatal(err)
			}
			kcat, err := exec.LookPath("kcat")
			if err != nil {
				continue
			}
			out, err := exec.Command(kcat, "-C", "-b", strings.Join(c.cfg.Brokers, ","), "-t", topic, "-c", "1", "-f", "%k %s").CombinedOutput()
			if err != nil || !bytes.HasPrefix(out, []byte("s ")) || !bytes.Contains(out, []byte(body)) {
				c.t.Errorf("kcat of %s: %v, %d bytes", topic, err, len(out))
			}
		}
	}
}

func (c *trio) withCompression(name string) *Kafka {
	cfg := c.cfg
	cfg.Compression = name
	k, err := NewKafka(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(k.Close)
	return k
}

func tooLargeFault(c *trio) {
	c.create(durable("weir.large", 1))
	tooLargeFor(c.t, c.withCompression("none"), "weir.large")
}

// topicFault: a topic that is not there yet, and one that is deleted and made anew under load.
func topicFault(c *trio) {
	const topic = "weir.topics"
	var log lockedBuffer
	l := c.load(topic, 2, 5*time.Millisecond, DefaultProducerConfig(), slog.New(slog.NewTextHandler(&log, nil)))
	waitFor(c.t, "the remedy in the log", func() bool { return strings.Contains(log.String(), "create it with `weir topics apply`") })
	made := time.Now()
	c.create(durable(topic, 1))
	l.flows(2)
	c.t.Logf("unknown topic: acknowledgements %s after it was created", time.Since(made).Round(time.Millisecond))
	r := c.read("strict", topic, true)
	waitFor(c.t, "1500 records read", func() bool { return r.count() > 1500 })

	if res, err := c.admin.client.DeleteTopics(c.t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}}); err != nil || res.Errors[topic] != nil {
		c.t.Fatal(err, res)
	}
	// From the first refusal on, nothing is acknowledged by the old topic.
	waitFor(c.t, "a refusal", func() bool { return l.retries("unknown_topic") > 0 })
	l.mu.Lock()
	old := map[string]bool{}
	for id, acked := range l.sent {
		old[id] = acked
	}
	l.mu.Unlock()
	waitFor(c.t, "records that wait", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.sent) > len(old)+100 })
	l.stop() // the new topic stays shorter than the old one was: what comes of one that does not is not promised
	made = time.Now()
	waitFor(c.t, "the topic anew", func() bool { // what the plan says is there may be the old one
		return ApplyTopics(c.t.Context(), c.admin, []TopicChange{{Spec: durable(topic, 1), Create: true}}) == nil && len(c.partition(topic, 0).Isr) > 0
	})
	ids := l.finish()
	c.t.Logf("topic made anew: all acknowledged %s after that", time.Since(made).Round(time.Millisecond))
	missing := func() (n int) {
		r.st.mu.Lock()
		defer r.st.mu.Unlock()
		for _, id := range ids {
			if !old[id] && r.st.ids[id] == 0 {
				n++
			}
		}
		return n
	}
	waitFor(c.t, "what the old topic had not acknowledged", func() bool { return missing() == 0 })
	r.stop()
	for id, n := range r.st.ids {
		if n != 1 {
			c.t.Errorf("record %s is there %d times", id, n)
		}
	}
	c.t.Logf("%d records sent, %d acknowledged by the deleted topic, %d consumed; retries%s", len(ids), countTrue(old), r.count(), l.retried())
}

func countTrue(m map[string]bool) (n int) {
	for _, v := range m {
		if v {
			n++
		}
	}
	return n
}

// leaderFault: leaders and the groups' coordinators die, come back, and are moved, under load.
func leaderFault(c *trio) {
	const topic, partitions, sources = "weir.leaders", 3, 8
	c.create(durable(topic, partitions), TopicSpec{StateTopic("stateful"), partitions, 3, map[string]string{"cleanup.policy": "compact", "min.insync.replicas": "2"}})
	cfg := DefaultProducerConfig()
	cfg.RequestTimeout = 10 * time.Second // how long a frozen broker holds a try up
	l := c.load(topic, sources, 8*time.Millisecond, cfg, quiet())
	strict, stateful := c.read("strict-leaders", topic, true), c.read("stateful", topic, false)
	waitFor(c.t, "records in both sinks", func() bool { return strict.count() > 500 && stateful.count() > 500 })
	l.flows(sources)

	coordinator := func(group string) int {
		for {
			res, err := c.admin.client.FindCoordinator(c.t.Context(), &kafka.FindCoordinatorRequest{Key: group, KeyType: kafka.CoordinatorKeyTypeConsumer})
			if err == nil && res.Error == nil {
				return res.Coordinator.NodeID
			}
			if pause(c.t.Context(), c.t.Context(), 50*time.Millisecond) != nil {
				c.t.Fatal("no coordinator: ", err)
			}
		}
	}
	for _, f := range []struct {
		name string
		node func() int
		end  func(*broker)
		back func(*broker)
	}{
		{"kill -9 of a leader", func() int { return c.partition(topic, 0).Leader.ID }, (*broker).kill, (*broker).start},
		{"freezing of a leader", func() int { return c.partition(topic, 0).Leader.ID }, (*broker).freeze, (*broker).thaw},
		{"kill -9 of the strict group's coordinator", func() int { return coordinator(strict.group) }, (*broker).kill, (*broker).start},
		{"graceful stop of the stateful group's coordinator", func() int { return coordinator(stateful.group) }, (*broker).stop, (*broker).start},
	} {
		id := f.node()
		died := time.Now()
		f.end(c.node(id))
		c.wait("new leaders", func() bool {
			for p := range partitions {
				if now := c.partition(topic, p); now.Leader.ID == id || now.Leader.ID == 0 || now.Error != nil {
					return false
				}
			}
			return true
		})
		elected := time.Since(died)
		stall := l.flows(sources)
		was, wasState := strict.count(), stateful.count()
		waitFor(c.t, "new records in both sinks", func() bool { return strict.count() > was+100 && stateful.count() > wasState+100 })
		read := time.Since(died)
		f.back(c.node(id))
		c.healthy(topic, partitions)
		c.t.Logf("%s: new leaders after %s, longest wait of a source for an acknowledgement %s, both sinks go on after %s; back in sync: longest wait %s",
			f.name, elected.Round(time.Millisecond), stall, read.Round(time.Millisecond), l.flows(sources))
	}
	res, err := c.admin.client.ElectLeaders(c.t.Context(), &kafka.ElectLeadersRequest{Topic: topic, Partitions: []int{0, 1, 2}, Timeout: 10 * time.Second})
	if err != nil || res.Error != nil {
		c.t.Fatal(err, res)
	}
	c.wait("the preferred leaders", func() bool {
		for p := range partitions {
			if now := c.partition(topic, p); len(now.Replicas) == 0 || now.Leader.ID != now.Replicas[0].ID {
				return false
			}
		}
		return true
	})
	c.t.Logf("leaders moved by an election: longest wait %s", l.flows(sources))

	ids := l.finish()
	c.t.Logf("%d records sent in %d batches, %d batches in the topic; retries%s; dropped as repeats: %v", len(ids), len(ids)/5, c.raw(topic, partitions), l.retried(),
		testutil.ToFloat64(strict.c.m.repeated.WithLabelValues(topic)))
	strict.has(ids)
	stateful.has(ids)
}

// replicaFault: too few replicas, then two of three brokers away: the producer holds, within its bound, and goes on.
func replicaFault(c *trio) {
	const topic, partitions, sources = "weir.replicas", 3, 8
	c.create(durable(topic, partitions))
	cfg := ProducerConfig{InflightBytes: 128 << 10, RequestBytes: 32 << 10, RequestTimeout: 3 * time.Second}
	l := c.load(topic, sources, time.Millisecond, cfg, quiet())
	r := c.read("strict-replicas", topic, true)
	waitFor(c.t, "records read", func() bool { return r.count() > 500 })

	setTopic(c.t, c.admin, topic, "min.insync.replicas", "3")
	c.node(2).kill()
	// All of them wait: what was accepted is at the bound, and Send takes no more.
	full := func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 200*time.Millisecond)
		defer cancel()
		if l.p.budget.Acquire(ctx, 8<<10) != nil {
			return true
		}
		l.p.budget.Release(8 << 10)
		return false
	}
	waitFor(c.t, "refusals for want of replicas", func() bool { return l.retries("not_enough_replicas") > 0 && full() })
	acked := l.ackedSoFar()
	c.node(3).kill()
	waitFor(c.t, "tries against brokers that are away", func() bool { return l.retries("connection")+l.retries("timeout")+l.retries("no_leader") > 5 })
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	// Every source may have one more in its hands, for which Send has no room yet.
	if bound := cfg.InflightBytes + sources*2<<10; held > bound {
		c.t.Errorf("%d bytes held, more than %d", held, bound)
	}
	if n := l.ackedSoFar(); n != acked {
		c.t.Errorf("%d records were acknowledged with one replica of three", n-acked)
	}
	c.t.Logf("two of three brokers away: %d records acknowledged before, %d bytes held; retries%s", acked, held, l.retried())

	back := time.Now()
	c.node(2).start()
	c.node(3).start()
	c.healthy(topic, partitions)
	up := time.Now()
	l.flows(sources)
	c.t.Logf("brokers in sync %s after their start, acknowledgements for every source %s after that", up.Sub(back).Round(time.Millisecond), time.Since(up).Round(time.Millisecond))
	ids := l.finish()
	c.t.Logf("%d records sent in %d batches, %d batches in the topic", len(ids), len(ids)/5, c.raw(topic, partitions))
	r.has(ids)
}

// lockedBuffer takes a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }
