package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"weir/agent/multiline"
	"weir/schema"
)

// holdPause is the longest time between two looks for new files of a log while Kafka takes nothing. A log whose every file is
// deleted within it loses files that nobody saw.
const holdPause = time.Second

// hold keeps what is written while Kafka takes nothing: it opens the log's new files, so that a rotation does not lose them.
func (s *source) hold(now time.Time) {
	if now.Before(s.holdAt) || s.told {
		return
	}
	files, size := len(s.ahead), s.newest
	if err := s.lookAhead(); err != nil {
		s.a.log.Error("cannot hold a log's files open", "source", s.name, "err", err)
	}
	if len(s.ahead) != files || s.newest != size {
		s.holdPause = s.a.cfg.Poll
	} else {
		s.holdPause = min(max(2*s.holdPause, s.a.cfg.Poll), holdPause)
	}
	s.holdAt = now.Add(s.holdPause)
	s.show(now)
}

// lookAhead opens the files of the log that came after those that are open.
func (s *source) lookAhead() error {
	if s.plain != nil {
		return s.lookAheadPlain(time.Now())
	}
	if s.path == "" {
		return nil // the container was gone before the engine named it
	}
	last, first, inc := s.file, s.firstLine, s.inc
	if n := len(s.ahead); n > 0 {
		last, first, inc = s.ahead[n-1].f, s.ahead[n-1].first, s.ahead[n-1].inc
	}
	if last != nil {
		there, err := os.Stat(s.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // between the two renames of a rotation, or removed
		}
		if err != nil {
			return err
		}
		s.newest = there.Size()
		if mine, err := last.Stat(); err == nil && os.SameFile(there, mine) {
			return nil
		}
	}
	files, err := chain(s.path, s.kind)
	if err != nil {
		return err
	}
	if last != nil {
		at := 1 + indexOf(files, last, first) // 0: ours is deleted, all there are newer
		closeAll(files[:at])
		files = files[at:]
	}
	for i := range files {
		if files[i].inc.Start <= inc.Start && inc != (schema.Incarnation{}) {
			files[i].inc.Start = inc.Start + 1
		}
		inc = files[i].inc
	}
	s.ahead = append(s.ahead, files...)
	return nil
}

// deleted returns the length of a file that has no name any more, and so takes room that nobody sees.
func deleted(f *os.File) int64 {
	if f == nil {
		return 0
	}
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Nlink > 0 {
		return 0
	}
	return info.Size()
}

// heldFiles returns the bytes of deleted files that the source holds open and could give up.
func (s *source) heldFiles() (n int64) {
	if len(s.ahead) == 0 && !s.removed {
		return 0 // nothing to look at: most sources, every second
	}
	if !s.packed {
		n = deleted(s.file)
	}
	for _, f := range s.ahead {
		n += deleted(f.f)
	}
	return n
}

// limitDisk gives up deleted files where they take more room than agent.disk_bytes: the oldest of the log that has most.
func (a *Agent) limitDisk() {
	var total int64
	held := map[*source]int64{}
	for _, s := range a.sources {
		if n := s.heldFiles(); n > 0 {
			held[s] = n
			total += n
		}
	}
	for total > a.cfg.DiskBytes && len(held) > 0 {
		var noisiest *source
		for s, n := range held {
			if noisiest == nil || n > held[noisiest] {
				noisiest = s
			}
		}
		freed := noisiest.giveUp()
		if freed > 0 {
			a.givenUp.Add(1)
		}
		if held[noisiest] -= freed; freed == 0 || held[noisiest] <= 0 {
			delete(held, noisiest)
		}
		total -= freed
	}
	a.m.heldFiles.Set(float64(total))
}

// giveUp closes the oldest deleted file that is not read, and returns its length; 0 when there is none. The newest file stays
// unless the container is gone: its successor is found by it. That it is lost is told when its turn comes.
func (s *source) giveUp() int64 {
	if size := deleted(s.file); size > 0 && !s.packed && (len(s.ahead) > 0 || s.removed) {
		s.file.Close()
		s.file, s.goneTo = nil, size
		return size
	}
	for i := range s.ahead {
		f := &s.ahead[i]
		if size := deleted(f.f); size > 0 && (i+1 < len(s.ahead) || s.removed) {
			f.f.Close()
			f.f, f.gone = nil, size
			return size
		}
	}
	return 0
}

// passGone tells what was lost with a file that was given up, and goes on with the next.
func (s *source) passGone(ctx context.Context, now time.Time) (more bool, err error) {
	if s.offset < s.goneTo {
		if err := s.finish(ctx, now); err != nil {
			return false, err
		}
		if err := s.sealIfDue(ctx, now, true); err != nil {
			return false, err
		}
		from, to := schema.Position{Incarnation: s.inc, Offset: s.offset}, schema.Position{Incarnation: s.inc, Offset: s.goneTo}
		r := s.lossRecord(loss{reason: "disk_budget", why: "Kafka was away for so long that deleted log files took more room than agent.disk_bytes", from: from, to: to, bytes: s.goneTo - s.offset})
		if s.plain != nil {
			s.plain.gone(to)
		}
		s.offset = s.goneTo
		s.ends[s.inc] = s.offset
		if err := s.tell(ctx, from, to, r, false); err != nil {
			return false, err
		}
	}
	if len(s.ahead) == 0 && s.removed {
		return false, s.close(ctx)
	}
	if len(s.ahead) == 0 && s.plain != nil { // it was given up when the log was gone, which is there again
		return false, s.lookAhead()
	}
	if len(s.ahead) == 0 {
		return false, fmt.Errorf("%s has no file after one that was given up", s.name)
	}
	if err := s.enter(0); err != nil {
		return false, err
	}
	s.forgetEnds()
	return true, nil
}

// weight is what the source holds in memory: unfinished records, and a batch that is not full.
func (s *source) weight() int64 {
	n := int64(s.enc.Len())
	for _, p := range s.queue {
		n += int64(len(p.body)) + pieceBytes
	}
	return n
}

const pieceBytes = 160 // of a record beside its body

// limitHeld keeps what all sources hold in memory within agent.held_bytes. Where it is more, the source that holds most sends its
// batch, or cuts its oldest record.
func (s *source) limitHeld(ctx context.Context, now time.Time) error {
	a := s.a
	n := s.weight()
	a.held, s.counted = a.held+n-s.counted, n
	if a.held <= a.cfg.HeldBytes {
		return nil
	}
	a.held = 0
	for _, o := range a.ring { // batches were sent meanwhile
		o.counted = o.weight()
		a.held += o.counted
	}
	for a.held > a.cfg.HeldBytes && a.out.Room(schema.TopicLogs, turnRoom) {
		most := s
		for _, o := range a.ring {
			if o.counted > most.counted {
				most = o
			}
		}
		if err := most.shrink(ctx, now); err != nil {
			return err
		}
		n := most.weight()
		if n >= most.counted {
			return nil
		}
		a.held, most.counted = a.held+n-most.counted, n
	}
	return nil
}

// shrink sends the batch, or cuts the oldest record if that frees more.
func (s *source) shrink(ctx context.Context, now time.Time) error {
	if int64(s.enc.Len()) < s.weight()/2 {
		p := s.queue[0]
		p.truncated = p.truncated || !p.done
		p.whole, p.done = true, true
		s.joining[p.stream] = multiline.State{}
		if err := s.drain(ctx, now); err != nil {
			return err
		}
	}
	return s.sealIfDue(ctx, now, true)
}
