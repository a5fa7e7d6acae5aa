// Package loglines makes the lines of text that benchmarks read, so that all of them measure the same.
package loglines

import (
	"fmt"
	"math/rand/v2"
	"time"
)

var words = []string{"request", "accepted", "order", "payment", "retry", "upstream", "timeout=30s", "status=200", "took=12ms", "user", "session", "cache", "miss", "INFO", "worker-7", "ledger", "posted"}

// Word is one of a few.
func Word(r *rand.Rand) string { return words[r.IntN(len(words))] }

// Text is line n of file f, without its end: about 200 bytes, one in a hundred over 16 KiB, one in a hundred with characters that JSON escapes
// or that are not ASCII. It begins with "<time> INFO f=<file> n=<number> ".
func Text(r *rand.Rand, at time.Time, f, n int) []byte {
	line := fmt.Appendf(nil, "%s INFO f=%d n=%d req=%016x user=%d ", at.Format("2006-01-02T15:04:05.000Z"), f, n, r.Uint64(), r.IntN(1e6))
	want := 120 + r.IntN(160)
	if n%100 == 57 {
		want = 16_500 + r.IntN(24_000)
	}
	for len(line) < want {
		line = append(append(line, Word(r)...), ' ')
	}
	if n%100 == 13 {
		line = append(line, "quote \" tab \t 支付失败 é"...)
	}
	return line
}
