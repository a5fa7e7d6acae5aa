// Package storetest is the conformance suite that every store of the archive runs.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"time"

	"weir/archiver/store"
)

// Run does to a store, whose root is empty, what the archive asks of it, and closes it.
func Run(t *testing.T, s store.Store) {
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	must(t, "make a folder", s.MkdirAll("a/b"), nil)
	must(t, "make it again", s.MkdirAll("a/b"), nil)
	files(t, s)
	absent(t, s)
	renames(t, s)
	reads(t, s)
	abandoned(t, s)
	must(t, "remove the tree", store.RemoveTree(s, "a"), nil)
	_, err := s.List("a")
	must(t, "list what was removed", err, fs.ErrNotExist)
	must(t, "remove it again", store.RemoveTree(s, "a"), nil)
}

func must(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// pattern has no two places alike within its length.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>16 ^ i>>8 ^ i)
	}
	return b
}

func files(t *testing.T, s store.Store) {
	for _, size := range []int{0, 1, 100_000, 3 << 20} {
		name := fmt.Sprintf("a/b/%d", size)
		must(t, "write "+name, store.WriteFile(s, name, pattern(size)), nil)
		data, err := s.ReadFile(name)
		must(t, "read "+name, err, nil)
		e, err := s.Stat(name)
		must(t, "stat "+name, err, nil)
		if !bytes.Equal(data, pattern(size)) || e != (store.Entry{Name: fmt.Sprint(size), Size: int64(size)}) {
			t.Errorf("%s has %d bytes and is listed as %+v", name, len(data), e)
		}
	}
	// Names that have a meaning in addresses.
	for _, name := range []string{"dt=2026-01-02", "a b%20c", "p?q#r&s+t;u", "größe"} {
		must(t, "make folder "+name, s.MkdirAll("a/names/"+name), nil)
		must(t, "write in "+name, store.WriteFile(s, "a/names/"+name+"/f", pattern(9)), nil)
		data, err := s.ReadFile("a/names/" + name + "/f")
		if must(t, "read in "+name, err, nil); !bytes.Equal(data, pattern(9)) {
			t.Errorf("%s/f has %q", name, data)
		}
		must(t, "rename in "+name, s.Rename("a/names/"+name+"/f", "a/names/"+name+"/g+&%"), nil)
		entries, err := s.List("a/names/" + name)
		if must(t, "list "+name, err, nil); len(entries) != 1 || entries[0].Name != "g+&%" {
			t.Errorf("%s has %+v", name, entries)
		}
	}
	must(t, "remove names", store.RemoveTree(s, "a/names"), nil)
	f, err := s.Create("a/b/pieces")
	if must(t, "create", err, nil); err != nil {
		t.FailNow()
	}
	for i := range 1000 {
		if _, err := f.Write(pattern(1000)[:i]); err != nil {
			t.Fatalf("piece %d: %v", i, err)
		}
	}
	must(t, "close", f.Close(), nil)
	if e, err := s.Stat("a/b/pieces"); err != nil || e.Size != 999*1000/2 {
		t.Errorf("pieces: %+v, %v", e, err)
	}
	must(t, "remove", s.Remove("a/b/pieces"), nil)
}

func absent(t *testing.T, s store.Store) {
	_, err := s.Create("a/b/1")
	must(t, "create what exists", err, fs.ErrExist)
	must(t, "write in a folder that is gone", store.WriteFile(s, "a/nowhere/1", []byte("x")), fs.ErrNotExist)
	_, err = s.Stat("a/nowhere")
	must(t, "stat a folder that a file was to be in", err, fs.ErrNotExist)
	_, err = s.ReadFile("a/b/none")
	must(t, "read what is not there", err, fs.ErrNotExist)
	_, err = s.Open("a/b/none")
	must(t, "open what is not there", err, fs.ErrNotExist)
	_, err = s.Stat("a/b/none")
	must(t, "stat what is not there", err, fs.ErrNotExist)
	_, err = s.List("a/none")
	must(t, "list what is not there", err, fs.ErrNotExist)
	must(t, "remove what is not there", s.Remove("a/b/none"), fs.ErrNotExist)

	// The folder goes while a file in it is written: a writer that was fenced must not come back.
	must(t, "make the fence", s.MkdirAll("a/fence"), nil)
	f, err := s.Create("a/fence/1")
	must(t, "create", err, nil)
	must(t, "remove the fence", store.RemoveTree(s, "a/fence"), nil)
	_, err = f.Write([]byte("late"))
	if err == nil {
		err = f.Close()
	}
	f.Abort()
	if _, there := s.Stat("a/fence"); !errors.Is(there, fs.ErrNotExist) {
		t.Errorf("a folder that was removed is back: %v (the writer got %v)", there, err)
	}
	must(t, "rename into a folder that is gone", s.Rename("a/b/1", "a/fence/1"), fs.ErrNotExist)
}

func renames(t *testing.T, s store.Store) {
	must(t, "rename onto a file", s.Rename("a/b/0", "a/b/1"), fs.ErrExist)
	must(t, "rename onto a folder", s.Rename("a/b/0", "a/b"), fs.ErrExist)
	must(t, "rename what is not there", s.Rename("a/b/none", "a/b/2"), fs.ErrNotExist)
	must(t, "rename", s.Rename("a/b/0", "a/moved"), nil)
	if e, err := s.Stat("a/b/1"); err != nil || e.Size != 1 {
		t.Errorf("the file that was in the way: %+v, %v", e, err)
	}
	if s.Remove("a/b") == nil {
		t.Error("a folder with files was removed")
	}
	entries, err := s.List("a")
	must(t, "list", err, nil)
	if len(entries) != 2 || entries[0] != (store.Entry{Name: "b", Dir: true}) || entries[1] != (store.Entry{Name: "moved"}) {
		t.Errorf("entries %+v", entries)
	}
}

func reads(t *testing.T, s store.Store) {
	const size = 3 << 20
	r, err := s.Open(fmt.Sprintf("a/b/%d", size))
	if must(t, "open", err, nil); err != nil {
		t.FailNow()
	}
	all := pattern(size)
	for _, c := range []struct{ off, n, want int }{{0, 10, 10}, {1 << 20, 1 << 20, 1 << 20}, {1<<20 + 7, 10, 10}, {size - 10, 10, 10}, {size - 5, 10, 5}, {size, 10, 0}, {size + 100, 10, 0}, {3, 0, 0}} {
		p := make([]byte, c.n)
		n, err := r.ReadAt(p, int64(c.off))
		if n != c.want || n < c.n && !errors.Is(err, io.EOF) || n == c.n && err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("read %d at %d: %d, %v", c.n, c.off, n, err)
		} else if !bytes.Equal(p[:n], all[min(c.off, size):min(c.off, size)+n]) {
			t.Errorf("read %d at %d: other bytes", c.n, c.off)
		}
	}
	must(t, "close", r.Close(), nil)
}

// abandoned gives a file up in the middle. Its name can be used again once it was removed.
func abandoned(t *testing.T, s store.Store) {
	f, err := s.Create("a/b/half")
	must(t, "create", err, nil)
	_, err = f.Write(pattern(1 << 20))
	must(t, "write", err, nil)
	f.Abort()
	// What was under way may still make the file for a moment; it never mixes with another.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := s.Remove("a/b/half"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("remove what was given up: %v", err)
		}
		if err = store.WriteFile(s, "a/b/half", []byte("whole")); err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || time.Now().After(end) {
			t.Fatalf("write it again: %v", err)
		}
	}
	data, err := s.ReadFile("a/b/half")
	if must(t, "read it", err, nil); string(data) != "whole" {
		t.Errorf("%d bytes", len(data))
	}
}
