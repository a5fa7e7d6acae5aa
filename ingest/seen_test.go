package ingest

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"weir/schema"
)

func info(start, prevStart, prev, begin, end int64) *schema.Info {
	i := &schema.Info{Source: "s", Begin: schema.Position{Incarnation: schema.Incarnation{Start: start}, Offset: begin}, PrevKnown: prevStart >= 0}
	i.End = i.Begin
	i.End.Offset = end
	if i.PrevKnown {
		i.Prev = schema.Position{Incarnation: schema.Incarnation{Start: prevStart}, Offset: prev}
	}
	return i
}

func TestSeen(t *testing.T) {
	type step struct {
		in     *schema.Info
		fresh  []interval
		gap    interval
		closed bool
	}
	none := interval{}
	cases := map[string][]step{
		"in order":           {{info(1, 1, 0, 0, 10), []interval{{0, 10}}, none, false}, {info(1, 1, 10, 10, 20), []interval{{10, 20}}, none, false}},
		"repeat":             {{info(1, 1, 0, 0, 10), []interval{{0, 10}}, none, false}, {info(1, 1, 0, 0, 10), nil, none, false}},
		"cut anew":           {{info(1, 1, 0, 0, 10), []interval{{0, 10}}, none, false}, {info(1, 1, 5, 5, 15), []interval{{10, 15}}, none, false}},
		"gap, then filled":   {{info(1, 1, 0, 0, 10), []interval{{0, 10}}, none, false}, {info(1, 1, 20, 20, 30), []interval{{20, 30}}, interval{10, 20}, false}, {info(1, 1, 10, 10, 20), []interval{{10, 20}}, none, true}},
		"over two gaps":      {{info(1, 1, 0, 0, 1), []interval{{0, 1}}, none, false}, {info(1, 1, 5, 5, 6), []interval{{5, 6}}, interval{1, 5}, false}, {info(1, 1, 8, 8, 9), []interval{{8, 9}}, interval{6, 8}, false}, {info(1, 1, 0, 0, 20), []interval{{1, 5}, {6, 8}, {9, 20}}, none, true}},
		"rotation":           {{info(1, 1, 0, 0, 10), []interval{{0, 10}}, none, false}, {info(2, 1, 10, 0, 5), []interval{{0, 5}}, none, false}},
		"rotation, tail due": {{info(1, 1, 0, 0, 10), []interval{{0, 10}}, none, false}, {info(2, 1, 25, 0, 5), []interval{{0, 5}}, interval{10, 25}, false}, {info(1, 1, 10, 10, 25), []interval{{10, 25}}, none, false}},
		"file not seen":      {{info(1, 1, 0, 0, 10), []interval{{0, 10}}, none, false}, {info(3, 2, 7, 0, 5), []interval{{0, 5}}, interval{0, 7}, false}},
		"clock stepped back": {{info(9, 9, 0, 0, 10), []interval{{0, 10}}, none, false}, {info(5, -1, 0, 0, 8), []interval{{0, 8}}, none, false}},
		"first seen midway":  {{info(1, -1, 0, 50, 60), []interval{{50, 60}}, none, false}, {info(1, 1, 60, 60, 70), []interval{{60, 70}}, none, false}},
		"no claim, no gap":   {{info(0, -1, 0, 5, 6), []interval{{5, 6}}, none, false}, {info(0, -1, 0, 90, 91), []interval{{6, 91}}, none, false}, {info(0, -1, 0, 90, 91), nil, none, false}},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			var s Seen
			for i, st := range steps {
				v := s.Admit(st.in)
				if !reflect.DeepEqual(v.New, st.fresh) || v.Gap != st.gap || v.Closed != st.closed {
					t.Errorf("step %d: %+v, want new %v gap %v closed %v", i, v, st.fresh, st.gap, st.closed)
				}
				b, _ := s.AppendBinary(nil)
				var back Seen
				if err := back.UnmarshalBinary(b); err != nil {
					t.Fatal(err)
				}
				s = back // every step goes on from a restored state
			}
		})
	}
}

// TestSeenAgainstSet compares with a set of offsets on random, overlapping batches.
func TestSeenAgainstSet(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s Seen
		set := map[[2]int64]bool{}
		for range 60 {
			inc, lo := 1+r.Int64N(3), r.Int64N(60)
			hi := lo + 1 + r.Int64N(20)
			v := s.Admit(info(inc, inc, lo, lo, hi))
			for o := range int64(90) {
				want := o >= lo && o < hi && !set[[2]int64{inc, o}]
				if v.Admits(o) != want {
					t.Fatalf("seed %d: offset %d in [%d,%d): admitted %v", seed, o, lo, hi, !want)
				}
			}
			for o := lo; o < hi; o++ {
				set[[2]int64{inc, o}] = true
			}
		}
	}
}

func TestSeenIsBounded(t *testing.T) {
	var s Seen
	for i := int64(1); i <= 3*maxIncarnations; i++ {
		if v := s.Admit(info(i, i-1, 10, 0, 10)); len(v.New) != 1 || v.Gap.hi != 0 && i > 1 {
			t.Fatalf("file %d: %+v", i, v)
		}
	}
	if len(s.files) != maxIncarnations {
		t.Fatalf("%d files are remembered", len(s.files))
	}
	if v := s.Admit(info(1, 1, 0, 0, 10)); !v.BelowMark || len(v.New) != 0 {
		t.Fatalf("a forgotten file: %+v", v)
	}
}

func TestSeenEnds(t *testing.T) {
	var s Seen
	at := int64(0)
	take := func(in *schema.Info, closes bool) {
		v := s.Admit(in)
		s.end(at, closes, &v)
		at++
		b, _ := s.AppendBinary(nil)
		s = Seen{}
		if err := s.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
	}
	want := func(first int64) {
		t.Helper()
		if s.ended != first || first > 0 && (s.forgettable(first-1) || !s.forgettable(first)) || s.forgettable(0) {
			t.Errorf("after %d batches it can be forgotten when Kafka begins at %d, want %d", at, s.ended, first)
		}
	}
	take(info(1, 1, 0, 0, 10), false)
	want(0)
	take(info(2, -1, 0, 10, 11), true)
	want(2)
	take(info(1, 1, 0, 0, 10), false) // Kafka has a repeat
	want(3)
	take(info(2, -1, 0, 10, 11), true)
	want(4)
	take(info(3, -1, 0, 0, 10), false) // a file came back under its path
	want(0)
	take(info(2, -1, 0, 10, 11), true) // a repeat of its former end
	want(0)
	take(info(4, -1, 0, 10, 11), true)
	want(7)
}

func FuzzSeenBinary(f *testing.F) {
	var s Seen
	s.Admit(info(1, 1, 0, 0, 10))
	s.Admit(info(1, 1, 20, 20, 30))
	b, _ := s.AppendBinary(nil)
	f.Add(b)
	s.ended = 300
	b, _ = s.AppendBinary(nil)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Seen
		if s.UnmarshalBinary(b) != nil {
			return
		}
		again, _ := s.AppendBinary(nil)
		var back Seen
		if err := back.UnmarshalBinary(again); err != nil || !reflect.DeepEqual(s, back) {
			t.Fatalf("%v: %+v != %+v (%v)", bytes.Equal(b, again), s, back, err)
		}
	})
}

// TestCoverBegins wants the cover of a batch as its writer says it, and from what was seen where the writer does not know.
func TestCoverBegins(t *testing.T) {
	var s Seen
	for i, c := range []struct {
		in   *schema.Info
		from int64
	}{
		{info(1, 1, 0, 5, 10), 0}, {info(1, 1, 10, 12, 20), 10}, {info(1, -1, 0, 30, 40), 20}, {info(1, 1, 50, 50, 60), 50}, {info(1, -1, 0, 41, 45), 41}, {info(2, 1, 60, 3, 9), 0}, {info(3, -1, 0, 7, 9), 7},
	} {
		if v := s.Admit(c.in); v.From != c.from {
			t.Errorf("batch %d covers from %d, want %d", i, v.From, c.from)
		}
	}
}

func TestMurmur2(t *testing.T) {
	// Expected values from Kafka's own UtilsTest.
	for s, want := range map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107} {
		if got := int32(murmur2(s)); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}
