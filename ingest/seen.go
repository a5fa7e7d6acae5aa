package ingest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"

	"weir/internal/unpack"
	"weir/schema"
)

// maxIncarnations bounds what is remembered of one source, in files. A container that rotates at 1 MB a
// second is remembered for four minutes past its last open gap, far longer than a repeat can be late.
const maxIncarnations = 256

// interval is a run of offsets [lo, hi) of one incarnation.
type interval struct{ lo, hi int64 }

// file is what was seen of one incarnation: sorted, disjoint, non-adjacent intervals.
// Everything between two of them is an open gap.
type file struct {
	inc  schema.Incarnation
	seen []interval
}

// Seen is the interval state of one source: which positions a consumer was given already.
//
// It answers for each batch which of its offsets are new, so that what was seen is dropped, what overlaps is
// trimmed, and a late batch that fits a gap is let in. Incarnations are kept apart rather than under one watermark:
// after a clock stepped back and the agent lost its state, a file may sort before one that was seen, and must
// not be taken for a repeat. When more than maxIncarnations are known, the oldest complete ones give way to
// a floor, below which all counts as seen.
type Seen struct {
	floor int64 // incarnations with Start at or below were seen and forgotten; 0 when none was
	files []file
	ended int64 // one past the Kafka offset of the source's last batch, once its agent said that nothing more comes; 0 before
}

// Verdict is what Admit found of one batch.
type Verdict struct {
	From      int64      // where the batch's cover begins: as it says, or, where it does not know, at the end of what was seen
	New       []interval // offsets to deliver, sorted; empty when the batch is a repeat
	Gap       interval   // opened by this batch, in the incarnation GapIn; empty when none
	GapIn     schema.Incarnation
	Closed    bool // the batch filled, wholly or in part, a gap that was open
	BelowMark bool // dropped because its incarnation is below the floor, not because it is known to be seen
}

// Admits tells whether the record at offset is new.
func (v *Verdict) Admits(offset int64) bool {
	for _, n := range v.New {
		if offset >= n.lo && offset < n.hi {
			return true
		}
	}
	return false
}

// Admit adds a batch to what was seen and tells what of it is new.
func (s *Seen) Admit(info *schema.Info) Verdict {
	var v Verdict
	lo, hi := info.Covers()
	at, known := s.find(info.Begin.Incarnation)
	if !known {
		if s.floor != 0 && info.Begin.Start <= s.floor {
			v.BelowMark = true
			return v
		}
		s.openPrevious(info, &v)
		s.files = slices.Insert(s.files, at, file{inc: info.Begin.Incarnation})
		at, _ = s.find(info.Begin.Incarnation)
	} else if !info.PrevKnown {
		// The writer makes no claim on what came before: its silence is not a gap.
		if last := s.files[at].top(); last > 0 && last < lo {
			lo = last
		}
	}
	f := &s.files[at]
	v.From = lo
	top := f.top()
	if info.PrevKnown && lo > top {
		v.Gap, v.GapIn = interval{top, lo}, f.inc
	}
	v.New = f.add(lo, hi)
	v.Closed = lo < top && len(v.New) > 0 && v.New[0].lo < top
	s.prune()
	return v
}

// openPrevious notices that a batch continues an incarnation of which the end was not seen.
func (s *Seen) openPrevious(info *schema.Info, v *Verdict) {
	if !info.PrevKnown || info.Prev.Incarnation == info.Begin.Incarnation || info.Prev.Offset == 0 || len(s.files) == 0 {
		return
	}
	at, known := s.find(info.Prev.Incarnation)
	if !known {
		if s.floor == 0 || info.Prev.Start > s.floor {
			v.Gap, v.GapIn = interval{0, info.Prev.Offset}, info.Prev.Incarnation
		}
		return
	}
	if top := s.files[at].top(); top < info.Prev.Offset {
		v.Gap, v.GapIn = interval{top, info.Prev.Offset}, info.Prev.Incarnation
	}
}

// end notes, after Admit, whether the batch at a Kafka offset ends its source. A repeat of what has ended says nothing new, but Kafka has it.
func (s *Seen) end(offset int64, closes bool, v *Verdict) {
	switch {
	case len(v.New) > 0 && !closes: // a file that came back under its old path
		s.ended = 0
	case len(v.New) > 0 || s.ended != 0:
		s.ended = offset + 1
	}
}

// forgettable tells whether nothing of the source can come any more: it has ended, and Kafka, which begins at first, has no batch of it that
// could be read again. Its agent has none either, whose file is gone.
func (s *Seen) forgettable(first int64) bool { return s.ended != 0 && s.ended <= first }

func (s *Seen) find(inc schema.Incarnation) (int, bool) {
	return slices.BinarySearchFunc(s.files, inc, func(f file, inc schema.Incarnation) int { return f.inc.Compare(inc) })
}

// prune forgets the oldest incarnations beyond the bound and raises the floor over them.
func (s *Seen) prune() {
	for len(s.files) > maxIncarnations {
		s.floor = max(s.floor, s.files[0].inc.Start)
		s.files = slices.Delete(s.files, 0, 1)
	}
}

func (f *file) top() int64 {
	if len(f.seen) == 0 {
		return 0
	}
	return f.seen[len(f.seen)-1].hi
}

// add merges [lo, hi) into the file and returns the parts that were not in it.
func (f *file) add(lo, hi int64) (fresh []interval) {
	first := sort.Search(len(f.seen), func(i int) bool { return f.seen[i].hi >= lo })
	merged, at, end := interval{lo, hi}, lo, first
	for ; end < len(f.seen) && f.seen[end].lo <= hi; end++ {
		old := f.seen[end]
		if old.lo > at {
			fresh = append(fresh, interval{at, old.lo})
		}
		at = max(at, old.hi)
		merged.lo, merged.hi = min(merged.lo, old.lo), max(merged.hi, old.hi)
	}
	if at < hi {
		fresh = append(fresh, interval{at, hi})
	}
	f.seen = slices.Replace(f.seen, first, end, merged)
	return fresh
}

// OpenGaps counts the offsets' ranges that were jumped over and did not come yet.
func (s *Seen) OpenGaps() int {
	n := 0
	for _, f := range s.files {
		n += len(f.seen) - 1
	}
	return n
}

// The versions of the binary form: the second has the end of a source that has one.
const (
	seenVersion      = 1
	seenVersionEnded = 2
)

// AppendBinary appends the state in a compact form: version, end if there is one, floor, then for each file start, print, and the intervals as
// differences.
func (s *Seen) AppendBinary(b []byte) ([]byte, error) {
	if s.ended == 0 {
		b = append(b, seenVersion)
	} else {
		b = append(b, seenVersionEnded)
		b = binary.AppendUvarint(b, uint64(s.ended))
	}
	b = binary.AppendVarint(b, s.floor)
	b = binary.AppendUvarint(b, uint64(len(s.files)))
	for _, f := range s.files {
		b = binary.AppendVarint(b, f.inc.Start)
		b = binary.AppendUvarint(b, uint64(f.inc.Print))
		b = binary.AppendUvarint(b, uint64(len(f.seen)))
		last := int64(0)
		for _, i := range f.seen {
			b = binary.AppendUvarint(b, uint64(i.lo-last))
			b = binary.AppendUvarint(b, uint64(i.hi-i.lo))
			last = i.hi
		}
	}
	return b, nil
}

var errState = errors.New("damaged interval state")

// UnmarshalBinary reads what AppendBinary writes and refuses anything else.
func (s *Seen) UnmarshalBinary(b []byte) error {
	r := unpack.Reader{B: b}
	s.ended = 0
	switch v := r.Byte(); v {
	case seenVersion:
	case seenVersionEnded:
		if s.ended = int64(r.Uvarint()); s.ended <= 0 {
			return errState
		}
	default:
		return fmt.Errorf("%w: version %d", errState, v)
	}
	s.floor = r.Varint()
	s.files = nil
	for range r.Count(3) {
		f := file{inc: schema.Incarnation{Start: r.Varint(), Print: uint32(r.Uvarint())}}
		last := int64(0)
		for range r.Count(2) {
			lo := last + int64(r.Uvarint())
			hi := lo + int64(r.Uvarint())
			if lo < last || hi <= lo {
				return errState
			}
			f.seen, last = append(f.seen, interval{lo, hi}), hi
		}
		if n := len(s.files); n > 0 && s.files[n-1].inc.Compare(f.inc) >= 0 || len(f.seen) == 0 {
			return errState
		}
		s.files = append(s.files, f)
	}
	if !r.Whole() {
		return errState
	}
	return nil
}
