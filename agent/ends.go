package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"weir/ingest"
	"weir/schema"
)

// atEnd is called when the file has no further whole line: it looks for a successor, and closes a source whose container is gone.
func (s *source) atEnd(ctx context.Context, now time.Time) (moved bool, err error) {
	if !s.current() {
		if moved, err = s.rotate(ctx, now); moved || err != nil || s.plain == nil || len(s.ahead) > 0 {
			return moved, err
		}
	}
	if !s.removed {
		return false, s.expire(ctx, now)
	}
	if err := s.leave(ctx, now, true); err != nil {
		return false, err
	}
	return false, s.close(ctx)
}

// current says whether the file that is read is the one that the container writes to. While there is none, it is; of a plain log
// there may then be rotated files to go on with.
func (s *source) current() bool {
	if len(s.ahead) > 0 {
		return false
	}
	there, err := os.Stat(s.path)
	if err != nil {
		return s.plain == nil
	}
	mine, err := s.file.Stat()
	return err != nil || os.SameFile(there, mine)
}

// rotate goes on with the file after this one, once this one is read to its very end.
func (s *source) rotate(ctx context.Context, now time.Time) (moved bool, err error) {
	// A line may have been written between our last read and the renaming.
	if n, err := s.read(ctx, now); err != nil || n > 0 {
		return n > 0, err
	}
	if s.plain != nil && !s.settled(now) {
		return false, nil
	}
	if err := s.lookAhead(); err != nil {
		return false, fmt.Errorf("look for the file after a rotated one of %s: %w", s.name, err)
	}
	if len(s.ahead) == 0 {
		return false, nil // the new file has no line yet
	}
	if err := s.leave(ctx, now, false); err != nil {
		return false, err
	}
	if err := s.enter(0); err != nil {
		return false, err
	}
	s.forgetEnds()
	return true, nil
}

// forgetEnds forgets the files that nothing can start in any more.
func (s *source) forgetEnds() {
	resume := s.resume()
	for inc := range s.ends { // forget files that nothing can start in any more
		if inc.Compare(resume.Incarnation) < 0 && (s.enc.Count() == 0 || inc.Compare(s.encInc) < 0) {
			delete(s.ends, inc)
		}
	}
}

// leave tells what stands behind the last whole line, and at the last file of all also unfinished messages.
func (s *source) leave(ctx context.Context, now time.Time, last bool) error {
	longest := maxLineBytes
	if s.plain != nil {
		longest = s.a.cfg.MaxRecordBytes
	}
	rest := make([]byte, longest)
	n, err := s.file.ReadAt(rest, s.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s at %d: %w", s.path, s.offset, err)
	}
	if n > 0 {
		take := s.line
		if s.plain != nil {
			take = s.unfinished
		}
		if err := take(ctx, rest[:n], s.offset, int64(n), now); err != nil {
			return err
		}
		s.offset += int64(n)
		s.bytes += int64(n)
	}
	s.ends[s.inc] = s.offset
	if s.plain != nil {
		if err := s.leftAt(n); err != nil {
			return err
		}
	}
	if last || s.damage != nil {
		if err := s.finish(ctx, now); err != nil {
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
		Attrs: []schema.Attr{schema.Int(schema.AttrLines, s.lines), schema.Int(schema.AttrBytes, s.bytes), schema.String(schema.AttrFinal, end.String())}}
	if err := s.tell(ctx, end, schema.Position{Incarnation: end.Incarnation, Offset: end.Offset + 1}, r, true); err != nil {
		return err
	}
	s.told = true
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	closeAll(s.ahead)
	s.ahead = nil
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
		reason, why := "removed_unread", "the container was removed with its log before the log was read to its end"
		if s.plain != nil {
			why = "the file was deleted; what was written to it after the last reading may be lost"
		}
		if s.doubt {
			reason, why = "state_lost", "the container is gone, and what would tell whether its log was read is lost"
		}
		if err := s.lose(ctx, from, from, reason, why); err != nil {
			return err
		}
		s.offset++
	}
	return s.close(ctx)
}

// lose records that what follows from in its file is gone, nobody knows how much; reading goes on at next.
func (s *source) lose(ctx context.Context, from, next schema.Position, reason, why string) error {
	return s.tell(ctx, from, next, s.lossRecord(loss{reason: reason, why: why, from: from}), false)
}

// loss is what a loss record says.
type loss struct {
	reason, why    string
	from, to       schema.Position // to is zero where it is not known
	records, bytes int64           // that are gone, as far as it is known
	since          time.Time       // when the first of it was lost
	at             schema.Position // of the last record that is gone
}

func (s *source) lossRecord(l loss) schema.Record {
	s.a.m.lost.WithLabelValues(l.reason).Inc()
	s.a.m.droppedBytes.WithLabelValues(l.reason).Add(float64(l.bytes))
	s.a.m.droppedRecords.WithLabelValues(l.reason).Add(float64(l.records))
	to := "unknown"
	if l.to != (schema.Position{}) {
		to = l.to.String()
	}
	s.a.log.Error("log bytes are lost", "source", s.name, "from", l.from.String(), "to", to, "reason", l.reason, "records", l.records, "bytes", l.bytes)
	r := schema.Record{EventName: schema.EventLoss, Body: l.why, Severity: schema.SeverityError, SeverityText: "ERROR", Attrs: []schema.Attr{
		schema.String(schema.AttrLossReason, l.reason), schema.String(schema.AttrLossFrom, l.from.String()), schema.String(schema.AttrLossTo, to)}}
	if l.records > 0 {
		r.Attrs = append(r.Attrs, schema.Int(schema.AttrLossRecords, l.records))
	}
	if l.bytes > 0 {
		r.Attrs = append(r.Attrs, schema.Int(schema.AttrLossBytes, l.bytes))
	}
	return r
}

// tell sends a record of the agent's own in the source's stream. Its position is the place it speaks of, in an incarnation
// beside the file's: at the place itself there may be a record of the log that Kafka has but the checkpoint does not
// know of yet, and consumers would take this one for its repeat. Told again after a crash, it is a repeat.
func (s *source) tell(ctx context.Context, place, at schema.Position, r schema.Record, last bool) error {
	place.Print = ^place.Print
	var e schema.Encoder
	e.Reset(s.name, place.Incarnation, s.resource)
	r.Offset, r.Observed = place.Offset, time.Now().UnixNano()
	e.Append(&r)
	end := place
	end.Offset++
	return s.send(ctx, ingest.Message{Topic: schema.TopicLogs, Source: s.name, Begin: place, End: end, Count: 1, Value: e.Bytes()}, at, last)
}
