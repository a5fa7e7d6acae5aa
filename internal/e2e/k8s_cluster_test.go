//go:build e2e && k8s

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cluster is a Kubernetes of one node on loopback: etcd, the control plane, containerd and a kubelet, all of them processes of the test.
type cluster struct {
	t        *testing.T
	dir      string
	binaries string
	api      int
}

const k8sNode = "node1"

// newCluster starts one. The binaries are those that deployments/dev/kubernetes/build makes.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, binaries: os.Getenv("WEIR_KUBERNETES"), api: freePort(t)}
	if c.binaries == "" {
		t.Fatal("WEIR_KUBERNETES is not set: run `make e2e-k8s`")
	}
	// Not t.TempDir: sockets want a short path, and what a kubelet that was killed has mounted must not make the test fail at its end.
	var err error
	if c.dir, err = os.MkdirTemp("", "k8s"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.unmount()
		if err := os.RemoveAll(c.dir); err != nil {
			t.Log(err)
		}
	})
	c.certificates()
	client, peer := freePort(t), freePort(t)
	etcd := fmt.Sprintf("http://127.0.0.1:%d", client)
	c.run("etcd", "etcd", "--data-dir", c.path("etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", peer),
		"--initial-advertise-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", peer), "--initial-cluster", fmt.Sprintf("default=http://127.0.0.1:%d", peer), "--unsafe-no-fsync")
	c.write("audit.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n")
	c.run("kube-apiserver", c.binary("kube-apiserver"), "--etcd-servers", etcd, "--secure-port", fmt.Sprint(c.api), "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1",
		"--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.96.0.0/16", "--tls-cert-file", c.path("apiserver.crt"), "--tls-private-key-file", c.path("apiserver.key"),
		"--client-ca-file", c.path("ca.crt"), "--service-account-key-file", c.path("sa.key"), "--service-account-signing-key-file", c.path("sa.key"), "--service-account-issuer", "https://kubernetes.default.svc",
		"--authorization-mode", "Node,RBAC", "--allow-privileged=true", "--audit-policy-file", c.path("audit.yaml"), "--audit-log-path", c.path("audit.log"))
	await(t, time.Minute, "the API", func() bool { return c.try("get", "--raw=/readyz") == nil })
	c.run("kube-controller-manager", c.binary("kube-controller-manager"), "--kubeconfig", c.path("admin.kubeconfig"), "--service-account-private-key-file", c.path("sa.key"), "--root-ca-file", c.path("ca.crt"),
		"--use-service-account-credentials=true", "--leader-elect=false", "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(freePort(t)))
	c.run("kube-scheduler", c.binary("kube-scheduler"), "--kubeconfig", c.path("admin.kubeconfig"), "--leader-elect=false", "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(freePort(t)))
	c.node()
	return c
}

// node starts containerd and the kubelet, and waits until the node is ready.
func (c *cluster) node() {
	c.write("cni/10-lo.conflist", `{"cniVersion":"0.4.0","name":"lo","plugins":[{"type":"loopback"}]}`)
	c.write("containerd.toml", fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/pause:e2e"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = %q
    bin_dir = "/usr/lib/cni"
`, c.path("containerd"), c.path("containerd-state"), c.path("containerd.sock"), c.path("cni")))
	c.run("containerd", "containerd", "--config", c.path("containerd.toml"))
	await(c.t, time.Minute, "containerd", func() bool { return exec.Command("ctr", "-a", c.path("containerd.sock"), "version").Run() == nil })
	c.write("kubelet.yaml", fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: %s}}
authorization: {mode: AlwaysAllow}
address: 127.0.0.1
port: %d
healthzBindAddress: 127.0.0.1
healthzPort: 0
cgroupDriver: cgroupfs
failSwapOn: false
failCgroupV1: false
containerRuntimeEndpoint: unix://%s
enforceNodeAllocatable: []
evictionHard: {}
localStorageCapacityIsolation: false
containerLogMaxSize: 1Mi
containerLogMaxFiles: 10
containerLogMonitorInterval: 3s
resolvConf: ""
`, c.path("ca.crt"), freePort(c.t), c.path("containerd.sock")))
	c.run("kubelet", c.binary("kubelet"), "--config", c.path("kubelet.yaml"), "--kubeconfig", c.path("kubelet.kubeconfig"), "--hostname-override", k8sNode, "--root-dir", c.path("kubelet"), "--cert-dir", c.path("kubelet-pki"))
	await(c.t, 2*time.Minute, "the node", func() bool {
		out, err := c.command("get", "node", k8sNode, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`).Output()
		return err == nil && string(out) == "True"
	})
}

func (c *cluster) path(name string) string   { return filepath.Join(c.dir, name) }
func (c *cluster) binary(name string) string { return filepath.Join(c.binaries, name) }

func (c *cluster) write(name, text string) {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Dir(c.path(name)), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// run starts a server that lives as long as the test.
func (c *cluster) run(name string, args ...string) {
	c.t.Helper()
	log, err := os.Create(c.path(name + ".log"))
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if c.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			c.t.Logf("the end of %s:\n%s", filepath.Base(log.Name()), b[max(0, len(b)-1500):])
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
		log.Close()
	})
}

func (c *cluster) command(args ...string) *exec.Cmd {
	return exec.Command(c.binary("kubectl"), append([]string{"--kubeconfig", c.path("admin.kubeconfig"), "--request-timeout=3m"}, args...)...)
}

func (c *cluster) try(args ...string) error {
	if out, err := c.command(args...).CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %.2000s", strings.Join(args, " "), err, out)
	}
	return nil
}

// kubectl wants a command to succeed and returns what it says.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	cmd := c.command(args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("kubectl %s: %v: %.2000s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// apply takes manifests as text.
func (c *cluster) apply(manifests string) {
	c.t.Helper()
	cmd := c.command("apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifests)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("apply: %v: %.2000s\n%s", err, out, manifests)
	}
}

// image gives the node an image of one static Go program.
func (c *cluster) image(repository, tag, binary string) {
	c.t.Helper()
	tar := c.path(filepath.Base(binary) + ".tar")
	run(c.t, repository, nil, "go", "run", "./internal/image", "-binary", binary, "-tag", tag, "-o", tar, "-sbom", tar+".json")
	run(c.t, repository, nil, "ctr", "-a", c.path("containerd.sock"), "-n", "k8s.io", "images", "import", tar)
}

// certificates makes an authority, the API's certificate, the key of service accounts, and what admin and kubelet log in with.
func (c *cluster) certificates() {
	c.t.Helper()
	pemOf := func(kind string, der []byte, err error) string {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	caKey, ca := c.key(), &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	authority := pemOf("CERTIFICATE", der, err)
	c.write("ca.crt", authority)
	issue := func(serial int64, name pkix.Name) (cert, key string) {
		k := c.key()
		leaf := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: name, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, DNSNames: []string{"localhost", "kubernetes.default.svc"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &k.PublicKey, caKey)
		cert = pemOf("CERTIFICATE", der, err)
		der, err = x509.MarshalECPrivateKey(k)
		return cert, pemOf("EC PRIVATE KEY", der, err)
	}
	cert, key := issue(2, pkix.Name{CommonName: "kube-apiserver"})
	c.write("apiserver.crt", cert)
	c.write("apiserver.key", key)
	_, key = issue(3, pkix.Name{CommonName: "service accounts"})
	c.write("sa.key", key)
	for i, user := range []struct {
		file string
		name pkix.Name
	}{{"admin", pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}}, {"kubelet", pkix.Name{CommonName: "system:node:" + k8sNode, Organization: []string{"system:nodes"}}}} {
		cert, key := issue(int64(4+i), user.name)
		c.write(user.file+".crt", cert)
		c.write(user.file+".key", key)
		c.write(user.file+".kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:%d", certificate-authority: %s}}]
users: [{name: u, user: {client-certificate: %s, client-key: %s}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, c.api, c.path("ca.crt"), c.path(user.file+".crt"), c.path(user.file+".key")))
	}
}

func (c *cluster) key() *ecdsa.PrivateKey {
	c.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

// unmount frees what pods that were not ended properly leave.
func (c *cluster) unmount() {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && strings.HasPrefix(f[1], c.dir+"/") {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
