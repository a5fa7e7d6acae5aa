package archive

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"testing"

	"github.com/parquet-go/parquet-go"

	"weir/schema"
)

// TestColumns compares the columns with the schema that Row gives.
func TestColumns(t *testing.T) {
	leaves := parquet.SchemaOf(Row{}).Columns()
	if len(leaves) != len(columnsOf) {
		t.Fatalf("%d columns of %d", len(columnsOf), len(leaves))
	}
	for i, leaf := range leaves {
		name := leaf[0]
		for _, part := range leaf[1:] {
			name += "." + part
		}
		if columnsOf[i].name != name {
			t.Errorf("column %d is %s, want %s", i, columnsOf[i].name, name)
		}
	}
}

func write(t *testing.T, groups ...[]*schema.Batch) *parquet.File {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, 1<<20)
	for _, batches := range groups {
		var g Group
		for _, b := range batches {
			g.Add(b, b.Records)
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
