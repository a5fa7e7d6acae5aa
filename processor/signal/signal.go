// Package signal is what the processor says: the type, its form as a record on weir.signals, and its id.
package signal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"weir/schema"
)

// Kinds of signals.
const (
	CrashLoop       = "crash_loop"
	FlappingHealth  = "flapping_health"
	OOM             = "oom"
	Unhealthy       = "unhealthy"
	SilentContainer = "silent_container"
	NoisyContainer  = "noisy_container"
	EngineRestart   = "engine_restart"
	NodeQuiet       = "node_quiet"
	NewPattern      = "new_pattern"
	PatternRate     = "pattern_rate"
	Window          = "window" // counts of a window, whatever they are
	Rule            = "rule"   // of a rule file
)

// States of signals.
const (
	Firing   = "firing"
	Resolved = "resolved"
	Point    = "point" // a single happening, which no later signal ends
)

// MaxRecords bounds the ids of records that a signal names.
const MaxRecords = 5

// Signal is one thing that the processor found. What it is of is told by Kind, Rule, Group, Start, End and Revision, which make its
// id; a signal with a higher revision corrects those before it.
type Signal struct {
	Kind, Rule, State string
	Group             string // as Group makes it
	Start, End        int64  // of the window, Unix ns; the same for a moment
	Revision          int64
	Late              bool // counts only what came after its window was forgotten: to be added to what was said before
	Severity          int32
	Value             float64
	Body              string   // one readable sentence
	Records           []string // ids of records behind it; Record takes the first MaxRecords
	// Subject is what is known of what it speaks of, under the usual names: container.id, container.name, weir.app, host.name,
	// container.image.name, weir.site, container.label.*, and what the kind adds.
	Subject []schema.Attr
}

// The severities that signals have.
const (
	Info  = schema.SeverityInfo
	Warn  = schema.SeverityWarn
	Error = schema.SeverityError
	Fatal = schema.SeverityFatal
)

// Group names a group by alternating keys and values, in the order given: "key=value,key=value". Commas, equals signs and backslashes
// in values get a backslash before them.
func Group(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(pairs[i])
		b.WriteByte('=')
		for _, c := range []byte(pairs[i+1]) {
			if c == ',' || c == '=' || c == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
	}
	return b.String()
}

// ID is made of kind, rule, group, window and revision alone: 32 hex digits of a SHA-256. Who acts on signals keys by it: it is the same
// however often, and by whomever, the same records are processed.
func (s *Signal) ID() string {
	h := sha256.New()
	for _, part := range [...]string{s.Kind, s.Rule, s.Group} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	fmt.Fprintf(h, "%d %d %d %t", s.Start, s.End, s.Revision, s.Late)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Record is the signal as a record. Its time is the window's end; its Offset is the sender's to set.
func (s *Signal) Record() schema.Record {
	attrs := []schema.Attr{
		schema.String(schema.AttrSignalID, s.ID()), schema.String(schema.AttrSignalKind, s.Kind), schema.String(schema.AttrSignalRule, s.Rule),
		schema.String(schema.AttrSignalState, s.State), schema.Double(schema.AttrSignalValue, s.Value), schema.Int(schema.AttrSignalRevision, s.Revision),
		schema.Int(schema.AttrWindowStart, s.Start), schema.Int(schema.AttrWindowEnd, s.End)}
	if s.Group != "" {
		attrs = append(attrs, schema.String(schema.AttrSignalGroup, s.Group))
	}
	if s.Late {
		attrs = append(attrs, schema.Bool(schema.AttrSignalLate, true))
	}
	if n := min(len(s.Records), MaxRecords); n > 0 {
		attrs = append(attrs, schema.String(schema.AttrSignalRecords, strings.Join(s.Records[:n], ",")))
	}
	attrs = append(attrs, s.Subject...)
	return schema.Record{Time: s.End, Severity: s.Severity, SeverityText: schema.SeverityName(s.Severity), Body: s.Body, EventName: schema.EventSignal, Attrs: attrs}
}

// FromRecord reads a signal; its memory is its own. A record that is none, or lacks what every signal has, is an error.
func FromRecord(r *schema.Record) (Signal, error) {
	if r.EventName != schema.EventSignal {
		return Signal{}, fmt.Errorf("event %q is not %s", r.EventName, schema.EventSignal)
	}
	s := Signal{Severity: r.Severity, Body: strings.Clone(r.Body)}
	need := map[string]bool{schema.AttrSignalKind: true, schema.AttrSignalRule: true, schema.AttrSignalState: true, schema.AttrWindowEnd: true}
	for _, a := range r.Attrs {
		delete(need, a.Key)
		wants := schema.KindString
		switch a.Key {
		case schema.AttrSignalID: // made anew
		case schema.AttrSignalKind:
			s.Kind = strings.Clone(a.Str)
		case schema.AttrSignalRule:
			s.Rule = strings.Clone(a.Str)
		case schema.AttrSignalState:
			s.State = strings.Clone(a.Str)
		case schema.AttrSignalGroup:
			s.Group = strings.Clone(a.Str)
		case schema.AttrSignalRecords:
			s.Records = strings.Split(strings.Clone(a.Str), ",")
		case schema.AttrSignalValue:
			wants, s.Value = schema.KindDouble, math.Float64frombits(uint64(a.Num))
		case schema.AttrSignalRevision:
			wants, s.Revision = schema.KindInt, a.Num
		case schema.AttrSignalLate:
			wants, s.Late = schema.KindBool, a.Num != 0
		case schema.AttrWindowStart:
			wants, s.Start = schema.KindInt, a.Num
		case schema.AttrWindowEnd:
			wants, s.End = schema.KindInt, a.Num
		default:
			wants = a.Kind
			s.Subject = append(s.Subject, schema.Attr{Key: strings.Clone(a.Key), Kind: a.Kind, Str: strings.Clone(a.Str), Num: a.Num})
		}
		if a.Kind != wants {
			return Signal{}, fmt.Errorf("signal: attribute %s is of the wrong type", a.Key)
		}
	}
	for key := range need {
		return Signal{}, fmt.Errorf("signal: there is no attribute %s", key)
	}
	if !slices.Contains([]string{Firing, Resolved, Point}, s.State) {
		return Signal{}, fmt.Errorf("signal: %s %s is not one of firing, resolved, point", schema.AttrSignalState, strconv.Quote(s.State))
	}
	return s, nil
}

// Attr is one of Subject's attributes as text; empty where there is none.
func (s *Signal) Attr(key string) string {
	for _, a := range s.Subject {
		if a.Key == key {
			return a.Str
		}
	}
	return ""
}
