//go:build e2e

package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"

	"weir/internal/certtest"
	"weir/schema"
)

// securedKafka runs a real broker with a SASL listener over TLS and one for mutual TLS, on which only users with an
// access control entry may do anything.
func securedKafka(t *testing.T, ca *certtest.Authority) (sasl, mutual string) {
	t.Helper()
	dir := t.TempDir()
	ca.Issue("broker")
	saslPort, mutualPort, controller := freePort(t), freePort(t), freePort(t)
	const login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[3]d
listeners=SASL_SSL://127.0.0.1:%[1]d,SSL://127.0.0.1:%[2]d,CONTROLLER://127.0.0.1:%[3]d
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=%[4]s username="admin" password="admin-secret";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=%[4]s;
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_shipper="s3cret";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:ANONYMOUS;User:shipper
ssl.keystore.type=PEM
ssl.keystore.location=%[5]s/broker.both.pem
ssl.truststore.type=PEM
ssl.truststore.location=%[6]s
listener.name.ssl.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT
log.dirs=%[7]s/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=4194304
`, saslPort, mutualPort, controller, login, ca.Dir, ca.CAFile, dir)
	var scram []string
	for _, user := range []string{"SCRAM-SHA-512=[name=admin,password=admin-secret]", "SCRAM-SHA-512=[name=shipper,password=s3cret]", "SCRAM-SHA-256=[name=shipper,password=s3cret]", "SCRAM-SHA-512=[name=stranger,password=s3cret]"} {
		scram = append(scram, "--add-scram", user)
	}
	formatBroker(t, dir, properties, scram...).start()
	return fmt.Sprintf("127.0.0.1:%d", saslPort), fmt.Sprintf("127.0.0.1:%d", mutualPort)
}

// roundTrip makes a topic, writes a batch and reads it back.
func roundTrip(ctx context.Context, cfg KafkaConfig, topic string) error {
	k, err := NewKafka(cfg)
	if err != nil {
		return err
	}
	defer k.Close()
	plan, err := PlanTopics(ctx, k, []TopicSpec{{topic, 1, 1, nil}})
	if err != nil {
		return err
	}
	if err := ApplyTopics(ctx, k, plan); err != nil {
		return err
	}
	p, err := NewProducer(k, DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(running) }()
	defer func() { stop(); <-done }()
	var e schema.Encoder
	e.Reset("s", schema.Incarnation{}, nil)
	e.Append(&schema.Record{Body: "over a secured line"})
	if err := p.Send(ctx, Message{Topic: topic, Source: "s", End: schema.Position{Offset: 1}, Count: 1, Value: e.Bytes()}); err != nil {
		return err
	}
	if err := p.Flush(ctx); err != nil {
		return err
	}
	found := errors.New("found")
	err = k.Tail(ctx, []string{topic}, true, func(b *schema.Batch) error {
		if len(b.Records) == 1 && b.Records[0].Body == "over a secured line" {
			return found
		}
		return errors.New("another record")
	}, nil)
	if !errors.Is(err, found) {
		return fmt.Errorf("reading: %w", err)
	}
	return nil
}

// TestSecuredKafka writes and reads over each way of authentication that the configuration knows, and wants an error
// that says what is wrong where a credential is.
func TestSecuredKafka(t *testing.T) {
	dir := t.TempDir()
	ca := certtest.New(t, dir, "ca")
	other := certtest.New(t, t.TempDir(), "other-ca")
	cert, key := ca.Issue("shipper")
	saslAddr, mutualAddr := securedKafka(t, ca)
	t.Setenv("TEST_KAFKA_PASSWORD", "s3cret")
	t.Setenv("TEST_KAFKA_WRONG", "wrong")
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := func(addr string, tls *TLSConfig, sasl *SASLConfig) KafkaConfig {
		c := DefaultKafkaConfig()
		c.Brokers, c.TLS, c.SASL = []string{addr}, tls, sasl
		return c
	}
	trusted := &TLSConfig{CAFile: ca.CAFile}
	ready, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	good := config(saslAddr, trusted, &SASLConfig{Mechanism: "SCRAM-SHA-512", Username: "shipper", PasswordEnv: "TEST_KAFKA_PASSWORD"})
	for err := roundTrip(ready, good, "weir.first"); err != nil; err = roundTrip(ready, good, "weir.first") {
		if ready.Err() != nil {
			t.Fatalf("the broker does not come up: %v", err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	for _, c := range []struct {
		name string
		cfg  KafkaConfig
		want string // in the error; empty: it works
	}{
		{"SCRAM-SHA-512", good, ""},
		{"SCRAM-SHA-256, password from a file", config(saslAddr, trusted, &SASLConfig{Mechanism: "SCRAM-SHA-256", Username: "shipper", PasswordFile: file}), ""},
		{"PLAIN", config(saslAddr, trusted, &SASLConfig{Mechanism: "PLAIN", Username: "shipper", PasswordEnv: "TEST_KAFKA_PASSWORD"}), ""},
		{"mutual TLS", config(mutualAddr, &TLSConfig{CAFile: ca.CAFile, CertFile: cert, KeyFile: key}, nil), ""},
		{"wrong password", config(saslAddr, trusted, &SASLConfig{Mechanism: "SCRAM-SHA-512", Username: "shipper", PasswordEnv: "TEST_KAFKA_WRONG"}), "SASL Authentication Failed"},
		{"unknown authority", config(saslAddr, &TLSConfig{CAFile: other.CAFile}, good.SASL), "certificate signed by unknown authority"},
		{"no client certificate", config(mutualAddr, trusted, nil), "bad certificate"},
		{"no TLS", config(saslAddr, nil, good.SASL), ""},
		{"no permission", config(saslAddr, trusted, &SASLConfig{Mechanism: "SCRAM-SHA-512", Username: "stranger", PasswordEnv: "TEST_KAFKA_PASSWORD"}), "Authorization Failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := roundTrip(ctx, c.cfg, "weir."+strings.ReplaceAll(strings.ReplaceAll(c.name, " ", "-"), ",", ""))
			switch {
			case c.name == "no TLS":
				if err == nil {
					t.Error("a plain connection was taken")
				}
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q", err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "wrong-")) {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// TestWriteTakenAway: while a principal may not write to a topic the producer holds, and goes on when it may again.
func TestWriteTakenAway(t *testing.T) {
	dir := t.TempDir()
	ca := certtest.New(t, dir, "ca")
	saslAddr, _ := securedKafka(t, ca)
	t.Setenv("TEST_KAFKA_PASSWORD", "s3cret")
	as := func(user string) *Kafka {
		cfg := DefaultKafkaConfig()
		cfg.Brokers, cfg.TLS, cfg.SASL = []string{saslAddr}, &TLSConfig{CAFile: ca.CAFile}, &SASLConfig{Mechanism: "SCRAM-SHA-512", Username: user, PasswordEnv: "TEST_KAFKA_PASSWORD"}
		k, err := NewKafka(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(k.Close)
		return k
	}
	const topic = "weir.acl"
	admin, stranger := as("shipper"), as("stranger")
	waitFor(t, "the topic", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return ApplyTopics(ctx, admin, []TopicChange{{Spec: TopicSpec{topic, 1, 1, nil}, Create: true}}) == nil
	})
	grant := func() {
		t.Helper()
		res, err := admin.client.CreateACLs(t.Context(), &kafka.CreateACLsRequest{ACLs: []kafka.ACLEntry{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ResourcePatternType: kafka.PatternTypeLiteral,
			Principal: "User:stranger", Host: "*", Operation: kafka.ACLOperationTypeWrite, PermissionType: kafka.ACLPermissionTypeAllow}}})
		if err == nil {
			err = errors.Join(res.Errors...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	grant()
	p, err := NewProducer(stranger, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(p.Run)()
	var acked []int64
	send := func(at int64) {
		t.Helper()
		var e schema.Encoder
		e.Reset("s", schema.Incarnation{}, nil)
		e.Append(&schema.Record{Offset: at})
		m := Message{Topic: topic, Source: "s", Begin: schema.Position{Offset: at}, End: schema.Position{Offset: at + 1}, Count: 1, Value: e.Bytes(), Acked: func() { acked = append(acked, at) }}
		if err := p.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	flush := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := p.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	send(0)
	flush()
	taken, err := admin.client.DeleteACLs(t.Context(), &kafka.DeleteACLsRequest{Filters: []kafka.DeleteACLsFilter{{ResourceTypeFilter: kafka.ResourceTypeTopic, ResourceNameFilter: topic, ResourcePatternTypeFilter: kafka.PatternTypeLiteral,
		PrincipalFilter: "User:stranger", HostFilter: "*", Operation: kafka.ACLOperationTypeWrite, PermissionType: kafka.ACLPermissionTypeAllow}}})
	if err != nil || len(taken.Results) != 1 || taken.Results[0].Error != nil || len(taken.Results[0].MatchingACLs) != 1 {
		t.Fatal(err, taken)
	}
	refused := func() float64 { return testutil.ToFloat64(p.retries.WithLabelValues("not_authorized")) }
	last := int64(0)
	waitFor(t, "a refusal", func() bool { // the broker learns of the change a moment later
		last++
		send(last)
		return refused() > 0
	})
	waitFor(t, "tries again", func() bool { return refused() > 2 })
	grant()
	flush()
	for i, at := range acked {
		if int64(i) != at {
			t.Fatalf("acknowledged out of order: %v", acked)
		}
	}
	if len(acked) != int(last)+1 {
		t.Errorf("%d of %d batches acknowledged", len(acked), last+1)
	}
}
