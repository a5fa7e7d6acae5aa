package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// failing is a local store whose files cannot be created, written or closed.
type failing struct {
	Store
	create, write, close error
	tries                int
}

func (s *failing) Create(name string) (File, error) {
	s.tries++
	if s.create != nil {
		return nil, s.create
	}
	f, err := s.Store.Create(name)
	return &failingFile{f, s}, err
}

type failingFile struct {
	File
	s *failing
}

func (f *failingFile) Write(p []byte) (int, error) {
	if f.s.write != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, f.s.write
	}
	return f.File.Write(p)
}

func (f *failingFile) Close() error { return errors.Join(f.File.Close(), f.s.close) }

func newTestSpool(t *testing.T, limit int64) (*spool, []*failing) {
	t.Helper()
	local, err := newLocalStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ways := []*failing{{Store: local}, {Store: local}, {Store: local}}
	return newSpool(local, []Store{ways[0], ways[1], ways[2]}, Config{SpoolDir: t.TempDir(), SpoolBytes: limit}), ways
}

var errNode = &net.OpError{Op: "write", Err: syscall.ECONNRESET}

// TestSpoolWays uploads while some ways fail. What is there at the end is whole, or the error says why.
func TestSpoolWays(t *testing.T) {
	quota := &RemoteError{"DSQuotaExceededException", "the quota is full"}
	for _, c := range []struct {
		name  string
		fail  func(w []*failing)
		tries [3]int
		want  error
	}{
		{"nothing fails", func([]*failing) {}, [3]int{1, 0, 0}, nil},
		{"in a block", func(w []*failing) { w[0].write = errNode }, [3]int{1, 1, 0}, nil},
		{"at the end", func(w []*failing) { w[0].close = errNode }, [3]int{1, 1, 0}, nil},
		{"two ways", func(w []*failing) { w[0].close, w[1].create = errNode, errNode }, [3]int{1, 1, 1}, nil},
		{"a try that comes late", func(w []*failing) { w[0].write, w[1].create = errNode, fs.ErrExist }, [3]int{1, 1, 1}, nil},
		{"all", func(w []*failing) { w[0].write, w[1].write, w[2].write = errNode, errNode, errNode }, [3]int{1, 1, 1}, errNode},
		{"quota", func(w []*failing) { w[0].write = quota }, [3]int{1, 0, 0}, quota},
		{"rights", func(w []*failing) { w[0].create = fs.ErrPermission }, [3]int{1, 0, 0}, fs.ErrPermission},
		{"fenced", func(w []*failing) { w[0].create = fs.ErrNotExist }, [3]int{1, 0, 0}, fs.ErrNotExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, ways := newTestSpool(t, 1<<20)
			c.fail(ways)
			again := 0
			s.again = func(string, error) { again++ }
			data := bytes.Repeat([]byte("weir"), 50_000)
			err := WriteFile(s, "f", data)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if got := [3]int{ways[0].tries, ways[1].tries, ways[2].tries}; got != c.tries {
				t.Errorf("tries %v, want %v", got, c.tries)
			}
			if want := max(0, c.tries[0]+c.tries[1]+c.tries[2]-1); again != want {
				t.Errorf("told %d times of another try, want %d", again, want)
			}
			if got, _ := s.ReadFile("f"); c.want == nil && !bytes.Equal(got, data) {
				t.Errorf("%d bytes of %d", len(got), len(data))
			}
			if used := s.used.Load(); used != 0 {
				t.Errorf("%d bytes are still counted", used)
			}
		})
	}
}

// TestSpoolRemembers wants the files after a failure to begin with the way that worked.
func TestSpoolRemembers(t *testing.T) {
	s, ways := newTestSpool(t, 1<<20)
	ways[0].write = errNode
	for i := range 3 {
		if err := WriteFile(s, fmt.Sprint(i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if ways[0].tries != 1 || ways[1].tries != 3 {
		t.Errorf("tries %d and %d", ways[0].tries, ways[1].tries)
	}
	s.until = time.Now().Add(-time.Second)
	ways[0].write = nil
	if err := WriteFile(s, "later", []byte("x")); err != nil || ways[0].tries != 2 {
		t.Errorf("after a minute: %v, %d tries", err, ways[0].tries)
	}
}

// TestSpoolFull writes files beyond the limit, into a folder that is gone, and onto a full disk. They go to the store as they grow.
func TestSpoolFull(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	write := func(t *testing.T, s *spool, names ...string) {
		t.Helper()
		var files []File
		for _, name := range names {
			f, err := s.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		for piece := range slices.Chunk(data, 7000) {
			for i, f := range files {
				if _, err := f.Write(piece); err != nil {
					t.Fatalf("%s: %v", names[i], err)
				}
			}
			if used := s.used.Load(); used > s.limit {
				t.Fatalf("%d bytes in the spool, more than %d", used, s.limit)
			}
		}
		for i, f := range files {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := s.ReadFile(names[i]); !bytes.Equal(got, data) {
				t.Errorf("%s has %d bytes of %d, %v", names[i], len(got), len(data), err)
			}
		}
		if used := s.used.Load(); used != 0 {
			t.Errorf("%d bytes are still counted", used)
		}
	}
	t.Run("limit", func(t *testing.T) {
		s, ways := newTestSpool(t, 120_000)
		var told []error
		s.full = func(err error) { told = append(told, err) }
		write(t, s, "a", "b")
		if len(told) != 1 || !strings.Contains(told[0].Error(), "archiver.spool_bytes: 120000 bytes are full") {
			t.Errorf("told %v", told)
		}
		// A file that is not kept fails with its datanode, and the next one takes another way.
		ways[0].write, s.limit = errNode, 10
		if err := WriteFile(s, "c", data); !errors.Is(err, errNode) {
			t.Errorf("%v", err)
		}
		if err := WriteFile(s, "d", data); err != nil {
			t.Error(err)
		}
	})
	t.Run("folder gone", func(t *testing.T) {
		s, _ := newTestSpool(t, 1<<20)
		s.dir += "/none"
		told := 0
		s.full = func(error) { told++ }
		if write(t, s, "a"); told != 1 {
			t.Errorf("told %d times", told)
		}
	})
	t.Run("disk", func(t *testing.T) {
		dir := t.TempDir()
		if err := syscall.Mount("weir-test", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("needs the right to mount a small disk: %v", err)
		}
		defer syscall.Unmount(dir, 0)
		s, _ := newTestSpool(t, 1<<20)
		s.dir = dir
		var told []error
		s.full = func(err error) { told = append(told, err) }
		write(t, s, "a")
		if len(told) != 1 || !errors.Is(told[0], syscall.ENOSPC) || Reason(told[0]) != "disk_full" {
			t.Errorf("told %v", told)
		}
		if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
			t.Errorf("left in the spool: %v, %v", left, err)
		}
	})
}

// TestWatched wants the oldest failure to be told until a commit went through, and answers not to count as failures.
func TestWatched(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Root = "file://" + t.TempDir()
	reg := prometheus.NewRegistry()
	w, err := Watch(cfg, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w.now = func() time.Time { return at }
	local := w.Store
	w.Store = &failing{Store: local, create: &RemoteError{"SafeModeException", "is on"}}
	if _, err := w.Stat("none"); !errors.Is(err, fs.ErrNotExist) || w.Health() != nil {
		t.Errorf("%v, health %v", err, w.Health())
	}
	_ = WriteFile(w, "f", nil)
	at = at.Add(time.Hour)
	_ = WriteFile(w, "f", nil)
	if err := w.Health(); err == nil || err.Error() != "create fails since 2026-01-02T03:04:05Z (safe_mode): SafeModeException: is on" {
		t.Errorf("health %v", err)
	}
	if n := testutil.ToFloat64(w.errors.WithLabelValues("create", "safe_mode")); n != 2 || testutil.ToFloat64(w.up) != 0 {
		t.Errorf("%v errors, up %v", n, testutil.ToFloat64(w.up))
	}
	w.Store = local
	if err := errors.Join(WriteFile(w, "f", nil), w.Rename("f", "g")); err != nil || w.Health() != nil || testutil.ToFloat64(w.up) != 1 {
		t.Errorf("%v, health %v", err, w.Health())
	}
}
