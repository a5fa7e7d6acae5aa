package archiver

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/schema"
)

// TestBudget fills three partitions, of which the first holds most: its row group is written while another one is at work, and nothing is lost.
func TestBudget(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Root, cfg.BufferBytes = "file://"+dir, 1<<20
	a, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var parts []*partition
	for i := range 3 {
		s, _, err := a.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicLogs, Partition: i})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, s.(*partition))
	}
	held := func() (n int64) {
		for _, p := range parts {
			n += p.held.Load()
		}
		return n
	}
	written := make([]int64, len(parts))
	write := func(i int) {
		t.Helper()
		b := batch(written[i])
		b.Partition = i
		written[i]++
		if err := parts[i].Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if held() > cfg.BufferBytes {
			t.Fatalf("%d bytes are held", held())
		}
	}
	for range 12 {
		write(0)
	}
	largest := parts[0].largest.Load()
	for i := 0; parts[0].seq == 0 && i < 20; i++ {
		write(1 + i%2)
	}
	if parts[0].seq == 0 || parts[0].largest.Load() > largest || parts[1].seq+parts[2].seq > 0 {
		t.Errorf("files of the partitions: %d, %d, %d", parts[0].seq, parts[1].seq, parts[2].seq)
	}
	total := int64(0)
	for i, p := range parts {
		total += written[i]
		if err := errors.Join(p.Commit(t.Context(), ingest.Checkpoint{NextOffset: written[i]}), p.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if held() != 0 {
		t.Errorf("%d bytes are held after the commits", held())
	}
	n := 0
	for _, times := range localIDs(t, dir) {
		n += times
	}
	if n != int(total)*300 {
		t.Errorf("%d records of %d", n, total*300)
	}
}

// TestFlushFails lets the store fail while one partition writes another's row group: the other one is told, and it alone.
func TestFlushFails(t *testing.T) {
	dir := t.TempDir()
	a := testArchiver(t, "file://"+dir)
	a.cfg.RowGroupRows = 1 << 20
	full, _, err := a.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicLogs, Partition: 0})
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := a.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicLogs, Partition: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := full.Write(t.Context(), batch(0)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "_weir/tmp/weir.logs/0")); err != nil {
		t.Fatal(err)
	}
	a.cfg.BufferBytes = 1
	small := batch(0)
	small.Records = small.Records[:1]
	if err := other.Write(t.Context(), small); err != nil {
		t.Errorf("the partition that is well: %v", err)
	}
	if err := full.Commit(t.Context(), ingest.Checkpoint{NextOffset: 1}); err == nil {
		t.Error("the partition whose folder is gone has committed")
	}
}

// TestCommitDue walks the clock over the end of an hour.
func TestCommitDue(t *testing.T) {
	hour := time.Unix(1764054000, 0) // batch's first; it has records of two hours more
	for _, c := range []struct {
		name           string
		written, asked time.Duration
		due            bool
	}{
		{"within the hour", 10 * time.Minute, 59 * time.Minute, false},
		{"the hour has just ended", 10 * time.Minute, 61 * time.Minute, false},
		{"the hour has ended", 10 * time.Minute, 62 * time.Minute, true},
		{"long ended", 10 * time.Minute, 90 * time.Minute, true},
		{"late, within the time for it", 61 * time.Minute, 62 * time.Minute, true},
		{"late", 63 * time.Minute, 119 * time.Minute, false},
		{"late for the first hour, in time for the second", 63 * time.Minute, 122 * time.Minute, true},
		{"very late", 20 * time.Hour, 40 * time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := testArchiver(t, "file://"+t.TempDir())
			a.cfg.OpenHours = 24
			a.now = func() time.Time { return hour.Add(c.written) }
			s, _, err := a.Open(t.Context(), tp)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Write(t.Context(), batch(0)); err != nil {
				t.Fatal(err)
			}
			a.now = func() time.Time { return hour.Add(c.asked) }
			if due := s.(ingest.Pacer).CommitDue(); due != c.due {
				t.Errorf("due %v, want %v", due, c.due)
			}
			if err := s.Commit(t.Context(), ingest.Checkpoint{NextOffset: 1}); err != nil {
				t.Fatal(err)
			}
			if s.(ingest.Pacer).CommitDue() {
				t.Error("due after the commit")
			}
		})
	}
}

func TestConfigBounds(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"row_group_rows": func(c *Config) { c.RowGroupRows = 1 }, "row_group_bytes": func(c *Config) { c.RowGroupBytes = 1 }, "buffer_bytes": func(c *Config) { c.BufferBytes = 0 },
		"open_hours": func(c *Config) { c.OpenHours = 0 }, "hour_close": func(c *Config) { c.HourClose = -1 },
	} {
		cfg := DefaultConfig()
		cfg.Root = "file:///x"
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || fmt.Sprint(err)[:len(want)] != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}
