package archiver

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/schema"
)

var tp = ingest.TopicPartition{Topic: schema.TopicLogs, Partition: 2}

func testArchiver(t *testing.T, root string) *Archiver {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Root, cfg.RowGroupRows, cfg.OpenHours = root, 128, 2
	a, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// readIDs counts the archive's rows by id, and checks of every file what readers rely on.
func readIDs(t *testing.T, s store) map[string]int {
	t.Helper()
	ids := map[string]int{}
	readFolder(t, s, tp.Topic, ids)
	return ids
}

func readFolder(t *testing.T, s store, dir string, ids map[string]int) {
	t.Helper()
	entries, err := s.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := path.Join(dir, e.name); e.dir {
			readFolder(t, s, name, ids)
		} else {
			readFile(t, s, name, ids)
		}
	}
}

func readFile(t *testing.T, s store, name string, ids map[string]int) {
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
	rows, err := parquet.Read[row](bytes.NewReader(data), int64(len(data)))
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
	return readIDs(t, &localStore{dir: dir})
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
	b := &schema.Batch{Topic: tp.Topic, Partition: tp.Partition, KafkaOffset: offset, Source: "docker/n/c", Begin: schema.Position{Incarnation: schema.Incarnation{Start: 5, Print: 6}, Offset: offset * 1000},
		Resource: []schema.Attr{schema.String(schema.AttrContainerName, "web"), schema.String(schema.AttrApp, "shop"), schema.String(schema.LabelPrefix+"team", "a"), schema.String("k8s.pod.name", "web-1")}}
	for i := range int64(300) {
		b.Records = append(b.Records, schema.Record{Offset: offset*1000 + i, Time: 1764054000e9 + i/100*3600e9 + i, Observed: 1764054000e9, Body: fmt.Sprintf("line %d\x00\xff", i), Severity: 17,
			Attrs: []schema.Attr{schema.String(schema.AttrStream, "stderr"), schema.Int("n", i), schema.Bool("b", true), schema.Double("d", 1.5)}})
	}
	return b
}

// TestKilledAtEachStep stops a commit before each of its steps, as a crash would, and opens the archive anew. Whether the
// commit happened or not, giving again what the checkpoint says leaves every record there once.
func TestKilledAtEachStep(t *testing.T) {
	steps := map[string]int{}
	count := func(step string) error { steps[step]++; return nil }
	commit := func(t *testing.T, a *Archiver, from, to int64) error {
		s, cp, err := a.Open(t.Context(), tp)
		if err != nil {
			return err
		}
		if cp != nil {
			from = cp.NextOffset
		}
		for o := from; o < to; o++ {
			if err := s.Write(t.Context(), batch(o)); err != nil {
				return err
			}
		}
		return s.Commit(t.Context(), ingest.Checkpoint{NextOffset: to, Seen: fmt.Appendf(nil, "seen %d", to)})
	}
	dir := t.TempDir()
	a := testArchiver(t, "file://"+dir)
	if err := commit(t, a, 0, 2); err != nil {
		t.Fatal(err)
	}
	a.hook = count
	if err := commit(t, a, 0, 4); err != nil {
		t.Fatal(err)
	}
	if len(steps) < 7 {
		t.Fatalf("steps: %v", steps)
	}
	for step, times := range steps {
		for nth := range times {
			t.Run(fmt.Sprintf("%s-%d", step, nth), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				a := testArchiver(t, "file://"+dir)
				if err := commit(t, a, 0, 2); err != nil {
					t.Fatal(err)
				}
				seen := 0
				a.hook = func(s string) error {
					if s == step {
						seen++
						if seen > nth {
							return errors.New("killed")
						}
					}
					return nil
				}
				if err := commit(t, a, 2, 4); err == nil || !strings.Contains(err.Error(), "killed") {
					t.Fatalf("the commit went through: %v", err)
				}
				// Nothing is closed: the process is gone. Another comes, and dies at the same place once more.
				b := testArchiver(t, "file://"+dir)
				seen, b.hook = 0, a.hook
				_ = commit(t, b, 2, 4)
				c := testArchiver(t, "file://"+dir)
				if err := commit(t, c, 2, 6); err != nil {
					t.Fatal(err)
				}
				ids := localIDs(t, dir)
				if len(ids) != 6*300 {
					t.Errorf("%d records, want %d", len(ids), 6*300)
				}
				for id, n := range ids {
					if n != 1 {
						t.Errorf("%s is there %d times", id, n)
					}
				}
				left, _ := filepath.Glob(filepath.Join(dir, "_weir/tmp/weir.logs/2/*"))
				if len(left) > 1 {
					t.Errorf("folders of dead writers are left: %v", left)
				}
			})
		}
	}
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
		{"manifest cut", "_weir/manifests/weir.logs/2/*.json", func(p string) error { return os.Truncate(p, 20) }, "manifest"},
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

// storeSuite is what every store must do.
func storeSuite(t *testing.T, s store) {
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	is := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	is("make a folder", s.MkdirAll("a/b"), nil)
	is("make it again", s.MkdirAll("a/b"), nil)
	for _, size := range []int{0, 1, 100_000} {
		name := fmt.Sprintf("a/b/%d", size)
		is("write "+name, writeFile(s, name, bytes.Repeat([]byte{7}, size)), nil)
		data, err := s.ReadFile(name)
		is("read "+name, err, nil)
		e, err := s.Stat(name)
		is("stat "+name, err, nil)
		if len(data) != size || e.size != int64(size) || e.dir || e.name != fmt.Sprint(size) {
			t.Errorf("%s has %d bytes and is listed as %+v", name, len(data), e)
		}
	}
	_, err := s.Create("a/b/1")
	is("create what exists", err, fs.ErrExist)
	_, err = s.Create("a/nowhere/1")
	is("create in a folder that is gone", err, fs.ErrNotExist)
	_, err = s.ReadFile("a/b/none")
	is("read what is not there", err, fs.ErrNotExist)
	_, err = s.Stat("a/b/none")
	is("stat what is not there", err, fs.ErrNotExist)
	_, err = s.List("a/none")
	is("list what is not there", err, fs.ErrNotExist)
	is("remove what is not there", s.Remove("a/b/none"), fs.ErrNotExist)
	is("rename onto a file", s.Rename("a/b/0", "a/b/1"), fs.ErrExist)
	is("rename what is not there", s.Rename("a/b/none", "a/b/2"), fs.ErrNotExist)
	is("rename", s.Rename("a/b/0", "a/moved"), nil)
	if s.Remove("a/b") == nil {
		t.Error("a folder with files was removed")
	}
	entries, err := s.List("a")
	is("list", err, nil)
	if len(entries) != 2 || entries[0].name != "b" || !entries[0].dir || entries[1].name != "moved" {
		t.Errorf("entries %+v", entries)
	}
	r, err := s.Open("a/b/100000")
	is("open", err, nil)
	p := make([]byte, 10)
	if n, err := r.ReadAt(p, 99_995); n != 5 || err == nil {
		t.Errorf("read past the end: %d, %v", n, err)
	}
	if n, err := r.ReadAt(p, 50_000); n != 10 || err != nil || p[0] != 7 {
		t.Errorf("read in the middle: %d, %v", n, err)
	}
	is("close", r.Close(), nil)
	is("remove the tree", removeTree(s, "a"), nil)
	_, err = s.List("a")
	is("list what was removed", err, fs.ErrNotExist)
}

func TestLocalStore(t *testing.T) {
	s, err := newLocalStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	storeSuite(t, s)
}

func TestBadRoots(t *testing.T) {
	for _, c := range [][2]string{{"", "neither file:///path nor hdfs"}, {"/data", "neither"}, {"s3://b/x", "scheme"}, {"file://host/x", "three slashes"}, {"hdfs://nn/x", "host:port"}, {"hdfs://nn:8020", "names no folder"}, {"file:///", "names no folder"}} {
		cfg := DefaultConfig()
		cfg.Root = c[0]
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%q: %v, want %q", c[0], err, c[1])
		}
	}
}
