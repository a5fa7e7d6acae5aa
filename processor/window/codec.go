package window

import (
	"encoding/binary"
	"errors"
	"math"

	"weir/internal/unpack"
	"weir/schema"
)

var errDamaged = errors.New("damaged state")

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendAttrs(b []byte, attrs []schema.Attr) []byte {
	b = binary.AppendUvarint(b, uint64(len(attrs)))
	for i := range attrs {
		a := &attrs[i]
		b = append(appendString(b, a.Key), byte(a.Kind))
		switch a.Kind {
		case schema.KindInt, schema.KindBool, schema.KindDouble:
			b = binary.LittleEndian.AppendUint64(b, uint64(a.Num))
		default:
			b = appendString(b, a.Str)
		}
	}
	return b
}

func attrs(r *unpack.Reader) []schema.Attr {
	n := r.Count(3)
	if n == 0 {
		return nil
	}
	attrs := make([]schema.Attr, 0, n)
	for range n {
		a := schema.Attr{Key: r.String(), Kind: schema.Kind(r.Byte())}
		switch a.Kind {
		case schema.KindInt, schema.KindBool, schema.KindDouble:
			a.Num = int64(r.Fixed())
		default:
			a.Str = r.String()
		}
		attrs = append(attrs, a)
	}
	return attrs
}

// Key makes a group's key of its values.
func Key(values []string) string {
	var b []byte
	for _, v := range values {
		b = appendString(b, v)
	}
	return string(b)
}

// AppendKey is Key for one value more.
func AppendKey(b []byte, value string) []byte { return appendString(b, value) }

// otherKey is the key of the group that takes what is over a limit; no values make it.
const otherKey = "\xff"

// values are those that Key was given.
func values(key string) []string {
	if key == otherKey {
		return nil
	}
	r := unpack.Reader{B: []byte(key)}
	var all []string
	for len(r.B) > 0 {
		all = append(all, r.String())
	}
	return all
}

// The places of a pane's counts. A rule has the first three alone.
const (
	Count = iota // lines of a window
	Bytes
	Total
	Trace
	Debug
	Info
	Warn
	Error
	Fatal
	NoLevel
	Losses
	Starts
	Restarts
	Exits
	ExitZero
	ExitOne
	ExitTwo
	ExitCannotRun // 125 to 127: the command could not be run
	ExitAborted   // 134
	ExitKilled    // 137
	ExitSegfault  // 139
	ExitTerm      // 143
	ExitOther
	OOMKills
	Healthy
	Unhealthy
	Ready      // containers that became healthy after their start
	ReadyNanos // how long that took, together
	Counts
)

// countAttrs are the attributes of the counts of a window.
var countAttrs = [Counts]string{Count: "weir.window.lines", Bytes: "weir.window.bytes", Trace: "weir.window.trace", Debug: "weir.window.debug", Info: "weir.window.info", Warn: "weir.window.warn",
	Error: "weir.window.error", Fatal: "weir.window.fatal", NoLevel: "weir.window.no_level", Losses: "weir.window.losses", Starts: "weir.window.starts", Restarts: "weir.window.restarts", Exits: "weir.window.exits",
	ExitZero: "weir.window.exits_0", ExitOne: "weir.window.exits_1", ExitTwo: "weir.window.exits_2", ExitCannotRun: "weir.window.exits_125_127", ExitAborted: "weir.window.exits_134", ExitKilled: "weir.window.exits_137",
	ExitSegfault: "weir.window.exits_139", ExitTerm: "weir.window.exits_143", ExitOther: "weir.window.exits_other", OOMKills: "weir.window.oom_kills", Healthy: "weir.window.healthy", Unhealthy: "weir.window.unhealthy", Ready: "weir.window.ready"}

// Pane is what was counted of one group in one stretch of time.
type Pane struct {
	Start  int64 // Unix ns
	Counts []int64
	Set    []uint64 // sorted: hashes of what is to be told apart
	More   bool     // the set has reached its limit
}

// appendCounts leaves trailing zeros away.
func (p *Pane) appendCounts(b []byte) []byte {
	n := len(p.Counts)
	for n > 0 && p.Counts[n-1] == 0 {
		n--
	}
	b = binary.AppendUvarint(b, uint64(n))
	for _, v := range p.Counts[:n] {
		b = binary.AppendVarint(b, v)
	}
	size := uint64(len(p.Set)) << 1
	if p.More {
		size |= 1
	}
	b = binary.AppendUvarint(b, size)
	for _, h := range p.Set {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	return b
}

func counts(r *unpack.Reader, p *Pane) {
	n := r.Count(1)
	if n > Counts {
		r.Fail()
		return
	}
	p.Counts = make([]int64, n)
	for i := range p.Counts {
		p.Counts[i] = r.Varint()
	}
	size := r.Uvarint()
	p.More = size&1 != 0
	if size >>= 1; size > uint64(len(r.B)/8) {
		r.Fail()
		return
	}
	if size > 0 {
		p.Set = make([]uint64, size)
	}
	for i := range p.Set {
		p.Set[i] = r.Fixed()
	}
}

// merge adds another pane's counts. limit bounds the set.
func (p *Pane) merge(q *Pane, limit int) {
	for len(p.Counts) < len(q.Counts) {
		p.Counts = append(p.Counts, 0)
	}
	for i, v := range q.Counts {
		if v > 0 && p.Counts[i] > math.MaxInt64-v {
			p.Counts[i] = math.MaxInt64
			continue
		}
		p.Counts[i] += v
	}
	p.More = p.More || q.More
	if len(q.Set) == 0 {
		return
	}
	union := make([]uint64, 0, len(p.Set)+len(q.Set))
	i, j := 0, 0
	for i < len(p.Set) || j < len(q.Set) {
		switch {
		case j == len(q.Set) || i < len(p.Set) && p.Set[i] < q.Set[j]:
			union = append(union, p.Set[i])
			i++
		case i == len(p.Set) || q.Set[j] < p.Set[i]:
			union = append(union, q.Set[j])
			j++
		default:
			union = append(union, p.Set[i])
			i, j = i+1, j+1
		}
	}
	if len(union) > limit {
		union, p.More = union[:limit], true
	}
	p.Set = union
}

func (p *Pane) at(i int) int64 {
	if i < len(p.Counts) {
		return p.Counts[i]
	}
	return 0
}

// Delta is what one input partition counted of one group since its last commit.
type Delta struct {
	Rule    uint64
	Key     string
	Subject []schema.Attr
	Records []string // ids of the newest records behind it
	Panes   []Pane
}

// Append appends the delta in the form that Deltas reads.
func (d *Delta) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, d.Rule)
	b = appendString(b, d.Key)
	b = appendAttrs(b, d.Subject)
	b = binary.AppendUvarint(b, uint64(len(d.Records)))
	for _, id := range d.Records {
		b = appendString(b, id)
	}
	b = binary.AppendUvarint(b, uint64(len(d.Panes)))
	for i := range d.Panes {
		b = binary.AppendVarint(b, d.Panes[i].Start)
		b = d.Panes[i].appendCounts(b)
	}
	return b
}

// Deltas reads deltas that stand one behind the other.
func Deltas(b []byte, f func(*Delta)) error {
	r := unpack.Reader{B: b}
	for len(r.B) > 0 {
		d := Delta{Rule: r.Fixed(), Key: r.String(), Subject: attrs(&r)}
		for range r.Count(1) {
			d.Records = append(d.Records, r.String())
		}
		for range r.Count(3) {
			p := Pane{Start: r.Varint()}
			counts(&r, &p)
			d.Panes = append(d.Panes, p)
		}
		if r.Bad {
			return errDamaged
		}
		f(&d)
	}
	return nil
}
