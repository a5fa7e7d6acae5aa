//go:build e2e

package ingest

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// TestJournalOnKafka writes the largest entry that a state may become, and has one writer overtake another.
func TestJournalOnKafka(t *testing.T) {
	k := stackKafka(t)
	specs := DefaultTopics(1, 1)
	spec := specs[len(specs)-1]
	spec.Name = fmt.Sprintf("weir-test-journal-%d", time.Now().UnixNano())
	if err := ApplyTopics(t.Context(), k, []TopicChange{{Spec: spec, Create: true}}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_, _ = k.client.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{spec.Name}})
	}()
	noise := make([]byte, 8<<20)
	_, _ = rand.Read(noise)
	large := base64.StdEncoding.EncodeToString(noise)
	first, second := k.Journal(spec.Name), k.Journal(spec.Name)
	one, err := first.Claim(t.Context(), JournalEntry{"claim", []byte("first")})
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(string, []byte) error { return nil }
	if err := first.Read(t.Context(), nothing); err != nil {
		t.Fatal(err)
	}
	if err := first.Append(t.Context(), JournalEntry{"state/1", []byte(large)}, JournalEntry{"container/a", []byte("{}")}, JournalEntry{"container/b", nil}); err != nil {
		t.Fatal(err)
	}
	two, err := second.Claim(t.Context(), JournalEntry{"claim", []byte("second")})
	if err != nil || two <= one {
		t.Fatalf("claims %d, %d: %v", one, two, err)
	}
	got := ""
	if err := second.Read(t.Context(), func(key string, value []byte) error {
		if key == "state/1" {
			got = string(value)
		}
		return nil
	}); err != nil || got != large {
		t.Errorf("of %d bytes %d were read: %v", len(large), len(got), err)
	}
	if err := first.Append(t.Context(), JournalEntry{"state/1", []byte("late")}); !errors.Is(err, ErrOvertaken) {
		t.Errorf("the first was not told that it was overtaken: %v", err)
	}
}
