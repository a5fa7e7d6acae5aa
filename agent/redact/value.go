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
	if value := s.body[start:end]; len(value) > 0 && markerLen(value) != len(value) {
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

// endOfSingleQuoted is endOfQuoted for the marks of Python and shells. A
// double mark ends the text too, as it may end a JSON string around it.
func endOfSingleQuoted(b []byte, start int) int {
	for i := start; i < len(b); i++ {
		switch b[i] {
		case '\'', '"', '\n':
			return i
		case '\\':
			if i+1 < len(b) && b[i+1] == '"' {
				return i
			}
			i++
		}
	}
	return len(b)
}

// endsBare holds the bytes at which a value without quotation marks ends, and
// the backslash, at which it may.
var endsBare = func() (ends [256]bool) {
	for _, c := range []byte(" \t\r\n\"'`&,;)]}<>|\\") {
		ends[c] = true
	}
	return ends
}()

// bare records the value without quotation marks that begins at start, and
// returns its end.
func (s *scan) bare(start int) int {
	if n := markerLen(s.body[start:]); n > 0 {
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
	for i := start; i < len(b); i++ {
		if !endsBare[b[i]] {
			continue
		}
		if b[i] != '\\' || s.escapesEnd(i) {
			return i
		}
		if i+1 < len(b) && (b[i+1] == '\\' || !endsBare[b[i+1]]) {
			i++
		}
	}
	return len(b)
}

// escapesEnd reports whether the backslash at i begins an escape of JSON for a
// character that ends a value. In plain text \n is part of a value.
func (s *scan) escapesEnd(i int) bool {
	rest := s.body[i+1:]
	if len(rest) == 0 {
		return false
	}
	switch rest[0] {
	case '"':
		return true
	case 'n', 'r', 't':
		return s.isJSON()
	}
	return bytes.HasPrefix(rest, []byte("u0026"))
}
