package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"weir/ingest"
	"weir/internal/show"
	"weir/schema"
)

type tailCmd struct {
	Topic     []string `help:"Topics to read." default:"weir.logs,weir.events"`
	Container string   `help:"Only containers whose name or id begins so."`
	App       string   `help:"Only this app."`
	Level     string   `help:"Only records of this level or above: trace, debug, info, warn, error, fatal."`
	FromStart bool     `help:"Begin with the oldest record that Kafka has."`
	JSON      bool     `help:"One JSON object a line, every field."`
}

func (t tailCmd) Run(ctx context.Context, g *globals) error {
	least := schema.SeverityOf(t.Level)
	if least == 0 && t.Level != "" {
		return fmt.Errorf("--level %q is not one of trace, debug, info, warn, error, fatal", t.Level)
	}
	_, k, err := g.kafka()
	if err != nil {
		return err
	}
	defer k.Close()
	style := show.StyleFor(g.out, os.Getenv)
	return k.Tail(ctx, t.Topic, t.FromStart, func(b *schema.Batch) error {
		name, _ := b.ResourceAttr(schema.AttrContainerName)
		id, _ := b.ResourceAttr(schema.AttrContainerID)
		app, _ := b.ResourceAttr(schema.AttrApp)
		if t.App != "" && app.Str != t.App || t.Container != "" && !strings.HasPrefix(name.Str, t.Container) && !strings.HasPrefix(id.Str, t.Container) {
			return nil
		}
		for i := range b.Records {
			r := &b.Records[i]
			if r.Severity < least {
				continue
			}
			var err error
			if t.JSON {
				err = json.NewEncoder(g.out).Encode(plain(b, r))
			} else {
				_, err = fmt.Fprintln(g.out, style.Line(line(b, r, name.Str)))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, func(err error) { fmt.Fprintln(g.err, "weir:", err) })
}

// line is a record for people.
func line(b *schema.Batch, r *schema.Record, container string) show.Line {
	l := show.Line{At: time.Unix(0, r.Time), Level: r.SeverityText, What: container, Body: r.Body}
	if r.Time == 0 {
		l.At = time.Unix(0, r.Observed)
	}
	if l.What == "" {
		l.What = b.Source
	}
	if r.EventName != "" {
		l.Body = r.EventName + ": " + l.Body
	}
	return l
}

func plain(b *schema.Batch, r *schema.Record) map[string]any {
	attrs := map[string]any{}
	for _, list := range [][]schema.Attr{b.Resource, r.Attrs} {
		for _, a := range list {
			switch a.Kind {
			case schema.KindInt:
				attrs[a.Key] = a.Num
			case schema.KindBool:
				attrs[a.Key] = a.Num != 0
			default:
				attrs[a.Key] = a.Str
			}
		}
	}
	return map[string]any{"id": b.ID(r), "topic": b.Topic, "partition": b.Partition, "kafka_offset": b.KafkaOffset, "position": b.Position(r).String(), "time_unix_nano": r.Time,
		"severity": r.SeverityText, "event_name": r.EventName, "body": r.Body, "attributes": attrs}
}

type topicsCmd struct {
	Apply topicsApplyCmd `cmd:"" help:"Create the topics that are missing."`
}

type topicsApplyCmd struct {
	DryRun bool `help:"Show the plan and change nothing."`
}

func (t topicsApplyCmd) Run(ctx context.Context, g *globals) error {
	cfg, k, err := g.kafka()
	if err != nil {
		return err
	}
	defer k.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	plan, err := ingest.PlanTopics(ctx, k, ingest.DefaultTopics(cfg.Topics.Partitions, cfg.Topics.Replication))
	if err != nil {
		return err
	}
	for _, c := range plan {
		fmt.Fprintf(g.out, "%-24s partitions=%d replication=%d  %s\n", c.Spec.Name, c.Spec.Partitions, c.Spec.Replication, c.Note)
	}
	if t.DryRun {
		_, err := fmt.Fprintln(g.out, "nothing was changed (--dry-run)")
		return err
	}
	return ingest.ApplyTopics(ctx, k, plan)
}
