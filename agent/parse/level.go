package parse

import "weir/schema"

// setSeverity sets a number from 1 to 24 with its short name and says whether it could.
func (f *Fields) setSeverity(n int32) bool {
	if n < 1 || n > 24 {
		return false
	}
	f.Severity, f.SeverityText = n, schema.SeverityName(n)
	return true
}

// levelOf gives the severity number of a level's name in any case, 0 when it is none. The names are those of syslog,
// log4j, java.util.logging, zap, Serilog and Google Cloud Logging.
func levelOf(w []byte) int32 {
	if len(w) < 3 || len(w) > 11 {
		return 0
	}
	switch w[0] | 0x20 {
	case 'i':
		return oneOf(w, schema.SeverityInfo, "info", "information")
	case 'e':
		if n := oneOf(w, schema.SeverityError, "error", "err"); n != 0 {
			return n
		}
		return oneOf(w, schema.SeverityFatal, "emerg", "emergency")
	case 'w':
		return oneOf(w, schema.SeverityWarn, "warn", "warning")
	case 'd':
		if n := oneOf(w, schema.SeverityDebug, "debug", "debug"); n != 0 {
			return n
		}
		return oneOf(w, schema.SeverityFatal, "dpanic", "dpanic")
	case 't':
		return oneOf(w, schema.SeverityTrace, "trace", "trace")
	case 'f':
		return oneOf(w, schema.SeverityFatal, "fatal", "fatal")
	case 'c':
		return oneOf(w, schema.SeverityFatal, "critical", "crit")
	case 'n':
		return oneOf(w, schema.SeverityInfo, "notice", "notice")
	case 'p':
		return oneOf(w, schema.SeverityFatal, "panic", "panic")
	case 's':
		return oneOf(w, schema.SeverityError, "severe", "severe")
	case 'a':
		return oneOf(w, schema.SeverityFatal, "alert", "alert")
	case 'v':
		return oneOf(w, schema.SeverityTrace, "verbose", "verbose")
	}
	return 0
}

func oneOf(w []byte, n int32, a, b string) int32 {
	if fold(w, a) || fold(w, b) {
		return n
	}
	return 0
}

// fold compares with lower-case letters, ignoring the case of w. Setting a bit only ever makes a letter of a letter.
func fold(w []byte, lower string) bool {
	if len(w) != len(lower) {
		return false
	}
	for i := range w {
		if w[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// pinoLevel gives the severity of pino's and bunyan's numeric levels: 10 is trace, 60 is fatal. A number between two
// of them is a level that a program added, and counts as the one below.
func pinoLevel(b []byte) int32 {
	if len(b) != 2 || !digit(b[0]) || !digit(b[1]) || b[0] < '1' || b[0] > '6' || b[0] == '6' && b[1] != '0' {
		return 0
	}
	return int32(b[0]-'1')*4 + 1
}

// statusSeverity gives the severity of a HTTP status code: a server's fault is an error, a client's a warning.
func statusSeverity(code int64) int32 {
	switch {
	case code >= 500 && code < 600:
		return schema.SeverityError
	case code >= 400 && code < 500:
		return schema.SeverityWarn
	}
	return schema.SeverityInfo
}
