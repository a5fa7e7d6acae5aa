package agent

import (
	"context"
	"time"

	"weir/agent/parse"
	"weir/ingest"
	"weir/schema"
)

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
	s.prev, s.known = m.End, true
	return s.send(ctx, m, at, false)
}

// send gives a message to the producer; when Kafka has it, reading would go on at the given place.
func (s *source) send(ctx context.Context, m ingest.Message, at schema.Position, last bool) error {
	next := mark{At: at, Prev: s.prev, Known: s.known, Skip: s.skip, Lines: s.lines, Bytes: s.bytes}
	m.Acked = func() {
		s.mu.Lock()
		s.acked, s.dirty = next, true
		s.done = last
		s.mu.Unlock()
	}
	s.a.blocked.Store(true)
	defer s.a.blocked.Store(false)
	return s.a.out.Send(ctx, m)
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
