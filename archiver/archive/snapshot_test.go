package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/archiver/store"
	"weir/ingest"
)

func testStore(t *testing.T) store.Store {
	t.Helper()
	cfg := store.DefaultConfig()
	cfg.Root = "file://" + t.TempDir()
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(hour, minute int) time.Time { return time.Date(2026, 11, 25, hour, minute, 0, 0, time.UTC) }

func put(t *testing.T, s store.Store, name string, data []byte) {
	t.Helper()
	if err := errors.Join(s.MkdirAll(path.Dir(name)), store.WriteFile(s, name, data)); err != nil {
		t.Fatal(err)
	}
}

// commit writes the manifest of one commit with a file for each of the given hours, at its place or still aside.
func commit(t *testing.T, s store.Store, partition int, first int64, created time.Time, settled bool, hours ...int) {
	t.Helper()
	tp := ingest.TopicPartition{Topic: "weir.logs", Partition: partition}
	m := &Manifest{Version: ManifestVersion, Topic: tp.Topic, Partition: partition, First: first, Next: first + 10, Created: created}
	m.Seen.Path = "_weir/manifests/x.seen"
	for i, h := range hours {
		hour := at(h, 0).Unix() / 3600
		f := File{Path: FinalPath(tp, hour, first, first+9, i+1), Tmp: fmt.Sprintf("_weir/tmp/weir.logs/%d/w/%d-%d.parquet", partition, first, i), Rows: 1, MinTime: at(h, 10), MaxTime: at(h, 20)}
		m.Files = append(m.Files, f)
		name := f.Tmp
		if settled {
			name = f.Path
		}
		put(t, s, name, []byte(name))
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, path.Join(PartitionDir(ManifestDir, tp), created.UTC().Format(time.DateOnly), m.Span().Manifest()), data)
}

func compact(t *testing.T, s store.Store, hour, n int, replaces ...string) *Compaction {
	t.Helper()
	c := &Compaction{Version: CompactionVersion, Topic: "weir.logs", Hour: at(hour, 0), N: n, Created: at(23, 0)}
	f := File{Path: c.MergedPath(0), Tmp: fmt.Sprintf("_weir/tmp/compact/%d-%d.parquet", hour, n), Rows: int64(len(replaces)), MinTime: at(hour, 5), MaxTime: at(hour, 25)}
	c.Files = []File{f}
	for _, r := range replaces {
		c.Replaces = append(c.Replaces, Replaced{Path: r})
	}
	data, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, f.Tmp, nil)
	put(t, s, c.Name(), data)
	return c
}

func paths(places []Place) []string {
	var names []string
	for _, p := range places {
		names = append(names, strings.TrimPrefix(p.Path, "weir.logs/dt=2026-11-25/"))
	}
	return names
}

func TestSnapshot(t *testing.T) {
	s := testStore(t)
	commit(t, s, 0, 0, at(11, 0), true, 10)
	commit(t, s, 0, 10, at(12, 0), true, 10, 11)
	commit(t, s, 3, 0, at(12, 0), true, 11)
	commit(t, s, 0, 20, at(12, 0).AddDate(0, 0, 3), true, 10) // late by three days
	commit(t, s, 0, 30, at(12, 0).AddDate(0, 0, -4), true, 12)
	put(t, s, "_weir/manifests/weir.logs/0/00000000000000000000-00000000000000000010.done", nil)
	put(t, s, "weir.logs/dt=2026-11-25/hour=11/stray.parquet", nil)

	check := func(name string, scope Scope, want ...string) {
		t.Helper()
		places, err := Snapshot(t.Context(), s, scope)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := paths(places); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	check("all", Scope{}, "hour=10/p0-0-9-1.parquet", "hour=10/p0-10-19-1.parquet", "hour=10/p0-20-29-1.parquet", "hour=11/p0-10-19-2.parquet", "hour=11/p3-0-9-1.parquet", "hour=12/p0-30-39-1.parquet")
	check("an hour", Scope{Since: at(11, 0), Until: at(12, 0)}, "hour=11/p0-10-19-2.parquet", "hour=11/p3-0-9-1.parquet")
	check("the last moment", Scope{Since: at(11, 20), Until: at(11, 21)}, "hour=11/p0-10-19-2.parquet", "hour=11/p3-0-9-1.parquet")
	check("until is excluded", Scope{Since: at(11, 0), Until: at(11, 10)})
	check("made four days before its time", Scope{Since: at(12, 0)})
	check("no such topic", Scope{Topics: []string{"weir.events"}})

	first := compact(t, s, 10, 1, "weir.logs/dt=2026-11-25/hour=10/p0-0-9-1.parquet", "weir.logs/dt=2026-11-25/hour=10/p0-10-19-1.parquet")
	check("compacted", Scope{Until: at(11, 0)}, "hour=10/c1-0.parquet", "hour=10/p0-20-29-1.parquet")
	compact(t, s, 10, 2, first.Files[0].Path, "weir.logs/dt=2026-11-25/hour=10/p0-20-29-1.parquet")
	check("compacted again", Scope{Until: at(11, 0)}, "hour=10/c2-0.parquet")
}

// TestLateFiles has records that were archived long after their time. They are found without reading the manifests of all days since.
func TestLateFiles(t *testing.T) {
	s := testStore(t)
	later := func(days int) time.Time { return at(12, 0).AddDate(0, 0, days) }
	commit(t, s, 0, 0, at(11, 0), true, 10)
	for i := range 30 {
		switch days := i + 3; days {
		case 17:
			commit(t, s, 0, int64(10+10*i), later(days), true, 10, 14) // late, and in its place
		case 20:
			put(t, s, path.Join("_weir/manifests/weir.logs/0", later(days).Format(time.DateOnly), "note.txt"), nil) // a day without a manifest
		default:
			commit(t, s, 0, int64(10+10*i), later(days), true, 20)
		}
	}
	commit(t, s, 0, 310, later(40), false, 10)                         // the newest, which is not settled
	commit(t, s, 1, 0, later(9), true, 10)                             // the only one of its partition, late
	put(t, s, "weir.logs/dt=2026-11-25/hour=10/p7-0-1-1.parquet", nil) // of no manifest
	put(t, s, "weir.logs/dt=2026-11-25/hour=10/p0-990-991-1.parquet", nil)

	reads := &counting{Store: s}
	places, err := Snapshot(t.Context(), reads, Scope{Since: at(10, 0), Until: at(11, 0)})
	if err != nil {
		t.Fatal(err)
	}
	got := paths(places)
	slices.Sort(got)
	if want := []string{"hour=10/p0-0-9-1.parquet", "hour=10/p0-150-159-1.parquet", "hour=10/p0-310-319-1.parquet", "hour=10/p1-0-9-1.parquet"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if reads.files != 4 {
		t.Errorf("%d manifests were read, want 4", reads.files)
	}
}

type counting struct {
	store.Store
	mu    sync.Mutex
	files int
}

func (c *counting) ReadFile(name string) ([]byte, error) {
	c.mu.Lock()
	c.files++
	c.mu.Unlock()
	return c.Store.ReadFile(name)
}

func TestPlacesThatMove(t *testing.T) {
	s := testStore(t)
	commit(t, s, 0, 0, at(11, 0), false, 10)
	places, err := Snapshot(t.Context(), s, Scope{})
	if err != nil || len(places) != 1 {
		t.Fatal(places, err)
	}
	p := &places[0]
	open := func() error {
		r, err := p.Open(s)
		if err == nil {
			err = r.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Error("still aside:", err)
	}
	if err := errors.Join(s.MkdirAll(path.Dir(p.Path)), s.Rename(p.Tmp, p.Path)); err != nil {
		t.Fatal(err)
	}
	if err := open(); err != nil {
		t.Error("settled:", err)
	}
	if err := s.Remove(p.Path); err != nil {
		t.Fatal(err)
	}
	if err := open(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "00000000000000000010.json lists") {
		t.Error("gone:", err)
	}
}

func TestDamagedListings(t *testing.T) {
	for name, c := range map[string]struct{ file, data, want string }{
		"no archive":        {"other/x", "", "there is no archive"},
		"manifest":          {"_weir/manifests/t/0/2026-11-25/00000000000000000000-00000000000000000010.json", "{", "00000000000000000010.json: unexpected end"},
		"another manifest":  {"_weir/manifests/t/0/2026-11-25/00000000000000000000-00000000000000000010.json", fmt.Sprintf(`{"version":%d,"topic":"u"}`, ManifestVersion), "is of u/0"},
		"partition":         {"_weir/manifests/t/x/y", "", "not the folder of a partition"},
		"day":               {"_weir/manifests/t/0/today/y", "", "not the folder of a day"},
		"older archive":     {"_weir/manifests/t/0/00000000000000000000-00000000000000000010.json", "{}", "of an older weir"},
		"compaction record": {"_weir/compactions/t/dt=2026-11-25/hour=10/000001.json", `{"version":9}`, "version 9 is not 1"},
		"another record":    {"_weir/compactions/t/dt=2026-11-25/hour=10/000001.json", `{"version":1,"topic":"t","n":2}`, "number 2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			if c.file != "other/x" {
				put(t, s, "_weir/manifests/t/7/2026-11-25/note.txt", nil)
			}
			put(t, s, c.file, []byte(c.data))
			if _, err := Snapshot(t.Context(), s, Scope{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
