package cli

import (
	"context"
	"fmt"
	"time"

	"weir/indexer"
)

type indexCmd struct {
	Apply indexApplyCmd `cmd:"" help:"Install what is missing, older or different."`
}

type indexApplyCmd struct {
	DryRun bool `help:"Show the differences and change nothing."`
	Force  bool `help:"Also overwrite what a newer weir installed."`
}

func (a indexApplyCmd) Run(ctx context.Context, g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	c, err := indexer.Connect(cfg.Indexer)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	plan, err := c.PlanIndex(ctx)
	if err != nil {
		return err
	}
	for i := range plan.Changes {
		ch := &plan.Changes[i]
		what := "up to date"
		switch {
		case ch.Newer():
			what = fmt.Sprintf("version %d, newer than this build's %d", ch.Have, indexer.IndexVersion)
		case ch.Have == 0:
			what = fmt.Sprintf("create, version %d", indexer.IndexVersion)
		case len(ch.Lines) > 0:
			what = fmt.Sprintf("update, version %d to %d", ch.Have, indexer.IndexVersion)
		}
		fmt.Fprintf(g.out, "%-18s %-14s %s\n", ch.Kind, ch.Name, what)
		if a.DryRun {
			for _, line := range ch.Lines {
				fmt.Fprintln(g.out, "  "+line)
			}
		}
	}
	for _, s := range plan.Rollover {
		fmt.Fprintf(g.out, "%-18s %s goes on in a new index with its next record\n", "data stream", s)
	}
	for _, n := range plan.Notes {
		fmt.Fprintln(g.out, "note:", n)
	}
	if a.DryRun {
		_, err := fmt.Fprintln(g.out, "nothing was changed (--dry-run)")
		return err
	}
	return c.ApplyIndex(ctx, plan, a.Force)
}
