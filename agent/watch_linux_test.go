package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestWatchOverflow writes to more watched files than the kernel's queue holds before anyone looks: the watcher says that it missed some.
func TestWatchOverflow(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skip(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || limit > 50_000 {
		t.Skipf("the kernel's queue holds %d events", limit)
	}
	w, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range limit + 100 {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.add(path); err != nil {
			t.Skipf("watch %d: %v", i, err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); w.run(); close(w.woken) }()
	for wd := range w.woken {
		if wd == -1 {
			w.close()
			for range w.woken {
			}
			<-done
			return
		}
	}
	t.Error("the watcher did not tell that events were missed")
}

// TestTwoThousandContainers wants a line of each, when all are quiet and watched, and when the watcher missed what happened.
func TestTwoThousandContainers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.cfg.Poll = 10 * time.Millisecond
	const n = 2000
	logs := []*dockerLog{f.log}
	for i := range n - 1 {
		logs = append(logs, f.add(fmt.Sprintf("q%d", i), "quiet"))
	}
	write := func(round int) {
		for i, log := range logs {
			log.write("stdout", fmt.Sprintf("%d of %d\n", round, i))
		}
	}
	write(1)
	defer f.start()()
	f.await("the first lines", func() bool { return len(f.out.bodies()) == n })
	f.await("all to be watched", func() bool {
		for _, s := range f.agent.Status() {
			if s.State != stateQuiet {
				return false
			}
		}
		return true
	})
	write(2)
	f.await("the second lines", func() bool { return len(f.out.bodies()) == 2*n })
	f.agent.watcher.woken <- -1
	write(3)
	f.await("the third lines", func() bool { return len(f.out.bodies()) == 3*n })
}
