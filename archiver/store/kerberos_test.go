//go:build e2e

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/colinmarc/hdfs/v2"

	"weir/archiver/store/hdfstest"
)

// kdc is a real Kerberos of a test's own.
type kdc struct {
	t    *testing.T
	dir  string
	conf string // krb5.conf
	env  []string
	cmd  *exec.Cmd
}

func startKDC(t *testing.T) *kdc {
	k := &kdc{t: t, dir: t.TempDir()}
	port := hdfstest.FreePort(t)
	k.conf = k.write("krb5.conf", fmt.Sprintf(`[libdefaults]
 default_realm = WEIR.TEST
 dns_lookup_kdc = false
 dns_lookup_realm = false
 rdns = false
 udp_preference_limit = 1
[realms]
 WEIR.TEST = {
  kdc = 127.0.0.1:%d
 }
[domain_realm]
 localhost = WEIR.TEST
`, port))
	profile := k.write("kdc.conf", fmt.Sprintf(`[kdcdefaults]
 kdc_listen = 127.0.0.1:%[1]d
 kdc_tcp_listen = 127.0.0.1:%[1]d
[realms]
 WEIR.TEST = {
  database_name = %[2]s/principal
  key_stash_file = %[2]s/stash
  acl_file = %[2]s/acl
  supported_enctypes = aes256-cts-hmac-sha1-96:normal
 }
`, port, k.dir))
	k.env = append(os.Environ(), "KRB5_CONFIG="+k.conf, "KRB5_KDC_PROFILE="+profile)
	k.run("kdb5_util", "create", "-s", "-r", "WEIR.TEST", "-P", "master")
	k.start()
	return k
}

func (k *kdc) write(name, text string) string {
	k.t.Helper()
	p := filepath.Join(k.dir, name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return p
}

func program(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	return "/usr/sbin/" + name
}

func (k *kdc) run(name string, args ...string) {
	k.t.Helper()
	cmd := exec.Command(program(name), args...)
	cmd.Env = k.env
	if out, err := cmd.CombinedOutput(); err != nil {
		k.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func (k *kdc) start() {
	k.t.Helper()
	k.cmd = exec.Command(program("krb5kdc"), "-n", "-r", "WEIR.TEST")
	k.cmd.Env, k.cmd.SysProcAttr = k.env, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(k.stop)
}

func (k *kdc) stop() {
	if k.cmd != nil {
		_ = k.cmd.Process.Kill()
		_ = k.cmd.Wait()
		k.cmd = nil
	}
}

// keytab makes principals and a file with their keys.
func (k *kdc) keytab(life string, principals ...string) string {
	k.t.Helper()
	file := filepath.Join(k.dir, strings.ReplaceAll(principals[0], "/", "-")+".keytab")
	for _, p := range principals {
		k.run("kadmin.local", "-q", "addprinc -randkey -maxlife \""+life+"\" "+p)
		k.run("kadmin.local", "-q", "ktadd -k "+file+" "+p)
	}
	return file
}

// secured starts an HDFS that asks for Kerberos and encrypts all that goes over the wire.
func secured(t *testing.T, k *kdc) (c *hdfstest.Cluster, superuser Kerberos, ca string) {
	t.Helper()
	nn, dn := k.keytab("1 day", "nn/localhost", "HTTP/localhost"), k.keytab("1 day", "dn/localhost")
	store := filepath.Join(k.dir, "web.p12")
	k.run("keytool", "-genkeypair", "-alias", "web", "-keyalg", "RSA", "-dname", "CN=localhost", "-ext", "san=dns:localhost,ip:127.0.0.1", "-validity", "2", "-storetype", "PKCS12", "-keystore", store, "-storepass", "changeit")
	ca = filepath.Join(k.dir, "web.pem")
	k.run("keytool", "-exportcert", "-rfc", "-alias", "web", "-keystore", store, "-storepass", "changeit", "-file", ca)
	property := func(name, value string) string {
		return "<property><name>" + name + "</name><value>" + value + "</value></property>"
	}
	c = hdfstest.Start(t, hdfstest.Options{
		NameNodes: 1, DataNodes: 1, Host: "localhost", HTTPS: true,
		Java: []string{"-Djava.security.krb5.conf=" + k.conf, "-Dsun.security.krb5.disableReferrals=true"},
		Properties: map[string]string{
			"hadoop.security.authentication": "kerberos", "hadoop.security.authorization": "true", "hadoop.rpc.protection": "privacy",
			"dfs.block.access.token.enable": "true", "dfs.data.transfer.protection": "privacy", "dfs.encrypt.data.transfer.cipher.suites": "AES/CTR/NoPadding", "dfs.http.policy": "HTTPS_ONLY",
			"dfs.namenode.kerberos.principal": "nn/localhost@WEIR.TEST", "dfs.namenode.keytab.file": nn,
			"dfs.datanode.kerberos.principal": "dn/localhost@WEIR.TEST", "dfs.datanode.keytab.file": dn,
			"hadoop.http.filter.initializers": "org.apache.hadoop.hdfs.web.AuthFilterInitializer", "hadoop.http.authentication.type": "kerberos",
			"hadoop.http.authentication.kerberos.principal": "HTTP/localhost@WEIR.TEST", "hadoop.http.authentication.kerberos.keytab": nn,
			"dfs.web.authentication.kerberos.principal": "HTTP/localhost@WEIR.TEST", "dfs.web.authentication.kerberos.keytab": nn,
		},
		Files: map[string]string{"ssl-server.xml": "<configuration>" + property("ssl.server.keystore.location", store) + property("ssl.server.keystore.password", "changeit") +
			property("ssl.server.keystore.keypassword", "changeit") + property("ssl.server.keystore.type", "pkcs12") + "</configuration>",
			"ssl-client.xml": "<configuration>" + property("ssl.client.truststore.location", store) + property("ssl.client.truststore.password", "changeit") +
				property("ssl.client.truststore.type", "pkcs12") + "</configuration>"},
	})
	return c, Kerberos{Principal: "nn/localhost", Keytab: nn, Krb5Conf: k.conf, ServicePrincipal: "nn/_HOST"}, ca
}

// TestKerberos writes to a secured HDFS: natively with privacy on both wires, over WebHDFS with SPNEGO and TLS, with a keytab
// whose tickets end in between, and with a ccache that another program replaces.
func TestKerberos(t *testing.T) {
	k := startKDC(t)
	begin := time.Now()
	c, superuser, ca := secured(t, k)
	l := newLogin(superuser)
	defer l.close()
	home := func() error {
		opts := hdfs.ClientOptions{Addresses: []string{c.Names[0].RPC}}
		if err := l.apply(&opts); err != nil {
			return err
		}
		client, err := hdfs.NewClient(opts)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := client.MkdirAll("/archive", 0o755); err != nil {
			return err
		}
		if err := client.Chown("/archive", "weir", "weir"); err != nil {
			return err
		}
		info, err := client.StatFs()
		if err == nil && info.Capacity == 0 {
			err = errors.New("no datanode is there yet")
		}
		return err
	}
	for err := home(); err != nil; err = home() {
		if time.Since(begin) > 90*time.Second {
			t.Fatalf("the cluster does not come up: %v", err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Logf("cluster up in %s", time.Since(begin))
	const life = 10 * time.Second
	keytab := k.keytab("10 seconds", "weir")
	config := func(root string) Config {
		cfg := DefaultConfig()
		cfg.Root, cfg.Deadline, cfg.SpoolDir, cfg.WebHDFSCAFile, cfg.HDFSUser = root, 10*time.Second, t.TempDir(), ca, ""
		cfg.Kerberos = Kerberos{Principal: "weir@WEIR.TEST", Keytab: keytab, Krb5Conf: k.conf, ServicePrincipal: "nn/_HOST", DataTransferProtection: "privacy"}
		return cfg
	}
	native, web := "hdfs://"+c.Names[0].RPC, "swebhdfs://"+c.Names[0].HTTP
	open := func(cfg Config) Store {
		t.Helper()
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	use := func(s Store, name string) error {
		err := WriteFile(s, name, []byte("secret"))
		if err == nil {
			var data []byte
			if data, err = s.ReadFile(name); err == nil && string(data) != "secret" {
				err = fmt.Errorf("read %q", data)
			}
		}
		return err
	}
	t.Run("tickets", func(t *testing.T) {
		for name, root := range map[string]string{"native": native, "web": web} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := open(config(root + "/archive/" + name))
				defer s.Close()
				if err := s.MkdirAll("a"); err != nil {
					t.Fatal(err)
				}
				logged := time.Now()
				if err := use(s, "a/1"); err != nil {
					t.Fatal(err)
				}
				if e, err := s.List("a"); err != nil || len(e) != 1 {
					t.Errorf("%v, %v", e, err)
				}
				time.Sleep(time.Until(logged.Add(life + 2*time.Second))) // the tickets are over
				if err := use(s, "a/2"); err != nil {
					t.Errorf("after the tickets ended: %v", err)
				}
			})
		}
		t.Run("ccache", func(t *testing.T) {
			t.Parallel()
			cfg := config(native + "/archive/ccache")
			cfg.Kerberos.Principal, cfg.Kerberos.Keytab, cfg.Kerberos.CCache = "", "", filepath.Join(k.dir, "tickets")
			s := open(cfg)
			defer s.Close()
			if err := s.MkdirAll("a"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("without a file of tickets: %v", err)
			}
			renew := func() { k.run("kinit", "-c", cfg.Kerberos.CCache, "-k", "-t", keytab, "weir") }
			renew()
			logged := time.Now()
			if err := errors.Join(s.MkdirAll("a"), use(s, "a/1")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Until(logged.Add(life + 2*time.Second)))
			if err := use(s, "a/2"); err == nil {
				t.Error("a file was made with tickets that are over")
			}
			renew()
			if err := use(s, "a/3"); err != nil {
				t.Errorf("with new tickets: %v", err)
			}
		})
	})
	t.Run("refused", func(t *testing.T) {
		cfg := config(native + "/archive")
		cfg.Kerberos = Kerberos{}
		cfg.HDFSUser = "weir"
		s := open(cfg)
		if err := s.MkdirAll("a"); err == nil || !strings.Contains(err.Error(), "set archiver.kerberos") {
			t.Errorf("without Kerberos: %v", err)
		}
		_ = s.Close()
		cfg = config(web + "/archive")
		cfg.Kerberos = Kerberos{}
		cfg.HDFSUser = "weir"
		s = open(cfg)
		if err := s.MkdirAll("a"); Reason(err) != "permission" {
			t.Errorf("WebHDFS without Kerberos: %v", err)
		}
		_ = s.Close()
		s = open(config(native + "/other"))
		if err := s.MkdirAll("a"); Reason(err) != "permission" {
			t.Errorf("in a folder of others: %v", err)
		}
		_ = s.Close()
	})
	t.Run("KDC away", func(t *testing.T) {
		k.stop()
		s := open(config(native + "/archive/kdc"))
		defer s.Close()
		begin := time.Now()
		err := s.MkdirAll("a")
		if err == nil || !strings.Contains(err.Error(), "kerberos: log in as weir@WEIR.TEST") || time.Since(begin) > 12*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		k.start()
		for err = s.MkdirAll("a"); err != nil && time.Since(begin) < 30*time.Second; err = s.MkdirAll("a") {
			time.Sleep(50 * time.Millisecond) // the KDC starts
		}
		if err != nil {
			t.Error(err)
		}
	})
	t.Logf("all in %s", time.Since(begin))
}
