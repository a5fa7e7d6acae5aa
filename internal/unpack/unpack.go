// Package unpack takes apart the binary states that components keep: varints, and strings with their length before them.
package unpack

import "encoding/binary"

// Reader takes values off B. After the first fault, of which reading past the end is one, Bad is set, B is empty, and all values are zero.
type Reader struct {
	B   []byte
	Bad bool
}

// Fail notes a fault.
func (r *Reader) Fail() { r.Bad, r.B = true, nil }

// Whole says whether all was read, without a fault.
func (r *Reader) Whole() bool { return !r.Bad && len(r.B) == 0 }

func (r *Reader) take(n int) bool {
	if n <= 0 || n > len(r.B) {
		r.Fail()
		return false
	}
	r.B = r.B[n:]
	return true
}

// Byte takes one byte.
func (r *Reader) Byte() byte {
	if len(r.B) == 0 {
		r.Fail()
		return 0
	}
	v := r.B[0]
	r.B = r.B[1:]
	return v
}

// Uvarint takes what binary.AppendUvarint wrote.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.B)
	if !r.take(n) {
		return 0
	}
	return v
}

// Varint takes what binary.AppendVarint wrote.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.B)
	if !r.take(n) {
		return 0
	}
	return v
}

// Fixed takes eight bytes, the lowest first.
func (r *Reader) Fixed() uint64 {
	if len(r.B) < 8 {
		r.Fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.B)
	r.B = r.B[8:]
	return v
}

// Count takes a number of items that take at least size bytes each, so that a forged one cannot make us allocate.
func (r *Reader) Count(size int) int {
	v := r.Uvarint()
	if v > uint64(len(r.B)/size) {
		r.Fail()
		return 0
	}
	return int(v)
}

// Bytes takes bytes with their number before them. They are B's memory.
func (r *Reader) Bytes() []byte {
	n := r.Count(1)
	b := r.B[:n:n]
	r.B = r.B[n:]
	return b
}

// String is a copy of Bytes.
func (r *Reader) String() string { return string(r.Bytes()) }
