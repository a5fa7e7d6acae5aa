package cli

import (
	"strings"
	"testing"
)

// TestSimulateOnArchive takes an archive's deaths through a policy.
func TestSimulateOnArchive(t *testing.T) {
	root := "file://" + t.TempDir()
	writeArchive(t, root)
	policies := writeConfig(t, "policies:\n- {name: heal, mode: act, on: [{event: docker.container.die}], steps: [{action: restart}]}\n")
	simulate := func(args ...string) (string, string) {
		t.Helper()
		exit, out, errs := weir(append([]string{"control", "simulate", policies, "--archive", root}, args...)...)
		if exit != 0 {
			t.Fatalf("exit %d: %s", exit, errs)
		}
		return out, errs
	}
	out, errs := simulate("--from", "2026-11-20T00:00:00Z", "--to", "2026-11-21T00:00:00Z")
	if !strings.Contains(out, "2026-11-20 ") || !strings.Contains(out, "subject_unknown") || !strings.Contains(errs, ": 1 refused") { // the events do not name their node
		t.Errorf("%s%s", out, errs)
	}
	if out, _ := simulate("--from", "2026-11-21T00:00:00Z", "--to", "2026-11-22T00:00:00Z"); out != "" {
		t.Errorf("another day: %s", out)
	}
}
