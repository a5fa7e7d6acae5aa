package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
)

const changelogTopic = "weir.changelog.test"

func changelogKafka(t *testing.T) *Kafka {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, changelogTopic))
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

// openLog restores a changelog into the list of what its commits hold.
func openLog(t *testing.T, k *Kafka, partition int) (*Changelog, []string) {
	t.Helper()
	var state []string
	c, err := OpenChangelog(t.Context(), k, TopicPartition{changelogTopic, partition}, func(snapshot bool, chunks [][]byte) error {
		if snapshot {
			state = nil
		}
		if whole := string(bytes.Join(chunks, nil)); whole != "" {
			state = append(state, strings.Split(strings.TrimSuffix(whole, ";"), ";")...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, state
}

// compact copies what log compaction would leave of a partition to another one; lag entries at the end stay as they are.
func compact(t *testing.T, k *Kafka, from, to, lag int) {
	t.Helper()
	_, end, err := k.bounds(t.Context(), TopicPartition{changelogTopic, from})
	if err != nil {
		t.Fatal(err)
	}
	var all []fetched
	for at := int64(0); at < end; {
		messages, _, err := k.fetch(t.Context(), TopicPartition{changelogTopic, from}, at, 8<<20, fetchWait)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, messages...)
		at = all[len(all)-1].offset + 1
	}
	last := map[string]int64{}
	for i := range all[:max(0, len(all)-lag)] {
		last[all[i].key] = all[i].offset
	}
	for i := range all {
		if i < len(all)-lag && (last[all[i].key] != all[i].offset || len(all[i].value) == 0) {
			continue
		}
		record := kafka.Record{Key: kafka.NewBytes([]byte(all[i].key))}
		if len(all[i].value) > 0 {
			record.Value = kafka.NewBytes(all[i].value)
		}
		if _, err := k.produceAt(t.Context(), TopicPartition{changelogTopic, to}, []kafka.Record{record}, requestTimeout); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChangelogModel compares restored states with a list kept beside, over random commits, snapshots, crashes within commits, and compactions.
func TestChangelogModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			k := changelogKafka(t)
			c, _ := openLog(t, k, 0)
			var want []string
			n := 0
			for range 60 {
				var chunks [][]byte
				var entries []string
				for range rnd.IntN(4) {
					entry := fmt.Sprintf("e%d", n)
					n++
					entries, chunks = append(entries, entry), append(chunks, []byte(entry+";"))
				}
				snapshot := rnd.IntN(8) == 0
				if snapshot {
					entries = append(append([]string{}, want...), entries...)
					chunks = [][]byte{[]byte(strings.Join(append(append([]string{}, want...), entries[len(want):]...), ";") + ";")}
					if len(entries) == 0 {
						chunks = nil
					}
				}
				crash := rnd.IntN(6) == 0 && len(chunks) > 1
				if crash { // all but the last entry is there
					torn := *c
					value := append([]byte{entryVersion, 0, byte(c.commit + 1), 0}, "torn"...)
					if c.commit+1 < 128 {
						if err := torn.put(t.Context(), []kafka.Record{{Key: kafka.NewBytes(fmt.Appendf(nil, "%d/%d", c.epoch, c.seq)), Value: kafka.NewBytes(value)}}); err != nil {
							t.Fatal(err)
						}
					}
				} else {
					if err := c.Commit(t.Context(), snapshot, chunks...); err != nil {
						t.Fatal(err)
					}
					if snapshot {
						want = nil
					}
					want = append(want, entries...)
				}
				if crash || rnd.IntN(5) == 0 {
					var got []string
					if c, got = openLog(t, k, 0); !reflect.DeepEqual(got, want) {
						t.Fatalf("restored %v, want %v", got, want)
					}
				}
			}
			compact(t, k, 0, 1, 0)
			compact(t, k, 0, 2, rnd.IntN(40))
			for partition := 1; partition <= 2; partition++ {
				if _, got := openLog(t, k, partition); !reflect.DeepEqual(got, want) {
					t.Errorf("after compaction %v, want %v", got, want)
				}
			}
		})
	}
}

func TestChangelogFencesFormerOwner(t *testing.T) {
	k := changelogKafka(t)
	old, _ := openLog(t, k, 0)
	if err := old.Commit(t.Context(), false, []byte("a;")); err != nil {
		t.Fatal(err)
	}
	now, got := openLog(t, k, 0)
	if len(got) != 1 {
		t.Fatalf("the new owner has %v", got)
	}
	if err := old.Commit(t.Context(), false, []byte("zombie;")); !errors.Is(err, ErrFenced) {
		t.Errorf("the former owner's commit: %v", err)
	}
	if err := now.Commit(t.Context(), false, []byte("b;")); !errors.Is(err, ErrFenced) {
		t.Errorf("a commit behind the former owner's entry: %v", err)
	}
	// What the new owner wrote holds, although it could not know; it opens the changelog anew and goes on.
	if _, got = openLog(t, k, 0); !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("restored %v", got)
	}
}

func TestChangelogSnapshotsDeleteWhatTheyReplace(t *testing.T) {
	k := changelogKafka(t)
	c, _ := openLog(t, k, 0)
	for range 5 {
		if err := c.Commit(t.Context(), false, []byte("x;")); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Commit(t.Context(), true, []byte("s;")); err != nil {
		t.Fatal(err)
	}
	compact(t, k, 0, 1, 0)
	if _, end, _ := k.bounds(t.Context(), TopicPartition{changelogTopic, 1}); end != 1 {
		t.Errorf("%d entries are left after a compaction, want the snapshot alone", end)
	}
}

func TestChangelogSaysWhatIsDamaged(t *testing.T) {
	k := changelogKafka(t)
	c, _ := openLog(t, k, 0)
	c.commit = 5 // as if commits had been lost
	if err := c.Commit(t.Context(), false, []byte("x;")); err != nil {
		t.Fatal(err)
	}
	none := func(bool, [][]byte) error { return nil }
	if _, err := OpenChangelog(t.Context(), k, TopicPartition{changelogTopic, 0}, none); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a changelog with a gap: %v", err)
	}
	if _, err := OpenChangelog(t.Context(), k, TopicPartition{changelogTopic, 7}, none); err == nil || !strings.Contains(err.Error(), "fewer than") {
		t.Errorf("a partition too few: %v", err)
	}
}

func TestChunksHoldEntriesOfAnySize(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var chunks Chunks
	var want [][]byte
	for _, size := range []int{0, 1, 127, 128, ChangelogChunk - 2, ChangelogChunk - 1, ChangelogChunk, 3*ChangelogChunk + 7, 5, 300_000, 300_000, 0} {
		entry := make([]byte, size)
		for i := range entry {
			entry[i] = byte(rnd.Uint32())
		}
		chunks.Add(entry)
		want = append(want, bytes.Clone(entry))
	}
	all := chunks.All()
	for _, c := range all {
		if len(c) > ChangelogChunk+16 {
			t.Errorf("a chunk of %d bytes", len(c))
		}
	}
	at := 0
	if err := Entries(all, func(entry []byte) error {
		if !bytes.Equal(entry, want[at]) {
			t.Errorf("entry %d differs", at)
		}
		at++
		return nil
	}); err != nil || at != len(want) {
		t.Errorf("%d of %d entries: %v", at, len(want), err)
	}
	if err := Entries(all[:len(all)-1], func([]byte) error { return nil }); err == nil {
		t.Error("chunks that are cut off are taken")
	}
	if again := chunks.All(); len(again) != 0 {
		t.Errorf("%d chunks are left", len(again))
	}
}
