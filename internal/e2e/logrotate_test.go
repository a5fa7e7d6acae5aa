//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/agent"
	"weir/schema"
)

// TestLogrotate follows two plain files that Debian's logrotate rotates, one by renaming and one by copytruncate, both with packing of the older
// ones, while the agent is killed twice, and then while Kafka does not answer, until logrotate has deleted most of what was not read. Every line is in
// Kafka once. Nothing is written while logrotate copies and truncates: what is written between the two is gone, whoever reads the file.
func TestLogrotate(t *testing.T) {
	const logrotate, lines, rounds = "/usr/sbin/logrotate", 45_000, 45
	if _, err := os.Stat(logrotate); err != nil {
		t.Fatalf("%v: install logrotate", err)
	}
	dir := t.TempDir()
	e := newRig(t, "logrotate", "docker_host: none", "files:", fmt.Sprintf("- paths: [\"%s/*/app.log*\"]", dir))
	conf, files := "", map[string]*os.File{}
	for mode, option := range map[string]string{"renamed": "create 0640", "copied": "copytruncate"} {
		path := filepath.Join(dir, mode, "app.log")
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		conf += fmt.Sprintf("%s {\n rotate 8\n compress\n delaycompress\n %s\n}\n", path, option)
		files[mode] = open(t, path)
	}
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	write := func(count int) {
		for range count {
			for _, f := range files {
				if _, err := fmt.Fprintf(f, "%s n=%d %s\n", time.Now().Format(time.RFC3339Nano), n, strings.Repeat("abcdefghij", n%180)); err != nil {
					t.Fatal(err)
				}
			}
			n++
		}
	}
	e.agent.start()
	defer e.stack(t, "resume", "kafka")
	for round := range rounds {
		write(lines/rounds - 50)
		switch round {
		case 5, 12:
			e.agent.kill()
		case 7, 13:
			e.agent.start()
		case 14:
			e.stack(t, "pause", "kafka")
		}
		run(t, dir, nil, logrotate, "--force", "--state", filepath.Join(dir, "state"), filepath.Join(dir, "conf"))
		write(50) // the renamed file is written to until its writer is told
		_ = files["renamed"].Close()
		files["renamed"] = open(t, filepath.Join(dir, "renamed", "app.log"))
		time.Sleep(500 * time.Millisecond)
	}
	all, err := agent.AskStatus(t.Context(), e.state)
	if err != nil {
		t.Fatal(err)
	}
	const kept = 9 * lines / rounds * 960 // the bytes of a log that logrotate leaves there
	for _, s := range all {
		if s.UnreadBytes < kept*3/2 {
			t.Errorf("%s: only %d bytes wait for Kafka; logrotate keeps %d", s.Source, s.UnreadBytes, kept)
		}
		fmt.Printf("RESULT logrotate source=%s waiting_bytes=%d on_disk_at_most=%d\n", filepath.Base(filepath.Dir(s.Source)), s.UnreadBytes, kept)
	}
	e.stack(t, "resume", "kafka")
	read := func() bool {
		all, err := agent.AskStatus(t.Context(), e.state)
		if err != nil || len(all) != len(files) {
			return false
		}
		for _, s := range all {
			if s.Lines < lines || s.Position != s.Acked {
				return false
			}
		}
		return true
	}
	for deadline := time.Now().Add(2 * time.Minute); !read(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			all, err := agent.AskStatus(t.Context(), e.state)
			t.Errorf("the logs are not read to their end: %+v, %v", all, err)
			break
		}
	}
	e.agent.stop()

	ids, counts, repeated, losses := map[string]bool{}, map[string]map[int]int{}, 0, 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	idle := time.AfterFunc(5*time.Second, cancel)
	err = e.k.Tail(ctx, []string{schema.TopicLogs}, true, func(b *schema.Batch) error {
		idle.Reset(3 * time.Second)
		if host, _ := b.ResourceAttr(schema.AttrHostName); host.Str != e.node {
			return nil
		}
		path, _ := b.ResourceAttr(schema.AttrFilePath)
		mode := filepath.Base(filepath.Dir(path.Str))
		if counts[mode] == nil {
			counts[mode] = map[int]int{}
		}
		for i := range b.Records {
			r, id := &b.Records[i], b.ID(&b.Records[i])
			if ids[id] { // consumers drop it
				repeated++
				continue
			}
			ids[id] = true
			var n int
			if _, err := fmt.Sscanf(r.Body[strings.IndexByte(r.Body, ' ')+1:], "n=%d ", &n); r.EventName == "" && err == nil {
				counts[mode][n]++
			} else {
				losses++
				t.Errorf("%s: %s %.200q", mode, r.EventName, r.Body)
			}
		}
		return nil
	}, func(err error) { t.Error(err) })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for mode := range files {
		missing, twice := 0, 0
		for i := range lines {
			switch counts[mode][i] {
			case 0:
				missing++
			case 1:
			default:
				twice++
			}
		}
		fmt.Printf("RESULT logrotate mode=%s written=%d delivered=%d missing=%d twice=%d\n", mode, lines, len(counts[mode]), missing, twice)
		if missing > 0 || twice > 0 {
			t.Errorf("%s: %d lines are missing, %d are there twice", mode, missing, twice)
		}
	}
	fmt.Printf("RESULT logrotate repeated=%d other=%d\n", repeated, losses)
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
