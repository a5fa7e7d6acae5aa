package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"weir/processor/signal"
	"weir/schema"
)

// alert is what of a signal's rule and group fires, or did and is still to be told.
type alert struct {
	Labels      map[string]string `json:"labels"` // those of the first signal: they are what Alertmanager knows it by
	Annotations map[string]string `json:"annotations"`
	Starts      time.Time         `json:"starts"`
	Ends        time.Time         `json:"ends"` // zero while it fires without a known end
	At          int64             `json:"at"`   // end of the last signal's window, Unix ns
	Revision    int64             `json:"revision"`
	Version     int64             `json:"version"` // rises when it begins or ends
	Told        map[string]int64  `json:"told"`    // by target: the version that it took

	changed time.Time // when the version rose, or it was read from the table
	dirty   bool      // not saved
}

// over tells whether it has ended.
func (a *alert) over(now time.Time) bool { return !a.Ends.IsZero() && !a.Ends.After(now) }

// state is the version that a target should have: ending by itself is a change of its own.
func (a *alert) state(now time.Time) int64 {
	if a.over(now) {
		return 2*a.Version + 1
	}
	return 2 * a.Version
}

// key is the same for all signals of a rule and group.
func key(s *signal.Signal) string {
	h := sha256.New()
	for _, part := range [...]string{s.Kind, s.Rule, s.Group} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// older tells whether the signal is of before what is known.
func (a *alert) older(s *signal.Signal) bool {
	return s.End < a.At || s.End == a.At && s.Revision < a.Revision
}

// Bounds of what is told of one alert.
const maxLabels, maxLabel, maxAnnotation = 24, 256, 1024

// severity is named as alerts mostly name it.
func severity(n int32) string {
	switch {
	case n >= signal.Error:
		return "critical"
	case n >= signal.Warn:
		return "warning"
	}
	return "info"
}

// labels never have what changes while an alert fires, such as its value.
func labels(s *signal.Signal) map[string]string {
	all := map[string]string{"alertname": cut(s.Rule, maxLabel), "kind": cut(s.Kind, maxLabel), "severity": severity(s.Severity), "source": "weir"}
	put := func(name, value string) {
		name, value = labelName(name), cut(value, maxLabel)
		if _, is := all[name]; !is && value != "" && len(all) < maxLabels {
			all[name] = value
		}
	}
	for _, a := range []struct{ attr, label string }{{schema.AttrSite, "site"}, {schema.AttrHostName, "node"}, {schema.AttrApp, "app"}, {schema.AttrContainerName, "container"}, {schema.AttrContainerID, "container_id"}} {
		put(a.label, s.Attr(a.attr))
	}
	for _, p := range pairs(s.Group) {
		put(p[0], p[1])
	}
	for name, value := range all {
		if value == "" {
			delete(all, name)
		}
	}
	return all
}

func annotations(s *signal.Signal) map[string]string {
	all := map[string]string{"summary": cut(s.Body, maxAnnotation), "value": strconv.FormatFloat(s.Value, 'g', -1, 64), "group": cut(s.Group, maxAnnotation), "records": cut(strings.Join(s.Records, ","), maxAnnotation),
		"window_end": time.Unix(0, s.End).UTC().Format(time.RFC3339Nano)}
	if s.Start != s.End && s.Start != 0 {
		all["window_start"] = time.Unix(0, s.Start).UTC().Format(time.RFC3339Nano)
	}
	for name, value := range all {
		if value == "" {
			delete(all, name)
		}
	}
	return all
}

// pairs undoes signal.Group.
func pairs(group string) (all [][2]string) {
	var parts [2]strings.Builder
	at := 0
	flush := func() {
		if parts[0].Len() > 0 {
			all = append(all, [2]string{parts[0].String(), parts[1].String()})
		}
		parts, at = [2]strings.Builder{}, 0
	}
	for i := 0; i < len(group); i++ {
		switch c := group[i]; {
		case c == '\\' && i+1 < len(group):
			i++
			parts[at].WriteByte(group[i])
		case c == '=' && at == 0:
			at = 1
		case c == ',':
			flush()
		default:
			parts[at].WriteByte(c)
		}
	}
	flush()
	return all
}

// labelName makes a name that Prometheus takes.
func labelName(s string) string {
	name := strings.Map(func(c rune) rune {
		if c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, s)
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return cut(name, maxLabel)
}

// cut shortens a text to at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\ufffd")
}
