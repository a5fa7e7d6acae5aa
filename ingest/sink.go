package ingest

import (
	"context"
	"errors"

	"weir/schema"
)

// Checkpoint is what a partition's work can go on from: the next Kafka offset, and the interval state at that offset.
type Checkpoint struct {
	NextOffset int64
	Seen       []byte // opaque; set only for sinks that keep their own commit
}

// Sink takes the records of partitions. Methods of different partitions are called from different goroutines.
type Sink interface {
	// Open is called when a partition is assigned, and again after an error. A sink that keeps its own commit
	// returns its last Checkpoint, or nil when it has none; other sinks return nil.
	Open(ctx context.Context, tp TopicPartition) (PartitionSink, *Checkpoint, error)
}

// PartitionSink takes the records of one partition, from one goroutine, in order.
//
// An error from Write or Commit that is not Poison ends this PartitionSink: it is closed, and the sink is opened
// again at the last commit after a pause.
type PartitionSink interface {
	// Write takes records that this consumer was not given before. The batch's memory is valid until it returns.
	Write(ctx context.Context, b *schema.Batch) error
	// Commit returns nil only when all that was written is durable. Kafka's offsets are committed after that.
	Commit(ctx context.Context, cp Checkpoint) error
	// Close abandons what is not committed.
	Close() error
}

// Pacer is a PartitionSink that may want a commit before the consumer's interval and bytes ask for one. It is asked at least four times a second.
type Pacer interface{ CommitDue() bool }

// Ticker is a PartitionSink that has something to do also when nothing comes. Tick is called after every fetch, at least every 250 ms;
// caughtUp says that Kafka had no more. Where it returns true a commit follows, whether or not anything was written.
type Ticker interface {
	Tick(ctx context.Context, caughtUp bool) (commit bool, err error)
}

type poison struct{ error }

func (p poison) Unwrap() error { return p.error }

// Poison marks an error as one that trying again cannot mend: the batch goes to weir.deadletter and the rest goes on.
func Poison(err error) error { return poison{err} }

func isPoison(err error) bool { var p poison; return errors.As(err, &p) }
