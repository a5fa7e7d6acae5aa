package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weir/archiver/store"
	"weir/archiver/store/storetest"
)

// gateway is what HttpFS does otherwise than a namenode: it serves the bytes itself, to readers at once, makes folders that a file needs, takes a
// semicolon in an address for the end of the name, does not know renameoptions, and says false where a namenode has an error.
type gateway struct{ dir string }

func (g gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	before, _, _ := strings.Cut(r.URL.EscapedPath(), ";")
	name, _ := url.PathUnescape(before)
	name = filepath.Join(g.dir, strings.TrimPrefix(name, "/webhdfs/v1"))
	q := r.URL.Query()
	op := q.Get("op")
	if op == "CREATE" && q.Get("data") == "" {
		q.Set("data", "true")
		w.Header().Set("Location", "http://"+r.Host+r.URL.EscapedPath()+"?"+q.Encode())
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	answer, err := g.do(op, name, q, r.Body)
	status := http.StatusOK
	if err != nil {
		exception := "IOException"
		if errors.Is(err, fs.ErrNotExist) {
			exception, status = "FileNotFoundException", http.StatusNotFound
		} else if errors.Is(err, fs.ErrExist) {
			exception, status = "FileAlreadyExistsException", http.StatusInternalServerError
		} else {
			status = http.StatusInternalServerError
		}
		answer = map[string]any{"RemoteException": map[string]any{"exception": exception, "message": err.Error()}}
	}
	w.WriteHeader(status)
	if b, ok := answer.([]byte); ok {
		_, _ = w.Write(b)
	} else if answer != nil {
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func status(info fs.FileInfo, name string) map[string]any {
	kind := "FILE"
	if info.IsDir() {
		kind = "DIRECTORY"
	}
	return map[string]any{"pathSuffix": name, "type": kind, "length": info.Size()}
}

func (g gateway) do(op, name string, q map[string][]string, body io.Reader) (any, error) {
	yes := func(err error) (any, error) { return map[string]any{"boolean": err == nil}, nil }
	switch op {
	case "GETFILESTATUS":
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		return map[string]any{"FileStatus": status(info, "")}, nil
	case "LISTSTATUS":
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, err
		}
		all := []any{}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				return nil, err
			}
			all = append(all, status(info, e.Name()))
		}
		return map[string]any{"FileStatuses": map[string]any{"FileStatus": all}}, nil
	case "MKDIRS":
		return yes(os.MkdirAll(name, 0o755))
	case "DELETE":
		if _, err := os.Stat(name); err != nil {
			return yes(err)
		}
		return nil, os.Remove(name)
	case "RENAME":
		to := filepath.Join(g.dir, q["destination"][0])
		if info, err := os.Stat(to); err == nil && info.IsDir() {
			to = filepath.Join(to, filepath.Base(name))
		} else if err == nil {
			return yes(fs.ErrExist)
		}
		return yes(os.Rename(name, to))
	case "CREATE":
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(f, body)
		return nil, errors.Join(err, f.Close())
	case "OPEN":
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		off, _ := strconv.Atoi(q["offset"][0])
		n, _ := strconv.Atoi(q["length"][0])
		return data[off:min(off+n, len(data))], nil
	}
	return nil, fmt.Errorf("no operation %q", op)
}

func webConfig(t *testing.T, urls ...string) store.Config {
	t.Helper()
	var hosts []string
	for _, u := range urls {
		hosts = append(hosts, strings.TrimPrefix(u, "http://"))
	}
	cfg := config("webhdfs://" + strings.Join(hosts, ",") + "/archive")
	cfg.Deadline, cfg.SpoolDir = 5*time.Second, t.TempDir()
	return cfg
}

func TestHttpFS(t *testing.T) {
	for _, spooled := range []bool{true, false} {
		s := httptest.NewServer(gateway{t.TempDir()})
		defer s.Close()
		cfg := webConfig(t, s.URL)
		if !spooled {
			cfg.SpoolDir = ""
		}
		storetest.Run(t, open(t, cfg))
	}
}

func exception(status int, class string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"RemoteException":{"exception":%q,"javaClassName":"x","message":"m\n\tat x"}}`, class)
	}
}

// TestWebAnswers gives what a namenode, something in its place, or nobody answers.
func TestWebAnswers(t *testing.T) {
	good := gateway{t.TempDir()}
	if err := os.MkdirAll(filepath.Join(good.dir, "archive/a"), 0o755); err != nil {
		t.Fatal(err)
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	standby := exception(403, "StandbyException")
	for _, c := range []struct {
		name   string
		hosts  []http.Handler
		reason string // of Stat("a"); empty: it works
		want   string
	}{
		{"standby first", []http.Handler{standby, good}, "", ""},
		{"starting first", []http.Handler{exception(403, "RetriableException"), good}, "", ""},
		{"frozen first", []http.Handler{http.HandlerFunc(hang), good}, "", ""},
		{"both standby", []http.Handler{standby, standby}, "standby", "StandbyException: m"},
		{"frozen", []http.Handler{http.HandlerFunc(hang)}, "timeout", ""},
		{"safe mode", []http.Handler{exception(403, "SafeModeException")}, "safe_mode", "SafeModeException: m"},
		{"quota", []http.Handler{exception(403, "DSQuotaExceededException")}, "quota", ""},
		{"no rights", []http.Handler{exception(403, "AccessControlException"), good}, "permission", ""},
		{"another server", []http.Handler{http.NotFoundHandler()}, "standby", "is not WebHDFS"},
		{"not JSON", []http.Handler{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })}, "other", "is not that of WebHDFS"},
		{"empty", []http.Handler{http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}, "other", "has no status"},
		{"endless", []http.Handler{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		})}, "other", "is larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var urls []string
			for _, h := range c.hosts {
				s := httptest.NewServer(h)
				t.Cleanup(s.CloseClientConnections)
				t.Cleanup(s.Close)
				urls = append(urls, s.URL)
			}
			cfg := webConfig(t, urls...)
			cfg.Deadline = 2 * time.Second
			if c.name == "endless" { // as long as 64 MiB take on a busy machine
				cfg.Deadline = time.Minute
			}
			s := open(t, cfg)
			defer s.Close()
			begin := time.Now()
			e, err := s.Stat("a")
			if took := time.Since(begin); took > cfg.Deadline+time.Second {
				t.Errorf("took %s", took)
			}
			if store.Reason(err) != c.reason || c.reason == "" && e != (store.Entry{Name: "a", Dir: true}) {
				t.Errorf("%+v, %v (%s)", e, err, store.Reason(err))
			}
			if err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\tat")) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestWebNobody is a namenode that is not there.
func TestWebNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	s := open(t, webConfig(t, "http://"+l.Addr().String()))
	defer s.Close()
	if err := s.MkdirAll("a"); store.Reason(err) != "unreachable" {
		t.Errorf("%v (%s)", err, store.Reason(err))
	}
}

// TestWebChange is a change that may have arrived: it is not sent to another namenode.
func TestWebChange(t *testing.T) {
	var changes atomic.Int32
	lost := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		changes.Add(1)
		conn, _, _ := w.(http.Hijacker).Hijack()
		_ = conn.Close()
	}))
	defer lost.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		changes.Add(1)
		fmt.Fprint(w, `{"boolean":true}`)
	}))
	defer other.Close()
	s := open(t, webConfig(t, lost.URL, other.URL))
	defer s.Close()
	if err := s.Remove("a"); err == nil || changes.Load() != 1 {
		t.Errorf("%v after %d requests", err, changes.Load())
	}
	if err := s.Remove("a"); err != nil { // the next call begins with the other one
		t.Error(err)
	}
}
