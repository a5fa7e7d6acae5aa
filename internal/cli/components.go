package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/agent"
	"weir/archiver"
	"weir/control"
	"weir/control/executor"
	"weir/indexer"
	"weir/ingest"
	"weir/internal/config"
	"weir/internal/status"
	"weir/internal/telemetry"
	"weir/processor"
	"weir/schema"
)

// stopDeadline bounds a graceful stop; what is not acknowledged then is read again at the next start.
const stopDeadline = 30 * time.Second

// runtime is what the components of one process share.
type runtime struct {
	cfg      config.Config
	log      *slog.Logger
	reg      telemetry.Metrics
	kafka    *ingest.Kafka
	producer *ingest.Producer
	cert     *telemetry.Certificate // of http.listen; nil: clear text
	checks   []telemetry.Check      // what must hold for the process to be ready
	page     *status.Page           // nil: none
}

func newRuntime(cfg config.Config, log *slog.Logger) (*runtime, error) {
	return newRuntimeOn(telemetry.Registry(), cfg, log)
}

func newRuntimeOn(reg telemetry.Metrics, cfg config.Config, log *slog.Logger) (*runtime, error) {
	r := &runtime{cfg: cfg, log: log, reg: reg}
	var err error
	if r.kafka, err = ingest.NewKafka(cfg.Kafka); err != nil {
		return nil, err
	}
	if cfg.HTTP.TLS != nil && cfg.HTTP.Listen != "" {
		if r.cert, err = telemetry.NewCertificate("http.tls", *cfg.HTTP.TLS, log, reg); err != nil {
			return nil, err
		}
	}
	r.producer, err = ingest.NewProducer(r.kafka, cfg.Producer, log, r.reg)
	return r, err
}

// component makes something to run until its context ends.
type component func(*runtime) (func(context.Context) error, error)

var componentsByName = map[string]component{
	"agent": func(r *runtime) (func(context.Context) error, error) {
		a, err := agent.New(r.cfg.Agent, r.producer, r.log, r.reg)
		if err != nil {
			return nil, err
		}
		r.checks = append(r.checks, telemetry.Check{Name: "agent.state_dir", Ask: a.DiskReady})
		return a.Run, nil
	},
	"indexer": func(r *runtime) (func(context.Context) error, error) {
		sink, err := indexer.New(r.cfg.Indexer, &indexer.Letters{Out: r.producer}, r.log, r.reg)
		if err != nil {
			return nil, err
		}
		run, err := r.consumer(r.cfg.Consumer.For("indexer", schema.TopicLogs, schema.TopicEvents, schema.TopicSignals, schema.TopicActions, schema.TopicDeadLetter), sink)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error { return errors.Join(run(ctx), sink.Close()) }, nil
	},
	"archiver": func(r *runtime) (func(context.Context) error, error) {
		if r.cfg.Archiver.Root == "" {
			return nil, errors.New("archiver.root: is not set; give a folder (file:///…) or HDFS (hdfs://host:port/…, webhdfs://host:port/…)")
		}
		sink, err := archiver.New(r.cfg.Archiver, r.log, r.reg)
		if err != nil {
			return nil, err
		}
		r.checks = append(r.checks, telemetry.Check{Name: "archiver.root", Ask: sink.Ready})
		c := r.cfg.Consumer.For("archiver", schema.TopicLogs, schema.TopicEvents, schema.TopicSignals, schema.TopicActions)
		c.CommitInterval, c.CommitBytes, c.OwnCommit = r.cfg.Consumer.ArchiveCommitInterval, r.cfg.Consumer.ArchiveCommitBytes, true
		run, err := r.consumer(c, sink)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error { return errors.Join(run(ctx), sink.Close()) }, nil
	},
	"processor": func(r *runtime) (func(context.Context) error, error) {
		sink, err := processor.New(r.cfg.Processor, r.kafka, r.producer, r.log, r.reg)
		if err != nil {
			return nil, err
		}
		c := r.cfg.Consumer.For("processor", processor.Topics()...)
		c.CommitInterval = r.cfg.Processor.Interval
		run, err := r.consumer(c, sink)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			both, bctx := errgroup.WithContext(ctx)
			both.Go(func() error { return run(bctx) })
			both.Go(func() error { return sink.Run(bctx) })
			return both.Wait()
		}, nil
	},
	"control": func(r *runtime) (func(context.Context) error, error) {
		policies, err := config.LoadPolicies(r.cfg.Control.Policies)
		if err != nil {
			return nil, err
		}
		sink, err := control.New(r.cfg.Control.Config, &policies, r.kafka, r.producer, r.log, r.reg)
		if err != nil {
			return nil, err
		}
		c := r.cfg.Consumer.For("control", schema.TopicEvents, schema.TopicSignals, schema.TopicActions)
		c.OneMember, c.CommitBytes = true, min(c.CommitBytes, control.MaxCommitBytes)
		consume, err := r.consumer(c, sink)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			both, ctx := errgroup.WithContext(ctx)
			both.Go(func() error { return consume(ctx) })
			both.Go(func() error { return sink.Run(ctx) })
			return both.Wait()
		}, nil
	},
	"executor": func(r *runtime) (func(context.Context) error, error) {
		x, err := executor.New(r.cfg.Executor, r.kafka, r.producer, r.log, r.reg)
		if err != nil {
			return nil, err
		}
		return x.Run, nil
	},
}

func (r *runtime) consumer(cfg ingest.ConsumerConfig, sink ingest.Sink) (func(context.Context) error, error) {
	c, err := ingest.NewConsumer(r.kafka, cfg, sink, r.producer, r.log, r.reg)
	if err != nil {
		return nil, err
	}
	return c.Run, nil
}

// run starts the named components and stops them in order when ctx ends: first what reads, then the producer.
func (r *runtime) run(ctx context.Context, names ...string) error {
	var runs []func(context.Context) error
	for _, name := range names {
		run, err := componentsByName[name](r)
		if err != nil {
			return err
		}
		runs = append(runs, run)
	}
	if slices.Contains(names, "control") {
		beside, err := r.besideControl()
		if err != nil {
			return err
		}
		runs = append(runs, beside...)
	}
	defer r.kafka.Close()
	// The producer and the HTTP server end after the components, which still need them while they stop.
	last, stopLast := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLast()
	var base errgroup.Group
	base.Go(func() error { return r.producer.Run(last) })
	r.checks = append(r.checks, telemetry.Check{Name: "kafka", Ask: r.kafka.Ping})
	components, cctx := errgroup.WithContext(ctx)
	base.Go(func() error {
		return telemetry.Listener{Addr: r.cfg.HTTP.Pprof, Key: "http.pprof", Log: r.log}.Serve(last, telemetry.Profiles())
	})
	shown := telemetry.Handler(r.reg, r.checks...)
	if r.page != nil {
		shown.Handle("/", r.page.Handler())
	}
	listener := telemetry.Listener{Addr: r.cfg.HTTP.Listen, Key: "http.listen", Certificate: r.cert, Log: r.log}
	components.Go(func() error { return listener.Serve(cctx, shown) })
	for _, run := range runs {
		components.Go(func() error { return run(cctx) })
	}
	r.log.Info("started", "components", names, "kafka", r.cfg.Kafka.Brokers, "http", r.cfg.HTTP.Listen, "tls", r.cert != nil)
	done := make(chan error, 1)
	go func() { done <- components.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-cctx.Done():
		r.log.Info("stopping", "deadline", stopDeadline.String())
		select {
		case err = <-done:
		case <-time.After(stopDeadline):
			return fmt.Errorf("not stopped within %s; what Kafka did not acknowledge is read again at the next start", stopDeadline)
		}
	}
	stopLast()
	if err = errors.Join(err, base.Wait()); err == nil {
		r.log.Info("stopped")
	}
	return err
}

// component runs one component until ctx ends. On SIGHUP it reads the configuration anew; a good one takes the place of the
// old after a graceful stop, so that nothing is lost, and a bad one is told and changes nothing.
func (g *globals) component(ctx context.Context, name string) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	r, err := newRuntime(cfg, telemetry.Logger(g.err, cfg.Log.Format, cfg.Log.Level))
	for err == nil && r != nil {
		running, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- r.run(running, name) }()
		r, err = g.supervise(r.log, reload, stop, done)
		stop()
	}
	return err
}

// supervise waits for the component's end, or for a new configuration that is good, with the files that it names; then it stops the component and
// returns what is to run instead.
func (g *globals) supervise(log *slog.Logger, reload <-chan os.Signal, stop func(), done <-chan error) (*runtime, error) {
	for {
		select {
		case err := <-done:
			return nil, err
		case <-reload:
			var next *runtime
			cfg, err := g.load()
			if err == nil {
				next, err = newRuntime(cfg, telemetry.Logger(g.err, cfg.Log.Format, cfg.Log.Level))
			}
			if err != nil {
				log.Error("the configuration is not good; going on with the one before", "err", err)
				continue
			}
			log.Info("the configuration was read anew")
			stop()
			return next, <-done
		}
	}
}

type (
	agentCmds struct {
		Run    agentCmd       `cmd:"" default:"withargs" help:"Read this node's containers and engine events into Kafka."`
		Status agentStatusCmd `cmd:"" help:"Show what the agent of this host reads, the farthest behind first."`
	}
	agentCmd     struct{}
	indexerCmd   struct{}
	archiverCmd  struct{}
	processorCmd struct{}
)

// saveMemory sets the garbage collector's slack below its 100 %, unless GOGC says otherwise. Of agent, indexer and archiver, which allocate little, it
// costs a few per cent of CPU at most.
func saveMemory(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

func (agentCmd) Run(ctx context.Context, g *globals) error {
	saveMemory(30)
	return g.component(ctx, "agent")
}

func (indexerCmd) Run(ctx context.Context, g *globals) error {
	saveMemory(50)
	return g.component(ctx, "indexer")
}

// archiverMemory is what the archiver may take beside the rows that wait: what packing needs, and what Kafka's fetches hold. The
// collector works harder near the limit, and cannot keep it where there are very many partitions.
const archiverMemory = 136 << 20

func (archiverCmd) Run(ctx context.Context, g *globals) error {
	saveMemory(50)
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(cfg.Archiver.BufferBytes + archiverMemory)
	}
	return g.component(ctx, "archiver")
}

func (processorCmd) Run(ctx context.Context, g *globals) error { return g.component(ctx, "processor") }
