package read

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"

	"github.com/parquet-go/parquet-go"

	"weir/archiver/archive"
	"weir/archiver/store"
)

// rowSet is a set of rows of a row group.
type rowSet []uint64

func newRowSet(n int) rowSet { return make(rowSet, (n+63)/64) }

func (s rowSet) add(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s rowSet) has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }

// fill adds the first n rows.
func (s rowSet) fill(n int) {
	for i := range n >> 6 {
		s[i] = ^uint64(0)
	}
	if n&63 != 0 {
		s[n>>6] |= 1<<(n&63) - 1
	}
}

func (s rowSet) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

func (s rowSet) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

func (s rowSet) clone() rowSet { return append(rowSet(nil), s...) }

func (s rowSet) minus(t rowSet) {
	for i := range s {
		s[i] &^= t[i]
	}
}

// from gives the first row of the set that is not below i; -1 where there is none.
func (s rowSet) from(i int) int {
	at := i >> 6
	if at >= len(s) {
		return -1
	}
	if w := s[at] >> (i & 63); w != 0 {
		return i + bits.TrailingZeros64(w)
	}
	for at++; at < len(s); at++ {
		if s[at] != 0 {
			return at<<6 + bits.TrailingZeros64(s[at])
		}
	}
	return -1
}

const (
	// readAhead is what the library asks for more than it needs.
	readAhead = 4 << 10
	// A read at another place than where the one before ended costs a connection to HDFS, as long as pieceGap bytes take. So what is wanted of a row group is read in pieces, with the gaps between.
	pieceGap   = 1 << 20
	pieceBytes = 4 << 20
	// smallChunk is how large the columns are that are wanted whole, whatever the query.
	smallChunk = 256 << 10
	// tailBytes is how much of a file's end is read at first and kept while it is open: the footer, and mostly the bloom filters and the
	// indexes of pages. Each call to HDFS costs a connection.
	tailBytes = 128 << 10
)

// file is an open file of the archive.
type file struct {
	place *archive.Place
	*parquet.File
	tail []byte // the last bytes

	mu     sync.Mutex // a store's reader is used by one at a time
	r      store.Reader
	bytes  int64 // read since they were taken
	groups int   // row groups that are still wanted
}

// ReadAt reads for one of the workers.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if from := off - (f.place.Bytes - int64(len(f.tail))); from >= 0 && from+int64(len(p)) <= int64(len(f.tail)) {
		return copy(p, f.tail[from:]), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.r.ReadAt(p, off)
	f.bytes += int64(n)
	return n, err
}

// taken says how much was read since it was asked before.
func (f *file) taken() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.bytes
	f.bytes = 0
	return n
}

func openFile(s store.Store, p *archive.Place) (*file, error) {
	r, err := p.Open(s)
	if err != nil {
		return nil, err
	}
	f := &file{place: p, r: r}
	tail := make([]byte, min(p.Bytes, tailBytes))
	if _, err = f.ReadAt(tail, p.Bytes-int64(len(tail))); err == nil || err == io.EOF {
		f.tail = tail
		f.File, err = parquet.OpenFile(f, p.Bytes, parquet.SkipMagicBytes(true), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.ReadBufferSize(readAhead))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p.Path, err), r.Close())
	}
	return f, nil
}

func (f *file) close() error { return f.r.Close() }

// group is one row group while it is being read.
type group struct {
	file *file
	n    int // of the file's row groups
	rows int
	cols map[string]*column

	wanted []span // disjoint and in order
	pieces []piece
}

// span is a part of a file.
type span struct{ from, to int64 }

// piece is a part that was read.
type piece struct {
	from int64
	data []byte
}

func newGroup(f *file, n int) *group {
	g := &group{file: f, n: n, rows: int(f.RowGroups()[n].NumRows()), cols: map[string]*column{}}
	var small []span
	for i := range f.Metadata().RowGroups[n].Columns {
		if s := g.chunkSpan(i); s.to-s.from <= smallChunk {
			small = append(small, s)
		}
	}
	g.want(small)
	return g
}

// chunkSpan is where a column lies.
func (g *group) chunkSpan(column int) span {
	c := &g.file.Metadata().RowGroups[g.n].Columns[column].MetaData
	from := c.DataPageOffset
	if c.DictionaryPageOffset > 0 {
		from = min(from, c.DictionaryPageOffset)
	}
	return span{from, from + c.TotalCompressedSize}
}

// want adds to what is wanted.
func (g *group) want(more []span) {
	all := append(g.wanted, more...)
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	g.wanted = all[:0]
	for _, s := range all {
		if last := len(g.wanted) - 1; last >= 0 && s.from <= g.wanted[last].to+pieceGap {
			g.wanted[last].to = max(g.wanted[last].to, s.to)
		} else {
			g.wanted = append(g.wanted, s)
		}
	}
}

// ReadAt reads in pieces of what is wanted.
func (g *group) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if data := g.piece(at); len(data) > 0 {
			n += copy(p[n:], data)
			continue
		}
		i := slices.IndexFunc(g.wanted, func(s span) bool { return s.from <= at && at < s.to+readAhead })
		if i < 0 || at >= g.file.place.Bytes {
			k, err := g.file.ReadAt(p[n:], at)
			return n + k, err
		}
		read := make([]byte, min(g.wanted[i].to+readAhead, at+pieceBytes, g.file.place.Bytes)-at)
		if k, err := g.file.ReadAt(read, at); k < len(read) {
			return n, cmp.Or(err, io.ErrUnexpectedEOF)
		}
		if len(g.pieces) == 2 { // the first one has the small columns, which are read by turns
			g.pieces = g.pieces[:1]
		}
		g.pieces = append(g.pieces, piece{at, read})
	}
	return n, nil
}

// piece is what was read from a place on.
func (g *group) piece(at int64) []byte {
	for _, p := range g.pieces {
		if p.from <= at && at < p.from+int64(len(p.data)) {
			return p.data[at-p.from:]
		}
	}
	return nil
}

func (g *group) topic() string { return g.file.place.Topic }

// chunk finds a column; nil where the file has none of that name.
func (g *group) chunk(path ...string) *parquet.FileColumnChunk {
	leaf, ok := g.file.Schema().Lookup(path...)
	if !ok {
		return nil
	}
	c, _ := g.file.RowGroups()[g.n].ColumnChunks()[leaf.ColumnIndex].(*parquet.FileColumnChunk)
	return c
}

// column finds a column to read; nil where the file has none of that name.
func (g *group) column(path ...string) (*column, error) {
	key := path[len(path)-1]
	if len(path) > 1 {
		key = path[0] + "/" + key
	}
	if c, ok := g.cols[key]; ok {
		return c, nil
	}
	chunk := g.chunk(path...)
	if chunk == nil {
		g.cols[key] = nil
		return nil, nil
	}
	index, err := chunk.OffsetIndex()
	if err != nil {
		return nil, fmt.Errorf("%s: index of column %s: %w", g.file.place.Path, key, err)
	}
	c := &column{name: key, group: g, chunk: chunk, index: index, first: make([]int, index.NumPages()+1), held: map[int]*page{}}
	for i := range index.NumPages() {
		c.first[i] = int(index.FirstRowIndex(i))
	}
	c.first[index.NumPages()] = g.rows
	g.cols[key] = c
	return c, nil
}

// close gives all memory back.
func (g *group) close() {
	for _, c := range g.cols {
		if c == nil {
			continue
		}
		for _, p := range c.held {
			parquet.Release(p.page)
		}
		if c.pages != nil {
			_ = c.pages.Close()
		}
	}
}

// column reads the pages of one column of a row group.
type column struct {
	name  string
	group *group
	chunk *parquet.FileColumnChunk
	index parquet.OffsetIndex
	first []int // first row of each page, and the number of rows
	pages *parquet.FilePages
	next  int // page that pages gives next
	held  map[int]*page
	dict  *dictionary
}

// page is a decoded page.
type page struct {
	first, end int // its rows
	page       parquet.Page
	data       []byte // of byte arrays; the i-th is data[offsets[i]:offsets[i+1]]
	offsets    []uint32
	dict       *dictionary // else of these, by
	index      []int32
	int32s     []int32
	int64s     []int64
	start      []int32 // of a repeated column: the first value of each row, and the number of values
}

// dictionary is a column's dictionary, with what filters found of its values.
type dictionary struct {
	values []string
	match  map[any][]bool
}

// values is the dictionary's answer to a test, asked once for each value.
func (d *dictionary) test(key any, test func(string) bool) []bool {
	if m, ok := d.match[key]; ok {
		return m
	}
	m := make([]bool, len(d.values))
	for i, v := range d.values {
		m[i] = test(v)
	}
	d.match[key] = m
	return m
}

func (p *page) bytes(i int) []byte { return p.data[p.offsets[i]:p.offsets[i+1]] }

// string is the i-th value. It is a copy, unless it is of a dictionary.
func (p *page) string(i int) string {
	if p.dict != nil {
		return p.dict.values[p.index[i]]
	}
	return string(p.bytes(i))
}

// each reads the pages that have rows of the set, and gives them to visit. Pages that it says to keep stay in memory until the group is closed.
func (c *column) each(rows rowSet, visit func(p *page) (keep bool, err error)) error {
	c.want(rows)
	at := 0 // page
	for row := rows.from(0); row >= 0; row = rows.from(c.first[at]) {
		for c.first[at+1] <= row {
			at++
		}
		p, held := c.held[at]
		if !held {
			var err error
			if p, err = c.read(at); err != nil {
				return fmt.Errorf("%s: row group %d, column %s, page %d: %w", c.group.file.place.Path, c.group.n, c.name, at, err)
			}
		}
		keep, err := visit(p)
		if err != nil {
			return err
		}
		if !held {
			if keep {
				c.held[at] = p
			} else {
				parquet.Release(p.page)
			}
		}
		at++
		if at == len(c.first)-1 {
			break
		}
	}
	return nil
}

// want says which pages are wanted of a column that is not wanted whole.
func (c *column) want(rows rowSet) {
	whole := c.group.chunkSpan(c.chunk.Column())
	if whole.to-whole.from <= smallChunk {
		return
	}
	pages := []span{{whole.from, whole.from + 1}} // with the dictionary, if there is one
	for i := range c.index.NumPages() {
		if row := rows.from(c.first[i]); row >= 0 && row < c.first[i+1] {
			pages = append(pages, span{c.index.Offset(i), c.index.Offset(i) + c.index.CompressedPageSize(i)})
		}
	}
	c.group.want(pages)
}

func (c *column) read(n int) (*page, error) {
	if c.pages == nil {
		c.pages, c.next = c.chunk.PagesFrom(c.group), 0
	}
	if n != c.next {
		if err := c.pages.SeekToRow(int64(c.first[n])); err != nil {
			return nil, err
		}
	}
	c.next = -1
	pp, err := c.pages.ReadPage()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	p := &page{first: c.first[n], end: c.first[n+1], page: pp}
	if int(pp.NumRows()) != p.end-p.first {
		parquet.Release(pp)
		return nil, fmt.Errorf("has %d rows, and the index says %d", pp.NumRows(), p.end-p.first)
	}
	c.next = n + 1
	values := pp.Data()
	switch d := pp.Dictionary(); {
	case d != nil:
		if c.dict == nil {
			c.dict = &dictionary{values: make([]string, d.Len()), match: map[any][]bool{}}
			for i := range c.dict.values {
				c.dict.values[i] = d.Index(int32(i)).Clone().String()
			}
		}
		p.dict, p.index = c.dict, values.Int32()
	case pp.Type().Kind() == parquet.ByteArray:
		p.data, p.offsets = values.ByteArray()
	case pp.Type().Kind() == parquet.Int32:
		p.int32s = values.Int32()
	case pp.Type().Kind() == parquet.Int64:
		p.int64s = values.Int64()
	default:
		parquet.Release(pp)
		return nil, fmt.Errorf("is of type %s, which weir does not write", pp.Type())
	}
	if rep := pp.RepetitionLevels(); len(rep) > 0 {
		p.rowsOf(rep, pp.DefinitionLevels())
	}
	return p, nil
}

// rowsOf finds where each row's values begin. An empty map has one entry, which has no value.
func (p *page) rowsOf(rep, def []byte) {
	p.start = make([]int32, 0, p.end-p.first+1)
	value := int32(0)
	for i := range rep {
		if rep[i] == 0 {
			p.start = append(p.start, value)
		}
		if def[i] > 0 {
			value++
		}
	}
	p.start = append(p.start, value)
}
