// Package show writes records for people: one line each, colours where they are wanted, and nothing in a record that could drive the
// terminal.
package show

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// Line is a record as people read it.
type Line struct {
	At    time.Time
	Level string
	What  string // the container, or another source
	Body  string
	Mark  string // stands before it
}

// Style is how lines look.
type Style struct{ Colour bool }

// StyleFor gives colours to a terminal alone, and not where NO_COLOR or TERM=dumb says that none are wanted.
func StyleFor(w io.Writer, env func(string) string) Style {
	f, ok := w.(*os.File)
	return Style{Colour: ok && env("NO_COLOR") == "" && env("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))}
}

// Width is the columns of a terminal; def where w is none.
func Width(w io.Writer, def int) int {
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return n
		}
	}
	return def
}

const (
	dim, bold, red, yellow, green, cyan = "2", "1", "31", "33", "32", "36"
)

func (s Style) paint(code, text string) string {
	if !s.Colour || code == "" || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func levelColour(level string) string {
	switch strings.ToLower(level) {
	case "error", "fatal":
		return red
	case "warn":
		return yellow
	case "info":
		return green
	}
	return dim
}

// Line writes l without an end of line. The lines of a joined record stand below each other, indented, so that none looks like a record of its own.
func (s Style) Line(l Line) string {
	level, body := l.Level, strings.Split(strings.TrimRight(l.Body, "\r\n"), "\n")
	if level == "" {
		level = "-"
	}
	for i := range body {
		body[i] = Clean(strings.TrimSuffix(body[i], "\r"))
	}
	return s.paint(bold, l.Mark) + s.paint(dim, l.At.Local().Format("2006-01-02 15:04:05.000")) + " " + s.paint(levelColour(l.Level), fmt.Sprintf("%-5s", Clean(level))) + " " +
		s.paint(cyan, fmt.Sprintf("%-16s", Clean(l.What))) + " " + strings.Join(body, "\n    ")
}

// Clean makes what a terminal would obey visible instead: control characters of both sets, and those that change the
// direction of text. Tabs stay.
func Clean(s string) string {
	if plain(s) || strings.IndexFunc(s, unsafe) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !unsafe(c):
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c < 0x100:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
		i += n
	}
	return b.String()
}

// plain says of most texts soon that there is nothing to clean.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// JSON writes with escapes what JSON would let through to a terminal as it is. The value stays the same.
func JSON(text []byte) []byte {
	var b []byte
	from := 0
	for i := 0; i < len(text); {
		if text[i] < 0x7f {
			i++
			continue
		}
		c, n := utf8.DecodeRune(text[i:])
		if unsafe(c) {
			b = fmt.Appendf(append(b, text[from:i]...), `\u%04x`, c)
			from = i + n
		}
		i += n
	}
	if b == nil {
		return text
	}
	return append(b, text[from:]...)
}

func unsafe(c rune) bool {
	return c < 0x20 && c != '\t' || c >= 0x7f && c < 0xa0 || c == 0x061c || c == 0x200e || c == 0x200f || c >= 0x2028 && c <= 0x202e || c >= 0x2066 && c <= 0x2069
}

// Widen makes text as many characters long as it takes columns: East Asian wide ones take two, marks that join the one before none.
func Widen(s string) string {
	var b strings.Builder
	for _, c := range s {
		if unicode.In(c, unicode.Mn, unicode.Me, unicode.Cf) {
			continue
		}
		b.WriteRune(c)
		if k := width.LookupRune(c).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
			b.WriteByte(' ')
		}
	}
	return b.String()
}
