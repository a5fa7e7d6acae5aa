package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"weir/schema"
)

// Partitions counts a topic's partitions; 0 where there is no such topic.
func (k *Kafka) Partitions(ctx context.Context, topic string) (int, error) {
	n, err := k.partitions(ctx, topic)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		return 0, nil
	}
	return n, err
}

// Bounds returns the first offset that a partition still has, and the next to be written.
func (k *Kafka) Bounds(ctx context.Context, tp TopicPartition) (first, next int64, err error) {
	return k.bounds(ctx, tp)
}

// OffsetAt finds the first offset written at or after a time, the next to be written where there is none.
func (k *Kafka) OffsetAt(ctx context.Context, tp TopicPartition, t time.Time) (int64, error) {
	_, next, err := k.bounds(ctx, tp)
	if err != nil {
		return 0, err
	}
	return k.offsetAt(ctx, tp, t, next)
}

// Committed returns the offset that a group goes on from, -1 where it has committed none. What cannot be told is an error, other than with GroupOffsets.
func (k *Kafka) Committed(ctx context.Context, group string, tp TopicPartition) (int64, error) {
	res, err := k.offsetFetch(ctx, group, map[string][]int{tp.Topic: {tp.Partition}})
	if errors.Is(err, kafka.GroupIdNotFound) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("offset of the group %s in %s: %w", group, tp, err)
	}
	for _, p := range res.Topics[tp.Topic] {
		if p.Partition == tp.Partition {
			if errors.Is(p.Error, kafka.GroupIdNotFound) {
				return -1, nil
			}
			if p.Error != nil {
				return 0, fmt.Errorf("offset of the group %s in %s: %w", group, tp, p.Error)
			}
			return p.CommittedOffset, nil
		}
	}
	return -1, nil
}

// Range reads a partition's messages with offsets in [from, to), as Scan does.
func (k *Kafka) Range(ctx context.Context, tp TopicPartition, from, to int64, fn func(*schema.Batch) error, bad func(error)) error {
	return k.scan(ctx, tp, from, to, fn, bad)
}
