package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"weir/internal/show"
)

// Names finds the fields that a KQL query names: what stands before a colon or a comparison. Elasticsearch's parser does not tell them.
func Names(kql string) []string {
	var names []string
	word := ""
	text := []rune(kql)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			word = ""
		case c == ':' || c == '<' || c == '>':
			if word != "" && !slices.Contains(names, word) {
				names = append(names, word)
			}
			word = ""
		case strings.ContainsRune("(){}=", c):
			word = ""
		case unicode.IsSpace(c):
		default:
			var b strings.Builder
			for ; i < len(text) && !unicode.IsSpace(text[i]) && !strings.ContainsRune(`():<>"{}`, text[i]); i++ {
				if text[i] == '\\' && i+1 < len(text) {
					i++
				}
				b.WriteRune(text[i])
			}
			i--
			word = b.String()
		}
	}
	return names
}

// Check asks which fields there are: it fails where the pattern matches nothing, and warns of fields that no index has.
func (e *Elasticsearch) Check(ctx context.Context, q *Query, more []string) error {
	var caps struct {
		Indices []string
		Fields  map[string]map[string]struct{ Type string }
	}
	err := e.ask(ctx, http.MethodGet, indexPath(q.Index, "/_field_caps?fields=*"), nil, &caps)
	var a *answerError
	switch {
	case errors.As(err, &a) && a.status == http.StatusNotFound:
		return fmt.Errorf("there is no data stream or index %q", q.Index)
	case err != nil:
		return err
	case len(caps.Indices) == 0:
		return fmt.Errorf("no data stream or index matches %q, or none that these credentials may see", q.Index)
	}
	var known, near, open []string
	for name, types := range caps.Fields {
		known = append(known, name)
		if _, ok := types["object"]; !ok {
			near = append(near, name)
		}
		if _, ok := types["flattened"]; ok {
			open = append(open, name+".")
		}
	}
	for _, name := range append(Names(q.KQL), more...) {
		is := func(k string) bool { return k == name }
		if strings.Contains(name, "*") {
			is = func(k string) bool { return like(name, k) }
		}
		if name == "_id" || name == "_index" || slices.ContainsFunc(known, is) || slices.ContainsFunc(open, func(o string) bool { return strings.HasPrefix(name, o) }) {
			continue
		}
		warning := "no index has a field " + show.Clean(name)
		if near := Nearest(name, near); len(near) > 0 {
			warning += "; near to it: " + strings.Join(near, ", ")
		}
		e.once(warning)
	}
	return nil
}

// like matches a pattern with * for any characters.
func like(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for i, p := range parts[1:] {
		if i == len(parts)-2 {
			return strings.HasSuffix(s, p)
		}
		at := strings.Index(s, p)
		if at < 0 {
			return false
		}
		s = s[at+len(p):]
	}
	return s == ""
}

// Nearest gives at most three known names that one may have meant: those that end so, and those with few other letters.
func Nearest(name string, known []string) []string {
	type candidate struct {
		name string
		far  int
	}
	var near []candidate
	lower := strings.ToLower(name)
	for _, k := range known {
		if strings.HasPrefix(k, "_") {
			continue
		}
		far := distance(lower, k)
		switch {
		case strings.HasSuffix(k, "."+lower):
			far = 1
		case far > max(2, len(name)/4):
			continue
		}
		near = append(near, candidate{k, far})
	}
	slices.SortFunc(near, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(a.name, b.name)) })
	var names []string
	for _, c := range near[:min(3, len(near))] {
		names = append(names, c.name)
	}
	return names
}

// distance is the number of letters to change, add or leave out (Levenshtein), of names of usual length.
func distance(a, b string) int {
	if len(a) > 200 || len(b) > 200 {
		return 200
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
