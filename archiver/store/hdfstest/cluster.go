//go:build e2e

// Package hdfstest runs an HDFS of a test's own, whose servers it kills, freezes and starts again.
package hdfstest

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Cluster is a pair of namenodes, or one, with datanodes.
type Cluster struct {
	t      testing.TB
	dir    string
	lib    string
	java   []string
	scheme string // of the web addresses
	admin  map[string]string
	Names  []*Server
	Data   []*Server
}

// Options beyond a plain cluster.
type Options struct {
	NameNodes, DataNodes int
	Host                 string            // name of all servers; 127.0.0.1 by default
	Java                 []string          // options of every server
	HTTPS                bool              // the web servers speak TLS; Files holds ssl-server.xml
	Properties           map[string]string // of hdfs-site.xml and core-site.xml
	Files                map[string]string // beside them
}

// Server is one process.
type Server struct {
	c       *Cluster
	name    string
	class   string
	conf    string
	java    []string
	RPC     string // of a namenode; a datanode's address for blocks
	HTTP    string
	cmd     *exec.Cmd
	ended   chan struct{}
	started int
}

const hdfsPackage = "org.apache.hadoop.hdfs."

// FreePort finds one. It may be taken before it is used, which a test then says.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// from makes a datanode speak from an address of its own, by which the namenode then knows it: otherwise all have the same, and cannot
// be told apart by a client that leaves one out or by the namenode that looks for the nearest.
const from = `import java.io.IOException;
import java.net.*;
import java.nio.channels.SocketChannel;

public class From extends javax.net.SocketFactory {
  public Socket createSocket() throws IOException {
    Socket s = SocketChannel.open().socket();
    s.bind(new InetSocketAddress(System.getProperty("from"), 0));
    return s;
  }
  private Socket to(SocketAddress a) throws IOException { Socket s = createSocket(); s.connect(a); return s; }
  public Socket createSocket(String h, int p) throws IOException { return to(new InetSocketAddress(h, p)); }
  public Socket createSocket(InetAddress h, int p) throws IOException { return to(new InetSocketAddress(h, p)); }
  public Socket createSocket(String h, int p, InetAddress l, int lp) throws IOException { return createSocket(h, p); }
  public Socket createSocket(InetAddress h, int p, InetAddress l, int lp) throws IOException { return createSocket(h, p); }
  public int hashCode() { return 1; }
  public boolean equals(Object o) { return o instanceof From; }
}
`

// Start makes a cluster and waits until it takes files. It ends with the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	lib := os.Getenv("WEIR_HADOOP_LIB")
	if lib == "" {
		t.Fatal("WEIR_HADOOP_LIB is not set: run `make e2e`")
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	c := &Cluster{t: t, dir: t.TempDir(), lib: lib, scheme: "http", java: append([]string{"-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}, o.Java...)}
	site := map[string]string{
		"dfs.nameservices": "weir", "fs.defaultFS": "hdfs://weir", "dfs.client.failover.proxy.provider.weir": hdfsPackage + "server.namenode.ha.ConfiguredFailoverProxyProvider",
		"dfs.namenode.datanode.registration.ip-hostname-check": "false",
		"dfs.replication": fmt.Sprint(o.DataNodes), "dfs.namenode.safemode.extension": "0", "dfs.heartbeat.interval": "1",
		"dfs.ha.fencing.methods": "shell(/bin/true)", "dfs.namenode.shared.edits.dir": "file://" + c.dir + "/edits", "dfs.ha.tail-edits.period": "1s",
		"dfs.client.failover.sleep.base.millis": "100", "dfs.client.failover.sleep.max.millis": "1000",
		"hadoop.tmp.dir": c.dir + "/tmp",
	}
	web := "http"
	if o.HTTPS {
		web, c.scheme = "https", "https"
	}
	port := func(host string) string { return fmt.Sprintf("%s:%d", host, FreePort(t)) }
	var ids []string
	for i := range o.NameNodes {
		id := fmt.Sprintf("nn%d", i+1)
		n := &Server{c: c, name: id, class: "server.namenode.NameNode", RPC: port(o.Host), HTTP: port(o.Host)}
		c.Names, ids = append(c.Names, n), append(ids, id)
		suffix := ".weir." + id
		if o.NameNodes == 1 {
			suffix = ".weir"
		}
		site["dfs.namenode.rpc-address"+suffix], site["dfs.namenode."+web+"-address"+suffix] = n.RPC, n.HTTP
	}
	if o.NameNodes > 1 {
		site["dfs.ha.namenodes.weir"] = strings.Join(ids, ",")
	} else {
		delete(site, "dfs.namenode.shared.edits.dir")
		site["fs.defaultFS"] = "hdfs://" + c.Names[0].RPC
	}
	maps.Copy(site, o.Properties)
	c.admin = site
	write := func(s *Server, own map[string]string) {
		s.conf = filepath.Join(c.dir, "conf-"+s.name)
		all := maps.Clone(site)
		maps.Copy(all, own)
		files := map[string]string{"core-site.xml": properties(all), "hdfs-site.xml": properties(all),
			"log4j.properties": "log4j.rootLogger=INFO, e\nlog4j.appender.e=org.apache.log4j.ConsoleAppender\nlog4j.appender.e.target=System.err\nlog4j.appender.e.layout=org.apache.log4j.PatternLayout\nlog4j.appender.e.layout.ConversionPattern=%d %p %c{1}: %m%n\n"}
		maps.Copy(files, o.Files)
		if err := os.MkdirAll(s.conf, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(s.conf, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range c.Names {
		own := map[string]string{"dfs.namenode.name.dir": "file://" + c.dir + "/" + n.name}
		if o.NameNodes > 1 {
			own["dfs.ha.namenode.id"] = n.name
		}
		write(n, own)
	}
	for i := range o.DataNodes {
		host := o.Host
		d := &Server{c: c, name: fmt.Sprintf("dn%d", i+1), class: "server.datanode.DataNode"}
		own := map[string]string{}
		if o.DataNodes > 1 {
			host = fmt.Sprintf("127.0.0.%d", i+2)
			d.java, own["hadoop.rpc.socket.factory.class.default"] = []string{"-Dfrom=" + host}, "From"
		}
		d.RPC, d.HTTP = port(host), port(host)
		c.Data = append(c.Data, d)
		maps.Copy(own, map[string]string{"dfs.datanode.data.dir": "file://" + c.dir + "/" + d.name, "dfs.datanode.hostname": host,
			"dfs.datanode.address": d.RPC, "dfs.datanode.ipc.address": port(host), "dfs.datanode." + web + ".address": d.HTTP})
		write(d, own)
	}
	if o.DataNodes > 1 {
		source := filepath.Join(c.dir, "From.java")
		if err := os.WriteFile(source, []byte(from), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("javac", "-d", c.dir, source).CombinedOutput(); err != nil {
			t.Fatalf("javac: %v\n%s", err, out)
		}
	}
	for i, n := range c.Names {
		how := []string{"-format", "-nonInteractive"}
		if i > 0 {
			how = []string{"-bootstrapStandby", "-nonInteractive"}
		}
		c.once(n, n.class, how...)
		n.Start()
		if i == 0 {
			n.wait("the namenode's port", func() bool { return n.listens(n.RPC) })
		}
	}
	for _, d := range c.Data {
		d.Start()
	}
	if len(c.Names) > 1 {
		c.Activate(0)
	}
	c.Settle(0)
	return c
}

func properties(all map[string]string) string {
	var b strings.Builder
	b.WriteString("<configuration>\n")
	for _, k := range slices.Sorted(maps.Keys(all)) {
		b.WriteString("<property><name>" + k + "</name><value>")
		_ = xml.EscapeText(&b, []byte(all[k]))
		b.WriteString("</value></property>\n")
	}
	b.WriteString("</configuration>\n")
	return b.String()
}

func (c *Cluster) command(s *Server, class string, args ...string) *exec.Cmd {
	all := append(slices.Concat(c.java, s.java), "-cp", s.conf+":"+c.dir+":"+filepath.Join(filepath.Dir(c.lib), "web")+":"+c.lib+"/*", hdfsPackage+class)
	return exec.Command("java", append(all, args...)...)
}

// once runs a class with a server's configuration to its end.
func (c *Cluster) once(s *Server, class string, args ...string) {
	c.t.Helper()
	if out, err := c.command(s, class, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%s %v: %v\n%s", class, args, err, tail(out))
	}
}

func tail(out []byte) []byte { return out[max(0, len(out)-3000):] }

// Activate makes a namenode the active one, whatever the others are.
func (c *Cluster) Activate(i int) {
	c.t.Helper()
	n := c.Names[i]
	n.wait("the namenode's port", func() bool { return n.listens(n.RPC) })
	c.once(n, "tools.DFSHAAdmin", "-ns", "weir", "-transitionToActive", "--forceactive", n.name)
	n.wait("the active state", func() bool {
		body, err := get("http://" + n.HTTP + "/jmx?qry=Hadoop:service=NameNode,name=NameNodeStatus")
		return err == nil && strings.Contains(body, `"State":"active"`)
	})
}

// Admin runs dfsadmin.
func (c *Cluster) Admin(i int, args ...string) {
	c.t.Helper()
	c.once(c.Names[i], "tools.DFSAdmin", append([]string{"-fs", "hdfs://" + c.Names[i].RPC}, args...)...)
}

// Settle waits until a namenode is out of safe mode and counts all datanodes that run.
func (c *Cluster) Settle(i int) {
	c.t.Helper()
	n := c.Names[i]
	for _, d := range c.Data { // the namenode goes on counting one that was killed
		d.wait("the datanode's port", func() bool { return d.listens(d.RPC) })
	}
	if c.scheme == "https" { // who may ask is decided by Kerberos there
		n.wait("the web server", func() bool { return n.listens(n.HTTP) })
		return
	}
	n.wait("the cluster", func() bool {
		body, err := get("http://" + n.HTTP + "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState")
		return err == nil && strings.Contains(body, `"FSState":"Operational"`) && strings.Contains(body, fmt.Sprintf(`"NumLiveDataNodes":%d,`, len(c.Data)))
	})
}

func get(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return strings.NewReplacer(" ", "", "\n", "").Replace(string(body)), err
}

// WebPut changes something over the REST API as the cluster's superuser.
func (c *Cluster) WebPut(i int, path, query string) {
	c.t.Helper()
	u := fmt.Sprintf("http://%s/webhdfs/v1%s?user.name=root&%s", c.Names[i].HTTP, path, query)
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPut, u, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %s %s %v", u, resp.Status, body, err)
	}
}

// Root is the address of a folder, through all namenodes; Web the one of their REST API.
func (c *Cluster) Root(dir string) string {
	var hosts []string
	for _, n := range c.Names {
		hosts = append(hosts, n.RPC)
	}
	return "hdfs://" + strings.Join(hosts, ",") + dir
}

func (c *Cluster) Web() string {
	var hosts []string
	for _, n := range c.Names {
		hosts = append(hosts, n.HTTP)
	}
	return c.scheme + "://" + strings.Join(hosts, ",")
}

// Start runs the server, and kills it when the test ends.
func (s *Server) Start() {
	s.c.t.Helper()
	s.cmd = s.c.command(s, s.class)
	s.started++
	log, err := os.Create(filepath.Join(s.c.dir, fmt.Sprintf("%s-%d.log", s.name, s.started)))
	if err != nil {
		s.c.t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.c.t.Fatal(err)
	}
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() { defer close(ended); _ = cmd.Wait(); _ = log.Close() }()
	s.c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
}

func (s *Server) Kill()   { _ = s.cmd.Process.Kill(); <-s.ended }
func (s *Server) Freeze() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }
func (s *Server) Thaw()   { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *Server) listens(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

func (s *Server) wait(what string, ready func() bool) {
	s.c.t.Helper()
	end := time.After(2 * time.Minute)
	for !ready() {
		select {
		case <-s.ended:
			s.c.t.Fatalf("%s ended before %s was there:\n%s", s.name, what, s.log())
		case <-end:
			s.c.t.Fatalf("%s: %s is not there after two minutes:\n%s", s.name, what, s.log())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *Server) log() []byte {
	b, _ := os.ReadFile(filepath.Join(s.c.dir, fmt.Sprintf("%s-%d.log", s.name, s.started)))
	return tail(b)
}
