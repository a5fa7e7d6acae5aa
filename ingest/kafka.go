// Package ingest is the one place where weir's delivery contract lives (docs/delivery.md): the ordered
// producer that never passes over a failed batch, and the consumer loop that gives every sink each record once.
package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"weir/internal/secret"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// KafkaConfig says how to reach the brokers.
type KafkaConfig struct {
	Brokers     []string    `yaml:"brokers"`
	ClientID    string      `yaml:"client_id"`
	Compression string      `yaml:"compression"` // zstd, lz4, snappy, gzip or none
	TLS         *TLSConfig  `yaml:"tls"`
	SASL        *SASLConfig `yaml:"sasl"`
}

// TLSConfig names PEM files. An empty CAFile means the system's authorities; CertFile and KeyFile are for mutual TLS.
type TLSConfig struct {
	CAFile     string `yaml:"ca_file"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"`
}

// SASLConfig gives credentials; the password comes from a file or an environment variable, never from the configuration itself.
type SASLConfig struct {
	Mechanism    string `yaml:"mechanism"` // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	PasswordEnv  string `yaml:"password_env"`
}

// DefaultKafkaConfig is a broker on this host, zstd.
func DefaultKafkaConfig() KafkaConfig {
	return KafkaConfig{Brokers: []string{"127.0.0.1:9092"}, ClientID: "weir", Compression: "zstd"}
}

var compressions = map[string]kafka.Compression{"zstd": kafka.Zstd, "lz4": kafka.Lz4, "snappy": kafka.Snappy, "gzip": kafka.Gzip, "none": 0}

// Validate joins what is wrong, each with its key.
func (c *KafkaConfig) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("brokers: at least one host:port is needed"))
	}
	for i, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			errs = append(errs, fmt.Errorf("brokers[%d]: %q is not host:port", i, b))
		}
	}
	if _, ok := compressions[c.Compression]; !ok {
		errs = append(errs, fmt.Errorf("compression: %q is not one of zstd, lz4, snappy, gzip, none", c.Compression))
	}
	if s := c.SASL; s != nil {
		switch s.Mechanism {
		case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		default:
			errs = append(errs, fmt.Errorf("sasl.mechanism: %q is not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", s.Mechanism))
		}
		if (s.PasswordFile == "") == (s.PasswordEnv == "") {
			errs = append(errs, errors.New("sasl: give one of password_file and password_env"))
		}
	}
	return errors.Join(errs...)
}

// requestTimeout bounds every request but the producer's: a broker that is frozen keeps its connections and never answers.
const requestTimeout = 15 * time.Second

// Kafka holds what all of a process's clients share.
type Kafka struct {
	cfg       KafkaConfig
	addr      net.Addr
	transport *kafka.Transport
	dialer    *kafka.Dialer
	client    *kafka.Client

	learning sync.Mutex
	learned  time.Time
}

// NewKafka prepares clients; it does not connect.
func NewKafka(cfg KafkaConfig) (*Kafka, error) {
	installZstd()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	tlsConfig, err := cfg.TLS.load()
	if err != nil {
		return nil, fmt.Errorf("kafka.tls: %w", err)
	}
	mechanism, err := cfg.SASL.mechanism()
	if err != nil {
		return nil, fmt.Errorf("kafka.sasl: %w", err)
	}
	k := &Kafka{cfg: cfg, addr: kafka.TCP(cfg.Brokers...)}
	k.transport = &kafka.Transport{ClientID: cfg.ClientID, DialTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second, MetadataTTL: 5 * time.Second, TLS: tlsConfig, SASL: mechanism}
	k.dialer = &kafka.Dialer{ClientID: cfg.ClientID, Timeout: 5 * time.Second, DualStack: true, TLS: tlsConfig, SASLMechanism: mechanism}
	k.client = &kafka.Client{Addr: k.addr, Transport: k.transport, Timeout: requestTimeout}
	return k, nil
}

// Close drops idle connections.
func (k *Kafka) Close() { k.transport.CloseIdleConnections() }

// backoff is how long to wait before a request that failed is made again. Where it may have gone to the wrong broker, the
// right one is asked for first, and the wait stays short: such a try costs the brokers little.
func (k *Kafka) backoff(ctx context.Context, try int, err error) time.Duration {
	switch errorKind(err) {
	case "no_leader", "unknown_topic", "connection":
		k.relearn(ctx)
		return backoff(min(try, 4))
	default:
		return backoff(try)
	}
}

// relearn has the transport ask the cluster who leads what, at most once a second, after a request went to the wrong broker.
// By itself it asks only when its MetadataTTL is over. There is no call for that: it asks after a request to create
// topics, and does so too where there are none in it.
func (k *Kafka) relearn(ctx context.Context) {
	if !k.learning.TryLock() {
		return
	}
	defer k.learning.Unlock()
	if time.Since(k.learned) < time.Second {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, _ = k.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{}) // the next try shows whether it helped
	k.learned = time.Now()
}

// End is the offset that the partition's next message gets.
func (k *Kafka) End(ctx context.Context, tp TopicPartition) (int64, error) {
	_, next, err := k.bounds(ctx, tp)
	return next, err
}

// Ping asks the cluster for its metadata.
func (k *Kafka) Ping(ctx context.Context) error {
	_, err := k.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{"__consumer_offsets"}})
	if err != nil {
		return fmt.Errorf("kafka at %v does not answer: %w", k.cfg.Brokers, err)
	}
	return nil
}

func (c *TLSConfig) load() (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	t, err := secret.TLS(c.CAFile)
	if err != nil {
		return nil, err
	}
	t.ServerName = c.ServerName
	if c.CertFile != "" || c.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file, key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func (c *SASLConfig) mechanism() (sasl.Mechanism, error) {
	if c == nil {
		return nil, nil
	}
	password, err := secret.Read(c.PasswordEnv, c.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	if password == "" {
		return nil, errors.New("the password is empty")
	}
	switch c.Mechanism {
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, c.Username, password)
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, c.Username, password)
	default:
		return plain.Mechanism{Username: c.Username, Password: password}, nil
	}
}
