package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"weir/internal/secret"
)

const (
	// An answer of the namenode in JSON; a folder's listing takes about 400 bytes an entry.
	maxAnswer = 64 << 20
	// A datanode that failed is left out of what is asked of the namenode for so long.
	avoidNode = time.Minute
)

// webStore keeps the archive in HDFS through the REST API of its namenodes, or of an HttpFS gateway.
//
// Bytes go in two steps: the namenode names a datanode, and that one writes the file as a client of its own, which finds
// another datanode when one of the pipeline fails.
type webStore struct {
	scheme   string // http or https
	dir      string
	user     string
	deadline time.Duration
	client   *http.Client
	login    *login
	// sign adds what proves who asks; nil without Kerberos.
	sign func(r *http.Request, host string) error
	// replication, when not 0, is that of new files until they are closed.
	replication int
	*webHosts
}

// webHosts is what is known of the cluster's hosts.
type webHosts struct {
	mu    sync.Mutex
	names []string             // namenodes; the one that answered last comes first
	nodes map[string]time.Time // datanodes that failed, until when they are left out
}

func newWebStore(scheme string, r root, cfg Config, l *login) (*webStore, error) {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: cfg.Deadline}).DialContext,
		TLSHandshakeTimeout: cfg.Deadline, ExpectContinueTimeout: cfg.Deadline, MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second,
		WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10, MaxResponseHeaderBytes: 64 << 10,
	}
	var err error
	if transport.TLSClientConfig, err = secret.TLS(cfg.WebHDFSCAFile); err != nil {
		return nil, fmt.Errorf("webhdfs_%w", err)
	}
	return &webStore{
		scheme: scheme, dir: r.dir, user: cfg.HDFSUser, deadline: cfg.Deadline, login: l, sign: l.signer(),
		webHosts: &webHosts{names: append([]string(nil), r.hosts...), nodes: map[string]time.Time{}},
		client:   &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// single is the same store whose new files lie on one datanode until they are closed, so that they need no other.
func (s *webStore) single() *webStore {
	one := *s
	one.replication = 1
	return &one
}

func (s *webStore) path(name string) string { return path.Join(s.dir, name) }

// RemoteError is an exception that HDFS answered with.
type RemoteError struct{ Class, Text string }

func (e *RemoteError) Error() string     { return e.Class + ": " + e.Text }
func (e *RemoteError) Exception() string { return e.Class }

func (e *RemoteError) Is(target error) bool {
	switch e.Class {
	case "FileNotFoundException", "ParentNotDirectoryException":
		return target == fs.ErrNotExist
	case "FileAlreadyExistsException", "AlreadyBeingCreatedException":
		return target == fs.ErrExist
	case "AccessControlException", "SecurityException", "AuthenticationException":
		return target == fs.ErrPermission
	}
	return false
}

// elsewhere says that another namenode may be the active one.
func (e *RemoteError) elsewhere() bool {
	return e.Class == "StandbyException" || e.Class == "RetriableException"
}

func remoteError(resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("%s, and the answer broke off: %w", resp.Status, err)
	}
	var body struct {
		RemoteException struct{ Exception, Message string }
	}
	if json.Unmarshal(data, &body) == nil && body.RemoteException.Exception != "" {
		text, _, _ := strings.Cut(body.RemoteException.Message, "\n") // then comes a stack trace
		return &RemoteError{body.RemoteException.Exception, text}
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return &RemoteError{"AuthenticationException", resp.Status}
	case http.StatusNotFound, http.StatusServiceUnavailable:
		return &RemoteError{"RetriableException", resp.Status + " from " + resp.Request.URL.Host + ", which is not WebHDFS or is starting"}
	}
	return fmt.Errorf("%s answered %s", resp.Request.URL.Host, resp.Status)
}

// ask sends an operation to the namenodes until the active one has answered. A request that may have arrived is not
// sent to another host, unless it changes nothing; but the next call begins there.
func (s *webStore) ask(ctx context.Context, method, op, name string, params url.Values) (*http.Response, error) {
	if params == nil {
		params = url.Values{}
	}
	params.Set("op", op)
	if s.sign == nil {
		params.Set("user.name", s.user)
	}
	hosts := s.namenodes()
	var errs []error
	for i, host := range hosts {
		u := url.URL{Scheme: s.scheme, Host: host, Path: "/webhdfs/v1" + s.path(name), RawQuery: params.Encode()}
		u.RawPath = strings.ReplaceAll(u.EscapedPath(), ";", "%3B") // which HttpFS takes for the end of the name
		// Each host has its part of the deadline, so that one that is frozen does not use up what the others need.
		limit := s.deadline
		if len(hosts) > 1 {
			limit /= time.Duration(len(hosts) - i + 1)
		}
		part, cancel := context.WithTimeout(ctx, limit)
		resp, err := s.send(part, method, u.String(), nil, 0)
		if err == nil {
			s.prefer(host)
			resp.Body = &cancelBody{resp.Body, cancel}
			return resp, nil
		}
		cancel()
		errs = append(errs, fmt.Errorf("%s %s at %s: %w", op, s.path(name), host, err))
		var remote *RemoteError
		var dial *net.OpError
		answered := errors.As(err, &remote)
		if answered && !remote.elsewhere() {
			s.prefer(host)
			return nil, errs[len(errs)-1]
		}
		s.demote(host)
		refused := errors.As(err, &dial) && dial.Op == "dial"
		if ctx.Err() != nil || (!answered && !refused && method != http.MethodGet) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// send makes one request. Statuses of 200 to 399 are answers, the others errors.
func (s *webStore) send(ctx context.Context, method, u string, body io.Reader, size int64) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.ContentLength = size
		r.Header.Set("Expect", "100-continue")
		r.Header.Set("Content-Type", "application/octet-stream") // HttpFS refuses others
	}
	if s.sign != nil && r.URL.Query().Get("delegation") == "" {
		if err := s.sign(r, r.URL.Hostname()); err != nil {
			return nil, err
		}
	}
	resp, err := s.client.Do(r)
	if err != nil {
		var full *url.Error
		if errors.As(err, &full) {
			err = full.Err // the address may hold a delegation token
		}
		return nil, err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return nil, errors.Join(remoteError(resp), resp.Body.Close())
	}
	return resp, nil
}

func (h *webHosts) namenodes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.names)
}

func (h *webHosts) prefer(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names = append([]string{name}, h.without(name)...)
}

func (h *webHosts) demote(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names = append(h.without(name), name)
}

func (h *webHosts) without(name string) []string {
	return slices.DeleteFunc(slices.Clone(h.names), func(n string) bool { return n == name })
}

// avoided lists datanodes as the namenode wants them: it knows them by their address, without the port of HTTP.
func (h *webHosts) avoided() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.nodes, func(_ string, until time.Time) bool { return time.Now().After(until) })
	return strings.Join(slices.Sorted(maps.Keys(h.nodes)), ",")
}

func (h *webHosts) avoid(hostport string) {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	addrs, _ := net.DefaultResolver.LookupHost(ctx, host) // without an address there is nothing to leave out
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, addr := range addrs {
		h.nodes[addr] = time.Now().Add(avoidNode)
	}
}

func (h *webHosts) forgive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.nodes)
}

// call is an operation that the namenode alone answers, in JSON or with nothing.
func (s *webStore) call(method, op, name string, params url.Values, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.deadline)
	defer cancel()
	resp, err := s.ask(ctx, method, op, name, params)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("%s %s: the answer broke off: %w", op, s.path(name), err)
	}
	if len(data) > maxAnswer {
		return fmt.Errorf("%s %s: the answer is larger than %d bytes", op, s.path(name), maxAnswer)
	}
	if len(data) == 0 || answer == nil {
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%s %s: the answer is not that of WebHDFS: %w", op, s.path(name), err)
	}
	return nil
}

// locate asks for the bytes of a file to be written or read, leaving out datanodes that failed just now.
func (s *webStore) locate(ctx context.Context, method, op, name string, params url.Values) (*http.Response, error) {
	if nodes := s.avoided(); nodes != "" {
		params.Set("excludedatanodes", nodes)
	}
	resp, err := s.ask(ctx, method, op, name, params)
	var remote *RemoteError
	if errors.As(err, &remote) && remote.Class == "IOException" && params.Get("excludedatanodes") != "" { // none is left
		s.forgive()
		params.Del("excludedatanodes")
		resp, err = s.ask(ctx, method, op, name, params)
	}
	return resp, err
}

// redirect asks where the bytes of a file are to be written.
func (s *webStore) redirect(ctx context.Context, op, name string, params url.Values) (to *url.URL, gateway bool, err error) {
	resp, err := s.locate(ctx, http.MethodPut, op, name, params)
	if err != nil {
		return nil, false, err
	}
	if to, err = s.location(resp, op, name); err != nil {
		return nil, false, err
	}
	return to, to.Host == resp.Request.URL.Host, nil
}

// location takes from an answer where it leads to.
func (s *webStore) location(resp *http.Response, op, name string) (*url.URL, error) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %s answered %s and names no datanode", op, s.path(name), resp.Request.URL.Host, resp.Status)
	}
	if to.Scheme != "http" && to.Scheme != "https" || s.scheme == "https" && to.Scheme != "https" {
		return nil, fmt.Errorf("%s %s: %s leads to %s://%s", op, s.path(name), resp.Request.URL.Host, to.Scheme, to.Host)
	}
	return to, nil
}

type webStatus struct {
	PathSuffix string `json:"pathSuffix"`
	Type       string `json:"type"`
	Length     int64  `json:"length"`
}

func (w webStatus) entry(name string) Entry {
	e := Entry{Name: name, Dir: w.Type == "DIRECTORY"}
	if !e.Dir {
		e.Size = w.Length
	}
	return e
}

func (s *webStore) Stat(name string) (Entry, error) {
	var answer struct{ FileStatus *webStatus }
	if err := s.call(http.MethodGet, "GETFILESTATUS", name, nil, &answer); err != nil {
		return Entry{}, err
	}
	if answer.FileStatus == nil {
		return Entry{}, fmt.Errorf("GETFILESTATUS %s: the answer has no status", s.path(name))
	}
	return answer.FileStatus.entry(path.Base(name)), nil
}

func (s *webStore) List(name string) ([]Entry, error) {
	var answer struct {
		FileStatuses *struct{ FileStatus []webStatus }
	}
	if err := s.call(http.MethodGet, "LISTSTATUS", name, nil, &answer); err != nil {
		return nil, err
	}
	if answer.FileStatuses == nil {
		return nil, fmt.Errorf("LISTSTATUS %s: the answer has no entries", s.path(name))
	}
	entries := make([]Entry, 0, len(answer.FileStatuses.FileStatus))
	for _, f := range answer.FileStatuses.FileStatus {
		entries = append(entries, f.entry(f.PathSuffix))
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	return entries, nil
}

type webBoolean struct {
	Boolean *bool `json:"boolean"`
}

// refused says that the operation answered false, which it does instead of an error.
func (b webBoolean) refused() bool { return b.Boolean != nil && !*b.Boolean }

// Rename asks for one that does not overwrite, which the namenode does in one step. HttpFS knows only the older kind, which does not
// overwrite files either, but moves into a folder; so the destination is looked at first.
func (s *webStore) Rename(from, to string) error {
	taken := func() error {
		if _, err := s.Stat(to); err == nil {
			return &fs.PathError{Op: "rename", Path: s.path(to), Err: fs.ErrExist}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := taken(); err != nil {
		return err
	}
	var done webBoolean
	err := s.call(http.MethodPut, "RENAME", from, url.Values{"destination": {s.path(to)}, "renameoptions": {"NONE"}}, &done)
	if err != nil || !done.refused() {
		return err
	}
	if err := taken(); err != nil {
		return err
	}
	for _, name := range []string{from, path.Dir(to)} {
		if _, err := s.Stat(name); err != nil {
			return err
		}
	}
	return fmt.Errorf("rename %s to %s: refused without a reason", s.path(from), s.path(to))
}

func (s *webStore) Remove(name string) error {
	var done webBoolean
	if err := s.call(http.MethodDelete, "DELETE", name, url.Values{"recursive": {"false"}}, &done); err != nil {
		return err
	}
	if done.refused() {
		return &fs.PathError{Op: "remove", Path: s.path(name), Err: fs.ErrNotExist}
	}
	return nil
}

func (s *webStore) MkdirAll(name string) error {
	var done webBoolean
	if err := s.call(http.MethodPut, "MKDIRS", name, url.Values{"permission": {"755"}}, &done); err != nil {
		return err
	}
	if done.refused() {
		return fmt.Errorf("make folder %s: refused without a reason", s.path(name))
	}
	return nil
}

// Create looks for the name and its folder first, because the datanode says what is wrong only when it has all bytes.
// HttpFS would make a folder that is gone: there the file is written aside and renamed, which does not.
func (s *webStore) Create(name string) (File, error) {
	if _, err := s.Stat(name); err == nil {
		return nil, &fs.PathError{Op: "create", Path: s.path(name), Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := s.Stat(path.Dir(name)); err != nil {
		return nil, err
	}
	f := &webFile{s: s, name: name}
	ctx, cancel := context.WithCancel(context.Background())
	t := time.AfterFunc(s.deadline, cancel)
	node, err := f.begin(ctx)
	late := !t.Stop()
	if late && !answered(err) {
		err = f.late(err)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	f.node, f.stop = node, cancel
	return f, nil
}

// webFile is one file being written by one request. The goroutine that makes it ends with Close or Abort.
type webFile struct {
	s           *webStore
	name, aside string
	node        string
	cancel      context.CancelFunc // of the request
	stop        context.CancelFunc // of all requests for the file
	pipe        *io.PipeWriter
	done        chan struct{} // closed when the request has ended with result
	result      error
	failed      error
}

// watch ends the request if fn does not return within the deadline.
func (f *webFile) watch(fn func()) {
	t := time.AfterFunc(f.s.deadline, f.cancel)
	defer t.Stop()
	fn()
}

func (f *webFile) begin(ctx context.Context) (node string, err error) {
	params := func() url.Values {
		v := url.Values{"overwrite": {"false"}, "createparent": {"false"}, "permission": {"644"}}
		if f.s.replication > 0 {
			v.Set("replication", strconv.Itoa(f.s.replication))
		}
		return v
	}
	to, gateway, err := f.s.redirect(ctx, "CREATE", f.name, params())
	if err == nil && gateway {
		f.aside = "_upload/" + rand.Text()
		to, _, err = f.s.redirect(ctx, "CREATE", f.aside, params())
	}
	// A datanode says at once whether it takes the bytes. One that does not is left out, while there is time to ask another.
	const tries = 8
	for try := 1; err == nil; try++ {
		if err = f.connect(ctx, to, !gateway); err == nil || answered(err) {
			break
		}
		f.s.avoid(to.Host)
		if try == tries {
			return "", err
		}
		to, gateway, err = f.s.redirect(ctx, "CREATE", cmp.Or(f.aside, f.name), params())
	}
	if err != nil {
		return "", err
	}
	return to.Host, nil
}

// connect begins the request that carries the bytes, and waits until the server asks for them.
func (f *webFile) connect(ctx context.Context, to *url.URL, wait bool) error {
	ctx, f.cancel = context.WithCancel(ctx)
	asked := make(chan struct{})
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: sync.OnceFunc(func() { close(asked) })})
	r, w := io.Pipe()
	f.pipe, f.done = w, make(chan struct{})
	go func() {
		defer close(f.done)
		resp, err := f.s.send(ctx, http.MethodPut, to.String(), r, -1)
		if err == nil {
			err = resp.Body.Close()
		}
		f.result = err
		_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	}()
	if !wait {
		return nil
	}
	// Not long: the few threads of a datanode's web server each serve many connections, and wait while a pipeline hangs.
	late := time.NewTimer(f.s.deadline / 10)
	defer late.Stop()
	select {
	case <-asked:
		return nil
	case <-f.done:
		return cmp.Or(f.result, errors.New("the datanode answered before it had the file"))
	case <-late.C:
		f.Abort()
		return fmt.Errorf("datanode %s does not answer: %w", to.Host, os.ErrDeadlineExceeded)
	}
}

func (f *webFile) Write(p []byte) (n int, err error) {
	if f.failed != nil {
		return 0, f.failed
	}
	f.watch(func() { n, err = f.pipe.Write(p) })
	if err != nil {
		<-f.done
		f.fail(errors.Join(f.result, err))
	}
	return n, f.failed
}

func (f *webFile) late(err error) error {
	return errors.Join(fmt.Errorf("no answer within %s: %w", f.s.deadline, os.ErrDeadlineExceeded), err)
}

func (f *webFile) fail(err error) {
	var remote *RemoteError
	if !errors.As(err, &remote) {
		f.s.avoid(f.node)
		if errors.Is(err, context.Canceled) {
			err = f.late(err)
		}
	}
	f.failed = fmt.Errorf("write %s through %s: %w", f.s.path(f.name), f.node, err)
}

func (f *webFile) Close() error {
	if f.failed != nil {
		return f.failed
	}
	f.watch(func() {
		_ = f.pipe.Close()
		<-f.done
	})
	f.stop()
	if f.result != nil {
		f.fail(f.result)
		return f.failed
	}
	if f.aside != "" {
		if f.failed = f.s.Rename(f.aside, f.name); f.failed != nil {
			return f.failed
		}
	}
	if f.s.replication > 0 {
		f.failed = f.s.replicate(f.name)
	}
	return f.failed
}

func (f *webFile) Abort() {
	f.cancel()
	if f.stop != nil {
		f.stop()
	}
	_ = f.pipe.CloseWithError(context.Canceled)
	<-f.done
}

// replicate gives a file the replication that the cluster gives to new ones.
func (s *webStore) replicate(name string) error {
	var answer struct {
		FsServerDefaults struct {
			Replication int `json:"replication"`
		}
	}
	if err := s.call(http.MethodGet, "GETSERVERDEFAULTS", "", nil, &answer); err != nil {
		return err
	}
	if answer.FsServerDefaults.Replication <= s.replication {
		return nil
	}
	return s.call(http.MethodPut, "SETREPLICATION", name, url.Values{"replication": {strconv.Itoa(answer.FsServerDefaults.Replication)}}, nil)
}

func (s *webStore) ReadFile(name string) ([]byte, error) {
	e, err := s.Stat(name)
	if err != nil {
		return nil, err
	}
	if e.Dir {
		return nil, &fs.PathError{Op: "read", Path: s.path(name), Err: fs.ErrInvalid}
	}
	data := make([]byte, e.Size)
	if n, err := (&webReader{s, name, e.Size}).ReadAt(data, 0); err != nil {
		return nil, fmt.Errorf("%s ends at byte %d of %d: %w", s.path(name), n, e.Size, err)
	}
	return data, nil
}

func (s *webStore) Open(name string) (Reader, error) {
	e, err := s.Stat(name)
	if err != nil {
		return nil, err
	}
	return &webReader{s, name, e.Size}, nil
}

type webReader struct {
	s    *webStore
	name string
	size int64
}

func (r *webReader) Close() error { return nil }

// ReadAt has two tries at different datanodes within the deadline.
func (r *webReader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, &fs.PathError{Op: "read", Path: r.s.path(r.name), Err: fs.ErrInvalid}
	}
	want := p[:max(0, min(int64(len(p)), r.size-off))]
	const tries = 2
	for try := 0; len(want) > 0 && try < tries; try++ {
		if n, err = r.read(want, off, r.s.deadline/tries); err == nil || answered(err) {
			break
		}
	}
	if err == nil && len(want) < len(p) {
		err = io.EOF
	}
	return n, err
}

func (r *webReader) read(p []byte, off int64, limit time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	resp, err := r.s.locate(ctx, http.MethodGet, "OPEN", r.name, url.Values{"offset": {strconv.FormatInt(off, 10)}, "length": {strconv.Itoa(len(p))}})
	if err != nil {
		return 0, err
	}
	from := resp.Request.URL
	if resp.StatusCode != http.StatusOK { // HttpFS gives the bytes itself
		if from, err = r.s.location(resp, "OPEN", r.name); err != nil {
			return 0, err
		}
		resp, err = r.s.send(ctx, http.MethodGet, from.String(), nil, 0)
	}
	n := 0
	if err == nil {
		n, err = io.ReadFull(resp.Body, p)
		_ = resp.Body.Close()
	}
	if err != nil {
		if !answered(err) {
			r.s.avoid(from.Host)
		}
		return n, fmt.Errorf("read %s through %s: %w", r.s.path(r.name), from.Host, err)
	}
	return n, nil
}

func (s *webStore) Close() error {
	s.client.CloseIdleConnections()
	s.login.close()
	return nil
}
