package archiver

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"weir/archiver/archive"
	"weir/archiver/read"
	"weir/ingest"
	"weir/schema"
)

// laterOn is long after the records of batch.
var laterOn = time.Unix(1764054000, 0).Add(48 * time.Hour)

func testCompactor(t *testing.T, root string) *Compactor {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Root, cfg.RowGroupRows = root, 128
	cfg.Compact.TempDir = t.TempDir()
	c, err := NewCompactor(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.now = func() time.Time { return laterOn }
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// few is a batch of one hour.
func few(offset int64) *schema.Batch {
	b := batch(offset)
	b.Records = b.Records[:10]
	return b
}

// fill commits batches one by one, so that each makes files of its own.
func fill(t *testing.T, root string, from, to int64, make func(int64) *schema.Batch) {
	t.Helper()
	a := testArchiver(t, root)
	defer a.Close()
	a.now = func() time.Time { return time.Unix(1764054000, 0).Add(4 * time.Hour) }
	s, _, err := a.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	for o := from; o < to; o++ {
		if err := errors.Join(s.Write(t.Context(), make(o)), s.Commit(t.Context(), ingest.Checkpoint{NextOffset: o + 1})); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func compactAll(t *testing.T, c *Compactor) (records []*archive.Compaction, err error) {
	t.Helper()
	hours, err := c.Plan(t.Context(), archive.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range hours {
		made, err := c.Run(t.Context(), &hours[i])
		records = append(records, made...)
		if err != nil {
			return records, err
		}
	}
	return records, nil
}

// readers counts what those see who read through manifests and compaction records, and those who list the folders.
func readers(t *testing.T, c *Compactor, want int) {
	t.Helper()
	places, err := archive.Snapshot(t.Context(), c.store, archive.Scope{})
	if err != nil {
		t.Error(err)
		return
	}
	ids := map[string]int{}
	for i := range places {
		r, err := places[i].Open(c.store)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := archive.EachRow(r, places[i].Bytes, func(rows []archive.Row) error {
			for j := range rows {
				ids[rows[j].ID]++
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		r.Close()
	}
	if len(ids) != want {
		t.Errorf("readers of a snapshot see %d records, want %d", len(ids), want)
	}
	for id, n := range ids {
		if n != 1 {
			t.Fatalf("a reader of a snapshot sees %s %d times", id, n)
		}
	}
}

// listing wants that those who list the folders miss none. They see a record twice at most.
func listing(t *testing.T, c *Compactor, want, most int) {
	t.Helper()
	ids := readIDs(t, c.store)
	if len(ids) != want {
		t.Errorf("who lists the folders sees %d records, want %d", len(ids), want)
	}
	for id, n := range ids {
		if n > most {
			t.Fatalf("who lists the folders sees %s %d times", id, n)
		}
	}
}

func TestCompact(t *testing.T) {
	root := "file://" + t.TempDir()
	fill(t, root, 0, 6, batch)
	c := testCompactor(t, root)
	c.cfg.Compact.MemoryBytes = 100_000 // several runs
	records, err := compactAll(t, c)
	if err != nil || len(records) != 3 {
		t.Fatalf("%d records, %v; want one for each hour", len(records), err)
	}
	for _, r := range records {
		if len(r.Files) != 1 || len(r.Replaces) != 6 || r.Files[0].Rows != 600 || r.N != 1 {
			t.Errorf("record %+v", r)
		}
	}
	readers(t, c, 1800)
	listing(t, c, 1800, 1)
	if again, err := compactAll(t, c); err != nil || len(again) != 0 {
		t.Errorf("a second run did something: %v, %v", again, err)
	}
	// What comes late is merged with what is there by the next run.
	fill(t, root, 6, 7, batch)
	records, err = compactAll(t, c)
	if err != nil || len(records) != 3 || len(records[0].Replaces) != 2 || records[0].N != 2 || records[0].Prev == "" {
		t.Fatalf("late files: %+v, %v", records, err)
	}
	readers(t, c, 2100)
	listing(t, c, 2100, 1)
	if left, _ := filepath.Glob(filepath.Join(strings.TrimPrefix(root, "file://"), "_weir/tmp/compact/*/*/*/*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestCompactOrder wants the rows by slices of time, container and time, and files of the size that was asked for.
func TestCompactOrder(t *testing.T) {
	root := "file://" + t.TempDir()
	a := testArchiver(t, root)
	s, _, err := a.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	for o := range int64(8) {
		b := batch(o)
		container := fmt.Sprintf("%064d", 9-o%4)
		b.Source, b.Resource = "docker/n/"+container, append(b.Resource, schema.String(schema.AttrContainerID, container))
		for i := range b.Records {
			b.Records[i].Time = 1764054000e9 + int64(i/100)*int64(slice) + (8-o)*1000 + int64(i)
			b.Records[i].Body = archive.Digest([]byte(fmt.Sprint(o, i)))
		}
		if err := errors.Join(s.Write(t.Context(), b), s.Commit(t.Context(), ingest.Checkpoint{NextOffset: o + 1})); err != nil {
			t.Fatal(err)
		}
	}
	c := testCompactor(t, root)
	hours, err := c.Plan(t.Context(), archive.Scope{})
	if err != nil || len(hours) != 1 || len(hours[0].Merges) != 1 {
		t.Fatalf("%+v, %v", hours, err)
	}
	c.cfg.Compact.TargetBytes = hours[0].Merges[0].Bytes / 3
	records, err := compactAll(t, c)
	if err != nil || len(records) != 1 || len(records[0].Files) < 2 {
		t.Fatal(records, err)
	}
	for _, r := range records {
		var last archive.Row
		for i := range r.Files {
			p := archive.Place{File: r.Files[i]}
			if p.Bytes < c.cfg.Compact.TargetBytes && i < len(r.Files)-1 {
				t.Errorf("file %d of %d has %d bytes", i, len(r.Files), p.Bytes)
			}
			_, _, err := c.read(t.Context(), &p, func(rows []archive.Row) error {
				for j := range rows {
					if inOrder(&last, &rows[j]) > 0 {
						t.Fatalf("%s stands behind %s", rows[j].ID, last.ID)
					}
					last = rows[j]
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	readers(t, c, 2400)
}

// TestCompactGroups wants row groups to end with their slice of time.
func TestCompactGroups(t *testing.T) {
	root := "file://" + t.TempDir()
	fill(t, root, 0, 2, func(o int64) *schema.Batch {
		b := batch(o)
		for i := range b.Records {
			b.Records[i].Time = 1764054000e9 + int64(i/100)*int64(slice)
		}
		return b
	})
	c := testCompactor(t, root)
	c.cfg.RowGroupRows = 1600
	records, err := compactAll(t, c)
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	data, err := c.store.ReadFile(records[0].Files[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var rows []int64
	for _, g := range f.RowGroups() {
		rows = append(rows, g.NumRows())
	}
	if !slices.Equal(rows, []int64{200, 200, 200}) {
		t.Errorf("row groups of %v rows", rows)
	}
}

// TestCompactKilled stops a compaction before each of its steps, as a crash would. At every step, after the crash and after
// the run that follows, a reader sees each record once.
func TestCompactKilled(t *testing.T) {
	compactKilled(t, func(t *testing.T) string { return "file://" + t.TempDir() }, 2)
}

// compactKilled kills at the first most times that each step is done.
func compactKilled(t *testing.T, newRoot func(*testing.T) string, most int) {
	steps := map[string]int{}
	prepare := func(t *testing.T) *Compactor {
		root := newRoot(t)
		fill(t, root, 0, 3, few)
		c := testCompactor(t, root)
		if _, err := compactAll(t, c); err != nil {
			t.Fatal(err)
		}
		fill(t, root, 3, 5, few)
		return c
	}
	c := prepare(t)
	c.hook = func(step string) error { steps[step]++; return nil }
	if _, err := compactAll(t, c); err != nil {
		t.Fatal(err)
	}
	if len(steps) < 8 {
		t.Fatalf("steps: %v", steps)
	}
	for step, times := range steps {
		for nth := range min(times, most) {
			t.Run(fmt.Sprintf("%s-%d", step, nth), func(t *testing.T) {
				t.Parallel()
				c := prepare(t)
				seen := 0
				c.hook = func(s string) error {
					readers(t, c, 50)
					listing(t, c, 50, 2)
					if s == step {
						if seen++; seen > nth {
							return errors.New("killed")
						}
					}
					return nil
				}
				if _, err := compactAll(t, c); err == nil || !strings.Contains(err.Error(), "killed") {
					t.Fatalf("the compaction went through: %v", err)
				}
				// Another comes, and dies at the same place once more.
				seen = 0
				_, _ = compactAll(t, c)
				c.hook = func(string) error { readers(t, c, 50); return nil }
				if _, err := compactAll(t, c); err != nil {
					t.Fatal(err)
				}
				readers(t, c, 50)
				listing(t, c, 50, 1)
				if again, err := compactAll(t, c); err != nil || len(again) != 0 {
					t.Errorf("there is still something to do: %v, %v", again, err)
				}
			})
		}
	}
}

// TestTwoCompactions has another compaction of the same hours run whole at each step of one.
func TestTwoCompactions(t *testing.T) {
	for _, step := range []string{"fence", "merge", "verify", "record", "folder", "commit", "place", "remove"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			root := "file://" + t.TempDir()
			fill(t, root, 0, 3, few)
			c, other := testCompactor(t, root), testCompactor(t, root)
			ran := false
			c.hook = func(s string) error {
				if s == step && !ran {
					ran = true
					if _, err := compactAll(t, other); err != nil {
						t.Errorf("the later one: %v", err)
					}
				}
				readers(t, c, 30)
				return nil
			}
			_, err := compactAll(t, c)
			if err != nil && !strings.Contains(err.Error(), "another compaction") && !strings.Contains(err.Error(), "not exist") && !strings.Contains(err.Error(), "no such file") {
				t.Error(err)
			}
			c.hook = func(string) error { return nil }
			if _, err := compactAll(t, c); err != nil {
				t.Fatal(err)
			}
			readers(t, c, 30)
			listing(t, c, 30, 1)
		})
	}
}

// TestReadWhileCompacting compacts the archive in the midst of a search, which then finds the rest in the merged files.
func TestReadWhileCompacting(t *testing.T) {
	for _, at := range []int{0, 1, 25, 49} {
		root := "file://" + t.TempDir()
		fill(t, root, 0, 5, few)
		c := testCompactor(t, root)
		ids := map[string]int{}
		for h, err := range read.New(c.store).Records(t.Context(), read.Query{Newest: at == 25}, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if len(ids) == at {
				if _, err := compactAll(t, c); err != nil {
					t.Fatal(err)
				}
			}
			ids[h.ID()]++
		}
		if len(ids) != 50 {
			t.Errorf("compacted after %d records: %d were found", at, len(ids))
		}
		for id, n := range ids {
			if n != 1 {
				t.Errorf("compacted after %d records: %s was found %d times", at, id, n)
			}
		}
	}
}

// TestCompactLeaves tells what a compaction does not touch.
func TestCompactLeaves(t *testing.T) {
	t.Run("open hours", func(t *testing.T) {
		root := "file://" + t.TempDir()
		fill(t, root, 0, 2, batch)
		c := testCompactor(t, root)
		c.now = func() time.Time { return time.Unix(1764054000, 0).Truncate(time.Hour).Add(4 * time.Hour) } // the first two of three are closed
		if records, err := compactAll(t, c); err != nil || len(records) != 2 {
			t.Errorf("%d records, %v", len(records), err)
		}
	})
	t.Run("damaged files", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, "file://"+dir, 0, 2, batch)
		files, _ := filepath.Glob(filepath.Join(dir, tp.Topic, "*", "*", "*.parquet"))
		data, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(files[0], data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := compactAll(t, testCompactor(t, "file://"+dir)); err == nil || !strings.Contains(err.Error(), "it was changed") || !strings.Contains(err.Error(), filepath.Base(files[0])) {
			t.Errorf("error %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, tp.Topic, "*", "*", "*.parquet")); len(left) != len(files) {
			t.Errorf("%d files of %d", len(left), len(files))
		}
	})
	// The archiver is killed in the last steps of a commit, and started after a compaction.
	for step, want := range map[string]int{"settle": 2, "done": 3} {
		t.Run("files of a commit killed at "+step, func(t *testing.T) {
			root := "file://" + t.TempDir()
			fill(t, root, 0, 2, few)
			killCommit(t, root, step)
			c := testCompactor(t, root)
			records, err := compactAll(t, c)
			if err != nil || len(records) != 1 || len(records[0].Replaces) != want {
				t.Errorf("merged %+v, %v", records, err)
			}
			readers(t, c, 30)
			fill(t, root, 3, 4, few)
			readers(t, c, 40)
			listing(t, c, 40, 1)
		})
	}
	t.Run("files that a record without a signature replaces", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, "file://"+dir, 0, 2, few)
		c := testCompactor(t, "file://"+dir)
		c.hook = killedAt("remove")
		if _, err := compactAll(t, c); err == nil {
			t.Fatal("it was not killed")
		}
		c.hook = func(string) error { return nil }
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		c.key = key
		if _, err := compactAll(t, c); !errors.Is(err, archive.ErrUnsigned) {
			t.Errorf("finished: %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, tp.Topic, "*", "*", "p*.parquet")); len(left) != 2 {
			t.Errorf("%d files of 2 are left", len(left))
		}
		c.key = nil
		if _, err := compactAll(t, c); err != nil {
			t.Error(err)
		}
		listing(t, c, 20, 1)
	})
	t.Run("large files", func(t *testing.T) {
		root := "file://" + t.TempDir()
		fill(t, root, 0, 3, batch)
		c := testCompactor(t, root)
		c.cfg.Compact.TargetBytes = 100
		if hours, err := c.Plan(t.Context(), archive.Scope{}); err != nil || len(hours) != 0 {
			t.Errorf("%+v, %v", hours, err)
		}
	})
}

// killedAt is a hook that kills at a step.
func killedAt(step string) func(string) error {
	return func(s string) error {
		if s == step {
			return errors.New("killed")
		}
		return nil
	}
}

// killCommit has the archiver write few(2) to an archive that ends at offset 2, and kills it at a step of the commit. It runs on until the test's end.
func killCommit(t *testing.T, root, step string) {
	t.Helper()
	a := testArchiver(t, root)
	t.Cleanup(func() { a.Close() })
	a.hook = killedAt(step)
	s, _, err := a.Open(t.Context(), tp)
	if err == nil {
		err = s.Write(t.Context(), few(2))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), ingest.Checkpoint{NextOffset: 3}); err == nil {
		t.Fatal("the commit went through")
	}
}
