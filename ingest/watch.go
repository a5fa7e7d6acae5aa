package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"weir/schema"
)

const (
	watchBytes = 256 << 10       // of one fetch; Kafka gives at least one message
	watchWait  = 5 * time.Second // that a fetch waits for something new
)

// Looking says how somebody looks on.
type Looking struct {
	Last           int64 // messages before each partition's end to begin with
	Most           int64 // messages that a partition may be behind before some are passed over
	BytesPerSecond int64 // of values, all partitions together; 0: as many as there are
}

// Watch is for those who only look on: it reads a topic without a group until ctx ends. Where it falls too far behind, it passes over what is
// between and tells skipped how many messages. fn is called from one goroutine at a time and must not keep the batch; what is not a batch is passed over.
func (k *Kafka) Watch(ctx context.Context, topic string, l Looking, fn func(*schema.Batch), skipped func(messages int64)) error {
	n, err := k.partitions(ctx, topic)
	if err != nil {
		return fmt.Errorf("watch %s: %w", topic, err)
	}
	var mu sync.Mutex
	var d schema.Decoder
	var b schema.Batch
	var wg sync.WaitGroup
	for p := range n {
		tp := TopicPartition{topic, p}
		wg.Go(func() {
			next, back := int64(-1), l.Last
			for try := 0; ctx.Err() == nil; {
				messages, high, err := []fetched(nil), int64(0), error(nil)
				if next < 0 {
					var first int64
					if first, high, err = k.bounds(ctx, tp); err == nil {
						next, back = max(first, high-back), 0
					}
				}
				if err == nil {
					messages, high, err = k.fetch(ctx, tp, next, watchBytes, watchWait)
				}
				if err != nil {
					if errors.Is(err, kafka.OffsetOutOfRange) {
						next = -1 // retention passed it, or the topic was made anew: on from its end
					}
					_ = pause(ctx, ctx, k.backoff(ctx, try, err))
					try++
					continue
				}
				try = 0
				bytes := 0
				mu.Lock()
				for i := range messages {
					bytes += len(messages[i].value)
					if decode(&d, tp, &messages[i], &b, nil) == nil && ctx.Err() == nil {
						fn(&b)
					}
					next = messages[i].offset + 1
				}
				if behind := high - next; behind > l.Most {
					skipped(behind)
					next = high
				}
				mu.Unlock()
				if l.BytesPerSecond > 0 {
					_ = pause(ctx, ctx, time.Duration(float64(bytes*n)/float64(l.BytesPerSecond)*float64(time.Second)))
				}
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// TopicOffsets are the first offset that each partition of the topics still has and the next to be written. Topics that are not there are left out.
func (k *Kafka) TopicOffsets(ctx context.Context, topics ...string) (map[TopicPartition][2]int64, error) {
	m, err := k.client.Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
	if err != nil {
		return nil, fmt.Errorf("topics of kafka at %v: %w", k.cfg.Brokers, err)
	}
	ask := map[string][]kafka.OffsetRequest{}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			ask[t.Name] = append(ask[t.Name], kafka.FirstOffsetOf(p.ID), kafka.LastOffsetOf(p.ID))
		}
	}
	ends := map[TopicPartition][2]int64{}
	if len(ask) == 0 {
		return ends, nil
	}
	res, err := k.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: ask})
	if err != nil {
		return nil, fmt.Errorf("offsets of kafka at %v: %w", k.cfg.Brokers, err)
	}
	for topic, partitions := range res.Topics {
		for _, p := range partitions {
			if p.Error == nil {
				ends[TopicPartition{topic, p.Partition}] = [2]int64{p.FirstOffset, p.LastOffset}
			}
		}
	}
	return ends, nil
}

// GroupOffsets are the offsets that a group committed; partitions without one are left out.
func (k *Kafka) GroupOffsets(ctx context.Context, group string, of map[TopicPartition][2]int64) (map[TopicPartition]int64, error) {
	ask := map[string][]int{}
	for tp := range of {
		ask[tp.Topic] = append(ask[tp.Topic], tp.Partition)
	}
	if len(ask) == 0 {
		return nil, nil
	}
	res, err := k.offsetFetch(ctx, group, ask)
	if errors.Is(err, kafka.GroupIdNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", group, err)
	}
	at := map[TopicPartition]int64{}
	for topic, partitions := range res.Topics {
		for _, p := range partitions {
			if p.Error == nil && p.CommittedOffset >= 0 {
				at[TopicPartition{topic, p.Partition}] = p.CommittedOffset
			}
		}
	}
	return at, nil
}

// offsetFetch asks a group's coordinator, and for some seconds again where another broker has become that, or the group's topic is only being made.
func (k *Kafka) offsetFetch(ctx context.Context, group string, topics map[string][]int) (*kafka.OffsetFetchResponse, error) {
	for try := 0; ; try++ {
		res, err := k.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: topics})
		if err == nil {
			err = res.Error
		}
		moving := errors.Is(err, kafka.NotCoordinatorForGroup) || errors.Is(err, kafka.GroupCoordinatorNotAvailable) || errors.Is(err, kafka.GroupLoadInProgress)
		if !moving || try == 6 || pause(ctx, ctx, backoff(try)) != nil {
			return res, err
		}
	}
}
