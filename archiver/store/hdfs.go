package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/colinmarc/hdfs/v2"
)

// hdfsStore keeps the archive in HDFS.
//
// The client library sets no deadline on the namenode and, after an answer that did not come, goes on with a connection
// whose answers no longer match its questions; and a file whose datanode died can never be closed by its client. So every
// connection gets deadlines and closes itself on the first error, the client for names is thrown away when its connection
// broke, and every file is written through a client of its own.
type hdfsStore struct {
	opts     hdfs.ClientOptions
	dir      string
	deadline time.Duration

	mu     sync.Mutex
	client *hdfs.Client // nil when there is no connection
}

func newHDFSStore(r root, user string, deadline time.Duration) (*hdfsStore, error) {
	s := &hdfsStore{dir: r.dir, deadline: deadline}
	s.opts = hdfs.ClientOptions{Addresses: r.hosts, User: user}
	s.opts.NamenodeDialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &deadlineConn{Conn: conn, deadline: deadline}, nil
	}
	s.opts.DatanodeDialFunc = s.dial
	// HDFS may be away while the archiver starts: then each Open fails and is tried again, as it is later on.
	return s, nil
}

func (s *hdfsStore) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return (&net.Dialer{Timeout: s.deadline}).DialContext(ctx, network, addr)
}

// deadlineConn bounds every read and write, and closes itself when one fails, so that a late answer is never taken for the
// answer to a later question.
type deadlineConn struct {
	net.Conn
	deadline time.Duration
}

func (c *deadlineConn) Read(p []byte) (int, error) {
	return c.bounded(c.SetReadDeadline, c.Conn.Read, p)
}

func (c *deadlineConn) Write(p []byte) (int, error) {
	return c.bounded(c.SetWriteDeadline, c.Conn.Write, p)
}

func (c *deadlineConn) bounded(set func(time.Time) error, do func([]byte) (int, error), p []byte) (int, error) {
	if err := set(time.Now().Add(c.deadline)); err != nil {
		return 0, err
	}
	n, err := do(p)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

func (s *hdfsStore) path(name string) string { return path.Join(s.dir, name) }

// call runs fn with the client for names, and drops that client if its connection cannot be trusted afterwards.
func (s *hdfsStore) call(fn func(*hdfs.Client) error) error {
	s.mu.Lock()
	c := s.client
	if c == nil {
		var err error
		if c, err = hdfs.NewClient(s.opts); err != nil {
			s.mu.Unlock()
			return fmt.Errorf("connect to hdfs %v: %w", s.opts.Addresses, err)
		}
		s.client = c
	}
	s.mu.Unlock()
	err := fn(c)
	if err != nil && !answered(err) {
		s.drop(c)
	}
	return err
}

func (s *hdfsStore) drop(c *hdfs.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == c {
		s.client = nil
		_ = c.Close()
	}
}

// answered says whether the namenode itself gave the error, so that the connection is sound.
func answered(err error) bool {
	var remote hdfs.Error
	if errors.As(err, &remote) {
		return true
	}
	for _, known := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, fs.ErrInvalid, syscall.ENOTEMPTY} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

func (s *hdfsStore) Create(name string) (File, error) {
	f := &hdfsFile{deadline: s.deadline}
	opts := s.opts
	opts.DatanodeDialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, addr)
		if err == nil {
			f.mu.Lock()
			f.conns = append(f.conns, conn)
			f.mu.Unlock()
		}
		return conn, err
	}
	var err error
	if f.client, err = hdfs.NewClient(opts); err != nil {
		return nil, fmt.Errorf("connect to hdfs %v: %w", s.opts.Addresses, err)
	}
	if f.w, err = f.client.Create(s.path(name)); err != nil {
		_ = f.client.Close()
		return nil, err
	}
	return f, nil
}

// hdfsFile is one file being written through a client of its own.
type hdfsFile struct {
	client   *hdfs.Client
	w        *hdfs.FileWriter
	deadline time.Duration
	failed   error // the first failure; from then on the file cannot be saved
	ended    bool

	mu    sync.Mutex
	conns []net.Conn // to datanodes; the library does not close them when it gives up
}

func (f *hdfsFile) Write(p []byte) (int, error) {
	if f.failed != nil {
		return 0, f.failed
	}
	if len(p) == 0 { // the library would allocate a block that no datanode ever gets, and the file could not be closed
		return 0, nil
	}
	if f.failed = f.w.SetDeadline(time.Now().Add(f.deadline)); f.failed != nil {
		return 0, f.failed
	}
	n, err := f.w.Write(p)
	f.failed = err
	return n, err
}

// Close waits for the datanodes and the namenode. "Replication in progress" is asked again only here, where no datanode
// failed before: after a failure it would be the answer for ever.
func (f *hdfsFile) Close() error {
	if f.failed != nil {
		return f.failed
	}
	end := time.Now().Add(f.deadline)
	if f.failed = f.w.SetDeadline(end); f.failed != nil {
		return f.failed
	}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f.w.Close()
		if err == nil {
			f.end()
			return nil
		}
		if !hdfs.IsErrReplicating(err) || time.Now().Add(pause).After(end) {
			f.failed = err
			return err
		}
		time.Sleep(pause)
	}
}

func (f *hdfsFile) Abort() { f.end() }

func (f *hdfsFile) end() {
	if f.ended {
		return
	}
	f.ended = true
	f.mu.Lock()
	for _, conn := range f.conns {
		_ = conn.Close()
	}
	f.mu.Unlock()
	_ = f.client.Close()
}

// Rename checks the destination first: the library's own rename overwrites.
func (s *hdfsStore) Rename(from, to string) error {
	return s.call(func(c *hdfs.Client) error {
		if _, err := c.Stat(s.path(to)); err == nil {
			return &fs.PathError{Op: "rename", Path: s.path(to), Err: fs.ErrExist}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return c.Rename(s.path(from), s.path(to))
	})
}

func (s *hdfsStore) Remove(name string) error {
	return s.call(func(c *hdfs.Client) error { return c.Remove(s.path(name)) })
}

func (s *hdfsStore) MkdirAll(name string) error {
	return s.call(func(c *hdfs.Client) error { return c.MkdirAll(s.path(name), 0o755) })
}

func (s *hdfsStore) ReadFile(name string) ([]byte, error) {
	size := int64(0)
	r, err := s.open(name, &size)
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	n, err := io.ReadFull(io.NewSectionReader(r, 0, size), data)
	if err != nil {
		err = fmt.Errorf("%s ends at byte %d of %d: %w", s.path(name), n, size, err)
	}
	return data, errors.Join(err, r.Close())
}

func (s *hdfsStore) List(name string) ([]Entry, error) {
	var entries []Entry
	err := s.call(func(c *hdfs.Client) error {
		infos, err := c.ReadDir(s.path(name))
		if err != nil {
			return err
		}
		for _, info := range infos {
			entries = append(entries, localEntry(info))
		}
		return nil
	})
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	return entries, err
}

func (s *hdfsStore) Stat(name string) (e Entry, err error) {
	err = s.call(func(c *hdfs.Client) error {
		info, err := c.Stat(s.path(name))
		if err == nil {
			e = localEntry(info)
		}
		return err
	})
	return e, err
}

func (s *hdfsStore) Open(name string) (Reader, error) {
	return s.open(name, new(int64))
}

func (s *hdfsStore) open(name string, size *int64) (Reader, error) {
	r := &hdfsReader{deadline: s.deadline}
	err := s.call(func(c *hdfs.Client) (err error) {
		if r.r, err = c.Open(s.path(name)); err == nil {
			*size = r.r.Stat().Size()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

type hdfsReader struct {
	r        *hdfs.FileReader
	deadline time.Duration
}

func (r *hdfsReader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.r.SetDeadline(time.Now().Add(r.deadline)); err != nil {
		return 0, err
	}
	return r.r.ReadAt(p, off)
}

func (r *hdfsReader) Close() error { return r.r.Close() }

func (s *hdfsStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil
	}
	c := s.client
	s.client = nil
	return c.Close()
}
