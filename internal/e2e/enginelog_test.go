//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"weir/schema"
)

// TestEngineLog has containers of the driver local, whose files only the engine reads: one ends, one is restarted on the way, one
// has a terminal; and one of the driver journald. Their logs rotate; some lines are over 16 KiB; the agent is killed twice. What the engine has of
// them at the end is what Kafka has, each line once.
func TestEngineLog(t *testing.T) {
	e := newRig(t, "enginelog")
	kinds := []string{"plain", "terminal", "restarted"}
	if startJournald(t) {
		kinds = append(kinds, "journald")
	}
	const each = 5000
	call := func(f func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := f(ctx); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(ctx context.Context, id string) error {
		_, err := e.docker.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
		return err
	}
	ids := map[string]string{}
	start := func(kind string, tty bool, log container.LogConfig) {
		t.Helper()
		name := e.node + "-" + kind
		call(func(ctx context.Context) error {
			c, err := e.docker.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Config: &container.Config{Image: "weir-e2e-writer:latest", Tty: tty, Env: []string{fmt.Sprintf("LINES=%d", each), "SECONDS=20"}},
				HostConfig: &container.HostConfig{NetworkMode: "none", LogConfig: log}})
			if err != nil {
				return err
			}
			ids[kind] = c.ID
			t.Cleanup(func() { _ = remove(context.Background(), c.ID) })
			_, err = e.docker.ContainerStart(ctx, c.ID, client.ContainerStartOptions{})
			return err
		})
	}
	local := container.LogConfig{Type: "local", Config: map[string]string{"max-size": "200k", "max-file": "50"}}
	start("plain", false, local)
	e.agent.start()
	start("restarted", false, local)
	start("terminal", true, local)
	if slices.Contains(kinds, "journald") {
		start("journald", false, container.LogConfig{Type: "journald"})
	}
	start("unreadable", false, container.LogConfig{Type: "none"})
	for range 2 {
		time.Sleep(5 * time.Second)
		e.agent.kill()
		time.Sleep(time.Second)
		e.agent.start()
	}
	none := 0
	call(func(ctx context.Context) error {
		_, err := e.docker.ContainerRestart(ctx, ids["restarted"], client.ContainerRestartOptions{Timeout: &none})
		return err
	})
	for _, kind := range kinds {
		for running := true; running; time.Sleep(200 * time.Millisecond) {
			call(func(ctx context.Context) error {
				c, err := e.docker.ContainerInspect(ctx, ids[kind], client.ContainerInspectOptions{})
				running = err == nil && c.Container.State.Running
				return err
			})
		}
	}
	time.Sleep(5 * time.Second)
	wrote, size := map[string]map[string]int{}, map[string]int{}
	for _, kind := range kinds {
		call(func(ctx context.Context) error {
			var err error
			wrote[kind], size[kind], err = engineHas(ctx, e.docker, ids[kind], kind == "terminal")
			return err
		})
		call(func(ctx context.Context) error { return remove(ctx, ids[kind]) })
	}
	time.Sleep(3 * time.Second)
	e.agent.stop()

	got, repeated, losses, closed := map[string]map[string]int{}, 0, 0, 0
	seen, bytes := map[string]bool{}, map[string]int{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	idle := time.AfterFunc(5*time.Second, cancel)
	err := e.k.Tail(ctx, []string{schema.TopicLogs}, true, func(b *schema.Batch) error {
		idle.Reset(3 * time.Second)
		a, _ := b.ResourceAttr(schema.AttrContainerName)
		kind, ours := strings.CutPrefix(strings.Clone(a.Str), e.node+"-")
		for i := range b.Records {
			r := &b.Records[i]
			switch id := b.ID(r); {
			case !ours:
			case seen[id]:
				repeated++
			case r.EventName == schema.EventLoss:
				losses++
			case r.EventName == schema.EventSourceClosed:
				closed++
			default:
				if kind != "terminal" && !whole(r.Body) { // on a terminal the writer's two streams tear each other's lines
					t.Errorf("%s: not a line as it was written: %.80q, %d bytes", kind, r.Body, len(r.Body))
				}
				if got[kind] == nil {
					got[kind] = map[string]int{}
				}
				for _, line := range runLine.FindAllString(r.Body, -1) {
					got[kind][line]++
				}
				bytes[kind] += len(strings.TrimSuffix(r.Body, "\r"))
			}
			seen[b.ID(r)] = true
		}
		return nil
	}, func(err error) { t.Error(err) })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	written, unique, twice := 0, 0, 0
	for kind, lines := range wrote {
		if bytes[kind] != size[kind] {
			t.Errorf("%s: %d bytes in Kafka, %d in the engine", kind, bytes[kind], size[kind])
		}
		if written += len(lines); len(lines) < each {
			t.Errorf("%s: the engine has only %d lines", kind, len(lines))
		}
		for line := range lines {
			switch n := got[kind][line]; {
			case n == 0:
				t.Errorf("%s: %s is not in Kafka", kind, line)
			default:
				unique++
				twice += n - 1
			}
		}
	}
	fmt.Printf("RESULT enginelog written=%d kafka_unique=%d kafka_twice=%d repeats_by_id=%d losses=%d closed=%d\n", written, unique, twice, repeated, losses, closed)
	if twice != 0 || losses != 0 || closed != len(kinds) || len(got) != len(kinds) {
		t.Errorf("want no line twice, no loss record, %d closed sources, and nothing of the container without a log: %d sources", len(kinds), len(got))
	}
}

// startJournald has the host's journal run, unless it does already; it is not everywhere, and without root it cannot be started.
func startJournald(t *testing.T) bool {
	const binary, socket, limits = "/lib/systemd/systemd-journald", "/run/systemd/journal/socket", "/run/systemd/journald.conf.d/weir-e2e.conf"
	listens := func() bool {
		c, err := net.Dial("unixgram", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if listens() {
		return true
	}
	if _, err := os.Stat(binary); err != nil || os.Getuid() != 0 {
		t.Log("the driver journald is not tested: there is no systemd-journald to start, or no right to")
		return false
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(limits), 0o755), os.WriteFile(limits, []byte("[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nForwardToSyslog=no\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait(); _ = os.Remove(limits) })
	for deadline := time.Now().Add(10 * time.Second); !listens(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen on %s", binary, socket)
		}
	}
	return true
}

var runLine = regexp.MustCompile(`n=\d+ run=\d+ `)

// engineHas counts the lines that the engine has of a container, and their bytes without line ends. It gives long lines of the driver local without their newlines.
func engineHas(ctx context.Context, docker *client.Client, id string, tty bool) (lines map[string]int, size int, err error) {
	r, err := docker.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	var out, errs strings.Builder
	if tty {
		_, err = io.Copy(&out, r)
	} else {
		_, err = stdcopy.StdCopy(&out, &errs, r)
	}
	lines = map[string]int{}
	for _, text := range []string{out.String(), errs.String()} {
		for _, line := range runLine.FindAllString(text, -1) {
			lines[line]++
		}
		size += len(strings.NewReplacer("\r", "", "\n", "").Replace(text))
	}
	return lines, size, err
}
