package rules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"text/template"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"go.yaml.in/yaml/v3"

	"weir/internal/strict"
	"weir/processor/signal"
)

// Limits of what a rule file may ask for.
const (
	minWindow     = 10 * time.Second
	maxWindow     = time.Hour
	maxMemory     = 7 * 24 * time.Hour // of first_seen and absent, which keep no panes
	maxPanes      = 360                // of a sliding window
	defaultGroups = 10_000
	maxGroups     = 1_000_000
	maxFile       = 1 << 20
	maxRules      = 1000
)

// entry is a rule as a file has it. What holds an expression is kept as a node, so that errors can name its place.
type entry struct {
	Name        string            `yaml:"name"`
	From        string            `yaml:"from"`
	Where       yaml.Node         `yaml:"where"`
	By          []string          `yaml:"by"`
	When        yaml.Node         `yaml:"when"`
	Total       yaml.Node         `yaml:"total"`
	Of          yaml.Node         `yaml:"of"`
	Window      time.Duration     `yaml:"window"`
	Slide       time.Duration     `yaml:"slide"`
	For         time.Duration     `yaml:"for"`
	Cooldown    time.Duration     `yaml:"cooldown"`
	Learn       time.Duration     `yaml:"learn"`
	Severity    string            `yaml:"severity"`
	MaxGroups   int               `yaml:"max_groups"`
	Annotations map[string]string `yaml:"annotations"`
}

// Files finds the rule files that patterns name: *.yaml and *.yml where one is a folder. Files of tests (_test.yaml) are left out.
func Files(patterns []string) ([]string, error) {
	var files []string
	for _, p := range patterns {
		if info, err := os.Stat(p); err == nil && info.IsDir() {
			p = filepath.Join(p, "*.y*ml")
		}
		found, err := filepath.Glob(p)
		if err != nil {
			return nil, fmt.Errorf("rule files %q: %w", p, err)
		}
		if len(found) == 0 && !strings.ContainsAny(p, "*?[") {
			return nil, fmt.Errorf("rule file %s: there is none", p)
		}
		for _, f := range found {
			if !strings.HasSuffix(f, "_test.yaml") && !strings.HasSuffix(f, "_test.yml") {
				files = append(files, f)
			}
		}
	}
	sort.Strings(files)
	return slices.Compact(files), nil
}

// Load reads rule files and joins all that is wrong with them.
func Load(files []string) ([]*Rule, error) {
	var rules []*Rule
	var errs []error
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("rule file: %w", err))
			continue
		}
		more, err := Parse(f, b)
		rules, errs = append(rules, more...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(rules) > maxRules {
		return nil, fmt.Errorf("there are %d rules; at most %d are allowed", len(rules), maxRules)
	}
	_, err := NewSet(rules)
	return rules, err
}

// Parse reads one rule file; name is for errors, which give file, line and column.
func Parse(name string, b []byte) ([]*Rule, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, maxFile)
	}
	var content struct {
		Rules []yaml.Node `yaml:"rules"`
	}
	if err := strict.Decode(name, b, &content); err != nil {
		return nil, err
	}
	var rules []*Rule
	var errs []error
	for i := range content.Rules {
		n := &content.Rules[i]
		var e entry
		if err := strictNode(name, n, &e); err != nil {
			errs = append(errs, err)
			continue
		}
		r, err := e.rule(name, n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		rules = append(rules, r)
	}
	return rules, errors.Join(errs...)
}

// strictNode is strict.Decode for a part of a file: the decoder of a node knows no strictness, so keys are compared here.
func strictNode(name string, n *yaml.Node, into *entry) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d:%d: a rule is a mapping that begins with name", name, n.Line, n.Column)
	}
	known := []string{"name", "from", "where", "by", "when", "total", "of", "window", "slide", "for", "cooldown", "learn", "severity", "max_groups", "annotations"}
	var errs []error
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i]; !slices.Contains(known, key.Value) {
			errs = append(errs, fmt.Errorf("%s:%d:%d: a rule has no key %q", name, key.Line, key.Column, key.Value))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := n.Decode(into); err != nil {
		return strict.Place(name, n.Line, err)
	}
	return nil
}

var (
	nameForm   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	severities = map[string]int32{"info": signal.Info, "warn": signal.Warn, "warning": signal.Warn, "error": signal.Error, "fatal": signal.Fatal, "critical": signal.Fatal, "": signal.Warn}
)

// faults gathers what is wrong with one rule.
type faults struct {
	file, rule string
	node       *yaml.Node
	errs       []error
}

// at names the place of a key of the rule.
func (f *faults) at(key string) string {
	for i := 0; i+1 < len(f.node.Content); i += 2 {
		if f.node.Content[i].Value == key {
			return fmt.Sprintf("%s:%d:%d", f.file, f.node.Content[i].Line, f.node.Content[i].Column)
		}
	}
	return fmt.Sprintf("%s:%d:%d", f.file, f.node.Line, f.node.Column)
}

func (f *faults) bad(is bool, key, format string, args ...any) {
	if is {
		f.errs = append(f.errs, fmt.Errorf("%s: rule %q: %s: %s", f.at(key), f.rule, key, fmt.Sprintf(format, args...)))
	}
}

// expression reports a fault of an expression at its line and column in the file.
func (f *faults) expression(n *yaml.Node, key string, err error) {
	if err == nil {
		return
	}
	line, column, message := n.Line, n.Column, err.Error()
	var fault *file.Error
	if errors.As(err, &fault) {
		message = fault.Message
		switch n.Style {
		case yaml.LiteralStyle, yaml.FoldedStyle: // it begins on the next line; how far it is indented is not known
			line, column = line+fault.Line, fault.Column+1
		case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
			column += fault.Column + 1
		default:
			column += fault.Column
		}
	}
	f.errs = append(f.errs, fmt.Errorf("%s:%d:%d: rule %q: %s: %s", f.file, line, column, f.rule, key, message))
}

func (e *entry) rule(file string, n *yaml.Node) (*Rule, error) {
	f := &faults{file: file, rule: e.Name, node: n}
	r := &Rule{Name: e.Name, Kind: signal.Rule, Events: e.From == "events", Window: e.Window, Slide: e.Slide, For: e.For, Cooldown: e.Cooldown, Learn: e.Learn, MaxGroups: e.MaxGroups}
	f.bad(!nameForm.MatchString(e.Name), "name", "%q is not a-z 0-9 _, a letter first, at most 64 characters", e.Name)
	f.bad(e.From != "" && e.From != "logs" && e.From != "events", "from", "%q is neither logs nor events", e.From)
	var ok bool
	r.Severity, ok = severities[e.Severity]
	f.bad(!ok, "severity", "%q is not one of info, warn, error, fatal", e.Severity)
	f.by(r, e.By)
	f.when(r, &e.When)
	f.windows(r)
	var err error
	r.Where, err = condition(e.Where.Value)
	f.expression(&e.Where, "where", err)
	if e.Total.Value != "" {
		c, err := condition(e.Total.Value)
		f.expression(&e.Total, "total", err)
		r.Total = &c
	}
	if e.Of.Value != "" {
		r.Of, err = text(e.Of.Value)
		f.expression(&e.Of, "of", err)
	}
	f.bad(r.value == "ratio" && r.Total == nil, "when", "ratio needs total, the condition of the records to divide by")
	f.bad(r.value == "distinct" && r.Of == nil, "when", "distinct needs of, what is to be told apart")
	f.bad(r.FirstSeen && len(r.By) == 0, "when", "first_seen needs by, what is to be known again")
	if r.MaxGroups == 0 {
		r.MaxGroups = defaultGroups
	}
	f.bad(r.MaxGroups < 1 || r.MaxGroups > maxGroups, "max_groups", "must be 1 to %d", maxGroups)
	f.annotate(r, e.Annotations)
	if err := errors.Join(f.errs...); err != nil {
		return nil, err
	}
	r.identify(e.Where.Value, e.Total.Value, e.Of.Value)
	r.definition = fmt.Sprintf("%+v", *e)
	return r, nil
}

func (f *faults) by(r *Rule, names []string) {
	f.bad(len(names) > 8, "by", "at most 8 fields")
	for i, name := range names {
		b, ok := field(name)
		f.bad(!ok, "by", "%q is not one of app, node, site, tenant, cell, image, container, container_id, namespace, pod, event, severity, stream, label.<name>, attr.<name>", name)
		f.bad(slices.Contains(names[:i], name), "by", "%q is there twice", name)
		if ok && b.Unbounded() {
			limit := r.MaxGroups
			if limit == 0 {
				limit = defaultGroups
			}
			r.Notes = append(r.Notes, fmt.Sprintf("nothing bounds the values of %s: at most %d groups are kept in a partition, the rest counts in the group \"other\"", name, limit))
		}
		r.By = append(r.By, b)
	}
}

func (f *faults) when(r *Rule, n *yaml.Node) {
	source := strings.TrimSpace(n.Value)
	if source == "first_seen" {
		r.FirstSeen, r.value = true, "count"
		return
	}
	if source == "" {
		f.bad(true, "when", "is not there; it is a comparison of count, rate, bytes, ratio or distinct, or absent, or first_seen")
		return
	}
	program, err := expr.Compile(source, expr.Env(whenEnv{}), expr.AsBool(), expr.DisableBuiltin("count"))
	if err != nil {
		f.expression(n, "when", err)
		return
	}
	r.when = program
	tree, err := parser.Parse(source)
	if err != nil {
		f.expression(n, "when", err)
		return
	}
	var seen aggregates
	ast.Walk(&tree.Node, &seen)
	r.Absent = slices.Contains(seen, "absent")
	r.value = "count"
	for _, name := range seen {
		if name != "absent" {
			r.value = name
			break
		}
	}
	zero := Values{}
	holds, _ := r.Holds(zero)
	f.bad(holds && !r.Absent, "when", "holds where there is nothing at all, so for every group for ever; say absent for what is missing")
}

type aggregates []string

func (a *aggregates) Visit(n *ast.Node) {
	if id, ok := (*n).(*ast.IdentifierNode); ok {
		*a = append(*a, id.Value)
	}
}

func (f *faults) windows(r *Rule) {
	longest := maxWindow
	if r.FirstSeen || r.Absent {
		longest = maxMemory
	}
	f.bad(r.Window < minWindow || r.Window > longest, "window", "must be %s to %s", minWindow, longest)
	if r.Slide == 0 {
		r.Slide = r.Window
		if r.FirstSeen {
			r.Slide = minWindow // as exactly as it is told when it was
		}
	}
	f.bad(r.Slide < time.Second || r.Slide%time.Second != 0, "slide", "must be whole seconds")
	if r.Slide > 0 {
		f.bad(r.Window%r.Slide != 0, "slide", "must divide the window")
		f.bad(r.Window/r.Slide > maxPanes && !r.FirstSeen, "slide", "must be at least a %dth of the window", maxPanes)
	}
	f.bad(r.Window%time.Second != 0, "window", "must be whole seconds")
	for key, d := range map[string]time.Duration{"for": r.For, "cooldown": r.Cooldown, "learn": r.Learn} {
		f.bad(d < 0 || d > maxMemory, key, "must be 0s to %s", maxMemory)
	}
	f.bad(r.FirstSeen && (r.For > 0 || r.Cooldown > 0), "when", "first_seen is a single happening: for and cooldown do not go with it")
	f.bad(!r.FirstSeen && r.Learn > 0, "learn", "goes with first_seen alone")
}

func (f *faults) annotate(r *Rule, texts map[string]string) {
	for name, source := range texts {
		// As in Prometheus, {{ $labels.app }} and {{ $value }} may be written too.
		t, err := template.New(name).Option("missingkey=zero").Parse("{{$labels := .Labels}}{{$value := .Value}}" + source)
		if err == nil {
			values := make([]string, len(r.By))
			var out limited
			err = t.Execute(&out, r.data(&signal.Signal{}, values, Values{}))
		}
		f.bad(!nameForm.MatchString(name), "annotations", "%q is not a-z 0-9 _, a letter first", name)
		f.bad(err != nil, "annotations", "%s: %v", name, err)
		r.Annotations = append(r.Annotations, Annotation{name, t})
	}
	slices.SortFunc(r.Annotations, func(a, b Annotation) int { return strings.Compare(a.Name, b.Name) })
}

// WindowSpec asks for counts by some fields, without a condition.
type WindowSpec struct {
	By        []string      `yaml:"by"`
	Window    time.Duration `yaml:"window"`
	Slide     time.Duration `yaml:"slide"`
	MaxGroups int           `yaml:"max_groups"`
}

// short writes 1m0s as 1m and 90m0s as 90m.
func short(d time.Duration) string {
	switch {
	case d > 0 && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d > 0 && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}

// Windows makes the rules of windows of counts. Their names are window_<fields>_<length>.
func Windows(specs []WindowSpec) ([]*Rule, error) {
	var rules []*Rule
	var errs []error
	for i, s := range specs {
		name := strings.NewReplacer(".", "_", "-", "_").Replace(strings.Join(append([]string{"window"}, s.By...), "_")) + "_" + short(s.Window)
		if s.Slide != 0 && s.Slide != s.Window {
			name += "_by_" + short(s.Slide)
		}
		f := &faults{file: fmt.Sprintf("windows[%d]", i), rule: name, node: &yaml.Node{}}
		r := &Rule{Name: name, Kind: signal.Window, Window: s.Window, Slide: s.Slide, Severity: signal.Info, MaxGroups: s.MaxGroups, value: "count"}
		f.by(r, s.By)
		for _, b := range r.By {
			f.bad(!b.Resource, "by", "%s is not a field of a batch: a window counts by app, node, site, tenant, cell, image, container, container_id, namespace, pod, label.<name>", b.Name)
		}
		f.windows(r)
		if r.MaxGroups == 0 {
			r.MaxGroups = maxGroups / 10
		}
		f.bad(r.MaxGroups < 1 || r.MaxGroups > maxGroups, "max_groups", "must be 1 to %d", maxGroups)
		for _, err := range f.errs {
			_, text, _ := strings.Cut(err.Error(), ": rule ")
			errs = append(errs, fmt.Errorf("windows[%d]: %s", i, text))
		}
		r.identify("", "", "")
		rules = append(rules, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	_, err := NewSet(rules)
	return rules, err
}
