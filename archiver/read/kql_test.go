package read

import (
	"fmt"
	"strings"
	"testing"
)

// form writes a query's tree with all parentheses.
func form(n node) string {
	join := func(all []node, by string) string {
		var parts []string
		for _, n := range all {
			parts = append(parts, form(n))
		}
		return "(" + strings.Join(parts, by) + ")"
	}
	switch n := n.(type) {
	case andNode:
		return join(n, " & ")
	case orNode:
		return join(n, " | ")
	case notNode:
		return "!" + form(n.of)
	case test:
		quote := ""
		if n.value.quoted {
			quote = "'"
		}
		return fmt.Sprintf("%s%s%s%s%s", n.field, n.op, quote, strings.Join(n.value.pattern, "%"), quote)
	}
	return "all"
}

func TestParseKQL(t *testing.T) {
	for query, want := range map[string]string{
		"":                                  "all",
		"  \t":                              "all",
		"timeout":                           ":timeout",
		"connection timed out":              ":connection timed out",
		`"timed out"`:                       ":'timed out'",
		"log.level: error":                  "log.level:error",
		"log.level:error":                   "log.level:error",
		`message: "a \"b\" \\ *"`:           `message:'a "b" \ *'`,
		"container.name: web*":              "container.name:web%",
		"container.name: *":                 "container.name:%",
		"container.name: **":                "container.name:%",
		"a: x*y*z":                          "a:x%y%z",
		`a: x\*y`:                           "a:x*y",
		`a\:b: c\ d`:                        "a:b:c d",
		"a: b and c: d or e: f":             "((a:b & c:d) | e:f)",
		"a: b AND not c: d":                 "(a:b & !c:d)",
		"not (a: b or c: d) and e":          "(!(a:b | c:d) & :e)",
		"not not a":                         "!!:a",
		"log.level: (error or warn)":        "(log.level:error | log.level:warn)",
		"a: (b and not c*)":                 "(a:b & !a:c%)",
		"status >= 500 and status < 600":    "(status>=500 & status<600)",
		`@timestamp >= "2026-11-25T10:00Z"`: "@timestamp>='2026-11-25T10:00Z'",
		`"and"`:                             ":'and'",
		`\and`:                              ":and",
		"android or order":                  "(:android | :order)",
		"a: -5":                             "a:-5",
		"url.path: /api/v1/*":               "url.path:/api/v1/%",
		"größe: ä*":                         "größe:ä%",
		"container.labels.*: x":             "container.labels.*:x",
	} {
		n, err := parseKQL(query)
		if err != nil {
			t.Errorf("%q: %v", query, err)
		} else if got := form(n); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

func TestBadKQL(t *testing.T) {
	for query, want := range map[string]string{
		"a: (b or c":                      "column 4: the parenthesis is not closed",
		"a: b)":                           `column 5: ")" is not expected`,
		"and a":                           `column 1: "and" is not expected`,
		"a:":                              "ends at column 3",
		"a and":                           "ends at column 6",
		`a: "b`:                           "column 4: the quotation mark",
		"a: b c: d":                       `column 7: ":" is not expected`,
		"a: (b: c)":                       "column 5: within the parentheses of a there are values alone",
		"a > 5*":                          "column 5: a > needs a value without *",
		"user: { name: x }":               `column 7: "{" asks for nested fields`,
		`a\`:                              "column 2: nothing follows",
		"é: (ü":                           "column 4: the parenthesis",
		"()":                              `column 2: ")" is not expected`,
		`"a" "b"`:                         `column 5: "b" is not expected`,
		"a\xff":                           "not UTF-8",
		strings.Repeat("(", 999):          "more than 200 parentheses",
		strings.Repeat("not ", 999) + "a": "more than 200 parentheses",
		strings.Repeat("a", 70_000):       "longer than 65536 bytes",
	} {
		if n, err := parseKQL(query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50q: %v %v, want %q", query, form(n), err, want)
		}
	}
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no string
	}{
		{"web%", "web web-1", "wweb ew"},
		{"%web", "web a-web", "webb"},
		{"a%b%c", "abc axbxc abbc", "ac acb ab"},
		{"ab%ba", "abba abxba", "aba"},
		{"%", "a", ""},
		{"a%a%a", "aaa axaxa", "aa"},
	} {
		p := pattern(strings.Split(c.pattern, "%"))
		for _, s := range strings.Fields(c.yes) {
			if !p.match(s) {
				t.Errorf("%s does not match %s", p, s)
			}
		}
		for _, s := range strings.Fields(c.no) {
			if p.match(s) {
				t.Errorf("%s matches %s", p, s)
			}
		}
	}
}

func FuzzParseKQL(f *testing.F) {
	for _, s := range []string{"a: b and not (c or d*)", `a: "b\"" or c >= 5`, `\`, "a: (b", "{", "not not"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		n, err := parseKQL(query)
		if err == nil {
			_ = form(n)
		}
	})
}
