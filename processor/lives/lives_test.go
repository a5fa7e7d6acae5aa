package lives

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir/processor/signal"
	"weir/schema"
)

// t0 is when all time lines begin.
var t0 = time.Date(2026, 11, 25, 6, 0, 0, 0, time.UTC).UnixNano()

// feed gives a tracker the steps of a time line. A step is "<time> <what> [container] [number]", for example "5s die web 137".
type feed struct {
	t      testing.TB
	tr     *Tracker
	change func(*Config)
	noted  bool // events are another tracker's
	saved  map[string][]byte
	offset int64
}

func newTracker(t testing.TB, change func(*Config)) *Tracker {
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func newFeed(t testing.TB, change func(*Config)) *feed {
	return &feed{t: t, tr: newTracker(t, change), change: change, saved: map[string][]byte{}}
}

// restart saves what changed, and goes on with a tracker that knows what was saved alone.
func (f *feed) restart() {
	for _, key := range f.tr.Changed() {
		if f.saved[key] = f.tr.AppendState(nil, key); f.saved[key] == nil {
			delete(f.saved, key)
		}
	}
	f.tr = newTracker(f.t, f.change)
	for key, state := range f.saved {
		if err := f.tr.Restore(key, state); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *feed) step(s string, out []signal.Signal) []signal.Signal {
	parts := append(strings.Fields(s), "", "", "")
	d, err := time.ParseDuration(parts[0])
	if err != nil {
		f.t.Fatal(err)
	}
	at := t0 + int64(d)
	what, name := parts[1], parts[2]
	number, _ := strconv.ParseInt(parts[3], 10, 64)
	f.offset++
	node := "n1"
	if name, node2, ok := strings.Cut(name, "@"); ok {
		parts[2], node = name, node2
	}
	name = parts[2]
	r := schema.Record{Time: at, Observed: at + 1, Offset: f.offset}
	resource := []schema.Attr{schema.String(schema.AttrContainerID, "id-"+name), schema.String(schema.AttrContainerName, name), schema.String(schema.AttrImageName, name+":1"), schema.String(schema.AttrApp, "app-"+name), schema.String(schema.AttrHostName, node), schema.String(schema.LabelPrefix+"team", "core")}
	b := &schema.Batch{Source: "docker-events/" + node, Resource: resource}
	switch what {
	case "now":
		return f.tr.Advance(at, out)
	case "log": // number lines
		r.Body = "a line"
		b.Source = "docker/" + node + "/id-" + name
		for range max(number, 1) - 1 {
			b.Records = append(b.Records, r)
		}
	case "big": // a line of so many bytes
		r.Body = strings.Repeat("x", int(number))
		b.Source = "docker/" + node + "/id-" + name
	case "quota":
		r.EventName, r.Attrs = schema.EventLoss, []schema.Attr{schema.String(schema.AttrLossReason, "quota"), schema.Int(schema.AttrLossRecords, number)}
		b.Source = "docker/" + node + "/id-" + name
	case "closed":
		r.EventName, r.Time = schema.EventSourceClosed, 0
		b.Source = "docker/" + node + "/id-" + name
	case "cri": // a line of an attempt
		r.Body = "a line"
		b.Source = fmt.Sprintf("cri/%s/ns_%s-0_uid/%s/%d", node, name, name, number)
	case "file":
		b.Source, b.Resource, r.Body = "file/"+node+"/var/log/x", resource[3:5], "a line"
	case "gap":
		r.EventName, b.Resource = schema.EventGapOpened, resource[4:5]
	case "die":
		r.EventName, r.Attrs = "docker.container.die", []schema.Attr{schema.Int(schema.AttrExitCode, number), schema.Bool(schema.AttrOOM, parts[4] == "oom")}
	case "healthy", "unhealthy":
		r.EventName, r.Attrs = "docker.container.health_status", []schema.Attr{schema.String("docker.action.detail", what)}
	case "rename": // to name; the old name is the third
		r.EventName = "docker.container.rename"
		b.Resource = append(b.Resource, schema.String(schema.LabelPrefix+"oldName", "/"+parts[3]))
	default:
		r.EventName = "docker.container." + what
	}
	b.Records = append(b.Records, r)
	if f.noted && strings.HasPrefix(b.Source, "docker-events/") {
		f.tr.Note(b)
		return out
	}
	return f.tr.Write(b, out)
}

// every repeats a step.
func every(from, to, step time.Duration, what string) (steps []string) {
	for at := from; at <= to; at += step {
		steps = append(steps, at.String()+" "+what)
	}
	return steps
}

// byTime puts time lines together.
func byTime(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b string) int {
		x, _ := time.ParseDuration(strings.Fields(a)[0])
		y, _ := time.ParseDuration(strings.Fields(b)[0])
		return int(x - y)
	})
	return all
}

// crashes are runs of a length, with the pauses between them.
func crashes(name string, run time.Duration, code int, pauses ...time.Duration) (steps []string) {
	at := time.Duration(0)
	for _, p := range pauses {
		at += p
		steps = append(steps, fmt.Sprintf("%s start %s", at, name))
		at += run
		steps = append(steps, fmt.Sprintf("%s die %s %d", at, name, code))
	}
	return steps
}

const (
	s = time.Second
	m = time.Minute
	h = time.Hour
)

// timelines are for every state: it fires, does not just below its threshold, resolves. Wants are "<time> <kind> <state> [value]".
var timelines = []struct {
	name   string
	noted  bool
	change func(*Config)
	steps  []string
	want   []string
}{
	{name: "three crashes are none too many", steps: append(crashes("web", 5*s, 1, 0, s, 2*s), "20m now")},
	{name: "four crashes are a loop, told once, which ends when it runs", steps: append(crashes("web", 5*s, 1, 0, s, 2*s, 4*s, 8*s), "1m start web", "10m59s now", "11m now", "12m now"), want: []string{"27s crash_loop firing 4", "11m0s crash_loop resolved 0"}},
	{name: "a run that is long enough is not of the loop", steps: append(crashes("web", 10*m, 1, 0, s, s, s, s, s, s), "90m now")},
	{name: "a run just shorter is", steps: crashes("web", 10*m-1, 1, 0, s, s, s), want: []string{"40m2.999999996s crash_loop firing 4"}},
	{name: "pauses longer than any back-off are no loop", steps: crashes("web", s, 1, 0, 7*m, 7*m, 7*m, 7*m, 7*m)},
	{name: "stops on purpose are no crashes", steps: byTime(crashes("web", 5*s, 143, 0, s, s, s, s, s), []string{"4s kill web", "10s kill web", "16s kill web", "22s kill web", "28s kill web", "34s kill web"})},
	{name: "a stop on purpose ends the loop", steps: append(crashes("web", 5*s, 1, 0, s, s, s), "30s start web", "31s kill web", "33s die web 143"), want: []string{"23s crash_loop firing 4", "33s crash_loop resolved 0"}},
	{name: "a reload by signal, long before, is no stop", steps: byTime(crashes("web", 5*m, 1, 0, s, s, s), []string{"10s kill web", "6m kill web", "11m kill web", "16m kill web"}), want: []string{"20m3s crash_loop firing 4"}},
	{name: "a job that is made anew and ends well", steps: byTime(crashes("job", 5*s, 0, 0, m, m, m, m, m), every(m+4*s, 6*m, m+5*s, "create job"))},
	{name: "one that is made anew and fails", steps: byTime(crashes("job", 5*s, 1, 0, m, m, m), every(m+4*s, 3*m+14*s, m+5*s, "create job"), every(6*s, 4*m, m+5*s, "destroy job"), []string{"9m now", "10m now"}), want: []string{"3m20s crash_loop firing 4", "9m20s crash_loop resolved 0"}},
	{name: "one that the engine gave up", steps: append(crashes("web", 5*s, 1, 0, s, s, s), "1h now", "23h now", "24h0m23s now"), want: []string{"23s crash_loop firing 4", "24h0m23s crash_loop resolved 0"}},
	{name: "no second firing within the cool-down", steps: append(crashes("web", s, 1, 0, 0, 0, 0), "5s start web", "6s kill web", "6s die web 1", "7s start web", "7s die web 1", "7s start web", "8s die web 1", "8s start web", "9s die web 1", "9s start web", "9s die web 1", "10m9s start web", "10m10s die web 1"),
		want: []string{"4s crash_loop firing 4", "6s crash_loop resolved 0"}},
	{name: "a loop of a container that was there before", steps: crashes("web", 5*s, 1, 0, s, s, s)[1:], want: []string{"23s crash_loop firing 4"}},

	{name: "a pod's container is started again and again", steps: []string{"0s cri api 0", "10s cri api 1", "40s cri api 2", "90s cri api 3", "3m cri api 4", "6m cri api 5", "21m59s now", "22m now"}, want: []string{"3m0s crash_loop firing 4", "22m0s crash_loop resolved 0"}},
	{name: "three times is none too many", steps: []string{"0s cri api 0", "10s cri api 1", "40s cri api 2", "90s cri api 3", "2h now"}},
	{name: "attempts that are in another partition count", steps: []string{"0s cri api 3", "30m cri api 7"}, want: []string{"30m0s crash_loop firing 4"}},
	{name: "not when they are too far apart", steps: []string{"0s cri api 3", "64m0.001s cri api 7"}},
	{name: "an attempt that was before", steps: []string{"0s cri api 7", "1m cri api 3", "2m cri api 4", "3m cri api 7"}},
	{name: "the first that is seen of an old pod", steps: []string{"0s cri api 37", "10m cri api 38", "1h now"}},

	{name: "four changes of health", steps: []string{"0s start web", "10s healthy web", "1m unhealthy web", "1m20s healthy web", "3m unhealthy web", "3m20s healthy web", "18m19s now", "18m20s now"}, want: []string{"3m20s flapping_health firing 4", "18m20s flapping_health resolved 0"}},
	{name: "three are too few", steps: []string{"0s start web", "10s healthy web", "1m unhealthy web", "1m20s healthy web", "3m unhealthy web", "3m29s now"}},
	{name: "four in a longer time are too few", steps: []string{"0s start web", "10s healthy web", "1m unhealthy web", "1m20s healthy web", "15m50s unhealthy web", "16m healthy web", "1h now"}},
	{name: "restarts of an ill container are part of it", steps: []string{"0s start web", "10s healthy web", "1m unhealthy web", "1m1s kill web", "1m2s die web 137", "1m3s start web", "2m healthy web", "3m unhealthy web", "3m1s kill web", "3m2s die web 137", "3m3s start web", "4m healthy web"}, want: []string{"4m0s flapping_health firing 4"}},
	{name: "removed while it flaps", steps: []string{"0s start web", "10s healthy web", "1m unhealthy web", "1m20s healthy web", "3m unhealthy web", "3m20s healthy web", "4m die web", "5m destroy web", "1h now"}, want: []string{"3m20s flapping_health firing 4", "5m0s flapping_health resolved 0"}},

	{name: "unhealthy for long enough", steps: []string{"0s start web", "1m unhealthy web", "1m29s now", "1m30s now", "2m now", "3m healthy web"}, want: []string{"1m30s unhealthy firing 30", "3m0s unhealthy resolved 0"}},
	{name: "unhealthy, then ended", steps: []string{"0s start web", "1m unhealthy web", "1m30s now", "2m die web 1", "3m now"}, want: []string{"1m30s unhealthy firing 30", "2m0s unhealthy resolved 0"}},
	{name: "unhealthy for a moment", steps: []string{"0s start web", "1m unhealthy web", "1m29s healthy web", "5m now"}},
	{name: "it fell due while no time was told to pass", steps: []string{"0s start web", "1m unhealthy web", "3m healthy web", "5m now"}, want: []string{"1m30s unhealthy firing 30", "3m0s unhealthy resolved 0"}},
	{name: "unhealthy again within the cool-down", steps: []string{"0s start web", "1m unhealthy web", "1m30s now", "2m healthy web", "3m unhealthy web", "11m29s now", "11m30s now"}, want: []string{"1m30s unhealthy firing 30", "2m0s unhealthy resolved 0", "11m30s unhealthy firing 510"}},

	{name: "out of memory", steps: []string{"0s start web", "1m oom web", "1m1s die web 137 oom"}, want: []string{"1m0s oom point 1"}},
	{name: "137 alone is a kill, not a lack of memory", steps: []string{"0s start web", "1m die web 137"}},
	{name: "the event was missed", steps: []string{"0s start web", "1m1s die web 137 oom"}, want: []string{"1m1s oom point 1"}},
	{name: "a worker is killed again and again", steps: append(every(0, 9*m, m, "oom web"), "10m oom web"), want: []string{"0s oom point 1", "10m0s oom point 10"}},

	{name: "silent", steps: byTime([]string{"0s start web"}, every(0, h, 30*s, "log web"), every(h, 3*h, m, "exec_start other"), []string{"69m59s now", "70m now", "80m now", "90m log web", "91m now"}), want: []string{"1h10m0s silent_container firing 600", "1h30m0s silent_container resolved 1800"}},
	{name: "silent for four times as long as ever", steps: byTime(every(0, 2*h, 3*m, "log web 3"), every(0, 4*h, m, "exec_start other"), []string{"2h11m59s now", "2h12m now"}), want: []string{"2h12m0s silent_container firing 720"}},
	{name: "young", steps: byTime(every(0, 59*m, 20*s, "log web"), every(h, 3*h, m, "exec_start other"), []string{"2h now"})},
	{name: "few lines", steps: byTime(every(0, 99*m, 10*m, "log web"), every(0, 9*h, m, "exec_start other"), []string{"8h now"})},
	{name: "it ended", steps: byTime(every(0, h, 30*s, "log web"), []string{"60m10s die web"}, every(h, 3*h, m, "exec_start other"), []string{"2h now"})},
	{name: "it ended, another tracker says", noted: true, steps: byTime(every(0, h, 30*s, "log web"), []string{"60m10s die web"}, every(h, 3*h, m, "exec_start other"), []string{"2h now"})},
	{name: "it hangs, another tracker knows its node", noted: true, steps: byTime(every(0, h, 30*s, "log web"), every(h, 3*h, m, "exec_start other"), []string{"70m now", "75m die web", "76m now"}), want: []string{"1h10m0s silent_container firing 600", "1h15m0s silent_container resolved 0"}},
	{name: "removed, and that alone is known", steps: byTime([]string{"0s exec_start other"}, every(0, h, 30*s, "log web"), every(0, 2*h, m, "log other"), []string{"61m closed web", "2h now"})},
	{name: "paused", steps: byTime(every(0, h, 30*s, "log web"), []string{"60m10s pause web"}, every(h, 3*h, m, "exec_start other"), []string{"2h now", "2h unpause web", "2h9m59s now", "2h10m now"}), want: []string{"2h10m0s silent_container firing 4200"}},
	{name: "no event of the node is known", steps: byTime(every(0, h, 30*s, "log web"), every(0, 3*h, m, "log other"), []string{"2h now"})},
	{name: "renamed", steps: byTime(every(0, h, 30*s, "log web"), []string{"61m rename site web"}, every(h, 3*h, m, "exec_start other"), []string{"2h now"})},

	{name: "noisy", steps: []string{"0s log web 60000", "1m log web 60000", "2m log web 60000", "2m59s now", "3m now", "3m log web 60000", "4m log web 60000", "5m log web 29999", "6m log web 30000", "7m log web", "8m log web", "9m59s now", "10m now"}, want: []string{"3m0s noisy_container firing 60000", "10m0s noisy_container resolved 0"}},
	{name: "just not", steps: []string{"0s log web 60000", "1m log web 60000", "2m log web 59999", "3m log web 60000", "4m log web 60000", "1h now"}},
	{name: "by bytes", change: func(c *Config) { c.Noisy.Bytes = 1000 }, steps: []string{"0s big web 1000", "1m big web 1000", "2m big web 1000", "1h now"}, want: []string{"3m0s noisy_container firing 1", "6m0s noisy_container resolved 0"}},
	{name: "what the quota drops counts", steps: []string{"0s quota web 59999", "0s log web", "1m quota web 60000", "2m quota web 60000", "3m now"}, want: []string{"3m0s noisy_container firing 60000"}},

	{name: "the engine is restarted", steps: []string{"0s start a", "0s start b", "0s start c", "1h kill a", "1h kill b", "1h kill c", "1h1s die a", "1h1s die b", "1h2s die c", "1h1m start a", "1h1m1s start b", "1h1m2s start c"}, want: []string{"1h1m1s engine_restart point 3"}},
	{name: "one of four goes on", steps: []string{"0s start a", "0s start b", "0s start c", "0s start d", "1h die a", "1h die b", "1h die c", "1h1m start a", "1h1m start b", "1h1m start c"}},
	{name: "made anew, not started again", steps: []string{"0s start a", "0s start b", "0s start c", "1h die a", "1h die b", "1h die c", "1h1m create a", "1h1m create b", "1h1m create c", "1h1m start a", "1h1m start b", "1h1m start c"}},
	{name: "two containers say little", steps: []string{"0s start a", "0s start b", "1h die a", "1h die b", "1h1m start a", "1h1m start b"}},
	{name: "not together", steps: []string{"0s start a", "0s start b", "0s start c", "1h die a", "1h1m1s die b", "1h2m2s die c", "1h3m start a", "1h3m start b", "1h3m start c"}},
	{name: "events are forgotten", steps: []string{"0s start a", "1h gap x", "1h5m gap x"}, want: []string{"1h0m0s engine_restart point 0"}},

	{name: "a node is quiet", steps: byTime(every(0, h, m, "log web"), []string{"69m59s now", "70m now", "80m now", "90m log web", "90m now", "91m now"}), want: []string{"1h10m0s node_quiet firing 600", "1h30m0s node_quiet resolved 1200"}},
	{name: "quiet for three times as long as ever", steps: byTime(every(0, 2*h, 4*m, "file x"), []string{"131m59s now", "2h12m now"}), want: []string{"2h12m0s node_quiet firing 720"}},
	{name: "heard for too short a time", steps: byTime(every(0, 59*m, m, "log web"), []string{"2h now"})},
	{name: "quiet and forgotten", steps: byTime(every(0, h, m, "log web"), []string{"2h now", "25h now"}), want: []string{"1h10m0s node_quiet firing 600", "25h0m0s node_quiet resolved 0"}},
	{name: "another node goes on", steps: byTime(every(0, h, m, "log web@n1"), every(0, 2*h, m, "log web@n2"), []string{"70m now"}), want: []string{"1h10m0s node_quiet firing 600"}},
}

func describe(all []signal.Signal) (got []string) {
	for _, x := range all {
		got = append(got, fmt.Sprintf("%s %s %s %v", time.Duration(x.End-t0), x.Kind, x.State, x.Value))
	}
	return got
}

// TestTimelines runs each time line in one go, and with the tracker saved and restored after every step, of long ones every few.
func TestTimelines(t *testing.T) {
	for _, c := range timelines {
		t.Run(c.name, func(t *testing.T) {
			whole, cut := newFeed(t, c.change), newFeed(t, c.change)
			whole.noted, cut.noted = c.noted, c.noted
			var a, b []signal.Signal
			for i, step := range c.steps {
				n := len(a)
				a, b = whole.step(step, a), cut.step(step, b)
				if !reflect.DeepEqual(a[n:], b[n:]) {
					t.Fatalf("step %d, %s:\n%+v\nrestored %+v", i, step, a[n:], b[n:])
				}
				if len(c.steps) < 60 || i%17 == 0 {
					cut.restart()
				}
			}
			if got := describe(a); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			sound(t, a)
		})
	}
}

// sound checks what holds for all signals: a state is fired once and then resolved once, no two have one id, and each tells of its subject.
func sound(t *testing.T, all []signal.Signal) {
	t.Helper()
	firing, seen := map[string]int64{}, map[string]bool{}
	for _, x := range all {
		if seen[x.ID()] {
			t.Errorf("two signals of one id: %+v", x)
		}
		seen[x.ID()] = true
		key := x.Kind + x.Group
		since, is := firing[key]
		switch x.State {
		case signal.Firing:
			if is || x.Severity < signal.Warn {
				t.Errorf("fires twice, or too softly: %+v", x)
			}
			firing[key] = x.Start
		case signal.Resolved:
			if !is || since != x.Start || x.End <= x.Start {
				t.Errorf("resolved, and did not fire: %+v", x)
			}
			delete(firing, key)
		}
		if x.Rule != x.Kind || x.Group == "" || x.Body == "" || x.Attr(schema.AttrHostName) == "" || len(x.Records) > signal.MaxRecords {
			t.Errorf("signal %+v", x)
		}
		r := x.Record()
		if _, err := signal.FromRecord(&r); err != nil {
			t.Error(err)
		}
	}
}

func TestSignalTells(t *testing.T) {
	f := newFeed(t, nil)
	steps := append([]string{"0s start web", "3s healthy web"}, crashes("web", 5*s, 137, 10*s, 100*time.Millisecond, 200*time.Millisecond, 400*time.Millisecond, 800*time.Millisecond)...)
	var out []signal.Signal
	for _, step := range append(steps, "2m healthy web") {
		out = f.step(step, out)
	}
	if len(out) != 1 {
		t.Fatalf("%+v", out)
	}
	x := out[0]
	attrs := map[string]string{}
	for _, a := range x.Subject {
		attrs[a.Key] = a.Str
		if a.Kind != schema.KindString {
			attrs[a.Key] = fmt.Sprint(a.Num)
		}
	}
	want := map[string]string{"container.id": "id-web", "container.name": "web", "container.image.name": "web:1", "weir.app": "app-web", "host.name": "n1", "container.label.team": "core",
		AttrExits: "4", AttrPause: "400", AttrBackOff: "1", AttrRestarts: "4", AttrExitCodes: "137:4", AttrReady: "3000"}
	if !reflect.DeepEqual(attrs, want) {
		t.Errorf("attributes %v\nwant %v", attrs, want)
	}
	if x.Group != "host.name=n1,container.name=web" || x.Severity != signal.Error || len(x.Records) != 4 ||
		x.Body != "container web on n1 ended 4 times in a row within 10m0s of its start, last with exit code 137; it is held back ever longer" {
		t.Errorf("%+v", x)
	}
	f = newFeed(t, nil)
	for _, step := range []string{"0s cri api 0", "10s cri api 1", "40s cri api 2", "90s cri api 3", "3m cri api 4"} {
		out = f.step(step, out[:0])
	}
	if x := out[0]; x.Group != "host.name=n1,k8s.namespace.name=ns,k8s.pod.name=api-0,k8s.container.name=api" || x.Body != "container ns_api-0_uid/api on n1 was started 4 times within 3m0s, each time within 16m0s of the start before; it is held back ever longer" {
		t.Errorf("%+v", x)
	}
}

// TestEngine is what engine 20.10 told of containers that fail, are killed for want of memory, and are restarted by hand.
func TestEngine(t *testing.T) {
	f := newFeed(t, nil)
	var out []signal.Signal
	for _, step := range []string{
		"0.263s create crash", "0.391s start crash", "0.434s die crash 3", "0.438s create health", "0.536s start health", "0.595s create oom", "0.715s start crash", "0.716s start oom",
		"0.731s oom oom", "0.784s die crash 3", "0.800s die oom 137 oom", "1.128s start crash", "1.175s die crash 3", "1.710s start crash", "1.732s die crash 3", "2.652s start crash", "2.686s die crash 3",
		"4.381s start crash", "4.408s die crash 3", "4.806s unhealthy health", "7.764s start crash", "7.790s die crash 3", "14.331s start crash", "14.351s die crash 3", "25.810s destroy crash",
		"29.996s kill health", "30.046s die health 2", "30.070s stop health", "30.181s start health", "30.181s restart health", "30.229s destroy oom", "30.253s kill health", "30.303s die health 137", "30.417s destroy health", "7m now"} {
		out = f.step(step, out)
	}
	want := []string{"731ms oom point 1", "1.732s crash_loop firing 4", "6m14.351s crash_loop resolved 0"}
	if got := describe(out); !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
	if !strings.HasSuffix(out[1].Body, "with exit code 3; it is held back ever longer") {
		t.Errorf("%+v", out[1])
	}
}

func TestAlive(t *testing.T) {
	f := newFeed(t, nil)
	for _, step := range every(0, h, m, "log web") {
		f.step(step, nil)
	}
	f.tr.Alive("n1", t0+int64(63*m))
	f.tr.Alive("unknown", t0)
	if out := f.step("72m59s now", nil); len(out) != 0 {
		t.Errorf("%+v", out)
	}
	if out := f.step("73m now", nil); len(out) != 1 || out[0].Kind != signal.NodeQuiet {
		t.Errorf("%+v", out)
	}
}

// random is a step of a schedule without reason.
func random(r *rand.Rand, i int) string {
	at := time.Duration(i)*20*s - time.Duration(r.IntN(5))*s
	what := []string{"create", "start", "start", "start", "kill", "die", "die", "die", "oom", "healthy", "unhealthy", "healthy", "unhealthy", "pause", "unpause", "destroy", "rename", "gap", "exec_start", "log", "log", "log", "log", "closed", "cri", "cri", "file", "quota", "now", "now", "now", "now"}[r.IntN(32)]
	name := string(rune('a'+r.IntN(5))) + "@n" + strconv.Itoa(1+min(i/60, r.IntN(80))%3) // of three nodes, one is busy
	number := r.IntN(3)
	switch what {
	case "log":
		number = r.IntN(40)
	case "quota":
		number = r.IntN(120000)
	case "cri":
		number = i / 20
	}
	if r.IntN(300) == 0 {
		at += h
	}
	return fmt.Sprintf("%s %s %s %d", at, what, name, number)
}

// TestRestore: a tracker that is cut anywhere, saved and restored, gives what one gives that was not; and whatever comes, signals are sound.
func TestRestore(t *testing.T) {
	change := func(c *Config) {
		c.MaxContainers, c.MaxNodes, c.Expire, c.CoolDown = 12, 2, 2*time.Hour, 2*time.Minute
		c.Silent = Silent{Age: 2 * time.Minute, Lines: 10, After: 2 * time.Minute, Gaps: 1}
		c.Noisy.Lines, c.Noisy.Minutes = 30, 1
		c.NodeQuiet = NodeQuiet{Age: 10 * time.Minute, After: time.Minute, Gaps: 1}
		c.Engine = Engine{Containers: 2, Share: 0.5, Within: 5 * time.Minute}
		c.CrashLoop.Exits = 2
		c.Flapping = Flapping{Changes: 2, Within: 20 * time.Minute}
	}
	kinds := map[string]int{}
	for seed := range uint64(5) {
		whole, cut := newFeed(t, change), newFeed(t, change)
		r := rand.New(rand.NewPCG(seed, 1))
		var all []signal.Signal
		for i := range 1500 {
			step := random(r, i)
			a, b := whole.step(step, nil), cut.step(step, nil)
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d, step %d, %s:\n%+v\nrestored %+v", seed, i, step, a, b)
			}
			all = append(all, a...)
			if s := whole.tr.Stats(); s.Containers > 12 || s.Nodes > 2 || s.Containers != cut.tr.Stats().Containers {
				t.Fatalf("holds %+v, restored %+v", s, cut.tr.Stats())
			}
			if r.IntN(5) == 0 {
				cut.restart()
			}
		}
		sound(t, all)
		for _, x := range all {
			kinds[x.Kind+" "+x.State]++
		}
	}
	for _, k := range []string{signal.CrashLoop, signal.FlappingHealth, signal.Unhealthy, signal.SilentContainer, signal.NoisyContainer, signal.NodeQuiet} {
		if kinds[k+" firing"] < 3 || kinds[k+" resolved"] < 3 {
			t.Errorf("the schedule gives %v", kinds)
		}
	}
	if kinds["oom point"] < 3 || kinds["engine_restart point"] < 3 {
		t.Errorf("the schedule gives %v", kinds)
	}
}

func TestRestoreRefuses(t *testing.T) {
	for key, state := range map[string]string{"container/docker/n1/web": "{", "node/n1": `{"seen":"x"}`, "other/x": "{}", "": "{}"} {
		if err := newTracker(t, nil).Restore(key, []byte(state)); err == nil || !strings.Contains(err.Error(), strconv.Quote(key)) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestConfig(t *testing.T) {
	_, err := New(Config{CoolDown: -1, Unhealthy: Unhealthy{For: -1}})
	for _, key := range []string{"max_containers", "max_nodes", "expire", "cool_down", "crash_loop.exits", "crash_loop.stable", "flapping_health.changes", "flapping_health.within", "unhealthy.for", "silent_container.age", "silent_container.after", "silent_container.gaps",
		"noisy_container.lines", "noisy_container.bytes", "noisy_container.minutes", "engine_restart.containers", "engine_restart.share", "engine_restart.within", "node_quiet.age", "node_quiet.after", "node_quiet.gaps"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s is not refused: %v", key, err)
		}
	}
}

func FuzzTracker(f *testing.F) {
	f.Add("docker-events/n1", "docker.container.die", "web", "n1", int64(1)<<60, int64(1), int64(137), "healthy")
	f.Add("docker/n1/x", "", "web", "n1", int64(5), int64(1), int64(1), "")
	f.Add("cri/n1/a_b_c/d/7", "", "", "", int64(-1), int64(0), int64(1), "")
	f.Add("docker-events/n1", "docker.container.rename", "a/b", "\xff", int64(1)<<62, int64(1)<<61, int64(-1), "unhealthy")
	f.Fuzz(func(t *testing.T, source, event, name, node string, at, observed, number int64, detail string) {
		tr := newTracker(t, func(c *Config) { c.MaxContainers, c.MaxNodes, c.CrashLoop.Exits, c.Unhealthy.For = 2, 1, 2, 0 })
		b := &schema.Batch{Source: source, Resource: []schema.Attr{schema.String(schema.AttrContainerName, name), schema.String(schema.AttrHostName, node), schema.String(schema.LabelPrefix+"oldName", detail), schema.String(schema.AttrContainerID, node)},
			Records: []schema.Record{{Time: at, Observed: observed, EventName: event, Body: name, Attrs: []schema.Attr{schema.Int(schema.AttrExitCode, number), schema.Int(schema.AttrOOM, number), schema.String("docker.action.detail", detail), schema.String(schema.AttrLossReason, "quota"), schema.Int(schema.AttrLossRecords, number), schema.Int(schema.AttrLossBytes, number)}}}}
		for i, what := range []string{event, "", "docker.container.start", event, "docker.container.die", event, "docker.container.start", "docker.container.die", event, "docker.container.health_status", event} {
			b.Records[0].EventName = what
			b.Records[0].Time = at + int64(i)*number
			tr.Write(b, nil)
			tr.Note(b)
			b.Source = [...]string{source, "docker-events/n1", "docker/n1/c", "cri/n1/p/c/" + strconv.FormatInt(number, 10)}[i%4]
		}
		tr.Advance(at, nil)
		tr.Advance(observed, nil)
		for _, key := range tr.Changed() {
			state := tr.AppendState(nil, key)
			if state == nil {
				continue
			}
			again := newTracker(t, nil)
			if err := again.Restore(key, state); err != nil {
				t.Fatal(err)
			}
			if got := again.AppendState(nil, key); string(got) != string(state) {
				t.Errorf("state %s, restored %s", state, got)
			}
		}
	})
}

// BenchmarkWrite is for batches of 200 lines of one of a thousand containers.
func BenchmarkWrite(b *testing.B) {
	tr := newTracker(b, nil)
	batches := make([]*schema.Batch, 1000)
	for i := range batches {
		batches[i] = &schema.Batch{Source: fmt.Sprint("docker/n1/", i), Resource: []schema.Attr{schema.String(schema.AttrContainerID, fmt.Sprint(i)), schema.String(schema.AttrContainerName, fmt.Sprint("web-", i)), schema.String(schema.AttrHostName, "n1")}, Records: make([]schema.Record, 200)}
	}
	n := 0
	for b.Loop() {
		x := batches[n%len(batches)]
		for i := range x.Records {
			x.Records[i] = schema.Record{Time: t0 + int64(n)*1e6 + int64(i), Body: "a line of some length"}
		}
		tr.Write(x, nil)
		n++
	}
	b.ReportMetric(float64(n)*200/b.Elapsed().Seconds(), "lines/s")
}

// BenchmarkAdvance is for 20,000 containers.
func BenchmarkAdvance(b *testing.B) {
	tr := newTracker(b, nil)
	for i := range 20_000 {
		tr.Write(&schema.Batch{Source: fmt.Sprint("docker/n1/", i), Resource: []schema.Attr{schema.String(schema.AttrContainerName, fmt.Sprint("web-", i)), schema.String(schema.AttrHostName, "n1")}, Records: []schema.Record{{Time: t0, Body: "x"}}}, nil)
	}
	at := t0
	for b.Loop() {
		at += int64(time.Second)
		tr.Advance(at%int64(time.Hour)+t0, nil)
	}
}
