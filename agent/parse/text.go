package parse

import (
	"encoding/binary"
	"math/bits"
)

// window is how much of plain text is searched for a level, which stands near the start, after a time stamp at most.
const window = 64

// Where a level in capitals may stand: between blanks, bars, brackets, colons and the escapes of a terminal's colours.
const (
	mayPrecede = 1 << iota
	mayFollow
)

var bounds = func() (t [256]uint8) {
	for _, c := range " \t|" {
		t[c] = mayPrecede | mayFollow
	}
	for _, c := range "[<(]" {
		t[c] |= mayPrecede
	}
	for _, c := range ":]>)[,\x1b\r" {
		t[c] |= mayFollow
	}
	return t
}()

// leads marks the small letters with which a key of a level begins, and the last one of a colour's escape.
var leads = [256]bool{'l': true, 's': true, 'm': true}

// text finds the level of plain text: a whole word in capitals, a word in brackets, or the value of a key such as
// level. A word in a sentence is no level.
func text(b []byte, f *Fields) {
	var room [window]byte
	head := &room
	if len(b) >= window {
		head = (*[window]byte)(b)
	} else {
		copy(room[:], b)
	}
	letters, capitals := classify(head)
	for m := letters &^ (letters << 1); m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		if capitals>>i&1 == 0 && !leads[head[i]] && (i == 0 || head[i-1] != '[' && head[i-1] != '<') {
			continue // an ordinary word, as most are
		}
		n := bits.TrailingZeros64(^(letters >> i))
		if i+n >= window {
			for n = window - i; i+n < len(b) && n < 16 && letter(b[i+n]); n++ {
			}
		}
		if head[i] == 'm' && n > 3 && coloured(b[:i]) {
			i++
			n--
		}
		if n < 3 || n > 11 {
			continue
		}
		if level := levelAt(b, i, i+n, capitals); level != 0 {
			f.setSeverity(level)
			return
		}
	}
}

// levelAt gives the level that the word from i to end is or names.
func levelAt(b []byte, i, end int, capitals uint64) int32 {
	before, after := byte(' '), byte(' ')
	if i > 0 {
		before = b[i-1]
	}
	if end < len(b) {
		after = b[end]
	}
	if capitals>>i&1 != 0 && bounds[after]&mayFollow != 0 && (bounds[before]&mayPrecede != 0 || before == 'm') {
		if w := b[i:end]; allUpper(w) {
			if n := levelOf(w); n != 0 {
				return n
			}
		}
	}
	if before == '[' && after == ']' || before == '<' && after == '>' {
		return levelOf(b[i:end])
	}
	switch b[i] | 0x20 {
	case 'l', 's':
		return levelAfter(b, i, end)
	}
	return 0
}

// levelAfter gives the level in a value such as level=error, level: "error" or "severity" : "ERROR", when the word from
// i to end is such a key.
func levelAfter(b []byte, i, end int) int32 {
	if w := b[i:end]; !fold(w, "level") && !fold(w, "lvl") && !fold(w, "severity") && !fold(w, "loglevel") {
		return 0
	}
	if end < len(b) && b[end] == '"' {
		end++
	}
	for end < len(b) && b[end] == ' ' {
		end++
	}
	if end >= len(b) || b[end] != ':' && b[end] != '=' {
		return 0
	}
	for end++; end < len(b) && (b[end] == ' ' || b[end] == '"'); end++ {
	}
	n := end
	for n < len(b) && n < end+16 && letter(b[n]) {
		n++
	}
	return levelOf(b[end:n])
}

func allUpper(w []byte) bool {
	for _, c := range w {
		if !upper(c) {
			return false
		}
	}
	return true
}

// coloured says whether b ends in the escape of a terminal's colour but for its last letter, m.
func coloured(b []byte) bool {
	for i := len(b) - 1; i >= 0 && i > len(b)-12; i-- {
		switch c := b[i]; {
		case c == '[':
			return i > 0 && b[i-1] == 0x1b
		case c != ';' && !digit(c):
			return false
		}
	}
	return false
}

// classify marks the letters and the capital letters among 64 bytes, one bit per byte, eight bytes at a time.
func classify(head *[window]byte) (letters, capitals uint64) {
	for i := 0; i < window; i += 8 {
		x := binary.LittleEndian.Uint64(head[i:])
		low := x&^uint64(highs) | ones*0x20
		is := (low + ones*(0x80-'a')) &^ (low + ones*(0x80-'z'-1)) &^ x & highs
		letters |= gather(is) << i
		capitals |= gather(is&^(x<<2)) << i
	}
	return letters, capitals
}

// gather collects the highest bit of each of eight bytes into the lowest eight bits.
func gather(x uint64) uint64 { return (x >> 7) * 0x0102040810204080 >> 56 }
