//go:build e2e

package archiver

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"weir/archiver/store"
	"weir/archiver/store/hdfstest"
	"weir/ingest"
	"weir/schema"
)

const faultDeadline = 5 * time.Second

// timed notes how long calls to a store take.
type timed struct {
	store.Store
	mu   sync.Mutex
	took map[string]time.Duration
}

func (s *timed) time(operation string) func() {
	begin := time.Now()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.took[operation] = max(s.took[operation], time.Since(begin))
	}
}

func (s *timed) Create(name string) (store.File, error) {
	defer s.time("create")()
	f, err := s.Store.Create(name)
	if err != nil {
		return nil, err
	}
	return &timedFile{f, s}, nil
}

type timedFile struct {
	store.File
	s *timed
}

func (f *timedFile) Write(p []byte) (int, error) { defer f.s.time("write")(); return f.File.Write(p) }
func (f *timedFile) Close() error                { defer f.s.time("close")(); return f.File.Close() }
func (s *timed) Rename(from, to string) error {
	defer s.time("rename")()
	return s.Store.Rename(from, to)
}
func (s *timed) Remove(name string) error   { defer s.time("remove")(); return s.Store.Remove(name) }
func (s *timed) MkdirAll(name string) error { defer s.time("mkdir")(); return s.Store.MkdirAll(name) }
func (s *timed) ReadFile(name string) ([]byte, error) {
	defer s.time("read")()
	return s.Store.ReadFile(name)
}
func (s *timed) List(name string) ([]store.Entry, error) {
	defer s.time("list")()
	return s.Store.List(name)
}
func (s *timed) Stat(name string) (store.Entry, error) {
	defer s.time("stat")()
	return s.Store.Stat(name)
}
func (s *timed) Open(name string) (store.Reader, error) {
	defer s.time("open")()
	return s.Store.Open(name)
}

// faulty archives into a cluster that fails.
type faulty struct {
	t     *testing.T
	c     *hdfstest.Cluster
	a     *Archiver
	reg   *prometheus.Registry
	calls *timed
	next  int64 // Kafka offset
}

func newFaulty(t *testing.T, c *hdfstest.Cluster, dir, spoolDir string) *faulty {
	cfg := DefaultConfig()
	cfg.Root, cfg.WebHDFS, cfg.Deadline, cfg.SpoolDir, cfg.HDFSUser = c.Root(dir), c.Web(), faultDeadline, spoolDir, "weir"
	cfg.RowGroupRows = 1024
	f := &faulty{t: t, c: c, reg: prometheus.NewRegistry()}
	var err error
	if f.a, err = New(cfg, slog.New(slog.DiscardHandler), f.reg); err != nil {
		t.Fatal(err)
	}
	f.calls = &timed{Store: f.a.store.Store, took: map[string]time.Duration{}}
	f.a.store.Store = f.calls
	c.WebPut(0, dir, "op=MKDIRS&permission=755")
	c.WebPut(0, dir, "op=SETOWNER&owner=weir")
	return f
}

// load archives batches as the consumer does: after an error it closes the partition, pauses, and begins again at the
// checkpoint. The fault happens when half is written, or just before the half-th step of a commit; it is mended after the given number of
// failures. It returns the failures.
func (f *faulty) load(step string, fault func(), mended int, mend func()) (failures []error) {
	f.t.Helper()
	const batches = 40
	from, to := f.next, f.next+batches
	f.next = to
	once := sync.OnceFunc(fault)
	f.a.hook = func(s string) error {
		if s == step {
			once()
		}
		return nil
	}
	end := time.Now().Add(90 * time.Second)
	for {
		err := f.attempt(from, to, func() {
			if step == "write" {
				once()
			}
		})
		if err == nil {
			break
		}
		failures = append(failures, err)
		if len(failures) == mended {
			mend()
		}
		if time.Now().After(end) {
			f.t.Fatalf("no end of %d failures, the last: %v", len(failures), err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return failures
}

func (f *faulty) attempt(from, to int64, half func()) error {
	s, cp, err := f.a.Open(f.t.Context(), tp)
	if err != nil {
		return err
	}
	defer s.Close()
	if cp != nil {
		if cp.NextOffset > to || cp.NextOffset < from {
			f.t.Fatalf("the checkpoint is %d, beside %d to %d", cp.NextOffset, from, to)
		}
		from = cp.NextOffset
	}
	for o := from; o < to; o++ {
		if err := s.Write(f.t.Context(), fat(o)); err != nil {
			return err
		}
		if o == (from+to)/2 {
			half()
		}
	}
	if from == to {
		return nil
	}
	return s.Commit(f.t.Context(), ingest.Checkpoint{NextOffset: to, Seen: fmt.Appendf(nil, "seen %d", to)})
}

// fat is a batch whose rows do not pack well, so that files have more than one packet.
func fat(offset int64) *schema.Batch {
	b := batch(offset)
	x := uint64(offset)*0x9e3779b97f4a7c15 + 1
	for i := range b.Records {
		body := make([]byte, 512)
		for j := range body {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			body[j] = byte(x)
		}
		b.Records[i].Body = string(body)
	}
	return b
}

// count reads the whole archive.
func (f *faulty) count() {
	f.t.Helper()
	ids := readIDs(f.t, f.a.store)
	if want := int(f.next) * 300; len(ids) != want {
		f.t.Errorf("the archive has %d records, want %d", len(ids), want)
	}
	for id, n := range ids {
		if n != 1 {
			f.t.Fatalf("%s is there %d times", id, n)
		}
	}
	f.calls.mu.Lock()
	defer f.calls.mu.Unlock()
	for operation, took := range f.calls.took {
		limit := 2 * faultDeadline // the client is made, then the call; a rename looks first
		if operation == "close" || operation == "create" {
			limit = 3 * 3 * faultDeadline // an upload in three ways
		}
		if took > limit {
			f.t.Errorf("%s took %s, more than %s", operation, took, limit)
		}
	}
	f.t.Logf("%d records, longest calls %v", len(ids), f.calls.took)
}

func reasons(failures []error) map[string]int {
	all := map[string]int{}
	for _, err := range failures {
		all[store.Reason(err)]++
	}
	return all
}

// TestHDFSFaults archives through each fault of an HDFS with two namenodes and two datanodes, replication 2, and counts.
func TestHDFSFaults(t *testing.T) {
	begin, before := time.Now(), goleak.IgnoreCurrent()
	c := hdfstest.Start(t, hdfstest.Options{NameNodes: 2, DataNodes: 2})
	t.Logf("cluster up in %s", time.Since(begin))
	nothing := func() {}
	spooled, direct := newFaulty(t, c, "/spooled", t.TempDir()), newFaulty(t, c, "/direct", "")
	for _, f := range []*faulty{spooled, direct} {
		if failures := f.load("", nothing, 0, nothing); len(failures) > 0 {
			t.Fatal(errors.Join(failures...))
		}
		f.count()
	}
	taken := newFaulty(t, c, "/taken", t.TempDir())
	frozen := newFaulty(t, c, "/frozen", t.TempDir()) // did not see the datanode die, so it begins in the usual way
	for _, fault := range []struct {
		name   string
		f      *faulty
		step   string
		before func()
		fault  func()
		mended int
		mend   func()
		reason string // that one of the failures must have; empty: there may be none
	}{
		{"safe mode", spooled, "close", nothing, func() { c.Admin(0, "-safemode", "enter") }, 2, func() { c.Admin(0, "-safemode", "leave") }, "safe_mode"},
		{"no permission", spooled, "seen", nothing, func() { c.WebPut(0, "/spooled", "op=SETPERMISSION&permission=000") }, 2, func() { c.WebPut(0, "/spooled", "op=SETPERMISSION&permission=755") }, "permission"},
		{"name quota", spooled, "write", nothing, func() { c.WebPut(0, "/spooled", "op=SETQUOTA&namespacequota=3") }, 2, func() { c.WebPut(0, "/spooled", "op=SETQUOTA&namespacequota=1000000000000") }, "quota"},
		{"space quota", direct, "close", nothing, func() { c.WebPut(0, "/direct", "op=SETQUOTA&storagespacequota=4096") }, 2, func() { c.WebPut(0, "/direct", "op=SETQUOTA&storagespacequota=1000000000000") }, "quota"},
		{"datanode killed in a block", direct, "write", nothing, func() { c.Data[1].Kill() }, 0, nothing, ""},
		{"datanode dead", spooled, "write", nothing, nothing, 0, nothing, ""},
		{"datanode frozen in an upload", frozen, "close", func() { c.Data[1].Start(); c.Settle(0) }, func() { c.Data[1].Freeze() }, 0, nothing, ""},
		{"namenode frozen, the other takes over", taken, "manifest", c.Data[1].Thaw, func() { c.Names[0].Freeze(); c.Activate(1) }, 0, nothing, ""},
		{"namenode restarted", taken, "commit", nothing, func() { c.Names[0].Kill(); c.Names[1].Kill() }, 2, func() { c.Names[1].Start(); c.Activate(1) }, "unreachable"},
	} {
		t.Run(fault.name, func(t *testing.T) {
			begin := time.Now()
			fault.f.t = t
			fault.before()
			failures := fault.f.load(fault.step, fault.fault, fault.mended, fault.mend)
			got := reasons(failures)
			if fault.reason != "" && got[fault.reason] == 0 {
				t.Errorf("failures %v, want one of %s", got, fault.reason)
			}
			for _, err := range failures[:min(len(failures), 5)] {
				t.Log(err)
			}
			if err := fault.f.a.Ready(t.Context()); err != nil {
				t.Errorf("the archive works again, but the state is: %v", err)
			}
			t.Logf("%s, failures %v", time.Since(begin), got)
		})
	}
	for _, f := range []*faulty{spooled, direct, frozen, taken} {
		f.t = t
		f.count()
		if err := f.a.Close(); err != nil {
			t.Error(err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("weir/archiver/store/hdfstest.(*Server).Start.func1"))
	t.Logf("all in %s", time.Since(begin))
}
