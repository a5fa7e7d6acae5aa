package store

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/colinmarc/hdfs/v2"
	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/spnego"
)

// Kerberos says who the archive is written as in a secured HDFS. It is used when Keytab or CCache is set.
type Kerberos struct {
	// Principal is the name in the keytab, name@REALM; without a realm it is that of krb5.conf.
	Principal string `yaml:"principal"`
	// Keytab holds the principal's key: then weir gets its tickets itself, as often as it needs.
	Keytab string `yaml:"keytab"`
	// CCache is a file of tickets that something else keeps fresh; it is read again when it has changed.
	CCache   string `yaml:"ccache"`
	Krb5Conf string `yaml:"krb5_conf"`
	// ServicePrincipal is dfs.namenode.kerberos.principal without the realm; _HOST stands for the namenode's name as
	// it is in root.
	ServicePrincipal string `yaml:"service_principal"`
	// DataTransferProtection is dfs.data.transfer.protection: authentication, integrity or privacy. Empty where the
	// cluster has none; dfs.encrypt.data.transfer is learned from the namenode.
	DataTransferProtection string `yaml:"data_transfer_protection"`
}

func (k Kerberos) enabled() bool { return k.Keytab != "" || k.CCache != "" }

func (k Kerberos) validate(native bool) error {
	var errs []error
	bad := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fmt.Errorf("kerberos."+format, args...))
		}
	}
	if !k.enabled() {
		bad(k.Principal != "" || k.ServicePrincipal != "" || k.DataTransferProtection != "", "keytab: set it, or kerberos.ccache, or none of kerberos")
		return errors.Join(errs...)
	}
	bad(k.Keytab != "" && k.CCache != "", "ccache: is set beside kerberos.keytab; one of them is enough")
	bad(k.Keytab != "" && k.Principal == "", "principal: must be set with a keytab")
	bad(k.CCache != "" && k.Principal != "", "principal: is that of the ccache; leave it out")
	bad(k.Krb5Conf == "", "krb5_conf: must be set")
	bad(native && k.ServicePrincipal == "", "service_principal: must be set for an hdfs root, say nn/_HOST")
	bad(strings.Contains(k.ServicePrincipal, "@"), "service_principal: %q has a realm; leave it out", k.ServicePrincipal)
	switch k.DataTransferProtection {
	case "", hdfs.DataTransferProtectionAuthentication, hdfs.DataTransferProtectionIntegrity, hdfs.DataTransferProtectionPrivacy:
	default:
		bad(true, "data_transfer_protection: %q is none of authentication, integrity, privacy", k.DataTransferProtection)
	}
	return errors.Join(errs...)
}

// login holds the tickets of one principal.
type login struct {
	cfg Kerberos

	mu     sync.Mutex
	client *client.Client
	read   time.Time // when the ccache that client has was written
}

// newLogin returns nil without Kerberos.
func newLogin(cfg Kerberos) *login {
	if !cfg.enabled() {
		return nil
	}
	return &login{cfg: cfg}
}

// get returns a client that has a ticket to ask for tickets. With a keytab it logs in again by itself when that has expired.
func (l *login) get() (*client.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.CCache != "" {
		return l.fromCCache()
	}
	if l.client == nil {
		conf, err := config.Load(l.cfg.Krb5Conf)
		if err != nil {
			return nil, fmt.Errorf("kerberos: read %s: %w", l.cfg.Krb5Conf, err)
		}
		keys, err := keytab.Load(l.cfg.Keytab)
		if err != nil {
			return nil, fmt.Errorf("kerberos: read keytab %s: %w", l.cfg.Keytab, err)
		}
		name, realm, _ := strings.Cut(l.cfg.Principal, "@")
		if realm == "" {
			realm = conf.LibDefaults.DefaultRealm
		}
		l.client = client.NewWithKeytab(name, realm, keys, conf, client.DisablePAFXFAST(true))
	}
	if err := l.client.AffirmLogin(); err != nil {
		return nil, fmt.Errorf("kerberos: log in as %s: %w", l.cfg.Principal, err)
	}
	return l.client, nil
}

func (l *login) fromCCache() (*client.Client, error) {
	info, err := os.Stat(l.cfg.CCache)
	if err != nil {
		return nil, fmt.Errorf("kerberos: %w", err)
	}
	if l.client != nil && info.ModTime().Equal(l.read) {
		return l.client, nil
	}
	conf, err := config.Load(l.cfg.Krb5Conf)
	if err != nil {
		return nil, fmt.Errorf("kerberos: read %s: %w", l.cfg.Krb5Conf, err)
	}
	tickets, err := credentials.LoadCCache(l.cfg.CCache)
	if err != nil {
		return nil, fmt.Errorf("kerberos: read %s: %w", l.cfg.CCache, err)
	}
	c, err := client.NewFromCCache(tickets, conf, client.DisablePAFXFAST(true))
	if err != nil {
		return nil, fmt.Errorf("kerberos: %s: %w", l.cfg.CCache, err)
	}
	if l.client != nil {
		l.client.Destroy()
	}
	l.client, l.read = c, info.ModTime()
	return c, nil
}

// apply makes the options of a native client those of a secured cluster.
func (l *login) apply(opts *hdfs.ClientOptions) error {
	if l == nil {
		return nil
	}
	c, err := l.get()
	if err != nil {
		return err
	}
	opts.KerberosClient, opts.KerberosServicePrincipleName, opts.DataTransferProtection = c, l.cfg.ServicePrincipal, l.cfg.DataTransferProtection
	return nil
}

// signer returns what proves to a web server who asks, or nil without Kerberos.
func (l *login) signer() func(*http.Request, string) error {
	if l == nil {
		return nil
	}
	return func(r *http.Request, host string) error {
		c, err := l.get()
		if err != nil {
			return err
		}
		if err := spnego.SetSPNEGOHeader(c, r, "HTTP/"+host); err != nil {
			return fmt.Errorf("kerberos: ticket for HTTP/%s: %w", host, err)
		}
		return nil
	}
}

func (l *login) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		l.client.Destroy()
		l.client = nil
	}
}
