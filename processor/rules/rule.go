// Package rules reads rule files: what they may say, what is wrong with them, and conditions ready to be asked of records.
package rules

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/expr-lang/expr/vm"

	"weir/processor/signal"
	"weir/schema"
)

// Rule is one rule, or one of the windows that the configuration asks for, ready for use. It is not changed after it was made.
type Rule struct {
	Name     string
	Kind     string // signal.Rule or signal.Window
	Events   bool   // of records that have an event name; else of those that have none. A window counts both
	By       []Field
	Window   time.Duration
	Slide    time.Duration // the same as Window for tumbling ones
	For      time.Duration
	Cooldown time.Duration
	Learn    time.Duration
	Severity int32
	// MaxGroups bounds the groups that are known at once in a partition of weir.partials; what is beyond goes to the group "other".
	MaxGroups int

	Where Condition
	Total *Condition // what ratio divides by; nil: none
	Of    *Text      // what distinct counts; nil: none

	FirstSeen bool // when: first_seen
	Absent    bool // when asks for absent: a group is remembered when nothing comes any more

	when        *vm.Program
	value       string // the aggregate that the signal's value is
	Annotations []Annotation
	Notes       []string // what `weir rules check` says of a rule that is good

	definition string // all of it, to see whether a file changed

	ID uint64 // of what is counted: a rule whose ID stays keeps its counts when the file is read anew
}

// Annotation is text that a signal carries. The one named summary is its body.
type Annotation struct {
	Name string
	text *template.Template
}

// AnnotationPrefix is before the names of a signal's annotations.
const AnnotationPrefix = "weir.annotation."

// Set is all rules that hold. It is not changed after it was made.
type Set struct {
	Rules []*Rule
	ByID  map[uint64]*Rule
}

// NewSet joins rules. Two of the same name are an error.
func NewSet(rules ...[]*Rule) (*Set, error) {
	s := &Set{ByID: map[uint64]*Rule{}}
	names := map[string]bool{}
	for _, list := range rules {
		for _, r := range list {
			if names[r.Name] {
				return nil, fmt.Errorf("rule %q: there are two of this name", r.Name)
			}
			names[r.Name] = true
			s.Rules = append(s.Rules, r)
			s.ByID[r.ID] = r
		}
	}
	return s, nil
}

// Equal says that both sets hold the same rules, word for word.
func (s *Set) Equal(t *Set) bool {
	return slices.EqualFunc(s.Rules, t.Rules, func(a, b *Rule) bool { return a.ID == b.ID && a.definition == b.definition })
}

// identify makes the ID from what determines the counts; thresholds, texts and severities are not in it.
func (r *Rule) identify(where, total, of string) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %t %v %d %d %q %q %q %t %t", r.Name, r.Kind, r.Events, r.ByNames(), r.Window, r.Slide, where, total, of, r.FirstSeen, r.Absent)
	r.ID = binary.BigEndian.Uint64(h.Sum(nil))
}

// ByNames are the names of the fields that make groups.
func (r *Rule) ByNames() []string {
	names := make([]string, len(r.By))
	for i := range r.By {
		names[i] = r.By[i].Name
	}
	return names
}

// Values are the aggregates of one group in one window.
type Values struct {
	Count, Bytes, Total, Distinct int64
}

// whenEnv are the names that `when` knows.
type whenEnv struct {
	Count    int     `expr:"count"`
	Bytes    int     `expr:"bytes"`
	Rate     float64 `expr:"rate"`
	Ratio    float64 `expr:"ratio"`
	Distinct int     `expr:"distinct"`
	Absent   bool    `expr:"absent"`
}

// Holds asks `when`, and gives the value that a signal shows.
func (r *Rule) Holds(v Values) (bool, float64) {
	env := whenEnv{Count: int(v.Count), Bytes: int(v.Bytes), Rate: float64(v.Count) / r.Window.Seconds(), Distinct: int(v.Distinct), Absent: v.Count == 0}
	if v.Total > 0 {
		env.Ratio = float64(v.Count) / float64(v.Total)
	}
	value := float64(v.Count)
	switch r.value {
	case "bytes":
		value = float64(v.Bytes)
	case "rate":
		value = env.Rate
	case "ratio":
		value = env.Ratio
	case "distinct":
		value = float64(v.Distinct)
	}
	out, err := vm.Run(r.when, env)
	holds, _ := out.(bool)
	return err == nil && holds, value
}

// textLimit bounds what a template makes.
const textLimit = 1024

// limited stops a template that writes too much.
type limited struct{ strings.Builder }

func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > textLimit {
		return 0, fmt.Errorf("the text is longer than %d bytes", textLimit)
	}
	return l.Builder.Write(b)
}

// data is what templates see.
type data struct {
	Labels            map[string]string // the group
	Value             float64
	Count, Total      int64
	Rule, Window      string
	State             string
	Start, End        time.Time
	Container, App    string
	Node, Image, Site string
}

func (r *Rule) data(s *signal.Signal, values []string, v Values) data {
	d := data{Labels: map[string]string{}, Value: s.Value, Count: v.Count, Total: v.Total, Rule: r.Name, Window: r.Window.String(), State: s.State, Start: time.Unix(0, s.Start).UTC(), End: time.Unix(0, s.End).UTC(),
		Container: s.Attr(schema.AttrContainerName), App: s.Attr(schema.AttrApp), Node: s.Attr(schema.AttrHostName), Image: s.Attr(schema.AttrImageName), Site: s.Attr(schema.AttrSite)}
	for i := range r.By {
		if i < len(values) {
			d.Labels[r.By[i].Name] = values[i]
		}
	}
	return d
}

// Describe fills in a signal's body and annotations. values are the group's.
func (r *Rule) Describe(s *signal.Signal, values []string, v Values) {
	d := r.data(s, values, v)
	s.Body = fmt.Sprintf("rule %s is %s for %s: %s is %s in %s", r.Name, s.State, orAll(s.Group), r.value, number(s.Value), r.Window)
	if r.FirstSeen {
		s.Body = fmt.Sprintf("rule %s: %s was seen for the first time in %s", r.Name, orAll(s.Group), r.Window)
	}
	for _, a := range r.Annotations {
		var out limited
		if err := a.text.Execute(&out, d); err != nil {
			continue // it was tried out when the file was read; data cannot break it but by length
		}
		if a.Name == "summary" {
			s.Body = out.String()
		} else {
			s.Subject = append(s.Subject, schema.String(AnnotationPrefix+a.Name, out.String()))
		}
	}
}

func orAll(group string) string {
	if group == "" {
		return "all"
	}
	return group
}

func number(v float64) string {
	if v == float64(int64(v)) {
		return fmt.Sprint(int64(v))
	}
	return fmt.Sprintf("%.3g", v)
}
