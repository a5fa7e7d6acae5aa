package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"weir/schema"
)

// Content is the sum of the SHA-256 of records, modulo 2^256: of their ids, places in Kafka, times, severities, event names and bodies. It
// does not depend on the rows' order or on how they are divided into files: the sum of files' contents is the content of the file
// that they were merged into. The zero value is that of no rows.
type Content [4]uint64

// Add adds another content.
func (c *Content) Add(d Content) {
	var carry uint64
	for i := range c {
		c[i], carry = bits.Add64(c[i], d[i], carry)
	}
}

// Sub takes a part away.
func (c *Content) Sub(d Content) {
	var borrow uint64
	for i := range c {
		c[i], borrow = bits.Sub64(c[i], d[i], borrow)
	}
}

// String is 64 hexadecimal digits.
func (c Content) String() string { b, _ := c.MarshalText(); return string(b) }

func (c Content) MarshalText() ([]byte, error) {
	var b [32]byte
	for i, word := range c {
		binary.LittleEndian.PutUint64(b[8*i:], word)
	}
	return hex.AppendEncode(nil, b[:]), nil
}

// UnmarshalText reads what MarshalText writes.
func (c *Content) UnmarshalText(text []byte) error {
	b, err := hex.AppendDecode(nil, text)
	if err != nil || len(b) != 32 {
		return fmt.Errorf("content %q is not 64 hexadecimal digits", text)
	}
	for i := range c {
		c[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return nil
}

// Summer sums records up. It keeps a buffer, so that a record does not allocate.
type Summer struct {
	Sum Content
	buf []byte
}

// addRecord adds a record of a batch, whose id is at hand.
func (s *Summer) addRecord(id string, b *schema.Batch, r *schema.Record) {
	s.buf = append(append(s.buf[:0], id...), 0)
	s.add(int32(b.Partition), b.KafkaOffset, r.Time, r.Observed, r.Severity, r.EventName, r.Body)
}

// Add adds a row.
func (s *Summer) Add(r *Row) {
	s.buf = append(append(s.buf[:0], r.ID...), 0)
	s.add(r.KafkaPartition, r.KafkaOffset, r.TimestampNS, r.ObservedNS, r.Severity, r.EventName, r.Body)
}

// AddWhole adds a row with all of its columns, for those who copy rows.
func (s *Summer) AddWhole(r *Row) {
	b := s.buf[:0]
	text := func(t string) { b = append(binary.AppendUvarint(b, uint64(len(t))), t...) }
	for _, t := range [...]string{r.Source, r.Incarnation, r.Topic, r.App, r.Tenant, r.Site, r.Cell, r.ContainerID, r.ContainerName, r.Image, r.Host, r.Stream, r.Level, r.TraceID, r.SpanID, r.ID} {
		text(t)
	}
	for _, m := range [...]map[string]string{r.Labels, r.Attributes} {
		b = binary.AppendUvarint(b, uint64(len(m)))
		for _, k := range slices.Sorted(maps.Keys(m)) {
			text(k)
			text(m[k])
		}
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Timestamp))
	s.buf = binary.LittleEndian.AppendUint64(b, uint64(r.Offset))
	s.add(r.KafkaPartition, r.KafkaOffset, r.TimestampNS, r.ObservedNS, r.Severity, r.EventName, r.Body)
}

func (s *Summer) add(partition int32, offset, at, observed int64, severity int32, event, body string) {
	b := s.buf
	for _, n := range [...]int64{int64(partition), offset, at, observed, int64(severity)} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	b = append(binary.AppendUvarint(b, uint64(len(event))), event...)
	s.buf = append(b, body...)
	sum := sha256.Sum256(s.buf)
	var c Content
	for i := range c {
		c[i] = binary.LittleEndian.Uint64(sum[8*i:])
	}
	s.Sum.Add(c)
}
