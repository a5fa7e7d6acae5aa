package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one component of the built binary, running.
type process struct {
	cmd     *exec.Cmd
	metrics string
	log     string
}

// startAgent runs `weir agent` on the engine at host, with its state in dir.
func startAgent(binary, dir, broker, host string) (*process, error) {
	return start(binary, "agent", dir, fmt.Sprintf("kafka:\n  brokers: [%s]\nagent:\n  node: bench\n  docker_host: %s\n  state_dir: %s\n", broker, host, filepath.Join(dir, "state")))
}

// start runs a component with a configuration, to which the address of its metrics is added.
func start(binary, component, dir, text string) (*process, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, component+".yaml")
	text += "http:\n  listen: " + addr + "\n"
	if pprof := os.Getenv("BENCH_PPROF"); pprof != "" {
		text += "  pprof: " + pprof + "\n"
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p := &process{metrics: "http://" + addr + "/metrics", log: filepath.Join(dir, component+".log")}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(binary, component, "--config", config)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p, p.cmd.Start()
}

// metricsClient does not make the component pack its metrics ten times a second.
var metricsClient = http.Client{Transport: &http.Transport{DisableCompression: true}}

// metric reads one metric, named with its labels if it has any; 0 until it is there.
func (p *process) metric(name string) float64 {
	res, err := metricsClient.Get(p.metrics)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, _ := strconv.ParseFloat(rest, 64)
			return v
		}
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return 0
}

// await waits until a metric has a value.
func (p *process) await(ctx context.Context, name string, want float64) error {
	for p.metric(name) < want {
		select {
		case <-ctx.Done():
			b, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s is %.0f, not %.0f; its log ends: %s", name, p.metric(name), want, b[max(0, len(b)-2000):])
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// usage is what a process took.
type usage struct {
	cpu   time.Duration
	rssMB float64
}

func (p *process) stop() (usage, error) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return usage{}, err
	}
	return wait(p.cmd)
}

func wait(cmd *exec.Cmd) (usage, error) {
	err := cmd.Wait()
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return usage{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), float64(u.Maxrss) / 1024}, err
}

// now is what the process has taken so far: CPU time, and memory that is resident at this moment.
func (p *process) now() (usage, error) { return taken(p.cmd.Process.Pid) }

func taken(pid int) (usage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	ticks := func(i int) time.Duration {
		n, _ := strconv.Atoi(f[i])
		return time.Duration(n) * 10 * time.Millisecond // USER_HZ is 100 on Linux
	}
	pages, _ := strconv.Atoi(f[21])
	return usage{ticks(11) + ticks(12), float64(pages) * float64(os.Getpagesize()) / (1 << 20)}, nil
}
