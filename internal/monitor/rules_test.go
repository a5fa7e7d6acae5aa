package monitor

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const rulesFile = "../../deployments/prometheus/weir.rules.yml"

type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

func readRules(t *testing.T) (all []rule) {
	t.Helper()
	b, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

var listed = regexp.MustCompile("(?m)^\\| `(weir_[a-z0-9_]+)` \\| ([a-z]+) \\| (.*?) \\|")

// known are the metrics of docs/metrics.md, with the series that a histogram has, and what the rules record; each with its labels, where those are known.
func known(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{}
	for _, m := range listed.FindAllStringSubmatch(string(b), -1) {
		labels := []string{"job", "instance"}
		for _, l := range strings.Split(m[3], ", ") {
			labels = append(labels, strings.Trim(l, "`"))
		}
		if m[2] == "histogram" {
			names[m[1]+"_bucket"], names[m[1]+"_sum"], names[m[1]+"_count"] = append(labels, "le"), labels, labels
		} else {
			names[m[1]] = labels
		}
	}
	if len(names) < 40 {
		t.Fatalf("only %d metrics were found in docs/metrics.md", len(names))
	}
	if names["weir_control_decisions_total"] == nil { // breakers are the decider's: without it there are none to open
		names["weir_control_breakers_open"] = nil
	}
	for _, r := range readRules(t) {
		if r.Record != "" {
			names[r.Record] = nil
		}
	}
	return names
}

var (
	used     = regexp.MustCompile(`\bweir[_:][a-z0-9_:]+`)
	selector = regexp.MustCompile(`\b(weir_[a-z0-9_]+)\{([^}]*)\}`)
	labelled = regexp.MustCompile(`([a-z_]+)\s*[!=]`)
)

// checkExpr wants every metric of an expression to be there, with the labels that are asked for.
func checkExpr(t *testing.T, where, expr string, names map[string][]string) {
	t.Helper()
	for _, name := range used.FindAllString(expr, -1) {
		if _, ok := names[name]; !ok {
			t.Errorf("%s: %s is not in docs/metrics.md, nor recorded", where, name)
		}
	}
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		for _, l := range labelled.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(names[m[1]], l[1]) {
				t.Errorf("%s: %s has no label %s", where, m[1], l[1])
			}
		}
	}
}

func TestRules(t *testing.T) {
	names := known(t)
	operate, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("../../deployments/prometheus/weir.rules.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, r := range readRules(t) {
		checkExpr(t, r.Record+r.Alert, r.Expr, names)
		if r.Alert == "" {
			continue
		}
		alerts = append(alerts, r.Alert)
		if want := "docs/operate.md#" + strings.ToLower(r.Alert); r.Annotations["runbook"] != want {
			t.Errorf("%s: its runbook is %q, want %q", r.Alert, r.Annotations["runbook"], want)
		}
		if !strings.Contains(string(operate), "\n### "+r.Alert+"\n\n") {
			t.Errorf("docs/operate.md does not say what to do about %s", r.Alert)
		}
		if s := r.Labels["severity"]; s != "warning" && s != "critical" || r.Annotations["summary"] == "" {
			t.Errorf("%s: severity %q, summary %q", r.Alert, s, r.Annotations["summary"])
		}
		if !regexp.MustCompile(`alertname: ` + r.Alert + `\n\s+exp_alerts:`).Match(tests) {
			t.Errorf("no test sees %s fire", r.Alert)
		}
		if !strings.Contains(string(tests), "alertname: "+r.Alert+"}") {
			t.Errorf("no test sees %s silent", r.Alert)
		}
	}
	_, section, _ := strings.Cut(string(operate), "\n## Alerts\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(section, -1) {
		if !slices.Contains(alerts, m[1]) {
			t.Errorf("docs/operate.md speaks of %s, which is no alert", m[1])
		}
	}
}
