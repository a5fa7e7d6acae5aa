package show

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bucket counts the records of one step of time.
type Bucket struct {
	At     time.Time
	Levels map[string]int64 // "" for records without a level
}

func (b *Bucket) total() (n int64) {
	for _, c := range b.Levels {
		n += c
	}
	return n
}

// band is a part of a bar.
type band struct {
	name, glyph string
	levels      []string
}

// bands begin with the worst, so that it is seen also in a short bar.
var bands = []band{
	{"error", "█", []string{"fatal", "error"}},
	{"warn", "▓", []string{"warn"}},
	{"info", "▒", []string{"info"}},
	{"other", "░", nil},
}

// parts divides the records of a bucket among the bands.
func (b *Bucket) parts() []int64 {
	parts := make([]int64, len(bands))
	for level, n := range b.Levels {
		at := slices.IndexFunc(bands, func(p band) bool { return slices.Contains(p.levels, level) })
		if at < 0 {
			at = len(bands) - 1
		}
		parts[at] += n
	}
	return parts
}

// Histogram draws one bar a bucket within width columns, and the totals below.
func (s Style) Histogram(buckets []Bucket, step time.Duration, width int) string {
	var most, total int64
	sums := make([]int64, len(bands))
	for i := range buckets {
		n := buckets[i].total()
		most, total = max(most, n), total+n
		for j, p := range buckets[i].parts() {
			sums[j] += p
		}
	}
	form := "2006-01-02 15:04:05"
	switch {
	case step >= 24*time.Hour:
		form = "2006-01-02"
	case step >= time.Minute:
		form = "2006-01-02 15:04"
	}
	if width < 60 && step < 24*time.Hour {
		form = strings.TrimPrefix(form, "2006-")
	}
	digits := len(grouped(most))
	room := max(1, width-len(form)-digits-2)
	var b strings.Builder
	for i := range buckets {
		fmt.Fprintf(&b, "%s %*s", s.paint(dim, buckets[i].At.Local().Format(form)), digits, grouped(buckets[i].total()))
		if bar := s.bar(buckets[i].parts(), most, room); bar != "" {
			b.WriteString(" " + bar)
		}
		b.WriteByte('\n')
	}
	legend := "total " + grouped(total)
	used := len(legend)
	for j, p := range bands {
		text := fmt.Sprintf("%s %s %s", p.glyph, p.name, grouped(sums[j]))
		n := len([]rune(text))
		if used+3+n > width {
			legend, used = legend+"\n", -3
		} else {
			legend += "   "
		}
		legend, used = legend+s.paint(s.bandColour(p.name), p.glyph)+strings.TrimPrefix(text, p.glyph), used+3+n
	}
	return b.String() + legend + "\n"
}

func (s Style) bandColour(name string) string {
	if name == "other" {
		return dim
	}
	return levelColour(name)
}

// bar rounds the bar's end up, so that a bucket with records is never blank, and gives every band its share to the nearest column; one with few
// records among many keeps a column where there is room, since that is what is looked for.
func (s Style) bar(parts []int64, most int64, room int) string {
	var total int64
	for _, p := range parts {
		total += p
	}
	if total == 0 {
		return ""
	}
	length := int((total*int64(room) + most - 1) / most)
	cols, left := make([]int, len(parts)), length
	for i, p := range parts {
		if p > 0 && left > 0 {
			cols[i], left = 1, left-1
		}
	}
	var before int64
	drawn := 0
	for _, c := range cols {
		drawn += c
	}
	// What is left goes to the bands by their size, of the running sum, so that the bar is exactly as long as it should be.
	given, spare := 0, length-drawn
	for i, p := range parts {
		before += p
		upto := int((before*int64(spare)*2 + total) / (2 * total))
		cols[i] += upto - given
		given = upto
	}
	var b strings.Builder
	for i, c := range cols {
		b.WriteString(s.paint(s.bandColour(bands[i].name), strings.Repeat(bands[i].glyph, c)))
	}
	return b.String()
}

// grouped writes a number with its thousands apart.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// steps are the widths of buckets that people read easily.
var steps = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
	15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour}

// Step chooses the smallest width of buckets with which a span has at most rows of them.
func Step(span time.Duration, rows int) time.Duration {
	for _, s := range steps {
		if span <= s*time.Duration(rows-1) {
			return s
		}
	}
	return max(span/time.Duration(max(rows-1, 1)), steps[len(steps)-1])
}
