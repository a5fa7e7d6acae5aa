package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"weir/ingest"
	"weir/schema"
)

// sender is the part of the producer that the agent uses.
type sender interface {
	Send(ctx context.Context, m ingest.Message) error
	Flush(ctx context.Context) error
}

// turnBytes is what one source may read before the next has its turn, so that a flood delays nobody for long.
const turnBytes = 256 << 10

// mark is a source's checkpoint: where reading goes on after a crash, and what is needed to cut there.
type mark struct {
	At    schema.Position    `json:"at"`    // the first line not yet given away
	Prev  schema.Position    `json:"prev"`  // end of the last batch
	Known bool               `json:"known"` // Prev is set
	Skip  [3]schema.Position `json:"skip"`  // per stream: pieces before it belong to records given away
	Lines int64              `json:"lines"`
	Bytes int64              `json:"bytes"`
}

// source follows one container's log. All fields but the acknowledged mark belong to the agent's reading goroutine.
//
// Records are released in the order of their first lines: a record that is complete waits for an earlier one that is
// not, so that a batch is contiguous and the place to go on from is a single position.
type source struct {
	a        *Agent
	name     string // docker/<node>/<container id>
	path     string
	resource []schema.Attr

	file      *os.File
	inc       schema.Incarnation
	firstLine schema.Incarnation // of file, from its first line alone
	damage    error              // why file, unpacked, is shorter than it was
	offset    int64              // next byte to read
	queue     []*piece
	skip      [3]schema.Position

	enc      schema.Encoder
	encInc   schema.Incarnation
	full     bool            // the last batch was sent because it was full
	first    schema.Position // of the batch being built
	opened   time.Time       // when its first record came
	prev     schema.Position
	known    bool
	ends     map[schema.Incarnation]int64 // length of the files left behind that records may still start in
	lines    int64
	bytes    int64
	idle     time.Duration
	next     time.Time // not looked at before
	added    time.Time
	removed  bool  // the container is gone: read to the end, then close
	started  bool  // the engine said that it ran
	told     bool  // closed or loss record sent
	resumeAt *mark // from the checkpoint, until the file is open

	mu    sync.Mutex
	acked mark
	dirty bool
	done  bool // everything is acknowledged and the source is to be forgotten
}

// piece is a record being put together.
type piece struct {
	start, end schema.Position
	stream     int
	body       []byte
	time       int64
	done       bool
	truncated  bool
	partial    bool
	damaged    bool
}

var streams = [...]string{"stdout", "stderr", ""}

func streamIndex(name string) int {
	switch name {
	case "stdout":
		return 0
	case "stderr":
		return 1
	}
	return 2
}

// turn reads for at most turnBytes. It reports whether there may be more at once.
func (s *source) turn(ctx context.Context, now time.Time) (more bool, err error) {
	if s.told {
		return false, nil
	}
	if s.file == nil {
		if err := s.open(ctx); err != nil || s.file == nil {
			return false, err
		}
	}
	for budget := turnBytes; budget > 0; {
		n, err := s.read(ctx, now)
		if err != nil {
			return false, err
		}
		if n == 0 {
			moved, err := s.atEnd(ctx, now)
			return moved, err
		}
		budget -= n
	}
	return true, nil
}

// open finds the file to go on with. No file at all is an error only for a source that is to be closed.
func (s *source) open(ctx context.Context) error {
	var files []logFile
	var err error
	if s.path != "" { // else the container was gone before the engine named it
		files, err = chain(s.path)
	}
	if err != nil {
		return fmt.Errorf("open the log of %s: %w (the agent needs to read %s)", s.name, err, s.path)
	}
	if len(files) == 0 {
		if s.removed {
			return s.vanished(ctx)
		}
		return nil
	}
	at := 0
	if m := s.resumeAt; m != nil {
		s.prev, s.known, s.skip, s.lines, s.bytes = m.Prev, m.Known, m.Skip, m.Lines, m.Bytes
		at = slices.IndexFunc(files, func(f logFile) bool { return f.inc == m.At.Incarnation })
		if at >= 0 {
			s.offset = m.At.Offset
		} else {
			at = max(0, slices.IndexFunc(files, func(f logFile) bool { return f.inc.Start > m.At.Start }))
			if err := s.lose(ctx, m.At, schema.Position{Incarnation: files[at].inc}, "rotated_away", "a rotated file was deleted before it was read to its end"); err != nil {
				closeAll(files)
				return err
			}
		}
		s.resumeAt = nil
	}
	return s.enter(files, at, s.offset)
}

// enter begins to read one of a log's files at an offset, and closes the others.
func (s *source) enter(files []logFile, at int, offset int64) error {
	next := files[at]
	closeAll(slices.Delete(files, at, at+1))
	if next.packed {
		plain, damage, err := unpack(next.f, s.a.cfg.StateDir)
		next.f.Close()
		if err != nil {
			return fmt.Errorf("unpack a rotated file of %s into agent.state_dir: %w", s.name, err)
		}
		next.f, s.damage = plain, damage
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.inc, s.firstLine, s.offset = next.f, next.inc, next.first, offset
	return nil
}

// read takes one buffer of whole lines.
func (s *source) read(ctx context.Context, now time.Time) (int, error) {
	buf := s.a.buf
	n, err := s.file.ReadAt(buf, s.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read %s at %d: %w", s.path, s.offset, err)
	}
	used := 0
	s.a.text = s.a.text[:0]
	for used < n {
		end := bytes.IndexByte(buf[used:n], '\n')
		if end < 0 {
			break
		}
		if err := s.line(ctx, buf[used:used+end], s.offset+int64(used), int64(end+1), now); err != nil {
			return 0, err
		}
		used += end + 1
	}
	if used == 0 && n == len(buf) {
		if n < maxLineBytes {
			s.a.buf = make([]byte, min(2*n, maxLineBytes))
			return s.read(ctx, now)
		}
		// No line is that long: what is here is damaged, and is told as it is.
		if err := s.line(ctx, buf, s.offset, int64(n), now); err != nil {
			return 0, err
		}
		used = n
	}
	s.offset += int64(used)
	s.bytes += int64(used)
	s.a.m.read.Add(float64(used))
	return used, nil
}

// line takes one line of size bytes at offset.
func (s *source) line(ctx context.Context, b []byte, offset, size int64, now time.Time) error {
	s.lines++
	start := schema.Position{Incarnation: s.inc, Offset: offset}
	end := schema.Position{Incarnation: s.inc, Offset: offset + size}
	l, text, err := parseLine(b, s.a.text[:0])
	s.a.text = text
	if err != nil {
		if start.Compare(s.skip[2]) < 0 {
			return nil
		}
		s.a.m.damaged.Inc()
		return s.put(ctx, &piece{start: start, end: end, stream: 2, body: slices.Clone(b), done: true, damaged: true}, now)
	}
	stream := streamIndex(l.stream)
	if start.Compare(s.skip[stream]) < 0 {
		return nil
	}
	body, whole := bytes.CutSuffix(l.log, []byte{'\n'})
	open := s.openPiece(stream)
	if open == nil {
		p := &s.a.piece
		*p = piece{start: start, end: end, stream: stream, time: l.time, done: whole, body: body}
		if whole && len(s.queue) == 0 {
			return s.release(ctx, p, now) // the common case: no copy
		}
		held := *p
		held.body = slices.Clone(body)
		return s.put(ctx, &held, now)
	}
	if len(open.body)+len(body) > s.a.cfg.MaxRecordBytes {
		open.done, open.truncated = true, true
		return s.put(ctx, &piece{start: start, end: end, stream: stream, time: l.time, done: whole, body: slices.Clone(body)}, now)
	}
	open.body, open.end, open.done = append(open.body, body...), end, whole
	return s.drain(ctx, now)
}

func (s *source) openPiece(stream int) *piece {
	for _, p := range s.queue {
		if p.stream == stream && !p.done {
			return p
		}
	}
	return nil
}

func (s *source) put(ctx context.Context, p *piece, now time.Time) error {
	s.queue = append(s.queue, p)
	return s.drain(ctx, now)
}

// drain releases complete records from the head of the queue.
func (s *source) drain(ctx context.Context, now time.Time) error {
	for len(s.queue) > 0 && s.queue[0].done {
		p := s.queue[0]
		s.queue = s.queue[1:]
		if err := s.release(ctx, p, now); err != nil {
			return err
		}
	}
	return nil
}

// release appends a record to the batch.
func (s *source) release(ctx context.Context, p *piece, now time.Time) error {
	if s.enc.Count() > 0 && s.encInc != p.start.Incarnation {
		if err := s.seal(ctx, s.ends[s.encInc], p.start); err != nil {
			return err
		}
	}
	if s.enc.Count() == 0 {
		s.encInc, s.first, s.opened = p.start.Incarnation, p.start, now
		if s.full { // a busy source fills this batch too
			s.enc.Use(s.a.buffer())
		}
		s.enc.Reset(s.name, s.encInc, s.resource)
	}
	attrs := s.a.attrs[:0]
	if name := streams[p.stream]; name != "" {
		attrs = append(attrs, schema.String(schema.AttrStream, name))
	}
	for _, f := range [...]struct {
		set bool
		key string
	}{{p.truncated, schema.AttrTruncated}, {p.partial, schema.AttrPartial}, {p.damaged, schema.AttrDamaged}} {
		if f.set {
			attrs = append(attrs, schema.Bool(f.key, true))
		}
	}
	s.a.attrs = attrs
	body := text(p.body)
	r := schema.Record{Time: p.time, Observed: now.UnixNano(), Body: body, Offset: p.start.Offset, Attrs: attrs}
	r.Severity, r.SeverityText = severity(body)
	s.enc.Append(&r)
	s.skip[p.stream] = p.end
	s.a.m.records.Inc()
	if s.enc.Len() >= s.a.cfg.BatchBytes {
		at := p.end
		if len(s.queue) > 0 {
			at = s.queue[0].start
		}
		if at.Incarnation == s.encInc {
			return s.seal(ctx, at.Offset, at)
		}
		return s.seal(ctx, s.ends[s.encInc], at)
	}
	return nil
}

// resume is the place from which a crash now would have to read again.
func (s *source) resume() schema.Position {
	if len(s.queue) > 0 {
		return s.queue[0].start
	}
	return schema.Position{Incarnation: s.inc, Offset: s.offset}
}

// seal sends the batch. end is the offset, in the batch's file, up to which it tells all; at is where reading goes on after it.
func (s *source) seal(ctx context.Context, end int64, at schema.Position) error {
	if s.enc.Count() == 0 {
		return nil
	}
	m := ingest.Message{Topic: schema.TopicLogs, Source: s.name, Begin: s.first, End: schema.Position{Incarnation: s.encInc, Offset: end}, Prev: s.prev, PrevKnown: s.known, Count: s.enc.Count(), Value: s.enc.Take()}
	if s.full = len(m.Value) >= s.a.cfg.BatchBytes; s.full {
		m.Free = s.a.reuse
	}
	return s.send(ctx, m, at, false)
}

func (s *source) send(ctx context.Context, m ingest.Message, at schema.Position, last bool) error {
	next := mark{At: at, Prev: m.End, Known: true, Skip: s.skip, Lines: s.lines, Bytes: s.bytes}
	m.Acked = func() {
		s.mu.Lock()
		s.acked, s.dirty = next, true
		s.done = last
		s.mu.Unlock()
	}
	if err := s.a.out.Send(ctx, m); err != nil {
		return err
	}
	s.prev, s.known = m.End, true
	return nil
}

// sealIfDue sends a batch whose first record has waited long enough. It is called between reads, when offset is exact.
func (s *source) sealIfDue(ctx context.Context, now time.Time, force bool) error {
	if s.enc.Count() == 0 || !force && now.Sub(s.opened) < s.a.cfg.Linger {
		return nil
	}
	at := s.resume()
	if at.Incarnation != s.encInc {
		return s.seal(ctx, s.ends[s.encInc], at)
	}
	return s.seal(ctx, at.Offset, at)
}

// atEnd is called when the file has no further whole line: it looks for a successor, and closes a source whose container is gone.
func (s *source) atEnd(ctx context.Context, now time.Time) (moved bool, err error) {
	if ino, err := os.Stat(s.path); err == nil {
		if mine, err := s.file.Stat(); err == nil && !os.SameFile(ino, mine) {
			return s.rotate(ctx, now)
		}
	}
	if !s.removed {
		return false, nil
	}
	if err := s.leave(ctx, now, true); err != nil {
		return false, err
	}
	return false, s.close(ctx)
}

// rotate goes on with the file after this one, once this one is read to its very end.
func (s *source) rotate(ctx context.Context, now time.Time) (moved bool, err error) {
	// A line may have been written between our last read and the renaming.
	if n, err := s.read(ctx, now); err != nil || n > 0 {
		return n > 0, err
	}
	files, err := chain(s.path)
	if err != nil {
		return false, fmt.Errorf("look for the file after a rotated one of %s: %w", s.name, err)
	}
	at := 1 + indexOf(files, s.file, s.firstLine) // 0: ours is deleted, all there are newer
	if at >= len(files) {
		closeAll(files)
		return false, nil // the new file has no line yet
	}
	if err := s.leave(ctx, now, false); err != nil {
		closeAll(files)
		return false, err
	}
	if files[at].inc.Start <= s.inc.Start {
		files[at].inc.Start = s.inc.Start + 1
	}
	if err := s.enter(files, at, 0); err != nil {
		return false, err
	}
	resume := s.resume()
	for inc := range s.ends { // forget files that nothing can start in any more
		if inc.Compare(resume.Incarnation) < 0 && (s.enc.Count() == 0 || inc.Compare(s.encInc) < 0) {
			delete(s.ends, inc)
		}
	}
	return true, nil
}

// leave tells what stands behind the last whole line, and at the last file of all also unfinished messages.
func (s *source) leave(ctx context.Context, now time.Time, last bool) error {
	rest := make([]byte, maxLineBytes)
	n, err := s.file.ReadAt(rest, s.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s at %d: %w", s.path, s.offset, err)
	}
	if n > 0 {
		if err := s.line(ctx, rest[:n], s.offset, int64(n), now); err != nil {
			return err
		}
		s.offset += int64(n)
		s.bytes += int64(n)
	}
	s.ends[s.inc] = s.offset
	if last || s.damage != nil {
		for _, p := range s.queue {
			if !p.done {
				p.done, p.partial = true, true
			}
		}
		if err := s.drain(ctx, now); err != nil {
			return err
		}
	}
	if s.damage == nil {
		return nil
	}
	if err := s.sealIfDue(ctx, now, true); err != nil {
		return err
	}
	s.a.log.Error("a compressed log file is damaged; what follows in it is lost", "source", s.name, "offset", s.offset, "err", s.damage)
	at := schema.Position{Incarnation: s.inc, Offset: s.offset}
	s.damage = nil
	s.offset++
	s.ends[s.inc] = s.offset
	return s.lose(ctx, at, schema.Position{Incarnation: s.inc, Offset: s.offset}, "damaged_file", "a compressed log file is damaged from here on")
}

// close sends the last batch and the record that says that the source is complete.
func (s *source) close(ctx context.Context) error {
	if err := s.sealIfDue(ctx, time.Now(), true); err != nil {
		return err
	}
	end := schema.Position{Incarnation: s.inc, Offset: s.offset}
	r := schema.Record{EventName: schema.EventSourceClosed, Body: fmt.Sprintf("source complete: %d lines, %d bytes", s.lines, s.bytes),
		Attrs: []schema.Attr{schema.Int(schema.AttrLines, s.lines), schema.Int(schema.AttrBytes, s.bytes)}}
	if err := s.tell(ctx, end, schema.Position{Incarnation: end.Incarnation, Offset: end.Offset + 1}, r, true); err != nil {
		return err
	}
	s.told = true
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	return nil
}

// vanished is for a removed container of which no file is left.
func (s *source) vanished(ctx context.Context) error {
	var from schema.Position
	if m := s.resumeAt; m != nil {
		from, s.prev, s.known, s.lines, s.bytes = m.At, m.Prev, m.Known, m.Lines, m.Bytes
	}
	s.inc, s.offset = from.Incarnation, from.Offset
	if s.resumeAt != nil || s.started {
		if err := s.lose(ctx, from, from, "removed_unread", "the container was removed with its log before the log was read to its end"); err != nil {
			return err
		}
		s.offset++
	}
	return s.close(ctx)
}

// lose records that what follows from in its file is gone; reading goes on at next.
func (s *source) lose(ctx context.Context, from, next schema.Position, reason, why string) error {
	s.a.m.lost.WithLabelValues(reason).Inc()
	s.a.log.Error("log bytes are lost", "source", s.name, "from", from.String(), "reason", reason)
	r := schema.Record{EventName: schema.EventLoss, Body: why, Severity: 17, SeverityText: "ERROR", Attrs: []schema.Attr{
		schema.String(schema.AttrLossReason, reason), schema.String(schema.AttrLossFrom, from.String()), schema.String(schema.AttrLossTo, "unknown")}}
	return s.tell(ctx, from, next, r, false)
}

// tell sends a record of the agent's own in the source's stream, as a batch of one byte at the given place.
func (s *source) tell(ctx context.Context, place, at schema.Position, r schema.Record, last bool) error {
	var e schema.Encoder
	e.Reset(s.name, place.Incarnation, s.resource)
	r.Offset, r.Observed = place.Offset, time.Now().UnixNano()
	e.Append(&r)
	end := place
	end.Offset++
	return s.send(ctx, ingest.Message{Topic: schema.TopicLogs, Source: s.name, Begin: place, End: end, Prev: s.prev, PrevKnown: s.known, Count: 1, Value: e.Bytes()}, at, last)
}

// text views bytes as a string; the encoder copies it before the bytes change.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
