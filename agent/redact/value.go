package redact

import (
	"bytes"
	"math/bits"
)

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// quoteAt returns the quotation mark at i, the backslashes in front of it, and
// where the text behind it begins. Without a mark it returns 0.
func quoteAt(b []byte, i int) (mark byte, slashes, after int) {
	at := i
	for at < len(b) && b[at] == '\\' {
		at++
	}
	if at < len(b) && (b[at] == '"' || b[at] == '\'' && at == i) {
		return b[at], at - i, at + 1
	}
	return 0, 0, i
}

// quoted records the text that begins at start behind a quotation mark with so
// many backslashes, and returns its end. JSON in a JSON string has one
// backslash before its marks, and three one level deeper.
func (s *scan) quoted(mark byte, slashes, start int) int {
	level := quoteLevel(slashes)
	if slashes != 1<<level-1 {
		return start
	}
	end := 0
	if mark == '"' {
		end = endOfQuoted(s.body, start, level)
	} else {
		end = endOfSingleQuoted(s.body, start)
	}
	if value := s.body[start:end]; len(value) > 0 && s.markerLen(value) != len(value) {
		s.addSecret(start, end, kindToken)
	}
	return end
}

// quoteLevel returns how many JSON strings deep a quotation mark is that has
// so many backslashes before it. Every level doubles the backslashes of the
// text and adds one to each mark, so the level is the number of trailing ones.
func quoteLevel(slashes int) int { return bits.TrailingZeros(^uint(slashes)) }

// endOfQuoted returns the end of the text from start, which is the first mark
// of its level or of a string around it, the end of the line, or of the body:
// lines may be cut off anywhere.
func endOfQuoted(b []byte, start, level int) int {
	slashes := 0
	for i := start; i < len(b); i++ {
		switch b[i] {
		case '\\':
			slashes++
			continue
		case '"':
			if l := quoteLevel(slashes); l <= level {
				return i - (1<<l - 1)
			}
		case '\n':
			return i
		}
		slashes = 0
	}
	return len(b)
}

// endsBare holds the bytes at which a value without quotation marks ends, and
// the backslash, at which it may. endsSingle does so for values in the single
// marks of Python and shells: a double mark may end a JSON string around them.
var (
	endsBare   = byteSet(" \t\r\n\"'`&,;)]}<>|\\")
	endsSingle = byteSet("'\"\n\\")
)

func byteSet(members string) (set [256]bool) {
	for _, c := range []byte(members) {
		set[c] = true
	}
	return set
}

// bare records the value without quotation marks that begins at start, and
// returns its end.
func (s *scan) bare(start int) int {
	if n := s.markerLen(s.body[start:]); n > 0 {
		return start + n
	}
	end := s.endOfBare(start)
	if end > start {
		s.addSecret(start, end, kindToken)
	}
	return end
}

func (s *scan) endOfBare(start int) int {
	b := s.body
	for i := start; i < len(b); {
		switch {
		case !endsBare[b[i]]:
			i++
		case b[i] != '\\':
			return i
		default:
			at, odd, atMark := skipSlashes(b, i)
			if atMark {
				return at
			}
			if odd && s.escapesEnd(at) {
				return at - 1
			}
			i = at
			if odd && i < len(b) && !endsBare[b[i]] {
				i++
			}
		}
	}
	return len(b)
}

func endOfSingleQuoted(b []byte, start int) int {
	for i := start; i < len(b); {
		switch {
		case !endsSingle[b[i]]:
			i++
		case b[i] != '\\':
			return i
		default:
			at, odd, atMark := skipSlashes(b, i)
			if atMark {
				return at
			}
			i = at
			if odd && i < len(b) && b[i] != '\n' {
				i++
			}
		}
	}
	return len(b)
}

// skipSlashes returns the end of the backslashes at i, and whether their
// number is odd, so that the last escapes what follows. If a double quotation
// mark follows, it returns the start of the backslashes that go with the mark:
// cutting those in two would move the mark to another level.
func skipSlashes(b []byte, i int) (at int, odd, atMark bool) {
	for at = i; at < len(b) && b[at] == '\\'; {
		at++
	}
	if at < len(b) && b[at] == '"' {
		return at - (1<<quoteLevel(at-i) - 1), false, true
	}
	return at, (at-i)%2 == 1, false
}

// escapesEnd reports whether the escape of JSON that a backslash before i
// begins is for a character that ends a value. In plain text \n is part of it.
func (s *scan) escapesEnd(i int) bool {
	rest := s.body[i:]
	if len(rest) == 0 {
		return false
	}
	if rest[0] == 'n' || rest[0] == 'r' || rest[0] == 't' {
		return s.isJSON()
	}
	return bytes.HasPrefix(rest, []byte("u0026"))
}
