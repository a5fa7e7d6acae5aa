package patterns

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/processor/signal"
	"weir/schema"
)

var rewrite = flag.Bool("rewrite", false, "write the expected templates anew")

func golden(t *testing.T, file string, a *app) {
	t.Helper()
	var b strings.Builder
	for _, x := range a.templates {
		b.WriteString(x.Text() + "\n")
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("templates are other than in %s (-rewrite writes them):\n%s", file, b.String())
	}
}

type testMiner struct {
	*Miner
	t testing.TB
}

func miner(t testing.TB, change func(*Config)) testMiner {
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return testMiner{m, t}
}

// write1 gives the miner a line of the app "app" and returns the id of its template.
func (m testMiner) write1(body string, at int64) uint64 {
	m.Write(batch("app", "", at, schema.Record{Body: body, Time: at}), nil)
	a := m.apps["app"]
	for _, t := range a.templates {
		if t.used == a.lines {
			return t.id
		}
	}
	m.t.Fatal("the line has no template")
	return 0
}

func batch(app, image string, at int64, records ...schema.Record) *schema.Batch {
	b := &schema.Batch{Source: "docker/n1/" + app, Begin: schema.Position{Incarnation: schema.Incarnation{Start: 1}}, Records: records, Resource: []schema.Attr{
		schema.String(schema.AttrContainerID, "c-"+app), schema.String(schema.AttrContainerName, app+"-1"), schema.String(schema.AttrApp, app), schema.String(schema.AttrHostName, "n1"), schema.String(schema.AttrImageName, image)}}
	for i := range b.Records {
		b.Records[i].Offset = at + int64(i)
		b.Records[i].Observed = at
	}
	return b
}

func TestMask(t *testing.T) {
	for in, want := range map[string]string{
		"took 12ms, 1m23.5s or 350µs":                               "took <*>, <*> or <*>",
		"from 10.0.0.1:8080 to fe80::1ff:fe23:4567:890a":            "from <*> to <*>",
		"at 2026-11-25T12:59:38.001+08:00 ok":                       "at <*> ok",
		"[25/Nov/2026:12:59:38 +0800]":                              "[<*> <*>]",
		"id 4bf92f35-77b3-4da6-a3ce-929d0e0e4736 x":                 "id <*> x",
		"id deadbeef-dead-dead-beef-deadbeefcafe x":                 "id <*> x",
		"mac aa:bb:cc:dd:ee:ff":                                     "mac <*>",
		"errcode=-4012 a-5 exec-3":                                  "errcode=<*> a-<*> exec-<*>",
		"blk_-160899968791_1001":                                    "blk_<*>",
		"k8s utf8mb4 x509: YB42AC1E87E6":                            "k<*>s utf<*>mb<*> x<*>: <*>",
		"list [1,2,3] and [4]":                                      "list [<*>] and [<*>]",
		"/api/v1/a/7?x=1&y=2 end":                                   "/api/v<*>/a/<*>?<*> end",
		`"curl/8.5.0 (x y z)" "HTTP/1.1"`:                           `"<*>" "HTTP/<*>"`,
		"\x1b[31mERROR\x1b[0m boom":                                 "ERROR boom",
		"added a facade, decade":                                    "added a facade, decade",
		"zero\x00byte":                                              "zero byte",
		"token eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9abcdefghijk end": "token <*> end",
		"50% of 1/3": "<*>% of <*>",
		"账户 42 已关闭":  "账户 <*> 已关闭",
	} {
		if got := string(bytes.ReplaceAll(appendMasked(nil, in), []byte{mask}, []byte("<*>"))); got != want {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
}

func TestMessage(t *testing.T) {
	for in, want := range map[string]message{
		"a\r\nb":                       {text: "a"},
		"a\njava.io.IOException: x\n ": {text: "a", class: "java.io.IOException"},
		"a\n\tat java.io.IOException":  {text: "a"},
		"a\nnext words":                {text: "a"},
		"a\nTraceback (most recent call last):\n  File\nValueError: x\n":            {text: "a", class: "ValueError"},
		`{"a":{"msg":"no"},"msg":"yes \"x\"","n":[1,{"err":"no"}],"err":"because"}`: {text: `yes \"x\"`, detail: "because"},
		`{"msg":"one\ntwo"}`:         {text: "one"},
		`{"level":"info","n":1}`:     {text: `{"level":"info","n":1}`},
		`{"msg":"cut`:                {text: `{"msg":"cut`},
		`level=info msg="a b" err=c`: {text: "a b", detail: "c"},
		`level=info msg="a b`:        {text: `level=info msg="a b`},
		`a=b and more`:               {text: "a=b and more"},
		"":                           {},
	} {
		if got := messageOf(in); got != want {
			t.Errorf("%q\n got %+v\nwant %+v", in, got, want)
		}
	}
}

// TestVariableFirstWord: templates do not grow with a word that varies where templates are told apart.
func TestVariableFirstWord(t *testing.T) {
	m := miner(t, nil)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 5000 {
		m.write1(fill(r, "{word} joined"), int64(i)*1e9)
		m.write1(fill(r, "com.bank.{word} - closing {word}"), int64(i)*1e9)
	}
	if n := len(m.apps["app"].templates); n > maxFirsts+maxLoggers+2*crowded {
		t.Errorf("%d templates", n)
	}
}

const minute = int64(time.Minute)

func failed(body string, at int64) schema.Record {
	return schema.Record{Body: body, Severity: 17, Time: at}
}

func TestNewPattern(t *testing.T) {
	m := miner(t, func(c *Config) { c.LearnLines = 3 })
	var out []signal.Signal
	at := int64(1000) * minute
	say := func(app, image, body string, severity int32) []signal.Signal {
		out = m.Write(batch(app, image, at, schema.Record{Body: body, Severity: severity, Time: at}), out[:0])
		return out
	}
	expect := func(what string, n int) {
		t.Helper()
		if len(out) != n {
			t.Fatalf("%s: %d signals, want %d: %+v", what, len(out), n, out)
		}
	}
	say("pay", "pay:1", "cannot reach ledger 10.0.0.1", 17)
	expect("the first line", 0)
	at += 10*minute - 1
	say("pay", "pay:1", "disk full on volume seven", 17)
	expect("still learning by time", 0)
	at++
	say("pay", "pay:1", "cannot reach ledger 10.0.0.9", 17)
	expect("a known pattern", 0)
	say("pay", "pay:1", "an unknown warning is no error", 13)
	expect("below the severity", 0)
	say("pay", "pay:1", "the clock went backwards by 5s", 17)
	expect("a new error", 1)
	at += minute
	say("pay", "pay:2", "no such column in postings: fee", 17)
	expect("a new error of a new image", 1)
	s := out[0]
	if s.Kind != signal.NewPattern || s.State != signal.Point || s.Severity != signal.Error || s.Start != at || s.End != at || s.Attr(schema.AttrImageName) != "pay:2" || s.Attr(AttrText) != "no such column in postings: fee" ||
		!strings.Contains(s.Body, "never did before image pay:2") || s.Group != "app=pay,pattern="+s.Attr(AttrID) || len(s.Records) != 1 || !strings.HasSuffix(s.Records[0], fmt.Sprintf("-%x", at)) || s.Attr(schema.AttrHostName) != "n1" {
		t.Errorf("signal %+v", s)
	}
	say("pay", "pay:2", "no such column in postings: tax", 17)
	expect("one like it", 0)
	say("other", "other:1", "whatever this is", 17)
	expect("another app learns for itself", 0)

	// A flood of new patterns is told by its number.
	told := 0
	for i := range 30 {
		say("pay", "pay:2", string(rune('a'+i))+"xy "+strings.Repeat("word ", i), 17)
		told += len(out)
	}
	out = m.Advance(at/minute*minute+minute, out[:0])
	expect("the end of the window", 1)
	if cfg := DefaultConfig(); told != cfg.ToldPerApp-1 || out[0].Value != 30-float64(told) || out[0].Group != "app=pay" || m.Stats().Untold != uint64(30-told) {
		t.Errorf("told %d, then %+v", told, out[0])
	}
	out = m.Advance(at/minute*minute+2*minute, out[:0])
	expect("the next window", 0)
}

// TestQuietAppLearns: an app with few lines does not learn for ever.
func TestQuietAppLearns(t *testing.T) {
	for _, c := range []struct {
		after int64
		want  int
	}{{60*minute - 1, 0}, {60 * minute, 1}} {
		m := miner(t, nil)
		m.Write(batch("pay", "", 1000*minute, failed("one thing", 1000*minute)), nil)
		at := 1000*minute + c.after
		if out := m.Write(batch("pay", "", at, failed("other matter entirely", at)), nil); len(out) != c.want {
			t.Errorf("after %s: %+v", time.Duration(c.after), out)
		}
	}
}

func TestRate(t *testing.T) {
	cfg := DefaultConfig()
	usual := []int{20, 20, 18, 20, 22, 20, 20, 20, 20, 20, 20, 20}
	for _, c := range []struct {
		name   string
		counts []int // lines a minute after the usual ones
		want   string
	}{
		{"at the ratio", []int{20, 100}, "13 firing 100"},
		{"below the ratio", []int{20, 20, 99}, ""},
		{"goes on", []int{100, 200, 150, 60}, "12 firing 100"},
		{"ends", []int{100, 200, 20, 20}, "12 firing 100, 14 resolved 20"},
		{"again within the cool-down", []int{100, 0, 1000, 0}, "12 firing 100, 13 resolved 0"},
		{"one outlier is no measure", slices.Concat([]int{100, 0}, make([]int, 28), []int{100}), "12 firing 100, 13 resolved 0, 42 firing 100"},
		{"a new level becomes usual", slices.Repeat([]int{200}, 40), "12 firing 200, 42 resolved 200"},
		{"few but many times as many", []int{0, 0, 0, 99}, ""},
	} {
		for _, usual := range [][]int{usual, usual[:cfg.RateAfter-1]} {
			want := c.want
			counts := slices.Concat(usual, c.counts)
			if len(usual) < cfg.RateAfter {
				counts, want = append(slices.Clone(usual), 1000), "" // too young to be judged
			}
			m := miner(t, nil)
			var got []string
			for i, n := range counts {
				at := (1000 + int64(i)) * minute
				for range n {
					m.Write(batch("pay", "", at, schema.Record{Body: "cache miss for 7", Time: at + 1}), nil)
				}
				for _, s := range m.Advance(at+minute, nil) {
					got = append(got, fmt.Sprintf("%d %s %.0f", i, s.State, s.Value))
					if s.Kind != signal.PatternRate || s.End != at+minute || s.State == signal.Firing && (s.Severity != signal.Warn || len(s.Records) != 1) {
						t.Errorf("%s: %+v", c.name, s)
					}
				}
			}
			if g := strings.Join(got, ", "); g != want {
				t.Errorf("%s, %d before: %q, want %q", c.name, len(usual), g, want)
			}
		}
	}
}

// TestJumpsTogether: when all patterns of an app jump at once, only some are told one by one.
func TestJumpsTogether(t *testing.T) {
	m := miner(t, nil)
	var got []string
	for i := range 14 {
		at := (1000 + int64(i)) * minute
		for p := range 25 {
			for range 1 + i/12*200 {
				m.Write(batch("pay", "", at, schema.Record{Body: strings.Repeat("word ", p+1), Time: at}), nil)
			}
		}
		for _, s := range m.Advance(at+minute, nil) {
			got = append(got, fmt.Sprintf("%d %s %.0f", i, s.State, s.Value))
		}
	}
	if want := append(slices.Repeat([]string{"12 firing 201"}, 10), "12 point 15"); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// TestLateLines: containers of an app are read at different times; a line counts in its own window as long as that is open.
func TestLateLines(t *testing.T) {
	m := miner(t, nil)
	w := func(at int64) { m.write1("cache miss for 7", at) }
	w(1000 * minute)
	w(1003 * minute)
	w(1001 * minute)
	w(1000 * minute)
	x := m.apps["app"].templates[0]
	if x.open != [pending]uint32{2, 1, 0, 1} {
		t.Errorf("open %v", x.open)
	}
	w(1005 * minute)
	w(900 * minute) // older than all that is open
	if x.open != [pending]uint32{1, 1, 0, 1} || x.history[0] != 1 || x.history[1] != 2 {
		t.Errorf("open %v, closed %v", x.open, x.history)
	}
	// A time far after the reading is not believed.
	m.Write(batch("app", "", 1005*minute, schema.Record{Body: "cache miss for 7", Time: 1 << 62}), nil)
	if x.open != [pending]uint32{1, 1, 0, 2} {
		t.Errorf("open %v", x.open)
	}
	m.Advance(1<<61, nil)
	if len(m.apps) != 0 || m.Stats().Bytes != 0 {
		t.Errorf("expired, and still there: %+v", m.Stats())
	}
}

func TestBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	m := miner(t, func(c *Config) { c.MaxApps, c.MaxTemplates, c.MaxBytes = 5, 20, 1<<20 })
	for i := range 3000 {
		at := int64(i) * 1e9
		app := fmt.Sprint("app", i/200%8)
		m.Write(batch(app, fmt.Sprint("image", i), at, failed(fill(r, pickOf(r, "{word} {word} {word} is", "steady line", "a {word}.{word}.{word}: b", strings.Repeat("{word} ", 60))), at)), nil)
	}
	s := m.Stats()
	sum := 0
	for _, a := range m.apps {
		held := 0
		if len(a.templates) > 20 || len(a.images) > maxImages || len(a.forgotten) > 20 {
			t.Errorf("app %s: %d templates, %d images, %d forgotten", a.name, len(a.templates), len(a.images), len(a.forgotten))
		}
		leaves := 0
		var walk func(n *node)
		walk = func(n *node) {
			if len(n.templates)+len(n.children) == 0 {
				t.Error("an empty node")
			}
			leaves += len(n.templates)
			for _, c := range n.children {
				walk(c)
			}
		}
		for _, n := range a.tree {
			walk(n)
		}
		for _, x := range a.templates {
			held += x.size()
		}
		if held != a.bytes || leaves != len(a.templates) {
			t.Errorf("app %s: holds %d bytes, says %d; %d templates in the tree, %d in the list", a.name, held, a.bytes, leaves, len(a.templates))
		}
		sum += held
	}
	if s.Apps > 5 || s.Bytes > 1<<20 || s.Bytes != sum || s.ForgottenTemplates == 0 || s.ForgottenApps == 0 || s.Lines != 3000 {
		t.Errorf("%+v, sum %d", s, sum)
	}

	m = miner(t, func(c *Config) { c.MaxBytes = 1 << 20 })
	for i := range 6000 {
		m.Write(batch(fmt.Sprint("app", i%3), "", int64(i), failed(fill(r, strings.Repeat("{word} ", 2+r.IntN(60))), int64(i))), nil)
	}
	if s := m.Stats(); s.Bytes > 1<<20 || s.ForgottenTemplates == 0 {
		t.Errorf("%+v", s)
	}
}

// TestForgottenIsNotNew: a pattern that was dropped for want of room is not told again when it is back.
func TestForgottenIsNotNew(t *testing.T) {
	m := miner(t, func(c *Config) { c.Learn, c.LearnLines, c.MaxTemplates = 0, 0, 10 })
	told := map[string]int{}
	for round := range 2 {
		for i := range 15 {
			at := (1000 + int64(round*15+i)) * minute
			for _, s := range m.Write(batch("pay", "", at, failed(strings.Repeat("word ", i+1), at)), nil) {
				told[s.Attr(AttrText)]++
			}
		}
	}
	if len(told) != 15 || m.Stats().ForgottenTemplates < 15 {
		t.Errorf("%v, %+v", told, m.Stats())
	}
	for text, n := range told {
		if n != 1 {
			t.Errorf("told %d times: %s", n, text)
		}
	}
}

// step is one call of a random schedule.
func step(m *Miner, r *rand.Rand, formats []string, i int) (out []signal.Signal) {
	at := (1000*minute + int64(i)*int64(20*time.Second)) - r.Int64N(3*minute) + int64(i/200)*3*int64(time.Hour)
	app := fmt.Sprint("app", r.IntN(4))
	n := 1 + r.IntN(5)
	f := formats[r.IntN(min(len(formats), 5+i/5))]
	if r.IntN(4) == 0 {
		f = formats[0]
		if r.IntN(8) == 0 {
			n = 300
		}
	}
	var records []schema.Record
	for range n {
		records = append(records, schema.Record{Body: fill(r, f), Severity: int32(r.IntN(22)), Time: at})
	}
	out = m.Write(batch(app, fmt.Sprint(app, ":", i/150), at+2*minute, records...), out)
	if r.IntN(3) == 0 {
		out = m.Advance(at-2*minute, out)
	}
	return out
}

// TestRestore cuts a stream at every few calls: a miner that is saved, restored, and goes on, gives what one gives that was never cut.
func TestRestore(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	var all []string
	for _, f := range files {
		all = append(all, formats(t, f)...)
	}
	for i := range 40 { // and some that are all alike
		all = append(all, fmt.Sprintf("%s {word} of {word} {int}", strings.Repeat("x", i%7+1)))
	}
	change := func(c *Config) {
		c.MaxApps, c.MaxTemplates, c.Learn, c.LearnLines, c.NewSeverity, c.RateCount, c.ToldPerApp, c.CoolDown = 3, 40, 0, 0, 9, 50, 3, 10*time.Minute
	}
	kinds := map[string]int{}
	for seed := range uint64(4) {
		whole, saved := miner(t, change).Miner, map[string][][]byte{}
		cutting := miner(t, change).Miner
		ra, rb := rand.New(rand.NewPCG(seed, 9)), rand.New(rand.NewPCG(seed, 9))
		restarts := rand.New(rand.NewPCG(seed, 10))
		for i := range 600 {
			a := step(whole, ra, all, i)
			b := step(cutting, rb, all, i)
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d, step %d:\n%+v\n%+v", seed, i, a, b)
			}
			for _, s := range a {
				kinds[s.Kind+" "+s.State]++
			}
			if restarts.IntN(4) > 0 {
				continue
			}
			for _, app := range cutting.Changed() { // what did not change is taken from an earlier saving
				state := cutting.AppendDelta(nil, app)
				if state == nil {
					delete(saved, app)
				} else if state[1] == 0 {
					saved[app] = [][]byte{state}
				} else {
					saved[app] = append(saved[app], state)
				}
			}
			if restarts.IntN(3) == 0 {
				for app := range saved {
					saved[app] = [][]byte{cutting.AppendState(nil, app)}
				}
			}
			if restarts.IntN(2) == 0 {
				continue
			}
			cutting = miner(t, change).Miner
			for app, states := range saved {
				for _, state := range states {
					if err := cutting.Restore(app, state); err != nil {
						t.Fatal(err)
					}
				}
				if a, b := whole.AppendState(nil, app), cutting.AppendState(nil, app); !bytes.Equal(a, b) {
					t.Fatalf("seed %d, step %d: restored %s is another", seed, i, app)
				}
			}
			if a, b := whole.Stats(), cutting.Stats(); a.Apps != b.Apps || a.Templates != b.Templates || a.Bytes != b.Bytes {
				t.Fatalf("seed %d, step %d: holds %+v, restored %+v", seed, i, a, b)
			}
		}
	}
	for _, k := range []string{"new_pattern point", "pattern_rate firing", "pattern_rate resolved"} {
		if kinds[k] < 3 {
			t.Errorf("the schedule gives %v", kinds)
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	m := miner(t, nil)
	for i := range 50 {
		m.write1(fill(rand.New(rand.NewPCG(1, uint64(i))), "{word} said {word}"), int64(i))
	}
	state := m.AppendState(nil, "app")
	for n := range state {
		if err := miner(t, nil).Restore("app", state[:n]); err == nil || !strings.Contains(err.Error(), `app "app"`) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	m.write1("one more", minute)
	delta := m.AppendDelta(nil, "app")
	if err := miner(t, nil).Restore("app", delta); err == nil || !strings.Contains(err.Error(), "a delta of another") {
		t.Errorf("a delta of nothing: %v", err)
	}
	if len(delta) > 200 || len(delta) > len(state)/5 {
		t.Errorf("a delta of one line has %d bytes, the state %d", len(delta), len(state))
	}
	if err := miner(t, nil).Restore("app", append(state, 0)); err == nil {
		t.Error("bytes after the state are taken")
	}
	if err := miner(t, nil).Restore("app", append([]byte{9}, state[1:]...)); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("another version: %v", err)
	}
}

func TestConfig(t *testing.T) {
	bad := Config{Learn: -1, LearnLines: -1, NewSeverity: 25, CoolDown: -1, Expire: -1}
	_, err := New(bad)
	for _, key := range []string{"similarity", "max_apps", "max_templates", "max_bytes", "max_line", "max_words", "expire", "learn", "learn_lines", "new_severity", "told_per_app", "window", "rate_count", "rate_ratio", "rate_after", "cool_down"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s is not refused: %v", key, err)
		}
	}
}

// TestKnownLineDoesNotAllocate: a line of a known template costs no memory.
func TestKnownLineDoesNotAllocate(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		all, _ := lines(t, file, 60)
		m := miner(t, nil)
		b := batch("app", "image", minute)
		for _, body := range all {
			b.Records = append(b.Records, schema.Record{Body: body, Time: minute, Observed: minute, Offset: int64(len(b.Records))})
		}
		m.Write(b, nil)
		m.Write(b, nil)
		if n := testing.AllocsPerRun(5, func() { m.Write(b, nil) }); n > 0 {
			t.Errorf("%s: %v allocations for %d lines", file, n, len(b.Records))
		}
	}
}

func FuzzWrite(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		for _, l := range formats(f, file) {
			f.Add(fill(rand.New(rand.NewPCG(1, 1)), l), int64(1000)*minute, int32(17), byte(3))
		}
	}
	f.Fuzz(func(t *testing.T, body string, at int64, severity int32, flip byte) {
		m := miner(t, func(c *Config) { c.MaxWords, c.MaxTemplates, c.Learn, c.LearnLines = 12, 10, 0, 0 })
		other := []byte(body)
		for i := range other {
			if i%7 == int(flip%7) {
				other[i] ^= flip
			}
		}
		for i, s := range []string{body, string(other), body + " x", strings.ToUpper(body)} {
			b := batch("app", "i", at, schema.Record{Body: s, Severity: severity, Time: at})
			b.Records[0].Observed = int64(i) * at
			m.Write(b, nil)
		}
		if len(m.apps) == 0 {
			return
		}
		state := m.AppendState(nil, "app")
		again := miner(t, nil)
		if err := again.Restore("app", state); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.AppendState(nil, "app"), state) {
			t.Error("a restored state is another")
		}
		for i, x := range m.apps["app"].templates {
			if y := again.apps["app"].templates[i]; !slices.Equal(x.words, y.words) {
				t.Errorf("words of %q are %v, restored %v", x.text, x.words, y.words)
			}
		}
	})
}

func FuzzRestore(f *testing.F) {
	m := miner(f, nil)
	m.write1("a line of 7 words or so", minute)
	m.write1("a line of seven words or so", minute)
	whole := m.AppendState(nil, "app")
	m.write1("another", minute)
	f.Add(whole, m.AppendDelta(nil, "app"))
	f.Fuzz(func(t *testing.T, state, delta []byte) {
		m := miner(t, nil)
		if m.Restore("app", state) != nil || m.Restore("app", delta) != nil {
			return
		}
		m.write1("a line of seven words or so", minute)
		m.Advance(1<<60, nil)
	})
}

func BenchmarkWrite(b *testing.B) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		b.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(b *testing.B) { benchmark(b, file) })
	}
	b.Run("all", func(b *testing.B) { benchmark(b, files...) })
}

// BenchmarkCrowded is the worst that a leaf can be: a thousand templates that differ in more words than they share.
func BenchmarkCrowded(b *testing.B) {
	m := miner(b, nil)
	r := rand.New(rand.NewPCG(1, 1))
	in := batch("app", "image", minute)
	for range 1000 {
		in.Records = append(in.Records, schema.Record{Body: fill(r, "started "+strings.Repeat("{word} ", 20)), Time: minute})
	}
	m.Write(in, nil)
	b.ReportMetric(float64(m.Stats().Templates), "templates")
	n := 0
	for b.Loop() {
		m.Write(in, nil)
		n += len(in.Records)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "lines/s")
}

func benchmark(b *testing.B, files ...string) {
	m := miner(b, nil)
	in := batch("app", "image", minute)
	bytes := 0
	for _, file := range files {
		all, _ := lines(b, file, 60)
		for _, body := range all {
			in.Records = append(in.Records, schema.Record{Body: body, Time: minute, Observed: minute, Offset: int64(len(in.Records))})
			bytes += len(body)
		}
	}
	m.Write(in, nil)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for b.Loop() {
		m.Write(in, nil)
		n += len(in.Records)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(float64(bytes)/float64(len(in.Records)), "B/line")
}

// BenchmarkState saves and restores an app with a thousand templates.
func BenchmarkState(b *testing.B) {
	m := miner(b, nil)
	r := rand.New(rand.NewPCG(1, 1))
	for i := 0; len(m.apps["app"].get()) < 1000; i++ {
		m.Write(batch("app", "", int64(i), schema.Record{Body: fill(r, strings.Repeat("{word} ", 5+r.IntN(20))), Time: minute}), nil)
	}
	state := m.AppendState(nil, "app")
	b.ReportMetric(float64(len(state)), "B/app")
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			state = m.AppendState(state[:0], "app")
		}
		b.ReportMetric(float64(len(state)), "B/app")
	})
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			if err := m.Restore("app", state); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func (a *app) get() []*template {
	if a == nil {
		return nil
	}
	return a.templates
}
