package agent

import (
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"weir/schema"
)

func TestParseCRI(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 123456789, time.UTC).UnixNano()
	for _, c := range []struct {
		in, log, stream string // log empty: refused
	}{
		{"2026-11-25T12:00:00.123456789Z stdout F hello world", "hello world\n", "stdout"},
		{"2026-11-25T20:00:00.123456789+08:00 stderr P half", "half", "stderr"},
		{"2026-11-25T12:00:00.123456789Z stdout F ", "\n", "stdout"},
		{"2026-11-25T12:00:00.123456789Z stdout F", "\n", "stdout"},
		{"2026-11-25T12:00:00.123456789Z stdout F:x two tags", "two tags\n", "stdout"},
		{"2026-11-25T12:00:00.123456789Z stdout F  spaces kept ", " spaces kept \n", "stdout"},
		{"2026-11-25T12:00:00.123456789Z stdout X what", "", ""},
		{"2026-11-25T12:00:00.123456789Z stdin F what", "", ""},
		{"yesterday stdout F what", "", ""},
		{"", "", ""},
		{"\x00\x00\x00", "", ""},
	} {
		l, _, err := parseCRI([]byte(c.in), nil)
		if c.log == "" {
			if err == nil {
				t.Errorf("%q was taken", c.in)
			}
			continue
		}
		if err != nil || string(l.log) != c.log || l.stream != c.stream || l.time != at {
			t.Errorf("%q: %q %s %d, %v", c.in, l.log, l.stream, l.time, err)
		}
	}
}

var criLine = regexp.MustCompile(`^(\S+) (stdout|stderr) ([PF])(?::[^ ]*)?(?: (?s:(.*)))?$`)

func FuzzParseCRI(f *testing.F) {
	f.Add([]byte("2026-11-25T12:00:00.123456789Z stdout F hello"))
	f.Add([]byte("2026-11-25T12:00:00+08:00 stderr P:x "))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, _, err := parseCRI(b, nil)
		m := criLine.FindSubmatch(b)
		if err != nil {
			return
		}
		if m == nil {
			t.Fatalf("%q was taken", b)
		}
		at, timeErr := time.Parse(time.RFC3339Nano, string(m[1]))
		want := string(m[4])
		if string(m[3]) == "F" {
			want += "\n"
		}
		if timeErr != nil || at.UnixNano() != l.time || string(l.log) != want || l.stream != string(m[2]) {
			t.Fatalf("%q: %q %s %d; want %q at %v", b, l.log, l.stream, l.time, want, at)
		}
	})
}

// kubelet writes a container's log and rotates it as the kubelet does.
type kubelet struct {
	t    *testing.T
	path string
	n    int
}

func (k *kubelet) write(stream, tag, text string) {
	k.t.Helper()
	k.n++
	f, err := os.OpenFile(k.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		k.t.Fatal(err)
	}
	at := time.Date(2026, 11, 25, 12, 0, 0, k.n*1000, time.UTC)
	fmt.Fprintf(f, "%s %s %s %s\n", at.Format(time.RFC3339Nano), stream, tag, text)
	if err := f.Close(); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kubelet) rotate(pack bool) {
	k.t.Helper()
	k.n++
	name := fmt.Sprintf("%s.20261125-%06d", k.path, k.n)
	if err := os.Rename(k.path, name); err != nil {
		k.t.Fatal(err)
	}
	if !pack {
		return
	}
	data, err := os.ReadFile(name)
	if err != nil {
		k.t.Fatal(err)
	}
	f, err := os.Create(name + ".gz")
	if err != nil {
		k.t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	_, _ = z.Write(data)
	_ = z.Close()
	_ = f.Close()
	_ = os.Remove(name)
}

// TestPods follows a pod's container over pieces, rotation, a restart of the agent, and its removal.
func TestPods(t *testing.T) {
	f := setup(t)
	f.cfg.PodsDir = t.TempDir()
	dir := filepath.Join(f.cfg.PodsDir, "shop_web-7d9_0a1b2c", "app")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	delete(f.engine.containers, "c1")
	k := &kubelet{t: t, path: filepath.Join(dir, "0.log")}
	k.write("stdout", "F", "one")
	k.write("stdout", "P", "two, ")
	k.write("stderr", "F", "between")
	k.rotate(false)
	k.write("stdout", "F", "joined")
	stop := f.start()
	f.expect("stdout: one", "stdout: two, joined", "stderr: between")
	stop()
	k.write("stdout", "F", "while the agent is down")
	k.rotate(true)
	k.write("stdout", "F", "after")
	k.rotate(true)
	k.write("stdout", "F", "last")
	defer f.start()()
	f.expect("stdout: one", "stdout: two, joined", "stderr: between", "stdout: while the agent is down", "stdout: after", "stdout: last")
	if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	f.await("the closed record", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), schema.EventSourceClosed) })
	if names := fmt.Sprint(f.out.eventNames()); strings.Contains(names, schema.EventLoss) {
		t.Errorf("events: %s", names)
	}
}
