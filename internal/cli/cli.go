// Package cli is weir's command line: it reads the configuration and starts components.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"weir/ingest"
	"weir/internal/config"
)

// version is set by the linker for releases.
var version = "dev"

type globals struct {
	Config string `help:"Configuration file (YAML); without one the defaults and the environment hold." short:"c" env:"WEIR_CONFIG"`

	out, err io.Writer
}

type commands struct {
	globals
	Agent     agentCmds    `cmd:"" help:"Read this node's containers and engine events into Kafka; or say how it goes."`
	Indexer   indexerCmd   `cmd:"" help:"Make records searchable in Elasticsearch."`
	Archiver  archiverCmd  `cmd:"" help:"Archive records as Parquet in HDFS or a folder."`
	Archive   archiveCmds  `cmd:"" help:"Look after the archive."`
	Audit     auditCmd     `cmd:"" help:"Tell whether the archive is what was written, against its manifests, Kafka and Elasticsearch. Exit status: 0 all explained, 1 not, 2 could not be done."`
	Processor processorCmd `cmd:"" help:"Turn records into signals."`
	Control   controlCmds  `cmd:"" help:"Decide what is done about trouble; check policies, show what was decided, freeze."`
	Executor  executorCmds `cmd:"" help:"Carry out signed orders on this node; or prepare its folder."`
	Up        upCmd        `cmd:"" help:"Run several components in one process, on an embedded single-node broker where no Kafka is given."`
	Tail      tailCmd      `cmd:"" help:"Show live records from Kafka."`
	Topics    topicsCmd    `cmd:"" help:"Create weir's topics."`
	Search    searchCmd    `cmd:"" help:"Find records in Elasticsearch, or in the archive, by KQL; follow them, count them, show what is around one."`
	Replay    replayCmd    `cmd:"" help:"Send records of the archive to Kafka or Elasticsearch again."`
	Index     indexCmd     `cmd:"" help:"Install the index templates and the lifecycle policy in Elasticsearch."`
	Letters   letterCmds   `cmd:"" name:"deadletter" help:"Show what Elasticsearch refused, and give it to it again."`
	Kibana    kibanaCmds   `cmd:"" help:"Bring data views, searches and dashboards into Kibana."`
	Capacity  capacityCmd  `cmd:"" help:"Compute what an installation of a size needs."`
	Rules     rulesCmds    `cmd:"" help:"Check and test the rules of the processor."`
	Conf      confCmd      `cmd:"" name:"config" help:"Check or show the configuration."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

// Main runs one command and returns the exit status: 0, 1 for a failure, 2 for a wrong call; an audit has its own.
func Main(args []string, stdout, stderr io.Writer) int {
	var c commands
	c.out, c.err = stdout, stderr
	exit := -1
	parser, err := kong.New(&c, kong.Name("weir"), kong.Description("A log and event pipeline for container platforms: nothing is lost without a record of it."),
		kong.Writers(stdout, stderr), kong.Exit(func(code int) { exit = code }), kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(stderr, "weir:", err)
		return 1
	}
	k, err := parser.Parse(args)
	if exit >= 0 {
		return exit // --help
	}
	if err != nil {
		fmt.Fprintln(stderr, "weir:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	k.BindTo(ctx, (*context.Context)(nil))
	if err := k.Run(&c.globals); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "weir:", err)
		var exit *exitError
		if errors.As(err, &exit) {
			return exit.status
		}
		return 1
	}
	return 0
}

func (g *globals) load() (config.Config, error) { return config.Load(g.Config, os.Getenv) }

// kafka reads the configuration and prepares a client, which the caller closes.
func (g *globals) kafka() (config.Config, *ingest.Kafka, error) {
	cfg, err := g.load()
	if err != nil {
		return cfg, nil, err
	}
	k, err := ingest.NewKafka(cfg.Kafka)
	return cfg, k, err
}

type versionCmd struct{}

func (versionCmd) Run(g *globals) error {
	go_ := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		go_ = info.GoVersion
	}
	_, err := fmt.Fprintf(g.out, "weir %s (%s)\n", version, go_)
	return err
}

type confCmd struct {
	Check confCheckCmd `cmd:"" help:"Read the configuration and say what is wrong with it."`
	Show  confShowCmd  `cmd:"" help:"Print the configuration as it holds: defaults, file and environment together."`
}

type confCheckCmd struct{}

func (confCheckCmd) Run(g *globals) error {
	if _, err := g.load(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(g.out, "the configuration is good")
	return err
}

type confShowCmd struct{}

func (confShowCmd) Run(g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	e := yaml.NewEncoder(g.out)
	e.SetIndent(2)
	return errors.Join(e.Encode(cfg), e.Close())
}
