package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/prometheus/client_golang/prometheus"

	"weir/agent/multiline"
	"weir/ingest"
	"weir/schema"
)

// kafka stands for the producer: it keeps what was sent as consumers would see it, by id.
type kafka struct {
	t      *testing.T
	mu     sync.Mutex
	hold   bool        // acknowledge nothing
	away   atomic.Bool // take nothing
	scarce bool        // there is room only every other time
	asked  atomic.Int64
	freed  chan struct{}
	recs   map[string]string
	last   map[string]schema.Position // by source: end of the last batch
	evs    []schema.Record
	lost   map[string]loss              // by id
	sent   []string                     // sources of the batches, in order
	said   map[string]map[string]string // by body: the resource

	onSend func() // in the reading goroutine

	ignore string           // a record that is not kept
	times  map[string]int64 // by record
}

func newKafka(t *testing.T) *kafka {
	return &kafka{t: t, recs: map[string]string{}, lost: map[string]loss{}, said: map[string]map[string]string{}, freed: make(chan struct{}, 1), times: map[string]int64{}, last: map[string]schema.Position{}}
}

func (k *kafka) Room(string, int64) bool {
	return !k.away.Load() && (!k.scarce || k.asked.Add(1)%2 == 0)
}

func (k *kafka) Freed() <-chan struct{} { return k.freed }

// back ends being away.
func (k *kafka) back() {
	k.away.Store(false)
	k.freed <- struct{}{}
}

func (k *kafka) Flush(context.Context) error { return nil }

func (k *kafka) Send(_ context.Context, m ingest.Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.onSend != nil {
		k.onSend()
	}
	info := schema.Info{Source: m.Source, Begin: m.Begin, End: m.End, Prev: m.Prev, PrevKnown: m.PrevKnown, Count: m.Count}
	var headers [][2]string
	info.EachHeader(func(key string, v []byte) { headers = append(headers, [2]string{key, string(v)}) })
	got, err := schema.ParseInfo(func(f func(string, []byte)) {
		for _, h := range headers {
			f(h[0], []byte(h[1]))
		}
	})
	if err != nil {
		k.t.Errorf("headers: %v", err)
	}
	var b schema.Batch
	if err := new(schema.Decoder).Decode(bytes.Clone(m.Value), &got, &b); err != nil {
		k.t.Errorf("batch %v-%v: %v", m.Begin, m.End, err)
	}
	k.sent = append(k.sent, m.Source)
	resource := map[string]string{}
	for _, attr := range b.Resource {
		resource[attr.Key] = attr.Str
	}
	for i := range b.Records {
		r := &b.Records[i]
		if m.Topic == schema.TopicEvents || r.EventName != "" {
			k.evs = append(k.evs, *r)
			if r.EventName == schema.EventLoss {
				reason, _ := r.Attr(schema.AttrLossReason)
				records, _ := r.Attr(schema.AttrLossRecords)
				lost, _ := r.Attr(schema.AttrLossBytes)
				k.lost[b.ID(r)] = loss{reason: reason.Str, records: records.Num, bytes: lost.Num}
				if !(m.Begin.Offset <= r.Offset && r.Offset < m.End.Offset) {
					k.t.Errorf("a loss record at %d is outside of its batch %v-%v", r.Offset, m.Begin, m.End)
				}
			}
			continue
		}
		stream, _ := r.Attr(schema.AttrStream)
		marks := ""
		for _, key := range []string{schema.AttrTruncated, schema.AttrPartial, schema.AttrDamaged} {
			if _, ok := r.Attr(key); ok {
				marks += " " + key
			}
		}
		id, body := b.ID(r), stream.Str+marks+": "+r.Body
		if old, ok := k.recs[id]; ok && old != body {
			k.t.Errorf("record %s was %.60q and is now %.60q", id, old, body)
		}
		if k.ignore == "" || body != k.ignore {
			k.recs[id], k.said[r.Body], k.times[body] = body, resource, r.Time
		}
	}
	if !k.hold && m.Acked != nil {
		m.Acked()
	}
	return nil
}

// bodies lists the distinct records in the order of their positions.
func (k *kafka) bodies() map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[string]int{}
	for _, body := range k.recs {
		all[body]++
	}
	return all
}

func (k *kafka) eventNames() (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.evs {
		names = append(names, r.EventName)
	}
	return names
}

// fakeEngine has containers and a stream of events.
type fakeEngine struct {
	mu         sync.Mutex
	containers map[string]container
	history    []events.Message
	logged     map[string]*driverLog // of containers whose driver keeps its files
}

func (e *fakeEngine) list(context.Context) (all []container, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		all = append(all, c)
	}
	return all, nil
}

func (e *fakeEngine) inspect(_ context.Context, id string) (container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, ok := e.containers[id]
	if !ok {
		return c, fmt.Errorf("no container %s", id)
	}
	return c, nil
}

func (e *fakeEngine) follow(ctx context.Context, since int64, ready func(), f func(events.Message)) error {
	ready()
	at := 0
	for {
		e.mu.Lock()
		history := e.history
		e.mu.Unlock()
		for ; at < len(history); at++ {
			if history[at].TimeNano >= since {
				f(history[at])
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (e *fakeEngine) emit(action events.Action, id string, at int64, attrs map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.history = append(e.history, events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: id, Attributes: attrs}, TimeNano: at})
	if action == events.ActionDestroy {
		delete(e.containers, id)
	}
}

// dockerLog writes as Docker's json-file driver does.
type dockerLog struct {
	t    *testing.T
	path string
	now  int64
	keep int
	live bool // the lines have the time of day
}

func (d *dockerLog) write(stream, log string) {
	d.t.Helper()
	d.now += 1000
	if d.live {
		d.now = max(d.now, time.Now().UnixNano())
	}
	b, _ := json.Marshal(struct {
		Log    string    `json:"log"`
		Stream string    `json:"stream"`
		Time   time.Time `json:"time"`
	}{log, stream, time.Unix(0, d.now).UTC()})
	d.raw(string(b) + "\n")
}

func (d *dockerLog) raw(s string) {
	d.t.Helper()
	f, err := os.OpenFile(d.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := f.WriteString(s); err != nil {
		d.t.Fatal(err)
	}
	f.Close()
}

func (d *dockerLog) rotate() {
	for n := d.keep; n > 0; n-- {
		from := fmt.Sprintf("%s.%d", d.path, n-1)
		if n == 1 {
			from = d.path
		}
		_ = os.Rename(from, fmt.Sprintf("%s.%d", d.path, n))
	}
}

type fixture struct {
	t      *testing.T
	cfg    Config
	engine *fakeEngine
	out    *kafka
	agent  *Agent // the last that was started
	log    *dockerLog
}

func setup(t *testing.T) *fixture {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Node, cfg.StateDir = "n1", filepath.Join(dir, "state")
	cfg.Poll, cfg.Linger, cfg.StopTimeout = time.Millisecond, time.Millisecond, time.Second
	path := filepath.Join(dir, "c1-json.log")
	return &fixture{t: t, cfg: cfg, out: newKafka(t), log: &dockerLog{t: t, path: path, now: 1764054000e9, keep: 9},
		engine: &fakeEngine{containers: map[string]container{"c1": {id: "c1", name: "web", image: "app:1", driver: "json-file", path: path, running: true, labels: map[string]string{"weir.app": "shop"}}}}}
}

// start runs an agent; stop ends it cleanly.
func (f *fixture) start() (stop func()) {
	f.t.Helper()
	a, err := newAgent(f.cfg, f.engine, f.out, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	if err != nil {
		f.t.Fatal(err)
	}
	f.agent = a
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("agent: %v", err)
		}
	}
}

// some lists a few bodies, cut short.
func some(bodies map[string]int) (all string) {
	for body, n := range bodies {
		if all += fmt.Sprintf("%.60q: %d, ", body, n); len(all) > 1000 {
			return all + "..."
		}
	}
	return all
}

func (f *fixture) await(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s did not come; there are %d records: %s", what, len(f.out.recs), some(f.out.bodies()))
		}
	}
}

// expect waits for exactly these records, each once.
func (f *fixture) expect(bodies ...string) {
	f.t.Helper()
	f.await("all records", func() bool { return len(f.out.bodies()) >= len(bodies) })
	got := f.out.bodies()
	for _, b := range bodies {
		if got[b] != 1 {
			f.t.Errorf("%.80q is there %d times", b, got[b])
		}
		delete(got, b)
	}
	for b, n := range got {
		f.t.Errorf("unexpected, %d times: %.80q", n, b)
	}
}

func TestLinesAndPieces(t *testing.T) {
	f := setup(t)
	long := strings.Repeat("x", 16<<10)
	f.log.write("stdout", "one\n")
	f.log.write("stdout", long)
	f.log.write("stderr", "between\n")
	f.log.rotate() // a long message straddles the rotation
	f.log.write("stdout", long)
	f.log.write("stderr", "after\n")
	f.log.write("stdout", "end\n")
	f.log.raw("\x00\x00 not json\n")
	f.log.write("stderr", "esc \"\\\u00e9\t\n")
	defer f.start()()
	f.expect("stdout: one", "stdout: "+long+long+"end", "stderr: between", "stderr: after", " weir.damaged:  not json", "stderr: esc \"\\\u00e9\t")
}

// compress does to rotated files what Docker does with compress=true.
func (d *dockerLog) compress(from int, damage bool) {
	d.t.Helper()
	for n := from; ; n++ {
		name := fmt.Sprintf("%s.%d", d.path, n)
		data, err := os.ReadFile(name)
		if err != nil {
			return
		}
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(data)
		_ = z.Close()
		packed := b.Bytes()
		if damage {
			packed = packed[:len(packed)/2]
		}
		if err := os.WriteFile(name+".gz", packed, 0o600); err != nil {
			d.t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			d.t.Fatal(err)
		}
	}
}

// rotateCompressed makes room as a rotation does.
func (d *dockerLog) rotateCompressed() {
	for n := d.keep; n > 1; n-- {
		_ = os.Rename(fmt.Sprintf("%s.%d.gz", d.path, n-1), fmt.Sprintf("%s.%d.gz", d.path, n))
	}
	d.rotate()
}

// TestCompressedFiles rotates and compresses while the agent is down, in the middle of a file, and while it reads.
func TestCompressedFiles(t *testing.T) {
	f := setup(t)
	var want []string
	write := func(n int) {
		for range n {
			line := fmt.Sprintf("line %d %x", len(want), sha256.Sum256(fmt.Append(nil, len(want))))
			want = append(want, "stdout: "+line)
			f.log.write("stdout", line+"\n")
		}
	}
	write(10)
	stop := f.start()
	f.expect(want...)
	stop()
	write(10) // the agent goes on in the middle of a file that is packed by then
	f.log.rotateCompressed()
	write(10)
	f.log.rotateCompressed()
	f.log.compress(1, false)
	write(10)
	stop = f.start()
	f.expect(want...)
	for range 4 { // packed while it is being read
		write(5)
		f.log.rotateCompressed()
		write(5)
		f.log.compress(1, false)
	}
	f.expect(want...)
	stop()
	if names := fmt.Sprint(f.out.eventNames()); strings.Contains(names, schema.EventLoss) {
		t.Errorf("events: %s", names)
	}
}

func TestDamagedCompressedFile(t *testing.T) {
	f := setup(t)
	for i := range 200 {
		f.log.write("stdout", fmt.Sprintf("old %d %x\n", i, sha256.Sum256(fmt.Append(nil, i))))
	}
	f.log.rotateCompressed()
	f.log.compress(1, true)
	f.log.write("stdout", "new\n")
	defer f.start()()
	f.await("the new line", func() bool { return f.out.bodies()["stdout: new"] == 1 })
	f.await("the loss record", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), schema.EventLoss) })
	if n := len(f.out.bodies()); n < 50 || n > 150 {
		t.Errorf("%d records of a file that was cut in half", n)
	}
}

func TestTruncation(t *testing.T) {
	f := setup(t)
	f.cfg.MaxRecordBytes = 40 << 10
	long := strings.Repeat("y", 16<<10)
	for range 4 {
		f.log.write("stdout", long)
	}
	f.log.write("stdout", "z\n")
	defer f.start()()
	f.expect("stdout weir.truncated: "+long+long, "stdout: "+long+long+"z")
}

// TestRandomCrashes writes two interleaved streams with long messages over many rotations, crashes the agent at
// random, loses its state now and then, and wants every message once, with the id and the body that it had before.
func TestRandomCrashes(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 9))
			f := setup(t)
			f.log.keep = 1000
			f.cfg.BatchBytes = 2 << 10
			var want []string
			open := map[string]string{}
			n := 0
			stop := f.start()
			for range 25 {
				for range r.IntN(40) {
					stream := []string{"stdout", "stderr"}[r.IntN(2)]
					piece := fmt.Sprintf("%d-%s", n, strings.Repeat("p", r.IntN(300)))
					n++
					whole := r.IntN(4) > 0
					open[stream] += piece
					if whole {
						want = append(want, stream+": "+open[stream])
						open[stream] = ""
						piece += "\n"
					}
					f.log.write(stream, piece)
					if r.IntN(12) == 0 {
						f.log.rotate()
					}
					if r.IntN(20) == 0 {
						f.log.now -= 5000 // the clock steps back
					}
				}
				switch r.IntN(3) {
				case 0: // killed: what is acknowledged from now on reaches nobody
					f.out.mu.Lock()
					f.out.hold = true
					f.out.mu.Unlock()
					stop()
					f.out.mu.Lock()
					f.out.hold = false
					f.out.mu.Unlock()
					if r.IntN(4) == 0 {
						_ = os.Remove(filepath.Join(f.cfg.StateDir, checkpointName))
					}
					stop = f.start()
				case 1:
					time.Sleep(time.Duration(r.IntN(8)) * time.Millisecond)
				}
			}
			for stream, rest := range open {
				if rest != "" {
					f.log.write(stream, "\n")
					want = append(want, stream+": "+rest)
				}
			}
			f.expect(want...)
			stop()
		})
	}
}

// TestRandomCrashesWithTraces does the same with lines that are joined. The cuts wanted are those of a joiner that reads each
// stream in one go, from the timestamps in the log.
func TestRandomCrashesWithTraces(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 11))
			f := setup(t)
			f.log.keep, f.log.live = 1000, true
			f.cfg.BatchBytes = 2 << 10
			cfg := multiline.DefaultConfig()
			cfg.MaxGap, cfg.MaxLines = 400*time.Millisecond, 20
			f.cfg.Multiline = map[string]multiline.Config{"shop": cfg}
			joiner, err := multiline.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			states, last := map[string]*multiline.State{"stdout": {}, "stderr": {}}, map[string]int{"stdout": -1, "stderr": -1}
			write := func(stream, line string) {
				for rest := line + "\n"; rest != ""; {
					piece := rest[:min(len(rest), 200)]
					f.log.write(stream, piece)
					rest = rest[len(piece):]
				}
				if joiner.Continues(states[stream], []byte(line), f.log.now) && last[stream] >= 0 {
					want[last[stream]] += "\n" + line
					return
				}
				want = append(want, stream+": "+line)
				last[stream] = len(want) - 1
			}
			stop := f.start()
			for n := range 120 {
				stream := []string{"stdout", "stderr"}[r.IntN(2)]
				write(stream, fmt.Sprintf("2026-11-25 12:00:00 ERROR request %d failed %s", n, strings.Repeat("x", r.IntN(400))))
				if r.IntN(2) == 0 {
					write(stream, fmt.Sprintf("java.lang.IllegalStateException: number %d", n))
					for i := range r.IntN(30) {
						write(stream, fmt.Sprintf("\tat com.bank.Ledger.post%d_%d(Ledger.java:%d)", n, i, i))
						if r.IntN(40) == 0 {
							f.log.rotate()
						}
					}
				}
				switch r.IntN(12) {
				case 0:
					f.out.mu.Lock()
					f.out.hold = true
					f.out.mu.Unlock()
					stop()
					f.out.mu.Lock()
					f.out.hold = false
					f.out.mu.Unlock()
					if r.IntN(3) == 0 {
						_ = os.Remove(filepath.Join(f.cfg.StateDir, checkpointName))
					}
					stop = f.start()
				case 1:
					time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
				}
			}
			f.expect(want...)
			stop()
		})
	}
}

func TestSecretsDoNotLeaveTheAgent(t *testing.T) {
	f := setup(t)
	f.log.write("stdout", "paid with 4111 1111 1111 1111 by bob\n")
	f.log.write("stdout", "plain\n")
	defer f.start()()
	f.expect("stdout: paid with [redacted:card:1111] by bob", "stdout: plain")
}

func TestRemovedContainerIsReadToItsEnd(t *testing.T) {
	f := setup(t)
	f.log.write("stdout", "first\n")
	defer f.start()()
	f.expect("stdout: first")
	f.log.write("stdout", "last\n")
	f.log.write("stderr", "no newline")
	if err := os.Remove(f.log.path); err != nil {
		t.Fatal(err)
	}
	f.engine.emit(events.ActionDie, "c1", 1, map[string]string{"name": "web", "image": "app:1", "exitCode": "137", "weir.app": "shop"})
	f.engine.emit(events.ActionDestroy, "c1", 1, map[string]string{"name": "web"})
	f.await("the closed record and the events", func() bool {
		names := fmt.Sprint(f.out.eventNames())
		return strings.Contains(names, schema.EventSourceClosed) && strings.Contains(names, "docker.container.destroy")
	})
	f.expect("stdout: first", "stdout: last", "stderr weir.partial: no newline")
	f.out.mu.Lock()
	defer f.out.mu.Unlock()
	var die *schema.Record
	for i := range f.out.evs {
		if f.out.evs[i].EventName == "docker.container.die" {
			die = &f.out.evs[i]
		}
	}
	if die == nil {
		t.Fatal("no die event")
	}
	if code, _ := die.Attr(schema.AttrExitCode); code.Num != 137 || die.Body != "container web died, exit code 137" {
		t.Errorf("die event: %+v", die)
	}
}

func TestVanishedLogIsALossRecord(t *testing.T) {
	f := setup(t)
	f.log.write("stdout", "first\n")
	stop := f.start()
	f.expect("stdout: first")
	stop()
	// While the agent is down the container writes on and is removed with its log.
	if err := os.Remove(f.log.path); err != nil {
		t.Fatal(err)
	}
	delete(f.engine.containers, "c1")
	defer f.start()()
	f.await("the closed record", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), schema.EventSourceClosed) })
	if names := fmt.Sprint(f.out.eventNames()); !strings.Contains(names, schema.EventLoss) {
		t.Errorf("events: %s", names)
	}
}

// TestGoneBeforeItWasSeen has containers that are destroyed before the engine can say where their logs are.
func TestGoneBeforeItWasSeen(t *testing.T) {
	f := setup(t)
	at := time.Now().UnixNano() + int64(time.Minute)
	defer f.start()()
	f.engine.emit("create", "c2", at, map[string]string{"name": "brief"})
	f.engine.emit("start", "c2", at+1, map[string]string{"name": "brief"})
	f.engine.emit("die", "c2", at+2, map[string]string{"name": "brief", "exitCode": "0"})
	f.engine.emit("destroy", "c2", at+3, map[string]string{"name": "brief"})
	f.engine.emit("create", "c3", at+4, map[string]string{"name": "never-started"})
	f.engine.emit("destroy", "c3", at+5, map[string]string{"name": "never-started"})
	f.await("the loss record", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), schema.EventSourceClosed) })
	time.Sleep(20 * time.Millisecond)
	names := fmt.Sprint(f.out.eventNames())
	if strings.Count(names, schema.EventLoss) != 1 || strings.Count(names, schema.EventSourceClosed) != 1 {
		t.Errorf("want one loss and one closed record: %s", names)
	}
}

// TestGoneBeforeAnAcknowledgement kills the agent before Kafka has anything of a log, and removes the container meanwhile.
func TestGoneBeforeAnAcknowledgement(t *testing.T) {
	f := setup(t)
	f.out.hold = true
	f.log.write("stdout", "first\n")
	stop := f.start()
	f.expect("stdout: first")
	stop()
	f.out.hold = false
	f.out.recs = map[string]string{} // it never got there
	if err := os.Remove(f.log.path); err != nil {
		t.Fatal(err)
	}
	delete(f.engine.containers, "c1")
	defer f.start()()
	f.await("the closed record", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), schema.EventSourceClosed) })
	if names := fmt.Sprint(f.out.eventNames()); !strings.Contains(names, schema.EventLoss) {
		t.Errorf("events: %s", names)
	}
}

// TestGoneWithTheState has a container that comes and goes while the agent is down, and the checkpoint is damaged.
func TestGoneWithTheState(t *testing.T) {
	f := setup(t)
	f.log.write("stdout", "first\n")
	stop := f.start()
	f.expect("stdout: first")
	stop()
	if err := os.WriteFile(filepath.Join(f.cfg.StateDir, checkpointName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().UnixNano()
	f.engine.emit("start", "c2", at, map[string]string{"name": "brief"})
	f.engine.emit("destroy", "c2", at+1, map[string]string{"name": "brief"})
	defer f.start()()
	f.await("the loss record", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), schema.EventSourceClosed) })
	if names := fmt.Sprint(f.out.eventNames()); strings.Count(names, schema.EventLoss) != 1 {
		t.Errorf("events: %s", names)
	}
}

// TestFullDisk cannot write checkpoints for a while: reading goes on, readiness says why, and the next checkpoint mends it.
func TestFullDisk(t *testing.T) {
	f := setup(t)
	f.log.write("stdout", "first\n")
	defer f.start()()
	f.expect("stdout: first")
	path := filepath.Join(f.cfg.StateDir, checkpointName)
	f.await("a checkpoint", func() bool { _, err := os.Stat(path); return err == nil && f.agent.DiskReady(t.Context()) == nil })
	if err := os.Mkdir(path+".tmp", 0o700); err != nil { // the file that is written aside cannot be made
		t.Fatal(err)
	}
	f.log.write("stdout", "second\n")
	f.expect("stdout: first", "stdout: second")
	f.await("the error", func() bool { return f.agent.DiskReady(t.Context()) != nil })
	if err := os.Remove(path + ".tmp"); err != nil {
		t.Fatal(err)
	}
	f.await("the next checkpoint", func() bool { return f.agent.DiskReady(t.Context()) == nil })
}

func TestDamagedCheckpoint(t *testing.T) {
	f := setup(t)
	f.log.write("stdout", "first\n")
	stop := f.start()
	f.expect("stdout: first")
	stop()
	path := filepath.Join(f.cfg.StateDir, checkpointName)
	if err := os.WriteFile(path, []byte(`{"version":1,"sources":{"docker/n1/c1":{"at":"17640`), 0o600); err != nil {
		t.Fatal(err)
	}
	f.log.write("stdout", "second\n")
	defer f.start()()
	f.expect("stdout: first", "stdout: second")
	if _, err := os.Stat(path + ".bad"); err != nil {
		t.Error(err)
	}
}

// TestEventsWithATurnedBackClock has events that bear earlier times than those before them, on both sides of a restart.
func TestEventsWithATurnedBackClock(t *testing.T) {
	f := setup(t)
	web := map[string]string{"name": "web", "exitCode": "0"}
	f.engine.emit("start", "c1", 900e9, web)
	f.engine.emit("die", "c1", 900e9-5, web)
	stop := f.start()
	f.await("two events", func() bool { return len(f.out.eventNames()) == 2 })
	f.engine.emit("start", "c1", 300e9, web)
	f.await("three events", func() bool { return len(f.out.eventNames()) == 3 })
	stop()
	f.engine.emit("die", "c1", 301e9, web)
	stop = f.start()
	f.await("four events", func() bool { return len(f.out.eventNames()) == 4 })
	stop()
	if len(f.out.eventNames()) != 4 {
		t.Errorf("events: %v", f.out.eventNames())
	}
}

// TestForgottenEvents has an engine that no longer knows what the agent took last.
func TestForgottenEvents(t *testing.T) {
	f := setup(t)
	web := map[string]string{"name": "web", "exitCode": "0"}
	f.engine.emit("start", "c1", 100e9, web)
	stop := f.start()
	f.await("an event", func() bool { return len(f.out.eventNames()) == 1 })
	stop()
	f.engine.mu.Lock()
	f.engine.history = nil
	f.engine.mu.Unlock()
	f.engine.emit("die", "c1", 200e9, web)
	stop = f.start()
	f.await("the events after", func() bool { return len(f.out.eventNames()) == 3 })
	stop()
	if got, want := fmt.Sprint(f.out.eventNames()), "[docker.container.start weir.gap.opened docker.container.die]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
}

func TestEventsAreNotRepeated(t *testing.T) {
	f := setup(t)
	f.engine.emit("start", "c1", 100, map[string]string{"name": "web"})
	f.engine.emit("health_status: healthy", "c1", 100, map[string]string{"name": "web"})
	stop := f.start()
	f.await("two events", func() bool { return len(f.out.eventNames()) == 2 })
	stop()
	f.engine.emit("die", "c1", 200, map[string]string{"name": "web", "exitCode": "0"})
	stop = f.start()
	f.await("the third event", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), "docker.container.die") })
	stop()
	if got, want := fmt.Sprint(f.out.eventNames()), "[docker.container.start docker.container.health_status docker.container.die]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2026-01-02T03:04:05.678Z"}`))
	f.Add([]byte(`{"log":"\u00e9\ud83d\ude00\ud83d","stream":"stderr","attrs":{"a":"b"},"time":"2024-02-29T03:04:05Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fast, _, ok := scanLine(b, nil)
		if !ok {
			return
		}
		var j struct {
			Log    string    `json:"log"`
			Stream string    `json:"stream"`
			Time   time.Time `json:"time"`
		}
		if err := json.Unmarshal(b, &j); err != nil {
			t.Fatalf("taken by the scanner, refused by encoding/json: %q: %v", b, err)
		}
		if string(fast.log) != j.Log || fast.stream != j.Stream || fast.time != j.Time.UnixNano() {
			t.Fatalf("%q: scanner %q %q %d, reference %q %q %d", b, fast.log, fast.stream, fast.time, j.Log, j.Stream, j.Time.UnixNano())
		}
	})
}

func BenchmarkLineToRecord(b *testing.B) {
	line := []byte(`{"log":"` + strings.Repeat("a log line of two hundred bytes ", 6) + `\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}`)
	var e schema.Encoder
	var buf []byte
	attrs := []schema.Attr{schema.String(schema.AttrStream, "stdout")}
	e.Reset("s", schema.Incarnation{}, nil)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%1000 == 0 {
			e.Reset("s", schema.Incarnation{}, nil)
		}
		l, text, err := parseLine(line, buf[:0])
		if err != nil {
			b.Fatal(err)
		}
		buf = text
		e.Append(&schema.Record{Time: l.time, Body: string(l.log), Offset: int64(i), Attrs: attrs})
	}
}
