package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"
)

// spool keeps what is written on a local disk until the file is complete, and then uploads it. A datanode that fails costs
// another try of the upload and not the records of the whole commit, which would have to be read from Kafka again.
//
// The files have no name, so that nothing of them is left after a crash. When the disk or the limit is full, a file goes
// to the store from there on without waiting to be complete: it can then be tried in one way only.
type spool struct {
	Store
	ways  []Store // in which an upload is tried, one after the other
	dir   string  // empty: nothing is kept
	limit int64
	used  atomic.Int64
	// full is told why a file could not be kept, again why something is tried in another way.
	full  func(error)
	again func(operation string, err error)

	mu    sync.Mutex
	way   int // that uploads begin with, until
	until time.Time
}

func newSpool(first Store, ways []Store, cfg Config) *spool {
	return &spool{Store: first, ways: ways, dir: cfg.SpoolDir, limit: cfg.SpoolBytes, full: func(error) {}, again: func(string, error) {}}
}

// begin is the way to begin with: the usual one, unless it failed just now.
func (s *spool) begin() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().After(s.until) {
		s.way = 0
	}
	return s.way
}

// use makes files of the next minute begin with a way.
func (s *spool) use(way int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if way != s.way {
		s.way, s.until = way, time.Now().Add(avoidNode)
	}
}

func (s *spool) Create(name string) (File, error) {
	if _, err := s.Stat(name); err == nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := s.Stat(path.Dir(name)); err != nil {
		return nil, err
	}
	f := &spoolFile{s: s, name: name}
	var err error
	if s.dir == "" {
		err = f.stream()
	} else if f.local, err = s.file(); err != nil {
		s.full(err)
		err = f.stream()
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// ReadFile reads in another way what the usual one cannot give, as Open does.
func (s *spool) ReadFile(name string) ([]byte, error) {
	data, err := s.Store.ReadFile(name)
	if other := s.other(err); other != nil {
		var again error
		if data, again = other.ReadFile(name); again != nil {
			return nil, errors.Join(err, again)
		}
		return data, nil
	}
	return data, err
}

// other is another store to read from after a failure; nil when it would fail too.
func (s *spool) other(err error) Store {
	_, native := s.Store.(*hdfsStore)
	if err == nil || final(err) || !native {
		return nil
	}
	web, ok := s.ways[1].(*webStore)
	if !ok {
		return nil
	}
	s.again("read", err)
	return web
}

func (s *spool) Open(name string) (Reader, error) {
	r, err := s.Store.Open(name)
	if other := s.other(err); other != nil {
		return other.Open(name)
	}
	if err != nil {
		return nil, err
	}
	return &spoolReader{Reader: r, s: s, name: name}, nil
}

// spoolReader goes over to another store at the first failure.
type spoolReader struct {
	Reader
	s    *spool
	name string
	over bool
}

func (r *spoolReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(p, off)
	if err == nil || errors.Is(err, io.EOF) || r.over {
		return n, err
	}
	other := r.s.other(err)
	if other == nil {
		return n, err
	}
	again, failed := other.Open(r.name)
	if failed != nil {
		return n, errors.Join(err, failed)
	}
	_ = r.Close()
	r.Reader, r.over = again, true
	return again.ReadAt(p, off)
}

func (s *spool) file() (*os.File, error) {
	f, err := os.CreateTemp(s.dir, "weir-spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

type spoolFile struct {
	s      *spool
	name   string
	local  *os.File // nil when not kept
	size   int64    // bytes in local
	direct File     // nil while kept
	way    int      // of direct
	failed error
}

func (f *spoolFile) Write(p []byte) (n int, err error) {
	if f.failed != nil {
		return 0, f.failed
	}
	if f.direct == nil {
		if err = f.keep(p); err == nil {
			return len(p), nil
		}
		f.s.full(err)
		if f.failed = f.stream(); f.failed != nil {
			return 0, f.failed
		}
	}
	if n, err = f.direct.Write(p); err != nil {
		f.broke(err)
	}
	return n, f.failed
}

// keep writes all of p to the local file, or leaves its size as it was.
func (f *spoolFile) keep(p []byte) error {
	if used := f.s.used.Add(int64(len(p))); used > f.s.limit {
		f.s.used.Add(-int64(len(p)))
		return fmt.Errorf("archiver.spool_bytes: %d bytes are full", f.s.limit)
	}
	if _, err := f.local.WriteAt(p, f.size); err != nil {
		f.s.used.Add(-int64(len(p)))
		return err
	}
	f.size += int64(len(p))
	return nil
}

// drop gives the local file's space back.
func (f *spoolFile) drop() {
	if f.local != nil {
		_ = f.local.Close()
		f.s.used.Add(-f.size)
		f.local, f.size = nil, 0
	}
}

// stream goes over to writing the file as it grows.
func (f *spoolFile) stream() error {
	f.way = f.s.begin()
	out, err := f.put(f.s.ways[f.way])
	if err != nil {
		f.broke(err)
		return err
	}
	f.direct = out
	f.drop()
	return nil
}

// broke ends a file that cannot be tried again. The next ones are written in another way.
func (f *spoolFile) broke(err error) {
	f.failed = err
	if !final(err) {
		f.s.use((f.way + 1) % len(f.s.ways))
	}
}

// put creates the file in a store and copies what is kept. The caller closes it.
func (f *spoolFile) put(way Store) (File, error) {
	out, err := way.Create(f.name)
	if err != nil || f.local == nil {
		return out, err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, io.NewSectionReader(f.local, 0, f.size), make([]byte, 64<<10)); err != nil {
		out.Abort()
		return nil, err
	}
	return out, nil
}

// Close uploads the file. Each call on the way has the store's deadline; all of them together take as long as the file needs.
func (f *spoolFile) Close() error {
	if f.failed != nil {
		return f.failed
	}
	if f.direct != nil {
		if err := f.direct.Close(); err != nil {
			f.broke(err)
		}
		return f.failed
	}
	var errs []error
	first := f.s.begin()
	for way := first; ; way++ {
		err := f.upload(f.s.ways[way])
		if err == nil {
			f.s.use(way)
			f.drop()
			return nil
		}
		errs = append(errs, err)
		// That the name is taken may be the doing of a try that a datanode began late.
		if final(err) && (way == first || !errors.Is(err, fs.ErrExist)) {
			break
		}
		if way == len(f.s.ways)-1 {
			f.s.use(0)
			break
		}
		f.s.again("write", err)
		// What the failed try left has this writer's name and is nobody else's.
		if err := f.s.Remove(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			break
		}
	}
	f.failed = errors.Join(errs...)
	return f.failed
}

func (f *spoolFile) upload(way Store) error {
	out, err := f.put(way)
	if err != nil {
		return err
	}
	if err = out.Close(); err != nil {
		out.Abort()
	}
	return err
}

// final says that another way would fail with the same.
func final(err error) bool {
	switch Reason(err) {
	case "exists", "not_found", "permission", "quota", "safe_mode":
		return true
	}
	return false
}

func (f *spoolFile) Abort() {
	if f.direct != nil {
		f.direct.Abort()
	}
	f.drop()
}
