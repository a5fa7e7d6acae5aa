package multiline

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// references say in patterns what the hand-written checks of lines do. Each is compared on every fuzzed line.
var references = []struct {
	name    string
	pattern *regexp.Regexp
	check   func([]byte) bool
}{
	{"record", re(`^([0-9]{10}|[0-9]+[-/:.][0-9]|[0-9]{6,}[ T][0-9]|\{"|<[0-9]|\[[0-9]|\x1b|[IWEF][0-9]{4} ` +
		`|\[?(TRACE|DEBUG|INFO|NOTICE|FINE|FINER|FINEST|CONFIG|DBG|INF|VRB|WARN|WARNING|ERROR|FATAL|SEVERE|CRITICAL|CRIT|ALERT` +
		`|EMERG|PANIC|WRN|ERR|FTL)([] \t:|[,(/-]|$)|(trce|dbug|info|warn|fail|crit): ` +
		`|(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ ,][ 0-9]|(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[ ,][A-Z 0-9]` +
		`|(time|ts|t|timestamp|date|level|lvl|severity|msg)=)`), recordLike},
	{"class", re(`^[A-Za-z_.$][A-Za-z0-9_.$]{0,199}(:|$| \[)`), func(l []byte) bool {
		return className(l) > 0 || nameEnd(l) > 0 && !digit(l[0]) && !errorName(l[:nameEnd(l)]) && classEnd.Match(l[nameEnd(l):])
	}},
	{"qualified", re(`^([A-Za-z0-9_$]+\.[A-Za-z0-9_.$]+|[A-Za-z0-9_.$]*(Error|Exception|Throwable))(:|$)`), qualified},
	{"more", re(`^\.\.\. [0-9]+ (more|common frames omitted)`), more},
	{"frame", re(`^at (.+ \((.*<anonymous>|index [0-9]+|.*:[0-9]+)\)( \{)?$` +
		`|(async )?([^ (][^ (]*\(|[^ ]*/[^ ]*:[0-9]+( \{)?$))`), frame},
	{"from", re(`^from .*:in `), from},
	{"python file", re(`^File ".*", line `), pyFile},
	{"python error", re(`^[A-Za-z0-9_.$<>\x{80}-\x{10ffff}]+(:|$)`), pyError},
	{"goroutine", re(`^goroutine [0-9].*\]:$`), goroutine},
	{"go call", re(`^(panic|[^ (.][^ (]*\.[^ (]*)\(.*\)$`), goCall},
	{"carets", re(`^[ \t]*[~^]+[ \t]*$`), carets},
	{"rust", re(`^thread( .*)? panicked at `), rustPanic},
	{"ruby", re(`^[^ :=]*\.rb:[0-9]+:in `), func(l []byte) bool { return sourceLine(l) == rubyHead }},
	{"node", re(`^[^ :=]*\.(js|cjs|mjs|ts):[0-9]+$`), func(l []byte) bool { return sourceLine(l) == nodeCode }},
	{"register", re(`^[A-Za-z][A-Za-z0-9_.$]{1,6} +0x`), register},
}

// classEnd is what may follow a class name.
var classEnd = re(`^(:|$| \[)`)

// re lets the dot match any byte of a line.
func re(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?s)` + pattern) }

// FuzzContinues cuts any text into lines and checks what must hold for each of them.
func FuzzContinues(f *testing.F) {
	for i, name := range slices.Sorted(maps.Keys(traces)) {
		f.Add([]byte(before+"\n"+traces[name]+"\n"+after), uint8(255), uint64(i))
		f.Add([]byte(traces[name]+"\r\n"+traces["java"]), uint8(languages(owner(name))), uint64(0))
	}
	f.Add([]byte(strings.Join(singles, "\n")), uint8(127), uint64(7))
	f.Fuzz(func(t *testing.T, text []byte, langs uint8, times uint64) {
		var on []string
		for i, name := range names {
			if langs>>i&1 != 0 {
				on = append(on, name)
			}
		}
		j := newJoiner(t, func(c *Config) { c.Recognisers, c.MaxLines, c.MaxBytes = on, 5, 1024 })
		r := run{t: t, j: j, times: times}
		for line := range bytes.SplitSeq(text, []byte("\n")) {
			r.line(line)
			compare(t, line)
		}
	})
}

// compare checks a line, and the line without its indentation, against the references.
func compare(t *testing.T, line []byte) {
	if len(line) == 0 || len(line) > 150 || !isText(line) {
		return // The scans for names are bounded, and patterns see broken text as something else.
	}
	for _, text := range [][]byte{line, bytes.TrimLeft(line, " \t")} {
		for _, r := range references {
			if len(text) > 0 && r.check(text) != r.pattern.Match(text) {
				t.Errorf("%s: the check says %v of %q", r.name, r.check(text), text)
			}
		}
	}
}

func isText(line []byte) bool {
	return bytes.Equal(line, bytes.ToValidUTF8(line, nil))
}

// A run is one stream whose records are counted beside the joiner.
type run struct {
	t            *testing.T
	j            *Joiner
	s            State
	times        uint64
	at, last     int64
	lines, bytes int
}

// line gives one line to the joiner. The bits of times say whether it comes at once or after a pause.
func (r *run) line(line []byte) {
	r.at += second + int64(r.times&1)*int64(2*time.Second)
	r.times = r.times>>1 | r.times<<63
	again, open := r.s, r.j.Open(&r.s)
	joined := r.j.Continues(&r.s, line, r.at)
	if other := r.j.Continues(&again, bytes.Clone(line), r.at); other != joined || again != r.s {
		r.t.Fatalf("%q: a copy of the state says %v, not %v", line, other, joined)
	}
	if joined && (!open || r.lines == 0 || r.at-r.last > 2*second) {
		r.t.Errorf("%q: joined to a record that is not open, or after a pause", line)
	}
	if joined {
		r.lines, r.bytes = r.lines+1, r.bytes+1+len(line)
		if r.lines > 5 || r.bytes > 1024 {
			r.t.Errorf("%q: the record has %d lines and %d bytes", line, r.lines, r.bytes)
		}
	} else {
		r.lines, r.bytes = 1, len(line)
	}
	r.last = r.at
}
