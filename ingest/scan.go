package ingest

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"weir/schema"
)

// Scan reads what a topic holds now, from since on (all of it where since is zero), partition by partition, and returns at its
// end. fn must not keep the batch. A message that is not a batch is reported through bad.
func (k *Kafka) Scan(ctx context.Context, topic string, since time.Time, fn func(*schema.Batch) error, bad func(error)) error {
	n, err := k.partitions(ctx, topic)
	if err != nil {
		return fmt.Errorf("read %s: %w", topic, err)
	}
	for p := range n {
		tp := TopicPartition{topic, p}
		at, end, err := k.bounds(ctx, tp)
		if err != nil {
			return err
		}
		if !since.IsZero() {
			if at, err = k.offsetAt(ctx, tp, since, end); err != nil {
				return err
			}
		}
		if err := k.scan(ctx, tp, at, end, fn, bad); err != nil {
			return err
		}
	}
	return nil
}

// Batch reads one message. It is an error where Kafka no longer has it.
func (k *Kafka) Batch(ctx context.Context, tp TopicPartition, offset int64, fn func(*schema.Batch) error) error {
	first, end, err := k.bounds(ctx, tp)
	if err != nil {
		return err
	}
	if offset < first || offset >= end {
		return fmt.Errorf("%s offset %d: Kafka no longer has it (it has %d to %d)", tp, offset, first, end-1)
	}
	var failed error
	if err := k.scan(ctx, tp, offset, offset+1, fn, func(err error) { failed = err }); err != nil {
		return err
	}
	return failed
}

func (k *Kafka) scan(ctx context.Context, tp TopicPartition, at, end int64, fn func(*schema.Batch) error, bad func(error)) error {
	var d schema.Decoder
	var b schema.Batch
	for failed := 0; at < end; {
		messages, high, err := k.fetch(ctx, tp, at, 8<<20, 500*time.Millisecond)
		if err != nil {
			if failed++; failed == 5 || ctx.Err() != nil {
				return fmt.Errorf("read %s at offset %d: %w", tp, at, err)
			}
			_ = pause(ctx, ctx, backoff(failed))
			continue
		}
		failed = 0
		for i := range messages {
			m := &messages[i]
			if m.offset >= end {
				return nil
			}
			at = m.offset + 1
			if err := decode(&d, tp, m, &b, nil); err != nil {
				bad(err)
			} else if err := fn(&b); err != nil {
				return err
			}
		}
		if len(messages) == 0 && at >= high {
			return nil
		}
	}
	return nil
}

// offsetAt finds the first offset written at or after a time; end where there is none.
func (k *Kafka) offsetAt(ctx context.Context, tp TopicPartition, t time.Time, end int64) (int64, error) {
	res, err := k.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{tp.Topic: {kafka.TimeOffsetOf(tp.Partition, t)}}})
	if err != nil {
		return 0, fmt.Errorf("offset of %s at %s: %w", tp, t, err)
	}
	for _, p := range res.Topics[tp.Topic] {
		if p.Partition != tp.Partition {
			continue
		}
		if p.Error != nil {
			return 0, fmt.Errorf("offset of %s at %s: %w", tp, t, p.Error)
		}
		for offset := range p.Offsets {
			if offset >= 0 {
				return offset, nil
			}
		}
	}
	return end, nil
}
