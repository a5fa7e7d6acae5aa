package zstdfast

import "encoding/binary"

// bitWriter writes from the lowest bit on, to a buffer that has room. It is passed by value, and without the buffer, so that it stays in registers.
type bitWriter struct {
	at   int    // of the buffer
	bits uint64 // not in the buffer yet
	n    uint   // of bits
}

// flush leaves less than 8 bits.
func (w bitWriter) flush(to []byte) bitWriter {
	binary.LittleEndian.PutUint64(to[w.at:w.at+8], w.bits)
	w.at += int(w.n >> 3)
	w.bits >>= w.n &^ 7 & 63
	w.n &= 7
	return w
}

// add writes the n lowest bits of v. There must be room for them.
func (w bitWriter) add(v uint64, n uint) bitWriter {
	w.bits |= v & (1<<(n&63) - 1) << (w.n & 63)
	w.n += n
	return w
}

// code writes what leads from the symbol's state to the one given, and returns the former.
func (w bitWriter) code(state uint32, f *fse, symbol uint8) (bitWriter, uint32) {
	t := f.symbols[symbol&63]
	n := (state + t.bits) >> 16 & 31
	w = w.add(uint64(state), uint(n))
	return w, uint32(f.states[(state>>n+t.next)&511])
}
