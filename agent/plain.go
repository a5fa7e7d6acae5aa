package agent

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"weir/schema"
)

// A plain file is a log of the host that agent.files names: each of its lines is a record. Nothing but its content and the file system
// tells one of its physical files from another, and nobody says how it is rotated: by renaming, or by a copy after which
// the file is truncated (copytruncate). So a place in it is known by the bytes before it as well.
const (
	filePrefix = "file/"
	fileDriver = "file"
)

// trace recognises the file of a position again, also when it was renamed, packed or copied.
type trace struct {
	Dev     uint64 `json:"dev,omitempty"`
	Ino     uint64 `json:"ino,omitempty"`
	Born    int64  `json:"born,omitempty"` // inodes are used again
	Changed int64  `json:"changed"`        // when the file had been written to last; its successors were later. Unix ns
	Tail    uint32 `json:"tail"`           // CRC32C of bytes directly before the position, or near the file's start of the first bytes in it
	Size    int    `json:"size"`           // how many they are
}

// tailBytes is how much of a file recognises a position in it.
const tailBytes = 256

// plainFile is what a source needs besides to follow a plain file.
type plainFile struct {
	trace    trace  // of the file that is read, without its tail
	known    []byte // the bytes directly before the source's offset, or near the file's start all that stand there
	view     []byte // what of the file is in memory: known, and while lines are taken also those
	from     int64  // where known and view begin
	again    [tailBytes]byte
	zeros    int64           // up to here there are zeros
	end      schema.Position // of the file left last
	endTrace trace
	looked   lookedAt
	seen     seen
}

// seen is what the whole lines of a file that waits to be read ended with at the last look. It recognises all of the file, also where each begins alike.
type seen struct {
	size int64
	tail []byte
}

// in says whether a file still has it.
func (v *seen) in(f *os.File) bool {
	var buf [tailBytes]byte
	has := buf[:len(v.tail)]
	_, err := f.ReadAt(has, v.size-int64(len(has)))
	return (err == nil || errors.Is(err, io.EOF)) && bytes.Equal(has, v.tail)
}

// look says whether a file still has it, and notes what the file's whole lines end with now.
func (v *seen) look(f *os.File) bool {
	now := *v
	if info, err := f.Stat(); err == nil && info.Size() > v.size {
		tail := make([]byte, min(info.Size(), tailBytes))
		if n, _ := f.ReadAt(tail, info.Size()-int64(len(tail))); n == len(tail) {
			data := tail[:bytes.LastIndexByte(tail, '\n')+1]
			if size := info.Size() - int64(len(tail)-len(data)); len(data) > 0 && size > v.size {
				now = seen{size, data}
			}
		}
	}
	if !v.in(f) { // looked at last, so that what is noted was there before a truncation
		return false
	}
	*v = now
	return true
}

func (v *seen) trace(of trace) *trace {
	of.Tail, of.Size = crc32.Checksum(v.tail, castagnoli), len(v.tail)
	return &of
}

// lookedAt is a look for a next file that found none.
type lookedAt struct {
	at     time.Time
	folder time.Time // when it changed
	size   int64     // of the file at the path
	exists bool
}

// errReplaced says that what was read of a file is not in it any more.
var errReplaced = errors.New("the file was truncated, or written anew")

// plainFormat is the format of plain files.
func (a *Agent) plainFormat() *format {
	return &format{
		rotated: func(path string) ([]string, error) {
			return siblings(path, func(p string) bool {
				return a.literal[p] || a.sources[filePrefix+a.cfg.Node+"/"+idOf(p)] != nil
			})
		},
		name: a.nameOf,
	}
}

// savedFiles are the paths of the plain files that the checkpoint has.
func (a *Agent) savedFiles() (paths []string) {
	for name, s := range a.saved.Sources {
		if strings.HasPrefix(name, filePrefix+a.cfg.Node+"/") {
			paths = append(paths, s.Path)
		}
	}
	return paths
}

// found takes up the plain files that there are.
func (a *Agent) found(c command) {
	for _, f := range c.files {
		s := a.sources[c.prefix+f.id]
		switch {
		case s == nil:
			s = a.follows(c.prefix+f.id, f)
		case s.told: // deleted and there again before its closed record is acknowledged: taken up at the next look
			continue
		case s.added.IsZero(): // from the checkpoint
			s.added = c.asOf
			a.renew(s, f)
		}
		s.removed = false
		s.run(f.running)
	}
}

// nameOf names a file by its first line: when it was written, as it says itself, or else when the file was made.
func (a *Agent) nameOf(f *os.File, packed bool) (inc schema.Incarnation, err error) {
	var r *bufio.Reader
	if packed {
		unpacked, err := head(f, true)
		if err != nil {
			return inc, err
		}
		r = bufio.NewReader(unpacked)
		for b, err := r.ReadByte(); ; b, err = r.ReadByte() {
			if err != nil {
				return inc, cmp.Or(isEnd(err), err)
			}
			if b != 0 {
				_ = r.UnreadByte()
				break
			}
		}
	} else {
		at, _, err := pastZeros(f, 0, 1<<62)
		if err != nil {
			return inc, cmp.Or(isEnd(err), err)
		}
		r = bufio.NewReader(io.NewSectionReader(f, at, 1<<62-at))
	}
	if mark, _ := r.Peek(2); string(mark) == "\xff\xfe" || string(mark) == "\xfe\xff" {
		if a.refused.add(f.Name()) {
			a.log.Error("a file is not read: it is UTF-16, and only UTF-8 and other encodings in which a line ends with the byte 0x0A are", "file", f.Name())
		}
		return inc, errNoLine
	}
	inc, err = incarnationOf(r, &format{parse: func(b, buf []byte) (line, []byte, error) {
		return line{time: timestamp(bytes.TrimPrefix(b, bom), time.Now(), time.Local)}, buf, nil
	}})
	if err != nil || inc.Start != 0 {
		return inc, err
	}
	if inc.Start = birth(f); inc.Start == 0 {
		if info, err := f.Stat(); err == nil {
			inc.Start = info.ModTime().UnixNano()
		}
	}
	return inc, nil
}

var bom = []byte("\ufeff")

func isEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return errNoLine
	}
	return nil
}

// pastZeros finds the first byte after from that is not zero, looking at limit bytes at most; done says that it did. io.EOF: there is none.
func pastZeros(f *os.File, from, limit int64) (at int64, done bool, err error) {
	buf := make([]byte, 64<<10)
	for left := limit; left > 0; left -= int64(len(buf)) {
		if from, err = nextData(f, from); err != nil {
			return from, false, err
		}
		n, err := f.ReadAt(buf, from)
		if data := bytes.TrimLeft(buf[:n], "\x00"); len(data) > 0 {
			return from + int64(n-len(data)), true, nil
		}
		if from += int64(n); err != nil {
			return from, false, err
		}
	}
	return from, false, nil
}

// readPlain takes one buffer of lines. It reads what stands before them again: where that has changed, the file is another one.
func (s *source) readPlain(ctx context.Context, now time.Time) (int, error) {
	p, buf, longest := s.plain, s.a.buf, s.a.cfg.MaxRecordBytes
	begin := int(s.offset - p.from)
	if p.seen.size > s.offset && !p.seen.in(s.file) {
		return 0, errReplaced
	}
	n, err := s.file.ReadAt(buf, p.from)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read %s at %d: %w", s.path, s.offset, err)
	}
	if !bytes.HasPrefix(buf[:n], p.known) {
		return 0, errReplaced
	}
	data := buf[min(begin, n):n]
	if len(data) == 0 {
		return 0, nil
	}
	if data[0] == 0 {
		return s.skipZeros()
	}
	// It may have been replaced while it was read, and the buffer have of both.
	again := p.again[:len(p.known)]
	if _, err := s.file.ReadAt(again, p.from); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(again, p.known) {
		return 0, errReplaced
	}
	if info, err := s.file.Stat(); err == nil && !s.packed {
		p.trace.Changed = info.ModTime().UnixNano()
	}
	p.view = buf[:n]
	defer func() { p.view = p.known }()
	used := 0
	for used < len(data) && data[used] != 0 { // zeros at a line's start are skipped by the next call
		rest := data[used:]
		end := bytes.IndexByte(rest[:min(len(rest), longest+1)], '\n')
		size, cut := end+1, false
		if end < 0 {
			if len(rest) <= longest {
				break
			}
			end, cut = cutAt(rest, longest), true
			size = end
		}
		if err := s.plainLine(ctx, rest[:end], s.offset+int64(used), int64(size), now, line{cut: cut}); err != nil {
			return 0, err
		}
		if used += size; s.quota.blocks() {
			break
		}
	}
	if used == 0 && n == len(buf) {
		s.a.buf = make([]byte, min(2*n, tailBytes+longest+1))
		return s.readPlain(ctx, now)
	}
	s.offset += int64(used)
	from, to := tailAt(p.from, s.offset, n)
	p.known = append(p.known[:0], trimZeros(buf[from:to], begin+used-from)...)
	p.from += int64(from)
	s.bytes += int64(used)
	s.a.m.read.Add(float64(used))
	return used, nil
}

// tailAt is the part of n bytes from a place in a file on that recognises an offset.
func tailAt(at, offset int64, n int) (from, to int) {
	to = int(offset - at)
	from = max(0, to-tailBytes)
	if at == 0 && from == 0 {
		to = max(to, min(n, tailBytes))
	}
	return from, to
}

// trimZeros leaves out zeros at the end, which may become something else, but no more than down to least bytes.
func trimZeros(b []byte, least int) []byte {
	return b[:max(least, len(bytes.TrimRight(b, "\x00")))]
}

// cutAt is where a line that is too long is cut: before a character that would be divided.
func cutAt(b []byte, longest int) int {
	for n := longest; n > longest-utf8.UTFMax; n-- {
		if utf8.RuneStart(b[n]) {
			return n
		}
	}
	return longest
}

// skipZeros passes over zeros at a line's start. A writer that keeps its place while its file is truncated leaves them. At the file's
// end they are waited at: a file may be made of them, to be written to later.
func (s *source) skipZeros() (int, error) {
	p := s.plain
	info, err := s.file.Stat()
	if err != nil {
		return 0, err
	}
	if changed := info.ModTime().UnixNano(); changed != p.trace.Changed && !s.packed {
		p.trace.Changed, p.zeros = changed, 0
	}
	at, done, err := pastZeros(s.file, max(s.offset, p.zeros), 16<<20)
	switch p.zeros = at; {
	case errors.Is(err, io.EOF):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read %s at %d: %w", s.path, at, err)
	case !done:
		return turnBytes, nil // on at the next turn
	}
	s.offset = at
	return 1, s.lookBack()
}

// lookBack fills in what is known of the file. Where the file is shorter by now, the next reading finds that it was replaced.
func (s *source) lookBack() error {
	p := s.plain
	p.from = max(0, s.offset-tailBytes)
	p.known = slices.Grow(p.known[:0], tailBytes)[:tailBytes]
	n, err := s.file.ReadAt(p.known, p.from)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s at %d: %w", s.path, p.from, err)
	}
	least := int(s.offset - p.from)
	p.known = trimZeros(p.known[:max(n, least)], least)
	p.view = p.known
	return nil
}

// plainLine takes one line of size bytes at offset. A carriage return at its end belongs to the line's end, and a byte order mark at the
// file's start is no text; the body is not changed besides.
func (s *source) plainLine(ctx context.Context, b []byte, offset, size int64, now time.Time, l line) error {
	s.lines++
	if offset == 0 {
		b = bytes.TrimPrefix(b, bom)
	}
	if !l.cut {
		b = bytes.TrimSuffix(b, []byte{'\r'})
	}
	if at := offset - s.plain.from; at == 0 || s.plain.view[at-1] == '\n' || s.plain.view[at-1] == 0 { // else it continues one that was cut
		l.time = timestamp(b, now, time.Local)
	}
	s.a.text = append(append(s.a.text[:0], b...), '\n')
	l.log = s.a.text
	start := schema.Position{Incarnation: s.inc, Offset: offset}
	return s.take(ctx, l, start, schema.Position{Incarnation: s.inc, Offset: offset + size}, now)
}

// unfinished takes what stands behind the last line of a file that is left. Its rest, if there ever is one, cannot be told from a new line.
func (s *source) unfinished(ctx context.Context, b []byte, offset, size int64, now time.Time) error {
	if b[0] == 0 {
		return nil
	}
	return s.plainLine(ctx, b, offset, size, now, line{partial: true})
}

// traceAt recognises a position: one in what was read last, of the first record that waits, or at the end of the file before. Others
// have no trace.
func (s *source) traceAt(at schema.Position) *trace {
	p := s.plain
	switch {
	case p == nil:
	case at.Incarnation == s.inc && (s.file != nil || s.goneTo > 0) && at.Offset >= p.from && at.Offset <= p.from+int64(len(p.view)):
		t := p.trace
		from, to := tailAt(p.from, at.Offset, len(p.view))
		tail := trimZeros(p.view[from:to], int(at.Offset-p.from)-from)
		t.Tail, t.Size = crc32.Checksum(tail, castagnoli), len(tail)
		return &t
	case len(s.queue) > 0 && at == s.queue[0].start:
		return s.queue[0].trace
	case at == p.end:
		t := p.endTrace
		return &t
	}
	return nil
}

// here recognises the place up to which the file is read.
func (s *source) here() (schema.Position, *trace) {
	at := schema.Position{Incarnation: s.inc, Offset: s.offset}
	return at, s.traceAt(at)
}

// entered notes which file is read from now on.
func (s *source) entered(f logFile) error {
	p := s.plain
	p.trace, p.zeros, p.looked, p.seen = f.trace, 0, lookedAt{}, f.seen
	if f.packed {
		p.seen = seen{}
	}
	if f.f != nil && (f.packed || s.offset > 0) {
		return s.lookBack()
	}
	p.from, p.known = 0, append(p.known[:0], f.head...) // of when it was named: since then it may have been replaced
	p.view = p.known
	return nil
}

// recognisable reads what the file is recognised by.
func (f *logFile) recognisable() error {
	f.trace.Changed = f.info.ModTime().UnixNano()
	f.trace.Dev, f.trace.Ino = inode(f.info)
	f.trace.Born = birth(f.f)
	r, err := head(f.f, f.packed)
	if err == nil {
		f.head, err = io.ReadAll(io.LimitReader(r, tailBytes))
		f.head = trimZeros(f.head, 0)
		f.seen = seen{int64(len(f.head)), f.head}
	}
	return err
}

// start recognises the file's start.
func (f *logFile) start() *trace {
	t := f.trace
	t.Tail, t.Size = crc32.Checksum(f.head, castagnoli), len(f.head)
	return &t
}

// isOf says whether it is of this file, however that is named and whatever it has in it by now.
func (t *trace) isOf(f logFile) bool {
	return t.Dev == f.trace.Dev && t.Ino == f.trace.Ino && t.Born == f.trace.Born
}

// leftAt notes where the file that is left ends; n bytes of it were not lines.
func (s *source) leftAt(n int) error {
	if n > 0 {
		if err := s.lookBack(); err != nil {
			return err
		}
	}
	if at, t := s.here(); t != nil {
		s.plain.end, s.plain.endTrace = at, *t
	}
	return nil
}

// gone notes the end of a file that was given up: no file has it.
func (p *plainFile) gone(end schema.Position) {
	p.end, p.endTrace = end, trace{Changed: p.trace.Changed, Tail: ^crc32.Checksum(nil, castagnoli)}
}

// recognise finds the file that has a position: the same one if it still has it, or else a copy of it; -1 when there is none.
func recognise(files []logFile, at schema.Position, t *trace) int {
	if t == nil {
		return slices.IndexFunc(files, func(f logFile) bool { return f.inc == at.Incarnation })
	}
	for _, own := range []bool{true, false} {
		for i, f := range files {
			if own == t.isOf(f) && f.first.Print == at.Print && hasTail(f, at.Offset, t) {
				return i
			}
		}
	}
	return -1
}

// hasTail says whether a file has what stood before an offset.
func hasTail(f logFile, offset int64, t *trace) bool {
	tail := make([]byte, min(t.Size, tailBytes))
	var err error
	if from := max(0, offset-int64(len(tail))); f.packed {
		var r io.Reader
		if r, err = head(f.f, true); err == nil {
			if _, err = io.CopyN(io.Discard, r, from); err == nil {
				_, err = io.ReadFull(r, tail)
			}
		}
	} else if len(tail) > 0 {
		_, err = f.f.ReadAt(tail, from)
	}
	return err == nil && crc32.Checksum(tail, castagnoli) == t.Tail
}

// later finds the first file that was written to after one which is gone had been: what is older was read before it. The file at the log's
// own path is later in any case. -1: there is none.
func (s *source) later(files []logFile, changed int64) int {
	at := slices.IndexFunc(files, func(f logFile) bool { return f.info.ModTime().UnixNano() >= changed })
	if n := len(files); at < 0 && n > 0 && files[n-1].path == s.path {
		at = n - 1
	}
	return at
}

// openPlain finds the file to go on with.
func (s *source) openPlain(ctx context.Context) error {
	failed := func(err error) error {
		return fmt.Errorf("open the log of %s: %w (the agent needs to read %s)", s.name, err, s.path)
	}
	if err := s.pickUp(); err != nil {
		return failed(err)
	}
	if s.file != nil || s.goneTo > 0 {
		return nil
	}
	files, at := []logFile(nil), -1
	m := s.resumeAt
	if m != nil {
		var err error
		if files, err = chain(s.path, s.kind); err != nil {
			return failed(err)
		}
		if m.Trace == nil {
			m.Trace = &trace{}
		}
		at = s.later(files, m.Trace.Changed)
	}
	if at < 0 {
		closeAll(files)
		if s.removed {
			return s.vanished(ctx)
		}
		return nil // there is none yet
	}
	if s.ripe(files[at:]) == 0 {
		closeAll(files)
		return nil
	}
	closeAll(files[:at])
	closeAll(files[at+1:])
	s.resumed(m)
	reason, why := "rotated_away", "the file that was read is gone; what was written to it after the last reading may be lost"
	if m.Trace.Ino != 0 && m.Trace.isOf(files[at]) {
		reason, why = truncatedUnread, truncatedWhy
	}
	if err := s.loseRest(ctx, m.At, &files[at], reason, why); err != nil {
		closeAll(files[at : at+1])
		return err
	}
	s.resumeAt, s.ahead = nil, files[at:at+1]
	return s.enter(0)
}

// resumed takes up what the checkpoint's mark says.
func (s *source) resumed(m *mark) {
	s.prev, s.known, s.skip, s.lines, s.bytes = m.Prev, m.Known, m.Skip, m.Lines, m.Bytes
}

// pickUp opens the file to go on with, and those after it, if there are any and nothing of the log is lost.
func (s *source) pickUp() error {
	if len(s.ahead) == 0 { // else the file could not be unpacked at the last look
		files, err := chain(s.path, s.kind)
		if err != nil {
			return err
		}
		at, m := 0, s.resumeAt
		if m != nil {
			at = recognise(files, m.At, m.Trace)
		}
		if at < 0 {
			closeAll(files)
			return nil
		}
		ripe := at + s.ripe(files[at:])
		closeAll(files[:at])
		closeAll(files[ripe:])
		if at == ripe {
			return nil
		}
		files = files[:ripe]
		s.queueUp(files[at : at+1])
		if m != nil {
			s.resumed(m)
			s.ahead[0].inc, s.offset = m.At.Incarnation, m.At.Offset
		}
		s.resumeAt = nil
		s.queueUp(files[at+1:])
	}
	return s.enter(s.offset)
}

// ripe says how many of a log's last files may be taken up. Between the copy and the truncation of a copytruncate, the copy and the file at
// the log's path are the same lines: such a copy is waited for, and what comes after it. The two may be seconds apart where the disk is busy, since
// logrotate waits until the copy is on it. A copy that stays is taken up in the end.
func (s *source) ripe(files []logFile) int {
	last := len(files) - 1
	if last < 0 || files[last].path != s.path {
		return len(files)
	}
	for i, f := range files[:last] {
		if f.packed || time.Since(f.info.ModTime()) >= 60*s.a.pace() || f.first.Print != files[last].first.Print {
			continue
		}
		v := f.seen
		if v.look(f.f); hasTail(files[last], v.size, v.trace(f.trace)) {
			s.plain.looked = lookedAt{}
			return i
		}
	}
	return len(files)
}

// queueUp adds files that come after those that are open. Each is named after the one before it alone: others may have been packed
// since, and then seem younger.
func (s *source) queueUp(files []logFile) {
	for _, f := range files {
		last := s.inc
		if n := len(s.ahead); n > 0 {
			last = s.ahead[n-1].inc
		}
		if f.inc = f.first; f.inc.Start <= last.Start {
			f.inc.Start = last.Start + 1
		}
		s.ahead = append(s.ahead, f)
	}
}

const (
	truncatedUnread = "truncated_unread"
	truncatedWhy    = "the file was truncated, and no copy of it is there; what was written to it after the last reading may be lost"
)

// loseRest records that what follows from in its file is gone, and that the next file is read from its start.
func (s *source) loseRest(ctx context.Context, from schema.Position, next *logFile, reason, why string) error {
	next.inc = schema.Incarnation{Start: max(next.first.Start, from.Start+1), Print: next.first.Print}
	begin := schema.Position{Incarnation: next.inc}
	s.plain.end, s.plain.endTrace = begin, *next.start()
	return s.lose(ctx, from, begin, reason, why)
}

// settled says whether the file that is read may be left. While it was written to just now it is stayed with, since processes may
// hold it open for a while after it was renamed.
func (s *source) settled(now time.Time) bool {
	info, err := s.file.Stat()
	if err != nil || s.packed {
		return true
	}
	age := now.Sub(info.ModTime())
	return age < 0 || age >= s.a.pace()
}

// changed says whether a look for further files may find what the last one did not.
func (s *source) changed(now time.Time) bool {
	looked := lookedAt{at: now}
	if info, err := os.Stat(filepath.Dir(s.path)); err == nil {
		looked.folder = info.ModTime()
	}
	if info, err := os.Stat(s.path); err == nil {
		looked.exists, looked.size = true, info.Size()
	}
	last := s.plain.looked
	if now.Sub(last.at) < safetyNet && looked.folder.Equal(last.folder) && looked.exists == last.exists && looked.size == last.size {
		return false
	}
	if now.Sub(looked.folder) > 2*time.Second { // else a change may come that has the same time
		s.plain.looked = looked
	}
	return true
}

// lookAheadPlain opens the files that came after those that are open. Where the newest of these was truncated, the copy that was made of
// it before is held in its place. It sends nothing: what is lost is found, and told, when it is to be read.
func (s *source) lookAheadPlain(now time.Time) error {
	if s.file == nil && s.goneTo == 0 {
		return s.pickUp()
	}
	info, err := os.Stat(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		s.newest = info.Size()
		if s.newestIs(info) && s.newestWhole() {
			return nil
		}
	}
	if !s.changed(now) {
		return nil
	}
	files, err := chain(s.path, s.kind)
	if err != nil {
		s.plain.looked = lookedAt{}
		return err
	}
	at, t := s.place(len(s.ahead))
	next := 1 + recognise(files, at, t)
	whole := s.newestWhole() // only now, since it may be truncated at any time
	if next == 0 && !whole {
		next = 1 + s.shorterCopy(files, len(s.ahead))
	}
	truncated := next > 0 && !whole && t != nil && !t.isOf(files[next-1])
	switch {
	case truncated || next > 0 && whole:
		ripe := max(next, next-1+s.ripe(files[next-1:]))
		closeAll(files[ripe:])
		files = files[:ripe]
	case whole:
		if next = s.later(files, s.newestChanged()); next < 0 {
			next = len(files)
		}
		ripe := next + s.ripe(files[next:])
		closeAll(files[ripe:])
		files = files[:ripe]
	default:
		next = len(files)
	}
	held := len(s.ahead)
	s.queueUp(files[next:])
	if truncated {
		closeAll(files[:next-1])
		return s.holdCopy(files[next-1], held)
	}
	closeAll(files[:next])
	return nil
}

// newestIs says whether the newest open file is the one that was found.
func (s *source) newestIs(found os.FileInfo) bool {
	f, packed := s.file, s.packed
	if n := len(s.ahead); n > 0 {
		f, packed = s.ahead[n-1].f, s.ahead[n-1].packed
	}
	if f == nil || packed {
		return false
	}
	info, err := f.Stat()
	return err == nil && os.SameFile(info, found)
}

// newestWhole says whether the newest open file still has what it is recognised by.
func (s *source) newestWhole() bool {
	p := s.plain
	if n := len(s.ahead); n > 0 {
		l := &s.ahead[n-1]
		return l.f == nil || l.packed || l.seen.look(l.f)
	}
	if s.file == nil || s.packed {
		return true
	}
	known := seen{p.from + int64(len(p.known)), p.known}
	return known.in(s.file) && p.seen.look(s.file)
}

// place recognises all that was seen of an open file: of the one that is read, or, with n above zero, of the nth after it.
func (s *source) place(n int) (schema.Position, *trace) {
	if n > 0 {
		l := &s.ahead[n-1]
		return schema.Position{Incarnation: l.inc, Offset: l.seen.size}, l.seen.trace(l.trace)
	}
	if v := &s.plain.seen; v.size > s.offset {
		return schema.Position{Incarnation: s.inc, Offset: v.size}, v.trace(s.plain.trace)
	}
	return s.here()
}

// shorterCopy finds the copy of such a file that was truncated, where the last look saw what was written after the copy was made; -1 when
// there is none.
func (s *source) shorterCopy(files []logFile, n int) int {
	at, t := s.here()
	if n > 0 {
		at, t = schema.Position{Incarnation: s.ahead[n-1].inc}, s.ahead[n-1].start()
	}
	for i, f := range slices.Backward(files) {
		if t != nil && !t.isOf(f) && f.trace.Changed >= t.Changed && f.first.Print == at.Print && hasTail(f, at.Offset, t) {
			return i
		}
	}
	return -1
}

// newestChanged is when the newest open file was written to last.
func (s *source) newestChanged() int64 {
	f, packed, t := s.file, s.packed, &s.plain.trace
	if n := len(s.ahead); n > 0 {
		f, packed, t = s.ahead[n-1].f, s.ahead[n-1].packed, &s.ahead[n-1].trace
	}
	if f != nil && !packed {
		if info, err := f.Stat(); err == nil {
			return info.ModTime().UnixNano()
		}
	}
	return t.Changed
}

// holdCopy puts a copy in the place of a file that was truncated: of the one that is read, or, with n above zero, of the nth after it.
func (s *source) holdCopy(f logFile, n int) error {
	if n > 0 {
		old := &s.ahead[n-1]
		old.f.Close()
		f.inc = old.inc
		*old = f
		return nil
	}
	f.inc = s.inc
	s.ahead = slices.Insert(s.ahead, 0, f)
	err := s.enter(s.offset)
	if err != nil && len(s.ahead) > 0 && s.ahead[0].f == f.f { // it was not entered
		closeAll(s.ahead[:1])
		s.ahead = s.ahead[1:]
	}
	return err
}

// replaced goes on when the file that is read was truncated: in the copy that was made of it before, or in the file's new content.
func (s *source) replaced(ctx context.Context, now time.Time) (moved bool, err error) {
	files, err := chain(s.path, s.kind)
	if err != nil {
		return false, fmt.Errorf("look for a copy of %s, which was truncated: %w", s.name, err)
	}
	from, _ := s.here()
	place, t := s.place(0)
	at := recognise(files, place, t)
	if at < 0 {
		at = s.shorterCopy(files, 0)
	}
	if at >= 0 {
		closeAll(files[:at])
		closeAll(files[at+1:])
		return true, s.holdCopy(files[at], 0)
	}
	if info, err := s.file.Stat(); err == nil && len(s.ahead) == 0 {
		at = s.later(files, info.ModTime().UnixNano())
	}
	if at >= 0 {
		ripe := at + s.ripe(files[at:])
		closeAll(files[:at])
		closeAll(files[ripe:])
		s.queueUp(files[at:ripe])
	} else {
		closeAll(files)
	}
	if len(s.ahead) == 0 && !s.removed {
		return false, nil // it has no line yet
	}
	err = s.finish(ctx, now)
	s.ends[s.inc] = s.offset
	if err == nil {
		err = s.sealIfDue(ctx, now, true)
	}
	if err == nil && len(s.ahead) == 0 {
		if err = s.lose(ctx, from, from, truncatedUnread, truncatedWhy); err == nil {
			err = s.close(ctx)
		}
		return false, err
	}
	if err == nil {
		err = s.loseRest(ctx, from, &s.ahead[0], truncatedUnread, truncatedWhy)
	}
	if err != nil {
		return false, err
	}
	return true, s.enter(0)
}
