package cli

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"weir/internal/config"
)

// TestPageSearch asks as the status page does.
func TestPageSearch(t *testing.T) {
	_, open := endless(t, evil)
	cfg, err := config.Load("", os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRuntime(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	hits, notes, err := r.search(t.Context(), "mesage: x", "1h", 150)
	if err != nil || len(hits) != 150 || hits[0].Level != "ERROR" || hits[0].Time != "2026-11-25T12:00:00.5Z" || len(notes) != 1 || !strings.Contains(notes[0], "near to it: message") {
		t.Errorf("%v: %d hits, notes %q", err, len(hits), notes)
	}
	if _, notes, err := r.search(t.Context(), "message: broken", "1h", 10); err != nil || !strings.Contains(strings.Join(notes, " "), "not complete") {
		t.Errorf("shards that do not answer: %v, %q", err, notes)
	}
	if _, _, err := r.search(t.Context(), "", "soon", 10); err == nil || !strings.Contains(err.Error(), "since: ") {
		t.Errorf("%v", err)
	}
	if n := open.Load(); n != 0 {
		t.Errorf("%d points in time are left open", n)
	}
}
