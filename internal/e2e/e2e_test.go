//go:build e2e

// Package e2e runs the whole pipeline against a real Docker engine, Kafka, Elasticsearch, HDFS and Spark, kills
// its processes on the way, and counts every line at every end. `make e2e` starts the servers and runs it.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/segmentio/kafka-go"
	"github.com/testcontainers/testcontainers-go"

	"weir/ingest"
	"weir/schema"
)

const (
	containers = 10
	lines      = 10_000 // of each container
	seconds    = 40     // that a container writes for
)

type servers struct {
	kafka, elasticsearch, namenode, submit string
}

func need(t *testing.T) servers {
	t.Helper()
	get := func(name string) string {
		v := os.Getenv(name)
		if v == "" {
			t.Fatalf("%s is not set: run `make e2e`, or `eval \"$(deployments/dev/stack env)\"` first", name)
		}
		return v
	}
	return servers{get("WEIR_KAFKA_BROKERS"), get("WEIR_ELASTICSEARCH_URL"), get("WEIR_HDFS_NAMENODE"), get("WEIR_SPARK_SUBMIT")}
}

func run(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// freshTopics makes weir's topics anew, so that counts are of this run alone.
func freshTopics(t *testing.T, k *ingest.Kafka, brokers []string) {
	t.Helper()
	c := &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 20 * time.Second}
	specs := ingest.DefaultTopics(6, 1)
	var names []string
	for _, s := range specs {
		names = append(names, s.Name)
	}
	if _, err := c.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: names}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		m, err := c.Metadata(t.Context(), &kafka.MetadataRequest{})
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, topic := range m.Topics {
			if strings.HasPrefix(topic.Name, "weir.") {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d topics are still being deleted", left)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// image builds the writer's image from scratch: nothing is pulled.
func image(t *testing.T, repository, work string) testcontainers.FromDockerfile {
	t.Helper()
	dir := filepath.Join(work, "image")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, repository, []string{"CGO_ENABLED=0"}, "go", "build", "-o", filepath.Join(dir, "writer"), "./testdata/e2e/writer")
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY writer /writer\nENTRYPOINT [\"/writer\"]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return testcontainers.FromDockerfile{Context: dir, Repo: "weir-e2e-writer", Tag: "latest", KeepImage: true}
}

func startContainers(t *testing.T, img testcontainers.FromDockerfile, prefix string) (ids []string) {
	t.Helper()
	t.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	for i := range containers {
		env := map[string]string{"LINES": fmt.Sprint(lines), "SECONDS": fmt.Sprint(seconds), "EXIT": fmt.Sprint(exitCode(i))}
		if i == 0 {
			env["WAIT"] = "1"
		}
		req := testcontainers.GenericContainerRequest{Started: true, ContainerRequest: testcontainers.ContainerRequest{
			Name: fmt.Sprintf("%s%d", prefix, i), Env: env, Labels: map[string]string{"weir.app": "e2e", "weir.e2e": "1"},
			HostConfigModifier: func(h *container.HostConfig) {
				h.NetworkMode = "none"
				h.LogConfig = container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "50", "compress": fmt.Sprint(i%2 == 1)}}
			}}}
		if i == 0 {
			req.FromDockerfile = img
		} else {
			req.Image = "weir-e2e-writer:latest"
		}
		c, err := testcontainers.GenericContainer(t.Context(), req)
		if err != nil {
			t.Fatalf("start container %d: %v", i, err)
		}
		id := c.GetContainerID()
		ids = append(ids, id)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			_ = c.Terminate(ctx)
		})
	}
	return ids
}

func exitCode(i int) int { return []int{0, 0, 1, 3, 0, 42, 0, 1, 0, 255}[i%10] }

func TestEndToEnd(t *testing.T) {
	s := need(t)
	t.Setenv("WEIR_ARCHIVE_ROOT", "") // it would win over the configuration of this run
	brokers := strings.Split(s.kafka, ",")
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	id := time.Now().Format("0102150405")
	prefix := "e2e-" + id + "-"
	root := "hdfs://" + s.namenode + "/e2e/" + id

	k := newKafka(t, brokers)
	freshTopics(t, k, brokers)

	binary := filepath.Join(work, "weir")
	run(t, repository, nil, "go", "build", "-o", binary, "./cmd/weir")
	config := filepath.Join(work, "weir.yaml")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(`kafka:
  brokers: [%s]
consumer:
  commit_interval: 1s
  archive_commit_interval: 4s
agent:
  node: e2e-%s
  state_dir: %s
indexer:
  addresses: [%s]
  namespace: e2e%s
  apply: true
archiver:
  root: %s
http:
  listen: ""
log:
  level: debug
`, strings.Join(brokers, ", "), id, filepath.Join(work, "state"), s.elasticsearch, id, root)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, repository, nil, binary, "topics", "apply", "--config", config)

	processes := map[string]*process{}
	for _, name := range []string{"agent", "indexer", "archiver", "processor", "control"} {
		p := &process{t: t, binary: binary, config: config, name: name, log: filepath.Join(work, name+".log")}
		processes[name] = p
		p.start()
		t.Cleanup(func() { p.kill(); p.tell() })
	}
	begin := time.Now()
	ids := startContainers(t, image(t, repository, work), prefix)
	t.Logf("%d containers are writing, %.1f s after the start", len(ids), time.Since(begin).Seconds())
	began := time.Now()

	// The kills. Each process is away for a second or two.
	for _, k := range []struct {
		at   time.Duration
		name string
	}{{6 * time.Second, "agent"}, {11 * time.Second, "archiver"}, {15 * time.Second, "indexer"}, {19 * time.Second, "processor"}, {21 * time.Second, "control"}, {26 * time.Second, "agent"}} {
		time.Sleep(time.Until(began.Add(k.at)))
		processes[k.name].kill()
		time.Sleep(1500 * time.Millisecond)
		processes[k.name].start()
		t.Logf("%5.1f s: killed %s with -9 and started it again", time.Since(began).Seconds(), k.name)
	}
	time.Sleep(time.Until(began.Add((seconds + 8) * time.Second)))
	docker, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docker.ContainerRemove(t.Context(), ids[0], client.ContainerRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%5.1f s: removed container 0 by force", time.Since(began).Seconds())
	time.Sleep(3 * time.Second)

	processes["agent"].stop()
	both := []string{schema.TopicLogs, schema.TopicEvents}
	caughtUp(t, brokers, map[string][]string{"indexer": both, "archiver": both, "processor": {schema.TopicLogs}, "control": {schema.TopicEvents}}, 3*time.Minute)
	for _, name := range []string{"indexer", "archiver", "processor", "control"} {
		processes[name].stop()
	}
	count(t, s, k, repository, root, prefix, "logs-weir.container-e2e"+id)
	if n := readIndependently(t, brokers, prefix).unique(); n != containers*lines {
		t.Errorf("the Collector's decoder finds %d lines in Kafka, want %d", n, containers*lines)
	}
	if n := readTail(t, binary, config, prefix, containers*lines).unique(); n != containers*lines {
		t.Errorf("weir tail shows %d lines, want %d", n, containers*lines)
	}
}

// count compares what every place holds and prints the table.
func count(t *testing.T, s servers, k *ingest.Kafka, repository, root, prefix, index string) {
	logs := readTopic(t, k, schema.TopicLogs, prefix)
	events := readTopic(t, k, schema.TopicEvents, prefix)
	es := readElasticsearch(t, s.elasticsearch, index, prefix)
	archive := readArchive(t, s.submit, repository, root, prefix)
	hdfs := 0
	fmt.Printf("\n%-24s %8s %8s %8s %8s %6s\n", "container", "written", "kafka", "es", "hdfs", "exit")
	for i := range containers {
		name := fmt.Sprintf("%s%d", prefix, i)
		a := archive.Containers[name]
		hdfs += a.Distinct
		code, died := events.exits[name]
		exit := "none"
		if died {
			exit = fmt.Sprint(code)
		}
		fmt.Printf("%-24s %8d %8d %8d %8d %6s\n", name, lines, len(logs.numbers[name]), len(es.numbers[name]), a.Distinct, exit)
		want := int64(exitCode(i))
		if i == 0 {
			want = 137 // removed by force
		}
		if !died || code != want {
			t.Errorf("%s: die event with exit code %s, want %d", name, exit, want)
		}
	}
	written := containers * lines
	lost := logs.losses
	unexplained := (written - logs.unique()) + (written - es.unique()) + (written - hdfs)
	fmt.Printf("records more than once: kafka %d (allowed), es %d, hdfs %d; loss records %d; closed sources %d; damaged bodies %d\n", logs.repeated, es.repeated, archive.Repeated, lost, logs.closed, logs.broken)
	fmt.Printf("RESULT e2e written=%d kafka_unique=%d es_unique=%d es_repeated=%d hdfs_unique=%d hdfs_repeated=%d lost_recorded=%d unexplained=%d\n",
		written, logs.unique(), es.unique(), es.repeated, hdfs, archive.Repeated, lost, unexplained)
	if unexplained != 0 || es.repeated != 0 || archive.Repeated != 0 || lost != 0 || logs.broken != 0 {
		t.Error("the counts do not agree")
	}
	if logs.closed != 1 {
		t.Errorf("%d source-closed records, want 1 for the removed container", logs.closed)
	}
}
