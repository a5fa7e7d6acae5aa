package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"weir/control"
	"weir/ingest"
	"weir/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeEngine has one container.
type fakeEngine struct {
	live  live
	calls []string
	fail  error
	did   func() // called when an action has taken effect
	now   func() time.Time
	mended,
	mendDone bool
}

func (f *fakeEngine) look(_ context.Context, ref string) (*live, error) {
	if ref != f.live.ID && ref != f.live.Name {
		return nil, errGone
	}
	l := f.live
	return &l, nil
}

func (f *fakeEngine) do(what string, change func()) error {
	f.calls = append(f.calls, what)
	if f.fail != nil {
		return f.fail
	}
	change()
	if f.did != nil {
		f.did()
	}
	return nil
}

func (f *fakeEngine) start(context.Context, string) error {
	return f.do("start", func() { f.live.Running, f.live.Started = true, f.now().UnixNano()+1 })
}

func (f *fakeEngine) stop(context.Context, string, *int) error {
	return f.do("stop", func() { f.live.Running = false })
}

func (f *fakeEngine) restart(context.Context, string, *int) error {
	return f.do("restart", func() { f.live.Running, f.live.Started = true, f.now().UnixNano()+1 })
}

func (f *fakeEngine) recreate(context.Context, string, string, *int) (string, error) {
	return "fresh", f.do("recreate", func() { f.live.Running = true })
}

func (f *fakeEngine) mend(context.Context, *live, string) (string, bool, error) {
	f.mended = true
	return "fresh", f.mendDone, nil
}

// fakeTopic gives batches, then waits for the end.
type fakeTopic struct{ batches []*schema.Batch }

func (f *fakeTopic) Ends(context.Context, string) (map[ingest.TopicPartition]int64, error) {
	return map[ingest.TopicPartition]int64{{Topic: schema.TopicActions}: 0}, nil
}

func (f *fakeTopic) Follow(_ context.Context, from map[ingest.TopicPartition]int64, fn func(*schema.Batch) error, _ func(ingest.TopicPartition, int64, error)) error {
	for _, b := range f.batches {
		if b.KafkaOffset >= from[ingest.TopicPartition{Topic: schema.TopicActions}] {
			if err := fn(b); err != nil {
				return err
			}
		}
	}
	return errAllRead
}

var errAllRead = errors.New("all was read")

// reports is what the executor sent, by position.
type reports struct {
	t   *testing.T
	all map[int64]control.Outcome
	ids []int64
}

func (r *reports) Send(_ context.Context, m ingest.Message) error {
	var b schema.Batch
	if err := new(schema.Decoder).Decode(m.Value, &schema.Info{Source: m.Source, Begin: m.Begin, End: m.End, Count: m.Count}, &b); err != nil {
		r.t.Error(err)
	}
	var o control.Outcome
	if _, err := control.Unseal(&b.Records[0], &o); err != nil {
		r.t.Error(err)
	}
	if was, ok := r.all[o.Seq]; ok && was != o {
		r.t.Errorf("two outcomes at one position: %+v %+v", was, o)
	} else if !ok {
		r.ids = append(r.ids, o.Seq)
	}
	r.all[o.Seq] = o
	return nil
}

func (r *reports) Flush(context.Context) error { return nil }

func (r *reports) said() (all []string) {
	for _, id := range r.ids {
		o := r.all[id]
		all = append(all, strings.TrimSuffix(o.Verdict+": "+o.Reason, ": "))
	}
	return all
}

type rig struct {
	t      *testing.T
	cfg    Config
	key    *control.Key
	engine *fakeEngine
	topic  *fakeTopic
	out    *reports
	now    time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	key, err := control.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, key: key, now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), topic: &fakeTopic{}, out: &reports{t: t, all: map[int64]control.Outcome{}}}
	r.cfg = DefaultConfig()
	r.cfg.Name, r.cfg.StateDir = "n1", filepath.Join(t.TempDir(), "state")
	r.engine = &fakeEngine{live: live{ID: strings.Repeat("a", 64), Name: "web-1", Image: "shop:1", ExitCode: 1, Started: r.now.Add(-time.Hour).UnixNano()}, now: func() time.Time { return r.now }}
	return r
}

// run starts an executor that reads all there is and ends.
func (r *rig) run() {
	r.t.Helper()
	x := newExecutor(r.cfg, r.key.Public(), r.topic, r.out, func() time.Time { return r.now }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	x.engine = r.engine
	if err := x.Run(r.t.Context()); !errors.Is(err, errAllRead) {
		r.t.Fatal(err)
	}
}

func (r *rig) order(id string, change func(*control.Decision)) *control.Decision {
	d := &control.Decision{Chain: 5, Seq: int64(len(r.topic.batches)), Epoch: 3, At: r.now.UnixNano(), Verdict: control.VerdictAct, Policy: "heal", Mode: control.Act, Action: control.Restart, Step: 1,
		Subject: &control.Subject{Node: "n1", Container: r.engine.live.ID, Name: "web-1", App: "web"},
		Order:   &control.Order{ID: id, Executor: "n1", Nonce: "x", Expires: r.now.Add(time.Minute).UnixNano(), Trouble: control.Down, Since: r.now.Add(-time.Second).UnixNano(), Settled: int64(30 * time.Second)}}
	if change != nil {
		change(d)
	}
	return d
}

// put writes a decision to the topic, sealed with a key.
func (r *rig) put(d *control.Decision, key *control.Key) {
	r.t.Helper()
	sealed := key.Seal(d)
	rec, _, err := control.DecisionRecord(&sealed)
	if err != nil {
		r.t.Fatal(err)
	}
	r.topic.batches = append(r.topic.batches, &schema.Batch{Topic: schema.TopicActions, KafkaOffset: int64(len(r.topic.batches)), Source: "weir/control", Records: []schema.Record{rec}})
}

func (r *rig) want(what string, calls int, said ...string) {
	r.t.Helper()
	if len(r.engine.calls) != calls {
		r.t.Errorf("%s: the engine was called %v, want %d calls", what, r.engine.calls, calls)
	}
	got := r.out.said()
	if len(got) != len(said) {
		r.t.Fatalf("%s: reported %q, want %q", what, got, said)
	}
	for i := range said {
		if !strings.Contains(got[i], said[i]) {
			r.t.Errorf("%s: reported %q, want %q", what, got[i], said[i])
		}
	}
}

func TestOneOrder(t *testing.T) {
	r := newRig(t)
	r.put(r.order("1", nil), r.key)
	r.put(r.order("other", func(d *control.Decision) { d.Order.Executor = "n2" }), r.key)
	r.run()
	r.want("first run", 1, "done")
	r.run()
	r.want("started again", 1, "done")
}

func TestRefusals(t *testing.T) {
	other, err := control.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key    *control.Key
		change func(*control.Decision)
		rig    func(*rig)
		want   string
	}{
		"forged":               {other, nil, nil, "forged"},
		"not signed":           {(*control.Key)(nil), nil, nil, "forged"},
		"forged, not whole":    {other, func(d *control.Decision) { d.Subject = nil; d.Order.ID = strings.Repeat("\xff", 500) }, nil, "forged"},
		"expired":              {nil, func(d *control.Decision) { d.Order.Expires = d.At - 1 }, nil, "expired"},
		"from the future":      {nil, func(d *control.Decision) { d.At += int64(time.Hour); d.Order.Expires = d.At + 1 }, nil, "not of now"},
		"good for too long":    {nil, func(d *control.Decision) { d.Order.Expires = d.At + int64(time.Hour) }, nil, "not of now"},
		"not an order":         {nil, func(d *control.Decision) { d.Verdict = control.VerdictWouldAct }, nil, "not whole"},
		"action not allowed":   {nil, func(d *control.Decision) { d.Action = control.DeletePod }, nil, "not among executor.actions"},
		"action unknown":       {nil, func(d *control.Decision) { d.Action = "format" }, nil, "not among executor.actions"},
		"not here":             {nil, func(d *control.Decision) { d.Subject.Container = strings.Repeat("b", 64) }, nil, "no such container"},
		"by name":              {nil, func(d *control.Decision) { d.Subject.Container = "web-1" }, nil, "by its whole id"},
		"opted out":            {nil, nil, func(r *rig) { r.engine.live.Labels = map[string]string{"weir.control": "off"} }, "label weir.control is off"},
		"infrastructure":       {nil, nil, func(r *rig) { r.cfg.Never.Names = []string{"web*"} }, "executor.never"},
		"infrastructure label": {nil, nil, func(r *rig) { r.engine.live.Labels = map[string]string{"weir.infrastructure": "yes"} }, "executor.never"},
		"recreate --rm":        {nil, func(d *control.Decision) { d.Action = control.Recreate }, func(r *rig) { r.engine.live.AutoRemove = true }, "--rm"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if c.rig != nil {
				c.rig(r)
			}
			key := c.key
			if key == nil && name != "not signed" {
				key = r.key
			}
			r.put(r.order("1", c.change), key)
			r.run()
			r.want(name, 0, "refused: ")
			if said := r.out.said()[0]; !strings.Contains(said, c.want) {
				t.Errorf("%q, want %q", said, c.want)
			}
		})
	}
}

func TestReplays(t *testing.T) {
	r := newRig(t)
	d := r.order("1", nil)
	r.put(d, r.key)
	r.put(d, r.key)
	r.run()
	r.want("at once", 1, "done", "refused: it was taken before")
	r.put(d, r.key)
	r.run()
	r.want("after a restart", 1, "done", "refused: it was taken before", "refused: it was taken before")
	r.now = r.now.Add(3 * time.Hour)
	r.engine.live.Running = false
	r.put(r.order("2", nil), r.key)
	r.run() // forgets the first
	r.engine.live.Running = false
	r.put(d, r.key)
	r.run()
	r.want("later", 2, "done", "refused: it was taken before", "refused: it was taken before", "done", "refused: expired")
}

func TestOldEpoch(t *testing.T) {
	r := newRig(t)
	r.put(&control.Decision{Chain: 5, Epoch: 4, Verdict: control.VerdictEpoch}, r.key)
	r.put(r.order("1", nil), r.key)
	r.put(&control.Decision{Chain: 9, Epoch: 9, Verdict: control.VerdictEpoch}, nil) // not signed: it must not shut out who is
	r.put(r.order("2", func(d *control.Decision) { d.Epoch = 4 }), r.key)
	r.run()
	r.want("epochs", 1, "refused: its decider was succeeded", "done")
	r.engine.live.Running = false
	r.put(r.order("3", nil), r.key)
	r.put(r.order("4", func(d *control.Decision) { d.Chain, d.Epoch = 6, 1 }), r.key)
	r.run()
	r.want("after a restart, and another chain", 2, "refused: its decider was succeeded", "done", "refused: its decider was succeeded", "done")
}

func TestLimit(t *testing.T) {
	r := newRig(t)
	r.cfg.Limit = control.Budget{Actions: 2, Per: time.Hour}
	r.engine.did = func() { r.engine.live.Running = false }
	for i := range 3 {
		r.put(r.order(fmt.Sprint(i), nil), r.key)
	}
	r.run()
	r.want("limit", 2, "done", "done", "refused: executor.limit")
	r.now = r.now.Add(61 * time.Minute)
	r.put(r.order("4", nil), r.key)
	r.run()
	r.want("after an hour", 3, "done", "done", "refused: executor.limit", "done")
}

func TestForgeriesDoNotFlood(t *testing.T) {
	r := newRig(t)
	for i := range 500 {
		r.put(r.order(fmt.Sprint(i), nil), nil)
	}
	r.run()
	if n := len(r.out.ids); n != refusalsPerMinute {
		t.Errorf("%d records of 500 forged orders", n)
	}
	b, err := os.ReadFile(filepath.Join(r.cfg.StateDir, ledgerFile))
	if err != nil || len(b) > 1000 {
		t.Errorf("the ledger has %d bytes, %v", len(b), err)
	}
}

// TestKilled has the executor end between an action's effect and the note of it: the state folder is put back to what it was then.
func TestKilled(t *testing.T) {
	for name, c := range map[string]struct {
		action  string
		after   func(r *rig) // what the engine shows when the executor is started again
		want    string
		mendEnd bool
	}{
		"restart took effect":        {control.Restart, nil, "done: seen after", false},
		"restart cannot be seen":     {control.Restart, func(r *rig) { r.engine.live.Started = 5 }, "unknown", false},
		"stop took effect":           {control.Stop, nil, "done: seen after", false},
		"the container is gone":      {control.Restart, func(r *rig) { r.engine.live.ID = "x"; r.engine.live.Name = "y" }, "unknown", false},
		"recreate went through":      {control.Recreate, nil, "done: seen after", true},
		"recreate was brought back":  {control.Recreate, nil, "unknown", false},
		"webhook can never be known": {control.Webhook, nil, "unknown", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.cfg.Actions = append(r.cfg.Actions, control.Webhook)
			r.engine.mendDone = c.mendEnd
			if c.action == control.Stop {
				r.engine.live.Running, r.engine.live.Started = true, r.now.UnixNano()
			}
			path := filepath.Join(r.cfg.StateDir, ledgerFile)
			var then []byte
			r.engine.did = func() {
				var err error
				if then, err = os.ReadFile(path); err != nil {
					t.Fatal(err)
				}
			}
			r.put(r.order("1", func(d *control.Decision) {
				d.Action = c.action
				if c.action == control.Webhook {
					d.Order.Args = map[string]string{"hook": "none"}
				}
			}), r.key)
			r.run()
			calls := len(r.engine.calls)
			if c.action == control.Webhook { // it does not go through the engine: the note of its beginning is made here
				var l ledger
				b, err := os.ReadFile(path)
				if err != nil || json.Unmarshal(b, &l) != nil {
					t.Fatal(err)
				}
				l.Orders["1"].Outcome, l.Seq, l.Offsets = nil, 0, map[string]int64{"weir.actions/0": 0}
				if then, err = json.Marshal(&l); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(path, then, 0o600); err != nil {
				t.Fatal(err)
			}
			r.out = &reports{t: t, all: map[int64]control.Outcome{}} // nothing of the first run was sent
			if c.after != nil {
				c.after(r)
			}
			r.run()
			r.want("started again", calls, c.want)
			r.run()
			r.want("and again", calls, c.want)
		})
	}
}

// TestOver is the look at the live state.
func TestOver(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixNano() }
	const passed, already = control.OutcomePassed, control.OutcomeAlready
	for _, c := range []struct {
		name, action, trouble string
		live                  live
		want                  string
	}{
		{"crashed", control.Restart, control.Down, live{ExitCode: 1}, ""},
		{"crashed, start", control.Start, control.Down, live{ExitCode: 1}, ""},
		{"ended well", control.Restart, control.Down, live{}, passed},
		{"runs for long", control.Restart, control.Down, live{Running: true, Started: ago(time.Minute)}, passed},
		{"runs, and did when it was seen", control.Restart, control.Down, live{Running: true, Started: ago(20 * time.Second)}, ""},
		{"started since", control.Restart, control.Down, live{Running: true, Started: ago(time.Second)}, already},
		{"recreate what was started since", control.Recreate, control.Down, live{Running: true, Started: ago(time.Second)}, ""},
		{"the engine restarts it", control.Restart, control.Down, live{Running: true, Restarting: true, ExitCode: 1, Started: ago(time.Second)}, already},
		{"stop what the engine restarts", control.Stop, control.Down, live{Running: true, Restarting: true, ExitCode: 1, Started: ago(time.Second)}, ""},
		{"recreate what the engine restarts", control.Recreate, control.Down, live{Running: true, Restarting: true, ExitCode: 1, Started: ago(time.Hour)}, ""},
		{"paused", control.Restart, control.Sick, live{Running: true, Paused: true, Health: "unhealthy"}, passed},
		{"start what runs", control.Start, control.Beyond, live{Running: true, Started: ago(time.Hour)}, passed},
		{"stop what does not run", control.Stop, control.Beyond, live{}, passed},
		{"sick", control.Restart, control.Sick, live{Running: true, Health: "unhealthy", Started: ago(time.Hour)}, ""},
		{"well again", control.Restart, control.Sick, live{Running: true, Health: "healthy", Started: ago(time.Hour)}, passed},
		{"sick, started since", control.Restart, control.Sick, live{Running: true, Health: "unhealthy", Started: ago(time.Second)}, passed},
		{"silent", control.Restart, control.Beyond, live{Running: true, Started: ago(time.Hour)}, ""},
		{"silent, started since", control.Restart, control.Beyond, live{Running: true, Started: ago(time.Second)}, passed},
	} {
		o := &control.Order{Trouble: c.trouble, Since: ago(10 * time.Second), Settled: int64(30 * time.Second)}
		if got, why := over(c.action, o, &c.live, now); got != c.want {
			t.Errorf("%s: %q, %s", c.name, got, why)
		}
	}
}

func TestTwoExecutorsOfOneFolder(t *testing.T) {
	dir := t.TempDir()
	l, err := openLedger(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openLedger(dir, time.Now()); err == nil || !strings.Contains(err.Error(), "another executor") {
		t.Errorf("a second was let in: %v", err)
	}
	if err := errors.Join(l.save(), l.close()); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"{": ledgerFile, `{"version":2}`: "version 2 is not known"} {
		if err := os.WriteFile(filepath.Join(dir, ledgerFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openLedger(dir, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a ledger %s was taken: %v", text, err)
		}
	}
}

func TestOwnContainer(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	path := filepath.Join(t.TempDir(), "mountinfo")
	host := "100 90 0:50 / /var/lib/docker/containers/" + id + "/mounts/shm rw - tmpfs shm rw\n"
	inside := "700 690 8:1 /var/lib/docker/containers/" + id + "/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n"
	for text, want := range map[string]string{host: "", inside: id, "": "", "a b\n": ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ownContainer(path); got != want {
			t.Errorf("%q from %q", got, text)
		}
	}
}
