package redact

import "bytes"

func isBase64URL(c byte) bool { return isAlnum(c) || c == '-' || c == '_' }

// webTokens finds JSON Web Tokens in their compact form (RFC 7519): a header
// that begins with {" and so with eyJ, and two more parts, of which the
// signature may be empty. It searches for the J, the rarest of the letters.
func (s *scan) webTokens() {
	b := s.body
	for i := 0; i < len(b); {
		n := bytes.IndexByte(b[i:], 'J')
		if n < 0 {
			return
		}
		i += n + 1
		start := i - len("eyJ")
		if start < 0 || b[start] != 'e' || b[start+1] != 'y' || !startsWord(b, start) {
			continue
		}
		end, complete := endOfWebToken(b, i)
		if complete {
			s.addSecret(start, end, kindToken)
		}
		// Any other header before end would have come to grief there as well.
		i = end
	}
}

// endOfWebToken reads on from within the header, and returns where it stopped.
// Further parts are included: an encrypted token (RFC 7516) has five.
func endOfWebToken(b []byte, i int) (end int, complete bool) {
	for part := 0; part < 2; part++ {
		start := i
		for i < len(b) && isBase64URL(b[i]) {
			i++
		}
		if i >= len(b) || b[i] != '.' || part == 1 && i == start {
			return i, false
		}
		i++
	}
	for i < len(b) && (isBase64URL(b[i]) || b[i] == '.') {
		i++
	}
	return i, true
}

// startsWord reports whether no letter or digit is in front of i but those of
// an escape sequence.
func startsWord(b []byte, i int) bool {
	return i == 0 || !isAlnum(b[i-1]) || escapeEnd(b, i) == i
}

const accessKeyLen = 20 // Characters of an AWS access key id.

// accessKeys finds AWS access key ids, AKIA and sixteen capitals and digits.
func (s *scan) accessKeys() {
	b := s.body
	for i := 0; i < len(b); {
		n := bytes.IndexByte(b[i:], 'K')
		if n < 0 {
			return
		}
		i += n + 1
		start := i - len("AK")
		end := start + accessKeyLen
		if start < 0 || end > len(b) || string(b[start:start+4]) != "AKIA" || !startsWord(b, start) {
			continue
		}
		if isAccessKey(b[start:end]) && (end == len(b) || !isAlnum(b[end])) {
			s.addSecret(start, end, kindToken)
			i = end
		}
	}
}

func isAccessKey(key []byte) bool {
	for _, c := range key {
		if !isDigit(c) && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// endsAuthority holds the bytes at which the authority of a URL ends (RFC
// 3986), and those that a URL in text does not contain.
var endsAuthority = byteSet("/?# \t\r\n\"'`<>\\")

// url records the password of the URL whose authority begins at start.
func (s *scan) url(start int) {
	b := s.body
	end, at := start, -1
	for ; end < len(b); end++ {
		switch {
		case b[end] == '@':
			at = end // The last one: passwords are not always escaped.
		case b[end] == '\\' && end+1 < len(b) && (b[end+1] == 'u' || b[end+1] == '\\'):
			end++
		case endsAuthority[b[end]]:
			s.userInfo(start, at, end)
			return
		}
	}
	s.userInfo(start, at, end)
}

// userInfo records the password in body[start:at], of an authority that goes
// on to end. An authority that was redacted before is left alone.
func (s *scan) userInfo(start, at, end int) {
	b := s.body
	if at < 0 || bytes.Contains(b[start:min(end, len(b))], []byte(markerPrefix)) {
		return
	}
	if colon := bytes.IndexByte(b[start:at], ':'); colon >= 0 && start+colon+1 < at {
		s.addSecret(start+colon+1, at, kindURLPassword)
	}
}
