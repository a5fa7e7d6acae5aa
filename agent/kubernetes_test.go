package agent

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"weir/agent/kube/kubetest"
	"weir/agent/multiline"
	"weir/schema"
)

// says waits for a record, and compares what its resource says.
func (f *podFixture) says(body string, want map[string]string) {
	f.t.Helper()
	var got map[string]string
	f.await(body, func() bool { f.out.mu.Lock(); defer f.out.mu.Unlock(); got = f.out.said[body]; return got != nil })
	for k, v := range want {
		if got[k] != v {
			f.t.Errorf("%s: %s is %q, want %q", body, k, got[k], v)
		}
	}
}

// podFixture is an agent without Docker, whose node has a pod u1 with the container app.
type podFixture struct {
	*fixture
	*kubelet
	api *kubetest.API
	t   *testing.T
}

func setupPods(t *testing.T) *podFixture {
	f := &podFixture{fixture: setup(t), api: kubetest.New(t), t: t}
	f.engine.containers = map[string]container{}
	f.cfg.PodsDir = t.TempDir()
	f.cfg.Kubernetes.API, f.cfg.Kubernetes.CAFile, f.cfg.Kubernetes.TokenFile = f.api.URL, f.api.CAFile, f.api.TokenFile
	f.cfg.Kubernetes.Wait = time.Minute // a test that waited in vain ends first
	f.kubelet = &kubelet{t: t, path: filepath.Join(f.cfg.PodsDir, "shop_web-7d9-a_u1", "app", "0.log")}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

// open tells whether this process has the log open.
func (f *podFixture) open() bool {
	fds, err := filepath.Glob("/proc/self/fd/*")
	return err == nil && slices.ContainsFunc(fds, func(fd string) bool { name, err := os.Readlink(fd); return err == nil && name == f.path })
}

func labels(kv ...string) map[string]any {
	all := map[string]any{"pod-template-hash": "7d9"}
	for i := 0; i+1 < len(kv); i += 2 {
		all[kv[i]] = kv[i+1]
	}
	return all
}

// TestPodMetadata has an API that answers late: the first record waits, and says all. Labels that change are said from the next batch on.
func TestPodMetadata(t *testing.T) {
	f := setupPods(t)
	answer := make(chan struct{})
	f.api.Fault(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-answer:
		case <-r.Context().Done():
		}
		return false
	})
	f.write("stdout", "F", "one")
	defer f.start()()
	f.await("the log to be open", f.open)
	pod := kubetest.Make("u1", "web-7d9-a", labels("app.kubernetes.io/name", "shop-web", "weir.tenant", "t1"))
	status := pod["status"].(map[string]any)["containerStatuses"].([]any)[0].(map[string]any)
	delete(status, "containerID") // the kubelet tells it a moment after the container has started
	f.api.Put(pod)
	close(answer)
	f.await("the metadata of the source", func() bool { return f.agent.Status()[0].App == "shop-web" })
	if got := f.out.bodies(); len(got) > 0 {
		t.Errorf("%v was read before all was known", got)
	}
	status["containerID"] = "containerd://c0"
	f.api.Put(pod)
	want := map[string]string{schema.AttrApp: "shop-web", schema.AttrTenant: "t1", schema.LabelPrefix + "weir.tenant": "t1", schema.AttrContainerID: "c0", schema.AttrImageName: "registry/web:1", schema.AttrK8sNode: "n1",
		"k8s.deployment.name": "web", schema.AttrK8sPod: "web-7d9-a", schema.AttrK8sNamespace: "shop", schema.AttrK8sPodUID: "u1", schema.AttrK8sContainer: "app", schema.AttrContainerName: "app", schema.AttrHostName: "n1"}
	f.says("one", want)

	pod["metadata"].(map[string]any)["labels"] = labels("app.kubernetes.io/name", "renamed")
	status["restartCount"], status["containerID"] = 1, "containerd://c1"
	f.api.Put(pod)
	f.await("the new label", func() bool { return f.agent.Status()[0].App == "renamed" })
	f.write("stdout", "F", "two")
	want[schema.AttrApp], want[schema.AttrTenant], want[schema.LabelPrefix+"weir.tenant"] = "renamed", "", ""
	f.says("two", want) // the id of the container before is not forgotten

	f.api.Delete("u1")
	f.api.Put(kubetest.Make("u2", "other", nil))
	f.write("stdout", "F", "three")
	f.says("three", want)
}

// TestBusySource changes a label while a batch is being built: that keeps what it began with.
func TestBusySource(t *testing.T) {
	f := setupPods(t)
	f.cfg.Linger = time.Hour // the batch is sent when it is full
	f.cfg.BatchBytes = 4 << 10
	f.api.Put(kubetest.Make("u1", "web", labels("weir.app", "old")))
	f.write("stdout", "F", "one")
	defer f.start()()
	f.await("the first line", func() bool { all := f.agent.Status(); return len(all) == 1 && all[0].Lines == 1 })
	f.api.Put(kubetest.Make("u1", "web", labels("weir.app", "new")))
	f.await("the new label", func() bool { return f.agent.Status()[0].App == "new" })
	n := 0
	f.await("two batches", func() bool {
		f.write("stdout", "F", fmt.Sprintf("line %d %0512d", n, 0))
		n++
		f.out.mu.Lock()
		defer f.out.mu.Unlock()
		return len(f.out.sent) >= 2
	})
	f.says("one", map[string]string{schema.AttrApp: "old"})
	f.says(fmt.Sprintf("line %d %0512d", 0, 0), map[string]string{schema.AttrApp: "old"})
	f.out.mu.Lock()
	defer f.out.mu.Unlock()
	seen := map[string]int{}
	for _, attrs := range f.out.said {
		seen[attrs[schema.AttrApp]]++
	}
	if seen["new"] == 0 || len(seen) != 2 {
		t.Errorf("apps %v", seen)
	}
}

// TestAPIAway collects without the API, also where the checkpoint knows more than can be asked now.
func TestAPIAway(t *testing.T) {
	for name, refuse := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"forbidden": func(w http.ResponseWriter, _ *http.Request) bool {
			kubetest.Refuse(w, 403, "Forbidden", "no")
			return true
		},
		"slow": func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
	} {
		t.Run(name, func(t *testing.T) {
			f := setupPods(t)
			f.cfg.Kubernetes.Wait = 30 * time.Millisecond
			f.api.Fault(refuse)
			f.write("stdout", "F", "one")
			stop := f.start()
			f.says("one", map[string]string{schema.AttrApp: "app", schema.AttrK8sPod: "web-7d9-a", schema.AttrContainerID: ""})
			if err := f.agent.DiskReady(t.Context()); err != nil {
				t.Error(err)
			}
			stop()

			f.api.Fault(nil)
			f.api.Put(kubetest.Make("u1", "web", labels("weir.app", "shop")))
			stop = f.start()
			f.await("the metadata", func() bool { all := f.agent.Status(); return len(all) == 1 && all[0].App == "shop" })
			f.write("stdout", "F", "two")
			f.says("two", map[string]string{schema.AttrApp: "shop", schema.AttrContainerID: "u1-c0"})
			stop()

			f.api.Fault(refuse)
			after := filepath.Join(f.cfg.PodsDir, "shop_z_u9", "app", "0.log") // when it is a source, the one before it in the alphabet has been looked at
			if err := os.MkdirAll(filepath.Dir(after), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(after, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			stop = f.start()
			f.await("both sources", func() bool { return len(f.agent.Status()) == 2 })
			f.write("stdout", "F", "three")
			f.says("three", map[string]string{schema.AttrApp: "shop", schema.AttrContainerID: "u1-c0", schema.AttrImageName: "registry/web:1", "k8s.deployment.name": "web"})
			stop()
			f.expect("stdout: one", "stdout: two", "stdout: three")
		})
	}
}

// TestPodRemovedWhileHeld removes the log before the API has said anything: it is open by then.
func TestPodRemovedWhileHeld(t *testing.T) {
	f := setupPods(t)
	f.api.Fault(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	f.write("stdout", "F", "one")
	defer f.start()()
	f.await("the log to be open", f.open)
	if err := os.RemoveAll(filepath.Join(f.cfg.PodsDir, "shop_web-7d9-a_u1")); err != nil {
		t.Fatal(err)
	}
	f.expect("stdout: one")
}

// TestPodJoining joins by a pod's label, as it was when the first line was read: also when the label goes, and after a crash.
func TestPodJoining(t *testing.T) {
	f := setupPods(t)
	f.cfg.Multiline = map[string]multiline.Config{"shop": {Start: "^BEGIN"}}
	f.api.Put(kubetest.Make("u1", "web", labels("weir.multiline", "java,go")))
	trace := func(n int) {
		f.write("stdout", "F", fmt.Sprintf("java.lang.Error: %d", n))
		f.write("stdout", "F", "\tat a.b.C(D.java:1)")
		f.write("stdout", "F", fmt.Sprintf("after %d", n))
	}
	trace(1)
	crash := f.startUntilCrash()
	f.await("the first trace", func() bool { return f.out.bodies()["stdout: after 1"] == 1 })
	f.api.Put(kubetest.Make("u1", "web", labels("weir.app", "shop")))
	f.await("the change", func() bool { return f.agent.Status()[0].App == "shop" })
	trace(2)
	f.await("the second trace", func() bool { return f.out.bodies()["stdout: after 2"] == 1 })
	f.await("a checkpoint", func() bool {
		b, err := os.ReadFile(filepath.Join(f.cfg.StateDir, checkpointName))
		return err == nil && bytes.Contains(b, []byte(`"label:java,go"`))
	})
	crash()
	trace(3)
	defer f.start()()
	want := map[string]int{}
	for n := 1; n <= 3; n++ {
		want[fmt.Sprintf("stdout: java.lang.Error: %d\n\tat a.b.C(D.java:1)", n)], want[fmt.Sprintf("stdout: after %d", n)] = 1, 1
	}
	f.await("all", func() bool { return len(f.out.bodies()) >= len(want) })
	if got := f.out.bodies(); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestHeldOverACrash has nothing read when the agent is killed; the next one still waits for the metadata.
func TestHeldOverACrash(t *testing.T) {
	f := setupPods(t)
	f.api.Fault(func(w http.ResponseWriter, _ *http.Request) bool { kubetest.Refuse(w, 503, "", ""); return true })
	f.write("stdout", "F", "one")
	crash := f.startUntilCrash()
	f.await("a checkpoint", func() bool {
		b, err := os.ReadFile(filepath.Join(f.cfg.StateDir, checkpointName))
		return err == nil && bytes.Contains(b, []byte("shop_web"))
	})
	crash()
	f.api.Fault(nil)
	f.api.Put(kubetest.Make("u1", "web", labels("weir.app", "shop")))
	defer f.start()()
	f.says("one", map[string]string{schema.AttrApp: "shop"})
}

// startUntilCrash runs an agent whose last acts at the stop reach neither Kafka nor the disk.
func (f *podFixture) startUntilCrash() (crash func()) {
	f.t.Helper()
	stop := f.start()
	path := filepath.Join(f.cfg.StateDir, checkpointName)
	return func() {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			f.t.Fatal(err)
		}
		stop()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}
