package archiver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
	"weir/schema"
)

// partition writes one partition. It is used by one goroutine, and by others only to write a row group when all partitions together
// hold too much (budget.go); mu is for that.
//
// What it writes is in its own folder <tmp>/<owner> until the commit. Another writer of the partition deletes that folder;
// then every call that follows here fails and nothing can be committed.
type partition struct {
	a              *Archiver
	tp             ingest.TopicPartition
	log            *slog.Logger
	owner          string
	tmp, manifests string
	held, largest  atomic.Int64 // bytes of its row groups, and of the largest, for the budget

	mu      sync.Mutex
	last    archive.Span // of the last commit; zero before the first
	created time.Time    // when that was
	prevSum string       // SHA-256 of its manifest
	seen    string       // path of its sidecar

	first    int64                      // the first offset written, before the first commit
	hours    map[int64]*hourFile        // open files by hour since 1970
	finished []archive.File             // closed files that wait for the commit
	sources  map[string]*archive.Source // since the last commit
	seq      int                        // numbers temporary files
	nth      int                        // numbers files within a commit
	clock    int64                      // counts uses of open files
	broken   error                      // the first failure; the partition must be opened again
	closed   bool
}

// hourFile is an open file for one hour of event time. It is made in the store when its first row group is written.
type hourFile struct {
	hour, used  int64
	rows        int64
	group       archive.Group // rows that are not written yet
	tmp         string
	out         *output
	w           *archive.Writer // nil: nothing is written yet
	since       time.Time       // of its first row, by the clock here
	min, max    int64           // event times, ns
	first, last int64           // Kafka offsets
	content     archive.Summer
}

// output counts and sums what goes into a file, to be compared with what comes out of the store.
type output struct {
	store.File
	sum hash.Hash
	n   int64
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.File.Write(p)
	o.sum.Write(p[:n])
	o.n += int64(n)
	return n, err
}

func (p *partition) dir() string       { return path.Join(p.tmp, p.owner) }
func (p *partition) commitDir() string { return path.Join(p.tmp, p.owner, "commit") }

// reset forgets what was written since the last commit.
func (p *partition) reset() {
	p.first, p.nth = -1, 0
	p.hours, p.sources, p.finished = map[int64]*hourFile{}, map[string]*archive.Source{}, nil
}

// fail remembers the first failure, because the files are then in a state that only a new Open can judge.
func (p *partition) fail(operation string, err error) error {
	p.a.m.errors.WithLabelValues(operation).Inc()
	p.broken = fmt.Errorf("archiver: %s %s/%d: %w", operation, p.tp.Topic, p.tp.Partition, err)
	return p.broken
}

// Write adds a batch's records to the files of their hours.
func (p *partition) Write(_ context.Context, b *schema.Batch) error {
	if err := p.add(b); err != nil {
		return err
	}
	p.a.shrink()
	return nil
}

func (p *partition) add(b *schema.Batch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return p.broken
	}
	if b.KafkaOffset < p.last.Next {
		return p.fail("write", fmt.Errorf("offset %d was committed before, up to %d; if the topic was deleted and made anew, give the archive another root", b.KafkaOffset, p.last.Next))
	}
	if p.first < 0 && len(b.Records) > 0 {
		p.first = b.KafkaOffset
	}
	if err := p.write(b); err != nil {
		return p.fail("write", fmt.Errorf("offset %d, source %s: %w", b.KafkaOffset, b.Source, err))
	}
	return nil
}

func (p *partition) write(b *schema.Batch) error {
	defer p.measure()
	for start := 0; start < len(b.Records); {
		// Neighbours are mostly of one hour, so they are added together. The number bounds how far a row group may grow past its size.
		hour := archive.EventTime(&b.Records[start]) / int64(time.Hour)
		end := start
		for ; end < len(b.Records) && end-start < 1024 && archive.EventTime(&b.Records[end])/int64(time.Hour) == hour; end++ {
		}
		f, err := p.hourFile(hour)
		if err != nil {
			return err
		}
		f.add(b, b.Records[start:end])
		if f.group.Rows() >= p.a.cfg.RowGroupRows || int64(f.group.Bytes()) >= p.a.cfg.RowGroupBytes {
			if err := p.flush(f); err != nil {
				return err
			}
		}
		start = end
	}
	if n := int64(len(b.Records)); n > 0 {
		p.source(b.Source).Add(n, archive.Range{Incarnation: b.Begin.Incarnation, From: b.From, To: b.End.Offset})
	}
	return nil
}

// CommitDue asks for a commit some time after the end of an hour that was written to before that. Records that come later wait for the
// consumer's interval, so that they do not make a file each.
func (p *partition) CommitDue() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.a.now()
	for _, f := range p.hours {
		if end := time.Unix((f.hour+1)*3600, 0).Add(p.a.cfg.HourClose); f.since.Before(end) && !now.Before(end) {
			return p.broken == nil
		}
	}
	return false
}

func (p *partition) source(name string) *archive.Source {
	s := p.sources[name]
	if s == nil {
		s = new(archive.Source)
		p.sources[strings.Clone(name)] = s
	}
	return s
}

func (f *hourFile) add(b *schema.Batch, records []schema.Record) {
	for i := range records {
		at := archive.EventTime(&records[i])
		if f.rows == 0 && i == 0 {
			f.min, f.max, f.first = at, at, b.KafkaOffset
		}
		f.min, f.max = min(f.min, at), max(f.max, at)
	}
	f.last = b.KafkaOffset
	f.rows += int64(len(records))
	f.group.Add(b, records, &f.content)
}

// flush writes the row group that a file holds in memory.
func (p *partition) flush(f *hourFile) error {
	if f.group.Rows() == 0 {
		return nil
	}
	if f.w == nil {
		p.seq++
		f.tmp = path.Join(p.dir(), fmt.Sprintf("%06d.parquet", p.seq))
		created, err := p.a.store.Create(f.tmp)
		if err != nil {
			return fmt.Errorf("create %s: %w", f.tmp, err)
		}
		f.out = &output{File: created, sum: sha256.New()}
		f.w = archive.NewWriter(f.out)
	}
	if err := p.step("flush", func() error { return f.w.WriteGroup(&f.group) }); err != nil {
		return fmt.Errorf("write %s: %w", f.tmp, err)
	}
	return nil
}

// hourFile returns the open file of an hour, and makes room for it if there is none.
func (p *partition) hourFile(hour int64) (*hourFile, error) {
	p.clock++
	if f := p.hours[hour]; f != nil {
		f.used = p.clock
		return f, nil
	}
	if len(p.hours) >= p.a.cfg.OpenHours {
		var oldest *hourFile
		for _, f := range p.hours {
			if oldest == nil || f.used < oldest.used {
				oldest = f
			}
		}
		if err := p.finish(oldest); err != nil {
			return nil, err
		}
	}
	f := &hourFile{hour: hour, used: p.clock, since: p.a.now()}
	p.hours[hour] = f
	return f, nil
}

// finish closes a file and keeps its entry for the manifest.
func (p *partition) finish(f *hourFile) error {
	if err := p.flush(f); err != nil {
		return err
	}
	if err := f.w.Close(); err != nil {
		return fmt.Errorf("finish %s: %w", f.tmp, err)
	}
	if err := f.out.Close(); err != nil {
		return fmt.Errorf("close %s: %w", f.tmp, err)
	}
	delete(p.hours, f.hour)
	p.nth++
	p.finished = append(p.finished, archive.File{
		Tmp: f.tmp, Path: archive.FinalPath(p.tp, f.hour, f.first, f.last, p.nth),
		Rows: f.rows, Bytes: f.out.n, SHA256: hex.EncodeToString(f.out.sum.Sum(nil)), Content: f.content.Sum,
		MinTime: time.Unix(0, f.min).UTC(), MaxTime: time.Unix(0, f.max).UTC(),
	})
	return nil
}

// Close abandons what is not committed. After a failure the files stay for the next Open: the commit may have
// happened although its answer was an error.
func (p *partition) Close() error {
	p.a.budget.leave(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	for _, f := range p.hours {
		if f.out != nil {
			f.out.Abort()
		}
	}
	p.hours = nil
	if p.broken != nil {
		return nil
	}
	p.broken = errors.New("archiver: partition is closed")
	return store.RemoveTree(p.a.store, p.dir())
}
