package parse

// object is a forward scan over the members of a JSON object. It checks as much of the grammar as it needs to keep its
// place, not all of it.
type object struct {
	b      []byte
	f      *Fields
	got    uint8
	digest bool // it has a key that only SOFATracer's digests have

	// Values of SOFATracer, kept until the end shows whether the object is a digest.
	sofaTrace, sofaSpan, result []byte
}

// What is returned in place of a position.
const (
	broken  = -1
	stopped = -2 // all that was wanted has been found
	short   = -3 // the bytes end before the value does
)

// jsonLine reads a JSON object (RFC 8259). An object that is broken, or that text follows, is no JSON: a level found
// in its readable part may as well belong to something that the break swallowed.
func jsonLine(b []byte, cut bool, f *Fields) bool {
	s := object{b: b, f: f}
	i := s.members(0, kindNone)
	if i >= 0 && skipBlank(b, i) < len(b) {
		i = broken
	}
	if i == broken || i == short && !cut {
		f.Reset()
		return false
	}
	f.Format = JSON
	s.finish()
	return true
}

// members reads from an opening brace to just after the closing one. in is the object that the members belong to,
// kindNone at the top.
func (s *object) members(i int, in kind) int {
	b := s.b
	if i = skipBlank(b, i+1); i < len(b) && b[i] == '}' {
		return i + 1
	}
	for i < len(b) && b[i] == '"' {
		start := i + 1
		end, escaped := keyEnd(b, start)
		if end < 0 {
			return short
		}
		if i = skipBlank(b, end+1); i < len(b) && b[i] != ':' {
			return broken
		}
		if i = skipBlank(b, i+1); i >= len(b) {
			return short
		}
		if k := s.kind(b[start:end], escaped, in); k == kindNone {
			i = skipValue(b, i)
		} else if i = s.member(i, k); s.got == gotAll {
			return stopped
		}
		if i < 0 {
			return i
		}
		if i = skipBlank(b, i); i >= len(b) {
			return short
		}
		if b[i] == '}' {
			return i + 1
		}
		if b[i] != ',' {
			return broken
		}
		i = skipBlank(b, i+1)
	}
	if i >= len(b) {
		return short
	}
	return broken
}

func (s *object) kind(key []byte, escaped bool, in kind) kind {
	if escaped {
		var buf [maxPlain]byte
		return s.kind(unescape(&buf, key), false, in)
	}
	if in == kindNone {
		return kindOf(key)
	}
	return kindIn(in, key)
}

// member reads the value at i, whose key means k, and returns the position after it.
func (s *object) member(i int, k kind) int {
	if k >= kindLogObject {
		if s.b[i] == '{' {
			return s.members(i, k)
		}
		return skipValue(s.b, i)
	}
	end := skipValue(s.b, i)
	if end < 0 {
		return end
	}
	switch c := s.b[i]; {
	case c == '"':
		s.text(k, s.b[i+1:end-1])
	case digit(c):
		s.number(k, s.b[i:end])
	}
	return end
}

// text takes a string's value, which has escapes only in contrived lines; such a value cannot be an attribute, since
// attributes point into the body.
func (s *object) text(k kind, v []byte) {
	if hasEscape(v) {
		var buf [maxPlain]byte
		s.take(k, unescape(&buf, v))
		return
	}
	switch s.take(k, v); k {
	case kindSofaTrace, kindTracer:
		if s.got&gotTrace == 0 {
			s.sofaTrace = v
		}
	case kindSofaSpan:
		if s.got&gotSpan == 0 {
			s.sofaSpan = v
		}
	case kindResult:
		s.result = v
	}
}

func (s *object) take(k kind, v []byte) {
	switch k {
	case kindLevel:
		if s.got&gotLevel == 0 && s.f.setSeverity(levelOf(v)) {
			s.got |= gotLevel
		}
	case kindTrace, kindSofaTrace, kindTracer:
		s.digest = s.digest || k == kindTracer
		if s.got&gotTrace == 0 && s.f.setTrace(v) {
			s.got |= gotTrace
		}
	case kindSpan, kindSofaSpan:
		if s.got&gotSpan == 0 && s.f.setSpan(v) {
			s.got |= gotSpan
		}
	case kindFlags:
		if s.got&gotFlags == 0 && s.f.setFlags(v) {
			s.got |= gotFlags
		}
	case kindApp:
		s.digest = true
	}
}

func (s *object) number(k kind, v []byte) {
	switch k {
	case kindLevel:
		if s.got&gotLevel == 0 && s.f.setSeverity(pinoLevel(v)) {
			s.got |= gotLevel
		}
	case kindNumber:
		if n, ok := decimal(v); ok && len(v) <= 2 && s.got&gotLevel == 0 && s.f.setSeverity(int32(n)) {
			s.got |= gotLevel
		}
	case kindFlags:
		if n, ok := decimal(v); ok && n <= 0xFF && s.got&gotFlags == 0 {
			s.f.Flags = uint32(n)
			s.got |= gotFlags
		}
	case kindResult:
		s.result = v
	}
}

// finish sets what SOFATracer's ids and result code give. Applications write the ids to their own logs too, where
// only an id of the right shape is taken for one.
func (s *object) finish() {
	digest := s.digest && (s.got&gotTrace != 0 || len(s.sofaTrace) > 0)
	if digest {
		s.f.Format = SOFATracer
	}
	if s.got&gotTrace == 0 && len(s.sofaTrace) > 0 && (digest || sofaTraceID(s.sofaTrace)) {
		s.f.attr(AttrSofaTrace, s.sofaTrace)
	} else if !digest {
		return
	}
	if s.got&gotSpan == 0 && len(s.sofaSpan) > 0 {
		s.f.attr(AttrSofaSpan, s.sofaSpan)
	}
	if digest && len(s.result) > 0 {
		s.f.sofaResult(s.result)
	}
}
