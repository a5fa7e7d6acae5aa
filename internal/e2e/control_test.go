//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"weir/control"
	"weir/ingest"
	"weir/internal/telemetry"
	"weir/processor/signal"
	"weir/schema"
)

const controlPolicies = `
budgets:
  app: {actions: 100, per: 1h}
  node: {actions: 100, per: 1h}
  total: {actions: 13, per: 1h}
breaker: {subjects: 15, within: 1h, unhelped: 100}
policies:
- name: heal
  mode: act
  on: [{event: docker.container.die}]
  match: {labels: {weir.e2e.heal: %s}}
  backoff: {first: 2s, factor: 2, max: 1m}
  steps: [{action: restart}, {action: recreate}, {action: notify}]
- name: loop
  mode: act
  on: [{signal: crash_loop}]
  backoff: {first: 1s, factor: 1, max: 1s}
  steps: [{action: restart}, {action: recreate}]
- name: remake
  mode: act
  on: [{signal: oom}]
  steps: [{action: recreate}]
`

// heal is what the tests of control run on, beside the rig.
type heal struct {
	*rig
	t         *testing.T
	work      string
	config    string
	deciders  [2]*process
	executor  *process
	afterPost atomic.Pointer[func(path string)] // called when the engine has answered a POST of the executor, before the executor knows
}

// TestControl heals real containers, and then has what could go wrong go wrong.
func TestControl(t *testing.T) {
	h := newHeal(t)
	h.heals()
	h.healsALoop()
	h.refusesForgeries()
	h.survivesTheDecider()
	h.survivesTheExecutor()
	h.survivesHalfARecreation()
	h.opensTheBreaker()

	out := h.weir("control", "history", "--verify", "--trusted", filepath.Join(h.work, "decider.pub"))
	if !strings.Contains(out, "the chain is whole") {
		t.Errorf("history:\n%s", out)
	}
	if out := h.weir("control", "simulate", filepath.Join(h.work, "policies.yaml")); !strings.Contains(out, "13 act") || !strings.Contains(out, "1 breaker_opened") {
		t.Errorf("simulate:\n%s", out)
	}
	acts, ids := 0, map[string]bool{}
	for _, d := range h.decisions() {
		if d.Order != nil {
			acts, ids[d.Order.ID] = acts+1, true
		}
	}
	fmt.Printf("RESULT control orders=%d budget=13 repeated=%d\n", acts, acts-len(ids))
	if acts != 13 || len(ids) != 13 {
		t.Errorf("%d orders with %d ids", acts, len(ids))
	}
}

func newHeal(t *testing.T) *heal {
	t.Helper()
	h := &heal{rig: newRig(t, "heal"), t: t, work: t.TempDir()}
	h.config = filepath.Join(h.work, "control.yaml")
	for _, key := range []string{"decider", "node", "ann", "thief"} {
		h.weir("control", "keygen", filepath.Join(h.work, key+".pem"))
	}
	text := fmt.Sprintf(`
kafka: {brokers: [%s]}
consumer: {session_timeout: 6s}
http: {listen: ""}
control:
  policies: %[2]s/policies.yaml
  sign_key_file: %[2]s/decider.pem
  command_keys: [%[2]s/ann.pub]
  executor_keys: [%[2]s/node.pub]
executor:
  name: %[3]s
  docker_host: unix://%[2]s/engine.sock
  state_dir: %[2]s/executor
  trusted_keys: [%[2]s/decider.pub]
  sign_key_file: %[2]s/node.pem
`, strings.Join(strings.Split(os.Getenv("WEIR_KAFKA_BROKERS"), ","), ", "), h.work, h.node)
	for name, text := range map[string]string{"control.yaml": text, "policies.yaml": fmt.Sprintf(controlPolicies, h.node)} {
		if err := os.WriteFile(filepath.Join(h.work, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.weir("control", "check", filepath.Join(h.work, "policies.yaml"))
	h.proxy()
	process := func(name, log string) *process {
		p := &process{t: t, binary: h.agent.binary, config: h.config, name: name, log: filepath.Join(h.work, log)}
		t.Cleanup(func() { p.kill(); p.tell() })
		p.start()
		return p
	}
	h.agent.start()
	h.executor = process("executor", "executor.log")
	for i := range h.deciders {
		h.deciders[i] = process("control", fmt.Sprintf("decider%d.log", i))
	}
	await(t, 30*time.Second, "the executor", func() bool { return h.logged(h.executor, "carrying out orders") })
	await(t, 30*time.Second, "a decider", func() bool { return h.decider() >= 0 })
	return h
}

// proxy stands between the executor and the engine.
func (h *heal) proxy() {
	socket := strings.TrimPrefix(h.docker.DaemonHost(), "unix://")
	l, err := net.Listen("unix", filepath.Join(h.work, "engine.sock"))
	if err != nil {
		h.t.Fatal(err)
	}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	to.Transport = transport
	to.ModifyResponse = func(r *http.Response) error {
		if f := h.afterPost.Load(); f != nil && r.Request.Method == http.MethodPost {
			(*f)(r.Request.URL.Path)
		}
		return nil
	}
	s := &http.Server{Handler: to}
	go func() { _ = s.Serve(l) }()
	h.t.Cleanup(func() { _ = s.Close(); transport.CloseIdleConnections() })
}

// weir runs a command that must succeed.
func (h *heal) weir(args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.agent.binary, args...)
	if _, err := os.Stat(h.config); err == nil {
		cmd.Env = append(os.Environ(), "WEIR_CONFIG="+h.config)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("weir %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (h *heal) logged(p *process, what string) bool {
	b, _ := os.ReadFile(p.log)
	return strings.Contains(string(b), what)
}

// decider tells which of the two decides, -1 where none does yet.
func (h *heal) decider() int {
	return slices.IndexFunc(h.deciders[:], func(p *process) bool { return p != nil && h.logged(p, "this process decides now") })
}

// scan reads weir.actions.
func (h *heal) scan(fn func(b *schema.Batch, r *schema.Record)) {
	h.t.Helper()
	if err := h.k.Scan(h.t.Context(), schema.TopicActions, time.Time{}, func(b *schema.Batch) error {
		for i := range b.Records {
			fn(b, &b.Records[i])
		}
		return nil
	}, func(err error) { h.t.Error(err) }); err != nil {
		h.t.Fatal(err)
	}
}

// decisions are those of the decider, each once.
func (h *heal) decisions() (all []*control.Decision) {
	h.t.Helper()
	seen := map[string]bool{}
	h.scan(func(b *schema.Batch, r *schema.Record) {
		d := new(control.Decision)
		if r.EventName != schema.EventDecision || b.Source != "weir/control" {
			return
		}
		if s, err := control.Unseal(r, d); err != nil {
			h.t.Error(err)
		} else if !seen[s.Hash] {
			seen[s.Hash] = true
			all = append(all, d)
		}
	})
	return all
}

// of counts the decisions about a container, by verdict and action.
func (h *heal) of(name string) map[string]int {
	n := map[string]int{}
	for _, d := range h.decisions() {
		if d.Subject != nil && d.Subject.Name == name && (d.Verdict == control.VerdictAct || d.Verdict == control.VerdictOpened) {
			n[d.Verdict+" "+d.Action]++
		}
	}
	return n
}

// outcomes are those of an order, or all where id is empty.
func (h *heal) outcomes(id string) (said []string) {
	seen := map[string]bool{}
	h.scan(func(b *schema.Batch, r *schema.Record) {
		var o control.Outcome
		if r.EventName != schema.EventOutcome || seen[b.ID(r)] {
			return
		}
		seen[b.ID(r)] = true
		if _, err := control.Unseal(r, &o); err == nil && (id == "" || o.ID == id) {
			said = append(said, o.Verdict+" "+o.Reason)
		}
	})
	return said
}

func (h *heal) inspect(ref string) *container.InspectResponse {
	h.t.Helper()
	res, err := h.docker.ContainerInspect(h.t.Context(), ref, client.ContainerInspectOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	return &res.Container
}

// patient starts a container that fails so many times.
func (h *heal) patient(name string, crashes int, change func(*container.Config, *container.HostConfig)) (id string) {
	h.t.Helper()
	id = h.container(h.t, name, func(c *container.Config, host *container.HostConfig) {
		c.Labels = map[string]string{"weir.e2e.heal": h.node, "weir.app": "patient"}
		c.Volumes = map[string]struct{}{"/data": {}}
		if change != nil {
			change(c, host)
		}
	}, fmt.Sprintf("CRASHES=%d", crashes), "LINES=1", "SECONDS=0", "WAIT=1")
	h.t.Cleanup(func() {
		_, _ = h.docker.ContainerRemove(context.Background(), name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	})
	return id
}

// healed waits until the container has run for a second.
func (h *heal) healed(name string) {
	h.t.Helper()
	await(h.t, 40*time.Second, name+" healed", func() bool {
		res, err := h.docker.ContainerInspect(h.t.Context(), name, client.ContainerInspectOptions{})
		if err != nil || !res.Container.State.Running {
			return false
		}
		started, err := time.Parse(time.RFC3339Nano, res.Container.State.StartedAt)
		return err == nil && time.Since(started) > time.Second
	})
}

// order waits for the only order about a container, and what became of it.
func (h *heal) order(name string) *control.Decision {
	h.t.Helper()
	var found *control.Decision
	await(h.t, 40*time.Second, "an order for "+name, func() bool {
		for _, d := range h.decisions() {
			if d.Order != nil && d.Subject.Name == name {
				found = d
			}
		}
		return found != nil
	})
	return found
}

// heals a container that fails twice: a restart does not help, a new container in its place does.
func (h *heal) heals() {
	t, name := h.t, h.node+"-first"
	net, err := h.docker.NetworkCreate(t.Context(), h.node, client.NetworkCreateOptions{IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.213.77.0/24")}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = h.docker.ContainerRemove(context.Background(), name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		_, _ = h.docker.NetworkRemove(context.Background(), net.ID, client.NetworkRemoveOptions{})
	})
	id := h.patient(name, 2, func(c *container.Config, host *container.HostConfig) {
		host.NetworkMode = container.NetworkMode(h.node)
		host.Memory = 64 << 20
	})
	before := h.inspect(id)
	h.healed(name)
	after := h.inspect(name)
	if n := h.of(name); !maps.Equal(n, map[string]int{"act restart": 1, "act recreate": 1}) {
		t.Errorf("orders: %v", n)
	}
	if after.ID == id || !maps.Equal(after.Config.Labels, before.Config.Labels) || !slices.Equal(after.Config.Env, before.Config.Env) || after.HostConfig.Memory != before.HostConfig.Memory ||
		len(after.Mounts) != 1 || after.Mounts[0].Name != before.Mounts[0].Name || after.Mounts[0].Destination != "/data" || after.NetworkSettings.Networks[h.node] == nil || len(after.NetworkSettings.Networks) != 1 {
		t.Errorf("the new container is not like the old one:\n%+v\n%+v\nmounts %+v, %+v", before.Config, after.Config, before.Mounts, after.Mounts)
	}
	if _, err := h.docker.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{}); err == nil {
		t.Error("the old container is still there")
	}
}

// tell writes a signal by hand.
func (h *heal) tell(kind, id, name string, n int64) {
	h.t.Helper()
	s := signal.Signal{Kind: kind, Rule: kind, State: signal.Point, Group: signal.Group("container", id), Start: n, End: time.Now().UnixNano(), Severity: signal.Error, Body: name + ": " + kind,
		Subject: []schema.Attr{schema.String(schema.AttrContainerID, id), schema.String(schema.AttrContainerName, name), schema.String(schema.AttrHostName, h.node), schema.String(schema.AttrApp, "patient")}}
	r := s.Record()
	r.Offset = n
	h.send(schema.TopicSignals, "weir/e2e", &r)
}

// healsALoop has the engine restart a container over and over that only a new one in its place can mend. A crash loop is told by signals.
func (h *heal) healsALoop() {
	t, name := h.t, h.node+"-loop"
	id := h.patient(name, 0, func(c *container.Config, host *container.HostConfig) {
		c.Labels = nil
		c.Env = append(c.Env, "LOCK=1")
		host.RestartPolicy.Name = container.RestartPolicyAlways
	})
	h.tell(signal.CrashLoop, id, name, 1)
	await(t, 20*time.Second, "a restart in the engine's place", func() bool { return h.of(name)["act restart"] == 1 && len(h.outcomes(h.order(name).Order.ID)) == 1 })
	if said := h.outcomes(h.order(name).Order.ID); !strings.HasPrefix(said[0], control.OutcomeAlready) {
		t.Errorf("what the engine restarts was restarted: %q", said)
	}
	time.Sleep(1100 * time.Millisecond) // the pause after an action
	h.tell(signal.CrashLoop, id, name, 2)
	h.healed(name)
	if after := h.inspect(name); after.ID == id || after.RestartCount != 0 {
		t.Errorf("it was not made anew: %s, %d restarts", after.ID, after.RestartCount)
	}
}

// refusesForgeries writes orders to the topic as somebody would who may write there, but has no key.
func (h *heal) refusesForgeries() {
	t, name := h.t, h.node+"-first"
	before := h.inspect(name)
	thief, err := control.ReadKey(filepath.Join(h.work, "thief.pem"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	forged := &control.Decision{Chain: now.UnixNano(), Epoch: 1 << 40, At: now.UnixNano(), Verdict: control.VerdictAct, Action: control.Stop, Subject: &control.Subject{Node: h.node, Container: before.ID, Name: name},
		Order: &control.Order{ID: "forged", Executor: h.node, Nonce: "1", Expires: now.Add(time.Minute).UnixNano(), Trouble: control.Beyond, Since: now.UnixNano()}}
	sealed := thief.Seal(forged)
	h.write("weir/forger", &sealed)

	// The last order as it was, word for word, and then in another batch.
	var real control.Sealed
	var message kafka.Message
	h.scan(func(b *schema.Batch, r *schema.Record) {
		d := new(control.Decision)
		if s, err := control.Unseal(r, d); err == nil && r.EventName == schema.EventDecision && d.Order != nil && b.Source == "weir/control" {
			real = s
			message = h.message(b.Partition, b.KafkaOffset)
		}
	})
	w := &kafka.Writer{Addr: kafka.TCP(strings.Split(os.Getenv("WEIR_KAFKA_BROKERS"), ",")...), Topic: schema.TopicActions, BatchTimeout: time.Millisecond, RequiredAcks: kafka.RequireAll}
	if err := w.WriteMessages(t.Context(), kafka.Message{Key: message.Key, Value: message.Value, Headers: message.Headers}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	h.write("weir/replayer", &real)

	count := func(what string) (n int) {
		for _, s := range h.outcomes("") {
			if strings.HasPrefix(s, "refused "+what) {
				n++
			}
		}
		return n
	}
	await(t, 20*time.Second, "three refusals", func() bool { return count("forged") == 1 && count("it was taken before") >= 2 })
	after := h.inspect(name)
	if after.ID != before.ID || after.State.StartedAt != before.State.StartedAt || !after.State.Running {
		t.Errorf("a forged or replayed order was carried out: %+v", after.State)
	}
	out := h.weir("control", "freeze", "--key", filepath.Join(h.work, "ann.pem"), "--reason", "drill")
	if !strings.Contains(out, "frozen") {
		t.Errorf("freeze: %s", out)
	}
	if out = h.weir("control", "unfreeze", "--key", filepath.Join(h.work, "ann.pem"), "--reason", "drill"); !strings.Contains(out, "unfrozen") {
		t.Errorf("unfreeze: %s", out)
	}
	cmd := exec.Command(h.agent.binary, "control", "freeze", "--key", filepath.Join(h.work, "thief.pem"), "--reason", "theft", "--config", h.config)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "no trusted key") {
		t.Errorf("a stranger's command: %v, %s", err, out)
	}
}

// write sends a sealed decision under a source of its own.
func (h *heal) write(source string, s *control.Sealed) {
	h.t.Helper()
	r, _, err := control.DecisionRecord(s)
	if err != nil {
		h.t.Fatal(err)
	}
	h.send(schema.TopicActions, source, &r)
}

func (h *heal) send(topic, source string, r *schema.Record) {
	h.t.Helper()
	p, err := ingest.NewProducer(h.k, ingest.DefaultProducerConfig(), telemetry.Logger(os.Stderr, "text", "error"), prometheus.NewRegistry())
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(h.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	defer running.Wait()
	defer stop()
	var e schema.Encoder
	e.Reset(source, schema.Incarnation{}, nil)
	e.Append(r)
	if err := p.Send(ctx, ingest.Message{Topic: topic, Source: source, Begin: schema.Position{Offset: r.Offset}, End: schema.Position{Offset: r.Offset + 1}, Count: 1, Value: e.Bytes()}); err != nil {
		h.t.Fatal(err)
	}
	if err := p.Flush(ctx); err != nil {
		h.t.Fatal(err)
	}
}

// message reads one message of weir.actions with nothing of weir.
func (h *heal) message(partition int, offset int64) kafka.Message {
	h.t.Helper()
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: strings.Split(os.Getenv("WEIR_KAFKA_BROKERS"), ","), Topic: schema.TopicActions, Partition: partition, MaxWait: 100 * time.Millisecond})
	defer r.Close()
	if err := r.SetOffset(offset); err != nil {
		h.t.Fatal(err)
	}
	m, err := r.ReadMessage(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

// survivesTheDecider kills the decider when it has just ordered something.
func (h *heal) survivesTheDecider() {
	t, name := h.t, h.node+"-second"
	h.patient(name, 1, nil)
	h.order(name)
	was := h.decider()
	h.deciders[was].kill()
	h.deciders[was] = nil
	await(t, 40*time.Second, "the other decider", func() bool { return h.decider() >= 0 })
	h.healed(name)
	third := h.node + "-third"
	h.patient(third, 1, nil)
	h.healed(third)
	for _, name := range []string{name, third} {
		if n := h.of(name); !maps.Equal(n, map[string]int{"act restart": 1}) {
			t.Errorf("orders for %s: %v", name, n)
		}
	}
}

// survivesTheExecutor kills the executor when the engine has restarted a container and before it knows.
func (h *heal) survivesTheExecutor() {
	t, name := h.t, h.node+"-fourth"
	killed, posts := make(chan struct{}), atomic.Int64{}
	after := func(path string) {
		if strings.HasSuffix(path, "/restart") && posts.Add(1) == 1 {
			h.executor.kill()
			close(killed)
		}
	}
	h.afterPost.Store(&after)
	h.patient(name, 1, nil)
	d := h.order(name)
	<-killed
	started := h.inspect(name).State.StartedAt
	ledger, err := os.ReadFile(filepath.Join(h.work, "executor", "ledger.json"))
	if err != nil || !strings.Contains(string(ledger), d.Order.ID) {
		t.Errorf("the ledger does not know the order that is under way: %v", err)
	}
	h.executor.start()
	await(t, 20*time.Second, "the outcome", func() bool { return len(h.outcomes(d.Order.ID)) > 0 })
	time.Sleep(2 * time.Second)
	if said := h.outcomes(d.Order.ID); len(said) != 1 || !strings.HasPrefix(said[0], "done seen after the executor was started again") {
		t.Errorf("outcomes: %q", said)
	}
	if now := h.inspect(name).State.StartedAt; now != started || posts.Load() != 1 {
		t.Errorf("it was restarted %d times, at %s and %s", posts.Load(), started, now)
	}
	h.afterPost.Store(nil)
}

// survivesHalfARecreation kills the executor when the new container was made and the old one has no name any more: the old one comes back.
func (h *heal) survivesHalfARecreation() {
	t, name := h.t, h.node+"-fifth"
	killed := make(chan struct{})
	var once sync.Once
	after := func(path string) {
		if strings.HasSuffix(path, "/containers/create") {
			once.Do(func() { h.executor.kill(); close(killed) })
		}
	}
	h.afterPost.Store(&after)
	id := h.patient(name, 0, func(c *container.Config, _ *container.HostConfig) { c.Labels = nil })
	h.tell(signal.OOM, id, name, 3)
	d := h.order(name)
	<-killed
	h.afterPost.Store(nil)
	if half := h.inspect(name); half.ID == id || half.State.Running {
		t.Errorf("the test came too late or too soon: %s, %+v", half.ID, half.State)
	}
	h.executor.start()
	await(t, 20*time.Second, "the outcome", func() bool { return len(h.outcomes(d.Order.ID)) > 0 })
	if said := h.outcomes(d.Order.ID); len(said) != 1 || !strings.HasPrefix(said[0], control.OutcomeUnknown) {
		t.Errorf("outcomes: %q", said)
	}
	if back := h.inspect(name); back.ID != id || !back.State.Running {
		t.Errorf("the old container was not brought back: %s, %+v", back.ID, back.State)
	}
}

// opensTheBreaker has twenty containers fail at once.
func (h *heal) opensTheBreaker() {
	t := h.t
	before := len(slices.DeleteFunc(h.decisions(), func(d *control.Decision) bool { return d.Order == nil }))
	var starting sync.WaitGroup
	for i := range 20 {
		starting.Go(func() { h.patient(fmt.Sprintf("%s-storm%d", h.node, i), 1000, nil) })
	}
	starting.Wait()
	orders := func() (n int, opened bool) {
		for _, d := range h.decisions() {
			if d.Order != nil {
				n++
			}
			opened = opened || d.Verdict == control.VerdictOpened
		}
		return n, opened
	}
	await(t, 40*time.Second, "the breaker", func() bool { _, opened := orders(); return opened })
	time.Sleep(4 * time.Second) // longer than the pause after an action
	n, _ := orders()
	if n != 13 {
		t.Errorf("%d orders, %d of them before the storm, with a budget of 13", n, before)
	}
	subjects := map[string]bool{}
	for _, d := range h.decisions() {
		if d.Verdict == control.VerdictRefused && strings.Contains(d.Subject.Name, "-storm") {
			subjects[d.Subject.Name] = true
		}
	}
	if len(subjects) < 20-(13-before) {
		t.Errorf("only %d of the containers that were not healed have a refusal", len(subjects))
	}
	out := h.weir("control", "close-breaker", "total", "--key", filepath.Join(h.work, "ann.pem"), "--reason", "looked at it")
	if !strings.Contains(out, "breaker_closed") {
		t.Errorf("close-breaker: %s", out)
	}
	var d struct{ Verdict string }
	if err := json.Unmarshal([]byte(strings.SplitN(h.weir("control", "history", "--json", "--verdict", control.VerdictClosed), "\n", 2)[0]), &d); err != nil || d.Verdict != control.VerdictClosed {
		t.Errorf("history: %v, %+v", err, d)
	}
}
