package schema

import (
	"fmt"
	"strconv"
)

// Version is the value of the header weir.schema that this package writes and reads.
const Version = "1"

// Header names of a batch's Kafka message. All values are text, so that any Kafka tool shows them.
const (
	HeaderSchema = "weir.schema"
	HeaderSource = "weir.source"
	HeaderBegin  = "weir.begin"
	HeaderEnd    = "weir.end"
	HeaderPrev   = "weir.prev"
	HeaderCount  = "weir.count"
)

const prevUnknown = "-"

// Info is what a batch's headers say of it.
type Info struct {
	Source           string
	Begin, End, Prev Position
	PrevKnown        bool
	Count            int
}

// Covers returns the offsets [lo, hi) of Begin's incarnation that the writer says it has now told all of:
// from the end of the batch before where that is in the same incarnation, else from the file's first byte;
// from Begin where the writer does not know what came before.
func (i *Info) Covers() (lo, hi int64) {
	switch {
	case !i.PrevKnown:
		lo = i.Begin.Offset
	case i.Prev.Incarnation == i.Begin.Incarnation:
		lo = i.Prev.Offset
	}
	return min(lo, i.Begin.Offset), i.End.Offset
}

// EachHeader calls f with every header of the batch, in a fixed order.
func (i *Info) EachHeader(f func(key string, value []byte)) {
	text := func(p Position) []byte { b, _ := p.AppendText(nil); return b }
	f(HeaderSchema, []byte(Version))
	f(HeaderSource, []byte(i.Source))
	f(HeaderBegin, text(i.Begin))
	f(HeaderEnd, text(i.End))
	if i.PrevKnown {
		f(HeaderPrev, text(i.Prev))
	} else {
		f(HeaderPrev, []byte(prevUnknown))
	}
	f(HeaderCount, strconv.AppendInt(nil, int64(i.Count), 10))
}

// ParseInfo reads the headers that each visits.
func ParseInfo(each func(yield func(key string, value []byte))) (Info, error) {
	var info Info
	var first error
	have := map[string]bool{}
	fail := func(key string, err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("header %s: %w", key, err)
		}
	}
	each(func(key string, value []byte) {
		var err error
		switch key {
		case HeaderSchema:
			if string(value) != Version {
				err = fmt.Errorf("schema version %q is not known here (this build reads %s)", value, Version)
			}
		case HeaderSource:
			if info.Source = string(value); info.Source == "" {
				err = fmt.Errorf("is empty")
			}
		case HeaderBegin:
			info.Begin, err = ParsePosition(string(value))
		case HeaderEnd:
			info.End, err = ParsePosition(string(value))
		case HeaderPrev:
			if string(value) != prevUnknown {
				info.PrevKnown = true
				info.Prev, err = ParsePosition(string(value))
			}
		case HeaderCount:
			info.Count, err = strconv.Atoi(string(value))
		default:
			return
		}
		have[key] = true
		fail(key, err)
	})
	if first != nil {
		return info, first
	}
	for _, key := range []string{HeaderSchema, HeaderSource, HeaderBegin, HeaderEnd, HeaderPrev, HeaderCount} {
		if !have[key] {
			return info, fmt.Errorf("header %s is missing", key)
		}
	}
	if info.End.Incarnation != info.Begin.Incarnation || info.End.Offset <= info.Begin.Offset {
		return info, fmt.Errorf("header weir.end %s does not follow weir.begin %s in its incarnation", info.End, info.Begin)
	}
	return info, nil
}
