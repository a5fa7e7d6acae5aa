package zstdfast

import (
	"encoding/binary"
	"math/bits"
)

// Two tables say where something like the next bytes stood last: by a hash of 14 bytes, and by one of 6. In lines of a few words the longer hash finds
// matches twice as long, which halves the work on sequences. The tables are small enough to stay near the processor.
const (
	longBytes, longLog   = 14, 14
	shortBytes, shortLog = 6, 12
)

// An entry is the position's lowest bits, and above them bits of the hash, which tell nearly all false ones apart without a look at the bytes.
const (
	positionBits = 20
	window       = 1 << positionBits
	positionMask = window - 1
)

type tables struct {
	long  [1 << longLog]uint32
	short [1 << shortLog]uint32
}

// Odd numbers without a pattern.
const factor, factor2 = 0x9e3779b185ebca87, 0xc2b2ae3d27d4eb4f

func hashLong(v, after uint64) uint64 {
	return v*factor + after<<(64-8*(longBytes-8))*factor2
}

func hashShort(v uint64) uint64 { return v << (64 - 8*shortBytes) * factor }

func entry(hash uint64, s int) uint32 { return uint32(hash)&^positionMask | uint32(s)&positionMask }

// With the end named too the compiler checks the bounds once, not twice.
func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i : i+8]) }
func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i : i+4]) }

// margin is what is read behind a position at once.
const margin = 22

// find divides src[start:end] into sequences and literals, greedily. It returns an earlier end where there are too many sequences for a block.
func (e *Encoder) find(src []byte, start, end int) int {
	src = src[:end]
	seqs, lits := e.seqs[:0], e.lits[:0]
	rep, rep2 := e.offsets[0], e.offsets[1]
	s, next := max(start, 8), start // next is the first that is not in a sequence; there are always 8 bytes before s
	limit := end - margin
	for s < limit && len(seqs) < maxSequences-1 {
		v := load64(src, s)
		if load32(src, s+1-rep) == uint32(v>>8) {
			s++
			n := 4 + equal(src, s+4-rep, s+4)
			lits = append(lits, src[next:s]...)
			seqs = append(seqs, sequence{lit: uint32(s - next), match: uint32(n), offset: 1})
			s += n
			next = s
			continue
		}
		h := hashLong(v, load64(src, s+8))
		place, now := &e.long[h>>(64-longLog)], entry(h, s)
		was := *place
		*place = now
		if (was^now)&^positionMask != 0 {
			h = hashShort(v)
			place, now := &e.short[h>>(64-shortLog)], entry(h, s)
			was = *place
			*place = now
			if (was^now)&^positionMask != 0 {
				s += 1 + (s-next)>>6
				continue
			}
		}
		offset := int((uint32(s) - was) & positionMask)
		at := s - offset
		if offset == 0 || at < 8 || (load64(src, at)^v)<<(64-8*shortBytes) != 0 {
			s += 1 + (s-next)>>6
			continue
		}
		n := shortBytes
		differ, further := load64(src, at+6)^load64(src, s+6), load64(src, at+14)^load64(src, s+14)
		if differ == 0 { // without a jump, which could not be foretold
			differ, n = further, 14
		}
		n += bits.TrailingZeros64(differ) >> 3
		if differ == 0 {
			n += equal(src, at+margin, s+margin)
		}
		lit := 0
		if s > next {
			back := min(bits.LeadingZeros64(load64(src, s-8)^load64(src, at-8))>>3, s-next)
			s -= back
			n += back
			lits = append(lits, src[next:s]...)
			lit = s - next
		}
		seqs = append(seqs, sequence{lit: uint32(lit), match: uint32(n), offset: uint32(offset + 3)})
		rep, rep2 = offset, rep
		s += n
		next = s
		if s < limit && load32(src, s-rep2) == load32(src, s) {
			n := 4 + equal(src, s+4-rep2, s+4)
			seqs = append(seqs, sequence{match: uint32(n), offset: 1})
			rep, rep2 = rep2, rep
			s += n
			next = s
		}
	}
	if s < limit {
		end = next
	}
	e.seqs, e.lits = seqs, append(lits, src[next:end]...)
	e.offsets = [2]int{rep, rep2}
	return end
}

// equal counts the bytes that are the same from a and from b on; b is the later.
func equal(src []byte, a, b int) int {
	from := b
	for b+8 <= len(src) {
		if x := load64(src, a) ^ load64(src, b); x != 0 {
			return b - from + bits.TrailingZeros64(x)>>3
		}
		a += 8
		b += 8
	}
	for b < len(src) && src[a] == src[b] {
		a++
		b++
	}
	return b - from
}
