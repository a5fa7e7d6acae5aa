package agent

import (
	"strings"
	"testing"
	"time"
)

func TestStatus(t *testing.T) {
	f := setup(t)
	f.log.write("stdout", "one\n")
	f.log.write("stdout", "two\n")
	stop := f.start()
	var got []SourceStatus
	f.await("a quiet source", func() bool {
		got, _ = AskStatus(t.Context(), f.cfg.StateDir)
		return len(got) == 1 && got[0].State == stateQuiet
	})
	if s := got[0]; s.Source != "docker/n1/c1" || s.App != "shop" || s.Lines != 2 || s.UnreadBytes != 0 || s.Position != s.Acked || time.Since(s.LastLine) > time.Minute {
		t.Errorf("%+v", s)
	}
	stop()
	if _, err := AskStatus(t.Context(), f.cfg.StateDir); err == nil || !strings.Contains(err.Error(), "no agent answers at") {
		t.Errorf("a stopped agent: %v", err)
	}
}

// TestStatusWhileKafkaIsAway wants an answer from an agent whose reading waits.
func TestStatusWhileKafkaIsAway(t *testing.T) {
	f := setup(t)
	for range 2000 {
		f.log.write("stdout", strings.Repeat("x", 300)+"\n")
	}
	f.out.away.Store(true)
	stop := f.start()
	f.await("a source that is held back", func() bool {
		all, err := AskStatus(t.Context(), f.cfg.StateDir)
		return err == nil && len(all) == 1 && all[0].Acked == "0-00000000:0" && all[0].State == stateHeld && all[0].UnreadBytes > 0
	})
	stop()
}
