package read

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The parser's result: what is said, without regard to what the archive has.
type (
	andNode []node
	orNode  []node
	notNode struct{ of node }
	// test compares a field, or what free text is looked for in where the name is empty, with a value.
	test struct {
		field fieldName
		op    string // ":", "<", "<=", ">", ">="
		value value
	}
	node any
)

type fieldName struct {
	pattern
	at int
}

// value is what stands after the colon, or alone.
type value struct {
	pattern
	quoted bool
	at     int // column, from 1
}

// pattern is text with any characters between its pieces.
type pattern []string

func (p pattern) wild() bool     { return len(p) > 1 }
func (p pattern) any() bool      { return len(p) == 2 && p[0] == "" && p[1] == "" }
func (p pattern) String() string { return strings.Join(p, "*") }

// match tells whether the whole of s is what the pattern says.
func (p pattern) match(s string) bool {
	if len(p) == 1 {
		return s == p[0]
	}
	last := len(p) - 1
	if len(s) < len(p[0])+len(p[last]) || s[:len(p[0])] != p[0] || s[len(s)-len(p[last]):] != p[last] {
		return false
	}
	s = s[len(p[0]) : len(s)-len(p[last])]
	for _, piece := range p[1:last] {
		at := strings.Index(s, piece)
		if at < 0 {
			return false
		}
		s = s[at+len(piece):]
	}
	return true
}

const (
	maxQuery = 64 << 10
	maxDepth = 200 // of parentheses and not
)

// parseKQL reads Kibana's query language: tests of fields and free text with and, or, not and parentheses. It is nil for an empty query.
func parseKQL(query string) (node, error) {
	if len(query) > maxQuery {
		return nil, fmt.Errorf("the query is longer than %d bytes", maxQuery)
	}
	if !utf8.ValidString(query) {
		return nil, fmt.Errorf("the query is not UTF-8")
	}
	p := &parser{}
	if err := p.scan([]rune(query)); err != nil {
		return nil, err
	}
	if p.peek().kind == end {
		return nil, nil
	}
	n, err := p.or(nil)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != end {
		return nil, p.unexpected(t)
	}
	return n, nil
}

type kind uint8

const (
	end     kind = iota
	word         // not quoted
	quote        // quoted
	keyword      // and, or, not
	sign         // ( ) : < <= > >=
)

type token struct {
	kind kind
	text pattern // of a keyword in lower case
	at   int
}

func (t *token) is(kind kind, text string) bool {
	return t.kind == kind && len(t.text) == 1 && t.text[0] == text
}

type parser struct {
	tokens []token
	next   int
	depth  int
}

func (p *parser) peek() *token { return &p.tokens[p.next] }

func (p *parser) take(kind kind, text string) bool {
	if !p.peek().is(kind, text) {
		return false
	}
	p.next++
	return true
}

func (p *parser) unexpected(t *token) error {
	if t.kind == end {
		return fmt.Errorf("the query ends at column %d where something is expected", t.at)
	}
	return fmt.Errorf("column %d: %q is not expected here; is an and, an or or a quotation mark missing?", t.at, t.text)
}

// scan cuts the query into tokens.
func (p *parser) scan(q []rune) error {
	for i := 0; i < len(q); {
		c, at := q[i], i+1
		switch {
		case unicode.IsSpace(c):
			i++
		case c == '(' || c == ')' || c == ':':
			p.tokens = append(p.tokens, token{sign, pattern{string(c)}, at})
			i++
		case c == '<' || c == '>':
			text := string(c)
			if i++; i < len(q) && q[i] == '=' {
				text += "="
				i++
			}
			p.tokens = append(p.tokens, token{sign, pattern{text}, at})
		case c == '{' || c == '}':
			return fmt.Errorf("column %d: %q asks for nested fields, and no record has any; put it in quotation marks if it is text", at, string(c))
		case c == '"':
			text, n, ok := quoted(q[i:])
			if !ok {
				return fmt.Errorf("column %d: the quotation mark has no second one", at)
			}
			p.tokens = append(p.tokens, token{quote, pattern{text}, at})
			i += n
		default:
			text, n, err := bare(q[i:], at)
			if err != nil {
				return err
			}
			t := token{word, text, at}
			if lower := strings.ToLower(string(q[i : i+n])); lower == "and" || lower == "or" || lower == "not" {
				t.kind, t.text = keyword, pattern{lower}
			}
			p.tokens = append(p.tokens, t)
			i += n
		}
	}
	p.tokens = append(p.tokens, token{kind: end, at: len(q) + 1})
	return nil
}

// escapes are letters that mean something after a backslash; any other character means itself.
var escapes = map[rune]rune{'t': '\t', 'n': '\n', 'r': '\r'}

func unescape(c rune) rune {
	if e, ok := escapes[c]; ok {
		return e
	}
	return c
}

func quoted(q []rune) (text string, n int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(q); i++ {
		switch {
		case q[i] == '"':
			return b.String(), i + 1, true
		case q[i] == '\\' && i+1 < len(q):
			i++
			b.WriteRune(unescape(q[i]))
		default:
			b.WriteRune(q[i])
		}
	}
	return "", 0, false
}

func bare(q []rune, at int) (text pattern, n int, err error) {
	var b strings.Builder
	for n = 0; n < len(q) && !unicode.IsSpace(q[n]) && !strings.ContainsRune(`():<>"{}`, q[n]); n++ {
		switch q[n] {
		case '*':
			text = append(text, b.String())
			b.Reset()
			for n+1 < len(q) && q[n+1] == '*' { // two say no more than one
				n++
			}
		case '\\':
			if n++; n == len(q) {
				return nil, 0, fmt.Errorf("column %d: nothing follows the backslash", at+n-1)
			}
			b.WriteRune(unescape(q[n]))
		default:
			b.WriteRune(q[n])
		}
	}
	return append(text, b.String()), n, nil
}

// or reads a whole expression. Within the parentheses after a colon, field is what its values are compared with.
func (p *parser) or(field *fieldName) (node, error) {
	var all orNode
	for {
		n, err := p.and(field)
		if err != nil {
			return nil, err
		}
		if all = append(all, n); !p.take(keyword, "or") {
			break
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

func (p *parser) and(field *fieldName) (node, error) {
	var all andNode
	for {
		n, err := p.not(field)
		if err != nil {
			return nil, err
		}
		if all = append(all, n); !p.take(keyword, "and") {
			break
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

func (p *parser) not(field *fieldName) (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("column %d: more than %d parentheses within each other", p.peek().at, maxDepth)
	}
	defer func() { p.depth-- }()
	if p.take(keyword, "not") {
		n, err := p.not(field)
		return notNode{n}, err
	}
	if p.peek().is(sign, "(") {
		return p.group(field)
	}
	return p.test(field)
}

func (p *parser) group(field *fieldName) (node, error) {
	open := p.peek()
	p.next++
	n, err := p.or(field)
	if err != nil {
		return nil, err
	}
	if !p.take(sign, ")") {
		if t := p.peek(); t.kind != end {
			return nil, p.unexpected(t)
		}
		return nil, fmt.Errorf("column %d: the parenthesis is not closed", open.at)
	}
	return n, nil
}

// test reads a value, or a field and what it is compared with.
func (p *parser) test(field *fieldName) (node, error) {
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	t := p.peek()
	if t.kind != sign || t.is(sign, "(") || t.is(sign, ")") {
		if field == nil {
			field = &fieldName{at: v.at}
		}
		return test{*field, ":", v}, nil
	}
	if field != nil {
		return nil, fmt.Errorf("column %d: within the parentheses of %s there are values alone", v.at, field)
	}
	name := fieldName{v.pattern, v.at}
	p.next++
	op := t.text[0]
	if op == ":" && p.peek().is(sign, "(") {
		return p.group(&name)
	}
	if v, err = p.value(); err != nil {
		return nil, err
	}
	if op != ":" && v.wild() {
		return nil, fmt.Errorf("column %d: %s %s needs a value without *", v.at, name, op)
	}
	return test{name, op, v}, nil
}

// value reads a quoted text, or words up to the next sign or keyword.
func (p *parser) value() (value, error) {
	first := *p.peek()
	switch first.kind {
	case quote:
		p.next++
		return value{first.text, true, first.at}, nil
	case word:
	default:
		return value{}, p.unexpected(&first)
	}
	text := pattern{""}
	for n := 0; p.peek().kind == word; n++ {
		t := p.peek().text
		if n > 0 {
			text[len(text)-1] += " "
		}
		text[len(text)-1] += t[0]
		text = append(text, t[1:]...)
		p.next++
	}
	return value{text, false, first.at}, nil
}
