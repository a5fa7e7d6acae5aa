//go:build e2e

package kube

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/agent/kube/kubetest"
)

// cluster is a real API server on an etcd of its own, without a kubelet: nodes and pods are objects that the test makes.
type cluster struct {
	t         *testing.T
	dir       string
	binary    string
	etcd      string // address
	port      int
	apiserver *exec.Cmd
	http      *http.Client
}

const admin = "admin-of-the-test"

func startCluster(t *testing.T) *cluster {
	binary := os.Getenv("WEIR_KUBE_APISERVER")
	if binary == "" {
		t.Skip("WEIR_KUBE_APISERVER does not name a kube-apiserver: the client was not tried on a real API")
	}
	etcd := os.Getenv("WEIR_ETCD")
	if etcd == "" {
		var err error
		if etcd, err = exec.LookPath("etcd"); err != nil {
			t.Skip("there is no etcd (Debian: etcd-server), and WEIR_ETCD does not name one: the client was not tried on a real API")
		}
	}
	c := &cluster{t: t, dir: t.TempDir(), binary: binary, port: port(t)}
	pool := c.certificates()
	c.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	client, peer := port(t), port(t)
	c.etcd = fmt.Sprintf("http://127.0.0.1:%d", client)
	c.run(etcd, "--data-dir", filepath.Join(c.dir, "etcd"), "--listen-client-urls", c.etcd, "--advertise-client-urls", c.etcd, "--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", peer),
		"--initial-advertise-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", peer), "--initial-cluster", fmt.Sprintf("default=http://127.0.0.1:%d", peer))
	c.startAPI()
	return c
}

func port(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (c *cluster) file(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) write(name, kind string, der []byte) {
	c.t.Helper()
	if err := os.WriteFile(c.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// certificates writes what the server and its service accounts need, and the administrator's token.
func (c *cluster) certificates() *x509.CertPool {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		c.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kube-apiserver"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("tls.crt", "CERTIFICATE", der)
	c.write("tls.key", "EC PRIVATE KEY", private)
	c.write("sa.pub", "PUBLIC KEY", public)
	if err := os.WriteFile(c.file("tokens.csv"), []byte(admin+",admin,1,system:masters\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

// run starts a server that ends with the test.
func (c *cluster) run(binary string, args ...string) *exec.Cmd {
	c.t.Helper()
	log, err := os.OpenFile(c.file(filepath.Base(binary)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func (c *cluster) url() string { return fmt.Sprintf("https://127.0.0.1:%d", c.port) }

func (c *cluster) startAPI() {
	c.t.Helper()
	c.apiserver = c.run(c.binary, "--etcd-servers="+c.etcd, "--secure-port="+strconv.Itoa(c.port), "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
		"--tls-cert-file="+c.file("tls.crt"), "--tls-private-key-file="+c.file("tls.key"), "--token-auth-file="+c.file("tokens.csv"), "--service-account-key-file="+c.file("sa.pub"), "--service-account-signing-key-file="+c.file("tls.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--cert-dir="+c.file("certs"))
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if code, _, err := c.ask("GET", "/readyz", nil); err == nil && code == 200 {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(c.file(filepath.Base(c.binary) + ".log"))
			c.t.Fatalf("the API server is not ready:\n%s", log[max(0, len(log)-4000):])
		}
	}
}

func (c *cluster) stopAPI() {
	c.t.Helper()
	_ = c.apiserver.Process.Signal(syscall.SIGKILL)
	_ = c.apiserver.Wait()
}

func (c *cluster) ask(method, path string, body any) (code int, answer []byte, err error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, c.url()+path, in)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	req.Header.Set("Content-Type", "application/json")
	if method == "PATCH" {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// do is a request that must succeed.
func (c *cluster) do(method, path string, body any) (answer map[string]any) {
	c.t.Helper()
	code, b, err := c.ask(method, path, body)
	if err == nil && code >= 300 {
		err = fmt.Errorf("%d: %s", code, b)
	}
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

type obj = map[string]any

const shop = "/api/v1/namespaces/shop/"

func (c *cluster) account(name string) (token string) {
	c.t.Helper()
	c.do("POST", shop+"serviceaccounts", obj{"metadata": obj{"name": name}})
	answer := c.do("POST", shop+"serviceaccounts/"+name+"/token", obj{"spec": obj{"expirationSeconds": 3600}})
	return answer["status"].(obj)["token"].(string)
}

// pod makes one as a deployment would, and gives it the status that a kubelet would. It returns the uid.
func (c *cluster) pod(name, node string, labels obj) string {
	c.t.Helper()
	p := kubetest.Make("", name, labels)
	meta := p["metadata"].(obj)
	delete(meta, "uid")
	delete(meta, "managedFields")
	meta["ownerReferences"] = []any{obj{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9", "uid": "11111111-2222-3333-4444-555555555555", "controller": true}}
	p["spec"].(obj)["nodeName"] = node
	uid := c.do("POST", shop+"pods", p)["metadata"].(obj)["uid"].(string)
	c.do("PATCH", shop+"pods/"+name+"/status", obj{"status": obj{"phase": "Running", "containerStatuses": []any{obj{"name": "app", "image": "registry/web:1", "imageID": "x", "ready": true, "restartCount": 1,
		"containerID": "containerd://" + uid + "-c1", "lastState": obj{"terminated": obj{"exitCode": 1, "containerID": "containerd://" + uid + "-c0"}}}}}})
	return uid
}

func (c *cluster) label(name, key string, value any) {
	c.t.Helper()
	c.do("PATCH", shop+"pods/"+name, obj{"metadata": obj{"labels": obj{key: value}}})
}

// compact makes etcd forget all that is not of now.
func (c *cluster) compact() {
	c.t.Helper()
	post := func(path, body string, answer any) {
		res, err := http.Post(c.etcd+path, "application/json", strings.NewReader(body))
		if err == nil {
			defer res.Body.Close()
			err = json.NewDecoder(res.Body).Decode(answer)
		}
		if err != nil || res.StatusCode != 200 {
			c.t.Fatalf("etcd %s: %v", path, err)
		}
	}
	var now struct {
		Header struct{ Revision string }
	}
	post("/v3/kv/range", `{"key":"YQ=="}`, &now)
	post("/v3/kv/compaction", `{"revision":"`+now.Header.Revision+`","physical":true}`, new(any))
}

// same compares what the client knows with what the API says to somebody else.
func (f *fixture) same(c *cluster) {
	f.t.Helper()
	want := map[string]string{}
	for _, item := range c.do("GET", "/api/v1/pods", nil)["items"].([]any) {
		p := item.(obj)
		if meta := p["metadata"].(obj); p["spec"].(obj)["nodeName"] == "n1" {
			id := p["status"].(obj)["containerStatuses"].([]any)[0].(obj)["containerID"].(string)
			labels, _ := meta["labels"].(obj)
			want[meta["uid"].(string)] = fmt.Sprint(meta["namespace"], "/", meta["name"], " n1 ", labels, " registry/web:1 ", strings.TrimPrefix(id, "containerd://"))
		}
	}
	got := map[string]string{}
	f.mu.Lock()
	for uid, p := range f.pods {
		if !f.gone[uid].IsZero() {
			continue
		}
		id, _ := p.Containers["app"].ID(1)
		got[uid] = fmt.Sprint(p.Namespace, "/", p.Name, " ", p.Node, " ", p.Labels, " ", p.Containers["app"].Image, " ", id)
	}
	f.mu.Unlock()
	if !maps.Equal(got, want) {
		for _, uid := range slices.Sorted(maps.Keys(want)) {
			if got[uid] != want[uid] {
				f.t.Errorf("%s is %q, want %q", uid, got[uid], want[uid])
			}
		}
		f.t.Errorf("%d pods, want %d", len(got), len(want))
	}
	f.t.Logf("%d pods are the same", len(want))
}

// TestRealAPI follows pods through all that the API does to a watch.
func TestRealAPI(t *testing.T) {
	c := startCluster(t)
	c.do("POST", "/api/v1/namespaces", obj{"metadata": obj{"name": "shop"}})
	for _, node := range []string{"n1", "n2"} {
		c.do("POST", "/api/v1/nodes", obj{"metadata": obj{"name": node}})
	}
	c.do("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", obj{"metadata": obj{"name": "weir"}, "rules": []any{obj{"apiGroups": []any{""}, "resources": []any{"pods"}, "verbs": []any{"get", "list", "watch"}}}})
	c.do("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", obj{"metadata": obj{"name": "weir"}, "roleRef": obj{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "weir"},
		"subjects": []any{obj{"kind": "ServiceAccount", "name": "weir", "namespace": "shop"}}})
	allowed, stranger := c.account("weir"), c.account("stranger")
	tokenFile := c.file("token")
	setToken := func(token string) {
		if err := os.WriteFile(tokenFile, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const pods = 300
	uids := make([]string, pods)
	for i := range uids {
		uids[i] = c.pod(fmt.Sprintf("web-%d", i), "n1", obj{"app": "web", "pod-template-hash": "7d9", "number": strconv.Itoa(i)})
	}
	for i := range 5 {
		c.pod(fmt.Sprintf("elsewhere-%d", i), "n2", nil)
	}

	setToken(stranger)
	f := &fixture{t: t, api: kubetest.New(t), log: &logged{}}
	f.Client = New(Config{API: c.url(), CAFile: c.file("tls.crt"), TokenFile: tokenFile, Node: "n1"}, os.Getenv, slog.New(slog.NewTextHandler(f.log, nil)), prometheus.NewRegistry())
	f.minPause, f.maxPause = 50*time.Millisecond, 500*time.Millisecond
	f.start(t)
	f.await("a refusal", func() bool { return f.results("forbidden") > 1 && f.log.count("ClusterRole") == 1 })
	setToken(allowed)
	f.await("the list", func() bool { return f.Pod(uids[pods-1]) != nil })
	f.same(c)
	p := f.Pod(uids[0])
	before, _ := p.Containers["app"].ID(0)
	if p.Owner != (Owner{"Deployment", "web"}) || before != uids[0]+"-c0" {
		t.Errorf("owner %v, first container %q", p.Owner, before)
	}

	added := c.pod("web-added", "n1", obj{"app": "web"})
	c.label("web-0", "app", "changed")
	c.do("DELETE", shop+"pods/web-1?gracePeriodSeconds=0", nil)
	removed := func(uid string) bool { f.mu.Lock(); defer f.mu.Unlock(); return !f.gone[uid].IsZero() }
	f.await("the watch's events", func() bool {
		p := f.Pod(added)
		return p != nil && p.Containers["app"].id != "" && f.label(uids[0], "app") == "changed" && removed(uids[1])
	})
	f.same(c)

	c.stopAPI()
	f.await("the API's absence", func() bool { return f.results("unreachable") > 1 })
	c.startAPI()
	c.label("web-2", "app", "after-the-restart")
	f.await("the change after the restart", func() bool { return f.label(uids[2], "app") == "after-the-restart" })
	f.same(c)
	t.Logf("over the API's restart: ok %d, unreachable %d, broken %d, refused %d, expired %d", f.results("ok"), f.results("unreachable"), f.results("broken"), f.results("refused"), f.results("expired"))

	expired := f.results("expired")
	setToken("not-a-token") // so that the client stays out while the history is compacted
	c.stopAPI()
	c.startAPI()
	f.await("a refusal of the token", func() bool { return f.results("unauthorized") > 0 })
	c.label("web-3", "app", "while-away")
	c.do("DELETE", shop+"pods/web-4?gracePeriodSeconds=0", nil)
	c.compact()
	c.stopAPI()
	c.startAPI()
	setToken(allowed)
	f.await("the changes while away", func() bool { return f.label(uids[3], "app") == "while-away" && removed(uids[4]) })
	if f.results("expired") == expired {
		t.Error("the version was not too old: nothing was tried")
	}
	f.same(c)
	c.label("web-5", "app", "at-last")
	f.await("the watch after the second list", func() bool { return f.label(uids[5], "app") == "at-last" })
	t.Logf("at the end: ok %d, unreachable %d, broken %d, refused %d, expired %d, forbidden %d, unauthorized %d", f.results("ok"), f.results("unreachable"), f.results("broken"), f.results("refused"), f.results("expired"), f.results("forbidden"), f.results("unauthorized"))
}
