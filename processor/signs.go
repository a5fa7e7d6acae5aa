package processor

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"weir/internal/unpack"
	"weir/processor/window"
	"weir/schema"
)

// What a node's containers do is judged by one tracker (package lives) in the second stage, on the partition of weir.partials that the node
// belongs to. The first stage sends it the engine's events as they are, and of logs a sign of life: the newest line, and how much there was
// besides. A sign that waits when a processor crashes is lost: then a container's last seconds are missing to its tracker.

// signEvery is how long a source's signs are gathered.
const signEvery = 5 * time.Second

// sign is what a source wrote since its last sign, within one minute.
type sign struct {
	source        string
	inc           schema.Incarnation
	resource      []schema.Attr
	minute        int64
	first         int64 // offset
	last          schema.Record
	lines, bytes  int64 // without the last line
	since         time.Time
	others        []schema.Record // records that are no lines
	hasLine, full bool
}

// signs gathers them, and the batches to be sent on as they are.
type signs struct {
	by      map[string]*sign
	batches []forward
}

// forward is a batch for the tracker of a node.
type forward struct {
	node  string
	value []byte
}

func own(s string) string { return strings.Clone(s) }

func ownAttrs(attrs []schema.Attr) []schema.Attr {
	out := make([]schema.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = schema.Attr{Key: own(a.Key), Kind: a.Kind, Str: own(a.Str), Num: a.Num}
	}
	return out
}

// log takes a batch of a container's log.
func (s *signs) log(b *schema.Batch, times []int64, now time.Time) {
	if s.by == nil {
		s.by = map[string]*sign{}
	}
	g := s.by[b.Source]
	for i := range b.Records {
		r := &b.Records[i]
		minute := floor(times[i], int64(time.Minute))
		if g != nil && (g.minute != minute || g.inc != b.Begin.Incarnation) {
			s.seal(g)
			g = nil
		}
		if g == nil {
			g = &sign{source: own(b.Source), inc: b.Begin.Incarnation, resource: ownAttrs(b.Resource), minute: minute, since: now}
			s.by[g.source] = g
		}
		if r.EventName != "" {
			o := *r
			o.Body, o.EventName, o.SeverityText, o.Attrs = own(r.Body), own(r.EventName), own(r.SeverityText), ownAttrs(r.Attrs)
			g.others, g.full = append(g.others, o), true
			continue
		}
		if g.hasLine {
			g.lines, g.bytes = g.lines+1, g.bytes+int64(len(g.last.Body))
		} else {
			g.first, g.hasLine = r.Offset, true
		}
		// Of the body only the length counts.
		g.last = schema.Record{Offset: r.Offset, Time: times[i], Observed: r.Observed, Severity: r.Severity, Body: zeros(len(r.Body))}
	}
}

// zeros is text of a length, up to what matters of a line.
func zeros(n int) string { return blank[:min(n, len(blank))] }

var blank = strings.Repeat(" ", 1024)

// seal makes a batch of a sign.
func (s *signs) seal(g *sign) {
	delete(s.by, g.source)
	records := g.others
	if g.hasLine {
		if g.lines > 0 {
			// The tracker counts what a quota dropped as written: so it learns of the lines that are not sent.
			records = append(records, schema.Record{Offset: g.first, Time: g.last.Time, Observed: g.last.Observed, EventName: schema.EventLoss, Attrs: []schema.Attr{
				schema.String(schema.AttrLossReason, "quota"), schema.Int(schema.AttrLossRecords, g.lines), schema.Int(schema.AttrLossBytes, g.bytes)}})
		}
		records = append(records, g.last)
	}
	slices.SortStableFunc(records, func(a, b schema.Record) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	s.add(g.source, g.inc, g.resource, records)
}

// events takes a batch of the engine's events.
func (s *signs) events(b *schema.Batch) { s.add(b.Source, b.Begin.Incarnation, b.Resource, b.Records) }

func (s *signs) add(source string, inc schema.Incarnation, resource []schema.Attr, records []schema.Record) {
	if len(records) == 0 {
		return
	}
	var e schema.Encoder
	e.Reset(source, inc, resource)
	for i := range records {
		e.Append(&records[i])
	}
	node := ""
	for i := range resource {
		if resource[i].Key == schema.AttrHostName {
			node = own(resource[i].Str)
		}
	}
	v := appendText(nil, source)
	for _, n := range [...]int64{inc.Start, int64(inc.Print), records[0].Offset, records[len(records)-1].Offset + 1, int64(len(records))} {
		v = binary.AppendVarint(v, n)
	}
	s.batches = append(s.batches, forward{node, appendText(v, string(e.Bytes()))})
}

// take gives the batches that are to be sent now.
func (s *signs) take(now time.Time, f func(forward)) {
	for _, g := range s.by {
		if g.full || now.Sub(g.since) >= signEvery {
			s.seal(g)
		}
	}
	for _, b := range s.batches {
		f(b)
	}
	s.batches = nil
}

// forwarded reads batches that stand one behind the other.
func forwarded(b []byte, f func(*schema.Batch) error) error {
	r := unpack.Reader{B: b}
	var d schema.Decoder
	for len(r.B) > 0 {
		info := schema.Info{Source: r.String()}
		inc := schema.Incarnation{Start: r.Varint(), Print: uint32(r.Varint())}
		info.Begin = schema.Position{Incarnation: inc, Offset: r.Varint()}
		info.End = schema.Position{Incarnation: inc, Offset: r.Varint()}
		info.Count = int(r.Varint())
		value := r.String()
		if r.Bad {
			return errDamaged
		}
		var batch schema.Batch
		if err := d.Decode([]byte(value), &info, &batch); err != nil {
			return err
		}
		if err := f(&batch); err != nil {
			return err
		}
	}
	return nil
}

// The kinds of what a partial carries.
const (
	partialDeltas  = 'd'
	partialBatches = 'b'
)

// partials puts together what goes to one partition of weir.partials with a commit.
type partials struct {
	told   int64 // mark that was told before
	bodies [][]byte
}

func (p *partials) add(kind byte, entry []byte) {
	n := len(p.bodies)
	if n == 0 || p.bodies[n-1][1] != kind || len(p.bodies[n-1]) > outboxBytes {
		p.bodies = append(p.bodies, []byte{partialVersion, kind, 0, 0, 0, 0, 0, 0, 0, 0})
		binary.LittleEndian.PutUint64(p.bodies[n][2:], uint64(p.told))
		n++
	}
	p.bodies[n-1] = append(p.bodies[n-1], entry...)
}

// close gives the bodies. The last one has the mark: what comes before it does not reach so far yet.
func (p *partials) close(mark int64, always bool) [][]byte {
	if len(p.bodies) == 0 {
		if !always {
			return nil
		}
		p.add(partialDeltas, nil)
	}
	binary.LittleEndian.PutUint64(p.bodies[len(p.bodies)-1][2:], uint64(mark))
	return p.bodies
}

// partial reads what the first stage sent.
func partial(r *schema.Record) (mark int64, deltas []*window.Delta, batches []byte, err error) {
	const head = 10
	if _, cut := r.Attr(schema.AttrTruncated); cut || r.EventName != schema.EventPartial || len(r.Body) < head || r.Body[0] != partialVersion {
		return 0, nil, nil, errDamaged
	}
	body := []byte(r.Body)
	mark = int64(binary.LittleEndian.Uint64(body[2:]))
	switch body[1] {
	case partialDeltas:
		err = window.Deltas(body[head:], func(d *window.Delta) { deltas = append(deltas, d) })
	case partialBatches:
		batches = body[head:]
		err = forwarded(batches, func(*schema.Batch) error { return nil })
	default:
		err = errDamaged
	}
	return mark, deltas, batches, err
}
