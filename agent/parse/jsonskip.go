package parse

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// maxPlain is the room for an escaped key or value; nothing that is looked for is longer.
const maxPlain = 40

func skipBlank(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && blank(b[i]) {
		i++
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// keyEnd finds the quote that ends the string which begins at i, and whether there are escapes before it. Keys are
// short, so eight bytes at a time are faster than a search that has to be set up. end is negative without a quote.
func keyEnd(b []byte, i int) (end int, escaped bool) {
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:])
		q, e := x^ones*'"', x^ones*'\\'
		// The lowest marked byte is exact: a borrow can only mark bytes above a true one.
		m := ((q-ones)&^q | (e-ones)&^e) & highs
		if m == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(m) / 8
		if b[i] == '"' {
			return i, escaped
		}
		escaped = true
		i += 2
	}
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i, escaped
		case '\\':
			escaped = true
			i++
		}
	}
	return -1, escaped
}

// valueEnd finds the quote that ends the string which begins at i, negative when there is none. Values may be long, so
// it goes from quote to quote; one after an odd number of backslashes is part of the string.
func valueEnd(b []byte, i int) int {
	for start := i; ; {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		at := i + n
		k := at
		for k > start && b[k-1] == '\\' {
			k--
		}
		if (at-k)%2 == 0 {
			return at
		}
		// What stands before this quote is settled, so no backslash is counted twice.
		i = at + 1
		start = i
	}
}

// skipValue returns the position after the value at i.
func skipValue(b []byte, i int) int {
	switch c := b[i]; {
	case c == '"':
		end := valueEnd(b, i+1)
		if end < 0 {
			return short
		}
		return end + 1
	case c == '{' || c == '[':
		return skipNested(b, i)
	case digit(c) || c == '-' || letter(c):
		for i++; i < len(b) && scalar[b[i]]; i++ {
		}
		return i
	}
	return broken
}

// scalar marks the bytes that numbers, true, false and null are made of, and those of the NaN and None that some
// writers print in their place.
var scalar = func() (t [256]bool) {
	for i := range t {
		c := byte(i)
		t[i] = digit(c) || letter(c) || c == '+' || c == '-' || c == '.'
	}
	return t
}()

// nesting gives what a byte does to the depth of brackets; 2 is a quote.
var nesting = [256]int8{'{': 1, '[': 1, '}': -1, ']': -1, '"': 2}

// skipNested returns the position after the array or object at i. It counts brackets without a stack, so that their
// depth costs nothing; that they match is not checked.
func skipNested(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		n := nesting[b[i]]
		i++
		if n == 0 {
			continue
		}
		if n == 2 {
			end := valueEnd(b, i)
			if end < 0 {
				return short
			}
			i = end + 1
			continue
		}
		if depth += int(n); depth == 0 {
			return i
		}
	}
	return short
}

func hasEscape(b []byte) bool { return bytes.IndexByte(b, '\\') >= 0 }

// unescape decodes a string's escapes into buf. It returns nil when the result does not fit or is not ASCII, since
// then it is none of the words that are looked for.
func unescape(buf *[maxPlain]byte, s []byte) []byte {
	n := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			if i++; i >= len(s) {
				return nil
			}
			switch c = s[i]; c {
			case 'b', 'f', 'n', 'r', 't':
				c = ' ' // no word has a control character either
			case 'u':
				r, ok := rune4(s[i+1:])
				if !ok || r >= utf8.RuneSelf {
					return nil
				}
				c, i = byte(r), i+4
			}
		}
		if n == len(buf) {
			return nil
		}
		buf[n] = c
		n++
	}
	return buf[:n]
}

// rune4 reads the four digits of a \u escape.
func rune4(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range s[:4] {
		d := hexDigits[c]
		if d > 15 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}
