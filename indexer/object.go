package indexer

import (
	"strings"
	"unicode/utf8"
)

// What of a JSON body is indexed as such. A flattened field takes 20 levels and terms of 32,766 bytes; a body past these bounds
// is searched as text alone.
const (
	maxObject      = 32 << 10
	maxObjectDepth = 16
	maxObjectKeys  = 256
	maxObjectKey   = 256
	maxNumber      = 64
)

// appendObject appends body where it is one JSON object that Elasticsearch surely takes, and nothing where it is not: what
// appears in a log must not decide over the fate of its document. It is stricter than RFC 8259: names are unique, not empty and
// without escapes, and there are no surrogates as escapes.
func appendObject(b []byte, body string) []byte {
	if len(body) > maxObject || !utf8.ValidString(body) {
		return b
	}
	o := scanner{s: body}
	if o.value(0) && o.s[o.at-1] == '}' && strings.TrimLeft(o.s[o.at:], " \t\r\n") == "" {
		return append(b, body[:o.at]...)
	}
	return b
}

type scanner struct {
	s    string
	at   int
	keys []string // of the objects that are open
	all  int
}

func (o *scanner) blank() {
	for o.at < len(o.s) && (o.s[o.at] == ' ' || o.s[o.at] == '\t' || o.s[o.at] == '\r' || o.s[o.at] == '\n') {
		o.at++
	}
}

func (o *scanner) take(c byte) bool {
	if o.at < len(o.s) && o.s[o.at] == c {
		o.at++
		return true
	}
	return false
}

func (o *scanner) value(depth int) bool {
	if depth > maxObjectDepth || o.at >= len(o.s) {
		return false
	}
	switch c := o.s[o.at]; {
	case c == '{':
		return o.members(depth)
	case c == '[':
		o.at++
		if o.blank(); o.take(']') {
			return true
		}
		for {
			if o.blank(); !o.value(depth + 1) {
				return false
			}
			if o.blank(); o.take(']') {
				return true
			}
			if !o.take(',') {
				return false
			}
		}
	case c == '"':
		_, ok := o.text(true)
		return ok
	case c == '-' || c >= '0' && c <= '9':
		return o.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(o.s[o.at:], word) {
			o.at += len(word)
			return true
		}
	}
	return false
}

func (o *scanner) members(depth int) bool {
	o.at++
	mine := len(o.keys)
	if o.blank(); o.take('}') {
		return true
	}
	for {
		o.blank()
		key, ok := o.text(false)
		if !ok || key == "" || len(key) > maxObjectKey || o.all == maxObjectKeys {
			return false
		}
		for _, k := range o.keys[mine:] {
			if k == key {
				return false
			}
		}
		o.keys = append(o.keys, key)
		o.all++
		if o.blank(); !o.take(':') {
			return false
		}
		if o.blank(); !o.value(depth + 1) {
			return false
		}
		if o.blank(); o.take('}') {
			o.keys = o.keys[:mine]
			return true
		}
		if !o.take(',') {
			return false
		}
	}
}

func (o *scanner) text(escapes bool) (string, bool) {
	if !o.take('"') {
		return "", false
	}
	from := o.at
	for ; o.at < len(o.s); o.at++ {
		switch c := o.s[o.at]; {
		case c == '"':
			o.at++
			return o.s[from : o.at-1], true
		case c < 0x20 || c == '\\' && !escapes:
			return "", false
		case c == '\\':
			if o.at++; o.at >= len(o.s) {
				return "", false
			}
			switch o.s[o.at] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if o.at+4 >= len(o.s) || o.s[o.at+1] == 'd' || o.s[o.at+1] == 'D' {
					return "", false
				}
				for range 4 {
					o.at++
					if c := o.s[o.at]; (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
						return "", false
					}
				}
			default:
				return "", false
			}
		}
	}
	return "", false
}

func (o *scanner) number() bool {
	from := o.at
	digits := func() bool {
		from := o.at
		for o.at < len(o.s) && o.s[o.at] >= '0' && o.s[o.at] <= '9' {
			o.at++
		}
		return o.at > from
	}
	o.take('-')
	if !o.take('0') && !digits() {
		return false
	}
	if o.take('.') && !digits() {
		return false
	}
	if o.take('e') || o.take('E') {
		if !o.take('+') {
			o.take('-')
		}
		if !digits() {
			return false
		}
	}
	return o.at-from <= maxNumber
}
