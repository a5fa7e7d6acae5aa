//go:build e2e

package indexer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/indexer/elastictest"
	"weir/ingest"
	"weir/schema"
)

// certificate makes one that signs itself.
func certificate(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weir test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// load writes records of several partitions at once and commits now and then, as consumers do. It returns how many.
func load(t *testing.T, x *Indexer, partitions, batches, records int) int {
	t.Helper()
	var writers sync.WaitGroup
	for i := range partitions {
		p, _, err := x.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicLogs, Partition: i})
		if err != nil {
			t.Fatal(err)
		}
		p.(*partition).unsure = false // the stream is new: it is the bulk requests that are of interest
		writers.Go(func() {
			defer p.Close()
			for j := range batches {
				b := batch(records)
				b.Source = fmt.Sprintf("docker/n/c%d", i)
				for k := range b.Records {
					b.Records[k].Offset = int64(j*records + k)
					b.Records[k].Body = strings.Repeat(fmt.Sprint("words of ", i, j, k, " "), 30)
				}
				err := p.Write(t.Context(), b)
				if err == nil && j%5 == 4 {
					err = p.Commit(t.Context(), ingest.Checkpoint{})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	return partitions * batches * records
}

// expect wants so many documents in the stream, each once, and so many dead letters.
func (s *server) expect(stream string, documents int, dead *letters, want int) {
	s.t.Helper()
	ids := s.ids(stream)
	for id, n := range ids {
		if n != 1 {
			s.t.Errorf("%s is there %d times", id, n)
		}
	}
	if len(ids) != documents {
		s.t.Errorf("%d documents, want %d", len(ids), documents)
	}
	if len(dead.all) != want {
		s.t.Errorf("%d dead letters, want %d: %.500v", len(dead.all), want, dead.all)
	}
}

// TestRealTrouble has a node with one thread and a queue of one for writing, little memory for what is being indexed, a small limit on
// requests, security and lifecycles.
func TestRealTrouble(t *testing.T) {
	cert, key := certificate(t)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	node := elastictest.Start(t, elastictest.Options{HTTPS: true, Client: client, Lifecycle: true, Files: map[string][]byte{"node.pem": cert, "node.key": key}, Keystore: map[string]string{"bootstrap.password": "test-password"},
		Settings: "thread_pool.write.size: 1\nthread_pool.write.queue_size: 1\nindexing_pressure.memory.limit: 600kb\nhttp.max_content_length: 1mb\n" +
			"xpack.security.enabled: true\nxpack.security.http.ssl.enabled: true\nxpack.security.http.ssl.certificate: node.pem\nxpack.security.http.ssl.key: node.key\nxpack.security.transport.ssl.enabled: false\n"})
	s := &server{t: t, url: node.URL, client: client, auth: "Basic " + base64.StdEncoding.EncodeToString([]byte("elastic:test-password"))}
	password := filepath.Join(dir, "password")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(password, "test-password")
	trusted := func(c *Config) {
		c.CAFile, c.Username, c.PasswordFile = ca, "elastic", password
	}
	sub := func(name string, f func(t *testing.T, s *server, space string)) {
		t.Run(name, func(t *testing.T) {
			own := *s
			own.t = t
			f(t, &own, namespace("t"))
		})
	}

	sub("index apply", func(t *testing.T, s *server, _ string) {
		c := testCluster(t, node.URL, trusted, func(c *Config) { c.Lifecycle.WarmAfter, c.Lifecycle.ColdAfter = "2d", "10d" })
		p := plan(t, c)
		if differences(p) < 100 || len(p.Changes) != 4 {
			t.Fatalf("plan: %+v", p)
		}
		if err := c.ApplyIndex(t.Context(), p, false); err != nil {
			t.Fatal(err)
		}
		if p = plan(t, c); differences(p) != 0 {
			t.Errorf("applied twice, it changes %+v", p.Changes)
		}
		c = testCluster(t, node.URL, trusted)
		p = plan(t, c)
		if n := differences(p); n == 0 || len(p.Rollover) > 0 {
			t.Errorf("another lifecycle: %d differences, rollover %v", n, p.Rollover)
		}
		if err := c.ApplyIndex(t.Context(), p, false); err != nil {
			t.Fatal(err)
		}
		var template struct {
			Templates []struct {
				Template map[string]any `json:"index_template"`
			} `json:"index_templates"`
		}
		s.ask(http.MethodGet, "/_index_template/weir", "", &template)
		newer := template.Templates[0].Template
		newer["version"] = IndexVersion + 1
		body, _ := json.Marshal(newer)
		s.ask(http.MethodPut, "/_index_template/weir", string(body), nil)
		if err := c.ApplyIndex(t.Context(), plan(t, c), false); err == nil || !strings.Contains(err.Error(), "--force") {
			t.Errorf("a newer template: %v", err)
		}
		if err := c.ApplyIndex(t.Context(), plan(t, c), true); err != nil || differences(plan(t, c)) != 0 {
			t.Errorf("forced: %v", err)
		}
	})

	sub("rejections", func(t *testing.T, s *server, space string) {
		dead := &letters{}
		x := testIndexer(t, node.URL, dead, trusted, func(c *Config) { c.Namespace, c.Concurrency, c.BulkBytes = space, 32, 512<<10 })
		n := load(t, x, 16, 40, 50)
		s.expect("logs-weir.container-"+space, n, dead, 0)
		items, requests := testutil.ToFloat64(x.m.retries), testutil.ToFloat64(x.m.requests.WithLabelValues("429"))
		limit, bytes := x.pace.now()
		t.Logf("%d documents; %.0f documents and %.0f whole requests were refused and sent again; in the end %.1f requests at once of %.0f bytes", n, items, requests, limit, bytes)
		if items == 0 || requests == 0 {
			t.Error("the node did not refuse both documents and requests: the test shows nothing")
		}
	})

	sub("too large", func(t *testing.T, s *server, space string) {
		dead := &letters{}
		x := testIndexer(t, node.URL, dead, trusted, func(c *Config) { c.Namespace = space })
		noise := make([]byte, 1200<<10) // which gzip cannot make smaller
		if _, err := rand.Read(noise); err != nil {
			t.Fatal(err)
		}
		b := batch(20)
		b.Records[7].Body = base64.StdEncoding.EncodeToString(noise)
		p := open(t, x, 1)
		if err := p.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil {
			t.Fatal(err)
		}
		s.expect("logs-weir.container-"+space, 19, dead, 1)
		if len(dead.all) == 1 && (!strings.Contains(dead.all[0].Reason, "max_content_length") || dead.all[0].ID != b.ID(&b.Records[7])) {
			t.Errorf("letter of %s: %s", dead.all[0].ID, dead.all[0].Reason)
		}
	})

	sub("read-only", func(t *testing.T, s *server, space string) {
		stream := "logs-weir.container-" + space
		dead := &letters{}
		x := testIndexer(t, node.URL, dead, trusted, func(c *Config) { c.Namespace = space })
		first := batch(1)
		first.Source = "first"
		p := open(t, x, 9)
		if err := p.Write(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil {
			t.Fatal(err)
		}
		for _, block := range []string{"index.blocks.read_only_allow_delete", "index.blocks.write"} {
			s.ask(http.MethodPut, "/"+stream+"/_settings", `{"`+block+`":true}`, nil)
			before := testutil.ToFloat64(x.m.retries)
			done := make(chan struct{})
			b := batch(30)
			b.Source = block
			go func() {
				defer close(done)
				if err := p.Write(t.Context(), b); err != nil {
					t.Error(err)
				}
				if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil {
					t.Error(err)
				}
			}()
			await(t, "documents refused for now", func() bool { return testutil.ToFloat64(x.m.retries) >= before+60 })
			s.ask(http.MethodPut, "/"+stream+"/_settings", `{"`+block+`":null}`, nil)
			<-done
		}
		s.expect(stream, 61, dead, 0)
	})

	sub("wrong password", func(t *testing.T, s *server, space string) {
		dead := &letters{}
		file := filepath.Join(dir, "wrong")
		write(file, "wrong")
		x := testIndexer(t, node.URL, dead, trusted, func(c *Config) { c.Namespace, c.PasswordFile = space, file })
		if _, _, err := x.Open(t.Context(), tp); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("open with a wrong password: %v", err)
		}
		x.ready = true
		done := make(chan int, 1)
		go func() { done <- load(t, x, 2, 5, 10) }()
		await(t, "refused", func() bool { return testutil.ToFloat64(x.m.requests.WithLabelValues("401")) >= 3 })
		write(file, "test-password")
		s.expect("logs-weir.container-"+space, <-done, dead, 0)
	})

	sub("expired key", func(t *testing.T, s *server, space string) {
		dead := &letters{}
		file := filepath.Join(dir, "key")
		makeKey := func(name, expires string) {
			var made struct{ Encoded string }
			s.ask(http.MethodPost, "/_security/api_key", `{"name":"`+name+`"`+expires+`,"role_descriptors":{"weir":{"cluster":["monitor","manage_index_templates","read_ilm"],"indices":[{"names":["logs-weir.*"],"privileges":["auto_configure","create_doc","read","maintenance","view_index_metadata"]}]}}}`, &made)
			write(file, made.Encoded)
		}
		makeKey("short", `,"expiration":"3s"`)
		no := false
		x := testIndexer(t, node.URL, dead, func(c *Config) { c.CAFile, c.APIKeyFile, c.Namespace, c.Apply = ca, file, space, &no })
		p := open(t, x, 7) // asks first what is there
		if err := p.Write(t.Context(), batch(5)); err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context(), ingest.Checkpoint{}); err != nil || p.(*partition).unsure {
			t.Errorf("the privileges are not enough: %v", err)
		}
		n := load(t, x, 1, 1, 10)
		if n != 10 || testutil.ToFloat64(x.m.requests.WithLabelValues("401")) > 0 {
			t.Error("the key does not work before it expires")
		}
		expired := *s
		text, _ := os.ReadFile(file)
		expired.auth = "ApiKey " + strings.TrimSpace(string(text))
		await(t, "expired", func() bool { status, _ := expired.try(http.MethodGet, "/", "", nil); return status == 401 })
		done := make(chan int, 1)
		go func() { done <- load(t, x, 3, 5, 10) }()
		await(t, "refused", func() bool { return testutil.ToFloat64(x.m.requests.WithLabelValues("401")) >= 3 })
		makeKey("long", "")
		s.expect("logs-weir.container-"+space, <-done+5, dead, 0) // the first ten are among them
	})

	sub("no privilege", func(t *testing.T, s *server, space string) {
		dead := &letters{}
		file := filepath.Join(dir, "reader")
		var made struct{ ID, Encoded string }
		s.ask(http.MethodPost, "/_security/api_key", `{"name":"reader","role_descriptors":{"weir":{"cluster":["monitor"],"indices":[{"names":["logs-weir.*"],"privileges":["read"]}]}}}`, &made)
		write(file, made.Encoded)
		x := testIndexer(t, node.URL, dead, func(c *Config) { c.CAFile, c.APIKeyFile, c.Namespace = ca, file, space })
		x.ready = true
		done := make(chan int, 1)
		go func() { done <- load(t, x, 1, 1, 10) }()
		await(t, "refused", func() bool {
			return testutil.ToFloat64(x.m.requests.WithLabelValues("403"))+testutil.ToFloat64(x.m.retries) >= 3
		})
		s.ask(http.MethodPut, "/_security/api_key/"+made.ID, `{"role_descriptors":{"weir":{"cluster":["all"],"indices":[{"names":["*"],"privileges":["all"]}]}}}`, nil)
		s.expect("logs-weir.container-"+space, <-done, dead, 0)
	})

	sub("killed", func(t *testing.T, s *server, space string) {
		dead := &letters{}
		x := testIndexer(t, node.URL, dead, trusted, func(c *Config) { c.Namespace, c.BulkBytes = space, 64<<10 })
		done := make(chan int, 1)
		go func() { done <- load(t, x, 4, 100, 50) }()
		created := func() float64 { return testutil.ToFloat64(x.m.documents.WithLabelValues("created")) }
		await(t, "5,000 documents", func() bool { return created() > 5000 })
		node.Kill()
		at := created()
		await(t, "trying", func() bool { return testutil.ToFloat64(x.m.requests.WithLabelValues("error")) >= 5 })
		node.Run()
		n := <-done
		t.Logf("killed after %.0f documents; %.0f were there already when they were sent again", at, testutil.ToFloat64(x.m.documents.WithLabelValues("repeated")))
		if at >= float64(n) {
			t.Error("it was killed too late to show anything")
		}
		s.expect("logs-weir.container-"+space, n, dead, 0)
	})
}

// TestRealNodes has a cluster of two nodes, of which one is killed under load.
func TestRealNodes(t *testing.T) {
	first := elastictest.Start(t, elastictest.Options{Name: "one", Settings: "cluster.initial_master_nodes: [one]\nnode.roles: [master, data, ingest]\n"})
	second := elastictest.Start(t, elastictest.Options{Name: "two", Settings: "node.roles: [data, ingest]\n", Cluster: []*elastictest.Node{first}})
	s := &server{t: t, url: first.URL, client: http.DefaultClient}
	await(t, "two nodes", func() bool {
		var health struct {
			Nodes int `json:"number_of_nodes"`
		}
		s.ask(http.MethodGet, "/_cluster/health", "", &health)
		return health.Nodes == 2
	})
	dead := &letters{}
	x := testIndexer(t, first.URL, dead, func(c *Config) { c.Addresses, c.BulkBytes = []string{first.URL, second.URL}, 64<<10 })
	load(t, x, 1, 1, 10) // makes the stream
	stream := "logs-weir.container-default"
	s.ask(http.MethodGet, "/_cluster/health/"+stream+"?wait_for_status=green&timeout=60s", "", nil)
	done := make(chan int, 1)
	go func() { done <- load(t, x, 4, 100, 50) }()
	created := func() float64 { return testutil.ToFloat64(x.m.documents.WithLabelValues("created")) }
	await(t, "5,000 documents", func() bool { return created() > 5000 })
	second.Kill()
	at := created()
	n := <-done
	t.Logf("one of two nodes killed after %.0f of %d documents; %.0f requests without an answer", at, n, testutil.ToFloat64(x.m.requests.WithLabelValues("error")))
	if at >= float64(n) {
		t.Error("it was killed too late to show anything")
	}
	s.expect(stream, n, dead, 0)
}
