// Package store is the little that the archive asks of a file system, over HDFS, WebHDFS and local folders.
package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"
)

// Store is the little that the archive asks of a file system. Names are relative to the root, with slashes.
//
// Every request to a server ends within the deadline or shortly after; a call is one request, over REST up to three, and only a
// file's Close may take as long as its bytes need. Errors match fs.ErrNotExist and fs.ErrExist under errors.Is where
// they mean that. Any other error leaves open whether the call took effect: Open of the Archiver finds out.
type Store interface {
	// Create makes a new file in a folder that exists; fs.ErrExist when the name is taken, fs.ErrNotExist when the
	// folder is gone, which some stores say only when the file is closed. The archiver's fence rests on the latter.
	Create(name string) (File, error)
	// Rename moves a file, atomically for readers and for a crash. fs.ErrExist when the destination exists, which
	// holds against the past; two renames at once to one name are kept apart by the fence.
	Rename(from, to string) error
	// Remove deletes a file or an empty folder.
	Remove(name string) error
	// MkdirAll makes a folder and its parents; no error when it exists.
	MkdirAll(name string) error
	// ReadFile returns a whole file.
	ReadFile(name string) ([]byte, error)
	// List returns the entries of a folder by ascending name.
	List(name string) ([]Entry, error)
	// Stat returns what List says of one name.
	Stat(name string) (Entry, error)
	// Open reads a file at random.
	Open(name string) (Reader, error)
	// Close ends the store's connections.
	Close() error
}

// File is a file being written. It is durable after Close returned nil, and no sooner.
type File interface {
	io.Writer
	Close() error
	// Abort gives the file up without waiting for the server; what is there of it stays.
	Abort()
}

type Reader interface {
	io.ReaderAt
	io.Closer
}

type Entry struct {
	Name string // base name
	Size int64
	Dir  bool
}

// Open makes the store of a root. HDFS is first contacted by a call: it may be away now, as it may be later.
func Open(cfg Config) (Store, error) {
	r, err := parseRoot(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	if len(r.hosts) == 0 {
		return newLocalStore(r.dir)
	}
	l := newLogin(cfg.Kerberos)
	var first Store
	var ways []Store // of writing a file, from the usual one to the one that needs least
	web := func(scheme string, hosts []string) (*webStore, error) {
		w, err := newWebStore(scheme, root{hosts: hosts, dir: r.dir}, cfg, l)
		if err == nil {
			ways = append(ways, w, w.single())
		}
		return w, err
	}
	switch r.scheme {
	case "hdfs":
		first = newHDFSStore(r, cfg, l)
		if cfg.WebHDFS == "" {
			ways = []Store{first, first, first} // the namenode may choose other datanodes
			break
		}
		ways = []Store{first}
		scheme, hosts, err := parseWeb(cfg.WebHDFS)
		if err != nil {
			return nil, fmt.Errorf("webhdfs: %w", err)
		}
		if _, err = web(scheme, hosts); err != nil {
			return nil, err
		}
	case "webhdfs", "swebhdfs":
		scheme := "http"
		if r.scheme == "swebhdfs" {
			scheme = "https"
		}
		if first, err = web(scheme, r.hosts); err != nil {
			return nil, err
		}
	}
	return newSpool(first, ways, cfg), nil
}

// WriteFile creates a file with the given content.
func WriteFile(s Store, name string, data []byte) error {
	f, err := s.Create(name)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	if _, err := f.Write(data); err != nil {
		f.Abort()
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.Close(); err != nil {
		f.Abort()
		return fmt.Errorf("close %s: %w", name, err)
	}
	return nil
}

// RemoveTree deletes a folder and what is in it. A writer that still adds files makes it start over; once the folder is
// gone, that writer can add none.
func RemoveTree(s Store, name string) error {
	const tries = 20
	var err error
	for try := range tries {
		if err = removeOnce(s, name); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(time.Duration(try) * time.Millisecond)
	}
	return fmt.Errorf("remove %s: %w", name, err)
}

func removeOnce(s Store, name string) error {
	entries, err := s.List(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(name, e.Name)
		if e.Dir {
			err = RemoveTree(s, child)
		} else {
			err = s.Remove(child)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.Remove(name)
}
