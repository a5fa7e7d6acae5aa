package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/bits"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// line is one line of Docker's json-file driver (daemon/logger/jsonfilelog): one piece of what a container wrote.
type line struct {
	log    []byte // unescaped; ends in \n unless the piece is not the last of its message
	stream string // stdout or stderr
	time   int64  // Unix ns; 0 when it is not known

	cut, partial bool // of a plain file: it is too long and goes on in the next record; it has no end
}

var errNotDocker = errors.New("not a line of the json-file driver")

// parseLine reads a line without its newline. log is appended to buf, whose memory the result shares. The scanner knows
// the order in which Docker writes the keys (log, stream, attrs, time); any other valid JSON goes through encoding/json.
func parseLine(b, buf []byte) (l line, rest []byte, err error) {
	if l, buf, ok := scanLine(b, buf); ok {
		return l, buf, nil
	}
	return parseSlow(b, buf)
}

func parseSlow(b, buf []byte) (l line, rest []byte, err error) {
	var j struct {
		Log    *string    `json:"log"`
		Stream string     `json:"stream"`
		Time   *time.Time `json:"time"`
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return line{}, buf, errNotDocker
	}
	if j.Log == nil || j.Time == nil || j.Time.Year() < minYear || j.Time.Year() > maxYear {
		return line{}, buf, errNotDocker
	}
	at := len(buf)
	buf = append(buf, *j.Log...)
	return line{log: buf[at:], stream: j.Stream, time: j.Time.UnixNano()}, buf, nil
}

// Years whose every instant is an int64 of Unix nanoseconds.
const minYear, maxYear = 1679, 2261

func scanLine(b, buf []byte) (l line, rest []byte, ok bool) {
	at := len(buf)
	b, ok = bytes.CutPrefix(b, []byte(`{"log":"`))
	if !ok {
		return l, buf, false
	}
	if buf, b, ok = unescape(buf, b); !ok {
		return l, buf[:at], false
	}
	l.log = buf[at:]
	switch {
	case bytes.HasPrefix(b, []byte(`,"stream":"stdout"`)):
		l.stream = "stdout"
	case bytes.HasPrefix(b, []byte(`,"stream":"stderr"`)):
		l.stream = "stderr"
	default:
		return l, buf[:at], false
	}
	b = b[len(`,"stream":"stdout"`):]
	if attrs, has := bytes.CutPrefix(b, []byte(`,"attrs":{`)); has {
		if b, ok = skipAttrs(attrs); !ok {
			return l, buf[:at], false
		}
	}
	if b, ok = bytes.CutPrefix(b, []byte(`,"time":"`)); !ok {
		return l, buf[:at], false
	}
	end := bytes.IndexByte(b, '"')
	if end < 0 || string(b[end:]) != `"}` {
		return l, buf[:at], false
	}
	if l.time, ok = parseTime(b[:end]); !ok {
		return l, buf[:at], false
	}
	return l, buf, true
}

// skipAttrs passes over the members of an object whose names and values are strings without escapes, and its closing
// brace. Anything else is left to the slow way.
func skipAttrs(b []byte) (rest []byte, ok bool) {
	for {
		for _, after := range [...]byte{':', 0} {
			if len(b) == 0 || b[0] != '"' {
				return b, false
			}
			b = b[1:]
			end := bytes.IndexByte(b, '"')
			if end < 0 {
				return b, false
			}
			for _, c := range b[:end] {
				if c < 0x20 || c == '\\' {
					return b, false
				}
			}
			if b = b[end+1:]; len(b) == 0 {
				return b, false
			}
			if after == ':' {
				if b[0] != ':' {
					return b, false
				}
				b = b[1:]
			}
		}
		c := b[0]
		b = b[1:]
		if c == '}' {
			return b, true
		}
		if c != ',' {
			return b, false
		}
	}
}

// unescape appends a JSON string's value up to its closing quote, and returns what follows the quote.
func unescape(dst, b []byte) (out, rest []byte, ok bool) {
	for {
		i, ascii := plain(b)
		if i == len(b) || b[i] < 0x20 {
			return dst, b, false
		}
		if !ascii && !utf8.Valid(b[:i]) {
			return dst, b, false // encoding/json has a rule for that
		}
		dst = append(dst, b[:i]...)
		if b[i] == '"' {
			return dst, b[i+1:], true
		}
		if i+1 >= len(b) {
			return dst, b, false
		}
		c := b[i+1]
		b = b[i+2:]
		switch c {
		case 'n':
			dst = append(dst, '\n')
		case 't':
			dst = append(dst, '\t')
		case 'r':
			dst = append(dst, '\r')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'u':
			r, n := hex4(b)
			if n == 0 {
				return dst, b, false
			}
			b = b[4:]
			if utf16.IsSurrogate(r) {
				low, n := rune(-1), 0
				if len(b) >= 6 && b[0] == '\\' && b[1] == 'u' {
					low, n = hex4(b[2:])
				}
				if pair := utf16.DecodeRune(r, low); n != 0 && pair != utf8.RuneError {
					r, b = pair, b[6:]
				} else {
					r = utf8.RuneError
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			return dst, b, false
		}
	}
}

// plain counts the bytes before the first quote, backslash or control character, and says whether they are all ASCII. It
// looks at eight bytes at once: a byte of (x - n·ones) &^ x has its high bit set where x's byte is below n, exactly so for
// the lowest such byte.
func plain(b []byte) (n int, ascii bool) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	var seen uint64
	for ; n+8 <= len(b); n += 8 {
		x := binary.LittleEndian.Uint64(b[n:])
		quote, slash := x^'"'*ones, x^'\\'*ones
		stop := ((x-0x20*ones)&^x | (quote-ones)&^quote | (slash-ones)&^slash) & highs
		if stop != 0 {
			k := bits.TrailingZeros64(stop) / 8
			seen |= x & (1<<(8*k) - 1)
			return n + k, seen&highs == 0
		}
		seen |= x
	}
	for ; n < len(b) && b[n] != '"' && b[n] != '\\' && b[n] >= 0x20; n++ {
		seen |= uint64(b[n])
	}
	return n, seen&highs == 0
}

func hex4(b []byte) (r rune, n int) {
	if len(b) < 4 {
		return 0, 0
	}
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, 0
		}
	}
	return r, 4
}

// parseTime reads the RFC 3339 form that Docker writes, in UTC; anything else is left to the slow way.
func parseTime(b []byte) (int64, bool) {
	if len(b) < 20 || b[len(b)-1] != 'Z' || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	num := func(b []byte) int {
		n := 0
		for _, c := range b {
			if c < '0' || c > '9' {
				return -1 << 20
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	year, month, day, hour, minute, sec := num(b[:4]), num(b[5:7]), num(b[8:10]), num(b[11:13]), num(b[14:16]), num(b[17:19])
	if year < 1970 || year > maxYear || month < 1 || month > 12 || day < 1 || day > 28 && day > daysIn(year, month) || hour < 0 || hour > 23 || minute < 0 || minute > 59 || sec < 0 || sec > 59 {
		return 0, false
	}
	ns, frac := 0, b[19:len(b)-1]
	if len(frac) > 0 {
		if frac[0] != '.' || len(frac) < 2 || len(frac) > 10 {
			return 0, false
		}
		if ns = num(frac[1:]); ns < 0 {
			return 0, false
		}
		for range 10 - len(frac) {
			ns *= 10
		}
	}
	return (days(year, month, day)*86400+int64(hour*3600+minute*60+sec))*1e9 + int64(ns), true
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// days counts from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
func days(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	yoe := year - era*400
	doy := (153*(month-3)+2)/5 + day - 1
	return int64(era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468)
}
