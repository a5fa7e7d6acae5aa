package redact

// Shortest spans in bytes that can hold a secret of digits: a mobile number,
// and a card number of thirteen digits.
const (
	shortestPhone = 11
	shortestCard  = 13
)

func isDigit(c byte) bool { return c-'0' < 10 }

func isSeparator(c byte) bool { return c == ' ' || c == '-' }

func isAlnum(c byte) bool { return isDigit(c) || c|0x20-'a' < 26 }

func isHex(c byte) bool { return isDigit(c) || c|0x20-'a' < 6 }

// numbers finds cards, resident ids and Chinese mobile numbers. Of any two
// neighbouring bytes of grouped digits one is a digit, and a secret spans at
// least `shortest` bytes, so looking at two bytes in every shortest-1 misses
// none and skips the rest of the body.
func (s *scan) numbers() {
	b, shortest := s.body, shortestCard
	if s.cfg.Phones {
		shortest = shortestPhone
	}
	low := 0 // End of the last stretch: nothing before it is looked at again.
	for i := shortest - 2; i+1 < len(b); {
		if !isDigit(b[i]) {
			if !isDigit(b[i+1]) {
				i += shortest - 1
				continue
			}
			i++
		}
		start, left := stretchLeft(b, low, i)
		end, right := stretchRight(b, i)
		if left+right >= shortest {
			s.stretch(start, end)
		}
		low = end
		i = end + shortest - 2
	}
}

// stretchLeft and stretchRight bound the digits joined by single separators
// around the digit at i, which is counted by stretchRight only.
func stretchLeft(b []byte, low, i int) (start, digits int) {
	for start = i; start > low; {
		if isDigit(b[start-1]) {
			start--
		} else if isSeparator(b[start-1]) && start-1 > low && isDigit(b[start-2]) {
			start -= 2
		} else {
			break
		}
		digits++
	}
	return start, digits
}

func stretchRight(b []byte, i int) (end, digits int) {
	digits = 1
	for end = i + 1; end < len(b); {
		if isDigit(b[end]) {
			end++
		} else if isSeparator(b[end]) && end+1 < len(b) && isDigit(b[end+1]) {
			end += 2
		} else {
			break
		}
		digits++
	}
	return end, digits
}

// stretch tries every run of digits in body[start:end] as the beginning of a
// secret.
func (s *scan) stretch(start, end int) {
	b := s.body
	for i := start; i < end; {
		runEnd := i + 1
		for runEnd < end && isDigit(b[runEnd]) {
			runEnd++
		}
		next := runEnd
		if hasLeftEdge(b, i) {
			next = max(next, s.numberAt(i, runEnd))
		}
		if escaped := escapeEnd(b, i); next == runEnd && escaped >= i && escaped < runEnd {
			next = max(next, s.numberAt(escaped, runEnd))
		}
		i = next + 1
	}
}

// numberAt records the secret that begins with the run of digits
// body[start:end], and returns the end of the secret, or 0.
func (s *scan) numberAt(start, end int) int {
	if s.cfg.ResidentIDs {
		if idEnd := s.residentID(start, end); idEnd > 0 {
			return idEnd
		}
	}
	if s.cfg.Cards {
		if cardEnd := s.card(start, end); cardEnd > 0 {
			return cardEnd
		}
	}
	if s.cfg.Phones && s.mobile(start, end) {
		return end
	}
	return 0
}

// hasLeftEdge reports whether a number may begin at i: not inside a word, a
// hex string or a decimal fraction. Dots of an ellipsis are not of a fraction.
func hasLeftEdge(b []byte, i int) bool {
	if i == 0 {
		return true
	}
	if b[i-1] == '.' {
		return i >= 2 && b[i-2] == '.'
	}
	return !isAlnum(b[i-1])
}

// hasRightEdge reports whether a number may end before i.
func hasRightEdge(b []byte, i int) bool {
	if i >= len(b) {
		return true
	}
	if b[i] == '.' {
		return i+1 >= len(b) || !isDigit(b[i+1])
	}
	return !isAlnum(b[i])
}

// escapeEnd returns the end of the escape sequence that touches or covers
// body[i], or -1. The letters and digits of \n, \u003e and %3D stand for other
// characters, so a number right behind them does not belong to a word.
func escapeEnd(b []byte, i int) int {
	if i >= 2 && b[i-2] == '\\' {
		switch b[i-1] {
		case 'b', 'f', 'n', 'r', 't':
			return i
		}
	}
	for back := 1; back <= 6 && back <= i; back++ {
		at := i - back
		switch {
		case b[at] == '%' && back <= 3:
			return hexEnd(b, at+1, 2)
		case b[at] == '\\' && b[at+1] == 'u' && back >= 2:
			return hexEnd(b, at+2, 4)
		case !isHex(b[at]) && b[at] != 'u':
			return -1
		}
	}
	return -1
}

// hexEnd returns start+n if n hexadecimal digits begin at start, or -1.
func hexEnd(b []byte, start, n int) int {
	if start+n > len(b) {
		return -1
	}
	for _, c := range b[start : start+n] {
		if !isHex(c) {
			return -1
		}
	}
	return start + n
}
