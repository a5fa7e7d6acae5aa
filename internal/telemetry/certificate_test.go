package telemetry

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/internal/certtest"
)

// record is a log that can be read while it is written.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) count(s string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.b.String(), s)
}

// tlsServer serves "hello" with the files of one listener until the test ends.
type tlsServer struct {
	t    *testing.T
	cert *Certificate
	addr string
	log  record
}

func serveTLS(t *testing.T, files TLS) *tlsServer {
	t.Helper()
	s := &tlsServer{t: t}
	log := slog.New(slog.NewTextHandler(&s.log, nil))
	var err error
	if s.cert, err = NewCertificate("http.tls", files, log, prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	s.cert.every = 5 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	_ = l.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- Listener{Addr: s.addr, Key: "http.listen", Certificate: s.cert, Log: log}.Serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s.await("the listener", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return s
}

func (s *tlsServer) await(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s did not come:\n%s", what, s.log.b.String())
		}
	}
}

// get says hello over a new connection, and returns the name in the certificate that the server showed.
func (s *tlsServer) get(c *tls.Config) (name string, err error) {
	client := http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true, ForceAttemptHTTP2: true}, Timeout: 5 * time.Second}
	res, err := client.Get("https://" + s.addr + "/")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "hello" || res.ProtoMajor != 2 {
		s.t.Errorf("%q over %s, %v", b, res.Proto, err)
	}
	return res.TLS.PeerCertificates[0].Subject.CommonName, nil
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestRotation changes the certificate under a listener that runs; while the files do not go together, what was good is served on.
func TestRotation(t *testing.T) {
	ca := certtest.New(t, t.TempDir(), "ca")
	cert, key := ca.Issue("first")
	s := serveTLS(t, TLS{CertFile: cert, KeyFile: key})
	client := ca.Client("", "")
	if name, err := s.get(client); name != "first" || err != nil {
		t.Fatal(name, err)
	}
	newCert, newKey := ca.IssueUntil("second", time.Now().Add(90*24*time.Hour))
	move(t, newCert, cert)
	s.await("the error", func() bool {
		return s.log.count("http.tls.key_file: "+key+" does not serve for the certificate in "+cert) > 0
	})
	if name, err := s.get(client); name != "first" || err != nil {
		t.Errorf("with files that do not go together: %q, %v", name, err)
	}
	move(t, newKey, key)
	s.await("the second certificate", func() bool { name, err := s.get(client); return name == "second" && err == nil })
	if left := time.Until(time.Unix(int64(testutil.ToFloat64(s.cert.expiry)), 0)); left < 89*24*time.Hour || left > 91*24*time.Hour {
		t.Errorf("the metric says that it ends in %s", left)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	s.await("the error", func() bool { return s.log.count("http.tls.key_file: open "+key) > 0 })
	time.Sleep(50 * time.Millisecond) // ten looks
	if name, err := s.get(client); name != "second" || err != nil || s.log.count("http.tls.key_file: open "+key) != 1 {
		t.Errorf("without a key: %q, %v; told %d times", name, err, s.log.count("http.tls.key_file: open "+key))
	}
}

// TestExpired serves what clients refuse, since no answer at all would be no better, and says so.
func TestExpired(t *testing.T) {
	ca := certtest.New(t, t.TempDir(), "ca")
	cert, key := ca.IssueUntil("old", time.Now().Add(-time.Minute))
	s := serveTLS(t, TLS{CertFile: cert, KeyFile: key})
	if _, err := s.get(ca.Client("", "")); err == nil || !strings.Contains(err.Error(), "has expired") {
		t.Errorf("a client that looks at the time: %v", err)
	}
	if name, err := s.get(&tls.Config{InsecureSkipVerify: true}); name != "old" || err != nil {
		t.Errorf("a client that does not: %q, %v", name, err)
	}
	time.Sleep(50 * time.Millisecond) // ten looks
	if n := s.log.count("the certificate has expired"); n != 1 || s.log.count(cert) != 1 {
		t.Errorf("warned %d times", n)
	}
	newCert, newKey := ca.Issue("new")
	move(t, newKey, key)
	move(t, newCert, cert)
	s.await("the new certificate", func() bool { name, err := s.get(ca.Client("", "")); return name == "new" && err == nil })
	s.await("the warning that a day is soon over", func() bool { return s.log.count("the certificate expires soon") == 1 })
}

func TestWarnsOnceADay(t *testing.T) {
	ca := certtest.New(t, t.TempDir(), "ca")
	now := time.Now()
	cert, key := ca.IssueUntil("c", now.Add(20*24*time.Hour))
	var log record
	c, err := NewCertificate("http.tls", TLS{CertFile: cert, KeyFile: key}, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for hour := range 24 * 21 {
		c.warn(now.Add(time.Duration(hour) * time.Hour))
	}
	if soon, over := log.count("expires soon"), log.count("has expired"); soon != 14 || over != 1 {
		t.Errorf("%d days soon, %d days over; want 14 and 1", soon, over)
	}
	c.warned = time.Time{}
	if c.warn(now.Add(-100 * 24 * time.Hour)); log.count("is not valid yet") != 1 {
		t.Error("not told that it is not valid yet")
	}
}

// TestClients lets in whom an authority of ca_file signed, and nobody whose authority was taken out of it.
func TestClients(t *testing.T) {
	dir := t.TempDir()
	ca, others := certtest.New(t, dir, "ca"), certtest.New(t, t.TempDir(), "others")
	cert, key := ca.Issue("server")
	s := serveTLS(t, TLS{CertFile: cert, KeyFile: key, CAFile: ca.CAFile})
	known := ca.Client(ca.Issue("prometheus"))
	known.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	if _, err := s.get(known); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	stranger := ca.Client(others.Issue("stranger"))
	for what, c := range map[string]*tls.Config{"without a certificate": ca.Client("", ""), "with another authority's": stranger} {
		if _, err := s.get(c); err == nil {
			t.Errorf("%s: let in", what)
		}
	}
	move(t, others.CAFile, ca.CAFile)
	s.await("the other authority", func() bool { _, err := s.get(stranger); return err == nil })
	if _, err := s.get(known); err == nil {
		t.Error("whose authority was taken out was let in")
	}
}

func TestOldProtocolsAndClearText(t *testing.T) {
	ca := certtest.New(t, t.TempDir(), "ca")
	cert, key := ca.Issue("server")
	s := serveTLS(t, TLS{CertFile: cert, KeyFile: key})
	for version, taken := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c := ca.Client("", "")
		c.MinVersion, c.MaxVersion = version, version
		if _, err := s.get(c); (err == nil) != taken {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	res, err := http.Get("http://" + s.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); res.StatusCode != http.StatusBadRequest || err != nil || bytes.Contains(b, []byte("hello")) {
		t.Errorf("clear text: %s %q %v", res.Status, b, err)
	}
	if s.log.count("TLS handshake error") != 0 {
		t.Error("who fails at the handshake fills the log")
	}
}

func TestBadCertificates(t *testing.T) {
	ca := certtest.New(t, t.TempDir(), "ca")
	cert, key := ca.Issue("a")
	_, otherKey := ca.Issue("b")
	none, text := filepath.Join(ca.Dir, "none"), filepath.Join(ca.Dir, "text")
	if err := os.WriteFile(text, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		files TLS
		want  string
	}{
		{TLS{CertFile: none, KeyFile: key}, "http.tls.cert_file: open " + none},
		{TLS{CertFile: cert, KeyFile: none}, "http.tls.key_file: open " + none},
		{TLS{CertFile: text, KeyFile: key}, "http.tls.cert_file: " + text + " holds no PEM certificate"},
		{TLS{CertFile: key, KeyFile: cert}, "http.tls.cert_file: " + key + " holds no PEM certificate"},
		{TLS{CertFile: cert, KeyFile: text}, "http.tls.key_file: " + text + " does not serve"},
		{TLS{CertFile: cert, KeyFile: otherKey}, "http.tls.key_file: " + otherKey + " does not serve for the certificate in " + cert + ": tls: private key does not match public key"},
		{TLS{CertFile: cert, KeyFile: key, CAFile: text}, "http.tls.ca_file: " + text + " holds no PEM certificate"},
		{TLS{CertFile: cert, KeyFile: key, CAFile: none}, "http.tls.ca_file: open " + none},
	} {
		if _, err := NewCertificate("http.tls", c.files, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.files, err, c.want)
		}
	}
	if err := (&TLS{}).Validate(); err == nil || err.Error() != "cert_file: is empty\nkey_file: is empty" {
		t.Errorf("%v", err)
	}
	if err := errors.Join((*TLS)(nil).Validate(), (&TLS{CertFile: "a", KeyFile: "b"}).Validate()); err != nil {
		t.Error(err)
	}
}
