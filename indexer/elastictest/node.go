//go:build e2e

package elastictest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

//go:embed LifecycleParser.java
var lifecycleParser []byte

// Options of a node.
type Options struct {
	Name      string
	Settings  string            // lines of elasticsearch.yml, over those of Start
	Files     map[string][]byte // in the configuration's folder
	Keystore  map[string]string // secure settings
	Lifecycle bool              // the ILM policy API, which parses policies and never executes them
	HTTPS     bool
	Cluster   []*Node      // nodes to join
	Heap      int          // MB; 384 where it is 0
	Client    *http.Client // which trusts the node's certificate
}

// Node is one Elasticsearch. It has a folder of its own and runs as another user where the test is root.
type Node struct {
	URL       string
	opts      Options
	t         *testing.T
	home, dir string
	http      int
	transport int
	cmd       *exec.Cmd
	ended     chan struct{}
}

// Start starts a node and waits until it answers. It ends with the test.
func Start(t *testing.T, o Options) *Node {
	t.Helper()
	dist := os.Getenv("WEIR_ELASTICSEARCH_HOME")
	if dist == "" {
		t.Fatal("WEIR_ELASTICSEARCH_HOME is not set: run `make e2e`")
	}
	dir, err := os.MkdirTemp("", "weir-elasticsearch")
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{opts: o, t: t, home: dist, dir: dir, http: freePort(t), transport: freePort(t)}
	n.URL = fmt.Sprintf("http%s://127.0.0.1:%d", map[bool]string{true: "s"}[o.HTTPS], n.http)
	t.Cleanup(func() {
		n.Kill()
		if t.Failed() {
			if log, err := os.ReadFile(filepath.Join(dir, "node.log")); err == nil {
				t.Logf("the end of the node's log:\n%s", log[max(0, len(log)-6000):])
			}
		}
		_ = os.RemoveAll(dir)
	})
	n.prepare()
	n.Run()
	return n
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

func (n *Node) run(name string, args ...string) {
	n.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (n *Node) prepare() {
	n.t.Helper()
	conf := filepath.Join(n.dir, "conf")
	for _, d := range []string{conf, filepath.Join(n.dir, "data"), filepath.Join(n.dir, "tmp")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	var joined []string
	for _, other := range n.opts.Cluster {
		joined = append(joined, fmt.Sprintf("127.0.0.1:%d", other.transport))
	}
	name := n.opts.Name
	if name == "" {
		name = "weir-test"
	}
	settings := fmt.Sprintf("cluster.name: weir-test\nnode.name: %s\nnetwork.host: 127.0.0.1\nhttp.port: %d\ntransport.port: %d\npath.data: %s\npath.logs: %s\naction.destructive_requires_name: false\ncluster.routing.allocation.disk.threshold_enabled: false\n",
		name, n.http, n.transport, filepath.Join(n.dir, "data"), n.dir)
	if len(joined) > 0 {
		settings += "discovery.seed_hosts: [" + strings.Join(joined, ",") + "]\n"
	} else if !strings.Contains(n.opts.Settings, "discovery.") && !strings.Contains(n.opts.Settings, "initial_master") {
		settings += "discovery.type: single-node\n"
	}
	if !strings.Contains(n.opts.Settings, "xpack.security.enabled") {
		settings += "xpack.security.enabled: false\n"
	}
	settings += "xpack.security.autoconfiguration.enabled: false\n" + n.opts.Settings
	files := map[string][]byte{"elasticsearch.yml": []byte(settings), "log4j2.properties": []byte("status = error\nappender.console.type = Console\nappender.console.name = console\nappender.console.layout.type = PatternLayout\nappender.console.layout.pattern = %d{ISO8601} %p %c{1.}: %m%n\nrootLogger.level = info\nrootLogger.appenderRef.console.ref = console\n")}
	options, err := os.ReadFile(filepath.Join(n.home, "config", "jvm.options"))
	if err != nil {
		n.t.Fatal(err)
	}
	files["jvm.options"] = options
	for name, data := range n.opts.Files {
		files[name] = data
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(conf, name), data, 0o644); err != nil {
			n.t.Fatal(err)
		}
	}
	if n.opts.Lifecycle {
		n.plugin()
	}
	for name, value := range n.opts.Keystore {
		if _, err := os.Stat(filepath.Join(conf, "elasticsearch.keystore")); errors.Is(err, os.ErrNotExist) {
			n.keystore("", "create")
		}
		n.keystore(value, "add", "--stdin", name)
	}
	if os.Geteuid() == 0 {
		n.run("chown", "-R", owner(), n.dir)
		if err := os.Chmod(n.dir, 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
}

func owner() string {
	if u := os.Getenv("WEIR_STACK_USER"); u != "" {
		return u
	}
	return "nobody"
}

// keystore runs the distribution's own tool, by the classes, since the stack keeps only the launcher's script.
func (n *Node) keystore(input string, args ...string) {
	n.t.Helper()
	cmd := exec.Command("bash", append([]string{filepath.Join(n.home, "bin", "elasticsearch-cli")}, args...)...)
	cmd.Env = append(n.environment(), "CLI_NAME=keystore", "CLI_LIBS=lib/tools/keystore-cli")
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("keystore %v: %v\n%s", args, err, out)
	}
}

// plugin gives the node a home of its own, of links, with the lifecycle parser in it.
func (n *Node) plugin() {
	n.t.Helper()
	home := filepath.Join(n.dir, "home")
	if err := exec.Command("cp", "-al", n.home, home).Run(); err != nil {
		_ = os.RemoveAll(home)
		n.run("cp", "-a", n.home, home)
	}
	dist := n.home
	n.home = home
	plugin, source := filepath.Join(home, "plugins", "weir-lifecycle-parser"), filepath.Join(n.dir, "source")
	for _, d := range []string{plugin, filepath.Join(source, "weir"), filepath.Join(source, "classes")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	file := filepath.Join(source, "weir", "LifecycleParser.java")
	if err := os.WriteFile(file, lifecycleParser, 0o644); err != nil {
		n.t.Fatal(err)
	}
	n.run("javac", "-nowarn", "-cp", dist+"/lib/*:"+dist+"/modules/x-pack-core/*", "-d", filepath.Join(source, "classes"), file)
	n.run("jar", "--create", "--file", filepath.Join(plugin, "parser.jar"), "-C", filepath.Join(source, "classes"), ".")
	version := strings.TrimPrefix(filepath.Base(dist), "elasticsearch-")
	descriptor := "description=parses lifecycle policies\nversion=1\nname=weir-lifecycle-parser\nclassname=weir.LifecycleParser\njava.version=17\nelasticsearch.version=" + version + "\nextended.plugins=x-pack-core\n"
	if err := os.WriteFile(filepath.Join(plugin, "plugin-descriptor.properties"), []byte(descriptor), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *Node) environment() []string {
	java := os.Getenv("JAVA_HOME")
	if java == "" {
		path, err := exec.LookPath("java")
		if err == nil {
			path, err = filepath.EvalSymlinks(path)
		}
		if err != nil {
			n.t.Fatal(err)
		}
		java = filepath.Dir(filepath.Dir(path))
	}
	heap := n.opts.Heap
	if heap == 0 {
		heap = 384
	}
	return []string{"PATH=" + os.Getenv("PATH"), "ES_JAVA_HOME=" + java, "ES_PATH_CONF=" + filepath.Join(n.dir, "conf"), "ES_TMPDIR=" + filepath.Join(n.dir, "tmp"), "HOSTNAME=localhost",
		fmt.Sprintf("ES_JAVA_OPTS=-Xms%dm -Xmx%[1]dm -XX:-AlwaysPreTouch -XX:-HeapDumpOnOutOfMemoryError -XX:TieredStopAtLevel=1 -Xlog:disable", heap)}
}

// Run starts the node again after Kill, with what it wrote.
func (n *Node) Run() {
	n.t.Helper()
	pid := filepath.Join(n.dir, "pid")
	_ = os.Remove(pid)
	log, err := os.OpenFile(filepath.Join(n.dir, "node.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	n.cmd = exec.Command("bash", filepath.Join(n.home, "bin", "elasticsearch-cli"), "-p", pid)
	n.cmd.Dir = n.dir
	n.cmd.Env = append(n.environment(), "CLI_NAME=server", "CLI_LIBS=lib/tools/server-cli")
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		u, err := user.Lookup(owner())
		if err != nil {
			n.t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		n.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(n.cmd, n.ended)
	n.await()
}

func (n *Node) await() {
	n.t.Helper()
	client := n.opts.Client
	if client == nil {
		client = http.DefaultClient
	}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		select {
		case <-n.ended:
			n.t.Fatal("the node ended before it was ready")
		case <-time.After(200 * time.Millisecond):
		}
		ctx, cancel := context.WithTimeout(n.t.Context(), 3*time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL+"/_cluster/health", nil)
		if err != nil {
			n.t.Fatal(err)
		}
		req.Close = true
		password, secured := n.opts.Keystore["bootstrap.password"]
		if secured { // it counts only some time after the node answers
			req.SetBasicAuth("elastic", password)
		}
		res, err := client.Do(req)
		if err == nil {
			res.Body.Close()
		}
		cancel()
		if err == nil && (res.StatusCode == http.StatusOK || res.StatusCode == http.StatusUnauthorized && !secured) {
			return
		}
	}
	n.t.Fatal("the node is not ready after two minutes")
}

// Kill ends the node at once, as a power cut does to the process. It may be run again.
func (n *Node) Kill() {
	if n.cmd == nil {
		return
	}
	pid, _ := os.ReadFile(filepath.Join(n.dir, "pid"))
	_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL) // the launcher and the server, which is its child
	<-n.ended
	n.cmd = nil
	for range 100 { // its locks and ports go with the last of its threads
		stat, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "stat"))
		if len(pid) == 0 || err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
