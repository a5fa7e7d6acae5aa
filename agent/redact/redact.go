package redact

import (
	"regexp"
	"slices"
	"sync"
)

// Redactor replaces secrets with "[redacted:<kind>]". It is safe for
// concurrent use.
type Redactor struct {
	cfg      Config
	kinds    []string
	patterns []*regexp.Regexp
}

// New returns a Redactor, or what Validate finds wrong.
func New(cfg Config) (*Redactor, error) {
	patterns, err := cfg.compile()
	if err != nil {
		return nil, err
	}
	cfg.Patterns = slices.Clone(cfg.Patterns)
	r := &Redactor{cfg: cfg, kinds: slices.Clone(builtinKinds), patterns: patterns}
	for _, p := range cfg.Patterns {
		r.kinds = append(r.kinds, p.Name)
	}
	return r, nil
}

// Kinds names the kinds of secret in the order of counts: the five built-in
// kinds, whether or not they are on, then the patterns.
func (r *Redactor) Kinds() []string { return slices.Clone(r.kinds) }

// Redact returns body itself and false when it finds nothing. Otherwise it
// overwrites dst from its start, growing it as append does, and returns that
// and true. dst must not share memory with body. The number of replacements of
// each kind is added to counts, which has len(Kinds()) elements or is nil.
//
// A body that is a JSON object or array stays valid JSON, so a bare number
// becomes a string. Time is linear in len(body) for the built-in kinds, and
// redacting the result again changes nothing more.
func (r *Redactor) Redact(dst, body []byte, counts []int) (out []byte, changed bool) {
	s := scan{Redactor: r, body: body}
	if r.cfg.Cards || r.cfg.ResidentIDs || r.cfg.Phones {
		s.numbers()
	}
	if r.cfg.Phones {
		s.internationalPhones()
	}
	if r.cfg.Tokens || r.cfg.URLPasswords {
		s.colons()
	}
	if r.cfg.Tokens {
		s.assignments()
		s.webTokens()
		s.accessKeys()
	}
	for i, re := range r.patterns {
		s.pattern(re, len(builtinKinds)+i)
	}
	if s.found == nil {
		return body, false
	}
	out = s.replace(dst[:0], counts)
	if cap(*s.found) <= mostPooledSpans {
		spanPool.Put(s.found)
	}
	return out, true
}

// span is one secret: body[start:end].
type span struct {
	start, end int
	kind       int
	lastFour   [4]byte // The digits of a card that stay readable.
	quote      bool    // The span is a bare JSON number, so its text needs quotes.
}

// mostPooledSpans keeps one body of many secrets from holding memory for good.
const mostPooledSpans = 1024

// spanPool keeps the found path from allocating for each body.
var spanPool = sync.Pool{New: func() any { return new([]span) }}

// scan is the work on one body.
type scan struct {
	*Redactor
	body  []byte
	found *[]span // Taken from spanPool by the first find.
	json  jsonState
}

func (s *scan) add(sp span) {
	if s.found == nil {
		s.found = spanPool.Get().(*[]span)
		*s.found = (*s.found)[:0]
	}
	*s.found = append(*s.found, sp)
}

func (s *scan) addSecret(start, end, kind int) {
	s.add(span{start: start, end: end, kind: kind})
}
