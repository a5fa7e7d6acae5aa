package agent

import "time"

// timestamp reads the time that a line of text begins with, in Unix ns; 0 where it begins with none that is known:
//
//	2026-11-25T12:00:00.123456Z   RFC 3339; also with a blank for the T, a comma before the fraction, and +08:00, +0800 or UTC behind a blank
//	Nov  5 12:00:00               syslog (RFC 3164)
//	I1125 12:00:00.123456         klog
//
// Without an offset from UTC the time is zone's. A year that is left out is the last one that puts the line no more than a
// day after now. A time farther ahead is taken for none: the clock was wrong, or it is no time at all.
func timestamp(b []byte, now time.Time, zone *time.Location) int64 {
	if len(b) < len("Jan _2 15:04:05") {
		return 0
	}
	var t time.Time
	switch month := monthOf(b); {
	case b[0] >= '0' && b[0] <= '9':
		t = dated(b, zone)
	case month > 0 && b[3] == ' ' && b[6] == ' ':
		day := digits(b[4:6])
		if b[4] == ' ' {
			day = digits(b[5:6])
		}
		t = undated(month, day, b[7:], now, zone)
	case (b[0] == 'I' || b[0] == 'W' || b[0] == 'E' || b[0] == 'F') && b[5] == ' ':
		t = undated(digits(b[1:3]), digits(b[3:5]), b[6:], now, zone)
	}
	if t.Year() < 1970 || t.After(now.Add(24*time.Hour)) {
		return 0
	}
	return max(0, t.UnixNano())
}

// monthOf reads the month's name that b begins with; 0 is none.
func monthOf(b []byte) int {
	const names = "JanFebMarAprMayJunJulAugSepOctNovDec"
	for i := 0; i < len(names); i += 3 {
		if string(b[:3]) == names[i:i+3] {
			return i/3 + 1
		}
	}
	return 0
}

// dated reads a date with its year, and the time behind it. The zero time is none.
func dated(b []byte, zone *time.Location) (none time.Time) {
	if len(b) < len("2006-01-02 15:04:05") || b[4] != '-' || b[7] != '-' || b[10] != 'T' && b[10] != ' ' {
		return none
	}
	year, month, day := digits(b[:4]), digits(b[5:7]), digits(b[8:10])
	clock, rest, ok := clockOf(b[11:])
	if !ok || year < 1970 || year > maxYear || !isDate(year, month, day) {
		return none
	}
	return clock.on(year, month, day, offsetOf(rest, zone))
}

// undated reads the time behind a date without a year.
func undated(month, day int, b []byte, now time.Time, zone *time.Location) (none time.Time) {
	clock, _, ok := clockOf(b)
	if !ok {
		return none
	}
	latest := now.Add(24 * time.Hour).In(zone)
	for year := latest.Year(); year > latest.Year()-8; year-- { // there is a 29 February in every eight years
		if isDate(year, month, day) {
			if t := clock.on(year, month, day, zone); !t.After(latest) {
				return t
			}
		}
	}
	return none
}

func isDate(year, month, day int) bool {
	return month >= 1 && month <= 12 && day >= 1 && (day <= 28 || day <= daysIn(year, month))
}

// clock is a time of day.
type clock struct{ hour, minute, second, ns int }

func (c clock) on(year, month, day int, zone *time.Location) time.Time {
	return time.Date(year, time.Month(month), day, c.hour, c.minute, c.second, c.ns, zone)
}

// clockOf reads "15:04:05", with a fraction behind a dot or comma, of which nine digits count. A digit may not follow.
func clockOf(b []byte) (c clock, rest []byte, ok bool) {
	if len(b) < len("15:04:05") || b[2] != ':' || b[5] != ':' {
		return c, b, false
	}
	c = clock{hour: digits(b[:2]), minute: digits(b[3:5]), second: digits(b[6:8])}
	ok = c.hour >= 0 && c.hour < 24 && c.minute >= 0 && c.minute < 60 && c.second >= 0 && c.second <= 60 // a leap second
	b = b[8:]
	if len(b) > 1 && (b[0] == '.' || b[0] == ',') && isDigit(b[1]) {
		b = b[1:]
		for unit := int(1e8); len(b) > 0 && isDigit(b[0]); unit /= 10 {
			c.ns += int(b[0]-'0') * unit
			b = b[1:]
		}
	}
	return c, b, ok && (len(b) == 0 || !isDigit(b[0]))
}

// offsetOf reads the offset from UTC that stands behind a time; without one it is zone.
func offsetOf(b []byte, zone *time.Location) *time.Location {
	if len(b) > 0 && b[0] == 'Z' {
		return time.UTC
	}
	if len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	if len(b) >= 3 && (string(b[:3]) == "UTC" || string(b[:3]) == "GMT") {
		return time.UTC
	}
	if len(b) < 5 || b[0] != '+' && b[0] != '-' {
		return zone
	}
	minutes := b[3:5]
	if b[3] == ':' && len(b) >= 6 {
		minutes = b[4:6]
	}
	h, m := digits(b[1:3]), digits(minutes)
	if h < 0 || h > 14 || m < 0 || m > 59 {
		return zone
	}
	seconds := h*3600 + m*60
	if b[0] == '-' {
		seconds = -seconds
	}
	return time.FixedZone("", seconds)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// digits reads a number of digits alone; -1 is none.
func digits(b []byte) int {
	n := 0
	for _, c := range b {
		if !isDigit(c) {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}
