package agent

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"weir/schema"
)

// maxLineBytes bounds one line of a log file. Docker's are below 100 KiB: 16 KiB escaped six-fold, and attributes.
const maxLineBytes = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errNoLine = errors.New("the file has no whole line yet")

// incarnationOf names a log file by its first line, which begins what r reads.
func incarnationOf(r io.Reader, kind *format) (schema.Incarnation, error) {
	buf := make([]byte, 4<<10)
	for n := 0; ; {
		m, err := io.ReadFull(r, buf[n:])
		if end := bytes.IndexByte(buf[n:n+m], '\n'); end >= 0 {
			first := buf[:n+end+1]
			inc := schema.Incarnation{Print: crc32.Checksum(first, castagnoli)}
			// A damaged first line has no time: Start stays 0, and the chain of files raises it.
			if l, _, err := kind.parse(first[:len(first)-1], nil); err == nil {
				inc.Start = l.time
			}
			return inc, nil
		}
		n += m
		switch {
		case n >= maxLineBytes: // not a log; its head stands for its first line
			return schema.Incarnation{Print: crc32.Checksum(buf[:n], castagnoli)}, nil
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return schema.Incarnation{}, errNoLine
		case err != nil:
			return schema.Incarnation{}, err
		}
		buf = append(buf, make([]byte, len(buf))...)
	}
}

// logFile is one physical file of a log, open.
type logFile struct {
	f      *os.File
	path   string
	info   os.FileInfo
	inc    schema.Incarnation
	first  schema.Incarnation // inc before its start was raised: what the first line alone says
	head   []byte             // of a plain file: its first bytes
	trace  trace              // likewise, without its tail
	seen   seen               // likewise
	packed bool               // f is gzipped: unpack gives what is to be read
	gone   int64              // f was closed before it was read, to free the disk: its length
}

const packedSuffix = ".gz"

// head reads a file from its start, unpacked where it is packed.
func head(f *os.File, packed bool) (io.Reader, error) {
	r := io.NewSectionReader(f, 0, 1<<62)
	if !packed {
		return r, nil
	}
	return gzip.NewReader(r)
}

// unpack writes a gzipped file's content into a file without a name in dir, so that offsets in it are those that the
// log had before Docker compressed it. A damaged file gives what could be read before the damage, and says so.
func unpack(f *os.File, dir string) (out *os.File, damage, err error) {
	if out, err = os.CreateTemp(dir, "unpacked-*"); err != nil {
		return nil, nil, err
	}
	if err := os.Remove(out.Name()); err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	r, damage := head(f, true)
	if damage == nil {
		_, damage = io.Copy(out, r)
	}
	var disk *fs.PathError
	if errors.As(damage, &disk) { // reading or writing failed, not the content
		return nil, nil, errors.Join(damage, out.Close())
	}
	return out, damage, nil
}

// chain opens the files of a log, oldest first; rotated ones may be gzipped. Each incarnation's Start is raised above its predecessor's
// where the clock stood still or stepped back. A file without a whole line is left out. The caller closes what it does not use.
func chain(path string, kind *format) (files []logFile, err error) {
	for {
		before, err := view(path, kind)
		if err != nil {
			return nil, err
		}
		if files, err = openAll(before, kind); errors.Is(err, errReplaced) {
			continue // truncated meanwhile
		}
		if err != nil {
			return nil, err
		}
		after, err := view(path, kind)
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
func view(path string, kind *format) (files []named, err error) {
	find := kind.rotated
	if find == nil {
		find = func(path string) ([]string, error) { return rotated(path, kind) }
	}
	names, err := find(path)
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

func openAll(found []named, kind *format) (files []logFile, err error) {
	for _, n := range found {
		f, err := os.OpenFile(n.name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // what became a pipe meanwhile is not waited for
		if errors.Is(err, os.ErrNotExist) {
			continue // the caller sees that the view has changed
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		file := logFile{f: f, path: n.name, info: n.info, packed: strings.HasSuffix(n.name, packedSuffix)}
		if kind.name != nil {
			if err = file.recognisable(); err == nil {
				file.first, err = kind.name(f, file.packed)
			}
			if err == nil && !file.packed && !file.seen.in(f) {
				err = errReplaced
			}
		} else {
			var r io.Reader
			if r, err = head(f, file.packed); err == nil {
				file.first, err = incarnationOf(r, kind)
			}
		}
		if err != nil {
			f.Close()
			if errors.Is(err, errNoLine) || file.packed { // damaged from its start: it cannot even be named
				continue
			}
			closeAll(files)
			return nil, fmt.Errorf("read %s: %w", n.name, err)
		}
		file.inc = file.first
		if n := len(files); n > 0 && file.inc.Start <= files[n-1].inc.Start {
			file.inc.Start = files[n-1].inc.Start + 1
		}
		files = append(files, file)
	}
	return files, nil
}

// rotated lists a log's rotated files, oldest first. While one is compressed both it and the packed one are there, and the
// packed one may not be whole.
func rotated(path string, kind *format) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	type ranked struct {
		rank int
		name string
	}
	var found []ranked
	for _, e := range entries {
		if tail, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+"."); ok {
			if rank, ok := kind.rank(strings.TrimSuffix(tail, packedSuffix)); ok {
				found = append(found, ranked{rank, filepath.Join(filepath.Dir(path), e.Name())})
			}
		}
	}
	// Of one rank the plain one comes first, since its name is shorter, and is kept.
	slices.SortFunc(found, func(a, b ranked) int { return cmp.Or(a.rank-b.rank, len(a.name)-len(b.name)) })
	found = slices.CompactFunc(found, func(a, b ranked) bool { return a.rank == b.rank })
	var names []string
	for _, f := range found {
		names = append(names, f.name)
	}
	return names, nil
}

func closeAll(files []logFile) {
	for _, f := range files {
		if f.f != nil {
			f.f.Close()
		}
	}
}

// indexOf finds the file that is being read among a log's files: f itself, or, when it was compressed meanwhile, the one with
// its first line; -1 when it is gone.
func indexOf(files []logFile, f *os.File, first schema.Incarnation) int {
	if info, err := f.Stat(); err == nil {
		for i := range files {
			if other, err := files[i].f.Stat(); err == nil && os.SameFile(info, other) {
				return i
			}
		}
	}
	return slices.IndexFunc(files, func(l logFile) bool { return l.packed && l.first == first })
}
