package parse

import "bytes"

// logfmtKey marks the bytes that keys of logfmt consist of in practice. go-logfmt forbids only blanks, quotes and the
// equals sign, but with so wide a rule the URLs and code of ordinary text would be keys.
var logfmtKey = func() (t [256]bool) {
	for i := range t {
		c := byte(i)
		t[i] = digit(c) || letter(c) || c == '_' || c == '.' || c == '-' || c == '@' || c == '/'
	}
	return t
}()

// logfmtLimit bounds what is read of one line: writers put the level and the ids before what may be long.
const logfmtLimit = 4 << 10

// logfmt reads key=value pairs as go-logfmt, logrus and slog's TextHandler write them. Words without a value may stand
// between pairs, but not more of them than pairs: then the line is prose that mentions a setting.
func logfmt(b []byte, f *Fields) bool {
	b = b[:min(len(b), logfmtLimit)]
	n := keyLen(b)
	if n == 0 || n >= len(b) || b[n] != '=' {
		return false
	}
	s := object{b: b, f: f}
	known := logfmtFirst(b[:n])
	pairs, words := 0, 0
	for i := 0; i < len(b) && s.got != gotAll; {
		if b[i] == ' ' {
			i++
			continue
		}
		key := b[i : i+keyLen(b[i:])]
		if i += len(key); len(key) == 0 || i >= len(b) || b[i] != '=' {
			if words++; words > pairs+8 { // prose: the rest, which may be long, would not change that
				f.Reset()
				return false
			}
			i = skipWord(b, i)
			continue
		}
		value, end := logfmtValue(b, i+1)
		i = end
		pairs++
		switch k := kindOf(key); k {
		case kindNone, kindApp, kindResult:
		case kindLevel:
			known = true
			s.take(k, value)
		default:
			s.take(k, value)
		}
	}
	if pairs < 2 || !known || words > pairs {
		f.Reset()
		return false
	}
	f.Format = Logfmt
	return true
}

// logfmtFirst says whether a key is one that writers of logfmt put first.
func logfmtFirst(key []byte) bool {
	switch string(key) {
	case "time", "ts", "level", "msg", "t", "timestamp":
		return true
	}
	return false
}

func keyLen(b []byte) int {
	n := 0
	for n < len(b) && logfmtKey[b[n]] {
		n++
	}
	return n
}

// logfmtValue reads the value at i. A quoted one that does not end, as in a line that was cut, goes to the line's end.
func logfmtValue(b []byte, i int) (value []byte, end int) {
	if i < len(b) && b[i] == '"' {
		end = valueEnd(b, i+1)
		if end < 0 {
			return nil, len(b)
		}
		return b[i+1 : end], end + 1
	}
	end = skipWord(b, i)
	return b[i:end], end
}

// skipWord returns the position of the next space, or the end.
func skipWord(b []byte, i int) int {
	n := bytes.IndexByte(b[i:], ' ')
	if n < 0 {
		return len(b)
	}
	return i + n
}
