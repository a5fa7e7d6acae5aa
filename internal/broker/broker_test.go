package broker

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// TestKeepsItsData writes, stops the broker, starts it again, and reads.
func TestKeepsItsData(t *testing.T) {
	dir := t.TempDir()
	b, err := Start(dir, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	client := &kafka.Client{Addr: kafka.TCP(b.Addrs()...), Timeout: 5 * time.Second}
	if _, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: "x", NumPartitions: 1, ReplicationFactor: 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Produce(t.Context(), &kafka.ProduceRequest{Topic: "x", RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte("kept"))})}); err != nil {
		t.Fatal(err)
	}
	b.Close()

	if b, err = Start(dir, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: b.Addrs(), Topic: "x", MaxWait: 100 * time.Millisecond})
	defer r.Close()
	m, err := r.ReadMessage(t.Context())
	if err != nil || string(m.Value) != "kept" {
		t.Errorf("%q, %v", m.Value, err)
	}
}

func TestTakenPort(t *testing.T) {
	b, err := Start(t.TempDir(), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, text, err := net.SplitHostPort(b.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.TempDir(), port, 1<<20); err == nil || !strings.Contains(err.Error(), "embedded.port") {
		t.Errorf("two brokers on one port: %v", err)
	}
}
