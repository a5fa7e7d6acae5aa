package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
)

// DigestReader is the SHA-256 of a file, which must have size bytes.
func DigestReader(r io.ReaderAt, size int64) (string, error) {
	sum := sha256.New()
	n, err := io.CopyBuffer(sum, io.NewSectionReader(r, 0, size), make([]byte, 256<<10))
	if err == nil && n != size {
		err = fmt.Errorf("ends at byte %d of %d", n, size)
	}
	if n, _ := r.ReadAt(make([]byte, 1), size); n > 0 && err == nil {
		err = fmt.Errorf("goes on after its %d bytes", size)
	}
	return hex.EncodeToString(sum.Sum(nil)), err
}

// EachRow gives fn all rows of a Parquet file, some at a time. fn may keep strings and maps, not the slice. T is Row, or a struct with some of its columns.
func EachRow[T any](r io.ReaderAt, size int64, fn func([]T) error) (err error) {
	// The library panics on some files that are damaged within; the hash should have told.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not the Parquet file of an archive: %v", p)
		}
	}()
	f, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.ReadBufferSize(128<<10))
	if err != nil {
		return err
	}
	rows := parquet.NewGenericReader[T](f)
	defer func() { err = errors.Join(err, rows.Close()) }()
	some := make([]T, 256)
	for {
		clear(some)
		n, err := rows.Read(some)
		if n > 0 {
			if err := fn(some[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
