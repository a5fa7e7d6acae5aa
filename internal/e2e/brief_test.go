//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"weir/schema"
)

// TestBriefContainers runs containers that write at once, end, and are removed by the engine itself (--rm), one with a
// single log file that is unlinked when it is full. Every line is collected, or a loss record says that it is not.
func TestBriefContainers(t *testing.T) {
	e := newRig(t, "brief")
	e.agent.start()
	time.Sleep(2 * time.Second)
	const n, each = 30, 50
	start := func(name string, log map[string]string, env ...string) {
		t.Helper()
		e.container(t, name, func(_ *container.Config, h *container.HostConfig) {
			h.AutoRemove, h.LogConfig.Config = true, log
		}, env...)
	}
	// A log of one file is unlinked when it is full, and begun anew: about thirty times here.
	const unlinked = 20_000
	start(e.node+"-unlinked", map[string]string{"max-size": "200k", "max-file": "1"}, fmt.Sprintf("LINES=%d", unlinked), "SECONDS=10")
	for i := range n {
		start(fmt.Sprintf("%s-%d", e.node, i), map[string]string{"max-size": "1m", "max-file": "3"}, fmt.Sprintf("LINES=%d", each), "SECONDS=0")
	}
	time.Sleep(15 * time.Second)
	e.agent.stop()
	logs := readTopic(t, e.k, schema.TopicLogs, e.node)
	explained := 0
	check := func(name string, want int) {
		if got := len(logs.numbers[name]); got != want && logs.lostBy[name] == 0 {
			t.Errorf("%s: %d lines of %d, and no loss record", name, got, want)
		} else if got != want {
			explained += want - got
		}
	}
	check(e.node+"-unlinked", unlinked)
	for i := range n {
		check(fmt.Sprintf("%s-%d", e.node, i), each)
	}
	written := n*each + unlinked
	fmt.Printf("RESULT brief containers=%d written=%d delivered=%d in_loss_records=%d repeated=%d\n", n+1, written, logs.unique(), explained, logs.repeated)
	if logs.unique() < written*8/10 {
		t.Errorf("only %d of %d lines were collected", logs.unique(), written)
	}
}
