package multiline

// recordLike says whether a line looks like a log record of its own, which ends any trace.
func recordLike(line []byte) bool {
	if len(line) == 0 {
		return false
	}
	switch c := line[0]; {
	case digit(c):
		return timestamp(line)
	case c == '{':
		return has(line, `{"`)
	case c == '<':
		return len(line) > 1 && digit(line[1]) // syslog's priority
	case c == '[':
		return len(line) > 1 && (digit(line[1]) || levelStart(line[1:]))
	case c == 0x1b:
		return true // a colour, with which development loggers begin their lines
	case letter(c):
		return klog(line) || levelStart(line) || shortLevel(line) || dated(line) || logfmt(line)
	}
	return false
}

// timestamp says whether a line begins with a date, a time, an IP address, or a count of seconds or less since 1970.
func timestamp(line []byte) bool {
	n := digits(line)
	if n >= 10 {
		return true
	}
	if n+1 >= len(line) || !digit(line[n+1]) {
		return false
	}
	switch line[n] {
	case '-', '/', ':', '.':
		return true
	case ' ', 'T':
		return n >= 6
	}
	return false
}

// klog says whether a line has the header of Kubernetes' components, such as "E1125 10:00:00".
func klog(line []byte) bool {
	if len(line) < 6 || digits(line[1:]) != 4 || line[5] != ' ' {
		return false
	}
	switch line[0] {
	case 'I', 'W', 'E', 'F':
		return true
	}
	return false
}

// letters is the length of the word at the start of a text.
func letters(text []byte) int {
	n := 0
	for n < len(text) && letter(text[n]) {
		n++
	}
	return n
}

// levelStart says whether a text begins with the name of a level in capitals.
func levelStart(text []byte) bool {
	n := letters(text)
	if level(text[:n]) == 0 {
		return false
	}
	if n == len(text) {
		return true
	}
	switch text[n] {
	case ' ', '\t', ':', '|', '[', ']', ',', '(', '-', '/':
		return true
	}
	return false
}

// level is 0 for a word that names no level, 1 for one that names a harmless level, 2 from a warning upwards.
func level(word []byte) int {
	switch string(word) {
	case "TRACE", "DEBUG", "INFO", "NOTICE", "FINE", "FINER", "FINEST", "CONFIG", "DBG", "INF", "VRB":
		return 1
	case "WARN", "WARNING", "ERROR", "FATAL", "SEVERE", "CRITICAL", "CRIT", "ALERT", "EMERG", "PANIC", "WRN", "ERR", "FTL":
		return 2
	}
	return 0
}

// shortLevel says whether a line begins with a level as .NET's console logger writes it.
func shortLevel(line []byte) bool {
	if len(line) < 6 || line[4] != ':' || line[5] != ' ' {
		return false
	}
	switch string(line[:4]) {
	case "trce", "dbug", "info", "warn", "fail", "crit":
		return true
	}
	return false
}

// dated says whether a line begins with the name of a month and a day, or of a weekday and a month.
func dated(line []byte) bool {
	if len(line) < 5 || line[3] != ' ' && line[3] != ',' {
		return false
	}
	switch string(line[:3]) {
	case "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec":
		return line[4] == ' ' || digit(line[4])
	case "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun":
		return 'A' <= line[4] && line[4] <= 'Z' || line[4] == ' ' || digit(line[4])
	}
	return false
}

// logfmt says whether a line begins with one of the keys that a logfmt record has first.
func logfmt(line []byte) bool {
	n := letters(line)
	if n == len(line) || line[n] != '=' {
		return false
	}
	switch string(line[:n]) {
	case "time", "ts", "t", "timestamp", "date", "level", "lvl", "severity", "msg":
		return true
	}
	return false
}

// severe says whether the first level that a record's head shows is a warning or worse. Only capitals count, for in
// small letters they are words of a sentence; in brackets they may be small.
func severe(head []byte) bool {
	if klog(head) {
		return head[0] != 'I'
	}
	if shortLevel(head) {
		return has(head, "warn") || has(head, "fail") || has(head, "crit")
	}
	for i := 0; i < len(head); {
		n := letters(head[i:])
		if n == 0 {
			i++
			continue
		}
		if i == 0 || delimiter(head[i-1]) {
			if l := shownLevel(head, i, n); l != 0 {
				return l > 1
			}
		}
		i += n
	}
	return false
}

// shownLevel is the level of the word of n letters at i.
func shownLevel(head []byte, i, n int) int {
	if i+n < len(head) && head[i+n] != 0 && !delimiter(head[i+n]) || n > 8 {
		return 0
	}
	word := head[i : i+n]
	if i == 0 || head[i-1] != '[' {
		return level(word)
	}
	var upper [8]byte
	for k, c := range word {
		upper[k] = c &^ 0x20
	}
	return level(upper[:n])
}

func delimiter(c byte) bool {
	switch c {
	case ' ', '\t', '[', ']', '(', ')', '|', '<', '>', ':', ',':
		return true
	}
	return false
}
