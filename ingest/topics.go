package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"weir/schema"
)

// TopicSpec is a topic as it should be.
type TopicSpec struct {
	Name                    string
	Partitions, Replication int
	Config                  map[string]string
}

// TopicChange is one step of a plan. Create is false where the topic is there: then Note says how it differs, and nothing is done.
type TopicChange struct {
	Spec   TopicSpec
	Create bool
	Note   string
}

// DefaultTopics lists weir's topics, the compacted state topics of the groups that keep no commit of their own, those of tables, and the processor's changelogs.
func DefaultTopics(partitions, replication int) []TopicSpec {
	// With acks=all, this many replicas have a batch before the agent moves on; one may be away.
	durable := strconv.Itoa(max(1, replication-1))
	var specs []TopicSpec
	for _, name := range []string{schema.TopicLogs, schema.TopicEvents, schema.TopicSignals, schema.TopicActions, schema.TopicDeadLetter} {
		specs = append(specs, TopicSpec{name, partitions, replication, map[string]string{"retention.ms": "604800000", "min.insync.replicas": durable}})
	}
	for _, group := range []string{"indexer", "processor", "control", "notify", "notify.alerts"} {
		specs = append(specs, TopicSpec{StateTopic(group), partitions, replication, map[string]string{"cleanup.policy": "compact", "min.insync.replicas": durable}})
	}
	specs = append(specs, TopicSpec{schema.TopicPartials, partitions, replication, map[string]string{"retention.ms": "86400000", "min.insync.replicas": durable}})
	for _, input := range []string{schema.TopicLogs, schema.TopicEvents, schema.TopicPartials} {
		specs = append(specs, TopicSpec{schema.ChangelogPrefix + input, partitions, replication, map[string]string{"cleanup.policy": "compact", "segment.bytes": "67108864", "min.insync.replicas": durable}})
	}
	// One writer's journal: its entries must have one order, and each holds all of the decider's state.
	return append(specs, TopicSpec{schema.TopicControl, 1, replication, map[string]string{"cleanup.policy": "compact", "min.insync.replicas": durable, "max.message.bytes": "16777216"}})
}

// PlanTopics compares the specs with the cluster.
func PlanTopics(ctx context.Context, k *Kafka, specs []TopicSpec) ([]TopicChange, error) {
	m, err := k.client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, fmt.Errorf("read the topics of kafka at %v: %w", k.cfg.Brokers, err)
	}
	have := map[string]kafka.Topic{}
	for _, t := range m.Topics {
		have[t.Name] = t
	}
	var plan []TopicChange
	for _, s := range specs {
		t, ok := have[s.Name]
		c := TopicChange{Spec: s, Create: !ok, Note: "create"}
		if ok {
			c.Note = "is there"
			if n := len(t.Partitions); n != s.Partitions {
				c.Note = fmt.Sprintf("is there with %d partitions, not %d: left alone, because adding partitions would move sources", n, s.Partitions)
			}
		}
		plan = append(plan, c)
	}
	return plan, nil
}

// ApplyTopics creates what the plan says is missing, and returns when every new partition has a leader that answers. A topic
// that appeared meanwhile is not an error.
func ApplyTopics(ctx context.Context, k *Kafka, plan []TopicChange) error {
	var topics []kafka.TopicConfig
	for _, c := range plan {
		if !c.Create {
			continue
		}
		t := kafka.TopicConfig{Topic: c.Spec.Name, NumPartitions: c.Spec.Partitions, ReplicationFactor: c.Spec.Replication}
		for _, key := range slices.Sorted(maps.Keys(c.Spec.Config)) {
			t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: key, ConfigValue: c.Spec.Config[key]})
		}
		topics = append(topics, t)
	}
	if len(topics) == 0 {
		return nil
	}
	res, err := k.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: topics})
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	for name, err := range res.Errors {
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			errs = append(errs, fmt.Errorf("create topic %s: %w", name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, t := range topics {
		for p := range t.NumPartitions {
			if err := k.led(ctx, TopicPartition{t.Topic, p}); err != nil {
				return err
			}
		}
	}
	return nil
}

// led waits until the partition's leader answers.
func (k *Kafka) led(ctx context.Context, tp TopicPartition) error {
	const limit = 30 * time.Second
	for end := time.Now().Add(limit); ; {
		_, _, err := k.bounds(ctx, tp)
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("new topic has no leader after %s: %w", limit, err)
		}
		if err := pause(ctx, ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
