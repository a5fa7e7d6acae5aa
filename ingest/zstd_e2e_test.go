//go:build e2e

package ingest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"weir/internal/bench/loglines"
)

// TestRealZstd lets a real broker and readers of the Java and the C library take what the producer compressed. The broker looks into what it
// takes, and on one of the topics compresses it anew.
func TestRealZstd(t *testing.T) {
	k := stackKafka(t)
	brokers := strings.Join(k.cfg.Brokers, ",")
	for _, compression := range []string{"producer", "lz4"} {
		t.Run(compression, func(t *testing.T) {
			topic := fmt.Sprint("zstd-", compression, "-", time.Now().UnixNano())
			plan, err := PlanTopics(t.Context(), k, []TopicSpec{{topic, 1, 1, map[string]string{"compression.type": compression}}})
			if err != nil {
				t.Fatal(err)
			}
			if err := ApplyTopics(t.Context(), k, plan); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				_, _ = k.client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
			})
			r := rand.New(rand.NewPCG(1, 2))
			var want bytes.Buffer
			n := 0
			for _, size := range []int{1, 20, 1000, 100_000, 800_000} {
				var records []kafka.Record
				for sum := 0; sum < size; n++ {
					line := loglines.Text(r, time.UnixMilli(int64(n)), 1, n)
					records = append(records, kafka.Record{Value: kafka.NewBytes(line)})
					want.Write(append(line, '\n'))
					sum += len(line)
				}
				if err := k.produce(t.Context(), TopicPartition{topic, 0}, records, 10*time.Second); err != nil {
					t.Fatal(err)
				}
			}
			read := func(name string, cmd *exec.Cmd) {
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				if got, err := cmd.Output(); err != nil || !bytes.Equal(got, want.Bytes()) {
					t.Errorf("%s: %d bytes of %d came, %v: %s", name, len(got), want.Len(), err, stderr.Bytes())
				}
			}
			read("Java", kafkaJava(t, "testdata/Consume.java", brokers, topic, fmt.Sprint(n)))
			if kcat, err := exec.LookPath("kcat"); err == nil {
				read("kcat", exec.CommandContext(t.Context(), kcat, "-C", "-q", "-e", "-b", brokers, "-t", topic, "-o", "beginning"))
			}
		})
	}
}
