package parse

// kind is what a key's value means.
type kind uint8

const (
	kindNone      kind = iota
	kindLevel          // a level's name, or a number of pino
	kindNumber         // a severity number of OpenTelemetry
	kindTrace          // a trace id of 32 hexadecimal digits
	kindSofaTrace      // the same, or an id of SOFATracer
	kindSpan           // a span id of 16 hexadecimal digits
	kindSofaSpan       // the same, or a position of SOFATracer such as 0.1.2
	kindFlags
	kindApp    // marks a digest of SOFATracer
	kindTracer // a trace id as well as the mark of a digest
	kindResult

	// Objects that are looked into.
	kindLogObject
	kindTraceObject
	kindSpanObject
	kindContextObject
)

// kindOf knows the keys of zap, slog, pino, logrus, Serilog's compact format (@l), ECS (log.level, trace.id), Datadog,
// OpenTelemetry (trace_id, severity_number) and SOFATracer.
func kindOf(key []byte) kind {
	if len(key) < 2 || len(key) > 15 {
		return kindNone
	}
	switch string(key) {
	case "level", "severity", "lvl", "log.level", "loglevel", "@l":
		return kindLevel
	case "severity_number":
		return kindNumber
	case "trace_id", "traceid", "trace.id", "dd.trace_id":
		return kindTrace
	case "traceId":
		return kindSofaTrace
	case "span_id", "span.id":
		return kindSpan
	case "spanId":
		return kindSofaSpan
	case "trace_flags":
		return kindFlags
	case "local.app":
		return kindApp
	case "tracerId":
		return kindTracer
	case "resultCode", "result.code":
		return kindResult
	case "log":
		return kindLogObject
	case "trace":
		return kindTraceObject
	case "span":
		return kindSpanObject
	case "context":
		return kindContextObject
	}
	return kindNone
}

// kindIn is kindOf for the keys of an object that is looked into. Only the object log may tell the level: elsewhere
// a level is that of something else.
func kindIn(object kind, key []byte) kind {
	if string(key) == "id" {
		switch object {
		case kindTraceObject:
			return kindTrace
		case kindSpanObject:
			return kindSpan
		}
		return kindNone
	}
	switch k := kindOf(key); k {
	case kindTrace, kindSpan, kindFlags:
		return k
	case kindSofaTrace:
		return kindTrace
	case kindSofaSpan:
		return kindSpan
	case kindLevel, kindNumber:
		if object == kindLogObject {
			return k
		}
	}
	return kindNone
}

// What has been found of a line's pairs; the first valid value of each wins, which is what allows to stop early.
const (
	gotLevel = 1 << iota
	gotTrace
	gotSpan
	gotFlags
	gotAll = 1<<iota - 1
)
