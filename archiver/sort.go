package archiver

import (
	"bufio"
	"cmp"
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"weir/archiver/archive"
)

// slice is the span within which rows are ordered by container.
const slice = 10 * time.Minute

// inOrder orders rows by slices of time, within one by container, and then by time. Row groups are of one slice where there are enough rows, and
// of few containers: so a reader passes over what is not of its time or not of its container, and one that wants all in the order of time holds a
// slice at most. Rows without a container, of plain files and of engines, stand by their source.
func inOrder(a, b *archive.Row) int {
	return cmp.Or(cmp.Compare(sliceOf(a), sliceOf(b)), cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.Source, b.Source), cmp.Compare(a.EventTime(), b.EventTime()),
		cmp.Compare(a.KafkaOffset, b.KafkaOffset), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.ID, b.ID))
}

func sliceOf(r *archive.Row) int64 { return r.EventTime() / int64(slice) }

// sorter sorts more rows than fit into memory: runs of a budget's size wait in files.
type sorter struct {
	dir    string
	budget int
	rows   []archive.Row
	bytes  int
	runs   []*os.File
}

func (s *sorter) add(rows []archive.Row) error {
	for i := range rows {
		s.rows = append(s.rows, rows[i])
		if s.bytes += rows[i].Memory(); s.bytes >= s.budget {
			if err := s.spill(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sorter) sort() {
	slices.SortFunc(s.rows, func(a, b archive.Row) int { return inOrder(&a, &b) })
}

// spill writes what is in memory as a sorted run.
func (s *sorter) spill() error {
	s.sort()
	f, err := os.Create(filepath.Join(s.dir, fmt.Sprintf("%06d", len(s.runs))))
	if err != nil {
		return fmt.Errorf("archiver.compact.temp_dir: %w", err)
	}
	s.runs = append(s.runs, f)
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10))
	if err != nil {
		return err
	}
	b := bufio.NewWriterSize(z, 64<<10)
	e := gob.NewEncoder(b)
	for i := range s.rows {
		if err := e.Encode(&s.rows[i]); err != nil {
			return errors.Join(fmt.Errorf("archiver.compact.temp_dir: %w", err), z.Close())
		}
	}
	if err := errors.Join(b.Flush(), z.Close()); err != nil {
		return fmt.Errorf("archiver.compact.temp_dir: %w", err)
	}
	clear(s.rows)
	s.rows, s.bytes = s.rows[:0], 0
	return nil
}

func (s *sorter) close() {
	for _, f := range s.runs {
		_ = f.Close()
	}
}

// run is one sorted run that is being merged.
type run struct {
	row  archive.Row
	next func(*archive.Row) error // io.EOF at the end
}

type runs []*run

func (r runs) Len() int           { return len(r) }
func (r runs) Less(i, j int) bool { return inOrder(&r[i].row, &r[j].row) < 0 }
func (r runs) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *runs) Push(x any)        { *r = append(*r, x.(*run)) }
func (r *runs) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

// each calls fn with all rows in order.
func (s *sorter) each(ctx context.Context, fn func(*archive.Row) error) error {
	s.sort()
	at := 0
	all := runs{{next: func(r *archive.Row) error {
		if at == len(s.rows) {
			return io.EOF
		}
		*r = s.rows[at]
		at++
		return nil
	}}}
	for _, f := range s.runs {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		z, err := zstd.NewReader(bufio.NewReaderSize(f, 64<<10), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return err
		}
		defer z.Close()
		d := gob.NewDecoder(bufio.NewReaderSize(z, 64<<10))
		all = append(all, &run{next: func(r *archive.Row) error {
			*r = archive.Row{} // zero values are not in the stream
			return d.Decode(r)
		}})
	}
	var left runs
	for _, r := range all {
		switch err := r.next(&r.row); {
		case err == nil:
			left = append(left, r)
		case !errors.Is(err, io.EOF):
			return err
		}
	}
	heap.Init(&left)
	for n := 0; len(left) > 0; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fn(&left[0].row); err != nil {
			return err
		}
		switch err := left[0].next(&left[0].row); {
		case err == nil:
			heap.Fix(&left, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(&left)
		default:
			return fmt.Errorf("archiver.compact.temp_dir: read a sorted run: %w", err)
		}
	}
	return nil
}

// merged writes the files of a compaction, one after the other.
type merged struct {
	c     *Compactor
	own   string
	r     *archive.Compaction
	file  archive.File
	out   *output // nil: no file is open
	w     *archive.Writer
	group archive.Group // rows that are not written yet
	min   int64
	max   int64
	slice int64 // of the last row
}

func (m *merged) add(row *archive.Row) error {
	// A slice begins a row group where the one before it would not be too small.
	if at := sliceOf(row); m.out != nil && at != m.slice && m.group.Rows() >= m.c.cfg.RowGroupRows/8 {
		if err := m.flush(); err != nil {
			return err
		}
	}
	m.slice = sliceOf(row)
	if m.out == nil {
		if err := m.open(row.EventTime()); err != nil {
			return err
		}
	}
	m.group.AddRow(row)
	m.min, m.max = min(m.min, row.EventTime()), max(m.max, row.EventTime())
	m.file.Rows++
	if m.group.Rows() >= m.c.cfg.RowGroupRows || int64(m.group.Bytes()) >= m.c.cfg.RowGroupBytes {
		return m.flush()
	}
	return nil
}

func (m *merged) open(at int64) error {
	i := len(m.r.Files) + 1
	m.file = archive.File{Tmp: path.Join(m.own, fmt.Sprintf("c%d-%d.parquet", m.r.N, i)), Path: m.r.MergedPath(i)}
	m.min, m.max = at, at
	f, err := m.c.store.Create(m.file.Tmp)
	if err != nil {
		return fmt.Errorf("create %s: %w", m.file.Tmp, err)
	}
	m.out = &output{File: f, sum: sha256.New()}
	m.w = archive.NewWriter(m.out)
	return nil
}

// flush writes the row group, and ends the file where it has the size that is wanted.
func (m *merged) flush() error {
	if err := m.w.WriteGroup(&m.group); err != nil {
		return fmt.Errorf("write %s: %w", m.file.Tmp, err)
	}
	if m.out.n < m.c.cfg.Compact.TargetBytes {
		return nil
	}
	return m.finish()
}

// finish closes the file that is open.
func (m *merged) finish() error {
	if m.out == nil {
		return nil
	}
	if m.group.Rows() > 0 {
		if err := m.w.WriteGroup(&m.group); err != nil {
			return fmt.Errorf("write %s: %w", m.file.Tmp, err)
		}
	}
	if err := m.w.Close(); err != nil {
		return fmt.Errorf("finish %s: %w", m.file.Tmp, err)
	}
	if err := m.out.Close(); err != nil {
		return fmt.Errorf("close %s: %w", m.file.Tmp, err)
	}
	m.file.Bytes, m.file.SHA256 = m.out.n, hex.EncodeToString(m.out.sum.Sum(nil))
	m.file.MinTime, m.file.MaxTime = time.Unix(0, m.min).UTC(), time.Unix(0, m.max).UTC()
	m.r.Files = append(m.r.Files, m.file)
	m.out = nil
	return nil
}

func (m *merged) abort() {
	if m.out != nil {
		m.out.Abort()
		m.out = nil
	}
}
