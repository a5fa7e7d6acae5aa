package agent

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// inode is a file's identity as long as it exists.
func inode(info os.FileInfo) (dev, ino uint64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Dev), s.Ino
	}
	return 0, 0
}

// birth is when a file was made, in Unix ns; 0 where the file system does not tell.
func birth(f *os.File) (ns int64) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		var s unix.Statx_t
		if unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &s) == nil && s.Mask&unix.STATX_BTIME != 0 {
			ns = s.Btime.Sec*1e9 + int64(s.Btime.Nsec)
		}
	})
	return ns
}

// nextData passes over a hole of a sparse file. io.EOF says that nothing stands behind it.
func nextData(f *os.File, from int64) (at int64, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return from, err
	}
	var seekErr error
	if err := raw.Control(func(fd uintptr) { at, seekErr = unix.Seek(int(fd), from, unix.SEEK_DATA) }); err != nil {
		return from, err
	}
	switch {
	case errors.Is(seekErr, unix.ENXIO):
		return from, io.EOF
	case seekErr != nil: // the file system cannot tell
		return from, nil
	}
	return at, nil
}
