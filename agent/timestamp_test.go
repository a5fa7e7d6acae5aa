package agent

import (
	"regexp"
	"testing"
	"time"
)

func TestTimestamp(t *testing.T) {
	east := time.FixedZone("east", 8*3600)
	now := time.Date(2027, 1, 2, 3, 4, 5, 0, east)
	at := func(year, month, day, hour, minute, second, ns int, zone *time.Location) int64 {
		return time.Date(year, time.Month(month), day, hour, minute, second, ns, zone).UnixNano()
	}
	noon := at(2026, 11, 25, 12, 0, 0, 0, east)
	for in, want := range map[string]int64{
		"2026-11-25T04:00:00Z":                           noon,
		"2026-11-25T04:00:00.000000000Z x":               noon,
		"2026-11-25 12:00:00":                            noon,
		"2026-11-25 12:00:00 GET /":                      noon,
		"2026-11-25 12:00:00,123 [main] INFO":            noon + 123e6,
		"2026-11-25 12:00:00.1234567891 x":               noon + 123456789,
		"2026-11-25 04:00:00 UTC [17] LOG":               noon,
		"2026-11-25 06:30:00+0230":                       noon,
		"2026-11-25T00:30:00.5-03:30":                    noon + 5e8,
		"2026-11-25 13:00:00 +0900 x":                    noon,
		"2026-11-25 12:00:00 -- x":                       noon,
		"2026-11-25 12:00:00 -9999":                      noon,
		"Nov 25 12:00:00 host app[1]: x":                 noon,
		"Nov  5 12:00:00 host app[1]: x":                 at(2026, 11, 5, 12, 0, 0, 0, east),
		"Jan  3 03:00:00 host x: tomorrow, by the clock": at(2027, 1, 3, 3, 0, 0, 0, east),
		"Jan  4 03:00:00 host x":                         at(2026, 1, 4, 3, 0, 0, 0, east),
		"Feb 29 12:00:00 host x":                         at(2024, 2, 29, 12, 0, 0, 0, east),
		"Feb 30 12:00:00 host x":                         0,
		"E1125 12:00:00.000007   42 x.go:1] x":           noon + 7e3,
		"I0000 12:00:00.000007   42 x.go:1] x":           0,
		"Info: 12:00:00.000007   42 x.go:1] x":           0,
		"2026-11-25":                                     0,
		"2026-11-25 12:00":                               0,
		"2026-13-25 12:00:00":                            0,
		"2026-02-29 12:00:00":                            0,
		"2026-11-25 24:00:00":                            0,
		"2026-11-25 12:00:001":                           0,
		"1969-12-31 12:00:00":                            0,
		"2999-11-25 12:00:00":                            0,
		" 2026-11-25 12:00:00":                           0,
		"20261125 12:00:00 x":                            0,
		"a line of text that is long":                    0,
		"":                                               0,
	} {
		if got := timestamp([]byte(in), now, east); got != want {
			t.Errorf("%q: %s, want %s", in, time.Unix(0, got).In(east), time.Unix(0, want).In(east))
		}
	}
}

// rfc3339 is stricter than time.Parse, which takes an hour of one digit and an offset of 60 minutes (golang.org/issue/54580).
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-][01]\d:[0-5]\d)$`)

func FuzzTimestamp(f *testing.F) {
	for _, s := range []string{"2026-11-25T04:00:00.5+08:00", "Nov  5 12:00:00 x", "E1125 12:00:00.000007 x", "2026-11-25 12:00:00,1 -03"} {
		f.Add([]byte(s))
	}
	now := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, b []byte) {
		got := timestamp(b, now, time.UTC)
		if got < 0 || got > now.Add(24*time.Hour).UnixNano() {
			t.Fatalf("%q: %d", b, got)
		}
		// The same as the standard library's, where that knows the whole of it; but for a leap second, which it refuses.
		ref, err := time.Parse(time.RFC3339Nano, string(b))
		if err == nil && rfc3339.Match(b) && ref.Year() >= 1970 && ref.UnixNano() >= 0 && !ref.After(now) {
			if _, offset := ref.Zone(); offset%60 == 0 && offset >= -14*3600 && offset <= 14*3600 && got != ref.UnixNano() {
				t.Fatalf("%q: %d, want %d", b, got, ref.UnixNano())
			}
		}
	})
}
