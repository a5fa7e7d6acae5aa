package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"weir/agent"
	"weir/ingest"
	"weir/internal/broker"
	"weir/internal/config"
	"weir/internal/demo"
	"weir/internal/show"
	"weir/internal/telemetry"
	"weir/internal/view"
	"weir/schema"
)

type upCmd struct {
	For   time.Duration `help:"Stop after this time."`
	Demo  bool          `help:"Pretended containers, also where a Docker engine answers."`
	Plain bool          `help:"Plain log lines, also in a terminal."`
}

// flowInterval is between the lines about the flow where there is no terminal.
const flowInterval = 10 * time.Second

// Run starts what the configuration gives the means for.
func (u upCmd) Run(ctx context.Context, g *globals) (err error) {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if u.For > 0 {
		// Not a deadline: network calls would fail at it a moment before the context ends.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer time.AfterFunc(u.For, cancel).Stop()
	}
	base, err := filepath.Abs(cfg.Embedded.Dir)
	if err != nil {
		return err
	}
	var found []string
	say := func(name, format string, args ...any) {
		found = append(found, fmt.Sprintf("%-10s %s", name, fmt.Sprintf(format, args...)))
		fmt.Fprintln(g.out, found[len(found)-1])
	}
	// What belongs to one Kafka is kept apart from what belongs to another: offsets and checkpoints mean nothing elsewhere.
	if cfg.NoKafka {
		base = filepath.Join(base, "embedded")
		dir := filepath.Join(base, "kafka")
		b, err := broker.Start(dir, cfg.Embedded.Port, cfg.Embedded.RetentionBytes)
		if err != nil {
			return err
		}
		defer b.Close()
		cfg.Kafka.Brokers = b.Addrs()
		say("kafka", "embedded single-node broker at %s, not replicated; data in %s, at most %s a partition", strings.Join(b.Addrs(), ","), dir, view.Bytes(float64(cfg.Embedded.RetentionBytes)))
	} else {
		base = filepath.Join(base, strings.NewReplacer(":", "-", ",", "_").Replace(strings.Join(cfg.Kafka.Brokers, ",")))
		say("kafka", "%s", strings.Join(cfg.Kafka.Brokers, ","))
	}

	host, err := u.containers(ctx, &cfg, base, say)
	if err != nil {
		return err
	}
	names := []string{"agent", "archiver", "processor", "control"}
	if cfg.Archiver.Root == "" {
		cfg.Archiver.Root = "file://" + filepath.Join(base, "archive")
		cfg.Consumer.ArchiveCommitInterval = min(cfg.Consumer.ArchiveCommitInterval, 10*time.Second)
	}
	say("archive", "%s, Parquet by topic, day and hour", cfg.Archiver.Root)
	if len(cfg.Indexer.Addresses) > 0 {
		names = append(names, "indexer")
		if cfg.Indexer.Apply == nil {
			apply := true
			cfg.Indexer.Apply = &apply
		}
		say("search", "Elasticsearch at %s, data streams logs-weir.*-%s", strings.Join(cfg.Indexer.Addresses, ","), cfg.Indexer.Namespace)
	} else {
		say("search", "none: set WEIR_ELASTICSEARCH_URL to index into Elasticsearch")
	}
	if cfg.HTTP.Listen != "" {
		scheme := "http"
		if cfg.HTTP.TLS != nil {
			scheme = "https"
		}
		say("status", "%s://%s/", scheme, cfg.HTTP.Listen)
		say("metrics", "%s://%s/metrics, /healthz, /readyz", scheme, cfg.HTTP.Listen)
	}
	self := filepath.Clean(os.Args[0])
	tail := self + " tail"
	if !slices.Equal(cfg.Kafka.Brokers, ingest.DefaultKafkaConfig().Brokers) {
		tail = "WEIR_KAFKA_BROKERS=" + strings.Join(cfg.Kafka.Brokers, ",") + " " + tail
	}
	say("try", "%s --level warn", tail)
	say("", "%s --topic weir.events", tail)
	say("", "%s agent status --state-dir %s", self, cfg.Agent.StateDir)
	return u.show(ctx, g, cfg, host, found, filepath.Join(base, "weir.log"), names)
}

// containers finds where to read from: the Docker engine that answers, or pretended containers.
func (u upCmd) containers(ctx context.Context, cfg *config.Config, base string, say func(string, string, ...any)) (*demo.Host, error) {
	state := "agent"
	var host *demo.Host
	ask, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	engine, n, err := agent.Engine(ask, cfg.Agent.DockerHost)
	switch {
	case err == nil && !u.Demo && n == 0:
		say("containers", "%s has none yet: start one, or use --demo for pretended ones", engine)
	case err == nil && !u.Demo:
		say("containers", "%s, %d", engine, n)
	default:
		if u.Demo {
			err = errors.New("as asked for")
		}
		if host, err = u.pretend(cfg, filepath.Join(base, "demo"), err, say); err != nil {
			return nil, err
		}
		state = "agent-demo"
	}
	if cfg.Agent.StateDir == agent.DefaultConfig().StateDir {
		cfg.Agent.StateDir = filepath.Join(base, state)
	}
	return host, nil
}

func (u upCmd) pretend(cfg *config.Config, dir string, why error, say func(string, string, ...any)) (*demo.Host, error) {
	host, err := demo.Open(dir)
	if err != nil {
		return nil, err
	}
	cfg.Agent.DockerHost, cfg.Agent.Node = host.Address(), "demo"
	say("containers", "%d pretended ones, their logs in %s (%v)", host.Containers(), dir, why)
	return host, nil
}

// show runs everything, with a live picture in a terminal and log lines elsewhere.
func (u upCmd) show(ctx context.Context, g *globals, cfg config.Config, host *demo.Host, found []string, logPath string, names []string) (err error) {
	v := &view.View{Title: "weir " + version, Notes: found, Groups: names[1:]}
	terminal, isTerminal := g.out.(*os.File)
	isTerminal = isTerminal && !u.Plain && term.IsTerminal(int(terminal.Fd()))
	var log io.Writer = g.err
	if isTerminal {
		f, err := os.OpenFile(logPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("open the log: %w", err)
		}
		defer f.Close()
		log = v.Log(f)
		v.Notes = append(v.Notes, fmt.Sprintf("%-10s %s", "log", logPath))
	}
	r, err := newRuntime(cfg, telemetry.Logger(log, cfg.Log.Format, cfg.Log.Level))
	if err != nil {
		return err
	}
	v.Metrics = r.reg
	if err := u.topics(ctx, r); err != nil {
		return err
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	var side errgroup.Group
	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	if host != nil {
		side.Go(func() error { return host.Run(work, serving) })
	}
	if isTerminal {
		side.Go(func() error { u.tail(work, r.kafka, v); return nil })
		side.Go(func() error {
			v.Show(work, terminal, func() (int, int) {
				width, height, err := term.GetSize(int(terminal.Fd()))
				if err != nil {
					return 80, 24
				}
				return width, height
			})
			return nil
		})
	} else {
		side.Go(func() error { v.Tell(work, r.log, flowInterval); return nil })
	}
	err = r.run(work, names...)
	stopWork()
	stopServing()
	err = errors.Join(err, side.Wait())
	fmt.Fprintln(g.out, v.Summary())
	return err
}

// tail feeds the picture with the records as they come out of Kafka.
func (upCmd) tail(ctx context.Context, k *ingest.Kafka, v *view.View) {
	_ = k.Tail(ctx, []string{schema.TopicLogs, schema.TopicEvents}, false, func(b *schema.Batch) error {
		name, _ := b.ResourceAttr(schema.AttrContainerName)
		for i := max(0, len(b.Records)-20); i < len(b.Records); i++ {
			v.Record(show.Clean(show.Style{}.Line(line(b, &b.Records[i], name.Str))))
		}
		return nil
	}, nil)
}

func (upCmd) topics(ctx context.Context, r *runtime) error {
	plan, err := ingest.PlanTopics(ctx, r.kafka, ingest.DefaultTopics(r.cfg.Topics.Partitions, r.cfg.Topics.Replication))
	if err != nil {
		return err
	}
	return ingest.ApplyTopics(ctx, r.kafka, plan)
}
