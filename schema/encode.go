package schema

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// Wire types of protocol buffers.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// Field tags of opentelemetry-proto v1 (common/v1, resource/v1, logs/v1): number<<3 | wire type.
const (
	tagLogsResourceLogs = 1<<3 | wireBytes

	tagResourceLogsResource = 1<<3 | wireBytes
	tagResourceLogsScope    = 2<<3 | wireBytes

	tagResourceAttr = 1<<3 | wireBytes

	tagScopeLogsScope  = 1<<3 | wireBytes
	tagScopeLogsRecord = 2<<3 | wireBytes
	tagScopeName       = 1<<3 | wireBytes

	tagRecordTime         = 1<<3 | wireFixed64
	tagRecordSeverity     = 2<<3 | wireVarint
	tagRecordSeverityText = 3<<3 | wireBytes
	tagRecordBody         = 5<<3 | wireBytes
	tagRecordAttr         = 6<<3 | wireBytes
	tagRecordFlags        = 8<<3 | wireFixed32
	tagRecordTraceID      = 9<<3 | wireBytes
	tagRecordSpanID       = 10<<3 | wireBytes
	tagRecordObserved     = 11<<3 | wireFixed64
	tagRecordEventName    = 12<<3 | wireBytes

	tagKey   = 1<<3 | wireBytes
	tagValue = 2<<3 | wireBytes

	tagAnyString = 1<<3 | wireBytes
	tagAnyBool   = 2<<3 | wireVarint
	tagAnyInt    = 3<<3 | wireVarint
	tagAnyDouble = 4<<3 | wireFixed64
	tagAnyBytes  = 7<<3 | wireBytes
)

const scopeName = "weir"

// Encoder appends records to one batch's OTLP LogsData. Its buffer is kept over Reset, so a warm encoder does not allocate.
type Encoder struct {
	buf   []byte
	attrs []byte // encoded aside, because their size stands before them
	scope int    // where the ScopeLogs' length stands
	count int
}

// Reset begins a batch. The resource gets weir.source and weir.incarnation beside the attributes given.
func (e *Encoder) Reset(source string, inc Incarnation, resource []Attr) {
	e.count = 0
	b := append(e.buf[:0], tagLogsResourceLogs, 0, 0, 0, 0)
	var text [32]byte
	incText, _ := inc.AppendText(text[:0])
	own := [2]Attr{String(AttrSource, source), String(AttrIncarnation, string(incText))}
	e.attrs = e.attrs[:0]
	for _, attrs := range [2][]Attr{own[:], resource} {
		for i := range attrs {
			e.attrs = appendAttr(e.attrs, tagResourceAttr, &attrs[i])
		}
	}
	b = append(b, tagResourceLogsResource)
	b = binary.AppendUvarint(b, uint64(len(e.attrs)))
	b = append(b, e.attrs...)
	b = append(b, tagResourceLogsScope, 0, 0, 0, 0)
	e.scope = len(b) - 4
	b = append(b, tagScopeLogsScope, byte(len(scopeName)+2), tagScopeName, byte(len(scopeName)))
	e.buf = append(b, scopeName...)
}

// Append adds a record. Strings that are not valid UTF-8 are made so, except the body, which then travels as bytes.
func (e *Encoder) Append(r *Record) {
	e.count++
	bodyTag := byte(tagAnyString)
	if r.BodyBytes || !utf8.ValidString(r.Body) {
		bodyTag = tagAnyBytes
	}
	offset := Int(AttrOffset, r.Offset)

	e.attrs = appendAttr(e.attrs[:0], tagRecordAttr, &offset)
	for i := range r.Attrs {
		e.attrs = appendAttr(e.attrs, tagRecordAttr, &r.Attrs[i])
	}
	severity, event := valid(r.SeverityText), valid(r.EventName)

	body := fieldSize(len(r.Body))
	size := fieldSize(body) + len(e.attrs)
	if r.Time != 0 {
		size += 9
	}
	if r.Observed != 0 {
		size += 9
	}
	if r.Severity != 0 {
		size += 1 + uvarintSize(uint64(r.Severity))
	}
	if severity != "" {
		size += fieldSize(len(severity))
	}
	if r.Flags != 0 {
		size += 5
	}
	if r.TraceID != ([16]byte{}) {
		size += 18
	}
	if r.SpanID != ([8]byte{}) {
		size += 10
	}
	if event != "" {
		size += fieldSize(len(event))
	}

	b := append(e.buf, tagScopeLogsRecord)
	b = binary.AppendUvarint(b, uint64(size))
	if r.Time != 0 {
		b = append(b, tagRecordTime)
		b = binary.LittleEndian.AppendUint64(b, uint64(r.Time))
	}
	if r.Severity != 0 {
		b = append(b, tagRecordSeverity)
		b = binary.AppendUvarint(b, uint64(r.Severity))
	}
	if severity != "" {
		b = appendString(b, tagRecordSeverityText, severity)
	}
	b = append(b, tagRecordBody)
	b = binary.AppendUvarint(b, uint64(body))
	b = append(b, bodyTag)
	b = binary.AppendUvarint(b, uint64(len(r.Body)))
	b = append(b, r.Body...)
	b = append(b, e.attrs...)
	if r.Flags != 0 {
		b = append(b, tagRecordFlags)
		b = binary.LittleEndian.AppendUint32(b, r.Flags)
	}
	if r.TraceID != ([16]byte{}) {
		b = append(append(b, tagRecordTraceID, 16), r.TraceID[:]...)
	}
	if r.SpanID != ([8]byte{}) {
		b = append(append(b, tagRecordSpanID, 8), r.SpanID[:]...)
	}
	if r.Observed != 0 {
		b = append(b, tagRecordObserved)
		b = binary.LittleEndian.AppendUint64(b, uint64(r.Observed))
	}
	if event != "" {
		b = appendString(b, tagRecordEventName, event)
	}
	e.buf = b
}

// Count is the number of records since Reset.
func (e *Encoder) Count() int { return e.count }

// Len is the size of the batch so far, in bytes.
func (e *Encoder) Len() int { return len(e.buf) }

// Bytes completes the batch and returns it. The slice is valid until Reset; more records may be appended before that.
func (e *Encoder) Bytes() []byte {
	putLen4(e.buf[1:5], len(e.buf)-5)
	putLen4(e.buf[e.scope:e.scope+4], len(e.buf)-e.scope-4)
	return e.buf
}

// Take completes the batch and gives its memory away; the encoder is then empty and without any.
func (e *Encoder) Take() []byte {
	b := e.Bytes()
	e.buf, e.count = nil, 0
	return b
}

// Use gives memory to an encoder that has none, before Reset. What it holds is overwritten.
func (e *Encoder) Use(b []byte) { e.buf = b }

// putLen4 writes n as a varint stretched to four bytes, so that a length can be filled in after the fact.
// Protobuf decoders must take varints of up to ten bytes; four hold 256 MiB, far above any Kafka message.
func putLen4(b []byte, n int) {
	b[0] = byte(n) | 0x80
	b[1] = byte(n>>7) | 0x80
	b[2] = byte(n>>14) | 0x80
	b[3] = byte(n>>21) & 0x7f
}

func uvarintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// fieldSize is the size of a length-delimited field with a one-byte tag.
func fieldSize(n int) int { return 1 + uvarintSize(uint64(n)) + n }

// valid is s, or s made UTF-8 where it is not.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

func appendAttr(b []byte, tag byte, a *Attr) []byte {
	key, str, value := valid(a.Key), a.Str, 0
	switch a.Kind {
	case KindInt:
		value = 1 + uvarintSize(uint64(a.Num))
	case KindBool:
		value = 2
	case KindDouble:
		value = 9
	case KindBytes:
		value = fieldSize(len(str))
	default:
		str = valid(str)
		value = fieldSize(len(str))
	}
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(fieldSize(len(key))+fieldSize(value)))
	b = appendString(b, tagKey, key)
	b = append(b, tagValue)
	b = binary.AppendUvarint(b, uint64(value))
	switch a.Kind {
	case KindInt:
		return binary.AppendUvarint(append(b, tagAnyInt), uint64(a.Num))
	case KindBool:
		return append(b, tagAnyBool, byte(a.Num&1))
	case KindDouble:
		return binary.LittleEndian.AppendUint64(append(b, tagAnyDouble), uint64(a.Num))
	case KindBytes:
		return appendString(b, tagAnyBytes, str)
	default:
		return appendString(b, tagAnyString, str)
	}
}

func appendString(b []byte, tag byte, s string) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
