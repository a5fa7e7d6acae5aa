package redact

import "bytes"

// keyClass says what the value of a key may be.
type keyClass uint8

const (
	plainKey keyClass = iota
	secretKey
	authorizationKey
)

// mayEndKey holds the bytes that can stand before the colon or equals sign of
// a secret's key: the last letters of the words in classify, and what may come
// in between. It turns most signs away at the cost of one load.
var mayEndKey = byteSet("dtnyDTNY \t\"'")

// classify looks at the end of key only, so that db_password and accessToken
// count too. Letter case does not matter.
func classify(key []byte) keyClass {
	if len(key) < 3 {
		return plainKey
	}
	switch key[len(key)-1] | 0x20 {
	case 'd':
		if endsIn(key, "pwd") || endsIn(key, "passwd") || endsIn(key, "password") {
			return secretKey
		}
	case 't':
		if endsIn(key, "secret") {
			return secretKey
		}
	case 'n':
		if endsIn(key, "token") {
			return secretKey
		}
		if endsIn(key, "authorization") {
			return authorizationKey
		}
	case 'y':
		if !endsIn(key, "key") {
			return plainKey
		}
		key = key[:len(key)-len("key")]
		if n := len(key); n > 0 && (key[n-1] == '_' || key[n-1] == '-') {
			key = key[:n-1]
		}
		if endsIn(key, "api") {
			return secretKey
		}
	}
	return plainKey
}

// endsIn reports whether key ends in word, which is in lower-case letters.
func endsIn(key []byte, word string) bool {
	if len(key) < len(word) {
		return false
	}
	end := key[len(key)-len(word):]
	for i := len(word) - 1; i >= 0; i-- {
		if end[i]|0x20 != word[i] {
			return false
		}
	}
	return true
}

// colons finds what is recognised by a colon: URLs, header fields, and the
// members of JSON objects.
func (s *scan) colons() {
	b := s.body
	for i := 0; i < len(b); {
		n := bytes.IndexByte(b[i:], ':')
		if n < 0 {
			return
		}
		i += n + 1
		switch {
		case i < 2:
		case i+1 < len(b) && b[i] == '/' && b[i+1] == '/':
			if s.cfg.URLPasswords {
				s.url(i + 2)
			}
		case s.cfg.Tokens && mayEndKey[b[i-2]]:
			i = s.member(i)
		}
	}
}

// member handles the colon before i, and returns where to search on.
func (s *scan) member(i int) int {
	b := s.body
	key := trimBlanks(b[:i-1])
	mark, slashes := byte(0), 0
	if n := len(key); n > 0 && (key[n-1] == '"' || key[n-1] == '\'') {
		mark, key = key[n-1], key[:n-1]
		for len(key) > 0 && key[len(key)-1] == '\\' {
			slashes++
			key = key[:len(key)-1]
		}
	}
	switch class := classify(key); {
	case class == authorizationKey:
		return s.authorization(i)
	case class == plainKey || mark == 0:
		return i
	}
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	// The value must be quoted as the key is: in {"a":"password\":","b":1} the
	// second quotation mark ends the string that the first is part of.
	valueMark, valueSlashes, start := quoteAt(b, i)
	if valueMark != mark || valueSlashes != slashes {
		return i
	}
	return s.quoted(mark, slashes, start)
}

// trimBlanks drops the blanks at the end, as bytes.TrimRight does, which makes a
// set of them first.
func trimBlanks(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// assignments finds key=value with a secret's key.
func (s *scan) assignments() {
	b := s.body
	for i := 0; i < len(b); {
		n := bytes.IndexByte(b[i:], '=')
		if n < 0 {
			return
		}
		i += n + 1
		if i >= 2 && mayEndKey[b[i-2]] {
			i = s.assignment(i)
		}
	}
}

// assignment handles the equals sign before i, and returns where to search on.
func (s *scan) assignment(i int) int {
	b := s.body
	key := trimBlanks(b[:i-1])
	class := classify(key)
	switch class {
	case plainKey:
		return i
	case authorizationKey:
		return s.authorization(i)
	}
	// In "password= user=x" the password is empty, so a space behind the sign
	// belongs to it only if there is one in front too.
	for len(key) < i-1 && i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	mark, slashes, start := quoteAt(b, i)
	switch {
	case mark == 0:
		if credentials := afterScheme(b, i); credentials > 0 {
			i = credentials
		}
		return s.bare(i)
	case mark == '"' && slashes == 0 && s.isJSON():
		return i // The mark ends the JSON string, and the value is empty.
	}
	return s.quoted(mark, slashes, start)
}

// authorization finds the credentials of the Bearer (RFC 6750) and Basic (RFC
// 7617) schemes at i, behind the sign of an Authorization field. What the
// field may be wrapped in is skipped: {"Authorization":["Bearer x"]}.
func (s *scan) authorization(i int) int {
	b := s.body
	for i < len(b) && (isSpace(b[i]) || b[i] == '"' || b[i] == '\'' || b[i] == '\\' || b[i] == '[') {
		i++
	}
	if start := afterScheme(b, i); start > 0 {
		return s.bare(start)
	}
	return i
}

// afterScheme returns where the credentials begin if body[i:] begins with the
// name of a scheme, or 0.
func afterScheme(b []byte, i int) int {
	for _, scheme := range []string{"bearer ", "basic "} {
		end := i + len(scheme)
		if end > len(b) || !endsIn(b[i:end-1], scheme[:len(scheme)-1]) || b[end-1] != ' ' {
			continue
		}
		for end < len(b) && b[end] == ' ' {
			end++
		}
		return end
	}
	return 0
}
