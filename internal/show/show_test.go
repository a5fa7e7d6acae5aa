package show

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

var at = time.Date(2026, 11, 25, 12, 0, 0, 123e6, time.Local)

func TestLine(t *testing.T) {
	for _, c := range []struct {
		line Line
		want string
	}{
		{Line{At: at, Level: "ERROR", What: "web-1", Body: "no"}, "2026-11-25 12:00:00.123 ERROR web-1            no"},
		{Line{At: at, What: "web-1", Body: "a\nb\r\nc\n", Mark: "> "}, "> 2026-11-25 12:00:00.123 -     web-1            a\n    b\n    c"},
		{Line{At: at, Level: "\x1b[31mX", What: "\x1b]0;title\x07", Body: "\x1b[2J\x00\x7f\u009b31m\rover\ttab"},
			`2026-11-25 12:00:00.123 \x1b[31mX \x1b]0;title\x07 \x1b[2J\x00\x7f\x9b31m\rover` + "\ttab"},
		{Line{At: at, What: "w", Body: "a\xffb \u202etxt.exe\u2028 日本"}, "2026-11-25 12:00:00.123 -     w                a\\xffb \\u202etxt.exe\\u2028 日本"},
	} {
		if got := (Style{}).Line(c.line); got != c.want {
			t.Errorf("%q\nwant\n%q", got, c.want)
		}
	}
	if got, want := (Style{Colour: true}).Line(Line{At: at, Level: "ERROR", What: "w", Body: "x\x1b"}), "\x1b[2m2026-11-25 12:00:00.123\x1b[0m \x1b[31mERROR\x1b[0m \x1b[36mw               \x1b[0m x\\x1b"; got != want {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}

// TestEveryByte puts every byte and every character of the first planes through: none that a terminal obeys comes out.
func TestEveryByte(t *testing.T) {
	for c := range 0x3000 {
		for _, s := range []string{string([]byte{byte(c)}), string(rune(c))} {
			out := Clean(s)
			if !utf8.ValidString(out) || strings.IndexFunc(out, unsafe) >= 0 {
				t.Fatalf("%q becomes %q", s, out)
			}
		}
	}
}

func TestColoursAreForTerminals(t *testing.T) {
	env := func(string) string { return "" }
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if StyleFor(&bytes.Buffer{}, env).Colour || StyleFor(f, env).Colour || Width(f, 77) != 77 {
		t.Error("a file is taken for a terminal")
	}
}

func TestHistogram(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.Local)
	var buckets []Bucket
	for i, n := range []int64{0, 1, 12, 900, 123_456, 40_000} {
		b := Bucket{At: at.Add(time.Duration(i) * time.Minute), Levels: map[string]int64{}}
		for level, part := range map[string]int64{"error": n / 50, "warn": n / 10, "info": n / 2, "debug": n / 8} {
			if part > 0 {
				b.Levels[level] = part
			}
		}
		if rest := n - n/50 - n/10 - n/2 - n/8; rest > 0 {
			b.Levels[""] = rest
		}
		buckets = append(buckets, b)
	}
	buckets[4].Levels["fatal"] = 1
	for _, c := range []struct {
		width   int
		colour  bool
		step    time.Duration
		buckets []Bucket
	}{{40, false, time.Minute, buckets}, {80, false, time.Minute, buckets}, {80, true, time.Minute, buckets}, {132, false, time.Second, buckets}, {1, false, time.Minute, buckets[:2]}, {80, false, 24 * time.Hour, nil}} {
		name := fmt.Sprintf("histogram-%d-%s-%d-%t.golden", c.width, c.step, len(c.buckets), c.colour)
		got := (Style{Colour: c.colour}).Histogram(c.buckets, c.step, c.width)
		path := filepath.Join("testdata", name)
		if *rewrite {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
		if c.width < 30 || c.colour {
			continue
		}
		for _, line := range strings.Split(got, "\n") {
			if n := utf8.RuneCountInString(line); n > c.width {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
	}
}

// TestBars: a bar is as long as its share of the longest, never blank, and each band that has records and room is seen.
func TestBars(t *testing.T) {
	for room := 1; room < 90; room++ {
		for _, parts := range [][]int64{{1, 0, 0, 0}, {1, 1, 1, 1}, {1, 0, 0, 1_000_000}, {0, 3, 7, 0}, {5, 4, 3, 2}, {0, 0, 0, 1 << 40}} {
			var total int64
			bands := 0
			for _, p := range parts {
				total += p
				if p > 0 {
					bands++
				}
			}
			for _, most := range []int64{total, total * 3, 1 << 41} {
				bar := (Style{}).bar(parts, most, room)
				want := int((total*int64(room) + most - 1) / most)
				if n := utf8.RuneCountInString(bar); n != want || n < 1 {
					t.Fatalf("%v of %d in %d: %d columns, want %d", parts, most, room, n, want)
				}
				if different := len(runes(bar)); different != min(bands, want) {
					t.Fatalf("%v of %d in %d: %s", parts, most, room, bar)
				}
			}
		}
	}
}

func runes(s string) map[rune]bool {
	m := map[rune]bool{}
	for _, r := range s {
		m[r] = true
	}
	return m
}

func TestStep(t *testing.T) {
	for span, want := range map[time.Duration]time.Duration{0: time.Second, time.Minute: 5 * time.Second, 15 * time.Minute: time.Minute, time.Hour: 5 * time.Minute, 24 * time.Hour: time.Hour, 90 * 24 * time.Hour: 7 * 24 * time.Hour} {
		if got := Step(span, 30); got != want {
			t.Errorf("%s: %s, want %s", span, got, want)
		}
	}
	if got := Step(100*365*24*time.Hour, 30); got > 4*365*24*time.Hour {
		t.Error(got)
	}
}
