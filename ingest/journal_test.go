package ingest

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"weir/schema"
)

func journalKafka(t *testing.T) *Kafka {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, schema.TopicControl))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg := DefaultKafkaConfig()
	cfg.Brokers = c.ListenAddrs()
	k, err := NewKafka(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// TestJournalHasOneWriter lets two processes write: who is overtaken is told so, and what both wrote is there.
func TestJournalHasOneWriter(t *testing.T) {
	k := journalKafka(t)
	read := func(j *Journal) map[string]string {
		t.Helper()
		all := map[string]string{}
		if err := j.Read(t.Context(), func(key string, value []byte) error {
			if all[key] = string(value); value == nil {
				delete(all, key)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	first, second := k.Journal(schema.TopicControl), k.Journal(schema.TopicControl)
	if got := read(first); len(got) != 0 {
		t.Errorf("a new journal holds %v", got)
	}
	for i := range 3 {
		if err := first.Append(t.Context(), JournalEntry{"a", fmt.Append(nil, i)}, JournalEntry{"b", []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := read(second), map[string]string{"a": "2", "b": "x"}; !maps.Equal(got, want) {
		t.Errorf("the second reads %v", got)
	}
	if err := second.Append(t.Context(), JournalEntry{"b", nil}); err != nil {
		t.Fatal(err)
	}
	if err := first.Append(t.Context(), JournalEntry{"a", []byte("late")}); !errors.Is(err, ErrOvertaken) {
		t.Errorf("the first was not told that it was overtaken: %v", err)
	}
	if err := second.Append(t.Context(), JournalEntry{"a", []byte("second")}); !errors.Is(err, ErrOvertaken) {
		t.Errorf("the second was not told of the late entry: %v", err)
	}
	if got, want := read(first), map[string]string{"a": "second"}; !maps.Equal(got, want) {
		t.Errorf("the first reads %v", got)
	}
	if _, err := k.Journal("none").Claim(t.Context(), JournalEntry{"claim", nil}); err == nil || !strings.Contains(err.Error(), "weir topics apply") {
		t.Errorf("a topic that is not there: %v", err)
	}
	one, err := first.Claim(t.Context(), JournalEntry{"claim", []byte("first")})
	if err != nil {
		t.Fatal(err)
	}
	two, err := second.Claim(t.Context(), JournalEntry{"claim", []byte("second")})
	if err != nil || two <= one {
		t.Errorf("claims %d, then %d: %v", one, two, err)
	}
	if got, want := read(first), map[string]string{"a": "second", "claim": "second"}; !maps.Equal(got, want) {
		t.Errorf("the first reads %v", got)
	}
	if err := first.Append(t.Context(), JournalEntry{"c", []byte("y")}); err != nil {
		t.Errorf("after reading again: %v", err)
	}
}

// TestOneMember has the oldest member own everything, whatever order the members come in.
func TestOneMember(t *testing.T) {
	members := []kafka.GroupMember{{ID: "c", UserData: []byte{0, 2}}, {ID: "b", UserData: []byte{0, 1}}, {ID: "a", UserData: []byte{0, 1}}, {ID: "d", UserData: []byte{1, 0}}}
	partitions := []kafka.Partition{{Topic: "x", ID: 0}, {Topic: "x", ID: 1}, {Topic: "y", ID: 0}}
	got := oldest{}.AssignGroups(members, partitions)
	if len(got) != 4 || len(got["a"]["x"]) != 2 || len(got["a"]["y"]) != 1 || len(got["b"])+len(got["c"])+len(got["d"]) != 0 {
		t.Errorf("%v", got)
	}
}
