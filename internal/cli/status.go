package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"weir/agent"
	"weir/internal/view"
)

type agentStatusCmd struct {
	StateDir string `help:"The agent's state folder; agent.state_dir of the configuration by default."`
	JSON     bool   `help:"As JSON, with every field."`
}

func (a agentStatusCmd) Run(ctx context.Context, g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if a.StateDir == "" {
		a.StateDir = cfg.Agent.StateDir
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	all, err := agent.AskStatus(ctx, a.StateDir)
	if err != nil {
		return err
	}
	if a.JSON {
		e := json.NewEncoder(g.out)
		e.SetIndent("", " ")
		return e.Encode(all)
	}
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "APP\tSTATE\tUNREAD\tLINES/S\tLINES\tLAST LINE\tSOURCE")
	for _, s := range all {
		last := "never"
		if !s.LastLine.IsZero() {
			last = time.Since(s.LastLine).Truncate(time.Second).String() + " ago"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f\t%d\t%s\t%s\n", s.App, s.State, view.Bytes(float64(s.UnreadBytes)), s.PerSecond, s.Lines, last, s.Source)
	}
	return w.Flush()
}
