package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", "rules:\n- {name: many, by: [attr.user], when: count > 1, window: 10s}\n")
	bad := write("bad.yaml", "rules:\n- name: wrong\n  where: severty > 3\n  when: count > 1\n  window: 1m\n")
	pass := write("pass_test.yaml", "rules: [good.yaml]\ntests:\n- name: two\n  input: [{at: 1s, times: 2, every: 1s, attrs: {user: eve}}]\n  until: 10s\n  expect: [{at: 10s, rule: many, value: 2}]\n")
	fail := write("fail_test.yaml", "rules: [good.yaml]\ntests:\n- name: two\n  input: [{at: 1s, attrs: {user: eve}}]\n  until: 10s\n  expect: [{at: 10s, rule: many, value: 2}]\n")
	archive := "file://" + filepath.Join(dir, "archive")
	writeArchive(t, archive)
	timeouts := write("timeouts.yaml", "rules:\n- {name: timeouts, where: body contains \"timed out\", by: [app], when: count > 0, window: 5m, annotations: {summary: \"{{ .Labels.app }}: {{ .Count }}\"}}\n- {name: deaths, from: events, where: event == \"docker.container.die\", when: count > 0, window: 1m}\n")
	span := []string{"--archive", archive, "--from", "2026-11-20T10:00:00Z", "--to", "2026-11-20T10:30:00Z"}
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"check", good}, 0, []string{"1 rules are good", "rule many: nothing bounds the values of attr.user: at most 10000 groups"}},
		{[]string{"check", dir}, 1, []string{"bad.yaml:3:10: rule \"wrong\": where: unknown name severty"}},
		{[]string{"check", filepath.Join(dir, "none.yaml")}, 1, []string{"there is none"}},
		{[]string{"check", bad}, 1, []string{"bad.yaml:3:10"}},
		{[]string{"check"}, 1, []string{"no rule files"}},
		{[]string{"test", pass}, 0, []string{"1 tests passed"}},
		{[]string{"test", pass, fail}, 1, []string{"fail_test.yaml:6: test \"two\": many at 10s was expected", "1 differences in 2 tests"}},
		{append([]string{"replay", timeouts}, span...), 0, []string{"2026-11-20 10:05:00  firing    timeouts  shop: 1", "2026-11-20 10:05:00  firing    timeouts  bank: 2", "2026-11-20 10:30:00  resolved  timeouts  bank: 0", "2026-11-20 10:01:00  firing    deaths", "     2 times  timeouts", "     1 times  deaths"}},
		{append([]string{"replay", "--json", "--app", "shop", timeouts}, span...), 0, []string{`"rule":"timeouts","state":"firing","summary":"shop: 1"`}},
		{[]string{"replay", timeouts, "--archive", archive, "--from", "2026-11-21T10:00:00Z", "--to", "2026-11-20T10:30:00Z"}, 1, []string{"--from: is not before --to"}},
	} {
		var out, errs strings.Builder
		code := Main(append([]string{"rules"}, c.args...), &out, &errs)
		all := out.String() + errs.String()
		for _, want := range c.want {
			if code != c.code || !strings.Contains(all, want) {
				t.Errorf("%v: code %d, no %q in\n%s", c.args, code, want, all)
			}
		}
	}
}
