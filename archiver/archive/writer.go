package archive

import (
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"unsafe"

	"github.com/parquet-go/parquet-go"

	"weir/schema"
)

// chunkRows is how many rows are given to the columns at once: pages can only end between two chunks.
const chunkRows = 256

// maxPage is the most bytes of a page, but for a record that is larger.
const maxPage = 512 << 10

// Writer writes one file, a row group at a time. Between two groups it holds next to nothing.
type Writer struct {
	file *parquet.GenericWriter[Row]

	// Used again for each chunk.
	values []parquet.Value
	text   []byte
	pairs  []pair // the attributes of the chunk's rows
	ends   []int  // where those of each row end
}

// NewWriter makes the writer of one file. Reset is not used to save its buffers: parquet-go 0.32.0 then writes empty column
// names into the footer of the next file that has several row groups, which Spark refuses.
//
// Dictionaries have no limit but the row group's: where a column gives its dictionary up, parquet-go 0.32.0 leaves the values after that
// out of the bloom filter, and readers would miss them (docs/decisions/0008).
//
// Each row group begins with buffers of a page for every column, so pages are as large as the first group makes worth the while, up to 512 KiB.
func NewWriter(w io.Writer, groupBytes int) *Writer {
	return &Writer{file: NewRowWriter(w, groupBytes)}
}

// NewRowWriter makes a writer of such a file that takes rows, for those that have them: it holds a row group in the buffers of its columns.
func NewRowWriter(w io.Writer, groupBytes int) *parquet.GenericWriter[Row] {
	return parquet.NewGenericWriter[Row](w,
		parquet.Compression(&pages),
		parquet.PageBufferSize(min(max(groupBytes/8, 8<<10), maxPage)),
		parquet.DataPageStatistics(true),
		// Bounds of log lines help no reader and would copy whole lines into the footer.
		parquet.SkipPageBounds("body"),
		parquet.BloomFilters(parquet.SplitBlockFilter(10, "container_id"), parquet.SplitBlockFilter(10, "trace_id")),
		parquet.KeyValueMetadata(SchemaKey, SchemaVersion),
		parquet.CreatedBy("weir", "1", ""),
	)
}

// Close writes the footer.
func (w *Writer) Close() error { return w.file.Close() }

// WriteGroup writes the group's rows as one row group, and empties it.
func (w *Writer) WriteGroup(g *Group) error {
	group := w.file.BeginRowGroup()
	columns := group.ColumnWriters()
	for i := range g.batches {
		b := &g.batches[i]
		res := newResource(b)
		for records := range slices.Chunk(b.Records, chunkRows) {
			if err := w.chunk(columns, b, &res, records); err != nil {
				return err
			}
		}
	}
	n, err := group.Commit()
	if err == nil && n != int64(g.rows) {
		err = fmt.Errorf("a row group has %d rows of %d", n, g.rows)
	}
	g.reset()
	return err
}

func (w *Writer) chunk(columns []*parquet.ColumnWriter, b *schema.Batch, res *resource, records []schema.Record) error {
	w.text = w.text[:0]
	w.collect(res, records)
	for i, c := range columnsOf {
		w.values = w.values[:0]
		switch {
		case c.shared != nil:
			v := c.shared(b, res)
			for range records {
				w.values = append(w.values, v)
			}
		case c.own != nil:
			for j := range records {
				w.values = append(w.values, c.own(w, b, &records[j]))
			}
		default:
			c.repeated(w, i, res, len(records))
		}
		if _, err := columns[i].WriteRowValues(w.values); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return nil
}

// column is how a leaf of the schema gets its values: one for all rows of a batch, one for each row, or any number for each.
type column struct {
	name     string
	shared   func(b *schema.Batch, res *resource) parquet.Value
	own      func(w *Writer, b *schema.Batch, r *schema.Record) parquet.Value
	repeated func(w *Writer, index int, res *resource, rows int)
}

// columnsOf is in the order of Row's fields.
var columnsOf = []column{
	{name: "timestamp", own: func(_ *Writer, _ *schema.Batch, r *schema.Record) parquet.Value {
		return parquet.Int64Value(EventTime(r) / 1000)
	}},
	{name: "timestamp_ns", own: func(_ *Writer, _ *schema.Batch, r *schema.Record) parquet.Value { return parquet.Int64Value(r.Time) }},
	{name: "observed_ns", own: func(_ *Writer, _ *schema.Batch, r *schema.Record) parquet.Value {
		return parquet.Int64Value(r.Observed)
	}},
	{name: "id", own: func(w *Writer, b *schema.Batch, r *schema.Record) parquet.Value {
		return w.made(func(to []byte) []byte { return b.AppendID(to, r) })
	}},
	{name: "source", shared: func(b *schema.Batch, _ *resource) parquet.Value { return text(b.Source) }},
	{name: "incarnation", shared: func(b *schema.Batch, _ *resource) parquet.Value { return text(b.Begin.Incarnation.String()) }},
	{name: "offset", own: func(_ *Writer, _ *schema.Batch, r *schema.Record) parquet.Value { return parquet.Int64Value(r.Offset) }},
	{name: "topic", shared: func(b *schema.Batch, _ *resource) parquet.Value { return text(b.Topic) }},
	{name: "kafka_partition", shared: func(b *schema.Batch, _ *resource) parquet.Value { return parquet.Int32Value(int32(b.Partition)) }},
	{name: "kafka_offset", shared: func(b *schema.Batch, _ *resource) parquet.Value { return parquet.Int64Value(b.KafkaOffset) }},
	attribute("app", schema.AttrApp), attribute("tenant", schema.AttrTenant), attribute("site", schema.AttrSite), attribute("cell", schema.AttrCell),
	attribute("container_id", schema.AttrContainerID), attribute("container_name", schema.AttrContainerName),
	attribute("image", schema.AttrImageName), attribute("host", schema.AttrHostName),
	{name: "stream", own: func(_ *Writer, _ *schema.Batch, r *schema.Record) parquet.Value {
		if a, ok := r.Attr(schema.AttrStream); ok {
			return text(attrText(a))
		}
		return text("")
	}},
	{name: "level", own: func(_ *Writer, _ *schema.Batch, r *schema.Record) parquet.Value { return text(Level(r)) }},
	{name: "severity", own: func(_ *Writer, _ *schema.Batch, r *schema.Record) parquet.Value {
		return parquet.Int32Value(r.Severity)
	}},
	{name: "event_name", own: func(_ *Writer, _ *schema.Batch, r *schema.Record) parquet.Value { return text(r.EventName) }},
	{name: "trace_id", own: func(w *Writer, _ *schema.Batch, r *schema.Record) parquet.Value {
		if r.TraceID == [16]byte{} {
			return text("")
		}
		return w.made(func(to []byte) []byte { return hex.AppendEncode(to, r.TraceID[:]) })
	}},
	{name: "span_id", own: func(w *Writer, _ *schema.Batch, r *schema.Record) parquet.Value {
		if r.SpanID == [8]byte{} {
			return text("")
		}
		return w.made(func(to []byte) []byte { return hex.AppendEncode(to, r.SpanID[:]) })
	}},
	{name: "body", own: func(_ *Writer, _ *schema.Batch, r *schema.Record) parquet.Value { return text(r.Body) }},
	{name: "labels.key_value.key", repeated: func(w *Writer, index int, res *resource, rows int) {
		for range rows {
			w.repeat(index, res.labels, func(p *pair) string { return p.key })
		}
	}},
	{name: "labels.key_value.value", repeated: func(w *Writer, index int, res *resource, rows int) {
		for range rows {
			w.repeat(index, res.labels, func(p *pair) string { return p.value })
		}
	}},
	{name: "attributes.key_value.key", repeated: func(w *Writer, index int, _ *resource, _ int) {
		w.eachRow(func(pairs []pair) { w.repeat(index, pairs, func(p *pair) string { return p.key }) })
	}},
	{name: "attributes.key_value.value", repeated: func(w *Writer, index int, _ *resource, _ int) {
		w.eachRow(func(pairs []pair) { w.repeat(index, pairs, func(p *pair) string { return p.value }) })
	}},
}

// attribute is a column that has its value from the batch's resource.
func attribute(name, key string) column {
	return column{name: name, shared: func(_ *schema.Batch, res *resource) parquet.Value { return text(res.columns[key]) }}
}

// text views a string as a value; the column copies it.
func text(s string) parquet.Value {
	return parquet.ByteArrayValue(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// made is a value that is put together in the writer's own memory. What was made before stays where it is when that grows.
func (w *Writer) made(add func(to []byte) []byte) parquet.Value {
	at := len(w.text)
	w.text = add(w.text)
	return parquet.ByteArrayValue(w.text[at:len(w.text):len(w.text)])
}

// repeat adds a row's values to a column of a map. Repetition level 0 begins a row; definition level 0 says that its map is empty.
func (w *Writer) repeat(index int, pairs []pair, of func(*pair) string) {
	if len(pairs) == 0 {
		w.values = append(w.values, parquet.NullValue().Level(0, 0, index))
	}
	for i := range pairs {
		w.values = append(w.values, text(of(&pairs[i])).Level(min(i, 1), 1, index))
	}
}

func (w *Writer) eachRow(do func(pairs []pair)) {
	at := 0
	for _, end := range w.ends {
		do(w.pairs[at:end])
		at = end
	}
}

// collect finds the attributes of each row: those of its batch, and its own, which win.
func (w *Writer) collect(res *resource, records []schema.Record) {
	w.pairs, w.ends = w.pairs[:0], w.ends[:0]
	for i := range records {
		row := entries{pairs: append(w.pairs[len(w.pairs):], res.attrs...)}
		for _, a := range records[i].Attrs {
			if a.Key != schema.AttrStream {
				row.put(a.Key, attrText(a))
			}
		}
		w.pairs = append(w.pairs, row.pairs...)
		w.ends = append(w.ends, len(w.pairs))
	}
}

// resource is what the rows of one batch share: its resource attributes, as columns, labels and the rest.
type resource struct {
	columns map[string]string
	labels  []pair
	attrs   []pair
}

func newResource(b *schema.Batch) resource {
	columns := make(map[string]string, len(b.Resource))
	var labels, attrs entries
	for _, a := range b.Resource {
		switch a.Key {
		case schema.AttrApp, schema.AttrTenant, schema.AttrSite, schema.AttrCell, schema.AttrContainerID, schema.AttrContainerName, schema.AttrImageName, schema.AttrHostName:
			columns[a.Key] = attrText(a)
		case schema.AttrSource, schema.AttrIncarnation:
		default:
			if label, ok := strings.CutPrefix(a.Key, schema.LabelPrefix); ok {
				labels.put(label, attrText(a))
			} else {
				attrs.put(a.Key, attrText(a))
			}
		}
	}
	return resource{columns, labels.pairs, attrs.pairs}
}

// entries are those of one map, each key once. Of many, an index finds them.
type entries struct {
	pairs []pair
	index map[string]int
}

type pair struct{ key, value string }

func (e *entries) put(key, value string) {
	const few = 32
	if e.index == nil && len(e.pairs) > few {
		e.index = make(map[string]int, 2*few)
		for i := range e.pairs {
			e.index[e.pairs[i].key] = i
		}
	}
	at, found := e.index[key]
	if e.index == nil {
		at = slices.IndexFunc(e.pairs, func(p pair) bool { return p.key == key })
		found = at >= 0
	}
	if found {
		e.pairs[at].value = value
		return
	}
	if e.index != nil {
		e.index[key] = len(e.pairs)
	}
	e.pairs = append(e.pairs, pair{key, value})
}
