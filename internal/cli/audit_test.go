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

func smallArchive(t *testing.T, times ...time.Time) (dir string) {
	t.Helper()
	dir = t.TempDir()
	writeSmall(t, "file://"+dir, times...)
	return dir
}

// writeSmall makes three commits of ten records of one hour, for each of some times.
func writeSmall(t *testing.T, root string, times ...time.Time) {
	t.Helper()
	cfg := archiver.DefaultConfig()
	cfg.Root = root
	a, err := archiver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	s, _, err := a.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicLogs})
	if err != nil {
		t.Fatal(err)
	}
	for o := range int64(3 * len(times)) {
		at := times[o/3].Truncate(time.Hour)
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
	dir := smallArchive(t, time.Now().Add(-5*time.Hour))
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
	for _, want := range []string{"3 manifests, 0 compaction records, 0 expiry records, 3 files", "shop   not asked  30        not asked  0                   0", "total  not asked  30"} {
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
	expect(0, "1 compaction records, 0 expiry records, 1 files", "audit", "--by", "source")

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

func TestArchiveExpire(t *testing.T) {
	for _, name := range []string{"WEIR_KAFKA_BROKERS", "WEIR_ELASTICSEARCH_URL", "WEIR_ARCHIVE_ROOT", "WEIR_CONFIG"} {
		t.Setenv(name, "")
	}
	now := time.Now().UTC()
	dir := smallArchive(t, now.AddDate(0, 0, -10), now.AddDate(0, 0, -5))
	config := writeConfig(t, "archiver:\n  root: file://"+dir+"\n  retention_days: 7\n")
	expect := func(exit int, args string, want ...string) {
		t.Helper()
		got, stdout, stderr := weir(append(strings.Fields(args), "--config", config)...)
		for _, w := range want {
			if got != exit || !strings.Contains(stdout+stderr, w) {
				t.Errorf("weir %s: exit %d, want %d and %q:\n%s%s", args, got, exit, w, stdout, stderr)
			}
		}
	}
	old, kept := now.AddDate(0, 0, -10).Format(time.DateOnly), now.AddDate(0, 0, -5).Format(time.DateOnly)
	search := "search --since all --archive file://" + dir
	expect(1, "archive expire --before now", "--before: "+now.Format(time.DateOnly)+" is later than yesterday, ")
	expect(1, "archive expire --before 0d", `--before: "0d" is neither`)
	expect(0, "archive expire --before "+old, "nothing is of days before "+old)
	expect(0, "archive expire --topic weir.events", "nothing is of days before "+now.AddDate(0, 0, -7).Format(time.DateOnly))
	expect(0, "archive expire --dry-run", "weir.logs "+old+": 3 files, ", "30 rows would expire", "nothing was changed")
	if files := parquetFiles(t, dir); len(files) != 6 {
		t.Errorf("a dry run left %v", files)
	}
	expect(0, "archive expire", "weir.logs "+old+": 3 files, ", " 30 rows expired")
	expect(0, "archive expire", "nothing is of days before ")
	expect(0, "audit --since all", "6 manifests, 0 compaction records, 1 expiry records, 3 files", "total  not asked  30  ", "expired on the record: 30 records in 3 files of ")
	expect(0, search, "30 records in ", "; 3 files of these days have expired")
	expect(0, "replay --since all --to kafka --dry-run --archive file://"+dir, "30 records would be sent")

	files := parquetFiles(t, dir)
	if len(files) != 3 || !strings.Contains(files[0], "dt="+kept) {
		t.Fatal(files)
	}
	stray := filepath.Join(filepath.Dir(files[0]), "other.parquet")
	if err := errors.Join(os.WriteFile(stray, nil, 0o600), os.Remove(files[1])); err != nil {
		t.Fatal(err)
	}
	expect(1, "audit --since all", "2 findings are not explained", "file_missing: weir.logs/")
	expect(1, search, "no expiry record tells of them")
	expect(1, "archive expire --before 3d", "weir.logs "+kept+": 2 files, ", "other.parquet stays: no manifest", "1 files are not what manifests and records say")
	if files := parquetFiles(t, dir); len(files) != 1 || files[0] != stray {
		t.Errorf("left are %v", files)
	}
	expect(1, "audit --since all", "2 findings are not explained", "expired on the record: 50 records in 5 files")
	config = writeConfig(t, "archiver:\n  root: file://"+dir+"\n")
	expect(1, "archive expire", "--before: is not given, and archiver.retention_days is not set")
	config = writeConfig(t, "archiver:\n  root: file://"+dir+"\n  retention_days: -1\n")
	expect(1, "archive expire", "archiver.retention_days: -1 is not within 0 and 36500")
}
