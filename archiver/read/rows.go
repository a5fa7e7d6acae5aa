package read

import (
	"cmp"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"weir/archiver/archive"
	"weir/indexer"
	"weir/schema"
)

// Hit is a record that was found.
type Hit struct {
	At     int64         // the time that it is filed under, ns
	Batch  *schema.Batch // what it shares with others: source, incarnation, resource and place in Kafka; without records
	Record schema.Record

	place *archive.Place
	size  int
}

// ID is the record's id.
func (h *Hit) ID() string { return h.Batch.ID(&h.Record) }

// compare orders hits by time, and those of one time by their place in their sources.
func (h *Hit) compare(o *Hit) int {
	if c := cmp.Compare(h.At, o.At); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(h.Batch.Source, o.Batch.Source), h.Batch.Position(&h.Record).Compare(o.Batch.Position(&o.Record)))
}

// shared is what a batch is told apart by.
type shared struct {
	source, incarnation, app, tenant, site, cell, id, name, image, host string
	labels, attrs                                                       string
	partition                                                           int32
	offset                                                              int64
}

// resourceAttr tells of an attribute in the archive, which keeps those of the record and those that it shares in one map, that it was
// shared. Routing to data streams goes by some of them.
func resourceAttr(key string) bool {
	return strings.HasPrefix(key, "k8s.") || key == schema.AttrFilePath || key == schema.AttrRedaction
}

// attrOf gives an attribute the type back that its field needs. Without a field it is text.
func attrOf(key, text string) schema.Attr {
	f := fieldAttrs[key]
	if f == nil {
		return schema.String(key, text)
	}
	switch f.Type {
	case indexer.Long:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return schema.Int(key, n)
		}
	case indexer.Boolean:
		if b, err := strconv.ParseBool(text); err == nil {
			return schema.Bool(key, b)
		}
	}
	return schema.String(key, text)
}

// hits makes records of rows, which must be within the group.
func (g *group) hits(rows rowSet) ([]*Hit, error) {
	n := rows.count()
	if n == 0 {
		return nil, nil
	}
	times, err := g.times(rows)
	if err != nil {
		return nil, err
	}
	hits, keys := make([]Hit, n), make([]shared, n)
	number := make([]int32, g.rows) // of a row's hit
	for row, i := rows.from(0), int32(0); row >= 0; row, i = rows.from(row+1), i+1 {
		number[row] = i
		hits[i].At, hits[i].place = times[row], g.file.place
	}
	text := func(name string, set func(i int32, s string)) {
		if err == nil {
			err = g.eachString(name, rows, func(row int, s string) { set(number[row], s) })
		}
	}
	num := func(name string, set func(i int32, n int64)) {
		if err == nil {
			err = g.eachInt(name, rows, func(row int, n int64) { set(number[row], n) })
		}
	}
	num("timestamp_ns", func(i int32, n int64) { hits[i].Record.Time = n })
	num("observed_ns", func(i int32, n int64) { hits[i].Record.Observed = n })
	num("offset", func(i int32, n int64) { hits[i].Record.Offset = n })
	num("severity", func(i int32, n int64) { hits[i].Record.Severity = int32(n) })
	num("kafka_partition", func(i int32, n int64) { keys[i].partition = int32(n) })
	num("kafka_offset", func(i int32, n int64) { keys[i].offset = n })
	text("source", func(i int32, s string) { keys[i].source = s })
	text("incarnation", func(i int32, s string) { keys[i].incarnation = s })
	text("app", func(i int32, s string) { keys[i].app = s })
	text("tenant", func(i int32, s string) { keys[i].tenant = s })
	text("site", func(i int32, s string) { keys[i].site = s })
	text("cell", func(i int32, s string) { keys[i].cell = s })
	text("container_id", func(i int32, s string) { keys[i].id = s })
	text("container_name", func(i int32, s string) { keys[i].name = s })
	text("image", func(i int32, s string) { keys[i].image = s })
	text("host", func(i int32, s string) { keys[i].host = s })
	text("level", func(i int32, s string) { hits[i].Record.SeverityText = s })
	text("event_name", func(i int32, s string) { hits[i].Record.EventName = s })
	text("trace_id", func(i int32, s string) { _, _ = hex.Decode(hits[i].Record.TraceID[:], []byte(s[:min(len(s), 32)])) })
	text("span_id", func(i int32, s string) { _, _ = hex.Decode(hits[i].Record.SpanID[:], []byte(s[:min(len(s), 16)])) })
	text("body", func(i int32, s string) { hits[i].Record.Body, hits[i].Record.BodyBytes = s, !utf8.ValidString(s) })
	text("stream", func(i int32, s string) {
		if s != "" {
			hits[i].Record.Attrs = append(hits[i].Record.Attrs, schema.String(schema.AttrStream, s))
		}
	})
	if err != nil {
		return nil, err
	}
	// Few texts come again and again: each is kept once.
	names := map[string]string{}
	intern := func(b []byte) string {
		s, ok := names[string(b)]
		if !ok {
			s = string(b)
			if len(names) < 10_000 && len(s) <= 256 {
				names[s] = s
			}
		}
		return s
	}
	err = g.eachMap("labels", rows, func(row int, entries []entry) {
		slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
		keys[number[row]].labels = intern(pack(entries, func(string) bool { return true }))
	})
	if err != nil {
		return nil, err
	}
	err = g.eachMap("attributes", rows, func(row int, entries []entry) {
		slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
		h := &hits[number[row]]
		for _, e := range entries {
			if !resourceAttr(e.key) {
				h.Record.Attrs = append(h.Record.Attrs, attrOf(e.key, intern(e.value)))
				h.size += len(e.key) + len(e.value) + 64
			}
		}
		keys[number[row]].attrs = intern(pack(entries, resourceAttr))
	})
	if err != nil {
		return nil, err
	}
	batches := map[shared]*schema.Batch{}
	for i := range hits {
		b := batches[keys[i]]
		if b == nil {
			if b, err = g.batch(&keys[i]); err != nil {
				return nil, err
			}
			batches[keys[i]] = b
		}
		hits[i].Batch = b
		hits[i].size += len(hits[i].Record.Body) + 320
	}
	return pointers(hits), nil
}

func pointers(hits []Hit) []*Hit {
	all := make([]*Hit, len(hits))
	for i := range hits {
		all[i] = &hits[i]
	}
	return all
}

var noBatch schema.Batch

// light makes hits of times and levels alone.
func (g *group) light(rows rowSet) ([]*Hit, error) {
	times, err := g.times(rows)
	if err != nil {
		return nil, err
	}
	hits := make([]Hit, 0, rows.count())
	err = g.eachString("level", rows, func(row int, level string) {
		hits = append(hits, Hit{At: times[row], Batch: &noBatch, Record: schema.Record{SeverityText: level}, place: g.file.place, size: 320})
	})
	return pointers(hits), err
}

// pack writes the entries that are wanted into one text, which unpack takes apart again.
func pack(entries []entry, want func(string) bool) []byte {
	var b []byte
	for _, e := range entries {
		if want(e.key) {
			b = strconv.AppendInt(append(strconv.AppendInt(b, int64(len(e.key)), 10), ' '), int64(len(e.value)), 10)
			b = append(append(append(b, ' '), e.key...), e.value...)
		}
	}
	return b
}

func unpack(s string, each func(key, value string)) {
	for s != "" {
		k, rest, _ := strings.Cut(s, " ")
		v, rest, _ := strings.Cut(rest, " ")
		n, _ := strconv.Atoi(k)
		m, _ := strconv.Atoi(v)
		each(rest[:n], rest[n:n+m])
		s = rest[n+m:]
	}
}

func (g *group) batch(k *shared) (*schema.Batch, error) {
	inc, err := schema.ParseIncarnation(k.incarnation)
	if err != nil {
		return nil, err
	}
	b := &schema.Batch{Source: k.source, Topic: g.topic(), Partition: int(k.partition), KafkaOffset: k.offset}
	b.Begin.Incarnation, b.End.Incarnation = inc, inc
	b.Resource = []schema.Attr{schema.String(schema.AttrSource, k.source), schema.String(schema.AttrIncarnation, k.incarnation)}
	for _, a := range [...][2]string{{schema.AttrContainerID, k.id}, {schema.AttrContainerName, k.name}, {schema.AttrImageName, k.image}, {schema.AttrApp, k.app},
		{schema.AttrTenant, k.tenant}, {schema.AttrSite, k.site}, {schema.AttrCell, k.cell}, {schema.AttrHostName, k.host}} {
		if a[1] != "" {
			b.Resource = append(b.Resource, schema.String(a[0], a[1]))
		}
	}
	unpack(k.attrs, func(key, value string) { b.Resource = append(b.Resource, attrOf(key, value)) })
	unpack(k.labels, func(key, value string) { b.Resource = append(b.Resource, schema.String(schema.LabelPrefix+key, value)) })
	return b, nil
}

type entry struct {
	key   string
	value []byte
}

// eachMap visits the entries of each row's map.
func (g *group) eachMap(name string, rows rowSet, visit func(row int, entries []entry)) error {
	var entries []entry
	last := -1
	err := g.eachEntry(name, rows, func(row int, key string, value []byte) {
		if row != last && len(entries) > 0 {
			visit(last, entries)
			entries = entries[:0]
		}
		last = row
		entries = append(entries, entry{key, value})
	})
	if err == nil && len(entries) > 0 {
		visit(last, entries)
	}
	return err
}

func (g *group) eachString(name string, rows rowSet, visit func(row int, s string)) error {
	c, err := g.column(name)
	if err != nil || c == nil {
		return err
	}
	return c.each(rows, func(p *page) (bool, error) {
		for row := rows.from(p.first); row >= 0 && row < p.end; row = rows.from(row + 1) {
			visit(row, p.string(row-p.first))
		}
		return false, nil
	})
}

func (g *group) eachInt(name string, rows rowSet, visit func(row int, n int64)) error {
	c, err := g.column(name)
	if err != nil || c == nil {
		return err
	}
	return c.each(rows, func(p *page) (bool, error) {
		for row := rows.from(p.first); row >= 0 && row < p.end; row = rows.from(row + 1) {
			visit(row, p.int(row-p.first))
		}
		return false, nil
	})
}

// bound is a time in ns for a filter; zero is the default.
func bound(t time.Time, otherwise int64) int64 {
	if t.IsZero() {
		return otherwise
	}
	if y := t.Year(); y < 1678 || y > 2261 { // past what nanoseconds hold
		if y > 2000 {
			return math.MaxInt64
		}
		return 0
	}
	return t.UnixNano()
}
