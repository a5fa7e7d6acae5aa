//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weir/control"
)

const executorUser = 65532

// TestExecutorOnANode heals a container with an executor that has what deployments/kubernetes/components/healing-docker gives it and no more: a user
// that is not root, without capabilities, the group of the engine's socket, a root that cannot be written to, and a folder that an init container with one
// capability prepared.
func TestExecutorOnANode(t *testing.T) {
	h := newHeal(t)
	h.executor.kill()
	host := t.TempDir()
	for dir := host; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) { // the test's folders are for root alone
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := func(name string) string { return filepath.Join(host, name) }
	copyFile(t, h.agent.binary, path("weir"), 0o755)
	copyFile(t, filepath.Join(h.work, "decider.pub"), path("decider.pub"), 0o644)
	copyFile(t, filepath.Join(h.work, "node.pem"), path("node.pem"), 0o600)
	if err := os.Chown(path("node.pem"), executorUser, executorUser); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`kafka: {brokers: [%s]}
http: {listen: ""}
executor:
  docker_host: unix://%[2]s/docker.sock
  state_dir: %[2]s/state
  trusted_keys: [%[2]s/decider.pub]
  sign_key_file: %[2]s/node.pem
`, strings.Join(strings.Split(os.Getenv("WEIR_KAFKA_BROKERS"), ","), ", "), host)
	for name, text := range map[string]string{"executor.yaml": config, "docker.sock": ""} {
		if err := os.WriteFile(path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(path("state"), 0o755); err != nil { // as the kubelet makes it
		t.Fatal(err)
	}
	prepare := func() {
		t.Helper()
		cmd := exec.Command("setpriv", "--bounding-set=-all,+chown", "--no-new-privs", path("weir"), "executor", "prepare", "--owner", fmt.Sprintf("%d:%[1]d", executorUser), "--config", path("executor.yaml"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	prepare()

	socket := strings.TrimPrefix(h.docker.DaemonHost(), "unix://")
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	group := fmt.Sprint(info.Sys().(*syscall.Stat_t).Gid)
	if info.Mode().Perm()&0o007 != 0 {
		t.Fatalf("%s is %v: whoever may reach it shows nothing", socket, info.Mode())
	}
	const confined = `mount --bind "$0/state" "$0/state"
mount --bind "$1" "$0/docker.sock"; mount -o remount,bind,ro "$0/docker.sock"
mount -o remount,bind,ro /
user=$2 groups=$3; shift 3
exec setpriv --reuid $user --regid $user --groups $groups --bounding-set=-all --no-new-privs "$@"`
	node := func(groups string) *process {
		p := &process{t: t, binary: path("weir"), config: path("executor.yaml"), name: "executor", log: filepath.Join(h.work, "executor-"+groups+".log"),
			wrap: []string{"env", "WEIR_EXECUTOR_NAME=" + h.node, "unshare", "--mount", "--propagation", "private", "sh", "-ec", confined, host, socket, fmt.Sprint(executorUser), groups}}
		t.Cleanup(func() { p.kill(); p.tell() })
		p.start()
		await(t, 30*time.Second, "the executor", func() bool { return h.logged(p, "carrying out orders") })
		return p
	}

	stranger := node(fmt.Sprint(executorUser))
	name := h.node + "-refused"
	h.patient(name, 1, nil)
	d := h.order(name)
	await(t, 30*time.Second, "an outcome", func() bool { return len(h.outcomes(d.Order.ID)) > 0 })
	if said := h.outcomes(d.Order.ID); len(said) != 1 || !strings.HasPrefix(said[0], control.OutcomeRefused) || !strings.Contains(said[0], "permission denied") {
		t.Errorf("without the socket's group: %v", said)
	}
	stranger.stop()
	prepare() // as at every start of a pod

	x := node(group)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", x.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532", "Groups:\t" + group + " ", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the executor has not %q:\n%s", want, status)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", x.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if root := mountOptions(string(mounts), "/"); !strings.HasPrefix(root, "ro") {
		t.Errorf("its root is mounted %q", root)
	}
	for restarts, steps := range []string{"a restart", "a new container"} {
		name := fmt.Sprintf("%s-node-%d", h.node, restarts+1)
		id := h.patient(name, restarts+1, nil)
		h.healed(name)
		if now := h.inspect(name).ID; (now == id) != (restarts == 0) {
			t.Errorf("%s: %s is %s now", steps, id, now)
		}
	}
	for _, said := range h.outcomes("")[1:] {
		if !strings.HasPrefix(said, control.OutcomeDone) {
			t.Errorf("an order: %s", said)
		}
	}
	x.stop()
	if ledger, err := os.Stat(path("state/ledger.json")); err != nil || ledger.Sys().(*syscall.Stat_t).Uid != executorUser || ledger.Mode().Perm() != 0o600 {
		t.Errorf("the ledger: %v, %v", ledger, err)
	}
}

// mountOptions are those of the mount that lies on top at path.
func mountOptions(mountinfo, path string) (options string) {
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 5 && f[4] == path {
			options = f[5]
		}
	}
	return options
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}
