package unpack

import (
	"encoding/binary"
	"testing"
)

func TestReader(t *testing.T) {
	var b []byte
	b = binary.AppendUvarint(b, 300)
	b = binary.AppendVarint(b, -5)
	b = binary.LittleEndian.AppendUint64(b, 1<<63)
	b = append(b, 7)
	b = append(binary.AppendUvarint(b, 3), "abc"...)
	read := func(b []byte) (*Reader, bool) {
		r := &Reader{B: b}
		return r, r.Uvarint() == 300 && r.Varint() == -5 && r.Fixed() == 1<<63 && r.Byte() == 7 && r.String() == "abc"
	}
	if r, same := read(b); !same || !r.Whole() {
		t.Errorf("%+v", r)
	}
	for n := range b { // cut anywhere
		if r, _ := read(b[:n]); !r.Bad || r.Whole() || r.Byte() != 0 || r.Uvarint() != 0 || r.Varint() != 0 || r.Fixed() != 0 || r.String() != "" || r.Count(4) != 0 {
			t.Errorf("cut at %d: %+v", n, r)
		}
	}
	if r, same := read(append(b, 0)); !same || r.Bad || r.Whole() {
		t.Errorf("a byte too many: %+v", r)
	}
	for _, size := range []int{1, 8} { // more than there can be
		if r := (&Reader{B: []byte{9, 1, 2, 3, 4, 5, 6, 7, 8}}); r.Count(size) != 0 || !r.Bad {
			t.Errorf("%d: %+v", size, r)
		}
	}
	if r := (&Reader{B: []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}}); r.Uvarint() != 0 || !r.Bad {
		t.Errorf("too large: %+v", r)
	}
}
