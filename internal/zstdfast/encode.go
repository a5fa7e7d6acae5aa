// Package zstdfast compresses whole buffers of log records as Zstandard frames (RFC 8878), in about half the CPU time of the fastest level of
// github.com/klauspost/compress, which it takes the Huffman coder from. It has no levels, dictionaries or streaming, and does not decompress.
//
// Frames have their content's size, and no window above a megabyte, so that decoders know what memory they need; and its checksum, so that a fault of
// the encoder would be noticed by who reads, as Kafka does before it takes a batch.
package zstdfast

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/huff0"
)

const (
	maxBlock     = 128 << 10 // of content (section 3.1.1.2)
	maxSequences = 12 << 10  // in a block: it ends earlier where there are more
)

// Encoder makes frames, one at a time. Its memory, about 450 kB, is used again for the next one.
type Encoder struct {
	tables
	offsets    [2]int // of the last matches, the last first: the decoder keeps them too
	seqs       []sequence
	lits       []byte
	huff       huff0.Scratch
	hasTree    bool // the frame's decoder has a table for literals, which is that of huff
	ll, ml, of fse  // of lengths of literals, lengths of matches, offsets
}

// sequence is literals and the match behind them (section 3.1.1.3.2).
type sequence struct {
	lit, match, offset uint32 // lengths, the match's without minMatch once it has codes; the offset as it is coded
	ll, ml, of         uint8  // codes
}

const minMatch = 3

// Append appends a frame with the content src to dst.
func (e *Encoder) Append(dst, src []byte) []byte {
	if e.seqs == nil {
		e.seqs, e.lits = make([]sequence, 0, maxSequences), make([]byte, 0, maxBlock)
	}
	e.tables = tables{}
	e.offsets = [2]int{1, 4}
	e.hasTree = false
	dst = appendHeader(dst, len(src))
	for start := 0; ; {
		dst, start = e.block(dst, src, start)
		if start == len(src) {
			return binary.LittleEndian.AppendUint32(dst, uint32(xxhash.Sum64(src)))
		}
	}
}

// appendHeader begins a frame (section 3.1.1.1). Where the content is no longer than the window, it is the window.
func appendHeader(dst []byte, size int) []byte {
	const magic, checksum, singleSegment, size4, size8 = 0xfd2fb528, 1 << 2, 1 << 5, 2 << 6, 3 << 6
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	if size <= window {
		return binary.LittleEndian.AppendUint32(append(dst, size4|singleSegment|checksum), uint32(size))
	}
	return binary.LittleEndian.AppendUint64(append(dst, size8|checksum, (positionBits-10)<<3), uint64(size))
}

// block appends the block that begins at start, and tells its end.
func (e *Encoder) block(dst, src []byte, start int) (out []byte, end int) {
	const raw, compressed = 0 << 1, 2 << 1
	header := len(dst)
	dst = append(dst, 0, 0, 0)
	before := e.offsets
	end = e.find(src, start, min(start+maxBlock, len(src)))
	dst = e.appendSequences(e.appendLiterals(dst))
	kind, size := compressed, len(dst)-header-3
	if size >= end-start {
		kind, size = raw, end-start
		dst = append(dst[:header+3], src[start:end]...)
		e.offsets, e.hasTree = before, false
	}
	if kind |= size << 3; end == len(src) {
		kind |= 1
	}
	dst[header], dst[header+1], dst[header+2] = byte(kind), byte(kind>>8), byte(kind>>16)
	return dst, end
}

// appendLiterals appends the section of the literals (section 3.1.1.3.1), in four streams unless they are few.
func (e *Encoder) appendLiterals(dst []byte) []byte {
	const few, fewer = 256, 64
	if n := uint64(len(e.lits)); n >= fewer {
		e.huff.Reuse = huff0.ReusePolicyNone
		if e.hasTree {
			e.huff.Reuse = huff0.ReusePolicyPrefer
		}
		compress := huff0.Compress4X
		if n < few {
			compress = huff0.Compress1X
		}
		if out, reused, err := compress(e.lits, &e.huff); err == nil {
			e.hasTree = true
			const compressed, treeless = 2, 3
			header := uint64(compressed)
			if reused {
				header = treeless
			}
			size := uint64(len(out))
			var b [8]byte
			switch {
			case n < few:
				binary.LittleEndian.PutUint64(b[:], header|n<<4|size<<14)
				dst = append(dst, b[:3]...)
			case n < 1<<10:
				binary.LittleEndian.PutUint64(b[:], header|1<<2|n<<4|size<<14)
				dst = append(dst, b[:3]...)
			case n < 1<<14:
				binary.LittleEndian.PutUint64(b[:], header|2<<2|n<<4|size<<18)
				dst = append(dst, b[:4]...)
			default:
				binary.LittleEndian.PutUint64(b[:], header|3<<2|n<<4|size<<22)
				dst = append(dst, b[:5]...)
			}
			return append(dst, out...)
		}
		e.hasTree = false // huff0 may have given it up
	}
	switch n := len(e.lits); {
	case n < 1<<5:
		dst = append(dst, byte(n<<3))
	case n < 1<<12:
		dst = append(dst, byte(1<<2|n<<4), byte(n>>4))
	default:
		dst = append(dst, byte(3<<2|n<<4), byte(n>>4), byte(n>>12))
	}
	return append(dst, e.lits...)
}

// appendSequences appends the section of the sequences (section 3.1.1.3.2), with tables of their own.
func (e *Encoder) appendSequences(dst []byte) []byte {
	n := len(e.seqs)
	switch {
	case n == 0:
		return append(dst, 0)
	case n < 1<<7:
		dst = append(dst, byte(n))
	default: // less than maxSequences
		dst = append(dst, byte(n>>8|1<<7), byte(n))
	}
	e.count()
	const ownTable = 2
	dst = append(dst, ownTable<<6|ownTable<<4|ownTable<<2)
	dst = e.ll.appendTable(dst, n, 9)
	dst = e.of.appendTable(dst, n, 8)
	dst = e.ml.appendTable(dst, n, 9)
	return e.appendBits(dst)
}

// count gives each sequence its codes, and counts these.
func (e *Encoder) count() {
	e.ll.counts, e.ml.counts, e.of.counts = [64]uint32{}, [64]uint32{}, [64]uint32{}
	for i := range e.seqs {
		s := &e.seqs[i]
		if s.match -= minMatch; s.match < uint32(len(mlCode)) {
			s.ml = mlCode[s.match]
		} else {
			s.ml = uint8(bits.Len32(s.match) + 35)
		}
		if s.lit < uint32(len(llCode)) {
			s.ll = llCode[s.lit]
		} else {
			s.ll = uint8(bits.Len32(s.lit) + 18)
		}
		s.of = uint8(bits.Len32(s.offset) - 1)
		e.ll.counts[s.ll&63]++
		e.ml.counts[s.ml&63]++
		e.of.counts[s.of&63]++
	}
}

// The bits that follow the codes (section 3.1.1.3.2.1.1), and the codes of small lengths.
var (
	llBits = [64]uint8{16: 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	mlBits = [64]uint8{32: 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	llCode = codes(llBits, 64)
	mlCode = codes(mlBits, 128)
)

func codes(width [64]uint8, lengths int) (of []uint8) {
	for code := uint8(0); len(of) < lengths; code++ {
		for range 1 << width[code] {
			of = append(of, code)
		}
	}
	return of
}

// appendBits appends the sequences, the last one first: the decoder reads from the end.
func (e *Encoder) appendBits(dst []byte) []byte {
	last := len(e.seqs) - 1
	const mostBytes = 12 // of one sequence: three states and what follows the codes
	dst = slices.Grow(dst, (last+1)*mostBytes+16)
	to := dst[len(dst):cap(dst)]
	var w bitWriter
	s := &e.seqs[last]
	ll, ml, of := e.ll.start(s.ll), e.ml.start(s.ml), e.of.start(s.of)
	for i := last; i >= 0; i-- {
		s := &e.seqs[i]
		if w = w.flush(to); i < last {
			w, of = w.code(of, &e.of, s.of)
			w, ml = w.code(ml, &e.ml, s.ml)
			w, ll = w.code(ll, &e.ll, s.ll)
		}
		lit, match, offset := uint(llBits[s.ll&63]), uint(mlBits[s.ml&63]), uint(s.of)
		if w.n+lit+match+offset > 63 { // flush takes 63
			w = w.flush(to)
		}
		w = w.add(uint64(s.lit), lit)
		w = w.add(uint64(s.match), match)
		w = w.add(uint64(s.offset), offset)
	}
	w = w.flush(to)
	w = w.add(uint64(ml), e.ml.log)
	w = w.add(uint64(of), e.of.log)
	w = w.add(uint64(ll), e.ll.log)
	w = w.add(1, 1)
	w = w.flush(to)
	return dst[:len(dst)+w.at+int(w.n+7)/8]
}
