package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/archiver"
	"weir/archiver/audit"
	"weir/ingest"
	"weir/schema"
)

// smallArchive has three commits of ten records of one hour, five hours ago.
func smallArchive(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cfg := archiver.DefaultConfig()
	cfg.Root = "file://" + dir
	a, err := archiver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	s, _, err := a.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicLogs})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-5 * time.Hour).Truncate(time.Hour)
	for o := range int64(3) {
		b := &schema.Batch{Topic: schema.TopicLogs, KafkaOffset: o, Source: "docker/n/c", Begin: schema.Position{Offset: o * 10}, End: schema.Position{Offset: o*10 + 10}, From: o * 10, Resource: []schema.Attr{schema.String(schema.AttrApp, "shop")}}
		for i := range int64(10) {
			b.Records = append(b.Records, schema.Record{Offset: o*10 + i, Time: at.UnixNano() + i, Body: fmt.Sprint(i)})
		}
		if err := errors.Join(s.Write(t.Context(), b), s.Commit(t.Context(), ingest.Checkpoint{NextOffset: o + 1})); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func parquetFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "weir.logs", "*", "*", "*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestArchiveCompactAndAudit(t *testing.T) {
	for _, name := range []string{"WEIR_KAFKA_BROKERS", "WEIR_ELASTICSEARCH_URL", "WEIR_ARCHIVE_ROOT", "WEIR_CONFIG"} {
		t.Setenv(name, "")
	}
	dir := smallArchive(t)
	root := "file://" + dir
	expect := func(exit int, want string, args ...string) string {
		t.Helper()
		got, stdout, stderr := weir(append(args, "--root", root)...)
		if got != exit || !strings.Contains(stdout+stderr, want) {
			t.Errorf("weir %s: exit %d, want %d and %q:\n%s%s", args, got, exit, want, stdout, stderr)
		}
		return stdout
	}
	table := expect(0, "note: Kafka was not asked: kafka.brokers is not set", "audit")
	for _, want := range []string{"3 manifests, 0 compaction records, 3 files", "shop   not asked  30        not asked  0                   0", "total  not asked  30"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table does not say %q:\n%s", want, table)
		}
	}
	expect(0, "merge 3 files", "archive", "compact", "--dry-run")
	if files := parquetFiles(t, dir); len(files) != 3 {
		t.Errorf("a dry run left %v", files)
	}
	expect(0, "nothing to merge", "archive", "compact", "--closed-after", "24h")
	expect(0, "3 files merged into 1", "archive", "compact")
	expect(0, "nothing to merge", "archive", "compact")
	expect(0, "1 compaction records, 1 files", "audit", "--by", "source")

	files := parquetFiles(t, dir)
	if len(files) != 1 {
		t.Fatal(files)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	found := expect(1, "1 findings are not explained", "audit")
	if !strings.Contains(found, "file_missing: weir.logs/") || !strings.Contains(found, "what to do: ") || !strings.Contains(found, "total  not asked  0         not asked  0                   30") {
		t.Errorf("the table:\n%s", found)
	}
	var r audit.Report
	if err := json.Unmarshal([]byte(expect(1, `"kind":"file_missing"`, "audit", "--json")), &r); err != nil || r.Total.Unexplained != 30 {
		t.Errorf("%v, %+v", err, r)
	}
	expect(0, "0 files", "audit", "--since", "2h") // it is not of that range
	for _, c := range []struct{ args, want string }{
		{"audit --since yesterday", `--since: "yesterday" is neither`},
		{"audit --since 1h --until 2h", "is not before --until"},
		{"audit --container a*", "is not the id of a container"},
		{"audit --public-key /nowhere", "/nowhere"},
	} {
		expect(2, c.want, strings.Fields(c.args)...)
	}
	root = "file://" + t.TempDir()
	expect(2, "there is no archive", "audit")
	t.Setenv("WEIR_KAFKA_BROKERS", "127.0.0.1:1")
	root = "file://" + dir
	expect(2, "could not be done: kafka", "audit")
	if exit, _, stderr := weir("audit"); exit != 2 || !strings.Contains(stderr, "archiver.root: is not set") {
		t.Errorf("without a root: %d %s", exit, stderr)
	}
}
