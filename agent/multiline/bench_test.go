package multiline

import (
	"strings"
	"testing"
)

func benchmark(b *testing.B, lines ...string) {
	j := newJoiner(b, nil)
	raw := make([][]byte, len(lines))
	for i, line := range lines {
		raw[i] = []byte(line)
	}
	var s State
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		j.Continues(&s, raw[i], second)
		if i++; i == len(raw) {
			i = 0
		}
	}
}

// The time is that of one line in all of these.
func BenchmarkContinues(b *testing.B) {
	b.Run("stamped", func(b *testing.B) { benchmark(b, singles[0]) })
	b.Run("json", func(b *testing.B) { benchmark(b, singles[2]) })
	b.Run("logfmt", func(b *testing.B) { benchmark(b, singles[3]) })
	b.Run("nginx", func(b *testing.B) { benchmark(b, singles[4]) })
	b.Run("words", func(b *testing.B) { benchmark(b, "listening for the connections of the ledger on :8080") })
	b.Run("mixed", func(b *testing.B) { benchmark(b, singles...) })
	b.Run("java", func(b *testing.B) { benchmark(b, strings.Split(traces["java"], "\n")...) })
	b.Run("all_traces", func(b *testing.B) {
		var lines []string
		for _, trace := range traces {
			lines = append(lines, strings.Split(trace, "\n")...)
		}
		benchmark(b, lines...)
	})
}
