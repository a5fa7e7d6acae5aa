package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"weir/schema"
)

// fetched is one Kafka message with its memory our own.
type fetched struct {
	offset  int64
	key     string
	value   []byte
	headers []protocol.Header
}

func (m *fetched) each(f func(string, []byte)) {
	for _, h := range m.headers {
		f(h.Key, h.Value)
	}
}

// fetch reads messages from offset on; the client checks each record batch's CRC. It returns the high watermark too.
// A fetch that reaches the end waits up to wait for more and may return none.
func (k *Kafka) fetch(ctx context.Context, tp TopicPartition, offset, maxBytes int64, wait time.Duration) (messages []fetched, high int64, err error) {
	res, err := k.client.Fetch(ctx, &kafka.FetchRequest{Topic: tp.Topic, Partition: tp.Partition, Offset: offset, MinBytes: 1, MaxBytes: maxBytes, MaxWait: wait})
	if err != nil {
		return nil, 0, err
	}
	if res.Error != nil {
		return nil, res.HighWatermark, res.Error
	}
	for {
		r, err := res.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return messages, res.HighWatermark, nil
		}
		if err != nil {
			return messages, res.HighWatermark, fmt.Errorf("read %s at offset %d: %w", tp, offset, err)
		}
		// Brokers return whole record batches: those that begin before the offset are skipped here.
		if r.Offset < offset {
			closeBytes(r)
			continue
		}
		m := fetched{offset: r.Offset, headers: r.Headers}
		key, err := kafka.ReadAll(r.Key)
		if err == nil {
			m.key = string(key)
			m.value, err = kafka.ReadAll(r.Value)
		}
		closeBytes(r)
		if err != nil {
			return messages, res.HighWatermark, fmt.Errorf("read %s at offset %d: %w", tp, r.Offset, err)
		}
		messages = append(messages, m)
	}
}

func closeBytes(r *protocol.Record) {
	if r.Key != nil {
		_ = r.Key.Close()
	}
	if r.Value != nil {
		_ = r.Value.Close()
	}
}

// bounds returns the first offset still there and the next to be written.
func (k *Kafka) bounds(ctx context.Context, tp TopicPartition) (first, next int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := k.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		tp.Topic: {kafka.FirstOffsetOf(tp.Partition), kafka.LastOffsetOf(tp.Partition)}}})
	if err != nil {
		return 0, 0, fmt.Errorf("offsets of %s: %w", tp, err)
	}
	for _, p := range res.Topics[tp.Topic] {
		if p.Partition == tp.Partition {
			if p.Error != nil {
				return 0, 0, fmt.Errorf("offsets of %s: %w", tp, p.Error)
			}
			return p.FirstOffset, p.LastOffset, nil
		}
	}
	return 0, 0, fmt.Errorf("offsets of %s: the broker did not name the partition", tp)
}

// Tail reads the topics live, without a group, until ctx ends or fn fails. fn is called from one goroutine at a time
// and must not keep the batch. A message that is not a batch is reported through bad, which may be nil.
func (k *Kafka) Tail(ctx context.Context, topics []string, fromStart bool, fn func(*schema.Batch) error, bad func(error)) error {
	from := map[TopicPartition]int64{}
	for _, topic := range topics {
		n, err := k.partitions(ctx, topic)
		if err != nil {
			return fmt.Errorf("tail %s: %w", topic, err)
		}
		for p := range n {
			tp := TopicPartition{topic, p}
			first, next, err := k.bounds(ctx, tp)
			if err != nil {
				return err
			}
			if from[tp] = next; fromStart {
				from[tp] = first
			}
		}
	}
	return k.Follow(ctx, from, fn, func(_ TopicPartition, _ int64, err error) {
		if bad != nil {
			bad(err)
		}
	})
}

// Ends returns the next offset of each of a topic's partitions.
func (k *Kafka) Ends(ctx context.Context, topic string) (map[TopicPartition]int64, error) {
	n, err := k.partitions(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("ends of %s: %w", topic, err)
	}
	ends := map[TopicPartition]int64{}
	for p := range n {
		tp := TopicPartition{topic, p}
		if _, ends[tp], err = k.bounds(ctx, tp); err != nil {
			return nil, err
		}
	}
	return ends, nil
}

// Follow reads partitions from the offsets given on, without a group and without dropping repeats, until ctx ends or fn fails. fn is called
// from one goroutine at a time and must not keep the batch. A message that is not a batch is reported through bad, as are
// failures to read, with the offset; reading goes on.
func (k *Kafka) Follow(ctx context.Context, from map[TopicPartition]int64, fn func(*schema.Batch) error, bad func(TopicPartition, int64, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel(nil)
	type item struct {
		tp  TopicPartition
		m   fetched
		err error
	}
	items := make(chan item)
	for tp, next := range from {
		reading.Go(func() {
			put := func(it item) {
				select {
				case items <- it:
				case <-ctx.Done():
				}
			}
			for try := 0; ctx.Err() == nil; {
				messages, _, err := k.fetch(ctx, tp, next, 8<<20, 500*time.Millisecond)
				if errors.Is(err, kafka.OffsetOutOfRange) {
					// Retention passed the offset, or the topic was made anew: what is there is read.
					var first int64
					if first, _, err = k.bounds(ctx, tp); err == nil {
						err = fmt.Errorf("%s: offset %d is not there; reading on at %d", tp, next, first)
						next = first
					}
				}
				if err != nil && ctx.Err() == nil {
					if try%8 == 0 {
						put(item{tp, fetched{offset: next}, err})
					}
					_ = pause(ctx, ctx, k.backoff(ctx, try, err))
					try++
					continue
				}
				try = 0
				for _, m := range messages {
					put(item{tp: tp, m: m})
					next = m.offset + 1
				}
			}
		})
	}
	var d schema.Decoder
	var b schema.Batch
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case it := <-items:
			if it.err == nil {
				it.err = decode(&d, it.tp, &it.m, &b, nil)
			}
			if it.err != nil {
				bad(it.tp, it.m.offset, it.err)
			} else if err := fn(&b); err != nil {
				return err
			}
		}
	}
}

// decode reads a message into b; an error names topic, partition and offset. Where info is not nil it gets the headers.
func decode(d *schema.Decoder, tp TopicPartition, m *fetched, b *schema.Batch, info *schema.Info) error {
	i, err := schema.ParseInfo(m.each)
	if err == nil {
		err = d.Decode(m.value, &i, b)
	}
	if err != nil {
		return fmt.Errorf("topic %s partition %d offset %d: not a weir batch: %w", tp.Topic, tp.Partition, m.offset, err)
	}
	b.Topic, b.Partition, b.KafkaOffset = tp.Topic, tp.Partition, m.offset
	if info != nil {
		*info = i
	}
	return nil
}
