package kibana

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"weir/internal/config"
)

func TestDiscoverURL(t *testing.T) {
	const want = "https://k.example/base/s/team-a/app/discover#/?_g=(filters:!(),time:(from:'now-1h',to:'now'))" +
		"&_a=(dataSource:(dataViewId:'weir.team-a.all',type:dataView),filters:!(),index:'weir.team-a.all',query:(language:kuery,query:'log.level%3A%20error'),sort:!(!('@timestamp',desc)))"
	if got := DiscoverURL(config.Kibana{URL: "https://k.example/base/", Space: "team-a"}, "log.level: error", "now-1h", "now"); got != want {
		t.Errorf("\ngot  %s\nwant %s", got, want)
	}
	if got := DiscoverURL(config.Kibana{}, "a", "b", "c"); got != "" {
		t.Errorf("without a Kibana: %q", got)
	}
	if got := DiscoverURL(config.Kibana{URL: "http://k", Space: "default", DataView: "my view"}, "", "", ""); !strings.HasPrefix(got, "http://k/app/discover#/") || !strings.Contains(got, "dataViewId:'my%20view'") {
		t.Error(got)
	}
}

// TestNastyQueries takes the address apart as a browser and Kibana do: fragment, percent signs, RISON.
func TestNastyQueries(t *testing.T) {
	for _, query := range []string{"", " ", `a: "b"`, `message: "it's !important!" and not (a: 1 or b: 'x')`, "a+b & c=d # e ? f / g % 25 %25", "!", "'", "!'", "!!''", "','query':'x'", "),(", "ü 😀 \u2028", "line\nbreak\ttab",
		"a\\\"b\\\\", "not utf-8: \xff", `url.path: "/a?b=c&d#e"`, "$@:;,~*", strings.Repeat("'!", 500)} {
		link := DiscoverURL(config.Kibana{URL: "http://k"}, query, "2026-11-25T10:00:00.000000001+08:00", "now")
		u, err := url.Parse(link)
		if err != nil {
			t.Fatalf("%q: %v", query, err)
		}
		if strings.ContainsAny(link, " \n\t\"<>") {
			t.Errorf("%q: a terminal would cut %s", query, link)
		}
		_, fragment, _ := strings.Cut(link, "#/?")
		if u.Host != "k" || u.RawQuery != "" || u.Path != "/app/discover" {
			t.Errorf("%q leaks out of the fragment: %s", query, link)
		}
		state := map[string]any{}
		for _, part := range strings.Split(fragment, "&") {
			key, value, _ := strings.Cut(part, "=")
			plain, err := url.PathUnescape(value) // as decodeURIComponent: + is a plus
			if err != nil {
				t.Fatalf("%q: %v", query, err)
			}
			v, rest, err := unrison(plain)
			if err != nil || rest != "" {
				t.Fatalf("%q: %s: %v, left %q", query, plain, err, rest)
			}
			state[key] = v
		}
		a, g := state["_a"].(map[string]any), state["_g"].(map[string]any)
		want := strings.ToValidUTF8(query, "\ufffd")
		if got := a["query"].(map[string]any); got["query"] != want || got["language"] != "kuery" {
			t.Errorf("%q came out as %q", want, got)
		}
		if got := a["dataSource"].(map[string]any)["dataViewId"]; got != "weir-all" {
			t.Errorf("data view %q", got)
		}
		if got := g["time"].(map[string]any); got["from"] != "2026-11-25T10:00:00.000000001+08:00" || got["to"] != "now" {
			t.Errorf("times %q", got)
		}
	}
}

// unrison reads one value of RISON: objects, arrays, quoted strings and names.
func unrison(s string) (v any, rest string, err error) {
	switch {
	case strings.HasPrefix(s, "("):
		m := map[string]any{}
		for s = s[1:]; !strings.HasPrefix(s, ")"); {
			s = strings.TrimPrefix(s, ",")
			key, after, ok := strings.Cut(s, ":")
			if !ok {
				return nil, s, fmt.Errorf("no colon")
			}
			if m[key], s, err = unrison(after); err != nil {
				return nil, s, err
			}
		}
		return m, s[1:], nil
	case strings.HasPrefix(s, "!("):
		l := []any{}
		for s = s[2:]; !strings.HasPrefix(s, ")"); {
			var e any
			if e, s, err = unrison(strings.TrimPrefix(s, ",")); err != nil {
				return nil, s, err
			}
			l = append(l, e)
		}
		return l, s[1:], nil
	case strings.HasPrefix(s, "'"):
		var b strings.Builder
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\'':
				return b.String(), s[i+1:], nil
			case '!':
				if i++; i == len(s) || s[i] != '!' && s[i] != '\'' {
					return nil, s, fmt.Errorf("a bad escape")
				}
			}
			b.WriteByte(s[i])
		}
		return nil, s, fmt.Errorf("no end of a string")
	}
	n := strings.IndexAny(s, ",)")
	if n <= 0 {
		return nil, s, fmt.Errorf("no value")
	}
	return s[:n], s[n:], nil
}
