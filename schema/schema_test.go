package schema

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/plog"
)

var inc = Incarnation{Start: 1764054000123456789, Print: 0x9f3a2c1b}

func sample() ([]Attr, []Record) {
	resource := []Attr{String(AttrContainerID, strings.Repeat("ab", 32)), String(AttrContainerName, "web"), String(LabelPrefix+"team", "pay\xffments")}
	records := []Record{
		{Offset: 0, Time: 1764054000123456789, Observed: 1764054000223456789, Severity: 17, SeverityText: "ERROR", Body: "first", Attrs: []Attr{String(AttrStream, "stderr")}},
		{Offset: 100, Body: "bad \xff\x00 utf-8", BodyBytes: true, Attrs: []Attr{Bool(AttrDamaged, true), Int("n", -5), Double("d", 1.5), {Key: "raw", Kind: KindBytes, Str: "\x00\xff"}}},
		{Offset: 150, Time: 1, EventName: EventLoss, Flags: 1, TraceID: [16]byte{1, 2}, SpanID: [8]byte{3}, Body: strings.Repeat("x", 40000)},
		{Offset: 99999, Body: ""},
	}
	return resource, records
}

func encode(source string, resource []Attr, records []Record) ([]byte, Info) {
	var e Encoder
	e.Reset(source, inc, resource)
	for i := range records {
		e.Append(&records[i])
	}
	info := Info{Source: source, Begin: Position{inc, records[0].Offset}, End: Position{inc, records[len(records)-1].Offset + 1}, Count: e.Count()}
	return append([]byte(nil), e.Bytes()...), info
}

func TestRoundTrip(t *testing.T) {
	resource, records := sample()
	value, info := encode("docker/n1/abc", resource, records)
	var d Decoder
	var b Batch
	for range 2 { // the second pass reuses the decoder's memory
		if err := d.Decode(value, &info, &b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range records {
		want, got := records[i], b.Records[i]
		if len(want.Attrs) == 0 {
			want.Attrs, got.Attrs = nil, nil
		}
		if !reflect.DeepEqual(want, got) {
			t.Errorf("record %d:\n got %+v\nwant %+v", i, got, want)
		}
	}
	if a, _ := b.ResourceAttr(LabelPrefix + "team"); a.Str != "pay\ufffdments" {
		t.Errorf("label is %q", a.Str)
	}
}

// TestIndependentDecoder reads our bytes with the OpenTelemetry Collector's own decoder.
func TestIndependentDecoder(t *testing.T) {
	resource, records := sample()
	value, _ := encode("docker/n1/abc", resource, records)
	logs, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(value)
	if err != nil {
		t.Fatal(err)
	}
	rl := logs.ResourceLogs().At(0)
	if v, _ := rl.Resource().Attributes().Get(AttrIncarnation); v.Str() != inc.String() {
		t.Errorf("incarnation is %q", v.Str())
	}
	lr := rl.ScopeLogs().At(0).LogRecords()
	if logs.LogRecordCount() != len(records) {
		t.Fatalf("%d records", logs.LogRecordCount())
	}
	for i, r := range records {
		g := lr.At(i)
		body := g.Body().Str()
		if r.BodyBytes {
			body = string(g.Body().Bytes().AsRaw())
		}
		off, _ := g.Attributes().Get(AttrOffset)
		if body != r.Body || off.Int() != r.Offset || int64(g.Timestamp()) != r.Time || int64(g.ObservedTimestamp()) != r.Observed ||
			int32(g.SeverityNumber()) != r.Severity || g.SeverityText() != r.SeverityText || g.EventName() != r.EventName ||
			g.TraceID() != r.TraceID || g.SpanID() != r.SpanID || uint32(g.Flags()) != r.Flags || g.Attributes().Len() != len(r.Attrs)+1 {
			t.Errorf("record %d differs: %v", i, g.Attributes().AsRaw())
		}
		for _, a := range r.Attrs {
			v, ok := g.Attributes().Get(a.Key)
			same := ok
			switch a.Kind {
			case KindString:
				same = same && v.Str() == a.Str
			case KindInt:
				same = same && v.Int() == a.Num
			case KindBool:
				same = same && v.Bool() == (a.Num == 1)
			case KindDouble:
				same = same && v.Double() == math.Float64frombits(uint64(a.Num))
			case KindBytes:
				same = same && string(v.Bytes().AsRaw()) == a.Str
			}
			if !same {
				t.Errorf("record %d attribute %s is %v", i, a.Key, v.AsRaw())
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	resource, records := sample()
	value, info := encode("docker/n1/abc", resource, records)
	cases := map[string]func(v []byte, i *Info) ([]byte, *Info){
		"header weir.count": func(v []byte, i *Info) ([]byte, *Info) { i.Count++; return v, i },
		"weir.source":       func(v []byte, i *Info) ([]byte, *Info) { i.Source = "other"; return v, i },
		"incarnation":       func(v []byte, i *Info) ([]byte, *Info) { i.Begin.Print++; return v, i },
		"out of order":      func(v []byte, i *Info) ([]byte, *Info) { i.End.Offset = 100; return v, i },
		"truncated":         func(v []byte, i *Info) ([]byte, *Info) { return v[:len(v)-1], i },
		"more than one":     func(v []byte, i *Info) ([]byte, *Info) { return append(append([]byte{}, v...), v...), i },
	}
	for want, damage := range cases {
		i := info
		v, ip := damage(append([]byte{}, value...), &i)
		var b Batch
		if err := new(Decoder).Decode(v, ip, &b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

func TestPositionText(t *testing.T) {
	for _, p := range []Position{{}, {inc, 5}, {Incarnation{Start: -7, Print: 1}, 1 << 60}} {
		q, err := ParsePosition(p.String())
		if err != nil || q != p {
			t.Errorf("%s: %v %v", p, q, err)
		}
	}
	for _, s := range []string{"", ":", "1:2", "1-0:2", "x-00000000:1", "1-0000000g:1", "1-00000000:-1", "1-00000000:", "-00000000:1"} {
		if p, err := ParsePosition(s); err == nil {
			t.Errorf("%q read as %v", s, p)
		}
	}
}

func TestPositionsSort(t *testing.T) {
	order := []Position{{}, {Incarnation{1, 0}, 9}, {Incarnation{1, 1}, 0}, {Incarnation{2, 0}, 0}, {Incarnation{2, 0}, 1}}
	for i := range order {
		for j := range order {
			if got, want := order[i].Compare(order[j]) < 0, i < j; got != want {
				t.Errorf("%v < %v is %v", order[i], order[j], got)
			}
		}
	}
}

func TestIDs(t *testing.T) {
	b := Batch{Source: "docker/n1/abc", Begin: Position{inc, 0}}
	if got, want := b.ID(&Record{Offset: 4096}), SourceHash("docker/n1/abc")+"-187b2dc449f72d15.9f3a2c1b-1000"; got != want {
		t.Errorf("id %s, want %s", got, want)
	}
	one := b.ID(&Record{Offset: 1})
	b.Source = "docker/n1/abd"
	if b.ID(&Record{Offset: 1}) == one {
		t.Error("two sources share an id")
	}
}

func TestHeaders(t *testing.T) {
	for _, prev := range []bool{true, false} {
		in := Info{Source: "s", Begin: Position{inc, 7}, End: Position{inc, 70}, PrevKnown: prev, Count: 3}
		if prev {
			in.Prev = Position{inc, 5}
		}
		out, err := ParseInfo(in.EachHeader)
		if err != nil || out != in {
			t.Errorf("%+v %v", out, err)
		}
		for _, drop := range []string{HeaderSchema, HeaderSource, HeaderBegin, HeaderEnd, HeaderPrev, HeaderCount} {
			_, err := ParseInfo(func(f func(string, []byte)) {
				in.EachHeader(func(k string, v []byte) {
					if k != drop {
						f(k, v)
					}
				})
			})
			if err == nil || !strings.Contains(err.Error(), drop) {
				t.Errorf("without %s: %v", drop, err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	resource, records := sample()
	value, info := encode("s", resource, records)
	f.Add(value)
	f.Add(value[:len(value)/2])
	f.Add(binary.AppendUvarint([]byte{tagLogsResourceLogs}, 1<<62))
	f.Fuzz(func(t *testing.T, v []byte) {
		var b Batch
		i := info
		if err := new(Decoder).Decode(v, &i, &b); err != nil {
			return
		}
		// What our decoder takes, the independent one must take too, with as many records.
		logs, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(v)
		if err == nil && logs.LogRecordCount() != len(b.Records) {
			t.Fatalf("%d records, the reference sees %d", len(b.Records), logs.LogRecordCount())
		}
	})
}

func benchRecords() ([]Attr, []Record) {
	var records []Record
	for i := range 1000 {
		records = append(records, Record{Offset: int64(i) * 260, Time: 1764054000123456789 + int64(i), Observed: 1764054000223456789,
			Body: fmt.Sprintf("%08d %s", i, strings.Repeat("a log line of two hundred bytes ", 6)), Attrs: []Attr{String(AttrStream, "stdout")}})
	}
	resource, _ := sample()
	return resource, records
}

func BenchmarkEncode(b *testing.B) {
	resource, records := benchRecords()
	var e Encoder
	b.ReportAllocs()
	for b.Loop() {
		e.Reset("docker/n1/abc", inc, resource)
		for i := range records {
			e.Append(&records[i])
		}
		e.Bytes()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(records)), "ns/record")
}

func BenchmarkDecode(b *testing.B) {
	resource, records := benchRecords()
	value, info := encode("docker/n1/abc", resource, records)
	var d Decoder
	var batch Batch
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(value, &info, &batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(records)), "ns/record")
}
