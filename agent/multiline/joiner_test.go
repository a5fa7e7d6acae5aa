package multiline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const second = int64(time.Second)

func newJoiner(t testing.TB, change func(*Config)) *Joiner {
	t.Helper()
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	j, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// cut gives the records of lines that are a millisecond apart.
func cut(j *Joiner, lines []string) []string {
	var s State
	var records []string
	for i, line := range lines {
		if j.Continues(&s, []byte(line), second+int64(i)*int64(time.Millisecond)) {
			records[len(records)-1] += "\n" + line
		} else {
			records = append(records, line)
		}
	}
	return records
}

func check(t *testing.T, j *Joiner, want ...string) {
	t.Helper()
	got := cut(j, strings.Split(strings.Join(want, "\n"), "\n"))
	if !slices.Equal(got, want) {
		t.Errorf("got %d records, want %d:\n%s", len(got), len(want), strings.Join(got, "\n=====\n"))
	}
}

// Before and after stand around traces. A trace that continues any line can only follow one that is part of the test,
// so those of the loggers have it as their own first line.
const (
	before = `2026-11-25 10:00:00 INFO ready`
	after  = `2026-11-25 10:00:01 INFO goes on`
)

// owner is the recogniser that a trace's name begins with.
func owner(name string) string {
	word, _, _ := strings.Cut(name, " ")
	if word == "kotlin" || word == "scala" {
		return "java"
	}
	return word
}

func TestEveryTraceIsOneRecord(t *testing.T) {
	all := newJoiner(t, nil)
	for name, trace := range traces {
		t.Run(name, func(t *testing.T) {
			own := newJoiner(t, func(c *Config) { c.Recognisers = []string{owner(name)} })
			for _, j := range []*Joiner{all, own} {
				check(t, j, trace)
				check(t, j, before, trace, after)
				check(t, j, "ready", trace, "goes on")
				check(t, j, `{"msg":"ready"}`, trace, `{"msg":"goes on"}`)
				check(t, j, before, trace, trace, after)
			}
			crlf := strings.ReplaceAll(trace, "\n", "\r\n") + "\r"
			check(t, all, before+"\r", crlf, crlf, after+"\r")
		})
	}
}

func TestMixedLanguages(t *testing.T) {
	j := newJoiner(t, nil)
	names := slices.Sorted(maps.Keys(traces))
	for _, a := range names {
		for _, b := range names {
			check(t, j, before, traces[a], traces[b], traces[a], after)
		}
	}
}

func TestSingleLines(t *testing.T) {
	for _, names := range [][]string{{"all"}, {"java"}, {"python"}, {"go"}, {"dotnet"}, {"node"}, {"ruby"}, {"rust"}, nil} {
		j := newJoiner(t, func(c *Config) { c.Recognisers = names })
		check(t, j, singles...)
		for _, line := range singles {
			check(t, j, line, line, before, line)
		}
	}
	j := newJoiner(t, nil)
	for _, line := range singles {
		if recordLike([]byte(line)) {
			check(t, j, traces["java"], line)
			check(t, j, traces["rust old"], line)
		}
	}
}

func TestDetailsFollowOnlyReportsOfTrouble(t *testing.T) {
	j := newJoiner(t, nil)
	trace := traces["python syntax"]
	for _, head := range []string{"10:00 ERROR x", "[error] x", "W1125 10:00:00.0 1 a.go:1] x", "fail: x", "FATAL: x", "2026-11-25 10:00:00|WARN|x"} {
		check(t, j, head+"\n"+trace, after)
	}
	for _, head := range []string{"10:00 INFO no ERROR", "the error", "I1125 10:00:00.0 1 a.go:1] ERROR", "info: x", "x.ERROR", "an ERRORS"} {
		check(t, j, head, trace, after)
	}
	check(t, j, "10:00 ERROR x", "Error: a message of its own", after)
}

func TestRecordsEndTraces(t *testing.T) {
	j := newJoiner(t, nil)
	lines := strings.Split(traces["java"], "\n")
	got := cut(j, slices.Concat(lines[:5], []string{after}, lines[5:]))
	// Frames cannot stand alone, so the rest goes with the line that came between.
	if len(got) != 2 || !strings.HasPrefix(got[1], after) {
		t.Errorf("got %q", got)
	}
	lines = strings.Split(traces["python"], "\n")
	got = cut(j, slices.Concat(lines[:3], []string{`{"msg":"x"}`}, lines[4:9]))
	if len(got) != 3 || got[1] != `{"msg":"x"}` {
		t.Errorf("got %q", got)
	}
}

func TestBounds(t *testing.T) {
	frames := slices.Repeat([]string{"\tat a.b(C.java:1)"}, 9) // 18 bytes each
	lines := slices.Concat([]string{before, "a.BException: x"}, frames, []string{after})
	got := cut(newJoiner(t, func(c *Config) { c.MaxLines = 4 }), lines)
	if counts := lineCounts(got); !slices.Equal(counts, []int{1, 4, 4, 2, 1}) {
		t.Errorf("lines: %v", counts)
	}
	wide := slices.Repeat([]string{"\tat a.b(" + strings.Repeat("x", 302) + ")"}, 4) // 311 bytes, 312 with the newline
	got = cut(newJoiner(t, func(c *Config) { c.MaxBytes = 311*3 + 2 + 89 }), wide)
	if counts := lineCounts(got); !slices.Equal(counts, []int{3, 1}) {
		t.Errorf("bytes: %v", counts)
	}
	if counts := lineCounts(cut(newJoiner(t, func(c *Config) { c.MaxLines = 1 }), lines)); len(counts) != len(lines) {
		t.Errorf("one line: %v", counts)
	}
}

func lineCounts(records []string) (counts []int) {
	for _, r := range records {
		counts = append(counts, strings.Count(r, "\n")+1)
	}
	return counts
}

func TestGap(t *testing.T) {
	j := newJoiner(t, nil)
	lines := strings.Split(traces["python"], "\n")
	for _, test := range []struct {
		name     string
		at, next int64
		joined   bool
	}{
		{"within", second, 3 * second, true}, {"beyond", second, 3*second + 1, false},
		{"back within", 3 * second, second, true}, {"back beyond", 3*second + 1, second, false},
		{"unknown", 0, 9 * second, true}, {"next unknown", 9 * second, 0, true},
		{"far apart", -1 << 63, 1<<63 - 1, false},
	} {
		var s State
		j.Continues(&s, []byte(lines[0]), test.at)
		j.Continues(&s, []byte(lines[1]), test.at)
		if got := j.Continues(&s, []byte(lines[2]), test.next); got != test.joined {
			t.Errorf("%s: joined is %v", test.name, got)
		}
		if !j.Continues(&s, []byte(lines[3]), test.next) {
			t.Errorf("%s: the rest of the trace does not stay together", test.name)
		}
	}
}

// Lines that cannot stand alone go with whatever is before them, unless that is whole.
func TestLinesThatCannotStandAlone(t *testing.T) {
	j := newJoiner(t, nil)
	for _, line := range []string{
		"\tat a.b(C.java:1)", "    at f (/a.js:1:2) {", "   at A.B(Int32 x)", "\t... 12 more", "\tSuppressed: a.BException: x", "Caused by: a.BFault",
		"Wrapped by: a.b.CException: x", " ---> System.Foo: x", "   --- End of inner exception stack trace ---", "--- End of stack trace from previous location ---",
		"\tfrom a.rb:1:in 'x'", "goroutine 1 [running]:",
	} {
		check(t, j, "any text\n"+line, after+"\n"+line, `{"a":1}`, line, after)
	}
	none := newJoiner(t, func(c *Config) { c.Recognisers = []string{"rust"} })
	check(t, none, "any text", "\tat a.b(C.java:1)", "Caused by: a.BFault", "\tfrom a.rb:1:in 'x'", "goroutine 1 [running]:")
}

// What a trace cannot have next starts a record, even when it is no log record itself.
func TestTracesEnd(t *testing.T) {
	j := newJoiner(t, nil)
	for _, trace := range []string{
		"a.BException: x\n\tat a.b(C.java:1)", "/app/a.js:1\n  code", "/app/a.js:1\n  code\n  ^\n\nError: x\n    at f (/a.js:1:2)\n",
		"[AError: x] {\n  a: 1", "[AError: x] {\n  a: 1\n}", traces["python"], traces["python"] + "\n", traces["python syntax"] + "\n\nDuring handling of the above exception, x:\n",
		traces["python group"], traces["python group"] + "\n", "panic: x", "panic: x\n\ngoroutine 1 [running]:", "panic: x\n\ngoroutine 1 [running]:\n",
		"a.rb:1:in 'x': y", "a.rb:1:in 'x': y\n\ncode", "a.rb:1:in 'x': y\n\tfrom a.rb:2:in 'z'", "thread 'a' panicked at a.rs:1:2:\nx", "info: A.B[0]\n      x", traces["rust"],
	} {
		check(t, j, trace, "and (so) on", after)
	}
	check(t, j, "a.BException: x\n\tat a.b(C.java:1)\n\t[CIRCULAR REFERENCE: a.BException: x]\n    [cause]: Error: y\n      at z", "", "x")
	check(t, j, traces["python"]+"\n\nDuring handling of the above exception, another exception occurred:\n\n"+traces["python group"], after)
	check(t, j, "panic: x\n\nruntime stack:\nruntime.throw({0x1, 0x2})\n\t/a.go:1 +0x1\n...additional frames elided...\n", "", "x")
}

func TestRecordLike(t *testing.T) {
	for _, line := range []string{"20261125 10:00", "20261125T10", "1795600000", "10:00", "Tue Nov 25", "Nov  5", "INFO", "[WARN] x", "t=1", "crit: x", "F1125 x"} {
		if !recordLike([]byte(line)) {
			t.Errorf("%q is a record", line)
		}
	}
	for _, line := range []string{"", "7", "42 x", "2026x", "Sundries", "Novel", "A1125 x", "INFOS", "[signal SIGSEGV", "<x", "{ a", "a=1", "critical: x", "#"} {
		if recordLike([]byte(line)) {
			t.Errorf("%q is no record", line)
		}
	}
}

func TestOwnPatterns(t *testing.T) {
	j := newJoiner(t, func(c *Config) { c.Start = `^#\d+` })
	check(t, j, "before the first", "#1 a\n{\"json\":1}\n\n2026-11-25 x", "#2 b")
	j = newJoiner(t, func(c *Config) { c.Continue = `^(\+|$)` })
	check(t, j, "+ first\n+ second", "a\n+ b\n\n\tat a.b(C.java:1)", "{\"a\":1}\n+ c", traces["go"]+"\n+ d", "e")
	j = newJoiner(t, func(c *Config) { c.Continue, c.Recognisers = `^\+`, nil })
	check(t, j, "a\n+ b", "\tat a.b(C.java:1)")
}

func TestOpen(t *testing.T) {
	var s State
	all := newJoiner(t, nil)
	if all.Open(&s) {
		t.Error("nothing is open at a stream's start")
	}
	for _, test := range []struct {
		recognisers, lines string
		open               bool
	}{
		{"all", before, true}, {"java", before, true}, {"go", before, true}, {"python", before, false}, {"rust", before, false},
		{"python", "10:00 ERROR x", true}, {"rust", "10:00 ERROR x", false}, {"all", `{"a":1}`, false}, {"all", `{"a":1`, true},
		{"all", traces["node uncaught"], false}, {"all", traces["go"], false}, {"python", traces["python"], true}, {"", before, false},
		{"rust", traces["rust"], false}, {"rust", "thread 'a' panicked at a.rs:1:2:", true}, {"all", strings.Repeat("\tat a.b(C.java:1)\n", 500), false},
	} {
		j := newJoiner(t, func(c *Config) { c.Recognisers = strings.Fields(test.recognisers) })
		s = State{}
		for line := range strings.SplitSeq(strings.TrimSuffix(test.lines, "\n"), "\n") {
			j.Continues(&s, []byte(line), 0)
		}
		if got := j.Open(&s); got != test.open {
			t.Errorf("%s: Open is %v after %.60q", test.recognisers, got, test.lines)
		}
	}
	j := newJoiner(t, func(c *Config) { c.Start, c.MaxLines = "^#", 2 })
	s = State{}
	if j.Continues(&s, []byte("# a"), 0); !j.Open(&s) {
		t.Error("a record of an own start is not open")
	}
	if j.Continues(&s, []byte("b"), 0); j.Open(&s) {
		t.Error("a full record is open")
	}
}

// A stream may go on anywhere from a copy of its state: after a crash the same records are cut.
func TestCopiedState(t *testing.T) {
	j := newJoiner(t, nil)
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(traces)) {
		lines = append(lines, strings.Split(traces[name], "\n")...)
		lines = append(lines, singles...)
	}
	for i, at := 0, (State{}); i < len(lines); i++ {
		a, b := at, at
		buffer := []byte(lines[i])
		first := j.Continues(&a, buffer, second)
		for k := range buffer {
			buffer[k] = 'x' // The state must not see what becomes of the line.
		}
		if second := j.Continues(&b, []byte(lines[i]), second); first != second || a != b {
			t.Fatalf("line %d: %v and %v", i, first, second)
		}
		at = a
	}
}

func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	_, err := New(Config{Recognisers: []string{"cobol"}, Start: "(", Continue: "["})
	for _, key := range []string{"recognisers", "start", "continue", "max_lines", "max_bytes", "max_gap"} {
		if !strings.Contains(fmt.Sprint(err), key+": ") {
			t.Errorf("%s is missing in %v", key, err)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	j := newJoiner(t, nil)
	var s State
	lines := [][]byte{}
	for _, trace := range traces {
		for line := range strings.SplitSeq(trace, "\n") {
			lines = append(lines, []byte(line))
		}
	}
	for _, line := range singles {
		lines = append(lines, []byte(line))
	}
	if n := testing.AllocsPerRun(20, func() {
		for _, line := range lines {
			j.Continues(&s, line, second)
			j.Open(&s)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
