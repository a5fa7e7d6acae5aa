package archive

import (
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"unsafe"

	"weir/schema"
)

// Group is a row group that is being made: the rows of one file that are not written yet, in columns, of which all but the last page is packed.
type Group struct {
	rows, bytes int
	c           *columns // nil: it is empty

	// Used again.
	text  []byte
	pairs []pair
}

// columns are those of a row group, as Row has them.
type columns struct {
	timestamp, timestampNS, observedNS *numbers
	id                                 *texts
	source, incarnation                *words
	offset                             *numbers
	topic                              *words
	kafkaPartition, kafkaOffset        *numbers
	shared                             [len(sharedAttrs)]*words
	stream, level                      *words
	severity                           *numbers
	eventName, traceID                 *words
	spanID, body                       *texts
	labels, attributes                 *dicts
	all                                []column // in the order of Row
}

// sharedAttrs are the attributes of a batch's resource that are columns, from app to host.
var sharedAttrs = [...]string{schema.AttrApp, schema.AttrTenant, schema.AttrSite, schema.AttrCell, schema.AttrContainerID, schema.AttrContainerName, schema.AttrImageName, schema.AttrHostName}

func newColumns() *columns {
	c := &columns{
		timestamp: newNumbers(false), timestampNS: newNumbers(false), observedNS: newNumbers(false), id: newTexts(true), source: newWords(), incarnation: newWords(), offset: newNumbers(false),
		topic: newWords(), kafkaPartition: newNumbers(true), kafkaOffset: newNumbers(false), stream: newWords(), level: newWords(), severity: newNumbers(true), eventName: newWords(),
		traceID: newWords(), spanID: newTexts(true), body: newTexts(false), labels: newDicts(), attributes: newDicts(),
	}
	c.all = []column{c.timestamp, c.timestampNS, c.observedNS, c.id, c.source, c.incarnation, c.offset, c.topic, c.kafkaPartition, c.kafkaOffset}
	for i := range c.shared {
		c.shared[i] = newWords()
		c.all = append(c.all, c.shared[i])
	}
	c.shared[slices.Index(sharedAttrs[:], schema.AttrContainerID)].filtered, c.traceID.filtered = true, true
	c.all = append(c.all, c.stream, c.level, c.severity, c.eventName, c.traceID, c.spanID, c.body, c.labels, c.attributes)
	return c
}

// Rows is how many rows it holds, Bytes what they take before they are packed, and Held the memory that they do take.
func (g *Group) Rows() int  { return g.rows }
func (g *Group) Bytes() int { return g.bytes }

func (g *Group) Held() (n int) {
	if g.c == nil {
		return 0
	}
	n = 16 << 10 // without any row
	for _, c := range g.c.all {
		n += c.held()
		for _, leaf := range c.chunks() {
			n += int(leaf.size) + 128*len(leaf.pages)
		}
	}
	return n
}

// numberBytes is what a row's numbers take.
const numberBytes = 5*8 + 2*4

// Add adds some records of a batch, and to a sum. It keeps nothing of them.
func (g *Group) Add(b *schema.Batch, records []schema.Record, sum *Summer) {
	c := g.grow(len(records))
	c.source.add(b.Source, len(records))
	c.incarnation.add(b.Begin.Incarnation.String(), len(records))
	c.topic.add(b.Topic, len(records))
	c.kafkaPartition.add(int64(b.Partition), len(records))
	c.kafkaOffset.add(b.KafkaOffset, len(records))
	res := newResource(b)
	for i, s := range res.columns {
		c.shared[i].add(s, len(records))
	}
	c.labels.add(res.labels, len(records))
	same := 0 // rows that have no attributes of their own, and are not added yet
	for i := range records {
		r := &records[i]
		c.timestamp.add(EventTime(r)/1000, 1)
		c.timestampNS.add(r.Time, 1)
		c.observedNS.add(r.Observed, 1)
		g.text = b.AppendID(g.text[:0], r)
		c.id.add(view(g.text))
		sum.addRecord(view(g.text), b, r)
		g.bytes += len(g.text) + len(r.Body)
		c.offset.add(r.Offset, 1)
		c.level.add(Level(r), 1)
		c.severity.add(int64(r.Severity), 1)
		c.eventName.add(r.EventName, 1)
		c.traceID.add(g.hex(r.TraceID[:]), 1)
		c.spanID.add(g.hex(r.SpanID[:]))
		c.body.add(r.Body)
		stream, own := g.attributes(&res, r)
		c.stream.add(stream, 1)
		if same++; own != nil {
			c.attributes.add(res.attrs, same-1)
			c.attributes.add(own, 1)
			same = 0
		}
		g.bytes += pairBytes(own)
	}
	c.attributes.add(res.attrs, same)
}

// attributes are a record's stream, and all of its attributes where it has some of its own, which win over those of its batch.
func (g *Group) attributes(res *resource, r *schema.Record) (stream string, all []pair) {
	own := entries{pairs: append(g.pairs[:0], res.attrs...)}
	for _, a := range r.Attrs {
		if a.Key == schema.AttrStream {
			stream = attrText(a)
			continue
		}
		own.put(a.Key, attrText(a))
		all = own.pairs
	}
	g.pairs = own.pairs[:0]
	return stream, all
}

// hex is an id in hexadecimal digits, and empty where it has none.
func (g *Group) hex(id []byte) string {
	if !slices.ContainsFunc(id, func(b byte) bool { return b != 0 }) {
		return ""
	}
	g.text = hex.AppendEncode(g.text[:0], id)
	return view(g.text)
}

// AddRow adds a row. It keeps nothing of it.
func (g *Group) AddRow(r *Row) {
	c := g.grow(1)
	c.timestamp.add(r.Timestamp, 1)
	c.timestampNS.add(r.TimestampNS, 1)
	c.observedNS.add(r.ObservedNS, 1)
	c.id.add(r.ID)
	c.source.add(r.Source, 1)
	c.incarnation.add(r.Incarnation, 1)
	c.offset.add(r.Offset, 1)
	c.topic.add(r.Topic, 1)
	c.kafkaPartition.add(int64(r.KafkaPartition), 1)
	c.kafkaOffset.add(r.KafkaOffset, 1)
	for i, s := range [len(sharedAttrs)]string{r.App, r.Tenant, r.Site, r.Cell, r.ContainerID, r.ContainerName, r.Image, r.Host} {
		c.shared[i].add(s, 1)
	}
	c.stream.add(r.Stream, 1)
	c.level.add(r.Level, 1)
	c.severity.add(int64(r.Severity), 1)
	c.eventName.add(r.EventName, 1)
	c.traceID.add(r.TraceID, 1)
	c.spanID.add(r.SpanID)
	c.body.add(r.Body)
	for m, to := range map[*map[string]string]*dicts{&r.Labels: c.labels, &r.Attributes: c.attributes} {
		g.pairs = g.pairs[:0]
		for _, k := range slices.Sorted(maps.Keys(*m)) {
			g.pairs = append(g.pairs, pair{k, (*m)[k]})
		}
		to.add(g.pairs, 1)
		g.bytes += pairBytes(g.pairs)
	}
	g.bytes += len(r.ID) + len(r.Body)
}

// grow makes room for rows.
func (g *Group) grow(rows int) *columns {
	if g.c == nil {
		g.c = newColumns()
	}
	g.rows += rows
	g.bytes += rows * numberBytes
	return g.c
}

func pairBytes(pairs []pair) (n int) {
	for i := range pairs {
		n += len(pairs[i].key) + len(pairs[i].value)
	}
	return n
}

// view is bytes as a string, until they are changed.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// bytesOf is a string as bytes, not to be changed.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// resource is what the rows of one batch share: its resource attributes, as columns, labels and the rest.
type resource struct {
	columns [len(sharedAttrs)]string
	labels  []pair
	attrs   []pair
}

func newResource(b *schema.Batch) (res resource) {
	var labels, attrs entries
	for _, a := range b.Resource {
		if i := slices.Index(sharedAttrs[:], a.Key); i >= 0 {
			res.columns[i] = attrText(a)
		} else if label, ok := strings.CutPrefix(a.Key, schema.LabelPrefix); ok {
			labels.put(label, attrText(a))
		} else if a.Key != schema.AttrSource && a.Key != schema.AttrIncarnation {
			attrs.put(a.Key, attrText(a))
		}
	}
	res.labels, res.attrs = labels.pairs, attrs.pairs
	return res
}

// entries are those of one map, each key once. Of many, an index finds them.
type entries struct {
	pairs []pair
	index map[string]int
}

type pair struct{ key, value string }

func (e *entries) put(key, value string) {
	const few = 32
	if e.index == nil && len(e.pairs) > few {
		e.index = make(map[string]int, 2*few)
		for i := range e.pairs {
			e.index[e.pairs[i].key] = i
		}
	}
	at, found := e.index[key]
	if e.index == nil {
		at = slices.IndexFunc(e.pairs, func(p pair) bool { return p.key == key })
		found = at >= 0
	}
	if found {
		e.pairs[at].value = value
		return
	}
	if e.index != nil {
		e.index[key] = len(e.pairs)
	}
	e.pairs = append(e.pairs, pair{key, value})
}
