package parse

// hexDigits gives the value of each hexadecimal digit, in either case, and 0xFF to every other byte.
var hexDigits = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xFF
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	for i, c := range "ABCDEF" {
		t[c] = byte(10 + i)
	}
	return t
}()

// parentBytes marks the bytes that a traceparent consists of; W3C Trace Context allows lower-case digits only.
var parentBytes = func() (t [256]bool) {
	for _, c := range "0123456789abcdef-" {
		t[c] = true
	}
	return t
}()

// decodeHex fills dst from exactly twice as many hexadecimal digits. An id of zeros is no id: W3C Trace Context and
// OpenTelemetry both call it invalid, and writers print it for the lack of a span.
func decodeHex(dst, src []byte) bool {
	if len(src) != 2*len(dst) {
		return false
	}
	var bad, any byte
	for i := range dst {
		hi, lo := hexDigits[src[2*i]], hexDigits[src[2*i+1]]
		bad |= hi | lo
		dst[i] = hi<<4 | lo
		any |= dst[i]
	}
	return bad < 16 && any != 0
}

func (f *Fields) setTrace(b []byte) bool {
	var id [16]byte
	if !decodeHex(id[:], b) {
		return false
	}
	f.TraceID = id
	return true
}

func (f *Fields) setSpan(b []byte) bool {
	var id [8]byte
	if !decodeHex(id[:], b) {
		return false
	}
	f.SpanID = id
	return true
}

// setFlags takes flags that are written as one or two hexadecimal digits.
func (f *Fields) setFlags(b []byte) bool {
	if len(b) == 0 || len(b) > 2 {
		return false
	}
	var n uint32
	for _, c := range b {
		d := hexDigits[c]
		if d > 15 {
			return false
		}
		n = n<<4 | uint32(d)
	}
	f.Flags = n
	return true
}

// parentLen is the length of 00-<32 hex>-<16 hex>-<2 hex>, which version 00 has exactly.
const parentLen = 55

// traceparent finds the first W3C traceparent (W3C Trace Context, section 3.2, version 00) that follows the word
// traceparent. As all of its 55 bytes are digits and dashes, looking at every 55th byte is enough to miss none.
func traceparent(b []byte, f *Fields) {
	for i := parentLen - 1; i < len(b); {
		if !parentBytes[b[i]] {
			i += parentLen
			continue
		}
		lo, hi := i, i+1
		for lo > 0 && parentBytes[b[lo-1]] {
			lo--
		}
		for hi < len(b) && parentBytes[b[hi]] {
			hi++
		}
		if hi-lo == parentLen && named(b[:lo]) && f.setParent(b[lo:hi]) {
			return
		}
		i = hi + parentLen
	}
}

func (f *Fields) setParent(b []byte) bool {
	if b[0] != '0' || b[1] != '0' || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return false
	}
	var trace [16]byte
	var span [8]byte
	if hexDigits[b[53]] > 15 || hexDigits[b[54]] > 15 || !decodeHex(trace[:], b[3:35]) || !decodeHex(span[:], b[36:52]) {
		return false
	}
	f.TraceID, f.SpanID = trace, span
	return f.setFlags(b[53:])
}

// named says whether the bytes before a value end in the word traceparent and a separator, perhaps with quotes that are
// escaped themselves.
func named(b []byte) bool {
	const word = "traceparent"
	n := 0
	for n < 8 && n < len(b) {
		switch b[len(b)-1-n] {
		case '"', '\'', ':', ' ', '=', '\\', '>', '[', '(', '{', '\t':
			n++
			continue
		}
		break
	}
	b = b[:len(b)-n]
	return n > 0 && len(b) >= len(word) && fold(b[len(b)-len(word):], word)
}
