//go:build e2e

package e2e

import (
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

func newRig(t *testing.T, name string) *rig {
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
	if err := os.WriteFile(config, fmt.Appendf(nil, "kafka:\n  brokers: [%s]\nagent:\n  node: %s\n  state_dir: %s\nhttp:\n  listen: \"\"\n", s.kafka, e.node, e.state), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, repository, nil, binary, "topics", "apply", "--config", config)
	buildImage(t, repository, work)
	e.agent = &process{t: t, binary: binary, config: config, name: "agent", log: filepath.Join(work, "agent.log")}
	t.Cleanup(func() { e.agent.kill(); e.agent.tell() })
	if e.docker, err = client.New(client.FromEnv); err != nil {
		t.Fatal(err)
	}
	return e
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
