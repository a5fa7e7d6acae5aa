package indexer

import (
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"weir/schema"
)

// when is the record's time. Elasticsearch has none before 1970: a clock that said so was wrong, and the time of reading stands in.
func when(r *schema.Record) int64 {
	if r.Time > 0 {
		return r.Time
	}
	return max(0, r.Observed)
}

// clock writes times and remembers the last minute's text, in which most of a batch lies.
type clock struct {
	minute int64
	text   []byte // "2006-01-02T15:04:
}

func (c *clock) append(b []byte, ns int64) []byte {
	const perMinute = 60e9
	if minute := ns / perMinute; minute != c.minute || c.text == nil {
		c.minute = minute
		c.text = time.Unix(minute*60, 0).UTC().AppendFormat(c.text[:0], `"2006-01-02T15:04:`)
	}
	b = append(b, c.text...)
	rest := ns - c.minute*perMinute
	var digits [11]byte // seconds and nanoseconds
	for i := range digits {
		digits[len(digits)-1-i] = byte('0' + rest%10)
		rest /= 10
	}
	b = append(append(b, digits[:2]...), '.')
	return append(append(b, digits[2:]...), 'Z', '"')
}

// share is what all documents of a batch have in common, as JSON.
type share struct {
	stream *stream
	json   bool // message bodies that are JSON objects are indexed as such too
	clock  clock

	have   set       // fields of the resource, and those that the encoder fills itself
	values [128]span // of the resource's fields
	rest   []entry   // of weir.attributes
	buf    []byte

	// Of the record at hand.
	from [128]uint8 // which attribute fills a field
	free []uint16   // attributes without a field
	keys keySet
}

type span struct{ from, to int }

// entry is one of weir.attributes, with its key as it stands in the document.
type entry struct {
	key  string
	json span // "key":value
}

// begin takes what b's resource says; the documents of b follow.
func (s *share) begin(b *schema.Batch) {
	s.have, s.rest, s.buf = fields.own, s.rest[:0], s.buf[:0]
	s.keys.reset()
	s.set(fieldSource, func(buf []byte) []byte { return appendJSON(buf, b.Source) })
	labels := 0
	for i := range b.Resource {
		a := &b.Resource[i]
		if label, ok := strings.CutPrefix(a.Key, schema.LabelPrefix); ok && label != "" {
			labels++
			continue
		}
		if a.Key == schema.AttrSource {
			continue
		}
		if f, ok := fields.byAttr[a.Key]; ok && Fields[f].fits(a) && !s.have.has(f) {
			s.set(f, func(buf []byte) []byte { return appendValue(buf, a) })
			continue
		}
		if key := cleanKey(a.Key); s.keys.add(key) {
			from := len(s.buf)
			s.buf = appendValue(append(appendJSON(s.buf, key), ':'), a)
			s.rest = append(s.rest, entry{key, span{from, len(s.buf)}})
		}
	}
	if labels > 0 {
		s.set(fieldLabels, func(buf []byte) []byte { return s.labels(buf, b.Resource) })
	}
}

func (s *share) set(f uint8, put func([]byte) []byte) {
	from := len(s.buf)
	s.buf = put(s.buf)
	s.values[f] = span{from, len(s.buf)}
	s.have.add(f)
}

func (s *share) labels(b []byte, resource []schema.Attr) []byte {
	s.keys.reset()
	open := byte('{')
	for i := range resource {
		label, ok := strings.CutPrefix(resource[i].Key, schema.LabelPrefix)
		if !ok || label == "" {
			continue
		}
		if label = cleanKey(label); s.keys.add(label) {
			b = append(b, open)
			b = appendValue(append(appendJSON(b, label), ':'), &resource[i])
			open = ','
		}
	}
	return append(b, '}')
}

// document appends one record of the batch that s began with.
func (s *share) document(b []byte, r *schema.Record) []byte {
	have := s.have
	var own set // fields that the record's attributes fill
	s.free = s.free[:0]
	for i := range r.Attrs[:min(len(r.Attrs), maxAttrs)] {
		a := &r.Attrs[i]
		if f, ok := fields.byAttr[a.Key]; ok && i < 256 && !own.has(f) && Fields[f].fits(a) {
			own.add(f)
			have.add(f)
			s.from[f] = uint8(i)
		} else {
			s.free = append(s.free, uint16(i))
		}
	}
	if len(s.free) > 0 || len(s.rest) > 0 {
		have.add(fieldAnyAttr)
	}
	if s.json && len(r.Body) > 1 && r.Body[0] == '{' {
		have.add(fieldJSON)
	}
	depth, last := 0, uint8(0)
	for w, word := range have {
		for ; word != 0; word &= word - 1 {
			f := uint8(w<<6 + bits.TrailingZeros64(word))
			before := len(b)
			if depth == 0 {
				b = append(append(b, '{'), fields.open[f][0]...)
			} else {
				same := int(fields.shared[last][f])
				b = append(append(b, closing[:depth-1-same]...), ',')
				b = append(b, fields.open[f][same]...)
			}
			value := len(b)
			switch {
			case own.has(f):
				b = appendValue(b, &r.Attrs[s.from[f]])
			case Fields[f].put != nil:
				b = Fields[f].put(b, s, r)
			case f == fieldAnyAttr:
				b = s.attributes(b, r)
			case f == fieldJSON:
				b = appendObject(b, r.Body)
			default:
				b = append(b, s.buf[s.values[f].from:s.values[f].to]...)
			}
			if len(b) == value {
				b = b[:before]
				continue
			}
			depth, last = fields.depth[f], f
		}
	}
	return append(b, closing[:depth]...)
}

const closing = "}}}}}}}}"

// maxAttrs bounds the attributes of one record that are indexed; no writer of weir's has a tenth of that.
const maxAttrs = 1024

// attributes appends what has no field: the record's own and then the resource's. Elasticsearch refuses a document that
// names something twice, so the first of a name is taken.
func (s *share) attributes(b []byte, r *schema.Record) []byte {
	if len(s.free) > 0 {
		s.keys.reset()
	}
	open := byte('{')
	for _, i := range s.free {
		a := &r.Attrs[i]
		key := cleanKey(a.Key)
		if !s.keys.add(key) {
			continue
		}
		b = append(b, open)
		b = appendValue(append(appendJSON(b, key), ':'), a)
		open = ','
	}
	for i := range s.rest {
		e := &s.rest[i]
		if len(s.free) > 0 && !s.keys.add(e.key) {
			continue
		}
		b = append(append(b, open), s.buf[e.json.from:e.json.to]...)
		open = ','
	}
	return append(b, '}')
}

// keySet tells whether a key came before; few keys are compared, many are hashed.
type keySet struct {
	few  []string
	many map[string]struct{}
}

func (k *keySet) reset() {
	k.few = k.few[:0]
	clear(k.many)
}

func (k *keySet) add(key string) bool {
	if len(k.few) < 16 {
		for _, f := range k.few {
			if f == key {
				return false
			}
		}
		k.few = append(k.few, key)
		return true
	}
	if k.many == nil {
		k.many = map[string]struct{}{}
	}
	if len(k.many) == 0 {
		for _, f := range k.few {
			k.many[f] = struct{}{}
		}
	}
	if _, ok := k.many[key]; ok {
		return false
	}
	k.many[key] = struct{}{}
	return true
}

// maxKey keeps a key and its value, of which Elasticsearch makes one term, within the 32,766 bytes of a term.
const maxKey = 512

// cleanKey makes a key that a flattened field takes: not empty, no NUL, not too long, UTF-8.
func cleanKey(key string) string {
	for i := range len(key) {
		if key[i] == 0 || key[i] >= utf8.RuneSelf {
			key = strings.ReplaceAll(strings.ToValidUTF8(key, "\ufffd"), "\x00", "\ufffd")
			break
		}
	}
	if len(key) > maxKey {
		key = strings.ToValidUTF8(key[:maxKey], "")
	}
	if key == "" {
		return "_"
	}
	return key
}

// appendValue appends a scalar.
func appendValue(b []byte, a *schema.Attr) []byte {
	switch a.Kind {
	case schema.KindInt:
		return strconv.AppendInt(b, a.Num, 10)
	case schema.KindBool:
		return strconv.AppendBool(b, a.Num != 0)
	case schema.KindDouble:
		f := math.Float64frombits(uint64(a.Num))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return appendJSON(b, strconv.FormatFloat(f, 'g', -1, 64))
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	}
	return appendJSON(b, a.Str)
}

// appendJSON appends a string as JSON (RFC 8259). Bytes that are not UTF-8 become U+FFFD.
func appendJSON(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, n := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			b = append(append(b, s[from:i]...), "\ufffd"...)
		} else {
			b = append(b, s[from:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			}
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}
