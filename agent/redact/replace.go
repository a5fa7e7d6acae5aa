package redact

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
)

const markerPrefix = "[redacted:"

// replace appends the body to out with every found span replaced.
func (s *scan) replace(out []byte, counts []int) []byte {
	spans := *s.found
	slices.SortFunc(spans, outermostFirst)
	s.quoteNumbers(spans)
	done := 0
	for i := 0; i < len(spans); {
		sp := spans[i]
		// Spans that overlap become one, so that no part of either survives.
		for i++; i < len(spans) && spans[i].start < sp.end; i++ {
			sp.end = max(sp.end, spans[i].end)
		}
		out = append(out, s.body[done:sp.start]...)
		out = appendMarker(out, sp, s.kinds[sp.kind])
		done = sp.end
		if counts != nil {
			counts[sp.kind]++
		}
	}
	return append(out, s.body[done:]...)
}

// outermostFirst lets the enclosing span name the kind. Of equal spans the
// later kind wins, because a password that looks like a card keeps no digits.
func outermostFirst(a, b span) int {
	return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end), cmp.Compare(b.kind, a.kind))
}

func appendMarker(out []byte, sp span, kind string) []byte {
	if sp.quote {
		out = append(out, '"')
	}
	out = append(out, markerPrefix...)
	out = append(out, kind...)
	if sp.kind == kindCard {
		out = append(out, ':')
		out = append(out, sp.lastFour[:]...)
	}
	out = append(out, ']')
	if sp.quote {
		out = append(out, '"')
	}
	return out
}

// markerLen returns the length of the replacement text that b begins with, or
// 0. Values that are already replaced are left alone on the strength of it, so
// it takes nothing for replacement text but what replace writes.
func (s *scan) markerLen(b []byte) int {
	rest, ok := bytes.CutPrefix(b, []byte(markerPrefix))
	if !ok {
		return 0
	}
	kind, _, ok := bytes.Cut(rest[:min(len(rest), maxKindLen+1)], []byte("]"))
	if !ok {
		return 0
	}
	length := len(markerPrefix) + len(kind) + 1
	if four, isCard := bytes.CutPrefix(kind, []byte("card:")); isCard {
		if len(four) != 4 || slices.ContainsFunc(four, func(c byte) bool { return !isDigit(c) }) {
			return 0
		}
		return length
	}
	for i, known := range s.kinds {
		if i != kindCard && string(kind) == known {
			return length
		}
	}
	return 0
}

// jsonState remembers whether a body is JSON, which is asked for seldom and
// costs a pass over the body.
type jsonState uint8

const (
	jsonUnknown jsonState = iota
	jsonYes
	jsonNo
)

// isJSON reports whether the body is a JSON object or array. A lone number or
// string is not counted: as a log line that is plain text.
func (s *scan) isJSON() bool {
	if s.json == jsonUnknown {
		s.json = jsonNo
		text := bytes.TrimLeft(s.body, " \t\r\n")
		if len(text) > 0 && (text[0] == '{' || text[0] == '[') && json.Valid(text) {
			s.json = jsonYes
		}
	}
	return s.json == jsonYes
}

// quoteNumbers widens spans that lie in bare numbers of a JSON body to the
// whole number, and marks them for quotes. spans are sorted by start.
func (s *scan) quoteNumbers(spans []span) {
	if !s.isJSON() {
		return
	}
	b, at, inString := s.body, 0, false
	for i := range spans {
		sp := &spans[i]
		for ; at < sp.start; at++ {
			switch {
			case b[at] == '"':
				inString = !inString
			case b[at] == '\\' && inString:
				at++
			}
		}
		if inString || !isNumberText(b[sp.start:sp.end]) {
			continue
		}
		sp.quote = true
		for sp.start > 0 && isNumberByte(b[sp.start-1]) {
			sp.start--
		}
		for sp.end < len(b) && isNumberByte(b[sp.end]) {
			sp.end++
		}
	}
}

func isNumberText(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return !isNumberByte(c) })
}

func isNumberByte(c byte) bool {
	return isDigit(c) || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'
}
