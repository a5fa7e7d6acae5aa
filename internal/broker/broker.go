// Package broker runs the embedded broker of `weir up`: franz-go's kfake, which speaks Kafka's protocol in this
// process and keeps its state on disk. It is one node without replication: for a first run and for tests, not for
// data that matters.
package broker

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Broker is a running embedded broker.
type Broker struct{ c *kfake.Cluster }

// Start opens or makes the state in dir and listens on loopback; port 0 takes any. retention bounds each partition, in bytes.
func Start(dir string, port int, retention int64) (*Broker, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"log.retention.bytes": strconv.FormatInt(retention, 10)}))
	if err != nil {
		return nil, fmt.Errorf("embedded broker in %s on port %d: %w (where the port is taken, set embedded.port, or name the Kafka that has it in WEIR_KAFKA_BROKERS)", dir, port, err)
	}
	return &Broker{c}, nil
}

// Addrs are the addresses to give to clients.
func (b *Broker) Addrs() []string { return b.c.ListenAddrs() }

// Close stops the broker; its state stays.
func (b *Broker) Close() { b.c.Close() }
