package schema

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

var errTruncated = errors.New("truncated")

// Decoder reads batches. It keeps its slices over calls, so a warm decoder does not allocate for records.
type Decoder struct {
	records []Record
	attrs   []Attr
}

// Decode reads one Kafka message into b. Strings of b point into value: they are valid until the caller
// reuses value, and b's slices until the next Decode. Fields of later OTLP versions are skipped.
//
// A value that is not what the headers promise is an error; memory used is bounded by a small multiple of
// len(value), whatever the value holds, because every record must carry its weir.offset.
func (d *Decoder) Decode(value []byte, info *Info, b *Batch) error {
	d.records, d.attrs = d.records[:0], d.attrs[:0]
	b.Source, b.Begin, b.End, b.Prev, b.PrevKnown = info.Source, info.Begin, info.End, info.Prev, info.PrevKnown
	b.From, _ = info.Covers()
	b.Resource, b.Records = nil, nil
	seen := false
	err := fields(value, func(tag uint64, v []byte, _ uint64) error {
		if tag != tagLogsResourceLogs {
			return nil
		}
		if seen {
			return errors.New("more than one ResourceLogs in a batch")
		}
		seen = true
		return d.resourceLogs(v, b)
	})
	if err != nil {
		return fmt.Errorf("otlp: %w", err)
	}
	b.Records = d.records
	return check(b, info)
}

// check compares the value with the headers.
func check(b *Batch, info *Info) error {
	if len(b.Records) != info.Count {
		return fmt.Errorf("value holds %d records, header weir.count says %d", len(b.Records), info.Count)
	}
	if a, _ := b.ResourceAttr(AttrSource); a.Str != info.Source {
		return fmt.Errorf("value is of source %q, header weir.source says %q", a.Str, info.Source)
	}
	if a, _ := b.ResourceAttr(AttrIncarnation); a.Str != info.Begin.Incarnation.String() {
		return fmt.Errorf("value is of incarnation %q, header weir.begin says %q", a.Str, info.Begin.Incarnation)
	}
	last := info.Begin.Offset - 1
	for i := range b.Records {
		o := b.Records[i].Offset
		if o <= last || o >= info.End.Offset {
			return fmt.Errorf("record %d at offset %d is out of order or outside [%d, %d)", i, o, info.Begin.Offset, info.End.Offset)
		}
		last = o
	}
	return nil
}

func (d *Decoder) resourceLogs(buf []byte, b *Batch) error {
	scopes := 0
	return fields(buf, func(tag uint64, v []byte, _ uint64) error {
		switch tag {
		case tagResourceLogsResource:
			first := len(d.attrs)
			err := fields(v, func(tag uint64, v []byte, _ uint64) error {
				if tag != tagResourceAttr {
					return nil
				}
				a, err := attr(v)
				d.attrs = append(d.attrs, a)
				return err
			})
			if err != nil {
				return fmt.Errorf("resource: %w", err)
			}
			b.Resource = d.attrs[first:len(d.attrs):len(d.attrs)]
		case tagResourceLogsScope:
			if scopes++; scopes > 1 {
				return errors.New("more than one ScopeLogs in a batch")
			}
			return fields(v, func(tag uint64, v []byte, _ uint64) error {
				if tag != tagScopeLogsRecord {
					return nil
				}
				if err := d.record(v); err != nil {
					return fmt.Errorf("record %d: %w", len(d.records), err)
				}
				return nil
			})
		}
		return nil
	})
}

func (d *Decoder) record(buf []byte) error {
	var r Record
	first, hasOffset := len(d.attrs), false
	for len(buf) > 0 {
		tag, v, num, rest, err := field(buf)
		if err != nil {
			return err
		}
		buf = rest
		switch tag {
		case tagRecordTime:
			r.Time = int64(num)
		case tagRecordObserved:
			r.Observed = int64(num)
		case tagRecordSeverity:
			r.Severity = int32(num)
		case tagRecordSeverityText:
			r.SeverityText = str(v)
		case tagRecordFlags:
			r.Flags = uint32(num)
		case tagRecordEventName:
			r.EventName = str(v)
		case tagRecordTraceID:
			if len(v) == 16 {
				copy(r.TraceID[:], v)
			}
		case tagRecordSpanID:
			if len(v) == 8 {
				copy(r.SpanID[:], v)
			}
		case tagRecordBody:
			var body Attr
			if err := anyValue(v, &body); err != nil {
				return fmt.Errorf("body: %w", err)
			}
			r.Body, r.BodyBytes = body.Str, body.Kind == KindBytes
		case tagRecordAttr:
			a, err := attr(v)
			if err != nil {
				return err
			}
			if a.Key == AttrOffset && a.Kind == KindInt {
				r.Offset, hasOffset = a.Num, true
				continue
			}
			d.attrs = append(d.attrs, a)
		}
	}
	if !hasOffset {
		return errors.New("no " + AttrOffset)
	}
	r.Attrs = d.attrs[first:len(d.attrs):len(d.attrs)]
	d.records = append(d.records, r)
	return nil
}

func attr(buf []byte) (a Attr, err error) {
	for len(buf) > 0 {
		tag, v, _, rest, err := field(buf)
		if err != nil {
			return a, fmt.Errorf("attribute: %w", err)
		}
		buf = rest
		switch tag {
		case tagKey:
			a.Key = str(v)
		case tagValue:
			if err := anyValue(v, &a); err != nil {
				return a, fmt.Errorf("attribute %q: %w", a.Key, err)
			}
		}
	}
	return a, nil
}

func anyValue(buf []byte, a *Attr) error {
	for len(buf) > 0 {
		tag, v, num, rest, err := field(buf)
		if err != nil {
			return err
		}
		buf = rest
		switch tag {
		case tagAnyString:
			a.Kind, a.Str = KindString, str(v)
		case tagAnyBool:
			a.Kind, a.Num = KindBool, int64(num&1)
		case tagAnyInt:
			a.Kind, a.Num = KindInt, int64(num)
		case tagAnyDouble:
			a.Kind, a.Num = KindDouble, int64(num)
		default:
			a.Kind, a.Str = KindBytes, str(v)
		}
	}
	return nil
}

// str views bytes as a string without a copy; Decode documents how long it lives.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func fields(buf []byte, f func(tag uint64, v []byte, num uint64) error) error {
	for len(buf) > 0 {
		tag, v, num, rest, err := field(buf)
		if err != nil {
			return err
		}
		buf = rest
		if err := f(tag, v, num); err != nil {
			return err
		}
	}
	return nil
}

// field splits the first protobuf field off buf: v for length-delimited ones, num for the others.
func field(buf []byte) (tag uint64, v []byte, num uint64, rest []byte, err error) {
	tag, n := uvarint(buf)
	if n <= 0 || tag>>3 == 0 {
		return 0, nil, 0, nil, errTruncated
	}
	buf = buf[n:]
	switch tag & 7 {
	case 0:
		if num, n = uvarint(buf); n <= 0 {
			return 0, nil, 0, nil, errTruncated
		}
		return tag, nil, num, buf[n:], nil
	case 1:
		if len(buf) < 8 {
			return 0, nil, 0, nil, errTruncated
		}
		return tag, nil, binary.LittleEndian.Uint64(buf), buf[8:], nil
	case 2:
		size, n := uvarint(buf)
		if n <= 0 || size > uint64(len(buf)-n) {
			return 0, nil, 0, nil, errTruncated
		}
		end := n + int(size)
		return tag, buf[n:end:end], 0, buf[end:], nil
	case 5:
		if len(buf) < 4 {
			return 0, nil, 0, nil, errTruncated
		}
		return tag, nil, uint64(binary.LittleEndian.Uint32(buf)), buf[4:], nil
	default:
		return 0, nil, 0, nil, fmt.Errorf("wire type %d is not of proto3", tag&7)
	}
}

// uvarint is binary.Uvarint with a short way for the one-byte values that most tags and lengths are.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}
