package window

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/processor/rules"
	"weir/processor/signal"
)

const second = int64(time.Second)

// start is round, so that windows begin at it.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()

func machine(t testing.TB, limits Limits, text string) (*Machine, map[string]*rules.Rule) {
	t.Helper()
	list, err := rules.Parse("r.yaml", []byte("rules:\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	windows, err := rules.Windows([]rules.WindowSpec{{By: []string{"app"}, Window: 10 * time.Second, MaxGroups: 3}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.NewSet(windows, list)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*rules.Rule{}
	for _, r := range set.Rules {
		byName[r.Name] = r
	}
	return New(set, limits), byName
}

var wide = Limits{Lateness: time.Minute, MaxGroups: 1000, MaxSet: 100}

func delta(r *rules.Rule, app string, at int64, counts ...int64) *Delta {
	return &Delta{Rule: r.ID, Key: Key([]string{app}), Panes: []Pane{{Start: start + at*second, Counts: counts}}}
}

func told(signals []signal.Signal) (all []string) {
	for _, s := range signals {
		late := ""
		if s.Late {
			late = " late"
		}
		all = append(all, fmt.Sprintf("%s %s %s at %d, revision %d: %g%s", s.Rule, s.Group, s.State, (s.End-start)/second, s.Revision, s.Value, late))
	}
	slices.Sort(all)
	return all
}

func expect(t *testing.T, got []signal.Signal, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(told(got), want) {
		t.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(told(got), "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestLateCountsCorrectRules(t *testing.T) {
	m, r := machine(t, wide, "- {name: share, by: [app], total: severity > 0, when: ratio > 0.5, window: 10s}\n- {name: many, by: [app], when: count > 2, window: 10s}\n")
	m.Add(delta(r["share"], "a", 0, 6, 0, 10))
	m.Add(delta(r["many"], "a", 0, 2))
	expect(t, m.Advance(start+9*second))
	expect(t, m.Advance(start+10*second), "share app=a firing at 10, revision 0: 0.6")
	// The total grows: what fired is taken back. The count grows too: it fires late.
	m.Add(delta(r["share"], "a", 0, 0, 0, 10))
	m.Add(delta(r["many"], "a", 0, 1))
	expect(t, m.Advance(start+11*second), "share app=a resolved at 10, revision 1: 0.3", "many app=a firing at 10, revision 0: 3")
	m.Add(delta(r["many"], "a", 0, 1))
	expect(t, m.Advance(start+12*second), "many app=a firing at 10, revision 1: 4")
	expect(t, m.Advance(start+20*second), "many app=a resolved at 20, revision 0: 0")
	// After the lateness a rule says nothing any more, and it is counted.
	m.TakeStats()
	m.Add(delta(r["many"], "a", 0, 5))
	expect(t, m.Advance(start+80*second), "many app=a firing at 10, revision 2: 9")
	m.Add(delta(r["many"], "a", 0, 5))
	expect(t, m.Advance(start+81*second))
	if s := m.TakeStats(); s.Late != 5 || s.TooLate != 5 {
		t.Errorf("stats %+v", s)
	}
}

func TestWindowsAreCorrectedAndAddedTo(t *testing.T) {
	m, r := machine(t, wide, "")
	w := r["window_app_10s"]
	m.Add(delta(w, "a", 0, 5, 50))
	expect(t, m.Advance(start+10*second), "window_app_10s app=a point at 10, revision 0: 5")
	m.Add(delta(w, "a", 0, 2, 20))
	m.Add(delta(w, "a", 10, 1, 10))
	expect(t, m.Advance(start+10*second), "window_app_10s app=a point at 10, revision 1: 7")
	expect(t, m.Advance(start+69*second), "window_app_10s app=a point at 20, revision 0: 1")
	m.Add(delta(w, "a", 0, 1, 10))
	expect(t, m.Advance(start+70*second), "window_app_10s app=a point at 10, revision 2: 8")
	for i := range int64(2) { // its revisions rise, although the mark stands still
		m.Add(delta(w, "a", 0, 3, 30))
		got := m.Advance(start + 70*second)
		expect(t, got, fmt.Sprintf("window_app_10s app=a point at 10, revision %d: 3 late", start+70*second+i))
	}
}

func TestOverTheLimitIsOther(t *testing.T) {
	m, r := machine(t, wide, "")
	w := r["window_app_10s"]
	for i := range 10 {
		m.Add(delta(w, fmt.Sprintf("a%d", i), 0, 1))
	}
	expect(t, m.Advance(start+10*second), "window_app_10s app=a0 point at 10, revision 0: 1", "window_app_10s app=a1 point at 10, revision 0: 1", "window_app_10s app=a2 point at 10, revision 0: 1", "window_app_10s other point at 10, revision 0: 7")
	if s := m.TakeStats(); s.Other["window_app_10s"] != 7 || m.Groups() != 4 {
		t.Errorf("%v, %d groups", s.Other, m.Groups())
	}
	m.Advance(start + 90*second)
	if m.Groups() != 0 {
		t.Errorf("%d groups are left when all is over", m.Groups())
	}
	small := wide
	small.MaxGroups = 1
	m, r = machine(t, small, "- {name: b, by: [app], when: count > 0, window: 10s}\n")
	m.Add(delta(r["window_app_10s"], "a", 0, 1))
	m.Add(delta(r["b"], "a", 0, 1))
	expect(t, m.Advance(start+10*second), "window_app_10s app=a point at 10, revision 0: 1", "b other firing at 10, revision 0: 1")
}

func TestFirstSeen(t *testing.T) {
	m, r := machine(t, wide, "- {name: fresh, by: [app], when: first_seen, window: 1m, learn: 20s}\n")
	m.Advance(start)
	f := r["fresh"]
	m.Add(delta(f, "a", 0, 1))
	expect(t, m.Advance(start+second)) // it learns
	m.Add(delta(f, "b", 20, 2))
	m.Add(delta(f, "b", 30, 2))
	expect(t, m.Advance(start+31*second), "fresh app=b point at 30, revision 0: 2")
	m.Add(delta(f, "a", 60, 1)) // a minute after it was seen last it is known no more
	expect(t, m.Advance(start+61*second))
	expect(t, m.Advance(start+140*second))
	m.Add(delta(f, "a", 140, 1))
	expect(t, m.Advance(start+141*second), "fresh app=a point at 150, revision 0: 1")
	m.Add(delta(f, "c", 10, 1)) // older than all that is remembered
	expect(t, m.Advance(start+142*second))
}

func TestForAndCooldown(t *testing.T) {
	m, r := machine(t, wide, "- {name: x, by: [app], when: count > 1, window: 10s, for: 20s, cooldown: 1m}\n")
	x := r["x"]
	at := func(from, to int64) {
		for i := from; i < to; i += 10 {
			m.Add(delta(x, "a", i, 2))
		}
	}
	at(0, 20)
	expect(t, m.Advance(start+30*second)) // two windows are ten seconds
	at(30, 70)
	expect(t, m.Advance(start+70*second), "x app=a firing at 60, revision 0: 2")
	at(80, 130)
	expect(t, m.Advance(start+90*second), "x app=a resolved at 80, revision 0: 0")
	expect(t, m.Advance(start+130*second), "x app=a firing at 120, revision 0: 2")
}

// TestUnknownRulesAreKept: this process has not read the file yet that another counts by.
func TestUnknownRulesAreKept(t *testing.T) {
	m, r := machine(t, wide, "- {name: x, by: [app], when: count > 1, window: 10s}\n")
	full := m.set
	none, err := rules.NewSet()
	if err != nil {
		t.Fatal(err)
	}
	m.SetRules(none)
	m.Add(delta(r["x"], "a", 0, 2))
	expect(t, m.Advance(start+second))
	m.SetRules(full)
	expect(t, m.Advance(start+10*second), "x app=a firing at 10, revision 0: 2")
	m.SetRules(none)
	expect(t, m.Advance(start+11*second), "x app=a resolved at 10, revision 1: 0")
	if m.Groups() != 0 {
		t.Errorf("%d groups of no rule", m.Groups())
	}
}

// TestStateGoesOn: a machine that is restored from changes, or from a snapshot, at any point says what one says that never stopped.
func TestStateGoesOn(t *testing.T) {
	const text = "- {name: many, by: [app], when: count > 2, window: 20s, slide: 10s, for: 10s, cooldown: 40s}\n- {name: kinds, by: [app], of: body, when: distinct > 2, window: 10s}\n- {name: gone, by: [app], when: absent, window: 30s}\n- {name: fresh, by: [app], when: first_seen, window: 1m}\n"
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		whole, byName := machine(t, wide, text)
		cut, _ := machine(t, wide, text)
		var entries [][]byte
		keep := func(e []byte) { entries = append(entries, slices.Clone(e)) }
		var list []*rules.Rule
		for _, r := range whole.set.Rules {
			list = append(list, byName[r.Name])
		}
		now := int64(0)
		for range 300 {
			now += rnd.Int64N(3)
			for range rnd.IntN(4) {
				r := list[rnd.IntN(len(list))]
				at := now - rnd.Int64N(10)
				if rnd.IntN(10) == 0 {
					at -= rnd.Int64N(120)
				}
				d := delta(r, fmt.Sprintf("a%d", rnd.IntN(4)), at-((at%10)+10)%10, 1+rnd.Int64N(3), rnd.Int64N(100))
				if r.Of != nil {
					d.Panes[0].Set = []uint64{uint64(rnd.IntN(3)), uint64(3 + rnd.IntN(3))}
				}
				whole.Add(d)
				var copied *Delta
				if err := Deltas(d.Append(nil), func(d *Delta) { copied = d }); err != nil {
					t.Fatal(err)
				}
				cut.Add(copied)
			}
			a, b := whole.Advance(start+now*second), cut.Advance(start+now*second)
			if !reflect.DeepEqual(told(a), told(b)) {
				t.Fatalf("seed %d at %d:\n%v\n%v", seed, now, told(a), told(b))
			}
			whole.Changes(func([]byte) {})
			cut.Changes(keep)
			if rnd.IntN(20) == 0 {
				entries = nil
				cut.Snapshot(keep)
			}
			if rnd.IntN(5) == 0 {
				again, _ := machine(t, wide, text)
				for _, e := range entries {
					if err := again.Restore(e); err != nil {
						t.Fatal(err)
					}
				}
				again.Restored()
				if again.Groups() != cut.Groups() {
					t.Fatalf("%d groups, %d were saved", again.Groups(), cut.Groups())
				}
				cut = again
			}
		}
	}
}

func TestDamagedBytesAreErrors(t *testing.T) {
	m, r := machine(t, wide, "- {name: x, by: [app], of: body, when: distinct > 1, window: 10s}\n")
	d := delta(r["x"], "a", 0, 1, 2, 3)
	d.Panes[0].Set, d.Records = []uint64{1, 2}, []string{"id"}
	m.Add(d)
	m.Advance(start + 10*second)
	var entries [][]byte
	m.Snapshot(func(e []byte) { entries = append(entries, slices.Clone(e)) })
	rnd := rand.New(rand.NewPCG(1, 1))
	damage := func(b []byte) []byte {
		b = slices.Clone(b)
		if rnd.IntN(2) == 0 {
			return b[:rnd.IntN(len(b))]
		}
		b[rnd.IntN(len(b))] = byte(rnd.Uint32())
		return b
	}
	good := d.Append(nil)
	for range 20_000 { // neither panics nor allocates without bound
		_ = Deltas(damage(good), func(*Delta) {})
		again := New(m.set, wide)
		_ = again.Restore(damage(entries[rnd.IntN(len(entries))]))
	}
	if err := Deltas(good[:len(good)-1], func(*Delta) {}); err == nil {
		t.Error("a delta that is cut off is taken")
	}
}

func TestWatermark(t *testing.T) {
	now := time.Unix(0, start)
	const idle, hold = 400 * time.Millisecond, 30 * time.Second
	at := func(s float64) int64 { return start + int64(s*1e9) }
	var w Watermark
	step := func(name string, caughtUp bool, want float64) {
		t.Helper()
		if got := w.Follow(now, caughtUp, idle, hold); got != at(want) {
			t.Errorf("%s: the mark is at %v, want %v", name, float64(got-start)/1e9, want)
		}
	}
	w.Observe("a", at(-1), now)
	w.Observe("b", at(-5), now)
	step("the slower source", true, -5)
	w.Observe("a", at(-0.5), now)
	w.Observe("b", at(-2), now)
	step("goes on", true, -2)
	now = now.Add(300 * time.Millisecond)
	w.Observe("a", at(0.2), now)
	now = now.Add(150 * time.Millisecond)
	step("b is idle", true, 0.2)
	step("while there is more to read silence means nothing", false, 0.2)
	now = now.Add(time.Second)
	step("all are silent: the clock", true, 1.05)
	w.Observe("b", at(-20), now)
	step("it never goes back", true, 1.05)
	w.Observe("a", at(100), now)
	step("a clock that is ahead does not drive it", true, 1.05)
	now = now.Add(40 * time.Second)
	w.Observe("a", at(41), now)
	w.Observe("b", at(0), now)
	step("one that is far behind holds it back only so far", true, 11)
	step("also while there is more to read", false, 11)
	now = now.Add(time.Hour)
	if got := w.Advance(now, true, idle, hold); got != at(11) {
		t.Errorf("the mark follows the clock to %v although it must not", float64(got-start)/1e9)
	}
}
