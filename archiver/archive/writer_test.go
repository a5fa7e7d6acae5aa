package archive

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"weir/schema"
)

// TestColumns compares the columns of a file with the schema that Row gives: names, types, encodings.
func TestColumns(t *testing.T) {
	b := &schema.Batch{Source: "s", Resource: []schema.Attr{schema.String(schema.LabelPrefix+"a", "b"), schema.String("c", "d")}, Records: []schema.Record{{Offset: 1}}}
	f := write(t, []*schema.Batch{b})
	want := parquet.SchemaOf(Row{})
	if got := f.Schema().String(); got != want.String() {
		t.Errorf("schema\n%s, want\n%s", got, want)
	}
	for i, path := range want.Columns() {
		leaf, _ := want.Lookup(path...)
		meta := f.Metadata().RowGroups[0].Columns[i].MetaData
		if !slices.Equal(meta.PathInSchema, path) || meta.Type != format.Type(leaf.Node.Type().Kind()) || meta.Encoding[0] != leaf.Node.Encoding().Encoding() || meta.Codec != format.Zstd {
			t.Errorf("column %v: is %v, %v, %v, %v", path, meta.PathInSchema, meta.Type, meta.Encoding, meta.Codec)
		}
	}
}

// TestPages writes a row group of several pages of every column, and a small one, through batches and as rows, and compares all values and bounds with what was given.
func TestPages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var out bytes.Buffer
	w := NewWriter(&out)
	var want []Row
	var g Group
	var sum, sumOfRows Summer
	add := func(b *schema.Batch) {
		for i := range b.Records {
			rec := &b.Records[i]
			row := Row{Timestamp: EventTime(rec) / 1000, TimestampNS: rec.Time, ObservedNS: rec.Observed, ID: b.ID(rec), Source: b.Source, Incarnation: b.Begin.Incarnation.String(), Offset: rec.Offset, Topic: b.Topic, KafkaPartition: int32(b.Partition), KafkaOffset: b.KafkaOffset,
				Stream: "stdout", Level: rec.SeverityText, Severity: rec.Severity, Body: rec.Body, Labels: map[string]string{}, Attributes: map[string]string{}}
			for _, a := range b.Resource {
				row.Labels[strings.TrimPrefix(a.Key, schema.LabelPrefix)] = a.Str
			}
			for _, a := range rec.Attrs[1:] {
				row.Attributes[a.Key] = a.Text()
			}
			if rec.TraceID != [16]byte{} {
				row.TraceID = hex.EncodeToString(rec.TraceID[:])
			}
			want = append(want, row)
		}
		if len(want)%2 == 0 { // as rows
			for i := range b.Records {
				row := &want[len(want)-len(b.Records)+i]
				g.AddRow(row)
				sum.Add(row)
			}
			return
		}
		g.Add(b, b.Records, &sum)
	}
	for at := range int64(150) {
		b := &schema.Batch{Topic: "weir.logs", Partition: -1, KafkaOffset: math.MaxInt64 - at, Source: fmt.Sprint("s", r.IntN(3)), Begin: schema.Position{Incarnation: schema.Incarnation{Start: at}}}
		for i := range r.IntN(3) {
			b.Resource = append(b.Resource, schema.String(fmt.Sprint(schema.LabelPrefix, i), fmt.Sprint(r.IntN(3))))
		}
		for i := range 400 + r.IntN(400) {
			rec := schema.Record{Offset: int64(r.Uint64()), Time: r.Int64N(2) * r.Int64(), Observed: int64(i), Severity: int32(r.Uint32()), SeverityText: []string{"INFO", "warn", strings.Repeat("\xff", 300)}[r.IntN(3)], Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}}
			rec.Body = strings.Repeat("same beginning ", r.IntN(20)) + strconv.Itoa(r.IntN(100))
			if i == 7 {
				rec.Body = strings.Repeat("x", pageBytes+r.IntN(1000))
			}
			for k := range max(0, r.IntN(8)-4) {
				rec.Attrs = append(rec.Attrs, schema.Int(fmt.Sprint("k", k), int64(r.IntN(1000))))
			}
			if r.IntN(2) == 0 {
				rec.TraceID[r.IntN(16)] = byte(1 + r.IntN(255))
			}
			b.Records = append(b.Records, rec)
		}
		if add(b); at == 140 {
			if err := w.WriteGroup(&g); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.WriteGroup(&g), w.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range rows(t, f) {
		if got.Labels == nil {
			got.Labels = map[string]string{}
		}
		if got.Attributes == nil {
			got.Attributes = map[string]string{}
		}
		if !reflect.DeepEqual(got, want[i]) {
			t.Fatalf("row %d:\n got %.500v\nwant %.500v", i, got, want[i])
		}
		sumOfRows.Add(&got)
	}
	if sum.Sum != sumOfRows.Sum {
		t.Error("the sum of the batches is not that of their rows")
	}
	for i, group := range f.RowGroups() {
		for j, c := range group.ColumnChunks() {
			checkPages(t, fmt.Sprint("group ", i, " column ", leaves()[j]), c.(*parquet.FileColumnChunk), i == 0, leaves()[j][0] == "body")
		}
	}
}

// checkPages compares the page index and the bounds of a column with its pages. Lines have no bounds.
func checkPages(t *testing.T, name string, c *parquet.FileColumnChunk, several, lines bool) {
	t.Helper()
	offsets, err := c.OffsetIndex()
	if err != nil {
		t.Fatal(name, err)
	}
	if several && offsets.NumPages() < 2 {
		t.Errorf("%s has %d pages", name, offsets.NumPages())
	}
	index, err := c.ColumnIndex()
	low, high, bounded := c.Bounds()
	if lines {
		if bounded || err == nil && index.NumPages() > 0 {
			t.Errorf("%s has bounds", name)
		}
		return
	}
	if err != nil {
		t.Fatal(name, err)
	}
	if !bounded {
		t.Errorf("%s has no bounds", name)
	}
	pages := c.Pages()
	defer pages.Close()
	compare := c.Type().Compare
	row := int64(0)
	for i := range offsets.NumPages() {
		p, err := pages.ReadPage()
		if err != nil {
			t.Fatal(name, err)
		}
		if offsets.FirstRowIndex(i) != row || index.NullCount(i) != p.NumNulls() || index.NullPage(i) != (p.NumNulls() == p.NumValues()) {
			t.Errorf("%s page %d: the index says row %d of %d, %d nulls of %d", name, i, offsets.FirstRowIndex(i), row, index.NullCount(i), p.NumNulls())
		}
		row += p.NumRows()
		values := make([]parquet.Value, p.NumValues())
		if n, _ := p.Values().ReadValues(values); n != len(values) {
			t.Fatalf("%s page %d: %d values of %d", name, i, n, len(values))
		}
		from, to := index.MinValue(i), index.MaxValue(i)
		reached := 0
		for _, v := range values {
			if v.IsNull() {
				continue
			}
			if compare(v, from) < 0 || compare(v, to) > 0 || compare(v, low) < 0 || compare(v, high) > 0 {
				t.Fatalf("%s page %d: %v is not within %v and %v, %v and %v", name, i, v, from, to, low, high)
			}
			if compare(v, from) == 0 || compare(v, to) == 0 {
				reached++
			}
		}
		if reached == 0 && !index.NullPage(i) {
			t.Errorf("%s page %d: neither bound is a value", name, i)
		}
		parquet.Release(p)
	}
}

func write(t *testing.T, groups ...[]*schema.Batch) *parquet.File {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	for _, batches := range groups {
		var g Group
		for _, b := range batches {
			g.Add(b, b.Records, new(Summer))
		}
		if err := w.WriteGroup(&g); err != nil {
			t.Fatal(err)
		}
		if g.Rows() != 0 || g.Bytes() != 0 {
			t.Error("the group is not empty")
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// rows reads a file with the library's own mapping, which knows nothing of how it was written.
func rows(t *testing.T, f *parquet.File) []Row {
	t.Helper()
	r := parquet.NewGenericReader[Row](f)
	defer r.Close()
	all := make([]Row, f.NumRows())
	if n, err := r.Read(all); n != len(all) {
		t.Fatalf("%d rows of %d: %v", n, len(all), err)
	}
	return all
}

func TestRows(t *testing.T) {
	inc := schema.Incarnation{Start: 1764054000e9, Print: 7}
	many := map[string]string{"file": "/x"}
	var attrs []schema.Attr
	for i := range 100 {
		attrs = append(attrs, schema.String(fmt.Sprint("k", i%90), strconv.Itoa(i)))
		many[fmt.Sprint("k", i%90)] = strconv.Itoa(i)
	}
	b := &schema.Batch{Topic: "weir.logs", Partition: 3, KafkaOffset: 9, Source: "docker/n/c", Begin: schema.Position{Incarnation: inc, Offset: 10},
		Resource: []schema.Attr{schema.String(schema.AttrContainerID, "cid"), schema.String(schema.AttrContainerName, "web"), schema.String(schema.AttrApp, "shop"), schema.String(schema.AttrTenant, "t"), schema.String(schema.AttrSite, "s"), schema.String(schema.AttrCell, "c"),
			schema.String(schema.AttrImageName, "i"), schema.String(schema.AttrHostName, "h"), schema.String(schema.LabelPrefix+"team", "a"), schema.String(schema.LabelPrefix+"empty", ""), schema.String("file", "/x"), schema.String(schema.AttrSource, "docker/n/c"), schema.String(schema.AttrIncarnation, inc.String())},
		Records: []schema.Record{
			{Offset: 10, Time: 1764054000123456789, Observed: 5, Body: "a\x00\xff\n", Severity: 17, SeverityText: "Error", EventName: "e", TraceID: [16]byte{1}, SpanID: [8]byte{2},
				Attrs: []schema.Attr{schema.String(schema.AttrStream, "stderr"), schema.Int("n", -1), schema.Bool("t", true), schema.Double("d", math.Pi), {Key: "raw", Kind: schema.KindBytes, Str: "\xff"}}},
			{Offset: 11, Observed: 1764054000000001999, Severity: 13},
			{Offset: 12, Time: 1, Attrs: []schema.Attr{schema.String("file", "first"), schema.String("file", "own")}},
			{Offset: 13, Time: 1, Attrs: attrs},
		}}
	bare := &schema.Batch{Topic: "weir.events", Source: "docker-events/n", Records: []schema.Record{{Offset: 1, Body: "x"}, {Offset: 2, Attrs: []schema.Attr{schema.Int("n", 1)}}}}
	base := Row{Source: "docker/n/c", Incarnation: "1764054000000000000-00000007", Topic: "weir.logs", KafkaPartition: 3, KafkaOffset: 9, App: "shop", Tenant: "t", Site: "s", Cell: "c", ContainerID: "cid", ContainerName: "web", Image: "i", Host: "h",
		Labels: map[string]string{"team": "a", "empty": ""}, Attributes: map[string]string{"file": "/x"}}
	row := func(b *schema.Batch, i int, change func(r *Row)) Row {
		r := base
		if b == bare {
			r = Row{Source: b.Source, Incarnation: "0-00000000", Topic: b.Topic, Labels: map[string]string{}, Attributes: map[string]string{}}
		}
		r.ID, r.Offset = b.ID(&b.Records[i]), b.Records[i].Offset
		change(&r)
		return r
	}
	want := []Row{
		row(b, 0, func(r *Row) {
			r.Timestamp, r.TimestampNS, r.ObservedNS, r.Stream, r.Level, r.Severity = 1764054000123456, 1764054000123456789, 5, "stderr", "Error", 17
			r.EventName, r.TraceID, r.SpanID, r.Body = "e", "01000000000000000000000000000000", "0200000000000000", "a\x00\xff\n"
			r.Attributes = map[string]string{"file": "/x", "n": "-1", "t": "true", "d": "3.141592653589793", "raw": "/w=="}
		}),
		row(b, 1, func(r *Row) {
			r.Timestamp, r.ObservedNS, r.Level, r.Severity = 1764054000000001, 1764054000000001999, "WARN", 13
		}),
		row(b, 2, func(r *Row) { r.TimestampNS, r.Attributes = 1, map[string]string{"file": "own"} }),
		row(b, 3, func(r *Row) { r.TimestampNS, r.Attributes = 1, many }),
		row(bare, 0, func(r *Row) { r.Body = "x" }),
		row(bare, 1, func(r *Row) { r.Attributes["n"] = "1" }),
	}
	f := write(t, []*schema.Batch{b, bare}, []*schema.Batch{bare}, []*schema.Batch{b})
	want = append(append(want, want[4:]...), want[:4]...)
	got := rows(t, f)
	for i := range want {
		for _, m := range []*map[string]string{&got[i].Labels, &got[i].Attributes} {
			if *m == nil {
				*m = map[string]string{}
			}
		}
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("row %d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
	if n := len(f.RowGroups()); n != 3 {
		t.Errorf("%d row groups", n)
	}
	if v, _ := f.Lookup(SchemaKey); v != SchemaVersion {
		t.Errorf("schema version %q", v)
	}
}

// TestBloomFilters asks for values that are there, more than one dictionary page of them, and for some that are not.
func TestBloomFilters(t *testing.T) {
	var batches []*schema.Batch
	for i := range 30_000 {
		b := &schema.Batch{Source: "s", Resource: []schema.Attr{schema.String(schema.AttrContainerID, fmt.Sprintf("%064d", i))}, Records: []schema.Record{{Offset: 1}}}
		b.Records[0].TraceID = [16]byte{1, byte(i), byte(i >> 8)}
		batches = append(batches, b)
	}
	f := write(t, batches)
	schemaOf := f.Schema()
	for name, value := range map[string]func(i int) string{
		"container_id": func(i int) string { return fmt.Sprintf("%064d", i) },
		"trace_id":     func(i int) string { return fmt.Sprintf("01%02x%02x%026x", byte(i), byte(i>>8), i>>16<<24) },
	} {
		leaf, _ := schemaOf.Lookup(name)
		filter := f.RowGroups()[0].ColumnChunks()[leaf.ColumnIndex].BloomFilter()
		if filter == nil {
			t.Fatalf("%s has no filter", name)
		}
		wrong := 0
		for i := range 60_000 {
			found, err := filter.Check(parquet.ByteArrayValue([]byte(value(i))))
			if err != nil {
				t.Fatal(err)
			}
			if i < 30_000 && !found {
				t.Fatalf("%s: value %d is not in the filter", name, i)
			}
			if i >= 30_000 && found {
				wrong++
			}
		}
		if wrong > 1500 {
			t.Errorf("%s: %d of 30000 are said to be there", name, wrong)
		}
	}
}
