package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// localStore keeps the archive in a folder of this machine. Files and folder entries are synced, so that a commit
// outlives a power cut. A local disk that hangs cannot be given a deadline; the kernel's own applies.
type localStore struct{ dir string }

func newLocalStore(dir string) (*localStore, error) {
	s := &localStore{dir: filepath.FromSlash(dir)}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the archive's folder: %w", err)
	}
	return s, nil
}

func (s *localStore) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s *localStore) Create(name string) (File, error) {
	f, err := os.OpenFile(s.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &localFile{f: f}, nil
}

type localFile struct{ f *os.File }

func (f *localFile) Write(p []byte) (int, error) { return f.f.Write(p) }
func (f *localFile) Abort()                      { _ = f.f.Close() }

func (f *localFile) Close() error {
	if err := f.f.Sync(); err != nil {
		return errors.Join(err, f.f.Close())
	}
	if err := f.f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.f.Name()))
}

func (s *localStore) Rename(from, to string) error {
	if _, err := os.Lstat(s.path(to)); err == nil {
		return &fs.PathError{Op: "rename", Path: s.path(to), Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(s.path(from), s.path(to)); err != nil {
		return err
	}
	// The new entry first: a crash between the two may show the file twice, but never not at all.
	if err := syncDir(filepath.Dir(s.path(to))); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(s.path(from))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *localStore) Remove(name string) error { return os.Remove(s.path(name)) }

func (s *localStore) MkdirAll(name string) error {
	dir := s.path(name)
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for dir != s.dir && len(dir) > len(s.dir) {
		dir = filepath.Dir(dir)
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (s *localStore) ReadFile(name string) ([]byte, error) { return os.ReadFile(s.path(name)) }

func (s *localStore) List(name string) ([]Entry, error) {
	dirents, err := os.ReadDir(s.path(name))
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(dirents))
	for _, d := range dirents {
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, localEntry(info))
	}
	return entries, nil
}

func (s *localStore) Stat(name string) (Entry, error) {
	info, err := os.Stat(s.path(name))
	if err != nil {
		return Entry{}, err
	}
	return localEntry(info), nil
}

func localEntry(info fs.FileInfo) Entry {
	e := Entry{Name: info.Name(), Dir: info.IsDir()}
	if !e.Dir {
		e.Size = info.Size()
	}
	return e
}

func (s *localStore) Open(name string) (Reader, error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (s *localStore) Close() error { return nil }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync folder %s: %w", dir, err), d.Close())
	}
	return d.Close()
}
