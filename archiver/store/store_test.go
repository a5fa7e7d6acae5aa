package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// storeSuite is what every store must do.
func storeSuite(t *testing.T, s Store) {
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
		is("write "+name, WriteFile(s, name, bytes.Repeat([]byte{7}, size)), nil)
		data, err := s.ReadFile(name)
		is("read "+name, err, nil)
		e, err := s.Stat(name)
		is("stat "+name, err, nil)
		if len(data) != size || e.Size != int64(size) || e.Dir || e.Name != fmt.Sprint(size) {
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
	if len(entries) != 2 || entries[0].Name != "b" || !entries[0].Dir || entries[1].Name != "moved" {
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
	is("remove the tree", RemoveTree(s, "a"), nil)
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
