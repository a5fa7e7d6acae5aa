package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"weir/schema"
)

// driverLog is the log of a container as a driver keeps it, and gives it through the engine.
type driverLog struct {
	mu      sync.Mutex
	now     int64
	entries []driverEntry
	deleted int // entries that a rotation took
	tty     bool
	running bool
	removed bool
	refused bool
	stalls  bool // the stream that is followed gives nothing new
	cut     int  // the next stream breaks after so many bytes; 0: it does not
	opened  int
	nap     time.Duration // between looks of a stream that is followed
}

type driverEntry struct {
	stream int
	time   int64
	body   string
}

// write does what the engine's copier and the local driver do: pieces of 16 KiB with the time of the first, no newline after any.
func (d *driverLog) write(stream int, message string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now += 1000
	if len(message) < copierBytes {
		d.entries = append(d.entries, driverEntry{stream, d.now, message + "\n"})
		return
	}
	for at := 0; at <= len(message); at += copierBytes {
		d.entries = append(d.entries, driverEntry{stream, d.now, message[at:min(len(message), at+copierBytes)]})
	}
}

func (d *driverLog) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (e driverEntry) encode(tty bool) []byte {
	text := time.Unix(0, e.time).UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + " " + e.body
	if tty {
		return []byte(text)
	}
	return append(binary.BigEndian.AppendUint32([]byte{byte(e.stream + 1), 0, 0, 0}, uint32(len(text))), text...)
}

// driverStream is one answer of the engine.
type driverStream struct {
	ctx    context.Context
	d      *driverLog
	since  int64
	follow bool
	end    int // of the entries that were there at the opening
	at     int
	cut    int
	rest   []byte
}

func (e *fakeEngine) logs(ctx context.Context, id string, w window, follow bool) (io.ReadCloser, error) {
	e.mu.Lock()
	d := e.logged[id]
	e.mu.Unlock()
	if d == nil {
		return nil, errdefs.ErrNotFound
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened++
	switch {
	case d.removed:
		return nil, errdefs.ErrNotFound
	case d.refused:
		return nil, errdefs.ErrNotImplemented.WithMessage("configured logging driver does not support reading")
	}
	s := &driverStream{ctx: ctx, d: d, since: w.since, follow: follow && d.running, end: len(d.entries), at: d.deleted, cut: d.cut}
	if w.tail >= 0 {
		s.at = max(s.at, len(d.entries)-w.tail)
	}
	d.cut = 0
	return s, nil
}

func (s *driverStream) Close() error { return nil }

func (s *driverStream) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		if err := s.ctx.Err(); err != nil {
			return 0, err
		}
		s.d.mu.Lock()
		d, end := s.d, s.end
		if s.follow && !d.stalls {
			end = len(d.entries)
		}
		for ; s.at < end; s.at++ {
			if e := d.entries[s.at]; e.time >= s.since {
				s.rest = append(s.rest, e.encode(d.tty)...)
			}
		}
		if s.cut > 0 && len(s.rest) > s.cut {
			s.rest = s.rest[:s.cut]
		}
		ended := !s.follow || !d.running || d.removed
		d.mu.Unlock()
		if len(s.rest) > 0 {
			break
		}
		if ended {
			return 0, io.EOF
		}
		time.Sleep(max(time.Millisecond, d.nap))
	}
	if s.cut < 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	if s.cut > 0 && len(s.rest) == 0 {
		s.cut = -1
	}
	return n, nil
}

// setupDriver has c1 with the driver local instead of json-file.
func setupDriver(t *testing.T) (*fixture, *driverLog) {
	f := setup(t)
	d := &driverLog{now: time.Now().UnixNano(), running: true}
	f.engine.containers["c1"] = container{id: "c1", name: "web", image: "app:1", driver: "local", running: true, ran: true, labels: map[string]string{"weir.app": "shop"}}
	f.engine.logged = map[string]*driverLog{"c1": d}
	return f, d
}

// crash ends the agent after which the broker's acknowledgements reach nobody.
func (f *fixture) crash(stop func()) {
	f.out.mu.Lock()
	f.out.hold = true
	f.out.mu.Unlock()
	stop()
	f.out.mu.Lock()
	f.out.hold = false
	f.out.mu.Unlock()
}

func (f *fixture) awaitEvents(names ...string) {
	f.t.Helper()
	f.await(fmt.Sprint(names), func() bool {
		all := f.out.eventNames()
		return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(all, name) })
	})
}

func TestEngineLog(t *testing.T) {
	f, d := setupDriver(t)
	long := strings.Repeat("x", 3*copierBytes+5)
	d.write(0, "one")
	d.write(0, long)
	d.write(1, "err")
	d.write(0, strings.Repeat("y", copierBytes))
	d.write(0, "")
	d.write(0, "paid with 4111 1111 1111 1111")
	// Pieces of one stream among entries of the other.
	d.entries = append(d.entries, driverEntry{0, 5, strings.Repeat("z", copierBytes)}, driverEntry{1, 6, "between\n"}, driverEntry{0, 5, "end"})
	// A piece whose message is not continued, as after an exit in the middle of a line.
	d.entries = append(d.entries, driverEntry{0, 7, strings.Repeat("w", copierBytes)}, driverEntry{0, 8, "next\n"})
	defer f.start()()
	want := []string{"stdout: one", "stdout: " + long, "stderr: err", "stdout: " + strings.Repeat("y", copierBytes), "stdout: ", "stdout: paid with [redacted:card:1111]",
		"stdout: " + strings.Repeat("z", copierBytes) + "end", "stderr: between", "stdout: " + strings.Repeat("w", copierBytes), "stdout: next"}
	f.expect(want...)
	d.write(1, "live")
	f.expect(append(want, "stderr: live")...)
	f.await("the status", func() bool {
		all := f.agent.Status()
		return len(all) == 1 && all[0].Source == "docker/n1/c1" && all[0].State == stateQuiet && all[0].Lines == int64(len(d.entries)) && all[0].Position == all[0].Acked
	})
}

func TestEngineLogPositionsAreTimes(t *testing.T) {
	f, d := setupDriver(t)
	for _, at := range []int64{100, 100, 100, 90, 200} { // ties, and a clock that goes back
		d.entries = append(d.entries, driverEntry{0, at, "a\n"})
	}
	stop := f.start()
	f.await("all", func() bool { return f.out.bodies()["stdout: a"] == 5 })
	stop()
	for _, offset := range []int64{100, 101, 102, 103, 200} {
		id := schema.AppendID(nil, schema.SourceHash("docker/n1/c1"), schema.Position{Offset: offset})
		if _, ok := f.out.recs[string(id)]; !ok {
			t.Errorf("no record at %d", offset)
		}
	}
}

// TestEngineLogRandom writes two streams with long messages, ties and disorder, crashes the agent, breaks streams, restarts the
// container, loses the state now and then, and wants every message once, with the id and body that it had before.
func TestEngineLogRandom(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 13))
			f, d := setupDriver(t)
			d.tty = seed%3 == 2
			c := f.engine.containers["c1"]
			c.tty = d.tty
			f.engine.containers["c1"] = c
			f.cfg.BatchBytes = 2 << 10
			var want []string
			stop := f.start()
			at := time.Now().UnixNano()
			for n := range 300 {
				stream := r.IntN(2)
				message := fmt.Sprintf("%d-%s", n, strings.Repeat("p", r.IntN(200)))
				if r.IntN(10) == 0 {
					message += strings.Repeat("0123456789abcdef", r.IntN(3<<10)) // some pieces are equal
				}
				if d.tty {
					stream, message = 0, message+"\r"
				}
				want = append(want, []string{"stdout: ", "stderr: "}[stream]+message)
				d.write(stream, message)
				switch r.IntN(20) {
				case 0:
					d.set(func() { d.now -= 1000 }) // the same time again
				case 1:
					d.set(func() { d.now -= int64(r.IntN(int(time.Second))) })
				case 2:
					d.set(func() { d.cut = 1 + r.IntN(4<<10) })
				case 3:
					d.set(func() { d.running = false })
				case 4:
					d.set(func() { d.running = true })
					at++
					f.engine.emit("start", "c1", at, map[string]string{"name": "web"})
				case 5:
					f.crash(stop)
					if r.IntN(3) == 0 {
						_ = os.Remove(filepath.Join(f.cfg.StateDir, checkpointName))
					}
					stop = f.start()
				case 6, 7:
					time.Sleep(time.Duration(r.IntN(8)) * time.Millisecond)
				case 8: // a clean stop
					stop()
					stop = f.start()
				}
			}
			if d.tty { // the end of a piece is known by what follows
				d.write(0, "the last\r")
				want = append(want, "stdout: the last\r")
			}
			f.expect(want...)
			stop()
			if slices.Contains(f.out.eventNames(), schema.EventLoss) {
				t.Error("a loss record")
			}
		})
	}
}

// TestEngineLogGoesOnAtEveryPlace takes up the log after each of its entries, with what a checkpoint would have.
func TestEngineLogGoesOnAtEveryPlace(t *testing.T) {
	f, d := setupDriver(t)
	d.write(0, "a")
	d.set(func() { d.now -= 1000 })
	d.write(0, "a again")
	d.write(0, strings.Repeat("x", 5*copierBytes))
	d.write(1, "b")
	d.set(func() { d.now -= int64(time.Second) })
	d.write(1, "c")
	n := len(d.entries)
	all := slices.Clone(d.entries)
	d.entries = nil
	for i := range n {
		d.set(func() { d.entries = all[:i+1] })
		stop := f.start()
		f.await("the entry", func() bool {
			st := f.agent.Status()
			return len(st) == 1 && st[0].Lines >= int64(i+1)
		})
		f.crash(stop)
	}
	defer f.start()()
	f.await("the last entry", func() bool {
		st := f.agent.Status()
		return len(st) == 1 && st[0].Lines >= int64(n) && st[0].Position == st[0].Acked
	})
	f.expect("stdout: a", "stdout: a again", "stdout: "+strings.Repeat("x", 5*copierBytes), "stderr: b", "stderr: c")
}

func TestEngineLogRotatedAway(t *testing.T) {
	f, d := setupDriver(t)
	d.write(0, "one")
	stop := f.start()
	f.expect("stdout: one")
	stop()
	d.write(0, "two")
	d.write(0, "three")
	d.set(func() { d.deleted = 2 })
	stop = f.start()
	f.expect("stdout: one", "stdout: three")
	f.awaitEvents(schema.EventLoss)
	stop()
	d.write(0, "four")
	defer f.start()()
	f.expect("stdout: one", "stdout: three", "stdout: four")
	if n := len(f.out.eventNames()); n != 1 {
		t.Errorf("events: %v", f.out.eventNames())
	}
}

func TestEngineLogRemoval(t *testing.T) {
	for _, c := range []struct {
		name     string
		stopped  bool // and read, before it is removed
		wantLoss bool
	}{{"stopped and read", true, false}, {"while it ran", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			f, d := setupDriver(t)
			d.write(0, "one")
			defer f.start()()
			f.expect("stdout: one")
			d.write(0, "two")
			if c.stopped {
				d.set(func() { d.running = false })
				f.await("rest", func() bool { return f.agent.Status()[0].Lines == 2 })
				opened := 0
				d.set(func() { opened = d.opened })
				f.await("the look after the stop", func() bool {
					d.mu.Lock()
					defer d.mu.Unlock()
					return d.opened >= opened+4 // a pass, the stream that ends at once, and the pass after it, twice at most
				})
			}
			f.expect("stdout: one", "stdout: two")
			d.set(func() { d.removed, d.running = true, false })
			f.engine.emit("destroy", "c1", time.Now().UnixNano(), map[string]string{"name": "web"})
			f.awaitEvents(schema.EventSourceClosed)
			if got := slices.Contains(f.out.eventNames(), schema.EventLoss); got != c.wantLoss {
				t.Errorf("events: %v", f.out.eventNames())
			}
		})
	}
}

// TestEngineLogTerminalEndsInALine removes a terminal's container that wrote an unfinished line at last.
func TestEngineLogTerminalEndsInALine(t *testing.T) {
	f, d := setupDriver(t)
	c := f.engine.containers["c1"]
	c.tty, d.tty, d.running = true, true, false
	f.engine.containers["c1"] = c
	d.entries = []driverEntry{{0, d.now, "one\r\n"}, {0, d.now + 1, "prompt$"}}
	defer f.start()()
	f.expect("stdout: one\r")
	f.await("the look after the stop", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.opened >= 4
	})
	d.set(func() { d.removed = true })
	f.engine.emit("destroy", "c1", time.Now().UnixNano(), map[string]string{"name": "web"})
	f.awaitEvents(schema.EventSourceClosed)
	f.expect("stdout: one\r", "stdout weir.partial: prompt$")
}

func TestEngineLogRemovedWhileDown(t *testing.T) {
	f, d := setupDriver(t)
	d.write(0, "one")
	stop := f.start()
	f.expect("stdout: one")
	stop()
	d.set(func() { d.removed = true })
	delete(f.engine.containers, "c1")
	defer f.start()()
	f.awaitEvents(schema.EventLoss, schema.EventSourceClosed)
}

// TestEngineLogRefused has a driver that cannot be read: it is counted, and not asked again.
func TestEngineLogRefused(t *testing.T) {
	f, d := setupDriver(t)
	d.refused = true
	defer f.start()()
	f.await("the refusal", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.opened == 1 && len(f.agent.Status()) == 0
	})
	f.engine.emit("start", "c1", time.Now().UnixNano(), map[string]string{"name": "web"})
	f.awaitEvents("docker.container.start")
	time.Sleep(20 * time.Millisecond)
	if d.mu.Lock(); d.opened != 1 {
		t.Errorf("asked %d times", d.opened)
	}
	d.mu.Unlock()
}

func TestEngineLogHeldBack(t *testing.T) {
	f, d := setupDriver(t)
	for i := range 3000 {
		d.write(0, fmt.Sprintf("%d %s", i, strings.Repeat("x", 300)))
	}
	f.out.away.Store(true)
	defer f.start()()
	f.await("a source that is held back", func() bool {
		all := f.agent.Status()
		return len(all) == 1 && all[0].Lines == 0 && all[0].State == stateHeld
	})
	f.out.back()
	f.await("all records", func() bool { return len(f.out.bodies()) == 3000 })
}

// alone runs a follower in a bubble of its own time, and returns what it hands over.
func alone(d *driverLog, f func(bodies func() []string)) {
	ctx, cancel := context.WithCancel(context.Background())
	e := &fakeEngine{logged: map[string]*driverLog{"c1": d}}
	a := &Agent{engine: e, ready: make(chan *source)}
	fo := &follower{a: a, log: &engineLog{chunks: make(chan chunk, 1), wake: make(chan struct{}, 1), gone: make(chan struct{})}, id: "c1", quiet: quietAtFirst, passes: make(chan struct{}, 1)}
	var mu sync.Mutex
	var got []string
	var wg sync.WaitGroup
	wg.Go(func() { fo.run(ctx) })
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-a.ready:
				c := <-fo.log.chunks
				mu.Lock()
				if c.lost {
					got = append(got, "LOST")
				}
				for _, e := range c.entries {
					got = append(got, strings.TrimSpace(string(e.body)))
				}
				mu.Unlock()
			}
		}
	})
	f(func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	})
	cancel()
	wg.Wait()
}

// TestFollowerDoesNotTrustAStream has the faults of the engine's streams that are followed.
func TestFollowerDoesNotTrustAStream(t *testing.T) {
	write := func(d *driverLog, bodies ...string) {
		d.set(func() {
			for _, b := range bodies {
				d.entries = append(d.entries, driverEntry{0, time.Now().UnixNano(), b + "\n"})
			}
		})
	}
	for _, c := range []struct {
		name   string
		fault  func(d *driverLog)
		within time.Duration
	}{
		{"the stream stands still", func(d *driverLog) { d.set(func() { d.stalls = true }); write(d, "b", "c") }, 20 * time.Second},
		{"it ends before the last lines", func(d *driverLog) { d.set(func() { d.running = false }); write(d, "b", "c") }, 3 * time.Second},
		{"it breaks", func(d *driverLog) { d.set(func() { d.cut = 10 }); write(d, "b", "c") }, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &driverLog{running: true}
				write(d, "a")
				alone(d, func(bodies func() []string) {
					time.Sleep(5 * time.Second)
					c.fault(d)
					time.Sleep(c.within)
					if got := fmt.Sprint(bodies()); got != "[a b c]" {
						t.Errorf("got %s", got)
					}
				})
			})
		})
	}
}

// TestFollowerIsQuiet counts how often the engine is asked for a container that does nothing.
func TestFollowerIsQuiet(t *testing.T) {
	for _, running := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := &driverLog{running: running, nap: time.Second}
			d.write(0, "a")
			alone(d, func(func() []string) {
				time.Sleep(24 * time.Hour)
				d.set(func() {
					if d.opened > 700 {
						t.Errorf("running %v: asked %d times in a day", running, d.opened)
					}
				})
			})
		})
	}
}

func TestDecoderErrors(t *testing.T) {
	frame := func(kind byte, text string) string {
		return string(append(binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0}, uint32(len(text))), text...))
	}
	const at = "2026-11-25T18:19:33.491566187Z "
	for _, c := range []struct {
		name, in string
		tty      bool
		want     string
	}{
		{"an error of the engine", frame(3, "Error grabbing logs: invalid character"), false, "the engine: Error grabbing logs"},
		{"an error on a terminal", "Error grabbing logs: unexpected EOF\n", true, `an entry without its time: "Error`},
		{"no time", frame(1, "hello world"), false, "an entry without its time"},
		{"no frame", "hello world, this is plain", false, "not one of the streams"},
		{"too long", "\x01\x00\x00\x00\xff\xff\xff\xff", false, "not one of the streams"},
		{"cut in the header", "\x01\x00\x00", false, "unexpected EOF"},
		{"cut in the entry", frame(1, at+"hello")[:20], false, "unexpected EOF"},
		{"cut in a time", "2026-11-25T18:19", true, "unexpected EOF"},
		{"another zone", frame(1, "2026-11-25T20:19:33.491566187+02:00 x\n"), false, "EOF"},
	} {
		d := newDecoder(strings.NewReader(c.in), c.tty)
		e, err := d.next()
		if err == nil {
			if e.Time != 1795630773491566187 {
				t.Errorf("%s: time %d", c.name, e.Time)
			}
			_, err = d.next()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestTerminal gives entries to the decoder and wants them back.
func TestTerminal(t *testing.T) {
	piece := strings.Repeat("x", copierBytes)
	for _, c := range [][]driverEntry{
		{{0, 1, "a\r\n"}, {0, 2, "b\r\n"}},
		{{0, 1, piece}, {0, 1, piece}, {0, 1, "end\r"}, {0, 2, "b\r\n"}},
		{{0, 1, piece}, {0, 1, "end\r\n"}, {0, 2, piece}, {0, 2, "\r"}, {0, 3, "c\r\n"}},
		{{0, 1, piece}, {0, 1, "end\r"}},
		{{0, 1, "2026-11-25T18:19:33.491566187Z its own time\r\n"}, {0, 2, "b\r\n"}},
		{{0, 1, piece + "more than a piece"}, {0, 1, "end\r"}, {0, 2, "b\r\n"}},
	} {
		var in []byte
		for _, e := range c {
			in = append(in, e.encode(true)...)
		}
		d := newDecoder(bytes.NewReader(in), true)
		for i, want := range c {
			e, err := d.next()
			if err != nil || e.Time != want.time || string(e.body) != want.body {
				t.Errorf("entry %d: %d %.60q %v, want %d %.60q", i, e.Time, e.body, err, want.time, want.body)
				break
			}
		}
		if _, err := d.next(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte("2026-11-25T18:19:33.491566187Z a\r\n"), true)
	f.Add(driverEntry{1, 5, "hello\n"}.encode(false), false)
	f.Fuzz(func(t *testing.T, b []byte, tty bool) {
		d := newDecoder(bytes.NewReader(b), tty)
		for n := 0; ; n++ {
			if _, err := d.next(); err != nil {
				return
			}
			if n > len(b) {
				t.Fatal("more entries than bytes")
			}
		}
	})
}
