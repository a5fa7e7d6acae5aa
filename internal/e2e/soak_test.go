//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/schema"
)

// soakContainers write at once.
const soakContainers = 30

// received is an in-memory sink behind the real consumer loop: what it holds is what any sink would.
type received struct {
	mu       sync.Mutex
	lines    map[string]map[string]map[int]bool // container id, run, numbers
	repeated int
	lost     map[string][]string // container id: loss records
	closed   map[string]bool
	last     time.Time
	cp       map[ingest.TopicPartition]*ingest.Checkpoint
}

func (r *received) Open(_ context.Context, tp ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &receivedPartition{r: r, tp: tp}, r.cp[tp], nil
}

type receivedPartition struct {
	r       *received
	tp      ingest.TopicPartition
	pending []func()
}

var numbered = regexp.MustCompile(`^n=(\d+) run=(\d+) `)

func (p *receivedPartition) Write(_ context.Context, b *schema.Batch) error {
	id := b.Source[strings.LastIndexByte(b.Source, '/')+1:]
	id = strings.Clone(id)
	for i := range b.Records {
		rec := &b.Records[i]
		body, event := strings.Clone(rec.Body[:min(len(rec.Body), 200)]), strings.Clone(rec.EventName)
		p.pending = append(p.pending, func() { p.r.take(id, event, body) })
	}
	return nil
}

// take is called for each record of a commit.
func (r *received) take(id, event, body string) {
	switch event {
	case schema.EventLoss:
		r.lost[id] = append(r.lost[id], body)
	case schema.EventSourceClosed:
		r.closed[id] = true
	case "":
		m := numbered.FindStringSubmatch(body)
		if m == nil {
			return
		}
		var n int
		_, _ = fmt.Sscan(m[1], &n)
		if r.lines[id] == nil {
			r.lines[id] = map[string]map[int]bool{}
		}
		if r.lines[id][m[2]] == nil {
			r.lines[id][m[2]] = map[int]bool{}
		}
		if r.lines[id][m[2]][n] {
			r.repeated++
		}
		r.lines[id][m[2]][n] = true
	}
}

func (p *receivedPartition) Commit(_ context.Context, cp ingest.Checkpoint) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	for _, f := range p.pending {
		f()
	}
	if len(p.pending) > 0 {
		p.r.last = time.Now()
	}
	p.pending = nil
	p.r.cp[p.tp] = &cp
	return nil
}

func (p *receivedPartition) Close() error { p.pending = nil; return nil }

// written is what the engine's own log says of a container's last run when it was killed: at least lines up to n.
type written struct {
	run string
	n   int
}

type soak struct {
	t       *testing.T
	docker  *client.Client
	prefix  string
	live    []string
	started int
	ends    map[string]written
	r       *rand.Rand
	renamed int
}

func (s *soak) call(what string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if err := f(ctx); err != nil {
		s.t.Errorf("%s: %v", what, err)
	}
}

func (s *soak) start() {
	s.started++
	name := fmt.Sprintf("%s%d", s.prefix, s.started)
	s.call("start "+name, func(ctx context.Context) error {
		res, err := s.docker.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name,
			Config: &container.Config{Image: "weir-e2e-writer:latest", Env: []string{"LINES=100000", "SECONDS=1000", "WAIT=1"}},
			HostConfig: &container.HostConfig{NetworkMode: "none", LogConfig: container.LogConfig{Type: "json-file",
				Config: map[string]string{"max-size": "1m", "max-file": "50", "compress": fmt.Sprint(s.r.IntN(2) == 0)}}}})
		if err != nil {
			return err
		}
		s.live = append(s.live, res.ID)
		_, err = s.docker.ContainerStart(ctx, res.ID, client.ContainerStartOptions{})
		return err
	})
}

// remove kills a container, reads the last line of its log from the engine, and removes it.
func (s *soak) remove(i int) {
	id := s.live[i]
	s.live = append(s.live[:i], s.live[i+1:]...)
	s.call("remove "+id, func(ctx context.Context) error {
		if _, err := s.docker.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "SIGKILL"}); err != nil {
			return err
		}
		wait := s.docker.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
		select {
		case <-wait.Result:
		case err := <-wait.Error:
			return err
		}
		logs, err := s.docker.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, Tail: "40"})
		if err != nil {
			return err
		}
		text, err := io.ReadAll(logs)
		_ = logs.Close()
		if err != nil {
			return err
		}
		if all := regexp.MustCompile(`n=(\d+) run=(\d+) `).FindAllSubmatch(text, -1); len(all) > 0 {
			m := all[len(all)-1]
			w := written{run: string(m[2])}
			_, _ = fmt.Sscan(string(m[1]), &w.n)
			s.ends[id] = w
		}
		_, err = s.docker.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
		return err
	})
}

// step does something at random to a container.
func (s *soak) step() {
	i := s.r.IntN(len(s.live))
	id := s.live[i]
	switch s.r.IntN(6) {
	case 0, 1:
		s.remove(i)
		s.start()
	case 2:
		s.call("restart", func(ctx context.Context) error {
			now := 0
			_, err := s.docker.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: &now})
			return err
		})
	case 3:
		s.renamed++
		s.call("rename", func(ctx context.Context) error {
			_, err := s.docker.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: fmt.Sprintf("%srenamed%d", s.prefix, s.renamed)})
			return err
		})
	case 4:
		s.call("pause", func(ctx context.Context) error {
			if _, err := s.docker.ContainerPause(ctx, id, client.ContainerPauseOptions{}); err != nil {
				return err
			}
			time.Sleep(300 * time.Millisecond)
			_, err := s.docker.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
			return err
		})
	default:
		time.Sleep(time.Duration(s.r.IntN(1000)) * time.Millisecond)
	}
}

// TestSoak is a storm: containers come, go, restart and are renamed at random, the agent is killed at random, Kafka is
// restarted, the agent's checkpoint is damaged once. `make soak` runs it for five minutes.
func TestSoak(t *testing.T) {
	span, err := time.ParseDuration(os.Getenv("WEIR_SOAK"))
	if err != nil {
		t.Skip("WEIR_SOAK is not set to a duration: run `make soak`")
	}
	e := newRig(t, "soak")
	sink := &received{lines: map[string]map[string]map[int]bool{}, lost: map[string][]string{}, closed: map[string]bool{}, cp: map[ingest.TopicPartition]*ingest.Checkpoint{}}
	ccfg := ingest.DefaultConsumerConfig(e.node, schema.TopicLogs)
	ccfg.OwnCommit, ccfg.CommitInterval = true, time.Second
	consumer, err := ingest.NewConsumer(e.k, ccfg, sink, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	consuming, stopConsuming := context.WithCancel(context.Background())
	consumed := make(chan error, 1)
	go func() { consumed <- consumer.Run(consuming) }()

	e.agent.start()
	s := &soak{t: t, docker: e.docker, prefix: e.node + "-", ends: map[string]written{}, r: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))}
	t.Cleanup(func() {
		for _, id := range s.live {
			_, _ = e.docker.ContainerRemove(context.Background(), id, client.ContainerRemoveOptions{Force: true})
		}
	})
	for range soakContainers {
		s.start()
	}
	kills := s.storm(span, e.agent, filepath.Join(e.state, "checkpoint.json"), filepath.Join(e.repository, "deployments/dev/stack"))
	for len(s.live) > 0 {
		s.remove(0)
	}
	s.settle(sink)
	e.agent.stop()
	time.Sleep(3 * time.Second)
	stopConsuming()
	if err := <-consumed; err != nil {
		t.Error(err)
	}
	s.tally(sink, kills)
}

// storm shakes everything for the given time, and returns how often the agent was killed.
func (s *soak) storm(span time.Duration, agent *process, checkpoint, stack string) (kills int) {
	began := time.Now()
	nextKill, restarted, damaged, told := began.Add(10*time.Second), false, false, began
	for time.Since(began) < span {
		s.step()
		if time.Since(told) > 20*time.Second {
			told = time.Now()
			s.t.Logf("%3.0f s: %d containers were started, the agent was killed %d times", time.Since(began).Seconds(), s.started, kills)
		}
		if time.Now().After(nextKill) {
			agent.kill()
			kills++
			if !damaged && time.Since(began) > span/3 {
				damaged = true
				if b, err := os.ReadFile(checkpoint); err != nil || os.WriteFile(checkpoint, b[:len(b)/2], 0o600) != nil {
					s.t.Errorf("cannot damage the checkpoint: %v", err)
				}
			}
			for range s.r.IntN(3) {
				s.step()
			}
			agent.start()
			nextKill = time.Now().Add(time.Duration(8+s.r.IntN(15)) * time.Second)
		}
		if !restarted && time.Since(began) > span/2 {
			restarted = true
			s.kafka(stack)
		}
	}
	return kills
}

func (s *soak) kafka(stack string) {
	for _, verb := range []string{"stop", "start"} {
		if out, err := exec.Command(stack, verb, "kafka").CombinedOutput(); err != nil {
			s.t.Errorf("%s kafka: %v: %s", verb, err, bytes.TrimSpace(out))
		}
		for range 3 {
			s.step()
		}
	}
	s.t.Log("Kafka was stopped and started")
}

// settle waits until every container's source is closed and nothing comes any more.
func (s *soak) settle(sink *received) {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		sink.mu.Lock()
		open := 0
		for id := range s.ends {
			if !sink.closed[id] {
				open++
			}
		}
		quiet := time.Since(sink.last) > 10*time.Second
		sink.mu.Unlock()
		if open == 0 && quiet {
			return
		}
	}
	s.t.Log("some sources were not closed within two minutes")
}

// tally compares what the containers' logs held with what the sink has. A hole must be in a source with a loss record.
func (s *soak) tally(sink *received, kills int) {
	sink.mu.Lock()
	defer sink.mu.Unlock()
	all, delivered, inLoss, unexplained, unclosed := 0, 0, 0, 0, 0
	for id, end := range s.ends {
		runs := sink.lines[id]
		if runs == nil {
			runs = map[string]map[int]bool{}
		}
		if runs[end.run] == nil {
			runs[end.run] = map[int]bool{}
		}
		if !sink.closed[id] {
			unclosed++
		}
		missing := 0
		for run, numbers := range runs {
			last := -1
			if run == end.run {
				last = end.n
			}
			for n := range numbers {
				last = max(last, n)
			}
			all += last + 1
			delivered += len(numbers)
			missing += last + 1 - len(numbers)
		}
		if len(sink.lost[id]) > 0 {
			inLoss += missing
		} else if missing > 0 {
			unexplained += missing
			s.t.Errorf("container %s: %d lines are missing and no loss record says so", id[:12], missing)
		}
	}
	losses := 0
	for _, l := range sink.lost {
		losses += len(l)
	}
	fmt.Printf("%d containers, %d killed agents, %d loss records, %d sources not closed\n", s.started, kills, losses, unclosed)
	fmt.Printf("RESULT soak written=%d delivered=%d in_loss_records=%d repeated=%d unexplained=%d\n", all, delivered, inLoss, sink.repeated, unexplained)
	if sink.repeated > 0 || unclosed > 0 || all != delivered+inLoss+unexplained {
		s.t.Error("the counts do not agree")
	}
}
