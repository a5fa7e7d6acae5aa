package cli

import (
	"context"
	"fmt"

	"weir/internal/kibana"
)

type kibanaCmds struct {
	Apply kibanaApplyCmd `cmd:"" help:"Import data views, searches and dashboards into Kibana, over those of an older weir."`
	Print kibanaPrintCmd `cmd:"" help:"Print them as NDJSON, as Kibana's own page of saved objects imports them."`
}

type kibanaApplyCmd struct {
	Space  string `help:"The space; kibana.space if not given."`
	DryRun bool   `help:"Show what would be imported and change nothing."`
	Force  bool   `help:"Also overwrite what a newer weir imported."`
}

func (a kibanaApplyCmd) Run(ctx context.Context, g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if a.Space != "" {
		cfg.Kibana.Space = a.Space
	}
	c, err := kibana.Connect(cfg.Kibana)
	if err != nil {
		return err
	}
	defer c.Close()
	in, err := c.Look(ctx)
	if err != nil {
		return err
	}
	have := "nothing of weir's"
	if in.Found {
		have = fmt.Sprintf("version %d of weir's objects", in.Version)
	}
	fmt.Fprintf(g.out, "Kibana %s at %s has %s; this build has version %d\n", in.Kibana, cfg.Kibana.URL, have, kibana.Version())
	if refused := in.Refused(); refused != nil && !a.Force {
		return refused
	}
	all := kibana.Objects(cfg.Kibana.Space)
	if a.DryRun {
		for i := range all {
			fmt.Fprintf(g.out, "%-14s %-24s %s\n", all[i].Type, all[i].ID, all[i].Title())
		}
		_, err := fmt.Fprintf(g.out, "%d objects; nothing was changed (--dry-run)\n", len(all))
		return err
	}
	if err := c.Import(ctx, all); err != nil {
		return err
	}
	_, err = fmt.Fprintf(g.out, "%d objects imported; begin at %s\n", len(all), kibana.DashboardURL(cfg.Kibana, "fleet"))
	return err
}

type kibanaPrintCmd struct {
	Space string `help:"The space that they are for; kibana.space if not given."`
}

func (p kibanaPrintCmd) Run(g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if p.Space != "" {
		cfg.Kibana.Space = p.Space
	}
	if err := cfg.Kibana.Validate(); err != nil {
		return fmt.Errorf("kibana.%w", err)
	}
	_, err = g.out.Write(kibana.NDJSON(kibana.Objects(cfg.Kibana.Space)))
	return err
}
