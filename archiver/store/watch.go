package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Watched is a store that tells how its calls went.
type Watched struct {
	Store
	log    *slog.Logger
	up     prometheus.Gauge
	errors *prometheus.CounterVec
	again  *prometheus.CounterVec
	full   prometheus.Counter
	now    func() time.Time

	mu      sync.Mutex
	failing map[string]failure   // by operation
	warned  map[string]time.Time // when a log line of a kind was written
}

type failure struct {
	since time.Time
	err   error
}

// Watch opens a store and registers its metrics.
func Watch(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Watched, error) {
	s, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	w := &Watched{
		Store: s, log: log, now: time.Now, failing: map[string]failure{}, warned: map[string]time.Time{},
		up:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_archiver_store_up", Help: "1 while each kind of call to the store succeeds when it is made."}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_archiver_store_errors_total", Help: "Calls to the store that failed."}, []string{"operation", "reason"}),
		again:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_archiver_store_retries_total", Help: "Uploads and reads that failed in one way and were tried in another."}, []string{"operation", "reason"}),
		full:   prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_archiver_spool_full_total", Help: "Files that the local spool could not keep until they were complete."}),
	}
	w.up.Set(1)
	all := []prometheus.Collector{w.up, w.errors, w.again, w.full}
	if sp, ok := s.(*spool); ok {
		sp.full, sp.again = w.spoolFull, w.tried
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_archiver_spool_bytes", Help: "Bytes in the local spool."},
			func() float64 { return float64(sp.used.Load()) }))
	}
	for _, c := range all {
		err = errors.Join(err, reg.Register(c))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("register metrics: %w", err), s.Close())
	}
	return w, nil
}

func (w *Watched) spoolFull(err error) {
	w.full.Inc()
	w.warn("the local spool is full or cannot be written; files go to the store as they are written, so a datanode that fails costs "+
		"reading from Kafka again; make room, or set archiver.spool_dir or archiver.spool_bytes", "error", err)
}

func (w *Watched) tried(operation string, err error) {
	w.again.WithLabelValues(operation, Reason(err)).Inc()
	w.warn("the store failed and is tried in another way; nothing is lost", "operation", operation, "reason", Reason(err), "error", err)
}

// warn writes a log line once a minute: what it tells of may hold for every file.
func (w *Watched) warn(text string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now().Sub(w.warned[text]) >= time.Minute {
		w.warned[text] = w.now()
		w.log.Warn(text, args...)
	}
}

// Health is the failure of the kind of call that has failed for longest, or nil.
func (w *Watched) Health() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var oldest *failure
	var operation string
	for op, f := range w.failing {
		if oldest == nil || f.since.Before(oldest.since) {
			oldest, operation = &f, op
		}
	}
	if oldest == nil {
		return nil
	}
	return fmt.Errorf("%s fails since %s (%s): %w", operation, oldest.since.UTC().Format(time.RFC3339), Reason(oldest.err), oldest.err)
}

// seen notes how a call went. That a name is there or not is an answer, and no failure.
func (w *Watched) seen(operation string, err error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		err = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		delete(w.failing, operation)
		if operation == "rename" { // a commit, or the last step before its end: what failed before has been made up for
			clear(w.failing)
		}
	} else {
		w.errors.WithLabelValues(operation, Reason(err)).Inc()
		f, again := w.failing[operation]
		if !again {
			f.since = w.now()
		}
		f.err = err
		w.failing[operation] = f
	}
	up := 1.0
	if len(w.failing) > 0 {
		up = 0
	}
	w.up.Set(up)
}

func (w *Watched) Create(name string) (File, error) {
	f, err := w.Store.Create(name)
	if err != nil {
		w.seen("create", err)
		return nil, err
	}
	w.seen("create", nil)
	return &watchedFile{File: f, w: w}, nil
}

type watchedFile struct {
	File
	w *Watched
}

func (f *watchedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if err != nil {
		f.w.seen("write", err)
	}
	return n, err
}

// Close also tells that writing works: only then the bytes are known to be there.
func (f *watchedFile) Close() error {
	err := f.File.Close()
	f.w.seen("write", err)
	return err
}

func (w *Watched) Rename(from, to string) error {
	err := w.Store.Rename(from, to)
	w.seen("rename", err)
	return err
}

func (w *Watched) Remove(name string) error {
	err := w.Store.Remove(name)
	w.seen("remove", err)
	return err
}

func (w *Watched) MkdirAll(name string) error {
	err := w.Store.MkdirAll(name)
	w.seen("mkdir", err)
	return err
}

func (w *Watched) ReadFile(name string) ([]byte, error) {
	data, err := w.Store.ReadFile(name)
	w.seen("read", err)
	return data, err
}

func (w *Watched) List(name string) ([]Entry, error) {
	entries, err := w.Store.List(name)
	w.seen("list", err)
	return entries, err
}

func (w *Watched) Stat(name string) (Entry, error) {
	e, err := w.Store.Stat(name)
	w.seen("stat", err)
	return e, err
}

func (w *Watched) Open(name string) (Reader, error) {
	r, err := w.Store.Open(name)
	w.seen("open", err)
	return r, err
}
