//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"weir/schema"
)

// TestOneStory takes an app through a rename, a pause, a restart, and an upgrade in place to a new container of the same name.
func TestOneStory(t *testing.T) {
	e := newRig(t, "story")
	e.agent.start()
	app := func(c *container.Config, _ *container.HostConfig) { c.Labels = map[string]string{"weir.app": "shop"} }
	const lines = 3000
	name := e.node + "-web"
	call := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	old := e.container(t, name, app, fmt.Sprintf("LINES=%d", lines), "SECONDS=4", "EXIT=3")
	call(e.docker.ContainerPause(ctx, old, client.ContainerPauseOptions{}))
	call(e.docker.ContainerUnpause(ctx, old, client.ContainerUnpauseOptions{}))
	call(e.docker.ContainerRename(ctx, old, client.ContainerRenameOptions{NewName: name + "-old"}))
	wait(t, e, old)
	fresh := e.container(t, name, app, fmt.Sprintf("LINES=%d", lines), "SECONDS=3")
	wait(t, e, fresh)
	call(e.docker.ContainerRemove(ctx, old, client.ContainerRemoveOptions{}))
	time.Sleep(5 * time.Second)
	e.agent.stop()
	logs, events := readTopic(t, e.k, schema.TopicLogs, e.node), readTopic(t, e.k, schema.TopicEvents, e.node)
	byID := map[string]int{}
	for id, numbers := range logs.byID {
		byID[id] = len(numbers)
	}
	if byID[old] != lines || byID[fresh] != lines || logs.repeated > lines || logs.losses > 0 {
		t.Errorf("of %d lines each came %v, and %d loss records", lines, byID, logs.losses)
	}
	for container, apps := range logs.apps {
		if len(apps) != 1 || !apps["shop"] {
			t.Errorf("lines of %s bear the apps %v", container, apps)
		}
	}
	if events.exits[name+"-old"] != 3 || events.exits[name] != 0 {
		t.Errorf("exit codes: %v", events.exits)
	}
	for _, want := range []string{"docker.container.create", "docker.container.start", "docker.container.pause", "docker.container.unpause"} {
		if n := times(events.events[name], want); n == 0 {
			t.Errorf("%s was not told: %v", want, events.events)
		}
	}
	if times(events.events[name+"-old"], "docker.container.rename") != 1 || times(events.events[name+"-old"], "docker.container.destroy") != 1 {
		t.Errorf("events of the old container: %v", events.events[name+"-old"])
	}
	fmt.Printf("RESULT story written=%d delivered=%d loss_records=%d\n", 2*lines, byID[old]+byID[fresh], logs.losses)
}

func times(all []string, one string) (n int) {
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

// TestEngineTrouble has more events pass than the engine remembers while the agent is down, and then the engine killed with -9 under
// a container that it starts again.
func TestEngineTrouble(t *testing.T) {
	e := newRig(t, "trouble")
	e.agent.start()
	ctx := t.Context()
	const lines = 2000
	first := e.container(t, e.node+"-first", nil, fmt.Sprintf("LINES=%d", lines), "SECONDS=1")
	wait(t, e, first)
	time.Sleep(3 * time.Second)
	e.agent.stop()
	for i := range 150 { // two events each; the engine remembers 256
		name := fmt.Sprintf("%s-%d", e.node, i)
		if _, err := e.docker.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.docker.VolumeRemove(ctx, name, client.VolumeRemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	unseen := e.container(t, e.node+"-unseen", nil, fmt.Sprintf("LINES=%d", lines), "SECONDS=1")
	wait(t, e, unseen)
	e.agent.start()
	again := e.container(t, e.node+"-again", func(_ *container.Config, h *container.HostConfig) {
		h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyAlways}
	}, "LINES=100000", "SECONDS=1000", "WAIT=1")
	time.Sleep(5 * time.Second)
	e.stack(t, "kill", "docker")
	time.Sleep(2 * time.Second)
	e.stack(t, "start", "docker")
	await(t, time.Minute, "the container's second run", func() bool { return len(runs(t, e, again)) > 1 })
	time.Sleep(3 * time.Second)
	if _, err := e.docker.ContainerKill(ctx, again, client.ContainerKillOptions{Signal: "SIGKILL"}); err != nil {
		t.Fatal(err)
	}
	written := runs(t, e, again)
	time.Sleep(5 * time.Second)
	e.agent.stop()
	logs, events := readTopic(t, e.k, schema.TopicLogs, e.node), readTopic(t, e.k, schema.TopicEvents, e.node)
	gaps := times(events.events[""], schema.EventGapOpened)
	fmt.Printf("RESULT engine-trouble written=%d delivered=%d gaps=%d loss_records=%d\n", 2*lines+sum(written), len(logs.byID[first])+len(logs.byID[unseen])+logs.runs(again), gaps, logs.losses)
	if len(logs.byID[first]) != lines || len(logs.byID[unseen]) != lines || logs.losses > 0 {
		t.Errorf("of %d lines each came %d and %d, and %d loss records", lines, len(logs.byID[first]), len(logs.byID[unseen]), logs.losses)
	}
	if gaps < 1 || gaps > 2 { // the engine's own restart is another
		t.Errorf("%d gaps in the events were told: %v", gaps, events.events[""])
	}
	for run, n := range written {
		if got := logs.byRun[again][run]; got != n {
			t.Errorf("of run %s %d lines of %d came", run, got, n)
		}
	}
	if !slices.Contains(events.events[e.node+"-again"], "docker.container.start") {
		t.Errorf("the second start was not told: %v", events.events[e.node+"-again"])
	}
}

func sum(runs map[string]int) (n int) {
	for _, lines := range runs {
		n += lines
	}
	return n
}

var lineOfRun = regexp.MustCompile(`(?m)^n=\d+ run=(\d+) `)

// runs counts a container's lines by run, as the engine itself shows them.
func runs(t *testing.T, e *rig, id string) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	logs, err := e.docker.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return nil // the engine is not ready yet
	}
	defer logs.Close()
	var out, errs bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errs, logs); err != nil && err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, stream := range [][]byte{out.Bytes(), errs.Bytes()} {
		for _, m := range lineOfRun.FindAllSubmatch(stream, -1) {
			all[string(m[1])]++
		}
	}
	return all
}
