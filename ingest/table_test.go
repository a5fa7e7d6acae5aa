package ingest

import (
	"bytes"
	"fmt"
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

func TestTable(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "weir.state.table"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg := DefaultKafkaConfig()
	cfg.Brokers = c.ListenAddrs()
	k, err := NewKafka(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	table := k.Table("weir.state.table")
	has := func(partition int, want map[string]string) {
		t.Helper()
		rows, err := table.Load(t.Context(), partition)
		got := map[string]string{}
		for k, v := range rows {
			got[k] = string(v)
		}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("partition %d: %v: %.200v, want %.200v", partition, err, got, want)
		}
	}
	has(0, nil)
	for _, rows := range []map[string][]byte{{"a": []byte("1"), "b": []byte("2")}, {"a": []byte("3"), "b": nil, "never": nil}, {}} {
		if err := table.Save(t.Context(), 0, rows); err != nil {
			t.Fatal(err)
		}
	}
	has(0, map[string]string{"a": "3"})
	has(1, nil)
	has(2, map[string]string{"a": "3"}) // of more partitions than the table has
	large, want := map[string][]byte{}, map[string]string{"a": "3"}
	for i := range 30 {
		name := fmt.Sprint("large", i)
		large[name] = bytes.Repeat([]byte{byte('a' + i)}, 100<<10)
		want[name] = string(large[name])
	}
	if err := table.Save(t.Context(), 0, large); err != nil { // more than a request takes
		t.Fatal(err)
	}
	has(0, want)
	if _, err := k.Table("weir.none").Load(t.Context(), 0); err == nil {
		t.Error("a topic that is not there was read")
	}
}
