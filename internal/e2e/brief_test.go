//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"weir/ingest"
	"weir/schema"
)

// TestBriefContainers runs containers that write at once, end, and are removed by the engine itself (--rm), some with a
// single log file that is unlinked when it is full. Every line is collected, or a loss record says that it is not.
func TestBriefContainers(t *testing.T) {
	s := need(t)
	brokers := strings.Split(s.kafka, ",")
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	kcfg := ingest.DefaultKafkaConfig()
	kcfg.Brokers = brokers
	k, err := ingest.NewKafka(kcfg)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	freshTopics(t, k, brokers)
	binary, config := filepath.Join(work, "weir"), filepath.Join(work, "weir.yaml")
	run(t, repository, nil, "go", "build", "-o", binary, "./cmd/weir")
	node := "brief-" + time.Now().Format("150405")
	if err := os.WriteFile(config, fmt.Appendf(nil, "kafka:\n  brokers: [%s]\nagent:\n  node: %s\n  state_dir: %s\nhttp:\n  listen: \"\"\n", s.kafka, node, filepath.Join(work, "state")), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, repository, nil, binary, "topics", "apply", "--config", config)
	buildImage(t, repository, work)
	agent := &process{t: t, binary: binary, config: config, name: "agent", log: filepath.Join(work, "agent.log")}
	agent.start()
	t.Cleanup(func() { agent.kill(); agent.tell() })
	docker, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	const n, each = 30, 50
	start := func(name string, log map[string]string, env ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		c, err := docker.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Config: &container.Config{Image: "weir-e2e-writer:latest", Env: env},
			HostConfig: &container.HostConfig{NetworkMode: "none", AutoRemove: true, LogConfig: container.LogConfig{Type: "json-file", Config: log}}})
		if err == nil {
			_, err = docker.ContainerStart(ctx, c.ID, client.ContainerStartOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// A log of one file is unlinked when it is full, and begun anew: about thirty times here.
	const unlinked = 20_000
	start(node+"-unlinked", map[string]string{"max-size": "200k", "max-file": "1"}, fmt.Sprintf("LINES=%d", unlinked), "SECONDS=10")
	for i := range n {
		start(fmt.Sprintf("%s-%d", node, i), map[string]string{"max-size": "1m", "max-file": "3"}, fmt.Sprintf("LINES=%d", each), "SECONDS=0")
	}
	time.Sleep(15 * time.Second)
	agent.stop()
	logs := readTopic(t, k, schema.TopicLogs, node)
	explained := 0
	check := func(name string, want int) {
		if got := len(logs.numbers[name]); got != want && logs.lostBy[name] == 0 {
			t.Errorf("%s: %d lines of %d, and no loss record", name, got, want)
		} else if got != want {
			explained += want - got
		}
	}
	check(node+"-unlinked", unlinked)
	for i := range n {
		check(fmt.Sprintf("%s-%d", node, i), each)
	}
	written := n*each + unlinked
	fmt.Printf("RESULT brief containers=%d written=%d delivered=%d in_loss_records=%d repeated=%d\n", n+1, written, logs.unique(), explained, logs.repeated)
	if logs.unique() < written*8/10 {
		t.Errorf("only %d of %d lines were collected", logs.unique(), written)
	}
}
