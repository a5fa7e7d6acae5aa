package read

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func textOf(t testing.TB, query string) *text {
	n, err := parseKQL(query)
	if err != nil {
		t.Fatal(err)
	}
	return newText(n.(test).value)
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		query, body string
		want        bool
	}{
		{"timeout", "read timeout after 5s", true},
		{"timeout", "Timeout", true},
		{"TIMEOUT", "a timeout", true},
		{"timeout", "timeouts", false},
		{"timeout", "my_timeout", false},
		{"timeout", "at c.b.Timeout: x", true},
		{"time*", "timeouts", true},
		{"*out", "Timeout.", true},
		{"*meo*", "a timeout", true},
		{"*meo*", "a time out", false},
		{"t*t", "timeout", true},
		{"t*t", "timeouts", false},
		{"red blue", "the blue one", true},
		{"red blue", "the green one", false},
		{`"timed out"`, "it timed  out.", true},
		{`"timed out"`, "timed-out", true},
		{`"timed out"`, "out timed", false},
		{`"timed out"`, "timed it out", false},
		{`"a bb c"`, "x A-bb(C)", true},
		{`"a bb c"`, "a bb", false},
		{`"a bb c"`, "bb c", false},
		{"10.0.4.56", "10.0.4.56 - -", true},
		{"10.0.4.5", "10.0.4.56 - -", false},
		{"user-42", "user-42 left", true},
		{"user-42", "user 43, 42", false},
		{`"->"`, "a -> b", true},
		{`"->"`, "a - > b", false},
		{"*", "x", true},
		{"*", "", false},
		{"größe", "die GRÖSSE", false},
		{"größe", "die GRÖßE ist", true},
		{"größe", "übergröße", false},
		{"straße", "in der Straße", true},
		{"x", "", false},
		{"x", "x", true},
		{"ab", "a\xffab", true},
		{"ab", "\xffab\xfe", true},
		{`"x y"`, "x\xffy", true},
		{"pay*", "The PAYMENT", true},
		{`""`, "x", false},
	} {
		if got := textOf(t, c.query).match([]byte(c.body)); got != c.want {
			t.Errorf("%s in %q: %v", c.query, c.body, got)
		}
	}
}

// TestTextOfPages compares the search over many values at once with that over each.
func TestTextOfPages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	letters := []string{"a", "B", "b", "A", " ", "-", "c", "é", "_", "\xff", ""}
	for _, query := range []string{"ab", "a", "bc*", "*b*", `"a b"`, "a-b", "ab c", "é", "aé*", "*"} {
		tx := textOf(t, query)
		for range 300 {
			data, offsets := []byte("xx"), []uint32{2}
			var want []int
			for i := range r.IntN(20) {
				var b strings.Builder
				for range r.IntN(8) {
					b.WriteString(letters[r.IntN(len(letters))])
				}
				data = append(data, b.String()...)
				offsets = append(offsets, uint32(len(data)))
				if tx.match([]byte(b.String())) {
					want = append(want, i)
				}
			}
			var got []int
			tx.each(append(data, "ab ab"...), offsets, func(i int) { got = append(got, i) })
			slices.Sort(got)
			if got = slices.Compact(got); !slices.Equal(got, want) {
				t.Fatalf("%s in %q %v: %v, want %v", query, data, offsets, got, want)
			}
		}
	}
}

func BenchmarkText(b *testing.B) {
	data, offsets := []byte(nil), []uint32{0}
	for i := range 2000 {
		data = fmt.Appendf(data, "2026-11-25 12:59:38.139  INFO [posting-5] c.b.ledger.Posting : posted entry %d for account 4711-%d in 12 ms, balance unchanged", i, i)
		offsets = append(offsets, uint32(len(data)))
	}
	for _, query := range []string{"timeout", "quux", `"connection refused"`, "entry"} {
		b.Run(query, func(b *testing.B) {
			tx := textOf(b, query)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				tx.each(data, offsets, func(int) {})
			}
		})
	}
}
