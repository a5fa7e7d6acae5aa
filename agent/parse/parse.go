// Package parse recognises the format of a log line and takes from it what a log record has fields for: the severity,
// the ids of the trace and a few attributes. It only reads: the body stays what the program wrote, byte for byte.
//
// A line's first byte decides which recogniser is tried, so that a line pays for one format only. What no recogniser
// takes is plain text, in which a level near the start and a W3C traceparent are still found.
package parse

import (
	"bytes"
	"unsafe"

	"weir/schema"
)

// The formats that Line recognises. Plain text is "".
const (
	JSON       = "json"       // a JSON object, RFC 8259, one per line as zap, slog, pino, bunyan, logback and ECS write it
	Logfmt     = "logfmt"     // key=value pairs, as go-logfmt, logrus and slog's TextHandler write them
	Klog       = "klog"       // klog and glog: Lmmdd hh:mm:ss.uuuuuu threadid file:line] msg
	Access     = "access"     // Apache common, nginx combined, and the default access logs of Envoy, Istio and MOSN
	SOFATracer = "sofatracer" // SOFATracer's digest logs, as JSON objects or comma-separated
	OceanBase  = "oceanbase"  // OceanBase's observer, election, rootservice and obproxy logs
)

// The keys of the attributes that Line sets. The first six follow OpenTelemetry's semantic conventions.
const (
	AttrFile           = "code.file.path"
	AttrLine           = "code.line.number"
	AttrMethod         = "http.request.method"
	AttrStatus         = "http.response.status_code"
	AttrPath           = "url.path"
	AttrClient         = "client.address"
	AttrThread         = "thread.id"
	AttrSofaTrace      = "sofa.trace_id"
	AttrSofaSpan       = "sofa.span_id"
	AttrSofaResult     = "sofa.result_code"
	AttrOceanBaseMod   = "oceanbase.module"
	AttrOceanBaseTrace = "oceanbase.trace_id"
)

// limit bounds the work on one line: nothing past it is looked at.
const limit = 64 << 10

// Fields is what was recognised. Strings in it point into the body or are constants; they are valid as long as the
// body is, and unchanged only as long as nobody writes to it.
type Fields struct {
	Format       string // one of the constants, "" for plain text
	Severity     int32  // OpenTelemetry severity number, 0 when unknown
	SeverityText string // TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or "" when unknown
	TraceID      [16]byte
	SpanID       [8]byte
	Flags        uint32        // the trace's flags, 0 when none
	Attrs        []schema.Attr // appended to Attrs[:0], so that the capacity is used again
}

// Reset empties the fields and keeps the attributes' capacity.
func (f *Fields) Reset() { *f = Fields{Attrs: f.Attrs[:0]} }

// Line recognises body, which is one whole line without its newline, and overwrites f with what it shows. It takes time
// linear in the body, at most 64 KiB of it, allocates only to grow f.Attrs, and accepts any bytes.
func Line(body []byte, f *Fields) {
	f.Reset()
	b := trimStart(body)
	cut := len(b) > limit
	if cut {
		b = b[:limit]
	}
	if len(b) == 0 {
		return
	}
	if !recognise(b, cut, f) {
		text(b, f)
	}
	if f.TraceID == [16]byte{} {
		traceparent(b, f)
	}
}

// trimStart drops a byte order mark and leading blanks, which some programs on Windows and some wrappers write.
func trimStart(b []byte) []byte {
	if len(b) >= 3 && b[0] == 0xEF && b[1] == 0xBB && b[2] == 0xBF {
		b = b[3:]
	}
	for len(b) > 0 && blank(b[0]) {
		b = b[1:]
	}
	return b
}

// recognise tries the formats that can begin with the line's first byte. Whatever it tried, f is empty when it fails.
func recognise(b []byte, cut bool, f *Fields) bool {
	switch c := b[0]; {
	case c == '{':
		return jsonLine(b, cut, f)
	case c == '[':
		return oceanbase(b, f) || envoy(b, f)
	case digit(c):
		return digits(b, f)
	case letter(c) || c == '_' || c == '@':
		return klog(b, f) || logfmt(b, f) || access(b, f)
	case c == ':' || c == '-': // an IPv6 address, or none
		return access(b, f)
	}
	return false
}

// digits tries the formats that begin with a date or an address, told apart by what stands where a date has its dashes.
func digits(b []byte, f *Fields) bool {
	if len(b) > 23 {
		switch {
		case b[4] == '-' && b[23] == ',':
			return sofaDigest(b, f)
		case b[4] == '/':
			return mosn(b, f)
		}
	}
	return access(b, f)
}

// str makes a string of bytes without a copy; that is why a Fields lives only as long as its body.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func (f *Fields) attr(key string, value []byte) {
	f.Attrs = append(f.Attrs, schema.String(key, str(value)))
}

func (f *Fields) attrInt(key string, value int64) { f.Attrs = append(f.Attrs, schema.Int(key, value)) }

func blank(c byte) bool  { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
func digit(c byte) bool  { return c-'0' <= 9 }
func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func upper(c byte) bool  { return c-'A' <= 'Z'-'A' }

// decimal reads a whole run of digits as a number; 18 digits always fit.
func decimal(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if !digit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// shaped says whether b begins with the pattern, in which 0 stands for any digit and every other byte for itself.
func shaped(b []byte, pattern string) bool {
	if len(b) < len(pattern) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] == '0' {
			if !digit(b[i]) {
				return false
			}
		} else if b[i] != pattern[i] {
			return false
		}
	}
	return true
}

// until gives the bytes before the first c, and those after it; ok is false when c does not stand in the first n bytes.
func until(b []byte, c byte, n int) (before, after []byte, ok bool) {
	i := bytes.IndexByte(b[:min(n, len(b))], c)
	if i < 0 {
		return nil, b, false
	}
	return b[:i], b[i+1:], true
}
