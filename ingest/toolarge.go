package ingest

import (
	"slices"
	"unicode/utf8"

	"weir/schema"
)

// leastBody is the size, in bytes, below which cutting a body gives way to leaving attributes away.
const leastBody = 1 << 10

// smaller returns the runs to send, one after the other, in place of one that is larger than the topic takes: half of the
// batches each, or half of the only batch's records, or its only record without the end of its body. How much the topic takes
// is not known here, because it counts after compression and asking needs a permission of its own. Nil means that there is nothing left to leave away.
func (p *Producer) smaller(run []Message) [][]Message {
	if half := len(run) / 2; half > 0 {
		return [][]Message{run[:half], run[half:]}
	}
	m, info := run[0], run[0].info()
	var d schema.Decoder
	var b schema.Batch
	if d.Decode(m.Value, &info, &b) != nil || len(b.Records) == 0 {
		return nil
	}
	if half := len(b.Records) / 2; half > 0 {
		p.split.Inc()
		at := schema.Position{Incarnation: m.Begin.Incarnation, Offset: b.Records[half].Offset}
		head, tail := m, m
		head.Value, head.Count, head.End = encode(&b, b.Records[:half]), half, at
		head.Acked, head.part = nil, true
		tail.Value, tail.Count, tail.Begin = encode(&b, b.Records[half:]), len(b.Records)-half, at
		tail.Prev, tail.PrevKnown = at, true
		return [][]Message{{head}, {tail}}
	}
	r := &b.Records[0]
	was, again := r.Attr(schema.AttrCutBytes)
	if !again {
		p.cut.Inc()
		p.log.Error("a record alone is larger than the topic takes; it is sent without the end of its body", "topic", m.Topic, "source", m.Source,
			"position", m.Begin.String(), "bytes", len(m.Value), "remedy", remedies[tooLarge]+", or lower agent.max_record_bytes")
	}
	marks := []schema.Attr{schema.Bool(schema.AttrTruncated, true), schema.Int(schema.AttrCutBytes, was.Num)}
	switch others := slices.DeleteFunc(slices.Clone(r.Attrs), isMark); {
	case len(r.Body) > leastBody:
		end := len(r.Body) / 2
		for !r.BodyBytes && !utf8.RuneStart(r.Body[end]) {
			end--
		}
		marks[1].Num += int64(len(r.Body) - end)
		r.Body, r.Attrs = r.Body[:end], append(others, marks...)
	case len(others) > 0 || len(b.Resource) > 2:
		b.Resource, r.Attrs = nil, marks
	default:
		return nil
	}
	m.Value = encode(&b, b.Records)
	return [][]Message{{m}}
}

func isMark(a schema.Attr) bool { return a.Key == schema.AttrTruncated || a.Key == schema.AttrCutBytes }

// encode makes a batch anew from some of its records.
func encode(b *schema.Batch, records []schema.Record) []byte {
	// The encoder adds these two itself.
	resource := slices.DeleteFunc(slices.Clone(b.Resource), func(a schema.Attr) bool { return a.Key == schema.AttrSource || a.Key == schema.AttrIncarnation })
	var e schema.Encoder
	e.Reset(b.Source, b.Begin.Incarnation, resource)
	for i := range records {
		e.Append(&records[i])
	}
	return e.Bytes()
}
