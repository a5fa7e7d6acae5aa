package archive

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/bloom"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// Writer writes one file, a row group at a time. Between two groups it holds next to nothing.
//
// The library's own writer takes each value of each column on its own, where nearly all columns have one value for a whole batch. That took as much
// again as compressing, and buffers of a page for each column (docs/decisions/0013). What it encodes and decodes is used; so is its schema of Row.
type Writer struct {
	out     *bufio.Writer
	at      int64 // bytes written
	meta    format.FileMetaData
	columns [][]format.ColumnIndex // by row group and column
	offsets [][]format.OffsetIndex
	failed  error
}

const magic = "PAR1"

// emptyFile is what the footer of a file without rows says: the schema, and who wrote it.
var emptyFile = sync.OnceValue(func() format.FileMetaData {
	var b bytes.Buffer
	w := parquet.NewGenericWriter[Row](&b, parquet.KeyValueMetadata(SchemaKey, SchemaVersion), parquet.CreatedBy("weir", "1", ""))
	if err := w.Close(); err != nil {
		panic(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		panic(err)
	}
	meta := *f.Metadata()
	meta.RowGroups = nil
	return meta
})

// leaves are the paths of the schema's leaves, which are in the order of the columns.
var leaves = sync.OnceValue(func() [][]string { return parquet.SchemaOf(Row{}).Columns() })

// NewWriter makes the writer of one file.
func NewWriter(w io.Writer) *Writer {
	return &Writer{out: bufio.NewWriterSize(w, 32<<10), meta: emptyFile()}
}

func (w *Writer) write(b []byte) {
	if w.failed == nil {
		_, w.failed = w.out.Write(b)
		w.at += int64(len(b))
	}
}

// WriteGroup writes the group's rows as one row group, and empties it.
func (w *Writer) WriteGroup(g *Group) error {
	if w.at == 0 {
		w.write([]byte(magic))
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	r := format.RowGroup{NumRows: int64(g.rows), FileOffset: w.at}
	var columns []format.ColumnIndex
	var offsets []format.OffsetIndex
	var all []*chunk
	for _, c := range g.c.all {
		c.end(s)
		all = append(all, c.chunks()...)
	}
	for i, c := range all {
		if c.rows != r.NumRows {
			return fmt.Errorf("column %s has %d rows of %d", leaves()[i], c.rows, r.NumRows)
		}
		meta := w.chunk(c, s)
		meta.PathInSchema = leaves()[i]
		r.Columns = append(r.Columns, format.ColumnChunk{MetaData: meta})
		r.TotalByteSize, r.TotalCompressedSize = r.TotalByteSize+meta.TotalUncompressedSize, r.TotalCompressedSize+meta.TotalCompressedSize
		columns, offsets = append(columns, c.index), append(offsets, format.OffsetIndex{PageLocations: c.locations})
	}
	for i, c := range all {
		if c.filtered {
			meta := &r.Columns[i].MetaData
			meta.BloomFilterOffset = w.at
			w.filter(c.dictionary.values)
			meta.BloomFilterLength = int32(w.at - meta.BloomFilterOffset)
		}
	}
	w.meta.NumRows += r.NumRows
	w.meta.RowGroups, w.columns, w.offsets = append(w.meta.RowGroups, r), append(w.columns, columns), append(w.offsets, offsets)
	*g = Group{}
	return w.flush()
}

// chunk writes a column, and says what the footer has to say of it.
func (w *Writer) chunk(c *chunk, s *scratch) format.ColumnMetaData {
	meta := format.ColumnMetaData{
		Type: c.kind, Encoding: []format.Encoding{c.encoding, format.RLE}, Codec: format.Zstd, NumValues: c.values, TotalUncompressedSize: c.unpacked, TotalCompressedSize: c.size,
		Statistics: format.Statistics{NullCount: c.nulls, MinValue: c.low, MaxValue: c.high}, EncodingStats: []format.PageEncodingStats{{PageType: format.DataPageV2, Encoding: c.encoding, Count: int32(len(c.pages))}},
	}
	if c.dictionary != nil {
		page, unpacked := c.dictionary.page(s)
		meta.DictionaryPageOffset = w.at
		w.write(page)
		meta.Encoding = append(meta.Encoding, format.Plain)
		meta.TotalUncompressedSize, meta.TotalCompressedSize = meta.TotalUncompressedSize+int64(unpacked), meta.TotalCompressedSize+int64(len(page))
		meta.EncodingStats = append(meta.EncodingStats, format.PageEncodingStats{PageType: format.DictionaryPage, Encoding: format.Plain, Count: 1})
	}
	meta.DataPageOffset = w.at
	for i, page := range c.pages {
		c.locations[i].Offset += meta.DataPageOffset
		w.write(page)
	}
	return meta
}

// filter writes a bloom filter of ten bits for each value.
func (w *Writer) filter(values []string) {
	f := make(bloom.SplitBlockFilter, max(1, bloom.NumSplitBlocksOf(int64(len(values)), 10)))
	for _, v := range values {
		f.Insert(bloom.XXH64{}.Sum64(bytesOf(v)))
	}
	h := format.BloomFilterHeader{NumBytes: int32(len(f.Bytes()))}
	h.Algorithm.Value, h.Hash.Value, h.Compression.Value = new(format.SplitBlockAlgorithm), new(format.XxHash), new(format.BloomFilterUncompressed)
	w.thrift(&h)
	w.write(f.Bytes())
}

// thrift writes a part of the format's metadata, and says how long it is.
func (w *Writer) thrift(v any) int32 {
	b := encoded(thrift.Marshal(new(thrift.CompactProtocol), v))
	w.write(b)
	return int32(len(b))
}

func (w *Writer) flush() error {
	if w.failed == nil {
		w.failed = w.out.Flush()
	}
	return w.failed
}

// Close writes the page index and the footer. A column without bounds has no part in the index of them: readers would take empty bounds at their word.
func (w *Writer) Close() error {
	for i, group := range w.meta.RowGroups {
		for j := range group.Columns {
			if c := &group.Columns[j]; len(w.columns[i][j].NullPages) > 0 {
				c.ColumnIndexOffset = w.at
				c.ColumnIndexLength = w.thrift(&w.columns[i][j])
			}
		}
	}
	for i, group := range w.meta.RowGroups {
		for j := range group.Columns {
			c := &group.Columns[j]
			c.OffsetIndexOffset = w.at
			c.OffsetIndexLength = w.thrift(&w.offsets[i][j])
		}
	}
	n := w.thrift(&w.meta)
	w.write(append(binary.LittleEndian.AppendUint32(nil, uint32(n)), magic...))
	return w.flush()
}
