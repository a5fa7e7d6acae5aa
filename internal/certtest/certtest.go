// Package certtest makes certificates for tests.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Dir    string // where its files are
	CAFile string // its own certificate

	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority.
func New(t *testing.T, dir, name string) *Authority {
	a := &Authority{Dir: dir, t: t}
	a.CAFile, _ = a.issue(name, true, time.Now().Add(24*time.Hour))
	return a
}

// Issue makes a certificate for servers on 127.0.0.1 and for clients, good for a day more: <name>.pem and <name>.key, and <name>.both.pem with both, as
// Kafka wants them.
func (a *Authority) Issue(name string) (cert, key string) {
	a.t.Helper()
	return a.IssueUntil(name, time.Now().Add(24*time.Hour))
}

// IssueUntil is Issue with an end, which may have passed.
func (a *Authority) IssueUntil(name string, until time.Time) (cert, key string) {
	a.t.Helper()
	return a.issue(name, false, until)
}

func (a *Authority) issue(name string, isCA bool, until time.Time) (cert, key string) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-60 * 24 * time.Hour), NotAfter: until,
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	parent, signer := tmpl, private
	if !isCA {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &private.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if isCA {
		a.key = private
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for suffix, data := range map[string][]byte{".pem": certPEM, ".key": keyPEM, ".both.pem": append(append([]byte(nil), keyPEM...), certPEM...)} {
		if err := os.WriteFile(filepath.Join(a.Dir, name+suffix), data, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return filepath.Join(a.Dir, name+".pem"), filepath.Join(a.Dir, name+".key")
}

// Client trusts the authority alone, and shows a certificate where one is named.
func (a *Authority) Client(cert, key string) *tls.Config {
	a.t.Helper()
	c := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	c.RootCAs.AddCert(a.cert)
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			a.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}
