package patterns

import (
	"encoding/binary"
	"strings"
)

// line is a masked line cut into words. It is used again for the next line.
type line struct {
	text    []byte
	words   []word
	content int       // the first word that is not of the line's header
	path    [3]uint64 // in the tree: what must be equal, the logger, the first word
}

type word struct {
	hash     uint64 // 0: all of it is masked
	lo, hi   int    // in text
	plain    bool   // nothing of it is masked
	letters  bool
	brackets bool // it stands between square brackets
}

// read masks and cuts a body.
func (l *line) read(body string, severity int32, maxLine, maxWords int) {
	m := messageOf(body)
	l.text = appendMasked(l.text[:0], cut(m.text, maxLine))
	for _, s := range [2]string{m.detail, m.class} {
		if s != "" {
			l.text = appendMasked(append(l.text, ": "...), cut(s, maxLine))
		}
	}
	l.split(maxWords)
	l.header()
	h := mix(mix(seed, uint64(len(l.words))), uint64(max(severity, 0)+3)/4)
	if m.class != "" {
		h = mix(h, hashOf(m.class))
	}
	l.path[0] = mix(h, l.path[0])
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

// split finds the words of the text. What comes after the last word that counts is cut off.
func (l *line) split(maxWords int) {
	l.words = l.words[:0]
	depth, t := 0, l.text
	for i := 0; i < len(t); {
		c := t[i]
		if class[c] == delim {
			switch c {
			case '[':
				depth++
			case ']':
				depth = max(depth-1, 0)
			}
			i++
			continue
		}
		if len(l.words) == maxWords {
			l.text = t[:l.words[maxWords-1].hi]
			return
		}
		w := word{lo: i, plain: true, brackets: depth > 0}
		for ; i < len(t); i++ {
			c := t[i]
			k := class[c]
			if k == delim {
				break
			}
			if k == letter {
				w.letters = true
			} else if c == mask {
				w.plain = false
			}
		}
		w.hi = i
		if w.plain || w.letters {
			w.hash = hash(t[w.lo:i])
		}
		l.words = append(l.words, w)
	}
}

// headerWords is how far the header of a line may reach.
const headerWords = 16

// header finds where the line's content begins, after time, level, thread and logger. Level and logger must be
// equal in lines of one template, and so must the first word as long as there are not too many.
func (l *line) header() {
	l.path = [3]uint64{}
	i := 0
scan:
	for ; i < len(l.words) && i < headerWords; i++ {
		w := &l.words[i]
		t := l.text[w.lo:w.hi]
		switch {
		case !w.letters:
		case w.plain && isLevel(t):
			l.path[0] = mix(l.path[0], w.hash)
		case w.plain && isTimeWord(t):
		case !w.plain && letters(t) == 1: // klog's I1125, Redis' 1:M
		case isLogger(t):
			l.path[1] = mix(l.path[1], w.hash)
			if !w.brackets {
				i++
				break scan
			}
		case !w.brackets:
			break scan
		}
	}
	for i < len(l.words) && !l.words[i].letters {
		i++
	}
	if l.content = i; i < len(l.words) && l.words[i].plain {
		l.path[2] = l.words[i].hash
		if i++; i < len(l.words) && l.text[l.words[i].lo] == '/' && isMethod(l.text[l.words[i-1].lo:l.words[i-1].hi]) {
			l.path[2] = mix(l.path[2], l.words[i].hash)
		}
	}
}

// isMethod: where a request is the content, its path is what it is about.
func isMethod(t []byte) bool {
	switch string(t) {
	case "GET", "PUT", "POST", "HEAD", "PATCH", "DELETE", "OPTIONS":
		return true
	}
	return false
}

func letters(t []byte) (n int) {
	for _, c := range t {
		if class[c] == letter {
			n++
		}
	}
	return n
}

func isLevel(t []byte) bool {
	if t[len(t)-1] == ':' {
		t = t[:len(t)-1]
	}
	var low [9]byte
	if len(t) < 3 || len(t) > len(low) {
		return false
	}
	for i, c := range t {
		low[i] = c | 0x20
	}
	switch string(low[:len(t)]) {
	case "trace", "debug", "info", "note", "notice", "log", "warn", "warning", "error", "err", "fatal", "crit", "critical", "alert", "emerg", "panic", "severe", "fine", "config", "edia", "wdiag", "system":
		return true
	}
	return false
}

// isTimeWord knows the words that dates have.
func isTimeWord(t []byte) bool {
	if len(t) != 3 {
		return false
	}
	switch string(t) {
	case "UTC", "GMT", "CST", "CET", "EST", "PST", "EDT", "PDT", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun":
		return true
	}
	return isMonth(string(t))
}

// isLogger reports whether a word is a class or a source file: letters around a dot, and no path.
func isLogger(t []byte) bool {
	dot := false
	for i, c := range t {
		switch {
		case c == '/':
			return false
		case c == '.' && i > 0 && i+1 < len(t) && class[t[i-1]] == letter && class[t[i+1]] == letter:
			dot = true
		}
	}
	return dot
}

// message is what of a body makes the pattern.
type message struct {
	text   string // the first line, or the message of JSON and logfmt
	detail string // its error
	class  string // of the exception whose trace follows
}

// longBody bounds the search for a message in JSON and logfmt.
const longBody = 16 << 10

func messageOf(body string) (m message) {
	if strings.HasPrefix(body, "{") {
		if m = jsonMessage(cut(body, longBody)); m.text != "" {
			return m
		}
	} else if isLogfmt(body) {
		if m = logfmtMessage(cut(body, longBody)); m.text != "" {
			return m
		}
	}
	first, rest, more := strings.Cut(body, "\n")
	m = message{text: strings.TrimSuffix(first, "\r")}
	if more {
		m.class = exception(first, rest)
	}
	return m
}

// exception finds the class in the line after the first, or in the last one of a Python traceback.
func exception(first, rest string) string {
	next, _, _ := strings.Cut(rest, "\n")
	if strings.HasPrefix(next, "Traceback ") || strings.HasPrefix(first, "Traceback ") {
		rest = strings.TrimRight(rest, "\n")
		next = rest[strings.LastIndexByte(rest, '\n')+1:]
	}
	n := 0
	for n < len(next) && n < 200 && (class[next[n]] >= digit || next[n] == '.' || next[n] == '$' || next[n] == '_') {
		n++
	}
	name := next[:n]
	if n < len(next) && next[n] != ':' && next[n] != '\r' || n == 0 || class[name[0]] != letter {
		return ""
	}
	for _, end := range [...]string{"Exception", "Error", "Throwable", "Failure", "Exit", "Interrupt"} {
		if strings.HasSuffix(name, end) {
			return name
		}
	}
	return ""
}

// jsonMessage looks for the message and the error among the members of an object. A string stays as it is encoded, up to its first newline.
func jsonMessage(s string) (m message) {
	for i := 1; i < len(s); {
		if s[i] != '"' {
			i++
			continue
		}
		end := stringEnd(s, i)
		if end < 0 {
			return m
		}
		key := s[i+1 : end]
		i = end + 1
		for i < len(s) && (s[i] == ' ' || s[i] == ':') {
			i++
		}
		if i >= len(s) || s[i] == '}' {
			return m
		}
		if s[i] != '"' {
			i = skipValue(s, i)
			continue
		}
		if end = stringEnd(s, i); end < 0 {
			return m
		}
		value := s[i+1 : end]
		i = end + 1
		switch key {
		case "msg", "message", "@message", "Message", "short_message":
			m.text, _, _ = strings.Cut(value, `\n`)
		case "error", "err", "exception":
			m.detail, _, _ = strings.Cut(value, `\n`)
		}
	}
	return m
}

// stringEnd is the place of the quote that ends the string whose first quote is at i; -1 when there is none.
func stringEnd(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// skipValue is the place after an array, object, number or name.
func skipValue(s string, i int) int {
	depth := 0
	for i < len(s) {
		switch s[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth <= 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i + 1
			}
		case '"':
			end := stringEnd(s, i)
			if end < 0 {
				return len(s)
			}
			i = end
		}
		i++
	}
	return i
}

// isLogfmt reports whether a body begins with a key and '='.
func isLogfmt(s string) bool {
	for i := 0; i < len(s) && i < 32; i++ {
		if s[i] == '=' {
			return i > 0
		}
		if class[s[i]] < digit && s[i] != '_' && s[i] != '.' {
			return false
		}
	}
	return false
}

func logfmtMessage(s string) (m message) {
	for i := 0; i < len(s); {
		from := i
		for i < len(s) && s[i] != '=' && s[i] != ' ' {
			i++
		}
		key := s[from:i]
		if i >= len(s) || s[i] == ' ' {
			i++
			continue
		}
		i++
		from = i
		var value string
		if i < len(s) && s[i] == '"' {
			end := stringEnd(s, i)
			if end < 0 {
				return m
			}
			value, i = s[from+1:end], end+1
		} else {
			for i < len(s) && s[i] != ' ' {
				i++
			}
			value = s[from:i]
		}
		switch key {
		case "msg", "message":
			m.text, _, _ = strings.Cut(value, `\n`)
		case "err", "error":
			m.detail, _, _ = strings.Cut(value, `\n`)
		}
	}
	return m
}

const (
	seed  = 0x9e3779b97f4a7c15
	prime = 0xd6e8feb86659fd93
)

func mix(h, v uint64) uint64 {
	h = (h ^ v) * prime
	return h ^ h>>32
}

// hash is the same in every process, because paths in the tree are part of the state. It is never 0.
func hash(b []byte) uint64 {
	h := uint64(seed) + uint64(len(b))
	for len(b) >= 8 {
		h = mix(h, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	var tail uint64
	for i, c := range b {
		tail |= uint64(c) << (8 * i)
	}
	return mix(h, tail) | 1
}

func hashOf(s string) uint64 {
	h := uint64(seed)
	for i := range len(s) {
		h = mix(h, uint64(s[i]))
	}
	return h
}
