package rules

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"weir/processor/signal"
	"weir/schema"
)

// TestParseNamesThePlace: every fault is told with file, line and column, and what to do.
func TestParseNamesThePlace(t *testing.T) {
	const good = "when: count > 1\n  window: 1m\n  "
	for _, c := range []struct{ text, want string }{
		{"rules:\n- name: Bad Name\n  " + good, `f.yaml:2:3: rule "Bad Name": name:`},
		{"rules:\n- name: a\n  nmae: b\n  " + good, `f.yaml:3:3: a rule has no key "nmae"`},
		{"rule:\n- name: a\n", `f.yaml:1: there is no key "rule" here`},
		{"rules:\n- just text\n", `f.yaml:2:3: a rule is a mapping`},
		{"rules:\n- name: a\n  window: fast\n  when: count > 1", "f.yaml:3: cannot unmarshal"},
		{"rules:\n- name: a\n  where: severity >= EROR\n  " + good, `f.yaml:3:22: rule "a": where: unknown name EROR`},
		{"rules:\n- name: a\n  where: \"severity >= EROR\"\n  " + good, `f.yaml:3:23: rule "a": where: unknown name EROR`},
		{"rules:\n- name: a\n  where: |\n    severity >= ERROR and\n    bdy == ''\n  " + good, `f.yaml:5:1: rule "a": where: unknown name bdy`},
		{"rules:\n- name: a\n  where: body\n  " + good, "where: expected bool, but got string"},
		{"rules:\n- name: a\n  where: body matches \"(\"\n  " + good, "where: error parsing regexp"},
		{"rules:\n- name: a\n  where: number(5) > 3\n  " + good, "where: cannot use int as argument (type string)"},
		{"rules:\n- name: a\n  window: 1m", `f.yaml:2:3: rule "a": when: is not there`},
		{"rules:\n- name: a\n  when: count\n  window: 1m", "when: expected bool"},
		{"rules:\n- name: a\n  when: cuont > 1\n  window: 1m", `f.yaml:3:9: rule "a": when: unknown name cuont`},
		{"rules:\n- name: a\n  when: count < 5\n  window: 1m", "holds where there is nothing at all"},
		{"rules:\n- name: a\n  when: ratio > 0.5\n  window: 1m", "ratio needs total"},
		{"rules:\n- name: a\n  when: distinct > 5\n  window: 1m", "distinct needs of"},
		{"rules:\n- name: a\n  when: first_seen\n  window: 1m", "first_seen needs by"},
		{"rules:\n- name: a\n  by: [app]\n  when: first_seen\n  for: 1m\n  window: 1m", "for and cooldown do not go with it"},
		{"rules:\n- name: a\n  learn: 1m\n  " + good, "f.yaml:3:3: rule \"a\": learn: goes with first_seen alone"},
		{"rules:\n- name: a\n  when: count > 1\n  window: 5s", "window: must be 10s to 1h0m0s"},
		{"rules:\n- name: a\n  when: count > 1\n  window: 2h", "window: must be 10s to 1h0m0s"},
		{"rules:\n- name: a\n  when: count > 1\n  window: 1m\n  slide: 25s", "slide: must divide the window"},
		{"rules:\n- name: a\n  when: count > 1\n  window: 1h\n  slide: 1s", "slide: must be at least a 360th"},
		{"rules:\n- name: a\n  when: count > 1\n  window: 1m\n  slide: 500ms", "slide: must be whole seconds"},
		{"rules:\n- name: a\n  for: -1s\n  " + good, "for: must be 0s to"},
		{"rules:\n- name: a\n  by: [ap]\n  " + good, `f.yaml:3:3: rule "a": by: "ap" is not one of app, node`},
		{"rules:\n- name: a\n  by: [app, app]\n  " + good, `by: "app" is there twice`},
		{"rules:\n- name: a\n  from: metrics\n  " + good, `from: "metrics" is neither logs nor events`},
		{"rules:\n- name: a\n  severity: loud\n  " + good, `severity: "loud" is not one of`},
		{"rules:\n- name: a\n  max_groups: 2000000\n  " + good, "max_groups: must be 1 to 1000000"},
		{"rules:\n- name: a\n  annotations: {summary: \"{{ .Nope }}\"}\n  " + good, "annotations: summary:"},
		{"rules:\n- name: a\n  annotations: {summary: \"{{ range .Labels \"}\n  " + good, "annotations: summary:"},
		{"rules: {", "f.yaml"},
	} {
		_, err := Parse("f.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestParseTellsOfUnboundedGroups(t *testing.T) {
	all, err := Parse("f.yaml", []byte("rules:\n- {name: a, by: [app, attr.user], when: count > 1, window: 1m, max_groups: 50}\n- {name: b, by: [app, label.x], when: count > 1, window: 1m}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(all[0].Notes) != 1 || !strings.Contains(all[0].Notes[0], "at most 50 groups") || len(all[1].Notes) != 0 {
		t.Errorf("notes %q, %q", all[0].Notes, all[1].Notes)
	}
}

// TestIdentity: what is counted makes a rule's ID, and nothing else does.
func TestIdentity(t *testing.T) {
	parse := func(text string) *Rule {
		t.Helper()
		all, err := Parse("f.yaml", []byte("rules:\n- {"+text+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	const base = "name: a, by: [app], where: severity > 1"
	first := parse(base + ", when: count > 1, window: 1m")
	for _, text := range []string{base + ", when: count > 7, window: 1m", base + ", when: count > 1, window: 1m, for: 1m, severity: fatal, cooldown: 1m, annotations: {summary: x}"} {
		if again := parse(text); again.ID != first.ID || again.definition == first.definition {
			t.Errorf("%s: counts anew, or is taken for the same", text)
		}
	}
	for _, text := range []string{"name: b, by: [app], where: severity > 1, when: count > 1, window: 1m", "name: a, by: [node], where: severity > 1, when: count > 1, window: 1m", base + ", when: count > 1, window: 2m",
		"name: a, by: [app], where: severity > 2, when: count > 1, window: 1m", base + ", when: count > 1, window: 1m, slide: 30s", base + ", when: absent, window: 1m", base + ", from: events, when: count > 1, window: 1m"} {
		if parse(text).ID == first.ID {
			t.Errorf("%s: goes on with other counts", text)
		}
	}
}

// TestConditionsAgree compares the plain functions with the expression language's own machine.
func TestConditionsAgree(t *testing.T) {
	batch := &schema.Batch{Resource: []schema.Attr{schema.String(schema.AttrApp, "pay"), schema.String(schema.AttrHostName, "n1"), schema.String(schema.LabelPrefix+"team", "core")}}
	records := []schema.Record{
		{Severity: 17, Body: "connection refused by db-1", Attrs: []schema.Attr{schema.Int("code", 503), schema.String("path", "/pay"), schema.Double("ms", 12.5), schema.Bool("hot", true), schema.String("text", "7")}},
		{Severity: 9, Body: "", EventName: "docker.container.die"},
		{Body: "Connection REFUSED", Attrs: []schema.Attr{schema.String(schema.AttrStream, "stderr"), schema.String("ms", "fast")}},
	}
	conditions := []string{
		`severity >= ERROR`, `severity < WARN and body != ""`, `body contains "refused"`, `body startsWith "conn" or body endsWith "db-1"`, `body matches "(?i)refused( by|$)"`, `app == "pay"`, `app in ["pay", "web"]`, `app not in ["pay"]`,
		`severity in [9, 17]`, `label("team") == "core"`, `label("nope") == ""`, `attr("path") == "/pay" && number("code") >= 500`, `number("ms") > 12`, `number("nope") > 0`, `number("nope") <= 0`, `number("nope") != 0`, `number("hot") == 1`, `number("text") == 7`,
		`attr("code") == "503"`, `attr("hot") == "true"`, `attr("ms") == "12.5"`, `not (severity > 9)`, `!(stream == "stderr")`, `event == "docker.container.die"`, `bytes > 10`, `true`, `len(body) > 3`, `lower(body) contains "refused"`, `body == "" ? app == "pay" : false`,
		`severity + 1 > 17`, `any(split(body, " "), # == "refused")`, `app + node == "payn1"`, `node == "n2" or severity >= 17`, `attr(app) == ""`, `severity > 1 and len(body) > 3 and app startsWith "p"`,
	}
	plain := 0
	for _, source := range conditions {
		c, err := condition(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		whole, err := text(source) // the machine runs what is not text
		if err != nil {
			t.Fatal(err)
		}
		if len(c.batch)+len(c.record) > 0 {
			plain++
		}
		v := &View{}
		v.SetBatch(batch)
		for i := range records {
			v.SetRecord(&records[i])
			got, want := c.Batch(v) && c.Record(v), whole.Get(v) == "true"
			if got != want {
				t.Errorf("%s on record %d: %t, the machine says %t", source, i, got, want)
			}
		}
	}
	if plain != len(conditions) {
		t.Errorf("%d of %d conditions have parts", plain, len(conditions))
	}
}

// TestConditionsOfTheResourceAreAskedOnce looks where the parts of a conjunction went.
func TestConditionsOfTheResourceAreAskedOnce(t *testing.T) {
	for source, want := range map[string]string{`app == "a"`: "1 0", `app == "a" and severity > 1 and label("x") != ""`: "2 1", `app == "a" or severity > 1`: "0 1", `attr("x") == ""`: "0 1", "": "0 0", `lower(app) == "a" and len(body) > 1`: "1 1"} {
		c, err := condition(source)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(len(c.batch), len(c.record)); got != want {
			t.Errorf("%s: %s parts, want %s", source, got, want)
		}
	}
}

func TestHolds(t *testing.T) {
	parse := func(when string) *Rule {
		all, err := Parse("f.yaml", []byte("rules:\n- {name: a, by: [app], total: severity > 0, of: body, when: '"+when+"', window: 10s}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	v := Values{Count: 20, Bytes: 300, Total: 80, Distinct: 4}
	for when, want := range map[string]float64{"count > 19": 20, "rate == 2": 2, "bytes >= 300": 300, "ratio == 0.25 and count > 3": 0.25, "distinct == 4": 4, "count > 3 and ratio < 0.5": 20} {
		if holds, value := parse(when).Holds(v); !holds || math.Abs(value-want) > 1e-12 {
			t.Errorf("%s: %t, value %g", when, holds, value)
		}
	}
	if holds, _ := parse("absent").Holds(v); holds {
		t.Error("absent holds where there is something")
	}
}

func TestTextsAreBounded(t *testing.T) {
	all, err := Parse("f.yaml", []byte("rules:\n- {name: a, by: [app], when: count > 1, window: 10s, annotations: {summary: '{{ $labels.app }}{{ $labels.app }}', note: '{{ $value }}'}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := signal.Signal{Value: 3, Start: 1, End: int64(time.Second)}
	all[0].Describe(&s, []string{strings.Repeat("x", 600)}, Values{})
	if len(s.Body) > textLimit || s.Attr(AnnotationPrefix+"note") != "3" {
		t.Errorf("body of %d bytes, note %q", len(s.Body), s.Attr(AnnotationPrefix+"note"))
	}
}

func TestWindows(t *testing.T) {
	all, err := Windows([]WindowSpec{{By: []string{"app"}, Window: time.Minute}, {By: []string{"site", "label.x-y"}, Window: time.Hour, Slide: 10 * time.Second}, {Window: 90 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"window_app_1m", "window_site_label_x_y_1h_by_10s", "window_90s"} {
		if all[i].Name != want {
			t.Errorf("window %d is called %s, want %s", i, all[i].Name, want)
		}
	}
	_, err = Windows([]WindowSpec{{By: []string{"attr.x"}, Window: time.Second}})
	for _, want := range []string{"windows[0]: ", "attr.x is not a field of a batch", "must be 10s to 1h"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v has no %q", err, want)
		}
	}
	if _, err := Windows([]WindowSpec{{By: []string{"app"}, Window: time.Minute}, {By: []string{"app"}, Window: time.Minute}}); err == nil {
		t.Error("the same window twice is taken")
	}
}
