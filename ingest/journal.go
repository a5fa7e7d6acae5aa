package ingest

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// Journal is a compacted topic of one partition to which one process at a time may write. Kafka has no such rule; the journal finds out
// afterwards, by the offset that an entry got: where another writer came between, Append says so, and the caller must do nothing that
// depends on its entry. It must begin anew then, with Claim and Read. So of two writers at most one goes on from what both have read.
type Journal struct {
	k    *Kafka
	tp   TopicPartition
	next int64 // offset that the next entry of ours gets if nobody else writes
}

// JournalEntry is one message; a nil value removes the key.
type JournalEntry struct {
	Key   string
	Value []byte
}

// ErrOvertaken says that another process has written to the journal.
var ErrOvertaken = errors.New("another process has written to the journal")

// Journal prepares to read and write a topic.
func (k *Kafka) Journal(topic string) *Journal {
	return &Journal{k: k, tp: TopicPartition{Topic: topic}, next: -1}
}

// Read calls fn with every entry, oldest first. What was compacted away is not among them.
func (j *Journal) Read(ctx context.Context, fn func(key string, value []byte) error) error {
	at, end, err := j.k.bounds(ctx, j.tp)
	if err != nil {
		return err
	}
	j.next = end
	// What somebody writes just now is not read: the next Append tells.
	return j.k.between(ctx, j.tp, at, end, func(m *fetched) error { return fn(m.key, m.value) })
}

// Claim writes an entry before the journal is read, so that every other writer is overtaken from there on. It returns a number that is larger than that
// of every claim before, and nobody else's.
func (j *Journal) Claim(ctx context.Context, e JournalEntry) (int64, error) {
	switch n, err := j.k.partitions(ctx, j.tp.Topic); {
	case err != nil:
		return 0, fmt.Errorf("journal %s (create it with `weir topics apply`): %w", j.tp.Topic, err)
	case n != 1:
		return 0, fmt.Errorf("journal %s has %d partitions; its entries have an order only in one", j.tp.Topic, n)
	}
	base, err := j.put(ctx, e)
	return base + 1, err
}

// Append writes entries, all or none of them.
func (j *Journal) Append(ctx context.Context, entries ...JournalEntry) error {
	base, err := j.put(ctx, entries...)
	if err != nil {
		return err
	}
	if base != j.next {
		return fmt.Errorf("journal %s: %w", j.tp.Topic, ErrOvertaken)
	}
	j.next += int64(len(entries))
	return nil
}

func (j *Journal) put(ctx context.Context, entries ...JournalEntry) (int64, error) {
	records := make([]kafka.Record, len(entries))
	for i, e := range entries {
		records[i].Key = kafka.NewBytes([]byte(e.Key))
		if e.Value != nil {
			records[i].Value = kafka.NewBytes(e.Value)
		}
	}
	base, err := j.k.produceAt(ctx, j.tp, records, 2*requestTimeout)
	if err != nil {
		return 0, fmt.Errorf("write to the journal %s: %w", j.tp.Topic, err)
	}
	return base, nil
}
