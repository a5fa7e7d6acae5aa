package ingest

import (
	"context"
	"fmt"
	"iter"
	"maps"

	"github.com/segmentio/kafka-go"
)

// Table is a compacted topic as a map: of each key the last value holds, and a key without a value is not there. What belongs together
// is in one partition. Who saves a partition's keys must be alone in doing so.
type Table struct {
	k     *Kafka
	topic string
}

// Table prepares a table; its topic must be one of DefaultTopics.
func (k *Kafka) Table(topic string) *Table { return &Table{k, topic} }

func (t *Table) place(ctx context.Context, partition int) (TopicPartition, error) {
	n, err := t.k.partitions(ctx, t.topic)
	if err != nil {
		return TopicPartition{}, fmt.Errorf("state topic %s (create it with `weir topics apply`): %w", t.topic, err)
	}
	return TopicPartition{t.topic, partition % n}, nil
}

// Load reads the whole partition.
func (t *Table) Load(ctx context.Context, partition int) (map[string][]byte, error) {
	place, err := t.place(ctx, partition)
	if err != nil {
		return nil, err
	}
	rows := map[string][]byte{}
	err = t.k.each(ctx, place, func(m *fetched) error {
		if len(m.value) == 0 {
			delete(rows, m.key)
		} else {
			rows[m.key] = m.value
		}
		return nil
	})
	return rows, err
}

// Save writes rows; an empty value removes its key.
func (t *Table) Save(ctx context.Context, partition int, rows map[string][]byte) error {
	place, err := t.place(ctx, partition)
	if err != nil {
		return err
	}
	return t.k.saveRows(ctx, place, maps.All(rows))
}

// rowsRequestBytes keeps a request under Kafka's default message.max.bytes.
const rowsRequestBytes = 512 << 10

// saveRows writes keys with their values to a partition of a compacted topic, in their order; an empty value removes its key.
func (k *Kafka) saveRows(ctx context.Context, place TopicPartition, rows iter.Seq2[string, []byte]) error {
	var records []kafka.Record
	size := 0
	flush := func() error {
		if len(records) == 0 {
			return nil
		}
		err := k.produce(ctx, place, records, 2*requestTimeout)
		records, size = nil, 0
		if err != nil {
			return fmt.Errorf("save in %s: %w", place, err)
		}
		return nil
	}
	for key, value := range rows {
		r := kafka.Record{Key: kafka.NewBytes([]byte(key))}
		if len(value) > 0 {
			r.Value = kafka.NewBytes(value)
		}
		records = append(records, r)
		if size += len(key) + len(value); size > rowsRequestBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// each reads a partition from its first message to what is its end now.
func (k *Kafka) each(ctx context.Context, place TopicPartition, fn func(*fetched) error) error {
	first, end, err := k.bounds(ctx, place)
	if err != nil {
		return err
	}
	return k.between(ctx, place, first, end, fn)
}

// between reads a partition's messages with offsets in [at, end), those that compaction has left.
func (k *Kafka) between(ctx context.Context, place TopicPartition, at, end int64, fn func(*fetched) error) error {
	for at < end {
		messages, high, err := k.fetch(ctx, place, at, 8<<20, fetchWait)
		if err != nil {
			return fmt.Errorf("read %s at offset %d: %w", place, at, err)
		}
		for i := range messages {
			m := &messages[i]
			if m.offset >= end {
				return nil
			}
			at = m.offset + 1
			if err := fn(m); err != nil {
				return fmt.Errorf("%s offset %d: %w", place, m.offset, err)
			}
		}
		if len(messages) == 0 && at >= high {
			return nil // the tail was compacted away
		}
	}
	return nil
}
