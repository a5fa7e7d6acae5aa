package patterns

// mask stands in a masked line for what varies. No line has it: a zero byte in one becomes a blank.
const mask = 0

// Classes of bytes. Words are what stands between delimiters; a run of letters and digits in a word is an atom.
const (
	other = iota
	delim
	digit
	letter
)

var class = func() (c [256]uint8) {
	for b := range c {
		switch {
		case b >= '0' && b <= '9':
			c[b] = digit
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= 0x80:
			c[b] = letter
		case b == mask:
		case b <= ' ', b == 0x7f:
			c[b] = delim
		}
	}
	for _, b := range []byte(`,;=()[]{}"'|<>`) {
		c[b] = delim
	}
	return c
}()

// joins are the bytes that make one of two masked atoms: dates, addresses, versions, UUIDs, lists of numbers.
var joins = [256]bool{'.': true, ':': true, '-': true, ',': true, '/': true, '_': true, '+': true, '#': true}

// appendMasked appends a line with numbers, ids, addresses, dates, query strings and names of user agents masked.
func appendMasked(out []byte, s string) []byte {
	slash := false // in this word
	for i := 0; i < len(s); {
		c := s[i]
		switch class[c] {
		case letter, digit:
			out, i = appendAtom(out, s, i)
			continue
		case delim:
			slash = false
			if c == 0x1b {
				i += escape(s[i:])
				continue
			}
			if c == '"' {
				if n := agent(s[i+1:]); n > 0 {
					out = append(out, '"', mask)
					i += 1 + n
					continue
				}
			}
		default:
			switch {
			case c == '/':
				slash = true
			case c == '?' && slash: // a query's parts come in any number
				out = append(out, '?', mask)
				for i++; i < len(s) && s[i] > ' ' && s[i] != '"' && s[i] != '\''; i++ {
				}
				continue
			case c == mask:
				c = ' '
			}
		}
		out = append(out, c)
		i++
	}
	return out
}

// longAtom is the length from which an atom is taken for a key, a hash or a token.
const longAtom = 40

// appendAtom appends the atom at i, masked where it is not a word of a language, and returns where the next byte is.
func appendAtom(out []byte, s string, i int) ([]byte, int) {
	j, digits, turns, hex := i, 0, 0, true
	last := class[s[i]]
	for ; j < len(s); j++ {
		c := s[j]
		k := class[c]
		if k < digit {
			break
		}
		if k == digit {
			digits++
		} else if l := c | 0x20; l < 'a' || l > 'f' {
			hex = false
		}
		if k != last {
			turns++
			last = k
		}
	}
	n := j - i
	if digits == 0 {
		switch {
		case n > longAtom, n == 3 && afterMask(out, "/-") && isMonth(s[i:j]), hex && (n&3 == 0 || n == 12) && afterMask(out, ":-"):
			return appendMask(out), j
		case hex && n == 8 && isUUID(s[i:]):
			return appendMask(out), i + 36
		case hex && n == 2 && isMAC(s[i:]):
			return appendMask(out), i + 17
		}
		return append(out, s[i:j]...), j
	}
	if class[s[i]] == digit || n > longAtom || hex && (n >= 6 || n >= 4 && 2*digits >= n || afterMask(out, ":-") || j+1 < len(s) && s[j] == ':' && s[j+1] == ':') || turns >= 3 && n >= 8 {
		return appendMask(out), j
	}
	for i < j {
		from := i
		for i < j && class[s[i]] == letter {
			i++
		}
		out = append(out, s[from:i]...)
		if i < j {
			out = append(out, mask)
			for i < j && class[s[i]] == digit {
				i++
			}
		}
	}
	return out, j
}

// appendMask appends a mask, which swallows a sign, and becomes one with a mask from which only joining bytes divide it.
func appendMask(out []byte) []byte {
	n := len(out)
	for n > 0 && len(out)-n < 2 && joins[out[n-1]] {
		n--
	}
	if n > 0 && out[n-1] == mask {
		return out[:n]
	}
	if n = len(out) - 1; n >= 0 && (out[n] == '-' || out[n] == '+') && (n == 0 || class[out[n-1]] != letter) {
		out = out[:n]
	}
	return append(out, mask)
}

// afterMask reports whether a mask and one of the bytes of by stand at the end.
func afterMask(out []byte, by string) bool {
	n := len(out)
	return n >= 2 && (out[n-1] == by[0] || out[n-1] == by[1]) && (out[n-2] == mask || n >= 3 && out[n-2] == ':' && out[n-3] == mask)
}

func isHex(c byte) bool { return class[c] == digit || c|0x20 >= 'a' && c|0x20 <= 'f' }

func isUUID(s string) bool {
	if len(s) < 36 {
		return false
	}
	for i := range 36 {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (s[i] == '-') || !dash && !isHex(s[i]) {
			return false
		}
	}
	return true
}

func isMAC(s string) bool {
	if len(s) < 17 {
		return false
	}
	for i := range 17 {
		if colon := i%3 == 2; colon != (s[i] == ':') || !colon && !isHex(s[i]) {
			return false
		}
	}
	return true
}

func isMonth(s string) bool {
	switch s {
	case "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec":
		return true
	}
	return false
}

// escape is the length of a terminal's escape sequence.
func escape(s string) int {
	if len(s) < 2 || s[1] != '[' {
		return 1
	}
	for i := 2; i < len(s) && i < 20; i++ {
		if s[i] >= 0x40 {
			return i + 1
		}
	}
	return 2
}

// agent is the length of a quoted user agent, such as Mozilla/5.0 (…), which has words in any number; 0 when it is none.
func agent(s string) int {
	i := 0
	for i < len(s) && (class[s[i]] == letter || s[i] == '-') {
		i++
	}
	if i < 3 || i+1 >= len(s) || s[i] != '/' || class[s[i+1]] != digit || s[:i] == "HTTP" {
		return 0
	}
	for ; i < len(s); i++ {
		if s[i] == '"' {
			return i
		}
	}
	return i
}
