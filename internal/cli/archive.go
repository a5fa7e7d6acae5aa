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
	Expire  archiveExpireCmd  `cmd:"" help:"Delete whole days of the archive, and record it first, so that audits know."`
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

type archiveExpireCmd struct {
	Before string   `help:"Days of event time (UTC) before this one: a date, or how long ago (2555d); instead of archiver.retention_days. Yesterday at the latest." placeholder:"DATE"`
	Topic  []string `help:"Only these topics."`
	Root   string   `help:"The archive, instead of archiver.root." placeholder:"URL"`
	DryRun bool     `help:"Show what would be deleted and change nothing."`
}

func (a archiveExpireCmd) Run(ctx context.Context, g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if err := withRoot(&cfg, a.Root); err != nil {
		return err
	}
	before, err := a.before(cfg.Archiver.RetentionDays, time.Now().UTC())
	if err != nil {
		return err
	}
	e, err := archiver.NewExpirer(cfg.Archiver, telemetry.Logger(g.err, cfg.Log.Format, cfg.Log.Level))
	if err != nil {
		return err
	}
	defer e.Close()
	days, err := e.Days(before, a.Topic)
	if err != nil {
		return fmt.Errorf("--before: %w", err)
	}
	if len(days) == 0 {
		_, err := fmt.Fprintf(g.out, "nothing is of days before %s\n", before.Format(time.DateOnly))
		return err
	}
	var failed []error
	left := 0
	for _, d := range days {
		if a.DryRun {
			err = e.Look(ctx, d)
		} else {
			_, err = e.Run(ctx, d)
		}
		if ctx.Err() != nil {
			return errors.New("stopped; the next run goes on, and what was recorded counts as expired meanwhile")
		}
		if err != nil {
			failed = append(failed, err) // the other days go on
			continue
		}
		left += len(d.Left)
		a.tell(g, d)
	}
	if a.DryRun {
		fmt.Fprintln(g.out, "nothing was changed (--dry-run)")
	}
	if left > 0 {
		failed = append(failed, fmt.Errorf("%d files are not what manifests and records say, and stay; `weir audit --since all` says more", left))
	}
	return errors.Join(failed...)
}

// before is the day that was asked for, at its beginning.
func (a archiveExpireCmd) before(retention int, now time.Time) (time.Time, error) {
	if a.Before == "" && retention == 0 {
		return now, errors.New("--before: is not given, and archiver.retention_days is not set")
	}
	if a.Before == "" {
		return now.Truncate(24*time.Hour).AddDate(0, 0, -retention), nil
	}
	at, err := search.ParseTime(a.Before, now)
	if err != nil {
		return at, fmt.Errorf("--before: %w", err)
	}
	return at.UTC().Truncate(24 * time.Hour), nil
}

func (a archiveExpireCmd) tell(g *globals, d *archiver.Day) {
	verb := "expired"
	if a.DryRun {
		verb = "would expire"
	}
	day := d.Start.Format(time.DateOnly)
	if len(d.Files) > 0 || len(d.Left) == 0 && len(d.Again) == 0 {
		fmt.Fprintf(g.out, "%s %s: %d files, %s, %d rows %s\n", d.Topic, day, len(d.Files), view.Bytes(float64(d.Bytes)), d.Rows, verb)
	}
	if len(d.Again) > 0 {
		fmt.Fprintf(g.out, "%s %s: %d files that had expired before and were not deleted\n", d.Topic, day, len(d.Again))
	}
	if d.Unfinished {
		fmt.Fprintf(g.out, "%s %s: a compaction that was killed would be finished first\n", d.Topic, day)
	}
	for _, l := range d.Left {
		fmt.Fprintf(g.out, "%s %s: %s stays: %s\n", d.Topic, day, cell(l.Path), cell(l.Why))
	}
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
