// Package read finds records in the archive: straight in the Parquet files, through manifests and compaction records, while the
// archiver and a compaction work. What a query does not need is not read: files and row groups go by time, statistics and bloom
// filters, columns and pages by what the tests before them left.
package read

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/schema"
)

// Query is what is looked for.
type Query struct {
	archive.Scope
	Filter Filter
	Newest bool // first; else the oldest
}

// Progress says what was read of what there is. Bytes are those of files, compressed.
type Progress struct {
	Listed      int // files of the manifests that were read
	ListedBytes int64
	Expired     int // files of the days within the time that expired on the record; not among those listed
	Files       int // of these, those within the time
	FileBytes   int64

	FilesRead    int
	Groups       int // row groups of the files that were read
	GroupsPruned int // of these, those passed over by time, statistics or bloom filters
	BytesRead    int64
	Rows         int64 // of the row groups that were not passed over
	Hits         int64 // given out

	Missing           []string // files that are listed and gone
	ListingTook, Took time.Duration
}

// Reader reads an archive. It may be used for one query after the other.
type Reader struct {
	store   store.Store
	workers int
	// budget is about how many bytes of records are held until those before them were given out.
	budget int
	// refuse is called before a file is opened and a row group is read, and fails that. Only tests set it.
	refuse func(p *archive.Place) error
}

// New makes a reader that uses all processors.
func New(s store.Store) *Reader {
	return &Reader{store: s, workers: runtime.GOMAXPROCS(0), budget: 256 << 20, refuse: func(*archive.Place) error { return nil }}
}

// Records gives the records that match in the order of time. Progress may be nil; it is called from the goroutine that ranges. The
// records are the caller's.
//
// An error ends it. Where files are gone that no compaction replaced, all others are read first and the error is ErrMissing.
func (r *Reader) Records(ctx context.Context, q Query, progress func(Progress)) iter.Seq2[*Hit, error] {
	return func(yield func(*Hit, error) bool) {
		s := r.sweep(q, progress)
		defer s.close()
		if err := s.run(ctx, func(h *Hit) bool { return yield(h, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

const (
	maxBatch      = 1000      // records of one batch
	maxBatchBytes = 512 << 10 // of their bodies, unless it has one record alone
	window        = 8192      // records that are sorted into batches at once
)

// Batches gives the same records as batches: of neighbours in time, those that came in one batch together. The batches of a source are in
// the order of their places as far as its times are; Prev is not known of any.
func (r *Reader) Batches(ctx context.Context, q Query, progress func(Progress)) iter.Seq2[*schema.Batch, error] {
	return func(yield func(*schema.Batch, error) bool) {
		var hits []*Hit
		flush := func() bool {
			for _, b := range Group(hits) {
				if !yield(b, nil) {
					return false
				}
			}
			hits = hits[:0]
			return true
		}
		for h, err := range r.Records(ctx, q, progress) {
			if (err != nil || len(hits) == window) && !flush() {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			hits = append(hits, h)
		}
		flush()
	}
}

// Group makes batches of hits that are in the order of time: one or more of those hits that came in one batch.
func Group(hits []*Hit) []*schema.Batch {
	groups, places := map[*schema.Batch][]*Hit{}, map[string][]int{} // places in all of a source's batches
	var all []*schema.Batch
	for _, h := range hits {
		groups[h.Batch] = append(groups[h.Batch], h)
	}
	for _, h := range hits {
		group := groups[h.Batch]
		delete(groups, h.Batch)
		slices.SortFunc(group, func(a, b *Hit) int { return cmp.Compare(a.Record.Offset, b.Record.Offset) })
		for len(group) > 0 {
			b := *h.Batch
			for size := 0; len(group) > 0 && len(b.Records) < maxBatch && (size == 0 || size+len(group[0].Record.Body) <= maxBatchBytes); group = group[1:] {
				b.Records = append(b.Records, group[0].Record)
				size += len(group[0].Record.Body) + 1
			}
			b.Begin.Offset, b.From, b.End.Offset = b.Records[0].Offset, b.Records[0].Offset, b.Records[len(b.Records)-1].Offset+1
			places[b.Source] = append(places[b.Source], len(all))
			all = append(all, &b)
		}
	}
	for _, at := range places {
		of := make([]*schema.Batch, len(at))
		for i, n := range at {
			of[i] = all[n]
		}
		slices.SortFunc(of, func(a, b *schema.Batch) int { return a.Begin.Compare(b.Begin) })
		for i, n := range at {
			all[n] = of[i]
		}
	}
	return all
}

// ErrMissing says that files are gone which manifests list.
var ErrMissing = errors.New("files that manifests list are neither in their places nor replaced, and no expiry record tells of them; `weir audit` says more. What they held is not in the answer")

// Count calls visit with the time and the level of each record that matches, in the order of time.
func (r *Reader) Count(ctx context.Context, q Query, progress func(Progress), visit func(at int64, level string)) error {
	s := r.sweep(q, progress)
	s.light = true
	defer s.close()
	return s.run(ctx, func(h *Hit) bool {
		visit(h.At, h.Record.SeverityText)
		return true
	})
}

// Span is the time of the first and the last record of the files that a scope has a part in.
func (r *Reader) Span(ctx context.Context, scope archive.Scope) (first, last time.Time, ok bool, err error) {
	places, err := archive.Snapshot(ctx, r.store, scope)
	if err != nil || len(places) == 0 {
		return first, last, false, err
	}
	first = places[0].MinTime
	for _, p := range places {
		if p.MaxTime.After(last) {
			last = p.MaxTime
		}
	}
	return first, last, true, nil
}

// sweep goes through the archive in the order of time. Times are keys here: negated where the newest come first.
//
// Units, files first and then their row groups, are read in the order of the least key that they may have. What was found is held until
// no unit that is not read can have a lesser key. When that becomes too much, the greater half is forgotten, and the units
// that it was of are read again once the lesser half was given out: memory is bounded whatever the order in the files.
type sweep struct {
	*Reader
	q        Query
	from, to int64 // of times; to excluded
	progress func(Progress)
	light    bool // times and levels are enough
	started  time.Time

	p      Progress
	places []*archive.Place
	gone   map[string]bool // paths that are read no more
	queue  units
	read   []*unit // row groups that were read and may have records that were not given out
	held   []*Hit  // in order
	size   int     // of held
	done   int64   // all records below this key were given out
	limit  int64   // units are read up to this key alone, excluded; everything: to their end
	width  int64   // of keys, that went into the budget last
	open   map[*file]bool
}

const everything = math.MaxInt64

// unit is a file that was not opened yet, or a row group.
type unit struct {
	place     *archive.Place
	file      *file // nil: the file was not opened
	group     int
	low, high int64 // keys of its records that are wanted, both included
}

// units is a heap by the least key.
type units []*unit

func (u units) Len() int           { return len(u) }
func (u units) Less(i, j int) bool { return u[i].low < u[j].low }
func (u units) Swap(i, j int)      { u[i], u[j] = u[j], u[i] }
func (u *units) Push(x any)        { *u = append(*u, x.(*unit)) }
func (u *units) Pop() any {
	last := (*u)[len(*u)-1]
	*u = (*u)[:len(*u)-1]
	return last
}

func (r *Reader) sweep(q Query, progress func(Progress)) *sweep {
	if progress == nil {
		progress = func(Progress) {}
	}
	return &sweep{Reader: r, q: q, from: bound(q.Since, 0), to: bound(q.Until, math.MaxInt64), progress: progress, started: time.Now(),
		gone: map[string]bool{}, done: math.MinInt64, limit: everything, open: map[*file]bool{}}
}

// keys are those of the times from (included) to (included).
func (s *sweep) keys(from, to int64) (low, high int64) {
	if s.q.Newest {
		return -to, -from
	}
	return from, to
}

func (s *sweep) key(h *Hit) int64 {
	if s.q.Newest {
		return -h.At
	}
	return h.At
}

func (s *sweep) compare(a, b *Hit) int {
	if s.q.Newest {
		return b.compare(a)
	}
	return a.compare(b)
}

// close ends what is open; the caller may have stopped early.
func (s *sweep) close() {
	for f := range s.open {
		_ = f.close()
	}
	s.open = nil
}

func (s *sweep) tell() {
	s.p.Took = time.Since(s.started)
	s.progress(s.p)
}

func (s *sweep) run(ctx context.Context, give func(*Hit) bool) error {
	list, err := archive.List(ctx, s.store, s.q.Scope)
	if err != nil {
		return err
	}
	s.p.Listed, s.p.ListedBytes, s.p.Expired, s.p.ListingTook = list.Files, list.Bytes, list.Expired, time.Since(s.started)
	for i := range list.Places {
		s.add(&list.Places[i])
	}
	s.tell()
	// While records are given out, the next units are read.
	reading := s.begin(ctx)
	defer func() { s.settle(reading) }()
	for len(reading.units) > 0 || len(s.queue) > 0 || len(s.held) > 0 {
		if err := s.end(ctx, reading); err != nil {
			return err
		}
		reading = s.begin(ctx)
		s.tell()
		if !s.give(reading, give) {
			s.tell()
			return nil
		}
		if len(reading.units) == 0 { // the limit was moved
			reading = s.begin(ctx)
		}
	}
	s.tell()
	if len(s.p.Missing) > 0 {
		return fmt.Errorf("%d %w: %s", len(s.p.Missing), ErrMissing, s.p.Missing[0])
	}
	return nil
}

// add queues a file for those of its records that were not given out.
func (s *sweep) add(p *archive.Place) {
	s.places = append(s.places, p)
	s.p.Files++
	s.p.FileBytes += p.Bytes
	low, high := s.keys(p.MinTime.UnixNano(), p.MaxTime.UnixNano())
	if low = max(low, s.done); low <= high {
		heap.Push(&s.queue, &unit{place: p, low: low, high: high})
	}
}

// result is what one unit gave.
type result struct {
	groups []*unit // of a file
	hits   []*Hit
	rows   int
	pruned bool
	bytes  int64
	err    error
}

// batch is units that are being read at once.
type batch struct {
	units   []*unit
	results []result
	reading sync.WaitGroup
	settled bool
}

// begin starts to read the next units.
func (s *sweep) begin(ctx context.Context) *batch {
	b := new(batch)
	for len(b.units) < s.workers && len(s.queue) > 0 && s.queue[0].low < s.limit {
		b.units = append(b.units, heap.Pop(&s.queue).(*unit))
	}
	b.results = make([]result, len(b.units))
	for i, u := range b.units {
		b.reading.Go(func() {
			if b.results[i].err = ctx.Err(); b.results[i].err == nil {
				b.results[i] = s.unit(u)
			}
		})
	}
	return b
}

// settle waits for units, whose files are open then.
func (s *sweep) settle(b *batch) {
	b.reading.Wait()
	if b.settled {
		return
	}
	b.settled = true
	for i := range b.results {
		for _, one := range b.results[i].groups {
			s.open[one.file] = true
		}
	}
}

// end waits for units, and holds what they gave.
func (s *sweep) end(ctx context.Context, b *batch) error {
	s.settle(b)
	for i, u := range b.units {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.take(ctx, u, &b.results[i]); err != nil {
			return err
		}
	}
	slices.SortFunc(s.held, s.compare)
	if s.size > s.budget {
		s.forget()
	}
	return nil
}

// unit opens a file, or reads a row group. It is called from several goroutines.
func (s *sweep) unit(u *unit) (r result) {
	if r.err = s.refuse(u.place); r.err != nil {
		return r
	}
	if u.file == nil {
		var f *file
		if f, r.err = openFile(s.store, u.place); r.err != nil {
			return r
		}
		r.bytes = f.taken()
		for i := range f.RowGroups() {
			from, to := newGroup(f, i).span()
			low, high := s.keys(from, to)
			f.groups++
			r.groups = append(r.groups, &unit{place: u.place, file: f, group: i, low: max(low, u.low), high: high})
		}
		if len(r.groups) == 0 {
			r.err = f.close()
		}
		return r
	}
	g := newGroup(u.file, u.group)
	defer g.close()
	defer func() { r.bytes = u.file.taken() }()
	from, to := s.keys(u.low, min(u.high, s.limit-1)) // keys of keys are times
	window := &byTime{max(from, s.from), min(to, s.to-1) + 1}
	if window.from >= window.to || window.none(g) || s.q.Filter.f != nil && s.q.Filter.f.none(g) {
		r.pruned = true
		return r
	}
	r.rows = g.rows
	rows := newRowSet(g.rows)
	rows.fill(g.rows)
	if r.err = window.apply(g, rows); r.err == nil && s.q.Filter.f != nil {
		r.err = s.q.Filter.f.apply(g, rows)
	}
	if r.err == nil && s.light {
		r.hits, r.err = g.light(rows)
	} else if r.err == nil {
		r.hits, r.err = g.hits(rows)
	}
	return r
}

// take notes what a unit gave.
func (s *sweep) take(ctx context.Context, u *unit, r *result) error {
	s.p.BytesRead += r.bytes
	switch {
	case s.gone[u.place.Path]:
		s.release(u)
		for _, one := range r.groups {
			s.release(one)
		}
		return nil
	case r.err != nil:
		return s.failed(ctx, u, r.err)
	case u.file == nil:
		s.p.FilesRead++
		s.p.Groups += len(r.groups)
		for _, one := range r.groups {
			if one.low > one.high { // given out already
				s.release(one)
			} else {
				heap.Push(&s.queue, one)
			}
		}
		return nil
	case r.pruned:
		s.p.GroupsPruned++
	}
	s.p.Rows += int64(r.rows)
	for _, h := range r.hits {
		s.held = append(s.held, h)
		s.size += h.size
	}
	if len(r.hits) == 0 && u.high < s.limit {
		s.release(u)
	} else {
		s.read = append(s.read, u)
	}
	return nil
}

// release is called for a row group that is needed no more.
func (s *sweep) release(u *unit) {
	if u.file == nil {
		return
	}
	if u.file.groups--; u.file.groups == 0 {
		delete(s.open, u.file)
		_ = u.file.close()
	}
}

// forget drops the greater half of what is held, to be read again. Records of one time stay together.
func (s *sweep) forget() {
	at := s.key(s.held[len(s.held)/2])
	if at == s.key(s.held[0]) {
		i := slices.IndexFunc(s.held, func(h *Hit) bool { return s.key(h) > at })
		if i < 0 {
			return // more of one time than the budget holds
		}
		at = s.key(s.held[i])
	}
	s.limit, s.width = at, at-s.key(s.held[0])
	s.drop(func(h *Hit) bool { return s.key(h) >= at })
}

func (s *sweep) drop(which func(h *Hit) bool) {
	s.held = slices.DeleteFunc(s.held, func(h *Hit) bool {
		if !which(h) {
			return false
		}
		s.size -= h.size
		return true
	})
}

// give gives out what no unit can come before any more. It reports false where the caller wants no more.
func (s *sweep) give(reading *batch, to func(*Hit) bool) bool {
	bound := int64(everything)
	if len(reading.units) > 0 { // they are the first of the queue
		bound = reading.units[0].low
	} else if len(s.queue) > 0 {
		bound = s.queue[0].low
	}
	limited := s.limit != everything && bound >= s.limit // and all is read up to the limit
	if limited {
		// What comes next is tried to twice the width, so that units are not read to their end only to be forgotten.
		bound, s.limit, s.width = s.limit, everything, min(2*s.width, everything/4)
		if bound < everything/2 {
			s.limit = bound + s.width
		}
	}
	n := 0
	for ; n < len(s.held) && s.key(s.held[n]) < bound; n++ {
		s.p.Hits++
		s.size -= s.held[n].size
		if !to(s.held[n]) {
			return false
		}
	}
	s.held = slices.Delete(s.held, 0, n)
	s.done = bound
	s.read = slices.DeleteFunc(s.read, func(u *unit) bool {
		switch {
		case u.high < bound:
			s.release(u)
		case limited: // the rest of it
			u.low = max(u.low, bound)
			heap.Push(&s.queue, u)
		default:
			return false
		}
		return true
	})
	return true
}

// failed finds out why a unit could not be read. A compaction that replaced its file since the listing is no failure: all that was not given
// out of the files that it replaced is taken from the merged ones instead. What expired since is passed over, as it is by who begins now.
func (s *sweep) failed(ctx context.Context, u *unit, why error) error {
	s.release(u)
	hour := u.place.Hour()
	scope := archive.Scope{Since: hour, Until: hour.Add(time.Hour)}
	records, err := archive.ReadRecords(ctx, s.store, u.place.Topic, scope)
	if err != nil {
		return errors.Join(why, err)
	}
	var old []archive.Place
	for _, p := range s.places {
		if p.Topic == u.place.Topic && p.Hour().Equal(hour) && !s.gone[p.Path] {
			old = append(old, *p)
		}
	}
	now, _ := records.Living(old)
	has := func(places []archive.Place, path string) bool {
		return slices.ContainsFunc(places, func(p archive.Place) bool { return p.Path == path })
	}
	if has(now, u.place.Path) {
		if !errors.Is(why, fs.ErrNotExist) {
			return why
		}
		s.p.Missing = append(s.p.Missing, u.place.Path)
		s.forgetFile(u.place.Path)
		return nil
	}
	for _, p := range old {
		if !has(now, p.Path) {
			s.forgetFile(p.Path)
		}
	}
	for i := range now {
		if !has(old, now[i].Path) {
			s.add(&now[i])
		}
	}
	return nil
}

// forgetFile forgets all of a file that was not given out.
func (s *sweep) forgetFile(path string) {
	s.gone[path] = true
	of := func(u *unit) bool {
		if u.place.Path != path {
			return false
		}
		s.release(u)
		return true
	}
	s.queue = slices.DeleteFunc(s.queue, of)
	heap.Init(&s.queue)
	s.read = slices.DeleteFunc(s.read, of)
	s.drop(func(h *Hit) bool { return h.place.Path == path })
}
