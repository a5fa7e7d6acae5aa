//go:build e2e

package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/internal/certtest"
	"weir/processor/signal"
	"weir/schema"
)

// server is a process that the test starts and ends.
type server struct {
	t    *testing.T
	name string
	args []string
	log  string
	cmd  *exec.Cmd
}

func (s *server) start() {
	s.t.Helper()
	f, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = f, f
	s.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WEIR_") })
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	defer time.AfterFunc(40*time.Second, func() { _ = s.cmd.Process.Kill() }).Stop()
	_ = s.cmd.Wait()
	s.cmd = nil
}

func (s *server) tell() {
	if s.t.Failed() {
		b, _ := os.ReadFile(s.log)
		s.t.Logf("the end of %s's log:\n%s", s.name, b[max(0, len(b)-4000):])
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func write(t *testing.T, path, format string, args ...any) string {
	t.Helper()
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hook is a webhook: what came, as "status alertname container".
type hook struct {
	mu  sync.Mutex
	all []string
}

func (h *hook) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var m struct {
		Alerts []struct {
			Status string
			Labels map[string]string
		}
	}
	b, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(b, &m) // what is not understood is missed by the test
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range m.Alerts {
		h.all = append(h.all, strings.TrimSpace(a.Status+" "+a.Labels["alertname"]+" "+a.Labels["container"]))
	}
}

func (h *hook) count(what string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.all {
		if a == what {
			n++
		}
	}
	return n
}

func getJSON(address string, v any) error {
	c := http.Client{Timeout: 5 * time.Second}
	res, err := c.Get(address)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		return fmt.Errorf("%s: %s", address, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(v)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// TestPrometheusAndAlertmanager runs weir under a real Prometheus with the rules that are shipped, by mutual TLS, and a real Alertmanager: an alert on a
// metric fires and is over; signals are told, told again after restarts of weir and of Alertmanager, and over.
func TestPrometheusAndAlertmanager(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "weir"), "../../cmd/weir")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fromManager, fromWeir := &hook{}, &hook{}
	managerHook, weirHook := httptest.NewServer(fromManager), httptest.NewServer(fromWeir)
	defer managerHook.Close()
	defer weirHook.Close()
	kafka, listen, prom, manager := freePort(t), freePort(t), freePort(t), freePort(t)
	_, port, _ := net.SplitHostPort(kafka)

	logs := filepath.Join(dir, "logs")
	if err := os.Mkdir(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(logs, "a.log"), "a line\n")
	ca := certtest.New(t, dir, "ca")
	cert, key := ca.Issue("weir")
	clientCert, clientKey := ca.Issue("prometheus")
	secure := http.Client{Transport: &http.Transport{TLSClientConfig: ca.Client(clientCert, clientKey)}, Timeout: 5 * time.Second}
	weirConfig := write(t, filepath.Join(dir, "weir.yaml"), `embedded: {dir: %s, port: %s}
http: {listen: %q, tls: {ca_file: %q, cert_file: %q, key_file: %q}}
agent: {max_files: 1, files: [{paths: [%s/*.log], app: plain}]}
control:
  notify:
    wait: 1s
    resend: 5s
    alertmanager: [{url: "http://%s"}]
    webhooks: [{url: %q}]
`, dir, port, listen, ca.CAFile, cert, key, logs, manager, weirHook.URL)
	managerConfig := write(t, filepath.Join(dir, "alertmanager.yml"), `route: {receiver: test, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: test, webhook_configs: [{url: %q, send_resolved: true}]}]
`, managerHook.URL)
	// The rules and the example are those that are shipped, but for times and addresses.
	shipped := func(name string, change func(string) string) string {
		b, err := os.ReadFile("../../deployments/prometheus/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return write(t, filepath.Join(dir, name), "%s", change(string(b)))
	}
	shipped("weir.rules.yml", func(s string) string {
		return regexp.MustCompile(`(?m)^    for: .*$`).ReplaceAllString(s, "    for: 1s")
	})
	promConfig := shipped("prometheus.yml", func(s string) string {
		return strings.NewReplacer("15s", "1s", "127.0.0.1:9093", manager, "127.0.0.1:9464", listen, "# scheme: https", "scheme: https",
			"# tls_config: {ca_file: /etc/prometheus/weir-ca.crt}", fmt.Sprintf("tls_config: {ca_file: %s, cert_file: %s, key_file: %s}", ca.CAFile, clientCert, clientKey)).Replace(s)
	})

	weir := &server{t: t, name: "weir", args: []string{filepath.Join(dir, "weir"), "up", "--demo", "--plain", "--config", weirConfig}, log: filepath.Join(dir, "weir.log")}
	am := &server{t: t, name: "Alertmanager", log: filepath.Join(dir, "alertmanager.log"),
		args: []string{"prometheus-alertmanager", "--config.file=" + managerConfig, "--storage.path=" + filepath.Join(dir, "am"), "--web.listen-address=" + manager, "--cluster.listen-address="}}
	p8s := &server{t: t, name: "Prometheus", log: filepath.Join(dir, "prometheus.log"),
		args: []string{"prometheus", "--config.file=" + promConfig, "--storage.tsdb.path=" + filepath.Join(dir, "tsdb"), "--web.listen-address=" + prom}}
	for _, s := range []*server{am, p8s, weir} {
		s.start()
		t.Cleanup(func() { s.stop(); s.tell() })
	}

	type alert struct {
		Labels, Annotations map[string]string
		UpdatedAt           time.Time
		EndsAt              time.Time
	}
	active := func(name, container string) *alert {
		var all []alert
		filter := "?filter=" + url.QueryEscape("alertname="+name)
		if getJSON("http://"+manager+"/api/v2/alerts"+filter, &all) == nil {
			for i := range all {
				if container == "" || all[i].Labels["container"] == container {
					return &all[i]
				}
			}
		}
		return nil
	}
	fires := func(name, container string) {
		t.Helper()
		await(t, name+" "+container+" fires in Alertmanager", func() bool { return active(name, container) != nil })
	}
	over := func(name, container string) {
		t.Helper()
		await(t, name+" "+container+" is over in Alertmanager", func() bool {
			var up any
			return getJSON("http://"+manager+"/api/v2/status", &up) == nil && active(name, container) == nil
		})
	}

	await(t, "Prometheus scrapes weir", func() bool {
		var targets struct {
			Data struct{ ActiveTargets []struct{ Health string } }
		}
		return getJSON("http://"+prom+"/api/v1/targets", &targets) == nil && len(targets.Data.ActiveTargets) == 1 && targets.Data.ActiveTargets[0].Health == "up"
	})

	t.Run("an alert on a metric", func(t *testing.T) {
		second := write(t, filepath.Join(logs, "b.log"), "a line\n")
		fires("WeirFilesNotFollowed", "")
		await(t, "Alertmanager tells of it", func() bool { return fromManager.count("firing WeirFilesNotFollowed") > 0 })
		if a := active("WeirFilesNotFollowed", ""); a.Annotations["runbook"] != "docs/operate.md#weirfilesnotfollowed" || !strings.Contains(a.Annotations["summary"], "does not follow 1 files") {
			t.Errorf("%+v", a)
		}
		for _, f := range []string{second, filepath.Join(logs, "a.log")} { // whichever of them is not followed
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		over("WeirFilesNotFollowed", "")
		await(t, "Alertmanager tells that it is over", func() bool { return fromManager.count("resolved WeirFilesNotFollowed") > 0 })
	})

	t.Run("without a certificate", func(t *testing.T) {
		stranger := http.Client{Transport: &http.Transport{TLSClientConfig: ca.Client("", "")}, Timeout: 5 * time.Second}
		if _, err := stranger.Get("https://" + listen + "/metrics"); err == nil {
			t.Error("metrics are shown to a client without a certificate")
		}
	})

	t.Run("every rule is evaluated", func(t *testing.T) {
		var rules struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
		}
		if err := getJSON("http://"+prom+"/api/v1/rules", &rules); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, g := range rules.Data.Groups {
			for _, r := range g.Rules {
				n++
				if r.Health != "ok" {
					t.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		if want := len(readRules(t)); n != want {
			t.Errorf("%d rules, want %d", n, want)
		}
	})

	say := sender(t, kafka)
	t.Run("signals", func(t *testing.T) {
		say("a", signal.Firing)
		say("b", signal.Firing)
		fires("crash_loop", "a")
		fires("crash_loop", "b")
		await(t, "the webhook is told", func() bool {
			return fromWeir.count("firing crash_loop a") > 0 && fromWeir.count("firing crash_loop b") > 0
		})
		if a := active("crash_loop", "a"); a.Labels["severity"] != "critical" || a.Labels["source"] != "weir" || a.Annotations["summary"] != "a died again and again" {
			t.Errorf("%+v", a)
		}

		// A new process goes on with it: Alertmanager is told again, the webhook is not.
		before, told := active("crash_loop", "a").UpdatedAt, fromWeir.count("firing crash_loop a")
		weir.stop()
		stopped := time.Now()
		weir.start()
		await(t, "the new process tells Alertmanager", func() bool {
			a := active("crash_loop", "a")
			return a != nil && a.UpdatedAt.After(before) && a.UpdatedAt.After(stopped)
		})
		if n := fromWeir.count("firing crash_loop a"); n != told {
			t.Errorf("the webhook was told %d times, and %d times before the restart", n, told)
		}

		// Alertmanager is away while one ends and another begins.
		am.stop()
		say("b", signal.Resolved)
		say("c", signal.Firing)
		await(t, "the webhook is told while Alertmanager is away", func() bool {
			return fromWeir.count("resolved crash_loop b") == 1 && fromWeir.count("firing crash_loop c") > 0
		})
		am.start()
		fires("crash_loop", "c")
		over("crash_loop", "b")

		say("a", signal.Resolved)
		say("c", signal.Resolved)
		over("crash_loop", "a")
		over("crash_loop", "c")
		await(t, "Alertmanager tells that it is over", func() bool {
			return fromManager.count("resolved crash_loop a") > 0 && fromManager.count("resolved crash_loop c") > 0
		})
		await(t, "the webhook is told that it is over", func() bool {
			return fromWeir.count("resolved crash_loop a") > 0 && fromWeir.count("resolved crash_loop c") > 0
		})
		for _, c := range []string{"a", "b", "c"} {
			if n := fromWeir.count("resolved crash_loop " + c); n != 1 {
				t.Errorf("the webhook was told %d times that %s is over", n, c)
			}
		}
	})

	t.Run("the status page", func(t *testing.T) {
		for path, want := range map[string]string{"/": "<title>weir</title>", "/api/v1/path": `"name":"archiver"`, "/api/v1/containers": `"app":"gateway"`, "/api/v1/nodes": `"name":"demo"`, "/api/v1/signals": "a died again and again"} {
			await(t, path, func() bool {
				res, err := secure.Get("https://" + listen + path)
				if err != nil {
					return false
				}
				defer res.Body.Close()
				b, _ := io.ReadAll(res.Body)
				return bytes.Contains(b, []byte(want))
			})
		}
	})

	t.Run("weir is down", func(t *testing.T) {
		weir.stop()
		fires("WeirDown", "")
		weir.start()
		over("WeirDown", "")
	})
}

// sender sends signals as the processor does.
func sender(t *testing.T, address string) func(container, state string) {
	t.Helper()
	cfg := ingest.DefaultKafkaConfig()
	cfg.Brokers = []string{address}
	k, err := ingest.NewKafka(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	p, err := ingest.NewProducer(k, ingest.DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return func(container, state string) {
		t.Helper()
		s := signal.Signal{Kind: signal.CrashLoop, Rule: "crash_loop", Group: signal.Group("container.name", container), State: state, End: time.Now().UnixNano(), Severity: signal.Error, Value: 5, Body: container + " died again and again",
			Subject: []schema.Attr{schema.String(schema.AttrContainerName, container), schema.String(schema.AttrHostName, "node-1")}}
		r := s.Record()
		r.Offset = s.End
		var e schema.Encoder
		e.Reset("weir/test/signals", schema.Incarnation{}, nil)
		e.Append(&r)
		if err := p.Send(t.Context(), ingest.Message{Topic: schema.TopicSignals, Source: "weir/test/signals", Begin: schema.Position{Offset: s.End}, End: schema.Position{Offset: s.End + 1}, Count: 1, Value: e.Bytes()}); err != nil {
			t.Fatal(err)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPromtool has the real promtool check and test the rules and the example.
func TestPromtool(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "weir.rules.yml"}, {"test", "rules", "weir.rules.test.yml"}, {"check", "config", "prometheus.yml"}} {
		c := exec.Command("promtool", args...)
		c.Dir = "../../deployments/prometheus"
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// TestDashboardQueries has promtool parse every query of the dashboards, as rules.
func TestDashboardQueries(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("groups:\n- name: dashboards\n  rules:\n")
	n := 0
	for _, d := range read(t).Dashboards {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				for _, l := range p.Lines {
					n++
					fmt.Fprintf(&b, "  - record: panel:line%d\n    expr: %q\n", n, strings.NewReplacer("$__range", "1h", "$instance", ".*").Replace(l.Expr))
				}
			}
		}
	}
	file := write(t, filepath.Join(t.TempDir(), "dashboards.yml"), "%s", b.String())
	if out, err := exec.Command("promtool", "check", "rules", file).CombinedOutput(); err != nil || !strings.Contains(string(out), fmt.Sprint(n, " rules found")) {
		t.Errorf("%v\n%s", err, out)
	}
}
