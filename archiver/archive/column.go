package archive

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"slices"
	"strings"
	"sync"

	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

const (
	// A page of texts has pageBytes before they are packed, or one text more than fit. Pages of half as many take 2 % more in all, of twice as many 1 % less; but of each column
	// of each open hour one waits in memory, and a reader that wants few rows unpacks the others of their pages too.
	pageBytes = 256 << 10
	// pageRows is the most rows of a page of anything else.
	pageRows = 64 << 10
	// maxBound is how much of a text is kept as a bound.
	maxBound = 256
)

// column takes the values of rows and makes pages of them. It has one leaf of the schema, or a map's two.
type column interface {
	chunks() []*chunk
	end(*scratch) // makes a page of the values that are in none yet
	held() int    // bytes of memory of those
}

// chunk is a leaf of the schema in one row group: finished pages, and what the footer and the page index say of them.
type chunk struct {
	kind       format.Type
	encoding   format.Encoding
	compare    func(a, b []byte) int // of bounds; nil: none are kept
	dictionary *dictionary           // nil: it has none
	filtered   bool                  // it has a bloom filter

	pages     [][]byte // with their headers
	locations []format.PageLocation
	index     format.ColumnIndex
	low, high []byte // bounds of all values; nil: there are no values
	rows      int64
	values    int64 // with those that are null, which are empty maps
	nulls     int64
	size      int64 // of the pages
	unpacked  int64 // of the pages before they were packed
}

// page is what a page is made of.
type page struct {
	rows, values, nulls int
	repetition, defined []byte // levels
	data                []byte
	low, high           []byte
}

// scratch is memory to make a page with.
type scratch struct {
	data, part, packed  []byte
	levels              [2][]byte
	repetition, defined []byte
	numbers             []int32
	seen                []bool
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (c *chunk) add(s *scratch, p *page) {
	s.packed = pack(s.packed, p.data)
	levels := len(p.repetition) + len(p.defined)
	sum := crc32.Update(crc32.Update(crc32.ChecksumIEEE(p.repetition), crc32.IEEETable, p.defined), crc32.IEEETable, s.packed)
	header := encoded(thrift.Marshal(new(thrift.CompactProtocol), &format.PageHeader{
		Type: format.DataPageV2, UncompressedPageSize: int32(levels + len(p.data)), CompressedPageSize: int32(levels + len(s.packed)), CRC: int32(sum),
		DataPageHeaderV2: thrift.New(format.DataPageHeaderV2{
			NumRows: int32(p.rows), NumValues: int32(p.values), NumNulls: int32(p.nulls), Encoding: c.encoding, IsCompressed: thrift.New(true),
			RepetitionLevelsByteLength: int32(len(p.repetition)), DefinitionLevelsByteLength: int32(len(p.defined)), Statistics: format.Statistics{NullCount: int64(p.nulls)},
		}),
	}))
	done := slices.Concat(header, p.repetition, p.defined, s.packed)
	c.pages = append(c.pages, done)
	c.locations = append(c.locations, format.PageLocation{Offset: c.size, CompressedPageSize: int32(len(done)), FirstRowIndex: c.rows})
	c.rows, c.values, c.nulls = c.rows+int64(p.rows), c.values+int64(p.values), c.nulls+int64(p.nulls)
	c.size, c.unpacked = c.size+int64(len(done)), c.unpacked+int64(len(header)+levels+len(p.data))
	if c.compare == nil {
		return
	}
	empty := p.values == p.nulls
	c.index.NullPages, c.index.NullCounts = append(c.index.NullPages, empty), append(c.index.NullCounts, int64(p.nulls))
	c.index.MinValues, c.index.MaxValues = append(c.index.MinValues, p.low), append(c.index.MaxValues, p.high)
	if empty {
		return
	}
	if c.low == nil || c.compare(p.low, c.low) < 0 {
		c.low = p.low
	}
	if c.high == nil || c.compare(p.high, c.high) > 0 {
		c.high = p.high
	}
}

// encoded is for encoders that fail only for values which those that they are given cannot be.
func encoded(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// numbers is a column of integers.
type numbers struct {
	chunk
	narrow bool // of 32 bits
	values []int64
}

func newNumbers(narrow bool) *numbers {
	c := &numbers{narrow: narrow, chunk: chunk{kind: format.Int64, encoding: format.DeltaBinaryPacked}}
	if narrow {
		c.kind = format.Int32
	}
	c.compare = func(a, b []byte) int { return cmp.Compare(c.number(a), c.number(b)) }
	return c
}

func (c *numbers) add(n int64, rows int) {
	for range rows {
		c.values = append(c.values, n)
	}
	if len(c.values) >= pageRows {
		withScratch(c.end)
	}
}

func (c *numbers) chunks() []*chunk { return []*chunk{&c.chunk} }
func (c *numbers) held() int        { return 8 * cap(c.values) }

func (c *numbers) end(s *scratch) {
	if len(c.values) == 0 {
		return
	}
	if c.narrow {
		s.numbers = s.numbers[:0]
		for _, n := range c.values {
			s.numbers = append(s.numbers, int32(n))
		}
		s.data = encoded(new(delta.BinaryPackedEncoding).EncodeInt32(s.data, s.numbers))
	} else {
		s.data = encoded(new(delta.BinaryPackedEncoding).EncodeInt64(s.data, c.values))
	}
	n := len(c.values)
	c.chunk.add(s, &page{rows: n, values: n, data: s.data, low: c.bound(slices.Min(c.values)), high: c.bound(slices.Max(c.values))})
	c.values = c.values[:0]
}

func (c *numbers) bound(n int64) []byte {
	if c.narrow {
		return binary.LittleEndian.AppendUint32(nil, uint32(n))
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(n))
}

func (c *numbers) number(bound []byte) int64 {
	if c.narrow {
		return int64(int32(binary.LittleEndian.Uint32(bound)))
	}
	return int64(binary.LittleEndian.Uint64(bound))
}

// texts is a column of texts that are mostly different: of each is kept how much of the one before it begins with, and the rest.
type texts struct {
	chunk
	shared, lengths []int32 // of the rests
	rests           []byte
	size            int // of the texts
	last            []byte
	low, high       []byte
}

func newTexts(bounds bool) *texts {
	c := &texts{chunk: chunk{kind: format.ByteArray, encoding: format.DeltaByteArray}}
	if bounds {
		c.compare = bytes.Compare
	}
	return c
}

func (c *texts) add(s string) {
	n := commonPrefix(c.last, s)
	c.shared, c.lengths, c.rests = append(c.shared, int32(n)), append(c.lengths, int32(len(s)-n)), append(c.rests, s[n:]...)
	c.last = append(c.last[:n], s[n:]...)
	c.size += len(s)
	if c.compare != nil {
		if s < string(c.low) || len(c.shared) == 1 {
			c.low = append(c.low[:0], s...)
		}
		if s > string(c.high) || len(c.shared) == 1 {
			c.high = append(c.high[:0], s...)
		}
	}
	if c.size >= pageBytes || len(c.shared) >= pageRows {
		withScratch(c.end)
	}
}

func commonPrefix(a []byte, b string) int {
	n, end := 0, min(len(a), len(b))
	for ; n+8 <= end; n += 8 {
		if other := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(bytesOf(b)[n:]); other != 0 {
			return n + bits.TrailingZeros64(other)/8
		}
	}
	for n < end && a[n] == b[n] {
		n++
	}
	return n
}

func (c *texts) chunks() []*chunk { return []*chunk{&c.chunk} }
func (c *texts) held() int        { return 4*cap(c.shared) + 4*cap(c.lengths) + cap(c.rests) + cap(c.last) }

func (c *texts) end(s *scratch) {
	if len(c.shared) == 0 {
		return
	}
	s.data = encoded(new(delta.BinaryPackedEncoding).EncodeInt32(s.data, c.shared))
	s.part = encoded(new(delta.BinaryPackedEncoding).EncodeInt32(s.part, c.lengths))
	s.data = append(append(s.data, s.part...), c.rests...)
	n := len(c.shared)
	p := page{rows: n, values: n, data: s.data}
	if c.compare != nil {
		p.low, p.high = bounds(string(c.low), string(c.high))
	}
	c.chunk.add(s, &p)
	c.shared, c.lengths, c.rests, c.last, c.size = c.shared[:0], c.lengths[:0], c.rests[:0], c.last[:0], 0
}

// bounds are the bounds of texts, shortened where they are long: the lower one is then a beginning of the least, and the upper one is past all that begin as the greatest does.
func bounds(low, high string) (from, to []byte) {
	from, to = []byte(low[:min(len(low), maxBound)]), []byte(high[:min(len(high), maxBound)])
	if len(high) <= maxBound {
		return from, to
	}
	for i := len(to) - 1; i >= 0; i-- {
		if to[i]++; to[i] != 0 {
			return from, to[:i+1]
		}
	}
	return from, []byte(high)
}

// dictionary numbers texts in the order in which they come.
type dictionary struct {
	values []string
	number map[string]int32
	bytes  int // of the texts
}

func (d *dictionary) find(s string) int32 {
	n, ok := d.number[s]
	if !ok {
		n, s = int32(len(d.values)), strings.Clone(s)
		d.values, d.number[s] = append(d.values, s), n
		d.bytes += len(s)
	}
	return n
}

// held guesses what a map of texts takes.
func (d *dictionary) held() int { return d.bytes + 80*len(d.values) }

// page is the page of all texts, which goes before the others.
func (d *dictionary) page(s *scratch) (done []byte, unpacked int) {
	s.data = s.data[:0]
	for _, v := range d.values {
		s.data = append(binary.LittleEndian.AppendUint32(s.data, uint32(len(v))), v...)
	}
	s.packed = pack(s.packed, s.data)
	header := encoded(thrift.Marshal(new(thrift.CompactProtocol), &format.PageHeader{
		Type: format.DictionaryPage, UncompressedPageSize: int32(len(s.data)), CompressedPageSize: int32(len(s.packed)), CRC: int32(crc32.ChecksumIEEE(s.packed)),
		DictionaryPageHeader: thrift.New(format.DictionaryPageHeader{NumValues: int32(len(d.values)), Encoding: format.Plain}),
	}))
	return slices.Concat(header, s.packed), len(header) + len(s.data)
}

// bounds are those of the texts whose numbers are in the scratch.
func (d *dictionary) bounds(s *scratch) (low, high []byte) {
	if len(s.numbers) == 0 {
		return nil, nil
	}
	s.seen = append(s.seen[:0], make([]bool, len(d.values))...)
	least, greatest := d.values[s.numbers[0]], d.values[s.numbers[0]]
	for _, n := range s.numbers {
		if !s.seen[n] {
			s.seen[n] = true
			least, greatest = min(least, d.values[n]), max(greatest, d.values[n])
		}
	}
	return bounds(least, greatest)
}

// words is a column of texts of which many are the same.
type words struct {
	chunk
	runs []run
	rows int // of the runs
}

// run is rows, one after the other, that have the same text.
type run struct{ number, rows int32 }

func newWords() *words { return &words{chunk: wordsChunk()} }

func wordsChunk() chunk {
	return chunk{kind: format.ByteArray, encoding: format.RLEDictionary, compare: bytes.Compare, dictionary: &dictionary{number: map[string]int32{}}}
}

func (c *words) add(s string, rows int) {
	if last := len(c.runs) - 1; last >= 0 && c.dictionary.values[c.runs[last].number] == s {
		c.runs[last].rows += int32(rows)
	} else {
		c.runs = append(c.runs, run{c.dictionary.find(s), int32(rows)})
	}
	if c.rows += rows; c.rows >= pageRows {
		withScratch(c.end)
	}
}

func (c *words) chunks() []*chunk { return []*chunk{&c.chunk} }
func (c *words) held() int        { return c.dictionary.held() + 8*cap(c.runs) }

func (c *words) end(s *scratch) {
	if c.rows == 0 {
		return
	}
	s.numbers = s.numbers[:0]
	for _, r := range c.runs {
		for range r.rows {
			s.numbers = append(s.numbers, r.number)
		}
	}
	c.addNumbers(s, &page{rows: c.rows, values: c.rows})
	c.runs, c.rows = c.runs[:0], 0
}

// addNumbers adds a page of those of the dictionary's numbers that are in the scratch.
func (c *chunk) addNumbers(s *scratch, p *page) {
	s.data = encoded(new(rle.DictionaryEncoding).EncodeInt32(s.data, s.numbers))
	p.data = s.data
	p.low, p.high = c.dictionary.bounds(s)
	c.add(s, p)
}

// dicts is a column of maps from text to text, of which many are the same.
type dicts struct {
	key, value chunk
	pairs      [][2]int32 // of the runs' maps
	runs       []mapRun
	rows       int // of the runs
	entries    int // of all of their rows
}

// mapRun is rows, one after the other, that have the same map.
type mapRun struct{ pairs, rows int32 }

func newDicts() *dicts { return &dicts{key: wordsChunk(), value: wordsChunk()} }

func (c *dicts) add(pairs []pair, rows int) {
	if rows == 0 {
		return
	}
	if last := len(c.runs) - 1; last >= 0 && len(pairs) == 0 && c.runs[last].pairs == 0 {
		c.runs[last].rows += int32(rows)
	} else {
		for _, p := range pairs {
			c.pairs = append(c.pairs, [2]int32{c.key.dictionary.find(p.key), c.value.dictionary.find(p.value)})
		}
		c.runs = append(c.runs, mapRun{int32(len(pairs)), int32(rows)})
	}
	c.rows += rows
	if c.entries += rows * len(pairs); c.rows >= pageRows || c.entries >= pageRows {
		withScratch(c.end)
	}
}

func (c *dicts) chunks() []*chunk { return []*chunk{&c.key, &c.value} }

func (c *dicts) held() int {
	return c.key.dictionary.held() + c.value.dictionary.held() + 8*cap(c.pairs) + 8*cap(c.runs)
}

func (c *dicts) end(s *scratch) {
	if c.rows == 0 {
		return
	}
	// Repetition level 0 begins a row; definition level 0 says that its map is empty.
	rep, def, empty := s.levels[0][:0], s.levels[1][:0], 0
	for _, r := range c.runs {
		for range r.rows {
			for i := range r.pairs {
				rep, def = append(rep, byte(min(i, 1))), append(def, 1)
			}
			if r.pairs == 0 {
				rep, def = append(rep, 0), append(def, 0)
				empty++
			}
		}
	}
	s.levels = [2][]byte{rep, def}
	s.repetition = encoded((&rle.Encoding{BitWidth: 1}).EncodeLevels(s.repetition, rep))
	s.defined = encoded((&rle.Encoding{BitWidth: 1}).EncodeLevels(s.defined, def))
	for i, leaf := range c.chunks() {
		s.numbers = s.numbers[:0]
		pairs := c.pairs
		for _, r := range c.runs {
			for range r.rows {
				for _, p := range pairs[:r.pairs] {
					s.numbers = append(s.numbers, p[i])
				}
			}
			pairs = pairs[r.pairs:]
		}
		leaf.addNumbers(s, &page{rows: c.rows, values: len(def), nulls: empty, repetition: s.repetition, defined: s.defined})
	}
	c.pairs, c.runs, c.rows, c.entries = c.pairs[:0], c.runs[:0], 0, 0
}

func withScratch(do func(*scratch)) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	do(s)
}
