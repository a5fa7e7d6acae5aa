package zstdfast

import "math/bits"

// fse is a table of finite state entropy for one kind of code (section 4.1).
type fse struct {
	log     uint // of the number of states
	counts  [64]uint32
	shares  [64]uint16 // of the states, by symbol
	symbols [64]transform
	states  [512]uint16
}

// transform says of a symbol how many bits a state gives away before it, and where the states that it leads to are. It is the form of the reference
// implementation: bits holds the number in its upper half, so that adding the state carries where it is one bit more.
type transform struct{ bits, next uint32 }

// start is a state whose symbol the decoder ends with.
func (f *fse) start(symbol uint8) uint32 {
	t := f.symbols[symbol]
	n := (t.bits + 1<<15) >> 16
	return uint32(f.states[(n<<16-t.bits)>>n+t.next])
}

// appendTable makes the table for n symbols that were counted, of which at least one, and appends its description.
func (f *fse) appendTable(dst []byte, n int, maxLog uint) []byte {
	last := len(f.counts) - 1
	for f.counts[last] == 0 {
		last--
	}
	if f.counts[last] == uint32(n) { // the states of a table are not of one symbol alone: another is pretended
		other := 0
		if last == 0 {
			other = 1
		}
		f.counts[other] = 1
		n, last = n+1, max(last, other)
	}
	f.log = min(maxLog, max(5, uint(bits.Len(uint(n)))))
	f.share(n, last)
	f.build(last)
	return f.describe(dst)
}

// share gives each symbol states as it was counted, one at least.
func (f *fse) share(n, last int) {
	size := 1 << f.log
	left, most := size, 0
	f.shares = [64]uint16{}
	for i, c := range f.counts[:last+1] {
		if c == 0 {
			continue
		}
		share := max(1, (int(c)*size+n/2)/n)
		left -= share
		f.shares[i] = uint16(share)
		if share > int(f.shares[most]) {
			most = i
		}
	}
	for left < 0 { // it was rounded up too often: the most frequent have to give
		for i, share := range f.shares[:last+1] {
			if share > f.shares[most] {
				most = i
			}
		}
		give := min(-left, int(f.shares[most]+3)/4)
		f.shares[most] -= uint16(give)
		left += give
	}
	f.shares[most] += uint16(left)
}

// build spreads the symbols over the states as the decoder does.
func (f *fse) build(last int) {
	size := uint32(1) << f.log
	var symbolOf [len(f.states)]uint8
	var from [len(f.counts)]uint32
	at, total := uint32(0), uint32(0)
	for i, share := range f.shares[:last+1] {
		for range share {
			symbolOf[at] = uint8(i)
			at = (at + size>>1 + size>>3 + 3) & (size - 1)
		}
		from[i] = total
		if share == 1 {
			f.symbols[i] = transform{uint32(f.log)<<16 - size, total - 1}
		} else if share > 1 {
			n := uint32(f.log) + 1 - uint32(bits.Len16(share-1))
			f.symbols[i] = transform{n<<16 - uint32(share)<<n, total - uint32(share)}
		}
		total += uint32(share)
	}
	for state, symbol := range symbolOf[:size] {
		f.states[from[symbol]] = uint16(int(size) + state)
		from[symbol]++
	}
}

// describe appends the symbols' shares (section 4.1.1).
func (f *fse) describe(dst []byte) []byte {
	acc, n := uint64(f.log-5), uint(4)
	left := 1<<f.log + 1
	for i := 0; left > 1; {
		share := int(f.shares[i])
		i++
		width := uint(bits.Len(uint(left)))
		spare := 1<<width - 1 - left // so many values take a bit less
		v := share + 1
		if v >= 1<<(width-1) {
			v += spare
		}
		acc |= uint64(v) << n
		if n += width; v < spare {
			n--
		}
		if left -= share; share == 0 { // how many more follow that have none, by threes
			none := 0
			for f.shares[i] == 0 {
				none++
				i++
			}
			for ; none >= 3; none -= 3 {
				acc |= 3 << n
				n += 2
			}
			acc |= uint64(none) << n
			n += 2
		}
		for ; n >= 8; n -= 8 {
			dst = append(dst, byte(acc))
			acc >>= 8
		}
	}
	if n > 0 {
		dst = append(dst, byte(acc))
	}
	return dst
}
