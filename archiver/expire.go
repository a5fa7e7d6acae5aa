package archiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"time"

	"weir/archiver/archive"
	"weir/archiver/store"
)

// Expirer ends the life of whole days of the archive.
//
// The steps for one day, each of which may be the last before a crash:
//
//  1. fence: compactors of the day's hours, and other expirers of the day, are shut out as compact.go says.
//  2. place, remove: compactions of the day that were killed after their commit are finished.
//  3. record: the expiry record is written to the own commit folder.
//  4. folder: the folders of the day's records are made.
//  5. commit: the record is renamed into its place. From here on the files that it names count as expired.
//  6. delete: the files go, also those that an earlier run has left.
//  7. tidy: the day's folders go, where they are empty.
//
// Manifests and compaction records stay: they are what the record is checked against.
type Expirer struct{ c *Compactor }

// NewExpirer checks the configuration.
func NewExpirer(cfg Config, log *slog.Logger) (*Expirer, error) {
	c, err := NewCompactor(cfg, log)
	if err != nil {
		return nil, err
	}
	c.log = log.With("component", "expire")
	return &Expirer{c}, nil
}

// Close ends the connections to the store.
func (e *Expirer) Close() error { return e.c.Close() }

// Day is a day of a topic that has files in its folders, and what becomes of them.
type Day struct {
	Topic  string
	Start  time.Time
	Before time.Time // what is of earlier days expires

	Files      []archive.Place // that expire
	Rows       int64           // of them
	Bytes      int64
	Again      []string // files that have expired and are there still
	Unfinished bool     // a compaction was killed after its commit, and is to be finished first
	Left       []Left
}

// Left is a file that is not deleted, because it is not what a manifest or a record says that it is.
type Left struct{ Path, Why string }

// Days lists the days before another one that something is to be done for, or may be. That one may be yesterday at the latest: what is later may still be written.
func (e *Expirer) Days(before time.Time, topics []string) ([]*Day, error) {
	before = before.UTC().Truncate(24 * time.Hour)
	if yesterday := e.c.now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1); before.After(yesterday) {
		return nil, fmt.Errorf("%s is later than yesterday, %s (UTC): days that may still be written to do not expire", before.Format(time.DateOnly), yesterday.Format(time.DateOnly))
	}
	if len(topics) == 0 {
		var err error
		if topics, err = archive.Topics(e.c.store); err != nil {
			return nil, err
		}
	}
	var days []*Day
	for _, topic := range topics {
		listed := map[time.Time]bool{}
		for _, dir := range []string{topic, path.Join(expireTmp, topic)} { // a run may have been killed after the day's own folders went
			entries, err := e.list(dir)
			if err != nil {
				return nil, err
			}
			for _, d := range entries {
				if start, ok := archive.ParseDayDir(d.Name); ok && d.Dir && start.Before(before) && !listed[start] {
					listed[start] = true
					days = append(days, &Day{Topic: topic, Start: start, Before: before})
				}
			}
		}
	}
	slices.SortStableFunc(days, func(a, b *Day) int { return a.Start.Compare(b.Start) })
	return days, nil
}

// list gives a folder's entries, none where it is not there.
func (e *Expirer) list(dir string) ([]store.Entry, error) {
	entries, err := e.c.store.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return entries, nil
}

// hours lists the folders of the day's hours below a base folder.
func (e *Expirer) hours(base string, d *Day) (dirs []string, err error) {
	day := archive.DayDir(base, d.Topic, d.Start)
	entries, err := e.list(day)
	for _, h := range entries {
		if _, ok := archive.ParseHourDir(h.Name); ok && h.Dir {
			dirs = append(dirs, path.Join(day, h.Name))
		}
	}
	return dirs, err
}

// Look says what would be done with a day's files, and changes nothing.
func (e *Expirer) Look(ctx context.Context, d *Day) error {
	_, err := e.look(ctx, d)
	return err
}

// look is Look, and gives the day's expiry records too.
func (e *Expirer) look(ctx context.Context, d *Day) ([]*archive.Expiry, error) {
	places, records, err := archive.OfDay(ctx, e.c.store, d.Topic, d.Start)
	if err != nil {
		return nil, err
	}
	live, expired, replaced := map[string]archive.Place{}, map[string]bool{}, map[string]bool{}
	for _, p := range places {
		live[p.Path] = p
	}
	for _, x := range records.Expiries {
		for _, f := range x.Files {
			expired[f.Path] = true
		}
	}
	for _, c := range records.Compactions {
		for _, r := range c.Replaces {
			replaced[r.Path] = true
		}
	}
	hours, err := e.hours("", d)
	if err != nil {
		return nil, err
	}
	d.Files, d.Rows, d.Bytes, d.Again, d.Unfinished, d.Left = nil, 0, 0, nil, false, nil
	for _, hour := range hours {
		entries, err := e.list(hour)
		if err != nil {
			return nil, err
		}
		for _, f := range entries {
			name := path.Join(hour, f.Name)
			p, lives := live[name]
			switch {
			case lives && f.Size == p.Bytes:
				d.Files, d.Rows, d.Bytes = append(d.Files, p), d.Rows+p.Rows, d.Bytes+p.Bytes
			case lives:
				d.Left = append(d.Left, Left{name, fmt.Sprintf("it has %d bytes, and %s says %d", f.Size, p.Listed, p.Bytes)})
			case replaced[name]:
				d.Unfinished = true
			case expired[name]:
				d.Again = append(d.Again, name)
			default:
				d.Left = append(d.Left, Left{name, "no manifest and no compaction record lists it"})
			}
		}
	}
	return records.Expiries, nil
}

// Run lets a day expire. The record is nil where nothing new had to be recorded.
func (e *Expirer) Run(ctx context.Context, d *Day) (*archive.Expiry, error) {
	r, err := e.run(ctx, d)
	if err != nil {
		return r, fmt.Errorf("expire %s %s in %s: %w", d.Topic, d.Start.Format(time.DateOnly), e.c.cfg.Root, err)
	}
	return r, nil
}

func (e *Expirer) run(ctx context.Context, d *Day) (r *archive.Expiry, err error) {
	base := archive.DayDir(expireTmp, d.Topic, d.Start)
	own, err := e.c.begin(base)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			err = e.c.end(base, own)
		}
	}()
	if err := e.shutOut(ctx, d, base, own); err != nil {
		return nil, err
	}
	before, err := e.look(ctx, d)
	if err != nil {
		return nil, err
	}
	if d.Unfinished {
		return nil, errors.New("files that a compaction has replaced are there: run it again")
	}
	gone := d.Again
	if len(gone) > 0 {
		for _, x := range before {
			if err := e.c.trust(x.Name()); err != nil {
				return nil, err
			}
		}
	}
	if len(d.Files) > 0 {
		if r, err = e.record(d, before); err != nil {
			return nil, err
		}
		if err := e.c.commit(ctx, own, r); err != nil {
			return nil, err
		}
		for _, p := range d.Files {
			gone = append(gone, p.Path)
		}
	}
	for _, name := range gone {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		if err := e.c.step("delete", func() error { return e.c.store.Remove(name) }); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r, fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return r, e.c.step("tidy", func() error { return e.tidy(d) })
}

// shutOut keeps compactions of the day and other expiries of it from committing, and finishes what they have committed.
func (e *Expirer) shutOut(ctx context.Context, d *Day, base, own string) error {
	others, err := e.c.fence(base, own)
	if err != nil {
		return err
	}
	compacting, err := e.hours(compactTmp, d)
	if err != nil {
		return err
	}
	for _, dir := range compacting {
		more, err := e.c.fence(dir, own)
		if err != nil {
			return err
		}
		others = append(others, more...)
	}
	hours, err := e.hours("", d)
	if err != nil {
		return err
	}
	for _, dir := range hours {
		at, _ := archive.ParseHourDir(path.Base(dir))
		hour := d.Start.Add(at)
		records, err := e.c.records(ctx, d.Topic, hour)
		if err != nil {
			return err
		}
		there, err := e.c.listed(d.Topic, hour)
		if err != nil {
			return err
		}
		if left, err := e.c.unfinished(records, there); err != nil {
			return err
		} else if left {
			if err := e.c.finish(records[len(records)-1]); err != nil {
				return err
			}
		}
	}
	for _, dir := range others {
		if err := store.RemoveTree(e.c.store, dir); err != nil {
			return err
		}
	}
	for _, dir := range compacting {
		_ = e.c.store.Remove(dir) // where it is empty now
	}
	return nil
}

// record makes the record that follows on those of before.
func (e *Expirer) record(d *Day, before []*archive.Expiry) (*archive.Expiry, error) {
	r := &archive.Expiry{Version: archive.ExpiryVersion, Topic: d.Topic, Day: d.Start, N: 1, Created: e.c.now().UTC(), Before: d.Before}
	if n := len(before); n > 0 {
		last := before[n-1]
		data, err := e.c.store.ReadFile(last.Name())
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", last.Name(), err)
		}
		r.N, r.Prev = last.N+1, archive.Digest(data)
	}
	for _, p := range d.Files {
		r.Files = append(r.Files, archive.Expired{Path: p.Path, Rows: p.Rows, Bytes: p.Bytes, SHA256: p.SHA256, MinTime: p.MinTime, MaxTime: p.MaxTime})
	}
	return r, nil
}

// tidy removes the day's folders where nothing is in them: the archiver may have put a late file there.
func (e *Expirer) tidy(d *Day) error {
	hours, err := e.hours("", d)
	if err != nil {
		return err
	}
	for _, dir := range append(hours, archive.DayDir("", d.Topic, d.Start)) {
		entries, err := e.list(dir)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			_ = e.c.store.Remove(dir) // it is not empty any more
		}
	}
	return nil
}
