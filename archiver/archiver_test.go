package archiver

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/schema"
)

var tp = ingest.TopicPartition{Topic: schema.TopicLogs, Partition: 2}

func testArchiver(t testing.TB, root string) *Archiver {
	t.Helper()
	a, err := newTestArchiver(root, 128, 2) // many row groups and closed files
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// readIDs counts the archive's rows by id, and checks of every file what readers rely on.
func readIDs(t *testing.T, s store.Store) map[string]int {
	t.Helper()
	ids := map[string]int{}
	readFolder(t, s, tp.Topic, ids)
	return ids
}

func readFolder(t *testing.T, s store.Store, dir string, ids map[string]int) {
	t.Helper()
	entries, err := s.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := path.Join(dir, e.Name); e.Dir {
			readFolder(t, s, name, ids)
		} else {
			readFile(t, s, name, ids)
		}
	}
}

func readFile(t *testing.T, s store.Store, name string, ids map[string]int) {
	t.Helper()
	data, err := s.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, group := range f.Metadata().RowGroups {
		for _, c := range group.Columns {
			if len(c.MetaData.PathInSchema) == 0 || c.MetaData.PathInSchema[0] == "" {
				t.Fatalf("%s: a column without a name in the footer", name)
			}
		}
	}
	rows, err := parquet.Read[archive.Row](bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, r := range rows {
		ids[r.ID]++
		if hour := time.UnixMicro(r.Timestamp).UTC().Format("dt=2006-01-02/hour=15"); !strings.Contains(name, hour) {
			t.Errorf("%s holds a record of %s", name, hour)
		}
	}
}

func localIDs(t *testing.T, dir string) map[string]int {
	t.Helper()
	return readIDs(t, testArchiver(t, "file://"+dir).store)
}

// harness runs the sinks' suite on a root.
func harness(root string) sinktest.Harness {
	broken := false
	return sinktest.Harness{OwnCommit: true,
		New: func(t *testing.T) ingest.Sink {
			a := testArchiver(t, root)
			a.hook = func(string) error {
				if broken {
					return errors.New("no space left on device")
				}
				return nil
			}
			return a
		},
		Read: func(t *testing.T) map[string]int {
			a := testArchiver(t, root)
			defer a.Close()
			return readIDs(t, a.store)
		},
		Break: func(b bool) { broken = b },
	}
}

func TestSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness { return harness("file://" + t.TempDir()) })
}

// batch has records of three hours, with attributes of every kind.
func batch(offset int64) *schema.Batch {
	b := &schema.Batch{Topic: tp.Topic, Partition: tp.Partition, KafkaOffset: offset, Source: "docker/n/c", From: max(0, offset*1000-700), End: schema.Position{Incarnation: schema.Incarnation{Start: 5, Print: 6}, Offset: offset*1000 + 300}, Begin: schema.Position{Incarnation: schema.Incarnation{Start: 5, Print: 6}, Offset: offset * 1000},
		Resource: []schema.Attr{schema.String(schema.AttrContainerName, "web"), schema.String(schema.AttrApp, "shop"), schema.String(schema.LabelPrefix+"team", "a"), schema.String("k8s.pod.name", "web-1")}}
	for i := range int64(300) {
		b.Records = append(b.Records, schema.Record{Offset: offset*1000 + i, Time: 1764054000e9 + i/100*3600e9 + i, Observed: 1764054000e9, Body: fmt.Sprintf("line %d\x00\xff", i), Severity: 17,
			Attrs: []schema.Attr{schema.String(schema.AttrStream, "stderr"), schema.Int("n", i), schema.Bool("b", true), schema.Double("d", 1.5)}})
	}
	return b
}

// TestFence lets a writer that lost its partition go on: it must not be able to commit.
func TestFence(t *testing.T) {
	dir := t.TempDir()
	old, _, err := testArchiver(t, "file://"+dir).Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Write(t.Context(), batch(0)); err != nil {
		t.Fatal(err)
	}
	other, _, err := testArchiver(t, "file://"+dir).Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Commit(t.Context(), ingest.Checkpoint{NextOffset: 1}); err == nil {
		t.Error("a writer that was shut out has committed")
	}
	if err := other.Write(t.Context(), batch(0)); err != nil {
		t.Fatal(err)
	}
	if err := other.Commit(t.Context(), ingest.Checkpoint{NextOffset: 1}); err != nil {
		t.Fatal(err)
	}
	if ids := localIDs(t, dir); len(ids) != 300 {
		t.Errorf("%d records", len(ids))
	}
}

// TestDamage wants an error that says what to do, and nothing touched, when the archive is not what its manifest says.
func TestDamage(t *testing.T) {
	for _, c := range []struct {
		name, pattern string
		do            func(path string) error
		want          string
	}{
		{"sidecar changed", "_weir/manifests/weir.logs/2/*.seen", func(p string) error { return os.WriteFile(p, []byte("else"), 0o600) }, "restore it from a copy"},
		{"sidecar gone", "_weir/manifests/weir.logs/2/*.seen", os.Remove, "read the interval state"},
		{"manifest cut", "_weir/manifests/weir.logs/2/*/*.json", func(p string) error { return os.Truncate(p, 20) }, "manifest"},
		{"stray file", "_weir/tmp/weir.logs/2", func(p string) error { return os.WriteFile(filepath.Join(p, "notes.txt"), nil, 0o600) }, "move it away"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			a := testArchiver(t, "file://"+dir)
			s, _, err := a.Open(t.Context(), tp)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Write(t.Context(), batch(0)), s.Commit(t.Context(), ingest.Checkpoint{NextOffset: 1, Seen: []byte("state")}), s.Close()); err != nil {
				t.Fatal(err)
			}
			found, err := filepath.Glob(filepath.Join(dir, c.pattern))
			if err != nil || len(found) != 1 {
				t.Fatal(found, err)
			}
			if err := c.do(found[0]); err != nil {
				t.Fatal(err)
			}
			if _, _, err := testArchiver(t, "file://"+dir).Open(t.Context(), tp); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// manifests reads those of the partition, oldest first, and checks their chain.
func manifests(t *testing.T, s store.Store) (all []*archive.Manifest) {
	t.Helper()
	list := func(dir string) []store.Entry {
		entries, err := s.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
	dir, prev := archive.PartitionDir(archive.ManifestDir, tp), ""
	for _, day := range list(dir) {
		if !day.Dir {
			continue
		}
		for _, e := range list(path.Join(dir, day.Name)) {
			data, err := s.ReadFile(path.Join(dir, day.Name, e.Name))
			if err != nil {
				t.Fatal(err)
			}
			span, _, _ := archive.ParseSpan(e.Name)
			m, err := archive.ParseManifest(data, tp, span)
			if err != nil {
				t.Fatal(err)
			}
			if day.Name != archive.ManifestDay(m.Created) || m.Prev != prev {
				t.Errorf("%s: created %s, prev %q, want %q", e.Name, m.Created, m.Prev, prev)
			}
			if n := len(all); n > 0 && all[n-1].Next != m.First {
				t.Errorf("%s does not follow %d", e.Name, all[n-1].Next)
			}
			prev = archive.Digest(data)
			all = append(all, m)
		}
	}
	return all
}

// TestChain commits over days, with a clock that goes back once and a folder that a crash left empty: every manifest is kept, each holds the hash of
// the one before, and the newest is found.
func TestChain(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 3, 1, 23, 59, 0, 0, time.UTC)
	for i := range int64(6) {
		a := testArchiver(t, "file://"+dir)
		a.now = func() time.Time { return now }
		s, cp, err := a.Open(t.Context(), tp)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && (cp == nil || cp.NextOffset != i || string(cp.Seen) != fmt.Sprint(i)) {
			t.Fatalf("checkpoint %+v at the start of %d", cp, i)
		}
		if err := errors.Join(s.Write(t.Context(), batch(i)), s.Commit(t.Context(), ingest.Checkpoint{NextOffset: i + 1, Seen: fmt.Append(nil, i+1)}), s.Close()); err != nil {
			t.Fatal(err)
		}
		if now = now.Add(13 * time.Hour); i == 3 {
			now = now.Add(-48 * time.Hour)
			if err := os.Mkdir(filepath.Join(dir, "_weir/manifests/weir.logs/2/2026-03-09"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	archived := testArchiver(t, "file://"+dir).store
	all := manifests(t, archived)
	if len(all) != 6 || len(readIDs(t, archived)) != 6*300 {
		t.Errorf("%d manifests", len(all))
	}
	source := all[2].Sources["docker/n/c"]
	if want := (archive.Range{Incarnation: schema.Incarnation{Start: 5, Print: 6}, From: 1300, To: 2300}); source.Records != 300 || len(source.Ranges) != 1 || source.Ranges[0] != want {
		t.Errorf("source %+v", source)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "_weir/manifests/weir.logs/2/*.*"))
	if len(left) != 2 {
		t.Errorf("sidecars that are left: %v", left)
	}
}
