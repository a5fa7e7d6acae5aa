// Package multiline decides, line by line within one stream, whether a line continues the record before it, as the
// lines of a stack trace do, or starts a new one.
//
// The decision depends on the lines and their timestamps alone, never on the wall clock: reading a file again after a
// crash cuts the same records. It never looks ahead, so a caller needs to hold back one record at most.
//
// A line starts a record unless something says otherwise. That may be the trace that the record is in; or the line
// itself, when it cannot stand alone (a Java frame, "Caused by: ..."), and then it continues whatever record is before
// it; or, for the first line of an exception or a Python traceback, a line before it that reports a warning or worse
// and is no trace yet, as loggers print them. A line that looks like a log record of its own ends every trace.
package multiline

import (
	"fmt"
	"regexp"
)

// Joiner holds the compiled rules of a Config. It never changes, so that all streams may share it at once.
type Joiner struct {
	start, cont *regexp.Regexp
	langs       language
	maxLines    int
	maxBytes    int
	maxGap      uint64
}

// headBytes of a record's first line are enough to find its level.
const headBytes = 64

// State is what a stream remembers between two lines. The zero value is a stream's start. It may be copied and
// compared, and holds no memory of the lines' buffers.
type State struct {
	last     int64 // timestamp of the last line
	bytes    int   // of the record so far
	lines    int   // of the record so far
	step     step  // where in a trace the record is
	uncaught bool  // the trace began with Node's source excerpt and so ends with Node's version
	head     [headBytes]byte
}

// New compiles a valid config.
func New(cfg Config) (*Joiner, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("multiline: %w", err)
	}
	j := &Joiner{maxLines: cfg.MaxLines, maxBytes: cfg.MaxBytes, maxGap: uint64(cfg.MaxGap)}
	for _, name := range cfg.Recognisers {
		j.langs |= languages(name)
	}
	if cfg.Start != "" {
		j.start = regexp.MustCompile(cfg.Start)
	}
	if cfg.Continue != "" {
		j.cont = regexp.MustCompile(cfg.Continue)
	}
	return j, nil
}

// Continues says whether line (without its newline) belongs to the record that the earlier lines of the stream built,
// and updates s. When a bound is reached the line starts a new record; the trace it is in goes on there, so that the
// trace's other lines stay with it. At is the line's timestamp in Unix nanoseconds; an unknown one is 0, and the gap
// rule is then off on both of its sides. A carriage return at the line's end counts as a byte and is else ignored.
func (j *Joiner) Continues(s *State, line []byte, at int64) bool {
	size := len(line)
	if size > 0 && line[size-1] == '\r' {
		line = line[:size-1]
	}
	if j.joins(s, line) && j.fits(s, size, at) {
		s.lines++
		s.bytes += size + 1
		s.last = at
		return true
	}
	s.lines, s.bytes, s.last = 1, size, at
	if n := copy(s.head[:], line); n < headBytes {
		clear(s.head[n:])
	}
	return false
}

// Open says whether a following line could still continue the record, so that a caller may release at once a record
// that cannot grow. It is false at a stream's start, at the bounds of lines and bytes, after a trace's last line, and
// after a whole JSON object, which a joined line would make unreadable.
//
// After other plain lines it is true when java, dotnet, node, ruby or go is on: their frames follow any text. With
// only python it is true after a line that reports a warning or worse; with only rust, never. The gap is not looked
// at: a caller that sees a timestamp MaxGap later than the record's last line may release it.
func (j *Joiner) Open(s *State) bool {
	if s.lines == 0 || s.lines >= j.maxLines || s.bytes >= j.maxBytes {
		return false
	}
	if j.start != nil || j.cont != nil {
		return true
	}
	switch s.step {
	case closed:
		return false
	case plain:
		return j.langs&grows != 0 || j.langs&python != 0 && severe(s.head[:])
	}
	return true
}

// fits says whether a record may take another line.
func (j *Joiner) fits(s *State, size int, at int64) bool {
	if s.lines == 0 || s.lines >= j.maxLines || s.bytes+size+1 > j.maxBytes {
		return false
	}
	if s.last == 0 || at == 0 {
		return true
	}
	// The difference of two int64 fits an uint64. A clock that was set back is as much of a break as a pause.
	return uint64(max(at, s.last))-uint64(min(at, s.last)) <= j.maxGap
}

// joins is the decision before the bounds; it moves the step on.
func (j *Joiner) joins(s *State, line []byte) bool {
	if j.start != nil {
		return !j.start.Match(line)
	}
	if j.cont != nil && j.cont.Match(line) {
		if s.step == closed {
			s.step = plain
		}
		return true
	}
	if j.langs == 0 {
		return false
	}
	if s.step > plain && inside(s, line) {
		return true
	}
	before := s.step
	next, role := j.classify(line)
	s.step, s.uncaught = next, next == nodeCode
	switch role {
	case belongs:
		return before != closed
	case details:
		return before == plain && severe(s.head[:])
	case dump:
		return before == plain
	}
	return false
}
