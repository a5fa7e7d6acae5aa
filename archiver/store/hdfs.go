package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/colinmarc/hdfs/v2"
)

// hdfsStore keeps the archive in HDFS.
//
// The client library sets no deadline on the namenode and, after an answer that did not come, goes on with a connection
// whose answers no longer match its questions; and a file whose datanode died can never be closed by its client. So every
// connection gets deadlines, a client is thrown away when one of its connections to a namenode broke or one call took too
// long, and every file is written through a client of its own. The library asks the namenodes in their order: one that
// failed is asked last by the next client.
type hdfsStore struct {
	user     string
	dir      string
	deadline time.Duration
	kerberos *login // nil without Kerberos

	mu     sync.Mutex
	hosts  []string    // namenodes, those that failed last at the end
	client *nameClient // for all but writing; nil when there is no connection
}

func newHDFSStore(r root, cfg Config, kerberos *login) *hdfsStore {
	return &hdfsStore{user: cfg.HDFSUser, dir: r.dir, deadline: cfg.Deadline, kerberos: kerberos, hosts: slices.Clone(r.hosts)}
}

// nameClient is a client whose connections can be cut, which ends every call that waits on them.
type nameClient struct {
	*hdfs.Client
	s *hdfsStore

	mu    sync.Mutex
	cut   error // why; no connection is made any more
	conns []net.Conn
	node  *nodeConn // the last one
	ended sync.Once
}

// end is when a call that begins now must have ended.
func (s *hdfsStore) end() time.Time { return time.Now().Add(s.deadline) }

// connect makes a client, which speaks with a namenode first. Nothing else waits for it.
func (s *hdfsStore) connect(end time.Time) (*nameClient, error) {
	s.mu.Lock()
	hosts := slices.Clone(s.hosts)
	s.mu.Unlock()
	c := &nameClient{s: s}
	opts := hdfs.ClientOptions{Addresses: hosts, User: s.user, DatanodeDialFunc: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := c.dial(ctx, network, addr, s.deadline/4)
		if err == nil { // for what comes before the library sets its own; a read goes on with another datanode then
			err = conn.SetDeadline(time.Now().Add(s.deadline / 4))
		}
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.node = &nodeConn{Conn: conn}
		return c.node, nil
	}}
	opts.NamenodeDialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := c.dial(ctx, network, addr, s.deadline/time.Duration(len(hosts)))
		if err != nil {
			if c.alive() {
				s.demote(addr)
			}
			return nil, err
		}
		return &deadlineConn{Conn: conn, c: c, addr: addr}, nil
	}
	err := c.bounded(end, func() (err error) {
		if err = s.kerberos.apply(&opts); err == nil {
			c.Client, err = hdfs.NewClient(opts)
		}
		return err
	})
	if err != nil {
		c.end(err)
		return nil, fmt.Errorf("connect to hdfs %v: %w", hosts, err)
	}
	return c, nil
}

func (s *hdfsStore) demote(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(s.hosts), func(h string) bool { return h == host })
	s.hosts = append(rest, host)
}

func (c *nameClient) dial(ctx context.Context, network, addr string, limit time.Duration) (net.Conn, error) {
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	if cut != nil {
		return nil, cut
	}
	conn, err := (&net.Dialer{Timeout: limit}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut != nil {
		return nil, errors.Join(c.cut, conn.Close())
	}
	c.conns = append(c.conns, conn)
	return conn, nil
}

// bounded runs fn, and cuts the client if it has not returned at the end.
func (c *nameClient) bounded(end time.Time, fn func() error) error {
	t := time.AfterFunc(time.Until(end), func() {
		_ = c.shut(fmt.Errorf("no answer within %s: %w", c.s.deadline, os.ErrDeadlineExceeded))
	})
	err := fn()
	if err != nil && c.s.kerberos == nil && strings.Contains(err.Error(), "unexpected sequence number") { // how the library takes the refusal
		err = fmt.Errorf("%w; the cluster may want Kerberos: set archiver.kerberos", err)
	}
	if t.Stop() || err == nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.cut, err)
}

// shut cuts the client, and says whether it was whole before.
func (c *nameClient) shut(why error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut != nil {
		return false
	}
	c.cut = why
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
	return true
}

// end closes the client. Its connections go first: the library's Close waits for its answers.
func (c *nameClient) end(why error) {
	_ = c.shut(why)
	c.ended.Do(func() {
		if c.Client != nil {
			_ = c.Client.Close()
		}
	})
}

func (c *nameClient) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut == nil
}

// deadlineConn is a connection to a namenode. It bounds every read and write, and cuts its client when one fails: a late answer
// must not be taken for the answer to a later question.
type deadlineConn struct {
	net.Conn
	c    *nameClient
	addr string
}

func (c *deadlineConn) Read(p []byte) (int, error) {
	return c.bounded(c.SetReadDeadline, c.Conn.Read, p)
}

func (c *deadlineConn) Write(p []byte) (int, error) {
	return c.bounded(c.SetWriteDeadline, c.Conn.Write, p)
}

func (c *deadlineConn) bounded(set func(time.Time) error, do func([]byte) (int, error), p []byte) (int, error) {
	err := set(time.Now().Add(c.c.s.deadline))
	n := 0
	if err == nil {
		n, err = do(p)
	}
	if err != nil {
		err = fmt.Errorf("namenode %s: %w", c.addr, err)
		if c.c.shut(err) {
			c.c.s.demote(c.addr)
		}
	}
	return n, err
}

// nodeConn is a connection to a datanode. When it broke, writes go nowhere without an error and reads fail: only so the library ends the
// goroutines of a block that is given up, which otherwise stay for ever.
type nodeConn struct {
	net.Conn
	mu     sync.Mutex
	broken error
}

func (c *nodeConn) note(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil && err != nil {
		c.broken = err
		_ = c.Conn.Close()
	}
	return c.broken
}

func (c *nodeConn) Write(p []byte) (int, error) {
	if c.note(nil) == nil {
		_, err := c.Conn.Write(p)
		_ = c.note(err)
	}
	return len(p), nil
}

func (c *nodeConn) Read(p []byte) (int, error) {
	if err := c.note(nil); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		err = c.note(err)
	}
	return n, err
}

func (c *nodeConn) SetDeadline(t time.Time) error {
	if err := c.note(nil); err != nil {
		return err
	}
	return c.Conn.SetDeadline(t)
}

// nodeFailure is why the connection to the last datanode broke, or nil.
func (c *nameClient) nodeFailure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.node == nil {
		return nil
	}
	return c.node.note(nil)
}

func (s *hdfsStore) path(name string) string { return path.Join(s.dir, name) }

// call runs fn with the client for names, and drops that client if its connection cannot be trusted afterwards.
func (s *hdfsStore) call(fn func(*hdfs.Client) error) error {
	end := s.end()
	s.mu.Lock()
	c := s.client
	s.mu.Unlock()
	if c != nil && !c.alive() { // it broke while nobody asked anything
		s.drop(c, errUnused)
		c = nil
	}
	if c == nil {
		var err error
		if c, err = s.connect(end); err != nil {
			return err
		}
		s.mu.Lock()
		if other := s.client; other != nil {
			s.mu.Unlock()
			c.end(errUnused)
			c = other
		} else {
			s.client = c
			s.mu.Unlock()
		}
	}
	err := c.bounded(end, func() error { return fn(c.Client) })
	if err != nil && !answered(err) {
		s.drop(c, err)
	}
	return err
}

var errUnused = errors.New("the client is closed")

func (s *hdfsStore) drop(c *nameClient, why error) {
	s.mu.Lock()
	mine := s.client == c
	if mine {
		s.client = nil
	}
	s.mu.Unlock()
	if mine {
		c.end(why)
	}
}

// answered says whether HDFS itself gave the error, so that the connection is sound.
func answered(err error) bool {
	var remote interface{ Exception() string }
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
	end := s.end()
	c, err := s.connect(end)
	if err != nil {
		return nil, err
	}
	f := &hdfsFile{c: c}
	err = c.bounded(end, func() (err error) {
		f.w, err = c.Create(s.path(name))
		return err
	})
	if err != nil {
		c.end(err)
		return nil, err
	}
	return f, nil
}

// hdfsFile is one file being written through a client of its own.
type hdfsFile struct {
	c      *nameClient
	w      *hdfs.FileWriter
	failed error // the first failure; from then on the file cannot be saved
	ended  bool
}

func (f *hdfsFile) Write(p []byte) (n int, err error) {
	if f.failed != nil {
		return 0, f.failed
	}
	if len(p) == 0 { // the library would allocate a block that no datanode ever gets, and the file could not be closed
		return 0, nil
	}
	end := f.c.s.end()
	f.failed = f.c.bounded(end, func() (err error) {
		if err = f.w.SetDeadline(end); err == nil {
			n, err = f.w.Write(p)
		}
		return errors.Join(err, f.c.nodeFailure())
	})
	return n, f.failed
}

// Close waits for the datanodes and the namenode. "Replication in progress" is asked again only here, where no datanode
// failed before: after a failure it would be the answer for ever.
func (f *hdfsFile) Close() error {
	if f.failed != nil {
		return f.failed
	}
	end := f.c.s.end()
	f.failed = f.c.bounded(end, func() error { return f.close(end) })
	if f.failed == nil {
		f.ended = true
		f.c.end(errUnused)
	}
	return f.failed
}

func (f *hdfsFile) close(end time.Time) error {
	if err := f.w.SetDeadline(end); err != nil {
		return err
	}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f.w.Close()
		if err == nil || !hdfs.IsErrReplicating(err) || time.Now().Add(pause).After(end) {
			return err
		}
		time.Sleep(pause)
	}
}

// Abort cuts the client, and closes the writer so that the goroutines of its block end.
func (f *hdfsFile) Abort() {
	if f.ended {
		return
	}
	f.ended = true
	_ = f.c.shut(errUnused)
	_ = f.w.Close()
	f.c.end(errUnused)
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
	r, err := s.open(name, s.end())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, r.size)
	if n, err := io.ReadFull(io.NewSectionReader(r, 0, r.size), data); err != nil {
		return nil, fmt.Errorf("%s ends at byte %d of %d: %w", s.path(name), n, r.size, err)
	}
	return data, nil
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
	r, err := s.open(name, s.end())
	if err != nil {
		return nil, err
	}
	return r, nil
}

// hdfsReader reads a file through a client of its own, which can be cut without harm to others.
type hdfsReader struct {
	s    *hdfsStore
	name string
	size int64
	c    *nameClient
	r    *hdfs.FileReader
}

func (s *hdfsStore) open(name string, end time.Time) (*hdfsReader, error) {
	c, err := s.connect(end)
	if err != nil {
		return nil, err
	}
	r := &hdfsReader{s: s, name: name, c: c}
	err = c.bounded(end, func() (err error) {
		r.r, err = c.Open(s.path(name))
		return err
	})
	if err != nil {
		c.end(err)
		return nil, err
	}
	r.size = r.r.Stat().Size()
	return r, nil
}

func (r *hdfsReader) ReadAt(p []byte, off int64) (n int, err error) {
	if off >= r.size {
		return 0, io.EOF
	}
	end := r.s.end()
	if !r.c.alive() { // the namenode was away since the last read
		again, err := r.s.open(r.name, end)
		if err != nil {
			return 0, err
		}
		_ = r.Close()
		*r = *again
	}
	err = r.c.bounded(end, func() (err error) {
		if err = r.r.SetDeadline(end); err == nil {
			n, err = r.r.ReadAt(p, off)
		}
		return err
	})
	return n, err
}

func (r *hdfsReader) Close() error {
	_ = r.r.Close()
	r.c.end(errUnused)
	return nil
}

func (s *hdfsStore) Close() error {
	s.mu.Lock()
	c := s.client
	s.client = nil
	s.mu.Unlock()
	if c != nil {
		c.end(errUnused)
	}
	s.kerberos.close()
	return nil
}
