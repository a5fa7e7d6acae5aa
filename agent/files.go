package agent

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"weir/schema"
)

// maxLineBytes bounds one line of a log file. Docker's are below 100 KiB: 16 KiB escaped six-fold, and attributes.
const maxLineBytes = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errNoLine = errors.New("the file has no whole line yet")

// incarnationOf names an open log file by its first line.
func incarnationOf(f *os.File) (schema.Incarnation, error) {
	buf := make([]byte, 4<<10)
	for n := 0; ; {
		m, err := f.ReadAt(buf[n:], int64(n))
		if end := bytes.IndexByte(buf[n:n+m], '\n'); end >= 0 {
			first := buf[:n+end+1]
			inc := schema.Incarnation{Print: crc32.Checksum(first, castagnoli)}
			// A damaged first line has no time: Start stays 0, and the chain of files raises it.
			if l, _, err := parseLine(first[:len(first)-1], nil); err == nil {
				inc.Start = l.time
			}
			return inc, nil
		}
		n += m
		switch {
		case n >= maxLineBytes: // not a log; its head stands for its first line
			return schema.Incarnation{Print: crc32.Checksum(buf[:n], castagnoli)}, nil
		case err != nil && !errors.Is(err, io.EOF):
			return schema.Incarnation{}, err
		case m == 0 || err != nil:
			return schema.Incarnation{}, errNoLine
		}
		buf = append(buf, make([]byte, len(buf))...)
	}
}

// logFile is one physical file of a log, open.
type logFile struct {
	f   *os.File
	inc schema.Incarnation
}

// chain opens the files of a log, oldest first: path.N … path.1, path. Each incarnation's Start is raised above its predecessor's
// where the clock stood still or stepped back. A file without a whole line is left out. The caller closes what it does not use.
func chain(path string) (files []logFile, err error) {
	for {
		before, err := view(path)
		if err != nil {
			return nil, err
		}
		if files, err = openAll(before); err != nil {
			return nil, err
		}
		after, err := view(path)
		if err == nil && slices.EqualFunc(before, after, func(a, b named) bool { return a.name == b.name && os.SameFile(a.info, b.info) }) {
			return files, nil
		}
		closeAll(files) // a rotation renames one file after the other; in the middle of it one may be missed
		if err != nil {
			return nil, err
		}
	}
}

// named is a file as it was found.
type named struct {
	name string
	info os.FileInfo
}

// view lists a log's files, oldest first.
func view(path string) (files []named, err error) {
	names, err := rotated(path)
	if err != nil {
		return nil, err
	}
	for _, name := range append(names, path) {
		info, err := os.Stat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, named{name, info})
	}
	return files, nil
}

func openAll(found []named) (files []logFile, err error) {
	for _, n := range found {
		f, err := os.Open(n.name)
		if errors.Is(err, os.ErrNotExist) {
			continue // the caller sees that the view has changed
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		inc, err := incarnationOf(f)
		if err != nil {
			f.Close()
			if errors.Is(err, errNoLine) {
				continue
			}
			closeAll(files)
			return nil, fmt.Errorf("read %s: %w", n.name, err)
		}
		if n := len(files); n > 0 && inc.Start <= files[n-1].inc.Start {
			inc.Start = files[n-1].inc.Start + 1
		}
		files = append(files, logFile{f, inc})
	}
	return files, nil
}

// rotated lists path.N, highest N (oldest) first.
func rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	type numbered struct {
		n    int
		name string
	}
	var found []numbered
	for _, e := range entries {
		if tail, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+"."); ok {
			if n, err := strconv.Atoi(tail); err == nil && n > 0 {
				found = append(found, numbered{n, filepath.Join(filepath.Dir(path), e.Name())})
			}
		}
	}
	slices.SortFunc(found, func(a, b numbered) int { return b.n - a.n })
	var names []string
	for _, f := range found {
		names = append(names, f.name)
	}
	return names, nil
}

func closeAll(files []logFile) {
	for _, f := range files {
		f.f.Close()
	}
}

func sameFile(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}
