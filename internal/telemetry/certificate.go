package telemetry

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TLS names PEM files, by the keys that kafka.tls has. What they hold is taken anew when it changes.
type TLS struct {
	CAFile   string `yaml:"ca_file"`   // the authorities of clients: who shows no certificate of theirs is turned away; empty: none is asked for
	CertFile string `yaml:"cert_file"` // with those that stand between it and its authority
	KeyFile  string `yaml:"key_file"`
}

// Validate joins what is wrong, each with its key.
func (c *TLS) Validate() error {
	var errs []error
	if c != nil && c.CertFile == "" {
		errs = append(errs, errors.New("cert_file: is empty"))
	}
	if c != nil && c.KeyFile == "" {
		errs = append(errs, errors.New("key_file: is empty"))
	}
	return errors.Join(errs...)
}

const (
	certificateLook = 5 * time.Second     // between two looks at the files
	expiresSoon     = 14 * 24 * time.Hour // before its end a certificate is warned about, or in the last quarter of its time where that is shorter
	warnAgain       = 24 * time.Hour
)

// Certificate is what a listener shows: what its files held when they were last good. Its looks are made by one goroutine; handshakes only read serving.
type Certificate struct {
	files   TLS
	key     string // of the configuration, before the names of the files' keys
	every   time.Duration
	log     *slog.Logger
	expiry  prometheus.Gauge
	serving atomic.Pointer[tls.Config]

	looked [3][]byte // certificate, key and authorities at the last look, good or not
	failed string    // what was said of the last look that failed
	warned time.Time
}

// NewCertificate reads the files; key is where the configuration names them.
func NewCertificate(key string, files TLS, log *slog.Logger, reg prometheus.Registerer) (*Certificate, error) {
	c := &Certificate{files: files, key: key, every: certificateLook, log: log,
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_http_certificate_expiry_timestamp_seconds", Help: "When the certificate that http.listen shows ends, in Unix time."})}
	if _, err := c.look(); err != nil {
		return nil, err
	}
	reg.MustRegister(c.expiry)
	c.warn(time.Now())
	return c, nil
}

// look reads the files, and takes what they hold if that is new and good. Else what is served stays as it is.
func (c *Certificate) look() (changed bool, err error) {
	var files [3][]byte
	for i, f := range []struct{ key, path string }{{"cert_file", c.files.CertFile}, {"key_file", c.files.KeyFile}, {"ca_file", c.files.CAFile}} {
		if f.path == "" {
			continue
		}
		if files[i], err = os.ReadFile(f.path); err != nil {
			return false, fmt.Errorf("%s.%s: %w", c.key, f.key, err)
		}
	}
	cert, key, ca := files[0], files[1], files[2]
	if c.looked[0] != nil && bytes.Equal(cert, c.looked[0]) && bytes.Equal(key, c.looked[1]) && bytes.Equal(ca, c.looked[2]) {
		return false, nil
	}
	c.looked = files
	if !x509.NewCertPool().AppendCertsFromPEM(cert) {
		return false, fmt.Errorf("%s.cert_file: %s holds no PEM certificate", c.key, c.files.CertFile)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("%s.key_file: %s does not serve for the certificate in %s: %w", c.key, c.files.KeyFile, c.files.CertFile, err)
	}
	// Tickets would let a client in again whose authority was taken out of ca_file.
	t := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}, SessionTicketsDisabled: true}
	if c.files.CAFile != "" {
		t.ClientCAs, t.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !t.ClientCAs.AppendCertsFromPEM(ca) {
			return false, fmt.Errorf("%s.ca_file: %s holds no PEM certificate", c.key, c.files.CAFile)
		}
	}
	c.serving.Store(t)
	c.expiry.Set(float64(pair.Leaf.NotAfter.Unix()))
	c.warned = time.Time{}
	return true, nil
}

// warn tells once a day of a certificate that clients refuse, or soon will.
func (c *Certificate) warn(now time.Time) {
	leaf := c.serving.Load().Certificates[0].Leaf
	what := ""
	switch {
	case now.After(leaf.NotAfter):
		what = "the certificate has expired, and clients refuse it"
	case now.Before(leaf.NotBefore):
		what = "the certificate is not valid yet, and clients refuse it"
	case leaf.NotAfter.Sub(now) < min(expiresSoon, leaf.NotAfter.Sub(leaf.NotBefore)/4):
		what = "the certificate expires soon"
	}
	if what != "" && now.Sub(c.warned) >= warnAgain {
		c.log.Warn(what, "key", c.key+".cert_file", "file", c.files.CertFile, "from", leaf.NotBefore, "until", leaf.NotAfter, "remedy", "put a new certificate and its key into the files; it is taken by itself")
		c.warned = now
	}
}

// watch looks again and again until ctx ends. What is wrong is told once, until it is another thing.
func (c *Certificate) watch(ctx context.Context) {
	ticks := time.NewTicker(c.every)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		changed, err := c.look()
		switch {
		case changed:
			c.failed = ""
			c.log.Info("a new certificate is served", "file", c.files.CertFile, "until", c.serving.Load().Certificates[0].Leaf.NotAfter)
		case err != nil && err.Error() != c.failed:
			c.failed = err.Error()
			c.log.Error("the certificate's files are not good; going on with what they held before", "err", err)
		}
		c.warn(time.Now())
	}
}

// config has each handshake use what is served at its time.
func (c *Certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.serving.Load(), nil }}
}
