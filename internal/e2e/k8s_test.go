//go:build e2e && k8s

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"weir/ingest"
	"weir/internal/certtest"
	"weir/schema"
)

const (
	k8sWriters = 8
	k8sLines   = 6000 // of each
)

// TestKubernetes runs weir as its manifests have it, with all components, on a Kubernetes of one node and the stack's servers, and counts what pods write
// while the agent is updated and evicted. The node has a Docker engine beside the kubelet's containerd.
func TestKubernetes(t *testing.T) {
	t.Setenv("WEIR_SPARK_SUBMIT", "none") // not used here
	s := need(t)
	brokers := strings.Split(s.kafka, ",")
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	k := newKafka(t, brokers)
	freshTopics(t, k, brokers)
	c := newCluster(t)
	// The kubelet keeps logs and the agent its state at places of the host: those of an earlier run are not ours. At the end nobody but the kubelet stops containers.
	namespaces := []string{"weir-e2e-shop", "weir-e2e-crash", "weir", "weir-node"}
	forget := func() {
		for _, namespace := range namespaces {
			logs, _ := filepath.Glob("/var/log/pods/" + namespace + "_*")
			for _, dir := range append(logs, "/var/lib/weir/agent", "/var/lib/weir/executor") {
				if err := os.RemoveAll(dir); err != nil {
					t.Log(err)
				}
			}
		}
	}
	forget()
	t.Cleanup(func() {
		if t.Failed() {
			for _, namespace := range namespaces[2:] {
				out, _ := c.command("-n", namespace, "get", "pods").CombinedOutput()
				t.Logf("%s:\n%s", namespace, out)
				logs, _ := filepath.Glob("/var/log/pods/" + namespace + "_*/*/*.log")
				for _, name := range logs {
					b, _ := os.ReadFile(name)
					t.Logf("the end of %s:\n%s", name, b[max(0, len(b)-1500):])
				}
			}
		}
		if err := c.try(append([]string{"delete", "namespace", "--ignore-not-found", "--timeout=90s"}, namespaces...)...); err != nil {
			t.Error(err)
		}
		forget()
	})
	for name, dir := range map[string]string{"weir": "./cmd/weir", "writer": "./testdata/e2e/writer", "pause": "./testdata/e2e/pause"} {
		run(t, repository, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-o", c.path("bin/"+name), dir)
		c.image(repository, "docker.io/library/"+name+":e2e", c.path("bin/"+name))
	}
	run(t, repository, []string{"WEIR_KAFKA_BROKERS=" + s.kafka}, c.path("bin/weir"), "topics", "apply")

	engine, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	overlay := c.manifests(repository, s, engine)
	for _, key := range []string{"decider.pem", "operator.pem"} {
		run(t, repository, nil, c.path("bin/weir"), "control", "keygen", c.path(key))
	}
	ca := certtest.New(t, c.dir, "weir-ca")
	cert, key := ca.Issue("weir")
	for _, namespace := range []string{"weir", "weir-node"} {
		c.kubectl("create", "namespace", namespace)
		c.kubectl("-n", namespace, "create", "secret", "tls", "weir-tls", "--cert="+cert, "--key="+key)
		c.kubectl("-n", namespace, "create", "secret", "generic", "weir-trusted", "--from-file=decider.pub="+c.path("decider.pub"))
	}
	c.kubectl("-n", "weir", "create", "secret", "generic", "weir-decider", "--from-file=decider.pem="+c.path("decider.pem"), "--from-file=operator.pub="+c.path("operator.pub"))
	c.kubectl("apply", "--server-side", "-k", overlay)
	for _, name := range []string{"agent", "executor"} {
		c.kubectl("-n", "weir-node", "rollout", "status", "daemonset/"+name, "--timeout=120s")
	}
	for _, name := range []string{"indexer", "archiver", "processor", "control", "executor"} {
		c.kubectl("-n", "weir", "rollout", "status", "deployment/"+name, "--timeout=120s")
	}

	for port := 19464; port <= 19470; port++ { // of the overlay
		c.speaksTLS(port, ca)
	}
	healed := c.healsBesideTheKubelet(repository, engine)

	c.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: weir-e2e-shop}\n")
	c.apply(fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: ledger, namespace: weir-e2e-shop}
spec:
  replicas: %d
  selector: {matchLabels: {app.kubernetes.io/name: ledger}}
  template:
    metadata: {labels: {app.kubernetes.io/name: ledger, team: payments}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: docker.io/library/writer:e2e
        imagePullPolicy: Never
        env: [{name: LINES, value: "%d"}, {name: SECONDS, value: "45"}, {name: WAIT, value: "1"}]
`, k8sWriters, k8sLines))
	c.kubectl("-n", "weir-e2e-shop", "rollout", "status", "deployment/ledger", "--timeout=120s")

	// It ends with an error right after its start, again and again: the processor tells, control orders, the executor deletes it.
	c.apply(`apiVersion: v1
kind: Namespace
metadata: {name: weir-e2e-crash}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: broken, namespace: weir-e2e-crash}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: broken}}
  template:
    metadata: {labels: {app.kubernetes.io/name: broken}}
    spec:
      hostNetwork: true
      containers:
      - name: main
        image: docker.io/library/writer:e2e
        imagePullPolicy: Never
        env: [{name: LINES, value: "50"}, {name: SECONDS, value: "1"}, {name: EXIT, value: "3"}]
`)
	broken := ""
	await(t, time.Minute, "the broken pod", func() bool { broken = c.podOf("weir-e2e-crash", "broken"); return broken != "" })

	// A rolling update while they write, then an eviction.
	before := c.agentPod()
	c.kubectl("-n", "weir-node", "patch", "daemonset", "agent", "-p", `{"spec":{"template":{"metadata":{"annotations":{"e2e":"2"}}}}}`)
	c.kubectl("-n", "weir-node", "rollout", "status", "daemonset/agent", "--timeout=120s")
	updated := c.agentPod()
	if updated == before {
		t.Error("the update made no new pod")
	}
	c.evict(updated)
	c.kubectl("-n", "weir-node", "rollout", "status", "daemonset/agent", "--timeout=120s")
	await(t, time.Minute, "the pod after the eviction", func() bool { p := c.agentPod(); return p != "" && p != updated })

	got := podsLines(t, k, k8sWriters*k8sLines)
	missing := k8sWriters*k8sLines - got.unique
	fmt.Printf("RESULT e2e-k8s written=%d delivered=%d repeated=%d unexplained=%d pods=%d\n", k8sWriters*k8sLines, got.unique, got.repeated, missing-got.losses, len(got.pods))
	if missing != 0 || got.repeated != 0 || got.losses != 0 || len(got.pods) != k8sWriters {
		t.Errorf("%d missing, %d repeated, %d loss records, of %d pods", missing, got.repeated, got.losses, len(got.pods))
	}
	for _, p := range got.wrong {
		t.Error(p)
	}
	await(t, 5*time.Minute, "the broken pod's deletion", func() bool { p := c.podOf("weir-e2e-crash", "broken"); return p != "" && p != broken })
	if restarts := c.kubectl("-n", "weir-e2e-crash", "get", "pods", "-l", "app.kubernetes.io/name=broken", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}"); restarts == "" {
		t.Error("no pod came in the deleted one's place")
	}
	history := exec.Command(c.path("bin/weir"), "control", "history", "--verify", "--trusted", c.path("decider.pub"))
	history.Env = append(os.Environ(), "WEIR_KAFKA_BROKERS="+s.kafka)
	out, err := history.CombinedOutput()
	if err != nil || !strings.Contains(string(out), broken) || !strings.Contains(string(out), "delete_pod") || !strings.Contains(string(out), healed) {
		t.Errorf("the history does not have the deletion of %s and the restart of %s: %v\n%s", broken, healed, err, out)
	}
	c.rights("agent", "weir-node")
	c.rights("executor", "weir")
}

// speaksTLS wants a pod to answer to its certificate alone.
func (c *cluster) speaksTLS(port int, ca *certtest.Authority) {
	c.t.Helper()
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: ca.Client("", ""), DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for scheme, want := range map[string]int{"https": http.StatusOK, "http": http.StatusBadRequest} {
		res, err := secure.Get(fmt.Sprintf("%s://127.0.0.1:%d/healthz", scheme, port))
		if err != nil {
			c.t.Error(err)
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			c.t.Errorf("port %d by %s: %s", port, scheme, res.Status)
		}
	}
}

// healsBesideTheKubelet has a container of the node's Docker engine fail; the executor on the node restarts it.
func (c *cluster) healsBesideTheKubelet(repository string, engine *client.Client) (name string) {
	c.t.Helper()
	r := &rig{repository: repository, docker: engine}
	buildImage(c.t, repository, c.t.TempDir())
	name = "beside-" + time.Now().Format("150405")
	r.container(c.t, name, func(cfg *container.Config, _ *container.HostConfig) { cfg.Volumes = map[string]struct{}{"/data": {}} }, "CRASHES=1", "LINES=1", "SECONDS=0", "WAIT=1")
	await(c.t, time.Minute, name+" healed", func() bool {
		res, err := engine.ContainerInspect(c.t.Context(), name, client.ContainerInspectOptions{})
		if err != nil || !res.Container.State.Running {
			return false
		}
		started, err := time.Parse(time.RFC3339Nano, res.Container.State.StartedAt)
		return err == nil && time.Since(started) > 2*time.Second
	})
	return name
}

// manifests copies the tree, names the servers of the stack in its configurations and the place of its engine, and returns the overlay.
func (c *cluster) manifests(repository string, s servers, engine *client.Client) string {
	c.t.Helper()
	dir := c.path("manifests")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(repository, "deployments/kubernetes"))); err != nil {
		c.t.Fatal(err)
	}
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	for name, text := range map[string]string{
		"base/node/agent.config.yaml": fmt.Sprintf("kafka: {brokers: [%q]}\nagent:\n  docker_host: unix:///var/run/docker.sock\n  pods_dir: /var/log/pods\n  kubernetes: {api: \"https://127.0.0.1:%d\", token_file: %stoken, ca_file: %sca.crt}\nlog: {format: json}\n",
			s.kafka, c.api, account, account),
		"base/platform/weir.config.yaml": fmt.Sprintf("kafka: {brokers: [%q]}\nindexer: {addresses: [%q], namespace: k8s, apply: true}\narchiver: {root: %q, hdfs_user: %q}\nlog: {format: json}\n", s.kafka, s.elasticsearch, "hdfs://"+s.namenode+"/weir-k8s", os.Getenv("HADOOP_USER_NAME")),
		"components/healing/executor.config.yaml": fmt.Sprintf("kafka: {brokers: [%q]}\nexecutor:\n  name: cluster\n  docker_host: none\n  trusted_keys: [/etc/weir-trusted/decider.pub]\n  actions: [delete_pod]\n  kubernetes: {api: \"https://127.0.0.1:%d\", token_file: %stoken, ca_file: %sca.crt}\nlog: {format: json}\n",
			s.kafka, c.api, account, account),
		"components/healing-docker/executor.config.yaml": fmt.Sprintf("kafka: {brokers: [%q]}\nexecutor:\n  docker_host: unix:///var/run/docker.sock\n  trusted_keys: [/etc/weir-trusted/decider.pub]\nlog: {format: json}\n", s.kafka),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	socket := strings.TrimPrefix(engine.DaemonHost(), "unix://")
	info, err := os.Stat(socket)
	if err != nil {
		c.t.Fatal(err)
	}
	about, err := engine.Info(c.t.Context(), client.InfoOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	const hostSocket = "hostPath: {path: /var/run/docker.sock"
	for _, change := range [][3]string{
		{"components/healing-docker/kustomization.yaml", hostSocket, "hostPath: {path: " + socket},
		{"components/healing-docker/executor.yaml", hostSocket, "hostPath: {path: " + socket},
		{"components/healing-docker/executor.yaml", "[999]", fmt.Sprintf("[%d]", info.Sys().(*syscall.Stat_t).Gid)},
		{"base/node/agent.yaml", "/var/lib/docker/containers", filepath.Join(about.Info.DockerRootDir, "containers")},
		{"components/healing/policies.yaml", "policies:\n", "policies:\n- {name: containers, mode: act, on: [{event: docker.container.die}], steps: [{action: restart}]}\n"},
	} {
		file := filepath.Join(dir, change[0])
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), change[1]) {
			c.t.Fatalf("%s has no %q: %v", file, change[1], err)
		}
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(b), change[1], change[2])), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	return filepath.Join(dir, "overlays/dev")
}

func (c *cluster) agentPod() string { return c.podOf("weir-node", "weir-agent") }

// podOf names the pod of an app that is not about to go.
func (c *cluster) podOf(namespace, app string) string {
	return c.kubectl("-n", namespace, "get", "pods", "-l", "app.kubernetes.io/name="+app, "--field-selector", "status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}")
}

func (c *cluster) evict(pod string) {
	c.t.Helper()
	cmd := c.command("create", "--raw", "/api/v1/namespaces/weir-node/pods/"+pod+"/eviction", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":"weir-node"}}`, pod))
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("evict: %v: %s", err, out)
	}
}

type podTally struct {
	unique, repeated, losses int
	pods                     map[string]map[int]bool
	wrong                    []string
}

// podsLines reads the topic as a consumer does, from the start until all is there or nothing more comes.
func podsLines(t *testing.T, k *ingest.Kafka, want int) podTally {
	t.Helper()
	got := podTally{pods: map[string]map[int]bool{}}
	seen := map[string]*ingest.Seen{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	idle := time.AfterFunc(20*time.Second, cancel)
	err := k.Tail(ctx, []string{schema.TopicLogs}, true, func(b *schema.Batch) error {
		namespace, _ := b.ResourceAttr(schema.AttrK8sNamespace)
		if namespace.Str != "weir-e2e-shop" {
			return nil
		}
		idle.Reset(5 * time.Second)
		pod, _ := b.ResourceAttr(schema.AttrK8sPod)
		deployment, _ := b.ResourceAttr(fmt.Sprintf(schema.AttrK8sOwner, "deployment"))
		team, _ := b.ResourceAttr(schema.LabelPrefix + "team")
		node, _ := b.ResourceAttr(schema.AttrHostName)
		app, _ := b.ResourceAttr(schema.AttrApp)
		if deployment.Str != "ledger" || team.Str != "payments" || node.Str != k8sNode || app.Str != "ledger" {
			got.wrong = append(got.wrong, fmt.Sprintf("a batch of pod %s: deployment %q, team %q, node %q, app %q", pod.Str, deployment.Str, team.Str, node.Str, app.Str))
		}
		if seen[b.Source] == nil {
			seen[strings.Clone(b.Source)] = new(ingest.Seen)
		}
		v := seen[b.Source].Admit(&schema.Info{Source: b.Source, Begin: b.Begin, End: b.End, Prev: b.Prev, PrevKnown: b.PrevKnown, Count: len(b.Records)})
		name := strings.Clone(pod.Str)
		for i := range b.Records {
			r := &b.Records[i]
			var n int
			if r.EventName == schema.EventLoss {
				got.losses++
			}
			if _, err := fmt.Sscanf(r.Body, "n=%d ", &n); err != nil || r.EventName != "" || !v.Admits(r.Offset) {
				continue
			}
			if got.pods[name] == nil {
				got.pods[name] = map[int]bool{}
			}
			if got.pods[name][n] {
				got.repeated++
			} else {
				got.unique++
			}
			got.pods[name][n] = true
		}
		if got.unique >= want {
			idle.Reset(3 * time.Second)
		}
		return nil
	}, func(err error) { t.Error(err) })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return got
}

// rights wants a service account to have used every right that its role weir-<name> gives, and to have been refused none.
func (c *cluster) rights(name, namespace string) {
	c.t.Helper()
	f, err := os.Open(c.path("audit.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	used := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e struct {
			Verb string
			User struct{ Username string }
			Ref  struct{ Resource string } `json:"objectRef"`
			Took map[string]string         `json:"annotations"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			c.t.Fatal(err)
		}
		if e.User.Username != "system:serviceaccount:"+namespace+":"+name {
			continue
		}
		used[e.Ref.Resource+" "+e.Verb] = true
		if e.Took["authorization.k8s.io/decision"] != "allow" {
			c.t.Errorf("%s was refused to %s %s", e.User.Username, e.Verb, e.Ref.Resource)
		}
	}
	var role struct {
		Rules []struct{ Resources, Verbs []string }
	}
	if err := json.Unmarshal([]byte(c.kubectl("get", "clusterrole", "weir-"+name, "-o", "json")), &role); err != nil {
		c.t.Fatal(err)
	}
	var granted []string
	for _, r := range role.Rules {
		for _, resource := range r.Resources {
			for _, verb := range r.Verbs {
				granted = append(granted, resource+" "+verb)
			}
		}
	}
	for right := range used {
		if !slices.Contains(granted, right) {
			c.t.Errorf("the %s used %q, which its role does not name", name, right)
		}
	}
	for _, right := range granted {
		if !used[right] {
			c.t.Errorf("the %s has the right %q and did not use it", name, right)
		}
	}
}
