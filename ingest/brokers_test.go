//go:build e2e

package ingest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// broker is a real Kafka broker of a test's own.
type broker struct {
	t       *testing.T
	dir     string
	process *exec.Cmd // nil: not running
}

// freePort gives a port that nobody listens on, from below those that the system gives to outgoing connections: one of
// them could otherwise take the port of a broker that is away.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err == nil {
			defer l.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatal("no free port between 20000 and 30000")
	return 0
}

func kafkaJava(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	lib := os.Getenv("WEIR_KAFKA_LIB")
	if lib == "" {
		t.Fatal("WEIR_KAFKA_LIB is not set: run `make e2e`")
	}
	return exec.Command("java", append([]string{"-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", lib + "/*"}, args...)...)
}

// formatBroker prepares a broker in dir; args go to Kafka's storage tool.
func formatBroker(t *testing.T, dir, properties string, args ...string) *broker {
	t.Helper()
	b := &broker{t: t, dir: dir}
	if err := os.WriteFile(b.config(), []byte(properties), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"kafka.tools.StorageTool", "format", "-t", "AAAAAAAAQACAAAAAAAAAAg", "-c", b.config()}, args...)
	if out, err := kafkaJava(t, args...).CombinedOutput(); err != nil {
		t.Fatalf("format: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		b.kill()
		if log, _ := os.ReadFile(b.log()); t.Failed() {
			t.Logf("the log of the broker in %s ends:\n%s", filepath.Base(dir), log[max(0, len(log)-2000):])
		}
	})
	return b
}

func (b *broker) config() string { return filepath.Join(b.dir, "broker.properties") }
func (b *broker) log() string    { return filepath.Join(b.dir, "kafka.log") }

// start returns at once; the broker needs some seconds.
func (b *broker) start() {
	b.t.Helper()
	log, err := os.OpenFile(b.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	b.process = kafkaJava(b.t, "kafka.Kafka", b.config())
	b.process.Stdout, b.process.Stderr = log, log
	b.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.process.Start(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *broker) end(s syscall.Signal) {
	if b.process != nil {
		_ = b.process.Process.Signal(s)
		_ = b.process.Wait()
		b.process = nil
	}
}

// freeze leaves the broker's connections open and unanswered.
func (b *broker) freeze() { _ = b.process.Process.Signal(syscall.SIGSTOP) }
func (b *broker) thaw()   { _ = b.process.Process.Signal(syscall.SIGCONT) }

// kill is kill -9.
func (b *broker) kill() { b.end(syscall.SIGKILL) }

// stop lets the broker give its partitions away first.
func (b *broker) stop() { b.end(syscall.SIGTERM) }
