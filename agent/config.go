// Package agent runs on every node. It follows the container engine, reads the logs of its containers, from files or through the
// engine, and plain files of the host, and gives log lines and engine events to the producer as batches.
//
// What the agent knows of a log it derives from the log itself: a file is named by its first line, a record by the
// byte where it starts. So a crash, or a lost checkpoint, costs repeats with the same ids, which consumers drop, and
// never records.
package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"weir/agent/kube"
	"weir/agent/multiline"
	"weir/agent/redact"
)

// Config of the agent.
type Config struct {
	Node           string        `yaml:"node"`        // host.name of all records; the host's name by default
	DockerHost     string        `yaml:"docker_host"` // such as unix:///var/run/docker.sock; DOCKER_HOST or the client's default when empty; none where there is no Docker
	PodsDir        string        `yaml:"pods_dir"`    // logs of the kubelet's containers, /var/log/pods on most nodes; none when empty
	Kubernetes     kube.Config   `yaml:"kubernetes"`  // where the metadata of those containers come from
	Files          []FileConfig  `yaml:"files"`       // plain log files of the host
	MaxFiles       int           `yaml:"max_files"`   // at most so many of them are followed
	StateDir       string        `yaml:"state_dir"`   // holds the checkpoint
	Site           string        `yaml:"site"`
	Cell           string        `yaml:"cell"`
	AppLabels      []string      `yaml:"app_labels"`    // the first of them that a container has names its app; else its own name does
	TenantLabels   []string      `yaml:"tenant_labels"` // likewise; no tenant when it has none
	BatchBytes     int           `yaml:"batch_bytes"`   // encoded size at which a batch is sent
	Linger         time.Duration `yaml:"linger"`        // the longest that a record waits for its batch to fill
	Poll           time.Duration `yaml:"poll"`          // between looks at a log; grows while nothing comes, until the log is watched instead
	MaxRecordBytes int           `yaml:"max_record_bytes"`
	HeldBytes      int64         `yaml:"held_bytes"`   // of all logs together: unfinished records and batches that are not full; beyond, records are cut and batches sent early
	DiskBytes      int64         `yaml:"disk_bytes"`   // of deleted log files that are held open because they are not read yet; beyond, the oldest of the log that has most are given up
	StopTimeout    time.Duration `yaml:"stop_timeout"` // wait for acknowledgements at a stop

	Redact    redact.Config               `yaml:"redact"`
	Quotas    map[string]Quota            `yaml:"quotas"`    // by app; "*" for each of the others. A container's label weir.quota may ask for less than "*" gives
	Multiline map[string]multiline.Config `yaml:"multiline"` // by app; "*" for the others. A container's label weir.multiline goes before it. None: every line is a record
}

// NoDocker as docker_host says that there is no Docker engine on the node.
const NoDocker = "none"

// DefaultConfig reads this host's engine.
func DefaultConfig() Config {
	node, _ := os.Hostname()
	return Config{Node: node, StateDir: "/var/lib/weir/agent", MaxFiles: 1024, Kubernetes: kube.DefaultConfig(),
		AppLabels: []string{"weir.app", "app.kubernetes.io/name", "com.docker.compose.service"}, TenantLabels: []string{"weir.tenant"},
		BatchBytes: 256 << 10, Linger: 30 * time.Millisecond, Poll: 25 * time.Millisecond, MaxRecordBytes: 512 << 10, HeldBytes: 16 << 20, DiskBytes: 1 << 30, StopTimeout: 20 * time.Second, Redact: redact.DefaultConfig()}
}

// Validate joins what is wrong, each with its key.
func (c Config) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(c.Node == "", "node: is empty and the host has no name")
	bad(c.DockerHost == NoDocker && c.PodsDir == "" && len(c.Files) == 0, "docker_host: is none, and neither pods_dir nor files is set: there is nothing to read")
	errs = append(errs, validateFiles(c.Files)...)
	bad(c.MaxFiles < 1, "max_files: must be at least 1")
	bad(c.StateDir == "", "state_dir: is empty")
	bad(c.BatchBytes < 1<<10 || c.BatchBytes > 16<<20, "batch_bytes: %d is not within 1 KiB and 16 MiB", c.BatchBytes)
	bad(c.MaxRecordBytes < 16<<10 || c.MaxRecordBytes > 16<<20, "max_record_bytes: %d is not within 16 KiB and 16 MiB", c.MaxRecordBytes)
	bad(c.HeldBytes < 1<<20, "held_bytes: %d is less than 1 MiB", c.HeldBytes)
	bad(c.DiskBytes < 0, "disk_bytes: is below zero")
	bad(c.Linger <= 0, "linger: must be above zero")
	bad(c.Poll < time.Millisecond, "poll: must be at least 1ms")
	bad(c.StopTimeout <= 0, "stop_timeout: must be above zero")
	for _, line := range lines(c.Kubernetes.Validate()) {
		errs = append(errs, fmt.Errorf("kubernetes.%s", line))
	}
	for _, line := range lines(c.Redact.Validate()) {
		errs = append(errs, fmt.Errorf("redact.%s", line))
	}
	for _, app := range slices.Sorted(maps.Keys(c.Multiline)) {
		for _, line := range lines(withDefaults(c.Multiline[app]).Validate()) {
			errs = append(errs, fmt.Errorf("multiline.%s.%s", app, line))
		}
	}
	for _, app := range slices.Sorted(maps.Keys(c.Quotas)) {
		for _, line := range lines(c.Quotas[app].Validate()) {
			errs = append(errs, fmt.Errorf("quotas.%s.%s", app, line))
		}
	}
	return errors.Join(errs...)
}

// lines divides a joined error.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}
