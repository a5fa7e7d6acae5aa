package indexer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"sync"

	dto "github.com/prometheus/client_model/go"

	"weir/ingest"
	"weir/schema"
)

// Refusals collects what is refused again at a replay: the letters about it are in the topic already.
type Refusals struct {
	mu  sync.Mutex
	all map[string]string // reason by id
}

// Put notes a refusal.
func (r *Refusals) Put(_ context.Context, l DeadLetter) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[string]string{}
	}
	r.all[l.ID] = l.Reason
	return nil
}

// Reason is why a document was refused, empty where it was not.
func (r *Refusals) Reason(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[id]
}

var (
	idForm     = regexp.MustCompile(`^[0-9a-f]{20}-[0-9a-f.-]{1,60}$`)
	streamForm = regexp.MustCompile(`^logs-weir\.[a-z0-9_.]{1,100}-[a-z0-9_.]{1,100}$`)
)

// Replayable says why a letter cannot be replayed.
func (l *DeadLetter) Replayable() error {
	switch {
	case l.ID == "":
		return fmt.Errorf("%s partition %d offset %d is a message that is not a batch, and no document", l.Topic, l.Partition, l.Offset)
	case !idForm.MatchString(l.ID) || !streamForm.MatchString(l.Index):
		return fmt.Errorf("%.80q for %.80q was not written by weir's indexer", l.ID, l.Index)
	case l.Whole() && (!json.Valid(l.Document) || bytes.ContainsAny(l.Document, "\r\n")):
		return fmt.Errorf("the document of %s is not one line of JSON", l.ID)
	}
	return nil
}

// Replay gives refused documents to Elasticsearch again, through the bulk writer. The consumers' interval state would drop the original
// message as a repeat, so it does not go through Kafka; the id keeps it from being there twice. It returns nil when each
// letter's document is durable, was there already, or is refused again, which the sink's dead letters learn.
func (x *Indexer) Replay(ctx context.Context, k *ingest.Kafka, all []DeadLetter) error {
	if err := x.prepare(ctx); err != nil {
		return err
	}
	p := &partition{x: x, tp: ingest.TopicPartition{Topic: schema.TopicLogs}, share: share{json: x.cfg.JSONBodies}}
	for i := range all {
		l := &all[i]
		if !l.Whole() {
			if err := p.readAgain(ctx, k, l); err != nil { // it may be gone for good: the others do not wait for it
				if err := x.dead.Put(ctx, DeadLetter{ID: l.ID, Reason: err.Error()}); err != nil {
					return err
				}
			}
			continue
		}
		p.begin(&stream{name: l.Index}, l.Source, l.Offset, []byte(l.ID))
		p.buf = append(p.buf, l.Document...)
		p.end()
	}
	return p.flush(ctx)
}

// readAgain makes the document of a letter that was too large to have it, from the original message.
func (p *partition) readAgain(ctx context.Context, k *ingest.Kafka, l *DeadLetter) error {
	found := false
	err := k.Batch(ctx, ingest.TopicPartition{Topic: l.Topic, Partition: l.Partition}, l.Offset, func(b *schema.Batch) error {
		p.share.begin(b)
		for i := range b.Records {
			if r := &b.Records[i]; b.ID(r) == l.ID {
				dataset, namespace := parts(l.Index)
				p.share.stream = streamOf(dataset, namespace)
				p.begin(p.share.stream, l.Source, l.Offset, []byte(l.ID))
				p.buf = p.share.document(p.buf, r)
				p.end()
				found = true
			}
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("%s partition %d offset %d does not hold %s", l.Topic, l.Partition, l.Offset, l.ID)
	}
	if err != nil {
		return fmt.Errorf("the letter of %s has only a part of the document, and the original cannot be read: %w", l.ID, err)
	}
	return nil
}

// Restore writes records again, of which any may be there: each is looked for before in all indices of its data stream. It returns nil when all
// are durable, were there already, or were refused, which the sink's dead letters learn. The batches are of one topic.
func (x *Indexer) Restore(ctx context.Context, topic string, batches []*schema.Batch) error {
	sink, _, err := x.Open(ctx, ingest.TopicPartition{Topic: topic})
	if err != nil {
		return err
	}
	defer sink.Close()
	sink.(*partition).again = true
	for _, b := range batches {
		if err := sink.Write(ctx, b); err != nil {
			return err
		}
	}
	return sink.Commit(ctx, ingest.Checkpoint{})
}

// Verdicts counts the documents since the start: created, already there, and refused.
func (x *Indexer) Verdicts() (created, repeated, refused int64) {
	count := func(result string) int64 {
		var m dto.Metric
		_ = x.m.documents.WithLabelValues(result).Write(&m) // a counter's never fails
		return int64(m.GetCounter().GetValue())
	}
	return count("created"), count("repeated"), count("dead_letter")
}
