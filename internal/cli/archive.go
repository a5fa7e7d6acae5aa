package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weir/archiver"
	"weir/archiver/archive"
	"weir/internal/config"
	"weir/internal/search"
	"weir/internal/telemetry"
	"weir/internal/view"
)

type archiveCmds struct {
	Compact archiveCompactCmd `cmd:"" help:"Merge the small files of closed hours into large ones, each record there once at any moment."`
}

type archiveCompactCmd struct {
	Since       string         `help:"Hours since when: how long ago (90m, 2d), or a time; all for every hour." default:"7d"`
	Until       string         `help:"Until when, as --since." placeholder:"TIME"`
	Topic       []string       `help:"Only these topics."`
	Root        string         `help:"The archive, instead of archiver.root." placeholder:"URL"`
	ClosedAfter *time.Duration `help:"How long after its end an hour is merged, instead of archiver.compact.closed_after."`
	DryRun      bool           `help:"Show what would be merged and change nothing."`
}

func (a archiveCompactCmd) Run(ctx context.Context, g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if err := withRoot(&cfg, a.Root); err != nil {
		return err
	}
	if a.ClosedAfter != nil {
		cfg.Archiver.Compact.ClosedAfter = *a.ClosedAfter
	}
	scope := archive.Scope{Topics: a.Topic}
	if scope.Since, scope.Until, err = span(a.Since, a.Until, time.Now()); err != nil {
		return err
	}
	c, err := archiver.NewCompactor(cfg.Archiver, telemetry.Logger(g.err, cfg.Log.Format, cfg.Log.Level))
	if err != nil {
		return err
	}
	defer c.Close()
	hours, err := c.Plan(ctx, scope)
	if err != nil {
		return err
	}
	if len(hours) == 0 {
		_, err := fmt.Fprintln(g.out, "nothing to merge")
		return err
	}
	var failed []error
	for i := range hours {
		h := &hours[i]
		if a.DryRun {
			a.plan(g, h)
			continue
		}
		made, err := c.Run(ctx, h)
		for _, r := range made {
			tell(g, r)
		}
		if ctx.Err() != nil {
			return errors.New("stopped; the next run goes on, and readers see every record once meanwhile")
		}
		failed = append(failed, err) // the other hours go on
	}
	if a.DryRun {
		_, err := fmt.Fprintln(g.out, "nothing was changed (--dry-run)")
		return err
	}
	return errors.Join(failed...)
}

func (a archiveCompactCmd) plan(g *globals, h *archiver.Hour) {
	at := h.Start.Format("2006-01-02 15h")
	if h.Unfinished {
		fmt.Fprintf(g.out, "%s %s: finish a compaction that was killed\n", h.Topic, at)
	}
	for _, m := range h.Merges {
		fmt.Fprintf(g.out, "%s %s: merge %d files, %s, %d rows\n", h.Topic, at, len(m.Files), view.Bytes(float64(m.Bytes)), m.Rows)
	}
}

func tell(g *globals, r *archive.Compaction) {
	var rows, bytes int64
	for _, f := range r.Files {
		rows, bytes = rows+f.Rows, bytes+f.Bytes
	}
	fmt.Fprintf(g.out, "%s %s: %d files merged into %d, %s, %d rows\n", r.Topic, r.Hour.Format("2006-01-02 15h"), len(r.Replaces), len(r.Files), view.Bytes(float64(bytes)), rows)
}

// withRoot puts a root that a flag gives in the place of the configuration's.
func withRoot(cfg *config.Config, root string) error {
	if root != "" {
		cfg.Archiver.Root = root
	}
	if cfg.Archiver.Root == "" {
		return errors.New("archiver.root: is not set; give --root or WEIR_ARCHIVE_ROOT, a folder (file:///…) or HDFS (hdfs://host:port/…)")
	}
	return cfg.Archiver.Validate()
}

// fromTo reads --from and --to, which is now where it is empty.
func fromTo(f, t string, now time.Time) (from, to time.Time, err error) {
	if from, err = search.ParseTime(f, now); err != nil {
		return from, to, fmt.Errorf("--from: %w", err)
	}
	if t == "" {
		return from, now, nil
	}
	if to, err = search.ParseTime(t, now); err != nil {
		return from, to, fmt.Errorf("--to: %w", err)
	}
	return from, to, nil
}

// span reads --since and --until; a time is zero where there is no bound.
func span(since, until string, now time.Time) (from, to time.Time, err error) {
	if since != "all" {
		if from, err = search.ParseTime(since, now); err != nil {
			return from, to, fmt.Errorf("--since: %w", err)
		}
	}
	if until != "" {
		if to, err = search.ParseTime(until, now); err != nil {
			return from, to, fmt.Errorf("--until: %w", err)
		}
		if !from.Before(to) {
			return from, to, fmt.Errorf("--since (%s) is not before --until (%s)", from.Format(time.RFC3339), to.Format(time.RFC3339))
		}
	}
	return from, to, nil
}
