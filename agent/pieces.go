package agent

import (
	"bytes"
	"context"
	"slices"
	"time"
	"unsafe"

	"weir/agent/multiline"
	"weir/schema"
)

// piece is a record being put together: of pieces of one message, and of the messages that multiline joins.
type piece struct {
	start, end schema.Position
	stream     int
	body       []byte
	time       int64 // of its first line
	last       int64 // of its last line
	read       int64 // when its last line was read, where lines need not have a time
	whole      bool  // the message has its end
	done       bool  // nothing can be added
	truncated  bool
	partial    bool
	damaged    bool
	hole       bool   // no record: zeros stand here
	trace      *trace // of start, in a plain file
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

// line takes one line of size bytes at offset.
func (s *source) line(ctx context.Context, b []byte, offset, size int64, now time.Time) error {
	s.lines++
	start := schema.Position{Incarnation: s.inc, Offset: offset}
	end := schema.Position{Incarnation: s.inc, Offset: offset + size}
	l, text, err := s.kind.parse(b, s.a.text[:0])
	s.a.text = text
	if from := bytes.IndexByte(b, 0); err != nil && from >= 0 {
		return s.hole(ctx, b, from, offset, size, now)
	}
	if err != nil {
		if start.Compare(s.skip[2]) < 0 {
			return nil
		}
		s.a.m.damaged.Inc()
		s.queue = append(s.queue, &piece{start: start, end: end, stream: 2, body: s.a.hold(b), whole: true, done: true, damaged: true})
		return s.drain(ctx, now)
	}
	return s.take(ctx, l, start, end, now)
}

// hole takes a line that is none because zeros stand in it, from b[from] on, as after a crash of the node: the file's length was on
// the disk, its content was not. What stands before and behind them is taken by itself.
func (s *source) hole(ctx context.Context, b []byte, from int, offset, size int64, now time.Time) error {
	if from > 0 {
		if err := s.line(ctx, b[:from], offset, int64(from), now); err != nil {
			return err
		}
	}
	to := from
	for to < len(b) && b[to] == 0 {
		to++
	}
	end := offset + int64(to)
	if to == len(b) {
		end = offset + size // with the newline
	}
	s.queue = append(s.queue, &piece{start: schema.Position{Incarnation: s.inc, Offset: offset + int64(from)}, end: schema.Position{Incarnation: s.inc, Offset: end}, whole: true, done: true, hole: true})
	if to < len(b) {
		return s.line(ctx, b[to:], end, offset+size-end, now)
	}
	return s.drain(ctx, now)
}

// take adds what one line of a log says.
func (s *source) take(ctx context.Context, l line, start, end schema.Position, now time.Time) error {
	stream := streamIndex(l.stream)
	if start.Compare(s.skip[stream]) < 0 {
		return nil
	}
	body, whole := bytes.CutSuffix(l.log, []byte{'\n'})
	if whole && s.joiner == nil && len(s.queue) == 0 { // the common case: no copy
		p := &s.a.piece
		*p = piece{start: start, end: end, stream: stream, time: l.time, body: body, truncated: l.cut, partial: l.partial}
		return s.release(ctx, p, now)
	}
	open := s.find(stream, func(p *piece) bool { return !p.whole })
	switch {
	case open == nil:
		open = &piece{start: start, end: end, stream: stream, time: l.time, body: s.a.hold(body)}
		s.queue = append(s.queue, open)
	case len(open.body)+len(body) > s.a.cfg.MaxRecordBytes:
		open.whole, open.truncated = true, true
		s.complete(open)
		open = &piece{start: start, end: end, stream: stream, time: l.time, body: s.a.hold(body)}
		s.queue = append(s.queue, open)
	default:
		open.body, open.end = append(open.body, body...), end
	}
	open.last = l.time
	if s.plain != nil { // every line is whole
		open.truncated, open.partial, open.read, open.trace = l.cut, l.partial, now.UnixNano(), s.traceAt(start)
	}
	if whole {
		open.whole = true
		s.complete(open)
	}
	return s.drain(ctx, now)
}

// find returns the first record of a stream that can still grow and that is wanted.
func (s *source) find(stream int, wanted func(*piece) bool) *piece {
	for _, p := range s.queue {
		if p.stream == stream && !p.done && wanted(p) {
			return p
		}
	}
	return nil
}

// complete decides what becomes of a message that has its end: it is a record, or it continues the one before it.
func (s *source) complete(p *piece) {
	if s.joiner == nil {
		p.done = true
		return
	}
	before := s.find(p.stream, func(o *piece) bool { return o.whole && o != p })
	state := &s.joining[p.stream]
	switch continues := s.joiner.Continues(state, p.body, p.last); {
	case before == nil:
	case continues && !p.truncated && len(before.body)+1+len(p.body) <= s.a.cfg.MaxRecordBytes:
		before.body = append(append(before.body, '\n'), p.body...)
		s.a.unhold(p.body)
		before.end, before.last, before.read, before.partial = p.end, p.last, p.read, p.partial
		s.queue = slices.DeleteFunc(s.queue, func(q *piece) bool { return q == p })
		p = before
	default:
		before.done = true
	}
	p.done = p.truncated || !s.joiner.Open(state)
}

// expire ends the records that wait for a continuing line which can no longer come: a line written from now on has a
// later timestamp than the joiner lets a record span. It must be called only when all of the log is read, so that the
// cut is the one that the timestamps give, whenever the log is read.
func (s *source) expire(ctx context.Context, now time.Time) error {
	if s.joiner == nil || len(s.queue) == 0 {
		return nil
	}
	const slack = time.Second // between a line's timestamp and its writing
	for _, p := range s.queue {
		if p.whole && !p.done && now.UnixNano()-max(p.last, p.read) > int64(s.maxGap+slack) {
			p.done = true
			s.joining[p.stream] = multiline.State{}
		}
	}
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
		s.a.unhold(p.body)
	}
	return nil
}

// spares is how many bodies' memory is kept, and spareBytes how large at most: enough for a few lines in pieces of 16 KiB at a time.
const spares, spareBytes = 8, 128 << 10

// hold copies a body that has to wait, to the memory of one that was released if there is any.
func (a *Agent) hold(body []byte) []byte {
	var b []byte
	if n := len(a.spare); n > 0 {
		b, a.spare = a.spare[n-1], a.spare[:n-1]
	}
	return append(b[:0], body...)
}

// unhold takes the memory of a body that was released.
func (a *Agent) unhold(body []byte) {
	if len(a.spare) < spares && cap(body) > 0 && cap(body) <= spareBytes {
		a.spare = append(a.spare, body)
	}
}

// finish ends all records as they are, at a place after which nothing can be added to them.
func (s *source) finish(ctx context.Context, now time.Time) error {
	for _, p := range s.queue {
		if !p.done {
			p.done, p.partial = true, !p.whole
		}
	}
	s.joining = [len(streams)]multiline.State{}
	return s.drain(ctx, now)
}

// text views bytes as a string; the encoder copies it before the bytes change.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
