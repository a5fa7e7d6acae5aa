package archiver

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/archiver/archive"
	"weir/archiver/read"
	"weir/ingest"
	"weir/schema"
)

// The records of batch are of one day, which is asked to expire.
var (
	oldDay = time.Unix(1764054000, 0).UTC().Truncate(24 * time.Hour)
	newDay = oldDay.AddDate(0, 0, 1)
)

func testExpirer(t *testing.T, root string) *Expirer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Root = root
	e, err := NewExpirer(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	e.c.now = func() time.Time { return laterOn }
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// next is a batch of the day after, which stays.
func next(offset int64) *schema.Batch {
	b := few(offset)
	for i := range b.Records {
		b.Records[i].Time += int64(24 * time.Hour)
		b.Records[i].Observed += int64(24 * time.Hour)
	}
	return b
}

// expireAll lets everything before the new day expire.
func expireAll(t *testing.T, e *Expirer) (records []*archive.Expiry, days []*Day, err error) {
	t.Helper()
	days, err = e.Days(newDay, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range days {
		r, err := e.Run(t.Context(), d)
		if r != nil {
			records = append(records, r)
		}
		if err != nil {
			return records, days, err
		}
	}
	return records, days, nil
}

func TestExpire(t *testing.T) {
	root := "file://" + t.TempDir()
	fill(t, root, 0, 3, batch) // three hours of the old day
	fill(t, root, 3, 5, next)
	c, e := testCompactor(t, root), testExpirer(t, root)

	days, err := e.Days(newDay, nil)
	if err != nil || len(days) != 1 {
		t.Fatal(days, err)
	}
	if err := e.Look(t.Context(), days[0]); err != nil || len(days[0].Files) != 9 || days[0].Rows != 900 {
		t.Errorf("%+v, %v", days[0], err)
	}
	readers(t, c, 920)
	records, _, err := expireAll(t, e)
	if err != nil || len(records) != 1 || len(records[0].Files) != 9 || records[0].N != 1 || records[0].Prev != "" || !records[0].Before.Equal(newDay) {
		t.Fatalf("%+v, %v", records, err)
	}
	readers(t, c, 20)
	listing(t, c, 20, 1)
	if _, err := c.store.Stat(archive.DayDir("", tp.Topic, oldDay)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the day's folder: %v", err)
	}
	if again, days, err := expireAll(t, e); err != nil || len(again) != 0 || len(days) != 0 {
		t.Errorf("a second run did something: %v, %v, %v", again, days, err)
	}

	// What comes for the day later is not covered: it is read, merged, and expires by the next record.
	fill(t, root, 5, 7, few)
	readers(t, c, 40)
	if merged, err := compactAll(t, c); err != nil || len(merged) != 2 {
		t.Fatal(merged, err)
	}
	readers(t, c, 40)
	records, _, err = expireAll(t, e)
	if err != nil || len(records) != 1 || len(records[0].Files) != 1 || records[0].N != 2 || records[0].Prev == "" {
		t.Fatalf("late files: %+v, %v", records, err)
	}
	readers(t, c, 20)
	listing(t, c, 20, 1)
	if merged, err := compactAll(t, c); err != nil || len(merged) != 0 {
		t.Errorf("there is something to merge: %v, %v", merged, err)
	}
	if left, _ := filepath.Glob(filepath.Join(strings.TrimPrefix(root, "file://"), "_weir/tmp/*/*/*/*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	for _, before := range []time.Time{laterOn, laterOn.AddDate(0, 0, 3)} {
		if _, err := e.Days(before, nil); err == nil || !strings.Contains(err.Error(), "is later than yesterday") {
			t.Errorf("before %s: %v", before, err)
		}
	}
	if days, err := e.Days(oldDay, nil); err != nil || len(days) != 0 {
		t.Errorf("the day itself stays: %v, %v", days, err)
	}
}

// TestExpireAheadOfClock has a file whose records claimed to be of much later than they were archived at.
func TestExpireAheadOfClock(t *testing.T) {
	root := "file://" + t.TempDir()
	a := testArchiver(t, root)
	a.now = func() time.Time { return oldDay.AddDate(0, 0, -30) }
	s, _, err := a.Open(t.Context(), tp)
	if err == nil {
		err = errors.Join(s.Write(t.Context(), few(0)), s.Commit(t.Context(), ingest.Checkpoint{NextOffset: 1}), s.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if records, _, err := expireAll(t, testExpirer(t, root)); err != nil || len(records) != 1 || len(records[0].Files) != 1 {
		t.Errorf("%+v, %v", records, err)
	}
}

// TestExpireKilled stops an expiry before each of its steps, as a crash would. Before the record is in its place nothing is gone, from then on
// readers see nothing of the day, and the next run finishes what is left.
func TestExpireKilled(t *testing.T) {
	expireKilled(t, func(t *testing.T) string { return "file://" + t.TempDir() }, 2)
}

// expireKilled kills at the first most times that each step is done.
func expireKilled(t *testing.T, newRoot func(*testing.T) string, most int) {
	// An hour is merged, another one's merging was killed after its commit, and then come late files.
	prepare := func(t *testing.T) (*Compactor, *Expirer) {
		root := newRoot(t)
		fill(t, root, 0, 2, few)
		c := testCompactor(t, root)
		if _, err := compactAll(t, c); err != nil {
			t.Fatal(err)
		}
		fill(t, root, 2, 4, few)
		c.hook = killedAt("place")
		if _, err := compactAll(t, c); err == nil {
			t.Fatal("the compaction went through")
		}
		c.hook = func(string) error { return nil }
		fill(t, root, 4, 5, few)
		fill(t, root, 5, 6, next)
		readers(t, c, 60)
		return c, testExpirer(t, root)
	}
	steps := map[string]int{}
	_, e := prepare(t)
	e.c.hook = func(step string) error { steps[step]++; return nil }
	if _, _, err := expireAll(t, e); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"fence", "place", "remove", "record", "folder", "commit", "delete", "tidy"} {
		if steps[step] == 0 {
			t.Fatalf("steps: %v", steps)
		}
		for nth := range min(steps[step], most) {
			t.Run(fmt.Sprintf("%s-%d", step, nth), func(t *testing.T) {
				t.Parallel()
				c, e := prepare(t)
				seen, committed := 0, false
				e.c.hook = func(s string) error {
					if committed = committed || s == "delete" || s == "tidy"; committed {
						readers(t, c, 10)
					} else {
						readers(t, c, 60)
						listing(t, c, 60, 2)
					}
					if s == step {
						if seen++; seen > nth {
							return errors.New("killed")
						}
					}
					return nil
				}
				if _, _, err := expireAll(t, e); err == nil || !strings.Contains(err.Error(), "killed") {
					t.Fatalf("the expiry went through: %v", err)
				}
				seen = 0
				_, _, _ = expireAll(t, e) // another comes, and dies at the same place once more
				e.c.hook = func(string) error { return nil }
				if _, _, err := expireAll(t, e); err != nil {
					t.Fatal(err)
				}
				readers(t, c, 10)
				listing(t, c, 10, 1)
				if _, days, err := expireAll(t, e); err != nil || len(days) != 0 {
					t.Errorf("there is still something to do: %v, %v", days, err)
				}
				expiries, err := archive.Expiries(t.Context(), c.store, tp.Topic, archive.Scope{})
				if err != nil || len(expiries) != 1 || len(expiries[0].Files) != 2 {
					t.Errorf("records %+v, %v", expiries, err)
				}
				if n := countFiles(t, c.store, archive.TmpDir); n != 0 {
					t.Errorf("%d files of dead runs are left", n)
				}
			})
		}
	}
}

// TestExpireAndCompact lets a day expire at each step of a compaction of it, and compacts it at each step of an expiry. Who has not committed by then is shut out, and
// nothing of the day is read when both have been run again.
func TestExpireAndCompact(t *testing.T) {
	check := func(t *testing.T, first, second func() error, c *Compactor, e *Expirer, step string, hook *func(string) error, shutOut bool) {
		t.Helper()
		ran := false
		*hook = func(s string) error {
			if s == step && !ran {
				ran = true
				if err := second(); err != nil {
					t.Errorf("the later one: %v", err)
				}
			}
			return nil
		}
		if err := first(); (err != nil) != shutOut || shutOut && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the earlier one: %v, to be shut out: %t", err, shutOut)
		}
		if !ran {
			t.Fatalf("no step %s", step)
		}
		*hook = func(string) error { return nil }
		if _, err := compactAll(t, c); err != nil {
			t.Error(err)
		}
		if _, _, err := expireAll(t, e); err != nil {
			t.Error(err)
		}
		if _, err := compactAll(t, c); err != nil {
			t.Error(err)
		}
		readers(t, c, 10)
		listing(t, c, 10, 1)
		if n := countFiles(t, c.store, archive.TmpDir); n != 0 {
			t.Errorf("%d files are left", n)
		}
	}
	prepare := func(t *testing.T) (*Compactor, *Expirer, func() error, func() error) {
		root := "file://" + t.TempDir()
		fill(t, root, 0, 3, few)
		fill(t, root, 3, 4, next)
		c, e := testCompactor(t, root), testExpirer(t, root)
		return c, e, func() error { _, err := compactAll(t, c); return err }, func() error { _, _, err := expireAll(t, e); return err }
	}
	for _, step := range []string{"fence", "merge", "verify", "record", "folder", "commit", "place", "remove"} {
		t.Run("compacting-"+step, func(t *testing.T) {
			t.Parallel()
			c, e, compact, expire := prepare(t)
			check(t, compact, expire, c, e, step, &c.hook, slices.Contains([]string{"merge", "verify", "record", "folder", "commit"}, step)) // before that it finds nothing
		})
	}
	for _, step := range []string{"fence", "record", "folder", "commit", "delete", "tidy"} {
		t.Run("expiring-"+step, func(t *testing.T) {
			t.Parallel()
			c, e, compact, expire := prepare(t)
			check(t, expire, compact, c, e, step, &e.c.hook, slices.Contains([]string{"fence", "record", "folder", "commit"}, step))
		})
	}
}

// TestCompactStalePlan has a compaction that was planned before files expired which are there still.
func TestCompactStalePlan(t *testing.T) {
	root := "file://" + t.TempDir()
	fill(t, root, 0, 3, few)
	c, e := testCompactor(t, root), testExpirer(t, root)
	hours, err := c.Plan(t.Context(), archive.Scope{})
	if err != nil || len(hours) != 1 || len(hours[0].Merges) != 1 {
		t.Fatal(hours, err)
	}
	e.c.hook = killedAt("delete")
	if _, _, err := expireAll(t, e); err == nil {
		t.Fatal("it was not killed")
	}
	if made, err := c.Run(t.Context(), &hours[0]); err != nil || len(made) > 0 {
		t.Errorf("it merged %v, %v", made, err)
	}
}

// TestReadWhileExpiring lets the day expire in the midst of a search, which goes on without an error.
func TestReadWhileExpiring(t *testing.T) {
	root := "file://" + t.TempDir()
	fill(t, root, 0, 5, few)
	fill(t, root, 5, 6, next)
	e := testExpirer(t, root)
	ids := map[string]int{}
	var seen read.Progress
	for h, err := range read.New(e.c.store).Records(t.Context(), read.Query{Newest: true}, func(p read.Progress) { seen = p }) {
		if err != nil {
			t.Fatal(err)
		}
		if len(ids) == 0 {
			if _, _, err := expireAll(t, e); err != nil {
				t.Fatal(err)
			}
		}
		ids[h.ID()]++
	}
	if len(ids) < 10 || len(seen.Missing) > 0 {
		t.Errorf("%d records, missing %v", len(ids), seen.Missing)
	}
	for range read.New(e.c.store).Records(t.Context(), read.Query{}, func(p read.Progress) { seen = p }) {
	}
	if seen.Expired != 5 || seen.Listed != 1 || seen.Hits != 10 {
		t.Errorf("afterwards %+v", seen)
	}
}

// TestExpireLeaves tells what an expiry does not touch.
func TestExpireLeaves(t *testing.T) {
	t.Run("files that are not as they are listed", func(t *testing.T) {
		dir := t.TempDir()
		fill(t, "file://"+dir, 0, 3, few)
		files, _ := filepath.Glob(filepath.Join(dir, tp.Topic, "*", "*", "*.parquet"))
		if err := errors.Join(os.Truncate(files[0], 10), os.Remove(files[1]), os.WriteFile(filepath.Join(filepath.Dir(files[2]), "p2-99-99-1.parquet"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		records, days, err := expireAll(t, testExpirer(t, "file://"+dir))
		if err != nil || len(records) != 1 || len(records[0].Files) != 1 || len(days[0].Left) != 2 || !strings.Contains(days[0].Left[0].Why, "it has 10 bytes, and _weir/manifests/") || !strings.Contains(days[0].Left[1].Why, "no manifest") {
			t.Errorf("%+v, %+v, %v", records, days, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, tp.Topic, "*", "*", "*.parquet")); len(left) != 2 {
			t.Errorf("left %v", left)
		}
	})
	// The archiver is killed in the last steps of a commit of late records, and started after the expiry.
	for step, want := range map[string]int{"settle": 2, "done": 3} {
		t.Run("files of a commit killed at "+step, func(t *testing.T) {
			root := "file://" + t.TempDir()
			fill(t, root, 0, 2, few)
			killCommit(t, root, step)
			c, e := testCompactor(t, root), testExpirer(t, root)
			if records, _, err := expireAll(t, e); err != nil || len(records) != 1 || len(records[0].Files) != want {
				t.Errorf("expired %+v, %v", records, err)
			}
			fill(t, root, 3, 4, next)
			readers(t, c, 10+(3-want)*10)
			if _, _, err := expireAll(t, e); err != nil {
				t.Error(err)
			}
			readers(t, c, 10)
			listing(t, c, 10, 1)
		})
	}
	t.Run("files that a record without a signature names", func(t *testing.T) {
		root := "file://" + t.TempDir()
		fill(t, root, 0, 2, few)
		e := testExpirer(t, root)
		e.c.hook = killedAt("delete")
		if _, _, err := expireAll(t, e); err == nil {
			t.Fatal("it was not killed")
		}
		e.c.hook = func(string) error { return nil }
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		e.c.key = key
		if _, _, err := expireAll(t, e); !errors.Is(err, archive.ErrUnsigned) {
			t.Errorf("finished: %v", err)
		}
		if n := countFiles(t, e.c.store, tp.Topic); n != 2 {
			t.Errorf("%d files of 2 are left", n)
		}
		e.c.key = nil
		if _, _, err := expireAll(t, e); err != nil || countFiles(t, e.c.store, tp.Topic) != 0 {
			t.Error(err)
		}
	})
	t.Run("a record is signed", func(t *testing.T) {
		root := "file://" + t.TempDir()
		fill(t, root, 0, 1, few)
		e := testExpirer(t, root)
		public, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		e.c.key = key
		records, _, err := expireAll(t, e)
		if err != nil || len(records) != 1 {
			t.Fatal(records, err)
		}
		data, err := e.c.store.ReadFile(records[0].Name())
		if err == nil {
			err = archive.Verify(data, []ed25519.PublicKey{public})
		}
		if err != nil {
			t.Error(err)
		}
	})
}
