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
	"github.com/testcontainers/testcontainers-go"

	"weir/ingest"
)

// rig is what a test of the agent alone runs on: fresh topics, the writers' image, and an agent that is not started yet.
type rig struct {
	repository string
	node       string // of the agent, new in each run
	state      string // the agent's folder
	k          *ingest.Kafka
	docker     *client.Client
	agent      *process
}

// newRig takes further lines of the configuration's section agent. The agent runs with no more rights than it is documented to need.
func newRig(t *testing.T, name string, agentConfig ...string) *rig {
	t.Helper()
	s := need(t)
	brokers := strings.Split(s.kafka, ",")
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	e := &rig{repository: repository, node: name + "-" + time.Now().Format("150405"), state: filepath.Join(work, "state"), k: newKafka(t, brokers)}
	freshTopics(t, e.k, brokers)
	binary, config := filepath.Join(work, "weir"), filepath.Join(work, "weir.yaml")
	run(t, repository, nil, "go", "build", "-o", binary, "./cmd/weir")
	if err := os.WriteFile(config, fmt.Appendf(nil, "kafka:\n  brokers: [%s]\nhttp:\n  listen: \"\"\nagent:\n  node: %s\n  state_dir: %s\n%s", s.kafka, e.node, e.state, indented(agentConfig)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, repository, nil, binary, "topics", "apply", "--config", config)
	buildImage(t, repository, work)
	e.agent = &process{t: t, binary: binary, config: config, name: "agent", log: filepath.Join(work, "agent.log")}
	t.Cleanup(func() { e.agent.kill(); e.agent.tell() })
	if e.docker, err = client.New(client.FromEnv); err != nil {
		t.Fatal(err)
	}
	info, err := e.docker.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e.agent.wrap = restricted(info.Info.DockerRootDir)
	return e
}

// restricted runs a command as a DaemonSet would: logs is mounted for reading only, of root's capabilities only that to read
// any file is left, and no program can bring them back.
func restricted(logs string) []string {
	return []string{"unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec setpriv --bounding-set=-all,+dac_read_search --no-new-privs "$@"`, logs}
}

func indented(lines []string) (all string) {
	for _, l := range lines {
		all += "  " + l + "\n"
	}
	return all
}

// stack does something to one of the servers.
func (e *rig) stack(t *testing.T, verb, server string) {
	t.Helper()
	run(t, e.repository, nil, filepath.Join(e.repository, "deployments/dev/stack"), verb, server)
}

// container starts a writer that is removed at the test's end.
func (e *rig) container(t *testing.T, name string, change func(*container.Config, *container.HostConfig), env ...string) (id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cfg := &container.Config{Image: "weir-e2e-writer:latest", Env: env}
	host := &container.HostConfig{NetworkMode: "none", LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "50"}}}
	if change != nil {
		change(cfg, host)
	}
	c, err := e.docker.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Config: cfg, HostConfig: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = e.docker.ContainerRemove(context.Background(), c.ID, client.ContainerRemoveOptions{Force: true})
	})
	if _, err := e.docker.ContainerStart(ctx, c.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	return c.ID
}

// await polls until something holds.
func await(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come within %v", what, limit)
		}
	}
}

func newKafka(t *testing.T, brokers []string) *ingest.Kafka {
	t.Helper()
	cfg := ingest.DefaultKafkaConfig()
	cfg.Brokers = brokers
	k, err := ingest.NewKafka(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// buildImage makes the writers' image without starting one.
func buildImage(t *testing.T, repository, work string) {
	t.Helper()
	t.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	c, err := testcontainers.GenericContainer(t.Context(), testcontainers.GenericContainerRequest{ContainerRequest: testcontainers.ContainerRequest{FromDockerfile: image(t, repository, work),
		HostConfigModifier: func(h *container.HostConfig) { h.NetworkMode = "none" }}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Terminate(t.Context()); err != nil {
		t.Error(err)
	}
}
