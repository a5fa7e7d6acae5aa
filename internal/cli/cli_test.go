package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// output may be read while a command still writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func weir(args ...string) (exit int, stdout, stderr string) {
	var out, err output
	exit = Main(args, &out, &err)
	return exit, out.String(), err.String()
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommandLine(t *testing.T) {
	for _, name := range []string{"WEIR_KAFKA_BROKERS", "WEIR_ELASTICSEARCH_URL", "WEIR_ARCHIVE_ROOT", "WEIR_CONFIG"} {
		t.Setenv(name, "")
	}
	bad := writeConfig(t, "kafka:\n  compression: brotli\n")
	badPolicies := writeConfig(t, "policies:\n- {name: x, mode: on, on: [{signal: oom}], steps: [{action: restart}]}\n")
	acting := writeConfig(t, "policies:\n- {name: x, mode: act, on: [{signal: oom}], steps: [{action: restart}]}\n")
	actingConfig := writeConfig(t, "control:\n  policies: "+acting+"\n")
	for _, c := range []struct {
		args string
		exit int
		want string
	}{
		{"version", 0, "weir dev"},
		{"--help", 0, "topics apply"},
		{"config check", 0, "the configuration is good"},
		{"config check --config " + bad, 1, bad + ":2: kafka.compression"},
		{"tail --level loud", 1, `--level "loud" is not one of`},
		{"nonsense", 2, "unexpected argument nonsense"},
		{"archiver", 1, "archiver.root: is not set"},
		{"indexer", 1, "addresses: at least one URL is needed"},
		{"index apply", 1, "addresses: at least one URL is needed"},
		{"index apply --help", 0, "--dry-run"},
		{"deadletter replay", 1, "choose what to replay"},
		{"control --help", 0, "close-breaker"},
		{"control check " + badPolicies, 1, badPolicies + `:2: policies[0].mode: "on" is neither`},
		{"control check " + acting, 0, "the policies are good: 1, acting: true"},
		{"control freeze --reason x", 2, "--key"},
		{"control --config " + actingConfig, 1, "control.sign_key_file: is needed"},
		{"executor", 1, "trusted_keys: name at least one"},
	} {
		exit, stdout, stderr := weir(strings.Fields(c.args)...)
		if exit != c.exit || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("weir %s: exit %d, want %d and %q:\n%s%s", c.args, exit, c.exit, c.want, stdout, stderr)
		}
	}
}

// TestShownConfigurationIsTaken reads back what `weir config show` prints.
func TestShownConfigurationIsTaken(t *testing.T) {
	exit, shown, stderr := weir("config", "show")
	if exit != 0 || !strings.Contains(shown, "linger: 30ms") {
		t.Fatalf("exit %d: %s\n%s", exit, stderr, shown)
	}
	exit, again, stderr := weir("config", "show", "--config", writeConfig(t, shown))
	if exit != 0 || again != shown {
		t.Errorf("exit %d: %s\nshown:\n%s\nread back:\n%s", exit, stderr, shown, again)
	}
}

// TestUp runs the whole of weir twice on the embedded broker and pretended containers, and wants every record that the agent
// read in the archive, once.
func TestUp(t *testing.T) {
	for _, name := range []string{"WEIR_KAFKA_BROKERS", "WEIR_ELASTICSEARCH_URL", "WEIR_ARCHIVE_ROOT"} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	config := writeConfig(t, fmt.Sprintf("embedded:\n  dir: %s\n  port: 0\nhttp:\n  listen: 127.0.0.1:0\nconsumer:\n  archive_commit_interval: 500ms\n", dir))
	read, archived, logs := 0, 0, ""
	for range 2 {
		exit, stdout, stderr := weir("up", "--demo", "--plain", "--for", "4s", "--config", config)
		if exit != 0 {
			t.Fatalf("exit %d:\n%s%s", exit, stdout, stderr)
		}
		m := regexp.MustCompile(`(\d+) log records read .*, archiver (\d+), processor \d+, control \d+; 0 loss records, 0 dead letters`).FindStringSubmatch(stdout)
		if m == nil {
			t.Fatalf("no summary:\n%s%s", stdout, stderr)
		}
		r, _ := strconv.Atoi(m[1])
		a, _ := strconv.Atoi(m[2])
		read, archived, logs = read+r, archived+a, logs+stderr
		for _, want := range []string{"embedded single-node broker", "6 pretended ones", "status     http://", "/metrics", "tail --level warn"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("the start does not say %q:\n%s", want, stdout)
			}
		}
		if strings.Contains(stderr, "level=ERROR") {
			t.Errorf("errors:\n%s", stderr)
		}
	}
	if read < 100 {
		t.Errorf("only %d log records in two runs", read)
	}
	ids, rows := map[string]bool{}, 0
	files, _ := filepath.Glob(filepath.Join(dir, "embedded/archive/weir.*/dt=*/hour=*/*.parquet"))
	for _, f := range files {
		records, err := parquet.ReadFile[struct {
			ID string `parquet:"id"`
		}](f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			ids[r.ID] = true
			rows++
		}
	}
	if rows != archived || len(ids) != rows {
		t.Errorf("the archive has %d rows with %d ids, the archiver counted %d", rows, len(ids), archived)
		t.Log(logs)
	}
}

// TestExecutorPrepare makes a folder for this user, twice; internal/e2e has root make one for another.
func TestExecutorPrepare(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "executor")
	config := writeConfig(t, "executor: {state_dir: "+dir+"}\n")
	for range 2 {
		if exit, _, stderr := weir("executor", "prepare", "--config", config, "--owner", fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())); exit != 0 {
			t.Fatal(stderr)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode() != os.ModeDir|0o700 {
			t.Errorf("%v, %v", info, err)
		}
	}
	for _, owner := range []string{"weir", "1", "1:", ":1", "-1:1", "1:1:1"} {
		if exit, _, stderr := weir("executor", "prepare", "--config", config, "--owner="+owner); exit != 1 || !strings.Contains(stderr, "is not UID:GID") {
			t.Errorf("%s: exit %d, %s", owner, exit, stderr)
		}
	}
}
