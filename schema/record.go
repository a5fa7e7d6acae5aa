package schema

import (
	"math"
	"strconv"
)

// Kind is the type of an attribute's value.
type Kind uint8

// The kinds of OTLP's AnyValue that weir writes. Arrays and maps of other writers are kept as KindBytes, still encoded.
const (
	KindString Kind = iota
	KindInt
	KindBool
	KindDouble
	KindBytes
)

// Attr is a key with a typed value. Str holds strings and bytes; Num holds an int, a bool (0 or 1) or the bits of a float64.
type Attr struct {
	Key  string
	Kind Kind
	Str  string
	Num  int64
}

// Text is the value as text, bytes as they are.
func (a Attr) Text() string {
	switch a.Kind {
	case KindInt:
		return strconv.FormatInt(a.Num, 10)
	case KindBool:
		return strconv.FormatBool(a.Num != 0)
	case KindDouble:
		return strconv.FormatFloat(math.Float64frombits(uint64(a.Num)), 'g', -1, 64)
	case KindString, KindBytes:
	}
	return a.Str
}

// String makes a string attribute.
func String(key, value string) Attr { return Attr{Key: key, Str: value} }

// Int makes an integer attribute.
func Int(key string, value int64) Attr { return Attr{Key: key, Kind: KindInt, Num: value} }

// Bool makes a boolean attribute.
func Bool(key string, value bool) Attr {
	a := Attr{Key: key, Kind: KindBool}
	if value {
		a.Num = 1
	}
	return a
}

// Double makes a floating-point attribute.
func Double(key string, value float64) Attr {
	return Attr{Key: key, Kind: KindDouble, Num: int64(math.Float64bits(value))}
}

// Record is one log line or event, in the terms of the OpenTelemetry log data model.
type Record struct {
	Time, Observed int64 // Unix ns; Time 0 means unknown
	Severity       int32 // OpenTelemetry severity number, 1 to 24; 0 means unknown
	SeverityText   string
	Body           string
	BodyBytes      bool // Body is not valid UTF-8 and travels as bytes
	EventName      string
	TraceID        [16]byte
	SpanID         [8]byte
	Flags          uint32
	Offset         int64 // byte of the record's first line, in its batch's incarnation
	Attrs          []Attr
}

// Attr finds an attribute by key.
func (r *Record) Attr(key string) (Attr, bool) { return find(r.Attrs, key) }

func find(attrs []Attr, key string) (Attr, bool) {
	for i := range attrs {
		if attrs[i].Key == key {
			return attrs[i], true
		}
	}
	return Attr{}, false
}

// Batch is a contiguous run of records of one source, all of which start in one incarnation.
//
// Begin is the position of the first record, End the position just after the last, in the same incarnation.
// Prev is the End of the batch before it, perhaps in the incarnation before; when PrevKnown is false the
// writer does not say what came before.
type Batch struct {
	Source           string
	Begin, End, Prev Position
	PrevKnown        bool
	Resource         []Attr
	Records          []Record

	// From is the offset in Begin's incarnation from which on the batch covers it, up to End (Info.Covers). Where the writer did
	// not know what came before, the consumer sets it to the end of what it has seen.
	From int64

	// Where the batch was read from; set by the consumer.
	Topic       string
	Partition   int
	KafkaOffset int64

	hash       string
	hashSource string
}

// ResourceAttr finds a resource attribute by key.
func (b *Batch) ResourceAttr(key string) (Attr, bool) { return find(b.Resource, key) }

// Position gives the position of one of the batch's records.
func (b *Batch) Position(r *Record) Position {
	return Position{Incarnation: b.Begin.Incarnation, Offset: r.Offset}
}

// AppendID appends the id of one of the batch's records.
func (b *Batch) AppendID(dst []byte, r *Record) []byte {
	if b.hash == "" || b.hashSource != b.Source {
		b.hash, b.hashSource = SourceHash(b.Source), string(append([]byte(nil), b.Source...))
	}
	return AppendID(dst, b.hash, b.Position(r))
}

// ID returns the id of one of the batch's records.
func (b *Batch) ID(r *Record) string { return string(b.AppendID(make([]byte, 0, 80), r)) }
