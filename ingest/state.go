package ingest

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go"

	"weir/schema"
)

// nextKey marks the entry that says up to which Kafka offset a partition's state reaches. No source is named so.
const nextKey = "@next"

// stateTopic keeps a group's interval state in a compacted topic: one entry per source, keyed
// "<topic>/<partition>/<source>", and one with the next offset, written last. A crash between them leaves entries that
// are newer than the offset says: what is read again is then dropped as seen, which is right, because state is
// saved only after the sink reported the records durable.
type stateTopic struct {
	k     *Kafka
	topic string
}

func (s *stateTopic) place(ctx context.Context, tp TopicPartition) (TopicPartition, error) {
	n, err := s.k.partitions(ctx, s.topic)
	if err != nil {
		return TopicPartition{}, fmt.Errorf("state topic %s (create it with `weir topics apply`): %w", s.topic, err)
	}
	return TopicPartition{s.topic, tp.Partition % n}, nil
}

// load reads the whole state partition; next is -1 when nothing was saved yet.
func (s *stateTopic) load(ctx context.Context, tp TopicPartition) (sources map[string]*Seen, next int64, err error) {
	place, err := s.place(ctx, tp)
	if err != nil {
		return nil, 0, err
	}
	sources, next = map[string]*Seen{}, -1
	prefix := tp.String() + "/"
	err = s.k.each(ctx, place, func(m *fetched) (err error) {
		key, mine := strings.CutPrefix(m.key, prefix)
		switch {
		case !mine:
		case key == nextKey:
			if next, err = strconv.ParseInt(string(m.value), 10, 64); err != nil {
				return fmt.Errorf("%s offset %d: next offset: %w", place, m.offset, err)
			}
		case len(m.value) == 0:
			delete(sources, key)
		default:
			seen := new(Seen)
			if err := seen.UnmarshalBinary(m.value); err != nil {
				return fmt.Errorf("%s offset %d, source %q: %w", place, m.offset, key, err)
			}
			sources[key] = seen
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("state of %s: %w", tp, err)
	}
	return sources, next, nil
}

// stateRequestBytes keeps a request under Kafka's default message.max.bytes.
const stateRequestBytes = 512 << 10

// save writes the changed sources, deletes those that are nil, and then writes the next offset.
func (s *stateTopic) save(ctx context.Context, tp TopicPartition, changed map[string]*Seen, next int64) error {
	place, err := s.place(ctx, tp)
	if err != nil {
		return err
	}
	prefix := tp.String() + "/"
	var records []kafka.Record
	size := 0
	put := func(key string, value []byte) {
		records = append(records, kafka.Record{Key: kafka.NewBytes([]byte(prefix + key)), Value: kafka.NewBytes(value)}) // a nil value deletes
		size += len(prefix) + len(key) + len(value)
	}
	flush := func() error {
		err := s.k.produce(ctx, place, records, 2*requestTimeout)
		records, size = nil, 0
		if err != nil {
			return fmt.Errorf("save the state of %s in %s: %w", tp, place, err)
		}
		return nil
	}
	for source, seen := range changed {
		var value []byte
		if seen != nil {
			value, _ = seen.AppendBinary(nil)
		}
		put(source, value)
		if size > stateRequestBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	put(nextKey, strconv.AppendInt(nil, next, 10))
	return flush()
}

// StateTopic names the compacted topic of a consumer group.
func StateTopic(group string) string { return schema.StateTopicPrefix + group }
