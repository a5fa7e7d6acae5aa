//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"weir/schema"
)

// TestKafkaAway has containers rotate and delete their logs, one be removed and one be started while Kafka does not answer.
// Within the disk budget nothing is lost.
func TestKafkaAway(t *testing.T) {
	e := newRig(t, "away")
	rotating := func(_ *container.Config, h *container.HostConfig) {
		h.LogConfig.Config = map[string]string{"max-size": "200k", "max-file": "2"}
	}
	e.agent.start()
	const lines = 15_000
	written := 0
	start := func(name string) (id string) {
		written += lines
		return e.container(t, e.node+"-"+name, rotating, fmt.Sprintf("LINES=%d", lines), "SECONDS=20")
	}
	start("stays")
	removed := start("removed")
	time.Sleep(3 * time.Second)
	e.stack(t, "pause", "kafka")
	resumed := false
	defer func() {
		if !resumed {
			e.stack(t, "resume", "kafka")
		}
	}()
	start("new")
	wait(t, e, removed)
	if _, err := e.docker.ContainerRemove(t.Context(), removed, client.ContainerRemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Second)
	e.stack(t, "resume", "kafka")
	resumed = true
	time.Sleep(15 * time.Second)
	e.agent.stop()
	logs := readTopic(t, e.k, schema.TopicLogs, e.node)
	fmt.Printf("RESULT kafka-away written=%d delivered=%d loss_records=%d\n", written, logs.unique(), logs.losses)
	if logs.unique() != written || logs.losses > 0 {
		t.Errorf("%d of %d lines, and %d loss records", logs.unique(), written, logs.losses)
	}
}

// TestDiskBudget has a noisy and a quiet container while Kafka does not answer for longer than the disk budget lasts: what is missing
// is the noisy one's, and the loss records tell it to the line.
func TestDiskBudget(t *testing.T) {
	e := newRig(t, "budget", "disk_bytes: 1000000")
	rotating := func(_ *container.Config, h *container.HostConfig) {
		h.LogConfig.Config = map[string]string{"max-size": "200k", "max-file": "2"}
	}
	e.agent.start()
	time.Sleep(2 * time.Second)
	e.stack(t, "pause", "kafka")
	const noisy, quiet = 20_000, 1_500
	loud := e.container(t, e.node+"-noisy", rotating, fmt.Sprintf("LINES=%d", noisy), "SECONDS=15")
	e.container(t, e.node+"-quiet", rotating, fmt.Sprintf("LINES=%d", quiet), "SECONDS=15")
	wait(t, e, loud)
	time.Sleep(2 * time.Second)
	e.stack(t, "resume", "kafka")
	time.Sleep(15 * time.Second)
	e.agent.stop()
	logs := readTopic(t, e.k, schema.TopicLogs, e.node)
	got, kept := len(logs.numbers[e.node+"-noisy"]), len(logs.numbers[e.node+"-quiet"])
	fmt.Printf("RESULT disk-budget noisy_written=%d noisy_delivered=%d loss_records=%d quiet_written=%d quiet_delivered=%d\n", noisy, got, logs.losses, quiet, kept)
	if kept != quiet || logs.lostBy[e.node+"-quiet"] > 0 {
		t.Errorf("of the quiet container %d of %d lines came", kept, quiet)
	}
	if got == noisy || logs.lostBy[e.node+"-noisy"] == 0 || logs.lostBytes[e.node+"-noisy"] == 0 {
		t.Errorf("of the noisy container %d of %d lines came, with %d loss records of %d bytes", got, noisy, logs.lostBy[e.node+"-noisy"], logs.lostBytes[e.node+"-noisy"])
	}
	// A line of the writer is 200 bytes, and some 90 more in the log; each 500th is long.
	missing := int64(noisy-got) * 375
	if lost := logs.lostBytes[e.node+"-noisy"]; lost < missing*8/10 || lost > missing*12/10 {
		t.Errorf("%d lines are missing, about %d bytes; the loss records tell of %d bytes", noisy-got, missing, lost)
	}
}

// wait returns when a container has ended.
func wait(t *testing.T, e *rig, id string) {
	t.Helper()
	res := e.docker.ContainerWait(t.Context(), id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case <-res.Result:
	case err := <-res.Error:
		t.Fatal(err)
	case <-time.After(2 * time.Minute):
		t.Fatalf("container %s does not end", strings.TrimSpace(id[:12]))
	}
}
