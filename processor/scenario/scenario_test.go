package scenario

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weir/internal/strict"
	"weir/processor/rules"
)

// TestDocumentedExamples runs every example of docs/rules.md: the tests of a section are of the rules above them.
func TestDocumentedExamples(t *testing.T) {
	b, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	var loaded []*rules.Rule
	ruleBlocks, tests := 0, 0
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(b), -1) {
		if strings.HasPrefix(m[1], "rules:") {
			ruleBlocks++
			if loaded, err = rules.Parse("docs/rules.md", []byte(m[1])); err != nil {
				t.Error(err)
			}
			continue
		}
		var f File
		if err := strict.Decode("docs/rules.md", []byte(m[1]), &f); err != nil {
			t.Fatal(err)
		}
		for i := range f.Tests {
			tests++
			for _, err := range f.Tests[i].Run("docs/rules.md", loaded) {
				t.Error(err)
			}
		}
		loaded = nil
	}
	if ruleBlocks < 6 || tests < 7 {
		t.Errorf("only %d examples and %d tests were found", ruleBlocks, tests)
	}
}

func TestStarterRules(t *testing.T) {
	n, failed, err := Run("../../deployments/rules/containers_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range failed {
		t.Error(err)
	}
	if n < 10 {
		t.Errorf("only %d tests", n)
	}
}

func TestRunSaysWhatDiffers(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("r.yaml", "rules:\n- {name: any, by: [app], when: count > 0, window: 10s}\n")
	for want, text := range map[string]string{
		"expected; the nearest differs in value: 2":                    "tests:\n- name: x\n  input: [{at: 1s, app: a, every: 1s, times: 2}]\n  until: 10s\n  expect: [{at: 10s, rule: any, value: 3}]",
		"not expected: rule any, group app=a, firing at 10s, value 1:": "tests:\n- name: x\n  input: [{at: 1s, app: a}]\n  until: 10s\n  expect: []",
		"any at 20s was expected; no signal":                           "tests:\n- name: x\n  until: 10s\n  expect: [{at: 20s, rule: any}]",
		`level: "loud" is not one of`:                                  "tests:\n- name: x\n  input: [{at: 1s, level: loud}]",
		"times needs every":                                            "tests:\n- name: x\n  input: [{at: 1s, times: 2}]",
		"more than 1000000 records":                                    "tests:\n- name: x\n  input: [{every: 1s, times: 2000000}]",
	} {
		_, failed, err := Run(write("x_test.yaml", "rules: [r.yaml]\n"+text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, err := range failed {
			found = found || strings.Contains(err.Error(), want)
		}
		if !found {
			t.Errorf("no failure has %q: %v", want, failed)
		}
	}
	if _, _, err := Run(write("bad_test.yaml", "rules: [r.yaml]\ntests:\n- name: x\n  inputs: []\n")); err == nil || !strings.Contains(err.Error(), `bad_test.yaml:4: there is no key "inputs" here`) {
		t.Errorf("an unknown key: %v", err)
	}
}
