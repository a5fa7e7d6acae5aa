// The command bench measures weir's agent against a real Kafka: cost of a gigabyte of logs, of idling, and latency.
// Also the indexer between a real Kafka and a real Elasticsearch, the archiver between Kafka and HDFS, and the processor. `make bench-agent`,
// `make bench-indexer`, `make bench-archiver` and `make bench-processor` run it on the development stack.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"weir/internal/bench/loglines"
)

// dataset is Docker json-file logs, and the same lines bare.
type dataset struct {
	logs  []string // paths
	bare  string
	lines int // messages, each of one or more pieces
	bytes int64
}

const pieceBytes = 16 << 10

// makeData writes files of total bytes together; lines over 16 KiB are in pieces.
func makeData(dir string, files int, total int64) (d dataset, err error) {
	r := rand.New(rand.NewPCG(1, 2))
	bare, err := os.Create(filepath.Join(dir, "bare.txt"))
	if err != nil {
		return d, err
	}
	bareOut := bufio.NewWriterSize(bare, 1<<20)
	d.bare = bare.Name()
	for f := range files {
		path := filepath.Join(dir, fmt.Sprintf("c%04d-json.log", f))
		out, err := os.Create(path)
		if err != nil {
			return d, err
		}
		w := bufio.NewWriterSize(out, 1<<20)
		d.logs = append(d.logs, path)
		at := time.Date(2026, 11, 1, 0, 0, f, 0, time.UTC)
		var size int64
		for n := 0; size < total/int64(files); n++ {
			line := loglines.Text(r, at, f, n)
			line = append(line, '\n')
			if _, err := bareOut.Write(line); err != nil {
				return d, err
			}
			for len(line) > 0 {
				k := min(len(line), pieceBytes)
				at = at.Add(time.Duration(r.IntN(200_000)))
				written, err := writePiece(w, line[:k], "stdout", at)
				if err != nil {
					return d, err
				}
				size += int64(written)
				line = line[k:]
			}
			d.lines++
		}
		d.bytes += size
		if err := w.Flush(); err != nil {
			return d, err
		}
		if err := out.Close(); err != nil {
			return d, err
		}
	}
	if err := bareOut.Flush(); err != nil {
		return d, err
	}
	return d, bare.Close()
}

// writePiece writes a line of the json-file driver.
func writePiece(w interface{ Write([]byte) (int, error) }, text []byte, stream string, at time.Time) (int, error) {
	b, err := json.Marshal(struct {
		Log    string    `json:"log"`
		Stream string    `json:"stream"`
		Time   time.Time `json:"time"`
	}{string(text), stream, at.UTC()})
	if err != nil {
		return 0, err
	}
	return w.Write(append(b, '\n'))
}
