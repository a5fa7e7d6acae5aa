package indexer

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"weir/ingest"
	"weir/schema"
)

// Attributes of a dead letter; weir.deadletter.topic, partition and offset are also those of the consumer's own letters.
const (
	attrLetterID        = "weir.deadletter.id"
	attrLetterIndex     = "weir.deadletter.index"
	attrLetterSource    = "weir.deadletter.source"
	attrLetterTopic     = "weir.deadletter.topic"
	attrLetterPartition = "weir.deadletter.partition"
	attrLetterOffset    = "weir.deadletter.offset"
	attrLetterBytes     = "weir.deadletter.bytes"
	attrLetterReason    = "error.message"
)

// maxLetter keeps a letter below Kafka's default message.max.bytes. Of a larger document the letter has the beginning; the
// whole is in the original message.
const maxLetter = 512 << 10

// DeadLetters takes documents that Elasticsearch will never take. Put returns nil when the letter is durable, or will be before the next commit.
type DeadLetters interface {
	Put(ctx context.Context, letter DeadLetter) error
}

// DeadLetter is one refused document, or one message that is not a batch, and where it came from.
type DeadLetter struct {
	Topic     string // of the message
	Partition int
	Offset    int64
	ID        string // empty for a message that is not a batch
	Index     string
	Source    string
	Reason    string
	Bytes     int    // of the document
	Document  []byte // cut where it was too large
	At        time.Time
	Replayed  bool // this is not a letter but the note that one was replayed
}

// Whole tells whether the letter has all of the document.
func (l *DeadLetter) Whole() bool { return len(l.Document) == l.Bytes }

// Letters writes dead letters to weir.deadletter. The consumer waits for the producer before it commits.
type Letters struct {
	Out  *ingest.Producer
	last atomic.Int64
}

// Put sends a letter, or the note that one was replayed.
func (w *Letters) Put(ctx context.Context, l DeadLetter) error {
	at := w.next()
	source := fmt.Sprintf("weir/indexer/%s/%d", l.Topic, l.Partition)
	return w.Out.Send(ctx, ingest.Message{Topic: schema.TopicDeadLetter, Source: source, Begin: schema.Position{Offset: at}, End: schema.Position{Offset: at + 1}, Count: 1, Value: l.encode(source, at)})
}

// next is the time, or what follows the last one: positions of a source rise.
func (w *Letters) next() int64 {
	for {
		last := w.last.Load()
		if at := max(time.Now().UnixNano(), last+1); w.last.CompareAndSwap(last, at) {
			return at
		}
	}
}

func (l *DeadLetter) encode(source string, at int64) []byte {
	r := schema.Record{Offset: at, Observed: at, EventName: schema.EventDeadLetter, Severity: schema.SeverityError, SeverityText: "ERROR", Body: string(l.Document[:min(len(l.Document), maxLetter)])}
	if l.Replayed {
		r.EventName, r.Severity, r.SeverityText, r.Body = schema.EventReplayed, 9, "INFO", "the document was replayed"
	}
	r.Attrs = []schema.Attr{schema.String(attrLetterReason, l.Reason), schema.String(attrLetterID, l.ID), schema.String(attrLetterIndex, l.Index), schema.String(attrLetterSource, l.Source),
		schema.String(attrLetterTopic, l.Topic), schema.Int(attrLetterPartition, int64(l.Partition)), schema.Int(attrLetterOffset, l.Offset), schema.Int(attrLetterBytes, int64(l.Bytes))}
	var e schema.Encoder
	e.Reset(source, schema.Incarnation{}, nil)
	e.Append(&r)
	return e.Bytes()
}

// ReadDeadLetter takes a letter off its record; it is false for records that are none. The letter has memory of its own.
func ReadDeadLetter(r *schema.Record) (l DeadLetter, ok bool) {
	if r.EventName != schema.EventDeadLetter && r.EventName != schema.EventReplayed {
		return l, false
	}
	text := func(key string) string {
		a, _ := r.Attr(key)
		return string([]byte(a.Str))
	}
	number := func(key string) int64 {
		a, _ := r.Attr(key)
		return a.Num
	}
	l = DeadLetter{Topic: text(attrLetterTopic), Partition: int(number(attrLetterPartition)), Offset: number(attrLetterOffset), ID: text(attrLetterID), Index: text(attrLetterIndex), Source: text(attrLetterSource),
		Reason: text(attrLetterReason), Document: []byte(r.Body), Bytes: int(number(attrLetterBytes)), At: time.Unix(0, r.Observed), Replayed: r.EventName == schema.EventReplayed}
	if l.Bytes == 0 {
		l.Bytes = len(l.Document)
	}
	return l, true
}
