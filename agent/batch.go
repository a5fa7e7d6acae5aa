package agent

import (
	"context"
	"time"

	"weir/agent/parse"
	"weir/ingest"
	"weir/schema"
)

// release appends a record to the batch, or drops it where its app is over its quota.
func (s *source) release(ctx context.Context, p *piece, now time.Time) error {
	if p.hole {
		return s.drop(ctx, loss{reason: "zeros", why: "zeros stand in the log where lines were", from: p.start, to: p.end, bytes: p.end.Offset - p.start.Offset}, now)
	}
	sampled, keep := s.quota.take(p.start, len(p.body), now)
	if !keep {
		s.skip[p.stream] = p.end
		return s.drop(ctx, loss{reason: "quota", why: "the app wrote more than its quota", from: p.start, to: p.end, records: 1, bytes: int64(len(p.body))}, now)
	}
	if p.end.Offset-p.start.Offset < 2 { // there is no place within it
		if err := s.tellDropped(ctx, now); err != nil {
			return err
		}
	}
	if err := s.begin(ctx, p.start, now); err != nil {
		return err
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
	if sampled > 0 {
		attrs = append(attrs, schema.Int(schema.AttrSampled, sampled))
	}
	body, secrets := s.a.redact(p.body)
	if secrets > 0 {
		attrs = append(attrs, schema.Int(schema.AttrRedacted, int64(secrets)))
	}
	f := &s.a.fields
	parse.Line(body, f)
	attrs = append(attrs, f.Attrs...)
	s.a.attrs = attrs
	s.enc.Append(&schema.Record{Time: p.time, Observed: now.UnixNano(), Body: text(body), Offset: p.start.Offset, Attrs: attrs,
		Severity: f.Severity, SeverityText: f.SeverityText, TraceID: f.TraceID, SpanID: f.SpanID, Flags: f.Flags})
	s.skip[p.stream], s.lastStart, s.lastTime = p.end, p.start.Offset, p.time
	s.a.m.records.Inc()
	if s.enc.Len() >= s.a.cfg.BatchBytes {
		at := p.end
		if len(s.queue) > 0 {
			at = s.queue[0].start
		}
		return s.sealUpTo(ctx, at)
	}
	return nil
}

// begin makes the batch ready for a record that starts at a position.
func (s *source) begin(ctx context.Context, start schema.Position, now time.Time) error {
	if l := &s.lost; l.records+l.bytes > 0 && (l.at.Incarnation != start.Incarnation || now.Sub(l.since) >= lossPause) {
		if err := s.tellDropped(ctx, now); err != nil {
			return err
		}
	}
	if s.enc.Count() > 0 && s.encInc != start.Incarnation {
		if err := s.seal(ctx, s.ends[s.encInc], start); err != nil {
			return err
		}
	}
	if s.enc.Count() > 0 {
		return nil
	}
	s.encInc, s.first, s.opened = start.Incarnation, start, now
	if s.lost.records+s.lost.bytes > 0 && s.lost.at.Compare(start) < 0 {
		s.first = s.lost.at // it will be told in this batch
	}
	if s.busy {
		s.enc.Use(s.a.buffer())
	}
	s.enc.Reset(s.name, s.encInc, s.resource)
	return nil
}

// lossPause is how long losses of one kind are gathered before they are told.
const lossPause = time.Second

// drop notes that a stretch of the log is not delivered. It is told within the batch, so that Kafka has it when it has what follows, and
// at a place where no record of the log starts, so that it has an id of its own.
func (s *source) drop(ctx context.Context, l loss, now time.Time) error {
	if has := &s.lost; has.records+has.bytes > 0 {
		if has.reason == l.reason && has.at.Incarnation == l.from.Incarnation && now.Sub(has.since) < lossPause {
			has.to, has.at = l.to, l.from
			has.records += l.records
			has.bytes += l.bytes
			return nil
		}
		if err := s.tellDropped(ctx, now); err != nil {
			return err
		}
	}
	l.at, l.since = l.from, now
	s.lost = l
	return nil
}

// tellDropped puts what was dropped into the batch.
func (s *source) tellDropped(ctx context.Context, now time.Time) error {
	l := s.lost
	if l.records+l.bytes == 0 {
		return nil
	}
	s.lost = loss{}
	if err := s.begin(ctx, l.at, now); err != nil {
		return err
	}
	r := s.lossRecord(l)
	r.Offset, r.Observed = l.at.Offset, now.UnixNano()
	if s.enc.Count() > 0 {
		r.Offset = max(r.Offset, s.lastStart+1) // no record starts within another's first line
	}
	s.enc.Append(&r)
	return nil
}

// resume is the place from which a crash now would have to read again.
func (s *source) resume() schema.Position {
	if len(s.queue) > 0 {
		return s.queue[0].start
	}
	return schema.Position{Incarnation: s.inc, Offset: s.offset}
}

// sealUpTo sends the batch; at is where reading goes on after it.
func (s *source) sealUpTo(ctx context.Context, at schema.Position) error {
	if l := &s.lost; l.records+l.bytes > 0 {
		if err := s.tellDropped(ctx, l.since); err != nil {
			return err
		}
	}
	if at.Incarnation != s.encInc {
		return s.seal(ctx, s.ends[s.encInc], at)
	}
	return s.seal(ctx, at.Offset, at)
}

// seal sends the batch. end is the offset, in the batch's file, up to which it tells all; at is where reading goes on after it.
func (s *source) seal(ctx context.Context, end int64, at schema.Position) error {
	if s.enc.Count() == 0 {
		return nil
	}
	m := ingest.Message{Topic: schema.TopicLogs, Source: s.name, Begin: s.first, End: schema.Position{Incarnation: s.encInc, Offset: end}, Prev: s.prev, PrevKnown: s.known, Count: s.enc.Count(), Value: s.enc.Take(), Free: s.a.reuse}
	s.busy = len(m.Value) >= s.a.cfg.BatchBytes/4
	s.prev, s.known = m.End, true
	return s.send(ctx, m, at, false)
}

// send gives a message to the producer; when Kafka has it, reading would go on at the given place.
func (s *source) send(ctx context.Context, m ingest.Message, at schema.Position, last bool) error {
	next := mark{At: at, Prev: s.prev, Known: s.known, Skip: s.skip, Lines: s.lines, Bytes: s.bytes, Entry: s.engine.before(at), Trace: s.traceAt(at)}
	until := s.lastTime
	s.mu.Lock()
	s.unacked++
	s.mu.Unlock()
	m.Acked = func() {
		s.mu.Lock()
		s.acked, s.ackedTime, s.dirty = next, until, true
		s.done = last
		s.unacked--
		s.mu.Unlock()
	}
	return s.a.out.Send(ctx, m)
}

// sealIfDue sends a batch whose first record has waited long enough. It is called between reads, when offset is exact.
func (s *source) sealIfDue(ctx context.Context, now time.Time, force bool) error {
	if due := s.due(); due.IsZero() || !force && now.Before(due) {
		return nil
	}
	return s.sealUpTo(ctx, s.resume())
}

// due is when the batch is to be sent although it is not full; zero when there is none.
func (s *source) due() time.Time {
	switch {
	case s.enc.Count() > 0:
		return s.opened.Add(s.a.cfg.Linger)
	case s.lost.records+s.lost.bytes > 0:
		return s.lost.since.Add(lossPause)
	}
	return time.Time{}
}
