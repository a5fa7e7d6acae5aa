package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watcher wakes the reading loop when a quiet log is written to (inotify(7)). Each watch fires once: a log that is busy
// costs no events, only one that wakes up does.
type watcher struct {
	fd    *os.File
	woken chan int // watch descriptors; -1 when the kernel's queue overflowed and any may have fired
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return &watcher{os.NewFile(uintptr(fd), "inotify"), make(chan int, 1024)}, nil
}

// add watches the file at path until it is written to, renamed or deleted.
func (w *watcher) add(path string) (int, error) {
	raw, err := w.fd.SyscallConn()
	if err != nil {
		return 0, err
	}
	wd := 0
	var addErr error
	if err := raw.Control(func(fd uintptr) {
		wd, addErr = unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY|unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF|unix.IN_ONESHOT)
	}); err != nil {
		return 0, err
	}
	return wd, addErr
}

// run passes events on until close.
func (w *watcher) run() {
	buf := make([]byte, 16<<10)
	for {
		n, err := w.fd.Read(buf)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		// struct inotify_event: wd, mask, cookie, len, then len bytes of name.
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd, mask, name := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			b = b[unix.SizeofInotifyEvent+int(name):]
			if mask&unix.IN_Q_OVERFLOW != 0 {
				wd = -1
			}
			if mask&unix.IN_IGNORED == 0 { // that a watch is gone tells nothing: each fires once
				w.woken <- int(wd)
			}
		}
	}
}

// close ends run; it must still be drained meanwhile.
func (w *watcher) close() { _ = w.fd.Close() }
