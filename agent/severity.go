package agent

import "strings"

// levels gives the severity numbers of OpenTelemetry's log data model to the names that programs use.
var levels = [...]struct {
	name   string
	number int32
	text   string
}{
	{"trace", 1, "TRACE"}, {"debug", 5, "DEBUG"}, {"info", 9, "INFO"}, {"notice", 9, "INFO"}, {"warning", 13, "WARN"}, {"warn", 13, "WARN"},
	{"error", 17, "ERROR"}, {"err", 17, "ERROR"}, {"critical", 21, "FATAL"}, {"fatal", 21, "FATAL"}, {"panic", 21, "FATAL"},
}

// The level stands near a line's start, after a time stamp at most; in a JSON object other short fields may precede it.
const (
	severityText = 48
	severityJSON = 160
)

// severity finds the level of a body: the "level" of a JSON object, or near a line's start a word in capitals, a word
// in brackets, or level=word. It is 0 when the body shows none: a word in a sentence is no level.
func severity(body string) (int32, string) {
	if strings.HasPrefix(body, "{") {
		head := body[:min(len(body), severityJSON)]
		_, after, ok := strings.Cut(head, `"level":`)
		if !ok {
			return 0, ""
		}
		after, ok = strings.CutPrefix(strings.TrimLeft(after, " "), `"`)
		if !ok {
			return 0, ""
		}
		return levelOf(word(after))
	}
	head := body[:min(len(body), severityText+8)]
	for i := 0; i < len(head) && i < severityText; {
		if !letter(head[i]) {
			i++
			continue
		}
		w := word(head[i:])
		end := i + len(w)
		before, after := byte(' '), byte(' ')
		if i > 0 {
			before = head[i-1]
		}
		if end < len(body) {
			after = body[end]
		}
		switch {
		case before == '[' && after == ']',
			strings.IndexByte(" \t|", before) >= 0 && strings.IndexByte(" \t|:", after) >= 0 && w[0] <= 'Z' && w[len(w)-1] <= 'Z',
			before == '=' && strings.HasSuffix(head[:i], "level="):
			if n, text := levelOf(w); n != 0 {
				return n, text
			}
		}
		i = end
	}
	return 0, ""
}

func word(s string) string {
	n := 0
	for n < len(s) && letter(s[n]) {
		n++
	}
	return s[:n]
}

func levelOf(w string) (int32, string) {
	if len(w) < 3 || len(w) > 8 {
		return 0, ""
	}
	for i := range levels {
		if len(levels[i].name) == len(w) && strings.EqualFold(levels[i].name, w) {
			return levels[i].number, levels[i].text
		}
	}
	return 0, ""
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
