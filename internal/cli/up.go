package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"weir/ingest"
	"weir/internal/broker"
	"weir/internal/telemetry"
)

type upCmd struct {
	For time.Duration `help:"Stop after this time."`
}

// Run starts what the configuration gives the means for.
func (u upCmd) Run(ctx context.Context, g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if u.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, u.For)
		defer cancel()
	}
	dir, err := filepath.Abs(cfg.Embedded.Dir)
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(g.out, format+"\n", args...) }
	if os.Getenv("WEIR_KAFKA_BROKERS") == "" && g.Config == "" {
		b, err := broker.Start(filepath.Join(dir, "kafka"), cfg.Embedded.Port, cfg.Embedded.RetentionBytes)
		if err != nil {
			return err
		}
		defer b.Close()
		cfg.Kafka.Brokers = b.Addrs()
		say("kafka      embedded single-node broker at %s, kept in %s (not replicated: for a first look)", strings.Join(b.Addrs(), ","), filepath.Join(dir, "kafka"))
	} else {
		say("kafka      %s", strings.Join(cfg.Kafka.Brokers, ","))
	}
	if g.Config == "" {
		cfg.Agent.StateDir = filepath.Join(dir, "agent")
	}
	names := []string{"agent", "archiver", "processor", "control"}
	if cfg.Archiver.Root == "" {
		cfg.Archiver.Root = "file://" + filepath.Join(dir, "archive")
		cfg.Consumer.ArchiveCommitInterval = 10 * time.Second
	}
	say("archive    %s", cfg.Archiver.Root)
	if len(cfg.Indexer.Addresses) > 0 {
		names = append(names, "indexer")
		say("search     %s", strings.Join(cfg.Indexer.Addresses, ","))
	} else {
		say("search     none (set WEIR_ELASTICSEARCH_URL)")
	}
	r, err := newRuntime(cfg, telemetry.Logger(g.err, cfg.Log.Format, cfg.Log.Level))
	if err != nil {
		return err
	}
	plan, err := ingest.PlanTopics(ctx, r.kafka, ingest.DefaultTopics(cfg.Topics.Partitions, cfg.Topics.Replication))
	if err == nil {
		err = ingest.ApplyTopics(ctx, r.kafka, plan)
	}
	if err != nil {
		return err
	}
	say("metrics    http://%s/metrics", cfg.HTTP.Listen)
	say("try        WEIR_KAFKA_BROKERS=%s weir tail", strings.Join(cfg.Kafka.Brokers, ","))
	return r.run(ctx, names...)
}
