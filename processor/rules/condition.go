package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"weir/schema"
)

// env are the names that conditions know, for the checker and the virtual machine of the expression language.
type env struct {
	App         string `expr:"app"`
	Node        string `expr:"node"`
	Site        string `expr:"site"`
	Tenant      string `expr:"tenant"`
	Cell        string `expr:"cell"`
	Image       string `expr:"image"`
	Container   string `expr:"container"`
	ContainerID string `expr:"container_id"`
	Namespace   string `expr:"namespace"`
	Pod         string `expr:"pod"`

	Severity int    `expr:"severity"`
	Body     string `expr:"body"`
	Bytes    int    `expr:"bytes"`
	Event    string `expr:"event"`
	Stream   string `expr:"stream"`

	Trace int `expr:"TRACE"`
	Debug int `expr:"DEBUG"`
	Info  int `expr:"INFO"`
	Warn  int `expr:"WARN"`
	Error int `expr:"ERROR"`
	Fatal int `expr:"FATAL"`

	Label  func(string) string  `expr:"label"`
	Attr   func(string) string  `expr:"attr"`
	Number func(string) float64 `expr:"number"`
}

func newEnv(v *View) *env {
	return &env{Trace: int(schema.SeverityTrace), Debug: int(schema.SeverityDebug), Info: int(schema.SeverityInfo), Warn: int(schema.SeverityWarn), Error: int(schema.SeverityError), Fatal: int(schema.SeverityFatal),
		Label: v.label, Attr: v.attr, Number: v.number}
}

// machineEnv fills in the names for the virtual machine.
func (v *View) machineEnv() *env {
	if v.env == nil {
		v.env = newEnv(v)
	}
	e := v.env
	for i, place := range [resourceFields]*string{&e.App, &e.Node, &e.Site, &e.Tenant, &e.Cell, &e.Image, &e.Container, &e.ContainerID, &e.Namespace, &e.Pod} {
		*place = v.resource[i]
	}
	if r := v.Record; r != nil {
		e.Severity, e.Body, e.Bytes, e.Event = int(r.Severity), r.Body, len(r.Body), r.EventName
		e.Stream = v.attr(schema.AttrStream)
	}
	return e
}

// Condition is a conjunction, its parts divided by whether they speak of the batch's resource alone: those are asked once a batch.
type Condition struct {
	batch, record []func(*View) bool
}

// Batch asks what speaks of the resource alone; where it says no, no record of the batch holds.
func (c *Condition) Batch(v *View) bool { return all(c.batch, v) }

// Record asks the rest.
func (c *Condition) Record(v *View) bool { return all(c.record, v) }

func all(parts []func(*View) bool, v *View) bool {
	for _, f := range parts {
		if !f(v) {
			return false
		}
	}
	return true
}

// Text is an expression whose value is text.
type Text struct{ Get func(*View) string }

// condition compiles one; empty holds always. The language is that of expr. What is common in conditions is run as plain functions, the
// rest by expr's virtual machine, whose faults are answered with no: an index out of range in one record must not stop the others.
func condition(source string) (Condition, error) {
	var c Condition
	if strings.TrimSpace(source) == "" {
		return c, nil
	}
	if _, err := expr.Compile(source, expr.Env(env{}), expr.AsBool()); err != nil {
		return c, err
	}
	tree, err := parser.Parse(source)
	if err != nil {
		return c, err
	}
	for _, part := range conjuncts(tree.Node, nil) {
		f := boolean(part)
		if f == nil {
			// The text of a part is made from its tree, since a tree knows where it begins but not where it ends.
			program, err := expr.Compile(part.String(), expr.Env(env{}), expr.AsBool())
			if err != nil {
				return c, err
			}
			f = func(v *View) bool {
				out, err := vm.Run(program, v.machineEnv())
				is, _ := out.(bool)
				return err == nil && is
			}
		}
		if ofResource(part) {
			c.batch = append(c.batch, f)
		} else {
			c.record = append(c.record, f)
		}
	}
	return c, nil
}

// text compiles an expression for distinct.
func text(source string) (*Text, error) {
	program, err := expr.Compile(source, expr.Env(env{}))
	if err != nil {
		return nil, err
	}
	tree, err := parser.Parse(source)
	if err != nil {
		return nil, err
	}
	if f := words(tree.Node); f != nil {
		return &Text{f}, nil
	}
	return &Text{func(v *View) string {
		out, err := vm.Run(program, v.machineEnv())
		if err != nil {
			return ""
		}
		return fmt.Sprint(out)
	}}, nil
}

func conjuncts(n ast.Node, parts []ast.Node) []ast.Node {
	if b, ok := n.(*ast.BinaryNode); ok && (b.Operator == "and" || b.Operator == "&&") {
		return conjuncts(b.Right, conjuncts(b.Left, parts))
	}
	return append(parts, n)
}

type names struct{ resource bool }

func (n *names) Visit(node *ast.Node) {
	switch id := (*node).(type) {
	case *ast.IdentifierNode:
		if slices.ContainsFunc(resourceNames[:], func(f struct{ name, attr string }) bool { return f.name == id.Value }) || id.Value == "label" {
			return
		}
		n.resource = false
	}
}

func ofResource(n ast.Node) bool {
	seen := names{resource: true}
	ast.Walk(&n, &seen)
	return seen.resource
}

// boolean makes a plain function of a tree; nil where it has something that is not common.
func boolean(n ast.Node) func(*View) bool {
	switch n := n.(type) {
	case *ast.BoolNode:
		return func(*View) bool { return n.Value }
	case *ast.UnaryNode:
		if f := boolean(n.Node); f != nil && (n.Operator == "not" || n.Operator == "!") {
			return func(v *View) bool { return !f(v) }
		}
	case *ast.BinaryNode:
		return comparison(n)
	}
	return nil
}

func comparison(n *ast.BinaryNode) func(*View) bool {
	switch n.Operator {
	case "and", "&&", "or", "||":
		a, b := boolean(n.Left), boolean(n.Right)
		switch {
		case a == nil || b == nil:
			return nil
		case n.Operator == "and" || n.Operator == "&&":
			return func(v *View) bool { return a(v) && b(v) }
		default:
			return func(v *View) bool { return a(v) || b(v) }
		}
	case "matches":
		s, ok := n.Right.(*ast.StringNode)
		a := words(n.Left)
		if !ok || a == nil {
			return nil
		}
		re, err := regexp.Compile(s.Value)
		if err != nil {
			return nil
		}
		return func(v *View) bool { return re.MatchString(a(v)) }
	case "in":
		return member(n)
	}
	if a, b := words(n.Left), words(n.Right); a != nil && b != nil {
		switch n.Operator {
		case "==":
			return func(v *View) bool { return a(v) == b(v) }
		case "!=":
			return func(v *View) bool { return a(v) != b(v) }
		case "contains":
			return func(v *View) bool { return strings.Contains(a(v), b(v)) }
		case "startsWith":
			return func(v *View) bool { return strings.HasPrefix(a(v), b(v)) }
		case "endsWith":
			return func(v *View) bool { return strings.HasSuffix(a(v), b(v)) }
		}
		return nil
	}
	if a, b := numeric(n.Left), numeric(n.Right); a != nil && b != nil {
		switch n.Operator {
		case "==":
			return func(v *View) bool { return a(v) == b(v) }
		case "!=":
			return func(v *View) bool { return a(v) != b(v) }
		case "<":
			return func(v *View) bool { return a(v) < b(v) }
		case "<=":
			return func(v *View) bool { return a(v) <= b(v) }
		case ">":
			return func(v *View) bool { return a(v) > b(v) }
		case ">=":
			return func(v *View) bool { return a(v) >= b(v) }
		}
	}
	return nil
}

// member is `x in ["a", "b"]`.
func member(n *ast.BinaryNode) func(*View) bool {
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		return nil
	}
	if a := words(n.Left); a != nil {
		among := map[string]bool{}
		for _, item := range list.Nodes {
			s, ok := item.(*ast.StringNode)
			if !ok {
				return nil
			}
			among[s.Value] = true
		}
		return func(v *View) bool { return among[a(v)] }
	}
	a := numeric(n.Left)
	if a == nil {
		return nil
	}
	among := map[float64]bool{}
	for _, item := range list.Nodes {
		f := numeric(item)
		if _, ok := item.(*ast.IntegerNode); !ok || f == nil {
			return nil
		}
		among[f(nil)] = true
	}
	return func(v *View) bool { return among[a(v)] }
}

func words(n ast.Node) func(*View) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return func(*View) string { return n.Value }
	case *ast.IdentifierNode:
		for i, f := range resourceNames {
			if f.name == n.Value {
				return func(v *View) string { return v.resource[i] }
			}
		}
		switch n.Value {
		case "body":
			return func(v *View) string { return v.Record.Body }
		case "event":
			return func(v *View) string { return v.Record.EventName }
		case "stream":
			return func(v *View) string { return v.attr(schema.AttrStream) }
		}
	case *ast.CallNode:
		switch name, key := call(n); name {
		case "label":
			return func(v *View) string { return v.label(key) }
		case "attr":
			return func(v *View) string { return v.attr(key) }
		}
	}
	return nil
}

func numeric(n ast.Node) func(*View) float64 {
	switch n := n.(type) {
	case *ast.IntegerNode:
		value := float64(n.Value)
		return func(*View) float64 { return value }
	case *ast.FloatNode:
		return func(*View) float64 { return n.Value }
	case *ast.IdentifierNode:
		if level := schema.SeverityOf(n.Value); level != 0 {
			value := float64(level)
			return func(*View) float64 { return value }
		}
		switch n.Value {
		case "severity":
			return func(v *View) float64 { return float64(v.Record.Severity) }
		case "bytes":
			return func(v *View) float64 { return float64(len(v.Record.Body)) }
		}
	case *ast.CallNode:
		if name, key := call(n); name == "number" {
			return func(v *View) float64 { return v.number(key) }
		}
	}
	return nil
}

// call is a call with one constant string.
func call(n *ast.CallNode) (name, key string) {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok || len(n.Arguments) != 1 {
		return "", ""
	}
	s, ok := n.Arguments[0].(*ast.StringNode)
	if !ok {
		return "", ""
	}
	return id.Value, s.Value
}
