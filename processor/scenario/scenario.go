// Package scenario tests rules: it plays the records that a file of tests names, and compares the signals with those it expects.
package scenario

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"weir/internal/strict"
	"weir/processor"
	"weir/processor/rules"
	"weir/processor/signal"
	"weir/schema"
)

// File is a file of tests.
type File struct {
	Rules []string `yaml:"rules"` // rule files, seen from this file's folder
	Tests []Test   `yaml:"tests"`
}

// Test is one story: what is written when, and what is said of it.
type Test struct {
	Name   string        `yaml:"name"`
	Until  time.Duration `yaml:"until"` // how long time goes on; ten minutes after the last record where it is not said
	Input  []Input       `yaml:"input"`
	Expect []Expect      `yaml:"expect"`
}

// Input is a record, or several that are alike.
type Input struct {
	At    time.Duration `yaml:"at"` // since the test's start
	Every time.Duration `yaml:"every"`
	Times int           `yaml:"times"`

	App         string            `yaml:"app"`
	Node        string            `yaml:"node"`
	Site        string            `yaml:"site"`
	Tenant      string            `yaml:"tenant"`
	Cell        string            `yaml:"cell"`
	Image       string            `yaml:"image"`
	Container   string            `yaml:"container"`
	ContainerID string            `yaml:"container_id"` // the name where it is not said
	Namespace   string            `yaml:"namespace"`
	Pod         string            `yaml:"pod"`
	Labels      map[string]string `yaml:"labels"`

	Level  string         `yaml:"level"`
	Body   string         `yaml:"body"`
	Event  string         `yaml:"event"`
	Stream string         `yaml:"stream"`
	Attrs  map[string]any `yaml:"attrs"`
}

// Expect is a signal; what is not named is not compared.
type Expect struct {
	At          time.Duration     `yaml:"at"` // end of its window, since the test's start
	Rule        string            `yaml:"rule"`
	Group       string            `yaml:"group"`
	State       string            `yaml:"state"`
	Value       *float64          `yaml:"value"`
	Severity    string            `yaml:"severity"`
	Summary     string            `yaml:"summary"`
	Annotations map[string]string `yaml:"annotations"`

	line int
}

// UnmarshalYAML keeps the line, for errors.
func (e *Expect) UnmarshalYAML(n *yaml.Node) error {
	type plain Expect
	if err := n.Decode((*plain)(e)); err != nil {
		return err
	}
	e.line = n.Line
	return nil
}

// maxRecords bounds a test.
const maxRecords = 1_000_000

// start is a round time, so that windows begin where a test does.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Run runs a file's tests, and returns how many there are and what failed.
func Run(path string) (tests int, failed []error, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, nil, fmt.Errorf("file of tests: %w", err)
	}
	var f File
	if err := strict.Decode(path, b, &f); err != nil {
		return 0, nil, err
	}
	var patterns []string
	for _, r := range f.Rules {
		if !filepath.IsAbs(r) {
			r = filepath.Join(filepath.Dir(path), r)
		}
		patterns = append(patterns, r)
	}
	files, err := rules.Files(patterns)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", path, err)
	}
	loaded, err := rules.Load(files)
	if err != nil {
		return 0, nil, err
	}
	for i := range f.Tests {
		failed = append(failed, f.Tests[i].Run(path, loaded)...)
	}
	return len(f.Tests), failed, nil
}

// Run plays one test. path is for errors.
func (t *Test) Run(path string, loaded []*rules.Rule) (failed []error) {
	set, err := rules.NewSet(loaded)
	if err != nil {
		return []error{err}
	}
	batches, last, err := t.batches()
	if err != nil {
		return []error{fmt.Errorf("%s: test %q: %w", path, t.Name, err)}
	}
	until := t.Until
	if until == 0 {
		until = last + 10*time.Minute
	}
	cfg := processor.DefaultConfig()
	cfg.Patterns.Enabled, cfg.Lives.Enabled = false, false // rules alone are tested
	sim, err := processor.NewSimulation(cfg, set)
	if err != nil {
		return []error{err}
	}
	var said []signal.Signal
	for now := time.Second; now <= until; now += time.Second {
		for len(batches) > 0 && batches[0].Records[0].Observed < start.Add(now).UnixNano() {
			sim.Write(batches[0])
			batches = batches[1:]
		}
		said = append(said, sim.Advance(start.Add(now).UnixNano())...)
	}
	slices.SortStableFunc(said, func(a, b signal.Signal) int {
		return cmp.Or(cmp.Compare(a.End, b.End), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Revision, b.Revision))
	})
	for i := range t.Expect {
		e := &t.Expect[i]
		at := slices.IndexFunc(said, func(s signal.Signal) bool { return e.differs(&s) == "" })
		if at >= 0 {
			said = slices.Delete(said, at, at+1)
			continue
		}
		why := "no signal is like it"
		for j := range said {
			if said[j].Rule == e.Rule && e.Rule != "" {
				why = "the nearest differs in " + e.differs(&said[j])
				break
			}
		}
		failed = append(failed, fmt.Errorf("%s:%d: test %q: %s at %s was expected; %s", path, e.line, t.Name, cmp.Or(e.Rule, "a signal"), e.At, why))
	}
	for i := range said {
		s := &said[i]
		failed = append(failed, fmt.Errorf("%s: test %q: not expected: rule %s, group %s, %s at %s, value %g: %s", path, t.Name, s.Rule, s.Group, s.State, time.Duration(s.End-start.UnixNano()), s.Value, s.Body))
	}
	return failed
}

// differs names the first difference; empty where there is none.
func (e *Expect) differs(s *signal.Signal) string {
	record := s.Record()
	at := time.Duration(s.End - start.UnixNano())
	switch {
	case e.Rule != "" && e.Rule != s.Rule:
		return fmt.Sprintf("rule: %s", s.Rule)
	case e.Group != "" && e.Group != s.Group:
		return fmt.Sprintf("group: %s", s.Group)
	case e.At != at:
		return fmt.Sprintf("at: %s", at)
	case e.State != "" && e.State != s.State:
		return fmt.Sprintf("state: %s", s.State)
	case e.Value != nil && math.Abs(*e.Value-s.Value) > 1e-9*max(1, math.Abs(s.Value)):
		return fmt.Sprintf("value: %g", s.Value)
	case e.Severity != "" && !strings.EqualFold(e.Severity, record.SeverityText):
		return fmt.Sprintf("severity: %s", record.SeverityText)
	case e.Summary != "" && e.Summary != s.Body:
		return fmt.Sprintf("summary: %q", s.Body)
	}
	for name, want := range e.Annotations {
		if got := s.Attr(rules.AnnotationPrefix + name); got != want {
			return fmt.Sprintf("annotations.%s: %q", name, got)
		}
	}
	return ""
}

// batches makes a batch of each record, sorted by time.
func (t *Test) batches() (all []*schema.Batch, last time.Duration, err error) {
	for i := range t.Input {
		in := &t.Input[i]
		times := max(in.Times, 1)
		severity := schema.SeverityOf(in.Level)
		switch {
		case severity == 0 && in.Level != "":
			return nil, 0, fmt.Errorf("input %d: level: %q is not one of trace, debug, info, warn, error, fatal", i+1, in.Level)
		case times > 1 && in.Every <= 0:
			return nil, 0, fmt.Errorf("input %d: times needs every", i+1)
		case len(all)+times > maxRecords:
			return nil, 0, fmt.Errorf("input %d: more than %d records", i+1, maxRecords)
		}
		resource := in.resource()
		for n := range times {
			at := in.At + time.Duration(n)*in.Every
			last = max(last, at)
			ns := start.Add(at).UnixNano()
			r := schema.Record{Offset: int64(n), Time: ns, Observed: ns, Severity: severity, SeverityText: strings.ToUpper(in.Level), Body: in.Body, EventName: in.Event, Attrs: in.attrs()}
			all = append(all, &schema.Batch{Topic: schema.TopicLogs, Source: fmt.Sprintf("test/%d", i), Begin: schema.Position{Offset: int64(n)}, End: schema.Position{Offset: int64(n) + 1}, Resource: resource, Records: []schema.Record{r}})
		}
	}
	slices.SortStableFunc(all, func(a, b *schema.Batch) int { return cmp.Compare(a.Records[0].Time, b.Records[0].Time) })
	return all, last, nil
}

func (in *Input) resource() (attrs []schema.Attr) {
	for _, f := range [...][2]string{{schema.AttrApp, in.App}, {schema.AttrHostName, in.Node}, {schema.AttrSite, in.Site}, {schema.AttrTenant, in.Tenant}, {schema.AttrCell, in.Cell}, {schema.AttrImageName, in.Image},
		{schema.AttrContainerName, in.Container}, {schema.AttrContainerID, cmp.Or(in.ContainerID, in.Container)}, {schema.AttrK8sNamespace, in.Namespace}, {schema.AttrK8sPod, in.Pod}} {
		if f[1] != "" {
			attrs = append(attrs, schema.String(f[0], f[1]))
		}
	}
	for name, value := range in.Labels {
		attrs = append(attrs, schema.String(schema.LabelPrefix+name, value))
	}
	return attrs
}

func (in *Input) attrs() (attrs []schema.Attr) {
	if in.Stream != "" {
		attrs = append(attrs, schema.String(schema.AttrStream, in.Stream))
	}
	for name, value := range in.Attrs {
		switch v := value.(type) {
		case int:
			attrs = append(attrs, schema.Int(name, int64(v)))
		case float64:
			attrs = append(attrs, schema.Double(name, v))
		case bool:
			attrs = append(attrs, schema.Bool(name, v))
		default:
			attrs = append(attrs, schema.String(name, fmt.Sprint(v)))
		}
	}
	return attrs
}
