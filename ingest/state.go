package ingest

import (
	"context"
	"fmt"
	"strconv"
	"strings"

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
	return s.k.Table(s.topic).place(ctx, tp.Partition)
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
				return fmt.Errorf("next offset: %w", err)
			}
		case len(m.value) == 0:
			delete(sources, key)
		default:
			seen := new(Seen)
			if err := seen.UnmarshalBinary(m.value); err != nil {
				return fmt.Errorf("source %q: %w", key, err)
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

// save writes the changed sources, deletes those that are nil, and then writes the next offset.
func (s *stateTopic) save(ctx context.Context, tp TopicPartition, changed map[string]*Seen, next int64) error {
	place, err := s.place(ctx, tp)
	if err != nil {
		return err
	}
	prefix := tp.String() + "/"
	err = s.k.saveRows(ctx, place, func(yield func(string, []byte) bool) {
		for source, seen := range changed {
			var value []byte
			if seen != nil {
				value, _ = seen.AppendBinary(nil)
			}
			if !yield(prefix+source, value) {
				return
			}
		}
		yield(prefix+nextKey, strconv.AppendInt(nil, next, 10))
	})
	if err != nil {
		return fmt.Errorf("state of %s: %w", tp, err)
	}
	return nil
}

// StateTopic names the compacted topic of a consumer group.
func StateTopic(group string) string { return schema.StateTopicPrefix + group }
