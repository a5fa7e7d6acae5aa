package parse

import (
	"bytes"

	"weir/schema"
)

// sofaTraceID says whether b has the form of SOFATracer's trace ids: the server's IPv4 address in 8 hexadecimal
// digits, the time in 13 digits of milliseconds, a counter of 4 digits, and the process id.
func sofaTraceID(b []byte) bool {
	const address, process = 8, 8 + 13 + 4
	if len(b) <= process || len(b) > process+10 {
		return false
	}
	for i, c := range b {
		if i < address && hexDigits[c] > 15 || i >= address && !digit(c) {
			return false
		}
	}
	return b[address] != '0'
}

// sofaSpanID says whether b is a position in SOFATracer's tree of calls, such as 0 or 0.1.2.
func sofaSpanID(b []byte) bool {
	if len(b) == 0 || len(b) > 64 || !digit(b[0]) || !digit(b[len(b)-1]) {
		return false
	}
	for _, c := range b {
		if c != '.' && !digit(c) {
			return false
		}
	}
	return true
}

// sofaDigest reads SOFATracer's comma-separated digests: the time to the millisecond, the application, the trace id, the
// span id, and then what the kind of call has. The RPC digests have no application before the trace id.
func sofaDigest(b []byte, f *Fields) bool {
	if !shaped(b, "0000-00-00 00:00:00.000,") {
		return false
	}
	var trace, span []byte
	rest := b[24:]
	for range 2 {
		field, after, ok := until(rest, ',', 128)
		if !ok {
			return false
		}
		rest = after
		if sofaTraceID(field) || f.setTrace(field) {
			trace = field
			break
		}
	}
	if trace == nil {
		return false
	}
	span, rest = commaField(rest)
	if !sofaSpanID(span) && !f.setSpan(span) {
		f.Reset()
		return false
	}
	f.Format = SOFATracer
	if f.TraceID == [16]byte{} {
		f.attr(AttrSofaTrace, trace)
	}
	if f.SpanID == [8]byte{} {
		f.attr(AttrSofaSpan, span)
	}
	if code := sofaCode(rest); code != nil {
		f.sofaResult(code)
	}
	return true
}

// sofaCode finds the result code among the fields after the ids, whose order depends on the kind of call: it is the
// status after a HTTP method, or else the first field that can only be a code of SOFARPC (two digits) or of a data
// source.
func sofaCode(rest []byte) []byte {
	method := false
	for range 24 {
		if rest == nil {
			return nil
		}
		var field []byte
		field, rest = commaField(rest)
		switch _, number := decimal(field); {
		case number && (len(field) == 2 || len(field) == 3 && method):
			return field
		case string(field) == "success" || string(field) == "failed":
			return field
		}
		method = len(field) >= 3 && len(field) <= 7 && upper(field[0]) && upper(field[1]) && upper(field[2])
	}
	return nil
}

// commaField gives the field before the next comma; rest is nil after the last.
func commaField(b []byte) (field, rest []byte) {
	i := bytes.IndexByte(b, ',')
	if i < 0 {
		return b, nil
	}
	return b[:i], b[i+1:]
}

// sofaResult sets the result code, and from it the severity unless the line told its level. SOFARPC's success is 00,
// a data source's is "success", and HTTP calls have their status there.
func (f *Fields) sofaResult(code []byte) {
	f.attr(AttrSofaResult, code)
	if f.Severity != 0 {
		return
	}
	n := int32(schema.SeverityError)
	if status, ok := decimal(code); ok && len(code) == 3 {
		n = statusSeverity(status)
	} else if string(code) == "00" || string(code) == "success" {
		n = schema.SeverityInfo
	}
	f.setSeverity(n)
}
