//go:build e2e

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/schema"
)

// serversArchive is a place for an archive in a real HDFS, and Spark's command.
func serversArchive(t *testing.T) (root string, s store.Store, submit string) {
	t.Helper()
	namenode, submit := os.Getenv("WEIR_HDFS_NAMENODE"), os.Getenv("WEIR_SPARK_SUBMIT")
	if namenode == "" || submit == "" {
		t.Fatal("WEIR_HDFS_NAMENODE or WEIR_SPARK_SUBMIT is not set: run `make e2e`")
	}
	for _, name := range []string{"WEIR_CONFIG", "WEIR_KAFKA_BROKERS", "WEIR_ARCHIVE_ROOT"} {
		t.Setenv(name, "")
	}
	cfg := store.DefaultConfig()
	cfg.Root = fmt.Sprintf("hdfs://%s/weir-read-test/%d", namenode, time.Now().UnixNano())
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range []string{schema.TopicLogs, schema.TopicEvents, "_weir"} {
			if err := store.RemoveTree(s, dir); err != nil {
				t.Error(err)
			}
		}
		_ = s.Close()
	})
	return cfg.Root, s, submit
}

// TestArchiveOnServers reads an archive in a real HDFS that the archiver wrote, an hour of which was compacted and left half finished: with the search,
// with a real Spark, and into a real Elasticsearch.
func TestArchiveOnServers(t *testing.T) {
	root, s, submit := serversArchive(t)
	ids := writeArchive(t, root)
	compactHour(t, s, archiveDay.Add(time.Hour))

	t.Run("search", func(t *testing.T) {
		exit, stdout, stderr := weir("search", "--archive", root, "--since", "all", "--oldest", "--json", "--dataset", "container")
		var got []string
		last := ""
		for line := range strings.Lines(stdout) {
			var doc struct {
				ID string `json:"_id"`
				At string `json:"@timestamp"`
			}
			if err := json.Unmarshal([]byte(line), &doc); err != nil || doc.At < last {
				t.Fatalf("%s after %s: %v", line, last, err)
			}
			last = doc.At
			got = append(got, doc.ID)
		}
		if slices.Sort(got); exit != 0 || !slices.Equal(got, ids) {
			t.Errorf("exit %d, %d records of %d: %s", exit, len(got), len(ids), stderr)
		}
	})
	t.Run("spark", func(t *testing.T) { sparkJobs(t, submit, root) })
	t.Run("replay", func(t *testing.T) { replayToElasticsearch(t, root, ids) })
}

// TestExpireOnServers lets a day of an archive in a real HDFS expire. The audit knows, Spark reads the rest, and a file that is deleted by hand is found.
func TestExpireOnServers(t *testing.T) {
	root, s, submit := serversArchive(t)
	now := time.Now().UTC()
	writeSmall(t, root, now.AddDate(0, 0, -10), now.AddDate(0, 0, -9), now.AddDate(0, 0, -5))
	expect := func(exit int, args string, want ...string) {
		t.Helper()
		got, stdout, stderr := weir(strings.Fields(args)...)
		for _, w := range want {
			if got != exit || !strings.Contains(stdout+stderr, w) {
				t.Errorf("weir %s: exit %d, want %d and %q:\n%s%s", args, got, exit, w, stdout, stderr)
			}
		}
	}
	audit := "audit --since all --no-elasticsearch --root " + root
	expect(0, "archive compact --since 9d12h --root "+root, "3 files merged into 1")
	expect(0, audit, "9 manifests, 2 compaction records, 0 expiry records, 5 files")
	expect(0, "archive expire --before 7d --root "+root, now.AddDate(0, 0, -10).Format(time.DateOnly)+": 3 files, ", now.AddDate(0, 0, -9).Format(time.DateOnly)+": 1 files, ", " 30 rows expired")
	expect(0, audit, "9 manifests, 2 compaction records, 2 expiry records, 1 files", "expired on the record: 60 records in 4 files of ")
	expect(0, "archive expire --before 7d --root "+root, "nothing is of days before ")
	expect(0, "search --since all --archive "+root, "30 records in ", "; 4 files of these days have expired")

	dir, err := filepath.Abs("../../deployments/spark")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), submit, "--py-files", filepath.Join(dir, "weir_archive.py"), filepath.Join(dir, "reconcile.py"), root).CombinedOutput()
	if want := `"files": 1, "rows": 30, "sources": 1, "expired_files": 4, "wrong_files": [], "wrong_sources": [], "repeated_ids": 0, "agrees": true}`; err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s", err, out[max(0, len(out)-4000):])
	}

	places, err := archive.Snapshot(t.Context(), s, archive.Scope{})
	if err != nil || len(places) != 1 {
		t.Fatal(places, err)
	}
	if err := s.Remove(places[0].Path); err != nil {
		t.Fatal(err)
	}
	expect(1, audit, "1 findings are not explained", "file_missing: "+places[0].Path)
}

// compactHour merges an hour's files as `weir archive compact` does, and stops before they are in their places.
func compactHour(t *testing.T, s store.Store, hour time.Time) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	places, err := archive.Snapshot(t.Context(), s, archive.Scope{Topics: []string{schema.TopicLogs}, Since: hour, Until: hour.Add(time.Hour)})
	must(err)
	c := &archive.Compaction{Version: archive.CompactionVersion, Topic: schema.TopicLogs, Hour: hour, N: 1, Created: time.Now().UTC()}
	merged := archive.File{Path: c.MergedPath(0), Tmp: "_weir/tmp/compact/1/merged.parquet", MinTime: places[0].MinTime}
	must(s.MkdirAll(path.Dir(merged.Tmp)))
	out, err := s.Create(merged.Tmp)
	must(err)
	w := parquet.NewGenericWriter[archive.Row](out)
	for _, p := range places {
		if p.MaxTime.After(merged.MaxTime) {
			merged.MaxTime = p.MaxTime
		}
		data, err := s.ReadFile(p.Path)
		must(err)
		rows, err := parquet.Read[archive.Row](strings.NewReader(string(data)), int64(len(data)))
		must(err)
		_, err = w.Write(rows)
		must(err)
		merged.Rows += p.Rows
		c.Replaces = append(c.Replaces, archive.Replaced{Path: p.Path, Rows: p.Rows, SHA256: p.SHA256})
	}
	must(errors.Join(w.Close(), out.Close()))
	e, err := s.Stat(merged.Tmp)
	must(err)
	merged.Bytes = e.Size
	c.Files = []archive.File{merged}
	data, err := c.Encode()
	must(err)
	must(s.MkdirAll(path.Dir(c.Name())))
	must(store.WriteFile(s, c.Name(), data))
	must(s.Remove(places[0].Path))
}

func sparkJobs(t *testing.T, submit, root string) {
	dir, err := filepath.Abs("../../deployments/spark")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), submit, filepath.Join(dir, "all.py"), root, "--trace", "ABCD0000000000000000000000000001")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	line := string(out[strings.LastIndex(string(out), "ALL ")+len("ALL "):])
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, stderr.String()[max(0, stderr.Len()-4000):])
	}
	const want = `{"errors":{"rows":[` +
		`{"app":"bank","errors":20,"hour":"2026-11-20T10","records":100},{"app":"shop","errors":10,"hour":"2026-11-20T10","records":50},` +
		`{"app":"bank","errors":20,"hour":"2026-11-20T11","records":100},{"app":"shop","errors":10,"hour":"2026-11-20T11","records":50}]},` +
		`"reconcile":{` +
		`"weir.events":{"agrees":true,"expired_files":0,"files":1,"manifests":1,"repeated_ids":0,"rows":5,"sources":1,"wrong_files":[],"wrong_sources":[]},` +
		`"weir.logs":{"agrees":true,"expired_files":0,"files":7,"manifests":12,"repeated_ids":0,"rows":300,"sources":3,"wrong_files":[],"wrong_sources":[]}},` +
		`"restarts":{"rows":[{"containers":2,"deaths":1,"failures":1,"image":"app:1","ooms":1,"restarts":1,"starts":3}]},` +
		`"trace":{"containers":[{"app":"shop","container":"web-0","records":4},{"app":"bank","container":"web-1","records":4},{"app":"bank","container":"web-2","records":4}],"records":12,"spans":0}}`
	var any any
	if err := json.Unmarshal([]byte(line), &any); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, _ := json.Marshal(any); string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// replayToElasticsearch replays a part, then all, with a rollover of the stream between the two: nothing is there twice.
func replayToElasticsearch(t *testing.T, root string, ids []string) {
	space := fmt.Sprintf("replay%d", time.Now().UnixNano())
	stream := "logs-weir.container-" + space
	config := writeConfig(t, fmt.Sprintf("indexer:\n  namespace: %s\n  apply: true\n", space))
	t.Cleanup(func() { // all but the index that is written to, which is empty, and which not every server lets go
		var indices map[string]any
		elasticsearch(t, http.MethodGet, "/"+stream+"/_settings?filter_path=*.settings.index.uuid", "", &indices)
		names := slices.Sorted(maps.Keys(indices))
		for _, index := range names[:max(0, len(names)-1)] {
			elasticsearch(t, http.MethodDelete, "/"+index, "", nil)
		}
	})
	for i, c := range []struct{ query, want string }{
		{"log.level: error", "60 records created, 0 were there already, 0 refused"},
		{"", "240 records created, 60 were there already, 0 refused"},
		{"", "0 records created, 300 were there already, 0 refused"},
	} {
		exit, stdout, stderr := weir("replay", "--archive", root, "--since", "all", "--dataset", "container", "--to", "elasticsearch", "--rate", "0", "--config", config, c.query)
		if exit != 0 || !strings.Contains(stdout, c.want) {
			t.Errorf("replay %d: exit %d, want %q: %s%s", i, exit, c.want, stdout, stderr)
		}
		elasticsearch(t, http.MethodPost, "/"+stream+"/_rollover", "", nil)
	}
	if n := documents(t, stream, `{"match_all":{}}`); n != 300 {
		t.Errorf("%d documents of 300", n)
	}
	if n := documents(t, stream, `{"term":{"http.response.status_code":503}}`); n != 60 {
		t.Errorf("%d documents with a status of 60", n)
	}

	// Both answer the same.
	for _, query := range []string{"", "log.level: error", "log.level: ERROR", "not log.level: error", "timed", `"timed out"`, "TIMED", "tim*", "line and 7", `message: "line 7"`, "message: line timed", "container.id: c1 and not timed",
		"container.name: web-*", "container.name: web", "weir.app: bank or trace.id: abcd*", "http.response.status_code: 503", "http.response.status_code > 503", "http.response.status_code >= 500 and weir.app: shop", "event.severity < 17",
		"log.offset <= 1003", "log.iostream: *", "not trace.id: *", "event.action: *", `@timestamp >= "2026-11-20T11:00:00Z" and @timestamp < "2026-11-20T11:10:00.000000002Z"`, "@timestamp: 2026-11-20", "weir.source: docker/n1/c2", "*.name: web-1",
		"not (log.level: error or container.id: c2)", "container.image.name: app\\:1", "_id: " + ids[5]} {
		var answers [2][]string
		for i, args := range [][]string{{"--archive", root, "--dataset", "container"}, {"--namespace", space, "--dataset", "container", "--config", config}} {
			exit, stdout, stderr := weir(append([]string{"search", "--since", "all", "--oldest", "--fields", "_id", query}, args...)...)
			if exit != 0 {
				t.Errorf("%s: exit %d: %s", query, exit, stderr)
			}
			answers[i] = strings.Fields(stdout)
			slices.Sort(answers[i])
		}
		if !slices.Equal(answers[0], answers[1]) {
			t.Errorf("%s: %d records of the archive, %d of Elasticsearch", query, len(answers[0]), len(answers[1]))
		}
	}
}
