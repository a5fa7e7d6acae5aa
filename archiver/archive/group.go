package archive

import (
	"unsafe"

	"weir/schema"
)

// Group is the rows of one file that are not written yet, as copies of their batches: that takes far less memory than the buffers of
// a Parquet writer, of which every column has one.
type Group struct {
	batches []schema.Batch
	rows    int
	bytes   int
}

// Rows is how many rows it holds, Bytes the memory that they take.
func (g *Group) Rows() int  { return g.rows }
func (g *Group) Bytes() int { return g.bytes }

func (g *Group) reset() { *g = Group{} }

// Add copies some records of a batch.
func (g *Group) Add(b *schema.Batch, records []schema.Record) {
	text, attrs := len(b.Topic)+len(b.Source)+attrBytes(b.Resource), len(b.Resource)
	for i := range records {
		r := &records[i]
		text += len(r.SeverityText) + len(r.Body) + len(r.EventName) + attrBytes(r.Attrs)
		attrs += len(r.Attrs)
	}
	c := copier{text: make([]byte, 0, text), attrs: make([]schema.Attr, 0, attrs)}
	own := schema.Batch{Source: c.string(b.Source), Begin: b.Begin, Topic: c.string(b.Topic), Partition: b.Partition, KafkaOffset: b.KafkaOffset, Resource: c.all(b.Resource), Records: make([]schema.Record, len(records))}
	copy(own.Records, records)
	for i := range own.Records {
		r := &own.Records[i]
		r.SeverityText, r.Body, r.EventName, r.Attrs = c.string(r.SeverityText), c.string(r.Body), c.string(r.EventName), c.all(r.Attrs)
	}
	g.batches = append(g.batches, own)
	g.rows += len(records)
	g.bytes += text + attrs*int(unsafe.Sizeof(schema.Attr{})) + len(records)*int(unsafe.Sizeof(schema.Record{})) + int(unsafe.Sizeof(own))
}

func attrBytes(attrs []schema.Attr) (n int) {
	for i := range attrs {
		n += len(attrs[i].Key) + len(attrs[i].Str)
	}
	return n
}

// copier puts strings and attributes behind each other into memory that was made for all of them.
type copier struct {
	text  []byte
	attrs []schema.Attr
}

func (c *copier) string(s string) string {
	if s == "" {
		return ""
	}
	at := len(c.text)
	c.text = append(c.text, s...)
	return unsafe.String(&c.text[at], len(s))
}

func (c *copier) all(attrs []schema.Attr) []schema.Attr {
	at := len(c.attrs)
	for _, a := range attrs {
		a.Key, a.Str = c.string(a.Key), c.string(a.Str)
		c.attrs = append(c.attrs, a)
	}
	return c.attrs[at:len(c.attrs):len(c.attrs)]
}
