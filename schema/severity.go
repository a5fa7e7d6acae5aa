package schema

import "strings"

// The severity numbers of OpenTelemetry's log data model, the first of each level's four.
// https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
const (
	SeverityTrace int32 = 1
	SeverityDebug int32 = 5
	SeverityInfo  int32 = 9
	SeverityWarn  int32 = 13
	SeverityError int32 = 17
	SeverityFatal int32 = 21
)

// severityNames is indexed by (number-1)/4.
var severityNames = [...]string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"}

// SeverityName is the short name of a severity number from 1 to 24; of any other it is empty.
func SeverityName(n int32) string {
	if n < 1 || n > 24 {
		return ""
	}
	return severityNames[(n-1)/4]
}

// SeverityOf is the number of a short name in any case, 0 where it is none.
func SeverityOf(name string) int32 {
	for i, s := range severityNames {
		if strings.EqualFold(s, name) {
			return int32(4*i + 1)
		}
	}
	return 0
}
