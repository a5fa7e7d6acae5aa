package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"weir/schema"
)

// A container whose driver keeps its files to itself is read through the engine. Its follower, a goroutine of its own, hands
// entries to the reading goroutine and waits until they are taken, so a slow Kafka holds it back.
//
// What the engine promises is little. A stream that is followed passes over what was written around a rotation (engine 20.10
// gives less than half of a log that rotates every two seconds; later ones pass over files when a reader is slow), and may
// end at a stop before the last lines. `since` filters each entry by its time, which may go back, and 20.10 then leaves
// out rotated files at times. So a followed stream only says that there is something to read. What is read comes from
// passes: a stream that is not followed gives the files as they were at its opening, oldest first. The pass looks there for
// the entry that was taken last, and what comes after it is new. If that is nowhere, the driver has deleted it, and perhaps
// others: a loss record says so.

const (
	copierBytes  = 16 << 10               // of the engine's copier: an entry that is shorter is the end of its message
	chunkBytes   = 32 << 10               // that a follower gathers before it hands over
	timeSlack    = 10 * time.Second       // by which an entry's time may be before that of an earlier one, so that a pass need not read all
	passPause    = 500 * time.Millisecond // between passes over a busy log
	quietAtFirst = 3 * time.Second        // after which a log is looked at although the engine says nothing; doubled while nothing comes
	quietAtMost  = 10 * time.Minute
	lastWords    = 10 * time.Second // that a removed container's stream has to end
	leastTail    = 100              // entries from the end of the log that a pass asks for first
	maxPasses    = 8                // at once: the engine decodes whole files for some
)

// readsFiles says whether the agent reads a driver's files itself.
func readsFiles(driver string) bool { return driver == "json-file" || driver == criDriver }

// cursor names an entry by itself, so that it is found again.
type cursor struct {
	Time   int64  `json:"time"` // Unix ns, as the engine says it
	Stream int    `json:"stream"`
	Sum    uint32 `json:"sum"`  // CRC32C of what the stream has with this time, up to and with the entry
	From   int64  `json:"from"` // no later entry is older, but for disorder: the first time of a message that is not finished, or Time
}

func (c cursor) same(o cursor) bool {
	return c.Time == o.Time && c.Stream == o.Stream && c.Sum == o.Sum
}

// entry is one message, or a piece of one, as the engine gives it.
type entry struct {
	cursor
	body []byte // ends in a newline where the driver gives one
	open bool   // its end is missing
}

// chunk is what a follower hands over.
type chunk struct {
	entries []entry
	lost    bool // what came before the entries, and was not read, is deleted
	end     bool // the container is removed
	whole   bool // with end: its log was read to its end
	refused bool // the driver cannot be read
}

// engineLog is the part of a source that is read through the engine. Its follower has the channels and reading; the rest is
// the reading goroutine's.
type engineLog struct {
	driver  string
	marks   []placed // of the entries not yet sent, after that of the last one that was
	ended   bool
	whole   bool
	removed bool // the follower has been told

	chunks chan chunk // what is handed over; one waits here
	wake   chan struct{}
	gone   chan struct{} // closed when the container is removed
	caught atomic.Int64  // when the last pass began, in Unix ns, if it brought nothing; else 0
}

type placed struct {
	offset int64
	cursor
}

// readThroughEngine starts the source's follower, once.
func (s *source) readThroughEngine(c container) {
	if s.engine != nil {
		return
	}
	s.engine = &engineLog{driver: c.driver, chunks: make(chan chunk, 1), wake: make(chan struct{}, 1), gone: make(chan struct{})}
	f := &follower{a: s.a, source: s, log: s.engine, id: c.id, tty: c.tty, quiet: quietAtFirst}
	if m := s.resumeAt; m != nil {
		s.prev, s.known, s.skip, s.lines, s.bytes, s.offset, s.resumeAt = m.Prev, m.Known, m.Skip, m.Lines, m.Bytes, m.At.Offset, nil
		if m.Entry != nil {
			s.engine.marks = []placed{{-1, *m.Entry}}
			f.last = m.Entry
		}
	}
	select {
	case s.a.followers <- f:
	case <-s.a.unfollowed: // the agent stops
	}
}

// before returns the entry after which reading goes on at the given place.
func (l *engineLog) before(at schema.Position) *cursor {
	if l == nil || len(l.marks) == 0 || l.marks[0].offset >= at.Offset {
		return nil
	}
	for len(l.marks) > 1 && l.marks[1].offset < at.Offset {
		l.marks = l.marks[1:]
	}
	c := l.marks[0].cursor
	return &c
}

// nudge lets the follower look at once.
func (l *engineLog) nudge() {
	if l != nil {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (l *engineLog) state() string {
	if l.caught.Load() == 0 {
		return stateReading
	}
	return stateQuiet
}

func (s *source) takeChunk(ctx context.Context, c chunk, now time.Time) error {
	if c.refused {
		id := s.name[len(s.a.dockerPrefix()):]
		s.a.foreign[id] = s.engine.driver
		s.a.m.unsupported.WithLabelValues(s.engine.driver).Inc()
		s.a.log.Warn("a container's output is not collected: the engine cannot read what its log driver keeps", "source", s.name, "driver", s.engine.driver,
			"remedy", "use json-file, local or journald, or leave the engine's cache of remote drivers on (log option cache-disabled)")
		s.mu.Lock()
		s.done = true
		s.mu.Unlock()
		return nil
	}
	if c.lost {
		if err := errors.Join(s.finish(ctx, now), s.sealIfDue(ctx, now, true)); err != nil {
			return err
		}
		at := schema.Position{Offset: s.offset}
		if err := s.lose(ctx, at, at, "rotated_away", "the log driver deleted entries before they were read"); err != nil {
			return err
		}
	}
	for _, e := range c.entries {
		if err := s.takeEntry(ctx, e, now); err != nil {
			return err
		}
	}
	if c.end {
		s.engine.ended, s.engine.whole = true, c.whole
	}
	return nil
}

// takeEntry takes one entry. Its position is its time, raised above that of the entry before it.
func (s *source) takeEntry(ctx context.Context, e entry, now time.Time) error {
	start := schema.Position{Offset: max(e.Time, s.offset)}
	end := schema.Position{Offset: start.Offset + 1}
	body, more := e.body, e.open
	if !more && !bytes.HasSuffix(body, []byte{'\n'}) {
		if more = len(body) >= copierBytes; !more { // the local driver gives the last piece of a message without a newline
			body = append(body, '\n')
		}
	}
	// The pieces of a message have its first time, but in journald.
	if open := s.find(e.Stream, func(p *piece) bool { return !p.whole }); open != nil && open.last != e.Time && s.engine.driver != "journald" {
		if err := s.take(ctx, line{log: []byte{'\n'}, stream: streams[e.Stream], time: open.last}, start, start, now); err != nil {
			return err
		}
	}
	s.lines++
	s.bytes += int64(len(e.body))
	s.a.m.read.Add(float64(len(e.body)))
	s.offset = end.Offset
	s.engine.marks = append(s.engine.marks, placed{start.Offset, e.cursor})
	return s.take(ctx, line{log: body, stream: streams[e.Stream], time: e.Time}, start, end, now)
}

// engineTurn takes what the follower hands over, and does what is due.
func (s *source) engineTurn(ctx context.Context, now time.Time) (more bool, err error) {
	l := s.engine
	if s.removed && !l.removed {
		l.removed = true
		close(l.gone)
	}
	caught := l.caught.Load() // before looking for a chunk, which would be of an earlier pass
	for s.deficit += turnBytes; s.deficit > 0 && !s.quota.blocks(); {
		select {
		case c := <-l.chunks:
			before := s.bytes
			if err := s.takeChunk(ctx, c, now); err != nil {
				return false, err
			}
			s.deficit -= int(s.bytes - before)
			continue
		default:
		}
		s.deficit = 0
		if l.ended {
			return false, s.engineEnd(ctx, now)
		}
		if caught != 0 { // all that was written before then is read
			return false, s.expire(ctx, time.Unix(0, caught))
		}
		return false, nil
	}
	return true, nil
}

// engineEnd closes a source of which all is taken that the engine gave.
func (s *source) engineEnd(ctx context.Context, now time.Time) error {
	if err := errors.Join(s.finish(ctx, now), s.sealIfDue(ctx, now, true)); err != nil {
		return err
	}
	if !s.engine.whole {
		at := schema.Position{Offset: s.offset}
		next := schema.Position{Offset: s.offset + 1}
		if err := s.lose(ctx, at, next, "removed_unread", "the container was removed before the engine could be asked for its last lines; there may have been none"); err != nil {
			return err
		}
		s.offset++
	}
	return s.close(ctx)
}

// followLogs runs followers until ctx ends.
func (a *Agent) followLogs(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(a.unfollowed)
	passes := make(chan struct{}, maxPasses)
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-a.followers:
			f.passes = passes
			wg.Go(func() { f.run(ctx) })
		}
	}
}

// follower reads one container's log.
type follower struct {
	a      *Agent
	source *source // only to be named
	log    *engineLog
	id     string
	tty    bool
	passes chan struct{}

	last  *cursor // of what was handed over
	tail  int     // entries from the end of the log that are likely to hold the last one
	quiet time.Duration
	rest  *entry // what a terminal's log ends in, if that may go on
}

var errNotSeen = errors.New("the entry that was read last is not there")

// run reads until ctx ends or the container is gone.
func (f *follower) run(ctx context.Context) {
	stopped, whole := false, false // the container ended; and a pass began after that
	pause := time.Second
	for try := 0; ctx.Err() == nil; {
		began := time.Now()
		n, err := f.pass(ctx)
		switch {
		case err != nil:
		case stopped:
			if whole = true; f.removed() {
				f.end(ctx, true)
				return
			}
			started := f.wait(ctx, pause)
			if pause = min(2*pause, quietAtMost); started {
				whole, pause = false, time.Second
			} else if f.removed() {
				f.end(ctx, len(f.log.wake) == 0)
				return
			}
			if stopped, err = f.listen(ctx); err == nil && !stopped {
				whole = false
			}
		case n > 0:
		default:
			whole = false
			stopped, err = f.listen(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			try = 0
			if d := passPause - time.Since(began); d > 0 && !stopped {
				f.sleep(ctx, d)
			}
		case errdefs.IsNotImplemented(err):
			_ = f.hand(ctx, chunk{refused: true})
			return
		case (errdefs.IsNotFound(err) || errdefs.IsConflict(err)) && f.removed():
			f.end(ctx, whole)
			return
		default:
			if try++; try == 4 && !errdefs.IsNotFound(err) { // before, the engine may be restarting
				f.a.log.Warn("cannot read a container's log from the engine; trying again", "source", f.source.name, "err", err)
			}
			f.wait(ctx, min(time.Second<<min(try-1, 5), 30*time.Second))
		}
	}
}

func (f *follower) removed() bool {
	select {
	case <-f.log.gone:
		return true
	default:
		return false
	}
}

// wait returns when the time is over, the container is removed, or it was started, which is then said.
func (f *follower) wait(ctx context.Context, d time.Duration) (started bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	gone := f.log.gone
	if f.removed() {
		gone = nil // known, and no reason to hurry
	}
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-gone:
	case <-f.log.wake:
		return true
	}
	return false
}

// sleep waits without being told of a start.
func (f *follower) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (f *follower) end(ctx context.Context, whole bool) {
	c := chunk{end: true, whole: whole}
	if f.rest != nil {
		c.entries = []entry{*f.rest}
	}
	_ = f.hand(ctx, c)
}

// hand waits until the reading goroutine has taken what was handed over before.
func (f *follower) hand(ctx context.Context, c chunk) error {
	select {
	case f.log.chunks <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case f.a.ready <- f.source:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// window is the part of a log that the engine is asked for.
type window struct {
	since int64 // Unix ns; 0: all
	tail  int   // entries from the end; below 0: all
}

// pass reads what there is after the last entry.
func (f *follower) pass(ctx context.Context) (n int, err error) {
	select {
	case f.passes <- struct{}{}:
		defer func() { <-f.passes }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	began := time.Now()
	windows := []window{{0, -1}}
	if f.last != nil && f.last.Time < began.Add(timeSlack).UnixNano() { // else the clock was set back
		since := max(0, f.last.From-int64(timeSlack))
		windows = []window{{since, max(f.tail, leastTail)}, {since, -1}, {0, -1}}
	}
	for _, w := range windows {
		if n, err = f.stream(ctx, w); !errors.Is(err, errNotSeen) {
			break
		}
	}
	if errors.Is(err, errNotSeen) {
		if err := f.hand(ctx, chunk{lost: true}); err != nil {
			return 0, err
		}
		f.last = nil
		n, err = f.stream(ctx, window{0, -1})
	}
	f.log.caught.Store(0)
	if f.tail = 4 * n; n > 0 {
		f.quiet = quietAtFirst
	} else if err == nil {
		f.log.caught.Store(began.UnixNano())
	}
	return n, err
}

// stream asks the engine once, and hands over the n entries that come after the last one.
func (f *follower) stream(ctx context.Context, w window) (n int, err error) {
	r, err := f.a.engine.logs(ctx, f.id, w, false)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	found := f.last == nil
	d := newDecoder(r, f.tty)
	var sums summer
	var c chunk
	size := 0
	flush := func() error {
		if len(c.entries) == 0 {
			return nil
		}
		if err := f.hand(ctx, c); err != nil {
			return err
		}
		last := c.entries[len(c.entries)-1].cursor
		n += len(c.entries)
		f.last, c.entries, size = &last, nil, 0
		return nil
	}
	for {
		e, err := d.next()
		if err != nil {
			if err := flush(); err != nil {
				return n, err
			}
			switch {
			case !errors.Is(err, io.EOF):
				return n, fmt.Errorf("log of %s: %w", f.id, err)
			case !found:
				return n, errNotSeen
			}
			if f.rest = d.rest; f.rest != nil {
				f.rest.cursor = sums.next(*f.rest)
			}
			return n, nil
		}
		if e.cursor = sums.next(e); !found {
			found = e.same(*f.last)
			continue
		}
		c.entries = append(c.entries, e)
		if size += len(e.body); size >= chunkBytes {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
}

// listen returns when there may be something to read, or the container has stopped, which is then said.
func (f *follower) listen(ctx context.Context) (stopped bool, err error) {
	listening, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := f.a.engine.logs(listening, f.id, window{time.Now().Add(-time.Second).UnixNano(), 0}, true)
	if err != nil {
		return false, err
	}
	defer r.Close()
	if n, err := f.pass(ctx); err != nil || n > 0 { // written before the engine began to tell
		return false, err
	}
	heard := make(chan error, 1)
	go func() {
		_, err := r.Read(make([]byte, 1))
		heard <- err
	}()
	gone := f.log.gone
	t := time.NewTimer(f.quiet)
	defer t.Stop()
	for {
		select {
		case err := <-heard:
			if errors.Is(err, io.EOF) {
				return true, nil
			}
			return false, err
		case <-t.C:
			f.quiet = min(2*f.quiet, quietAtMost)
			cancel()
			<-heard
			return false, ctx.Err()
		case <-gone:
			gone = nil
			t.Reset(lastWords)
		}
	}
}

// summer makes cursors of a log's entries in their order.
type summer struct {
	last [2]cursor
	open [2]int64 // time of the message that is not finished; 0: there is none
}

func (s *summer) next(e entry) cursor {
	c := cursor{Time: e.Time, Stream: e.Stream, From: e.Time}
	if before := s.last[e.Stream]; before.Time == e.Time {
		c.Sum = before.Sum
	}
	c.Sum = crc32.Update(crc32.Update(c.Sum, castagnoli, []byte{0}), castagnoli, e.body) // an empty entry changes it too
	s.last[e.Stream] = c
	s.open[e.Stream] = 0
	if len(e.body) >= copierBytes && !bytes.HasSuffix(e.body, []byte{'\n'}) {
		s.open[e.Stream] = e.Time
	}
	for _, t := range s.open {
		if t != 0 {
			c.From = min(c.From, t)
		}
	}
	return c
}

// decoder reads the engine's answer.
type decoder struct {
	r   *bufio.Reader
	tty bool

	time int64  // tty: of the entry that begins here, if it was read already; else 0
	prev int64  // tty: time of the piece before, if it was one
	rest *entry // tty: at the end, what may not be whole
}

func newDecoder(r io.Reader, tty bool) *decoder { return &decoder{r: bufio.NewReader(r), tty: tty} }

// next returns io.EOF between entries only.
func (d *decoder) next() (entry, error) {
	if d.tty {
		return d.raw()
	}
	return d.multiplexed()
}

// multiplexed reads an entry with the header that package stdcopy describes.
func (d *decoder) multiplexed() (e entry, err error) {
	var head [8]byte
	if _, err := io.ReadFull(d.r, head[:]); err != nil {
		return e, err
	}
	size, kind := binary.BigEndian.Uint32(head[4:]), stdcopy.StdType(head[0])
	if kind > stdcopy.Systemerr || head[1]|head[2]|head[3] != 0 || size > maxLineBytes {
		return e, fmt.Errorf("the engine's stream is not one of the streams of a container: header %x", head)
	}
	b := make([]byte, size, size+1) // room for a newline
	if _, err := io.ReadFull(d.r, b); err != nil {
		return e, errors.Join(io.ErrUnexpectedEOF, dropEOF(err))
	}
	if kind == stdcopy.Systemerr {
		return e, fmt.Errorf("the engine: %s", bytes.TrimSpace(b))
	}
	at, body, ok := bytes.Cut(b, []byte{' '})
	if e.Time, ok = entryTime(at, ok); !ok {
		return e, fmt.Errorf("an entry without its time: %.100q", b)
	}
	if kind == stdcopy.Stderr {
		e.Stream = 1
	}
	e.body = body
	return e, nil
}

func dropEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// entryTime reads the engine's RFC 3339 time, which is in the engine's zone.
func entryTime(b []byte, ok bool) (int64, bool) {
	if !ok {
		return 0, false
	}
	if ns, ok := parseTime(b); ok {
		return ns, true
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	return t.UnixNano(), err == nil && t.Year() >= minYear && t.Year() <= maxYear
}

// The length of a time as the engine writes it, in UTC and in another zone.
var timeLengths = [...]int{len("2006-01-02T15:04:05.000000000Z"), len("2006-01-02T15:04:05.000000000+00:00")}

// raw reads an entry of a terminal, where nothing divides entries but the newline, and that is missing after a piece and,
// from the local driver, after the last piece of a message. After these the next entry's time follows at once.
func (d *decoder) raw() (e entry, err error) {
	if e.Time = d.time; e.Time == 0 {
		if e.Time, err = d.rawTime(); err != nil {
			return e, err
		}
	}
	d.time = 0
	continues := d.prev == e.Time
	d.prev = 0
	for {
		c, err := d.r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			// What ends as a terminal's line does is the last piece of a message. Other text may go on in the next entry.
			if len(e.body) > 0 && continues && e.body[len(e.body)-1] == '\r' {
				return e, nil
			}
			if len(e.body) > 0 {
				rest := e
				rest.open = true
				d.rest = &rest
			}
			return entry{}, io.EOF
		case err != nil:
			return e, err
		case len(e.body) >= maxLineBytes:
			return e, fmt.Errorf("an entry of more than %d bytes", maxLineBytes)
		}
		e.body = append(e.body, c)
		if c == '\n' {
			return e, nil
		}
		if c != ' ' || !continues && len(e.body) <= copierBytes {
			continue
		}
		for _, n := range timeLengths {
			at := len(e.body) - 1 - n
			if at < 0 || at < copierBytes && (!continues || at > 0 && e.body[at-1] != '\r') {
				continue
			}
			if next, ok := entryTime(e.body[at:len(e.body)-1], true); ok {
				if d.time = next; at >= copierBytes {
					d.prev = e.Time
				}
				e.body = e.body[:at]
				return e, nil
			}
		}
	}
}

func (d *decoder) rawTime() (int64, error) {
	var b []byte
	for len(b) <= timeLengths[1] {
		c, err := d.r.ReadByte()
		if err != nil && len(b) > 0 {
			return 0, errors.Join(io.ErrUnexpectedEOF, dropEOF(err))
		}
		if err != nil {
			return 0, err
		}
		if c == ' ' {
			if ns, ok := entryTime(b, true); ok {
				return ns, nil
			}
			break
		}
		b = append(b, c)
	}
	more, _ := d.r.Peek(min(d.r.Buffered(), 200))
	return 0, fmt.Errorf("an entry without its time: %.200q", append(b, more...))
}

// logs asks for a container's log. The answer has the form that ContainerLogs of the client describes.
func (d *docker) logs(ctx context.Context, id string, w window, follow bool) (io.ReadCloser, error) {
	opts := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: follow}
	if w.since > 0 {
		opts.Since = engineTime(w.since)
	}
	if w.tail >= 0 {
		opts.Tail = strconv.Itoa(w.tail)
	}
	return d.c.ContainerLogs(ctx, id, opts)
}
