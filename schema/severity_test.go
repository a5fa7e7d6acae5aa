package schema

import "testing"

func TestSeverity(t *testing.T) {
	for n, want := range map[int32]string{-1: "", 0: "", 1: "TRACE", 4: "TRACE", 5: "DEBUG", 12: "INFO", 13: "WARN", 20: "ERROR", 24: "FATAL", 25: ""} {
		if got := SeverityName(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for name, want := range map[string]int32{"Trace": SeverityTrace, "DEBUG": SeverityDebug, "info": SeverityInfo, "warn": SeverityWarn, "error": SeverityError, "fatal": SeverityFatal, "warning": 0, "": 0} {
		if got := SeverityOf(name); got != want {
			t.Errorf("%q is %d, want %d", name, got, want)
		}
	}
}
