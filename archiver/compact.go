package archiver

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"time"

	"weir/archiver/archive"
	"weir/archiver/store"
)

// CompactConfig says what a compaction merges.
type CompactConfig struct {
	// ClosedAfter is how long after its end an hour is taken for closed.
	ClosedAfter time.Duration `yaml:"closed_after"`
	// TargetBytes is the size of the merged files. A file of half of it is left as it is.
	TargetBytes int64 `yaml:"target_bytes"`
	// MemoryBytes bounds the rows that are sorted in memory; what is more waits in files of TempDir.
	MemoryBytes int `yaml:"memory_bytes"`
	// TempDir is a local folder, which needs about four times TargetBytes; empty: the system's.
	TempDir string `yaml:"temp_dir"`
}

// DefaultCompactConfig merges hours that ended two hours ago into files of 512 MB.
func DefaultCompactConfig() CompactConfig {
	return CompactConfig{ClosedAfter: 2 * time.Hour, TargetBytes: 512 << 20, MemoryBytes: 128 << 20}
}

// Validate joins all that is wrong, each as "key: what is wrong".
func (c CompactConfig) Validate() error {
	var errs []error
	if c.ClosedAfter < 0 {
		errs = append(errs, fmt.Errorf("closed_after: %s is below zero", c.ClosedAfter))
	}
	if c.TargetBytes < 1<<20 || c.TargetBytes > 64<<30 {
		errs = append(errs, fmt.Errorf("target_bytes: %d is not within 1048576 and 68719476736", c.TargetBytes))
	}
	if c.MemoryBytes < 8<<20 {
		errs = append(errs, fmt.Errorf("memory_bytes: %d is not at least 8388608", c.MemoryBytes))
	}
	return errors.Join(errs...)
}

// The folders of what compactions and expiries write, by hour and by day.
var (
	compactTmp = path.Join(archive.TmpDir, "compact")
	expireTmp  = path.Join(archive.TmpDir, "expire")
)

// mergeTargets bounds what one record merges, in sizes of a merged file: so the temporary folder's size and the number of sorted runs are bounded.
const mergeTargets = 4

// Compactor merges the small files of closed hours into large ones.
//
// The steps for one merge, each of which may be the last before a crash:
//
//  1. merge: rows are sorted (sort.go says how) and written to the compactor's own folder.
//  2. verify: each merged file is read back; its rows together must be those of the files that it replaces.
//  3. record: the compaction record is written to the own commit folder.
//  4. folder: the folders of the hour's records are made.
//  5. commit: the record is renamed into its place. From here on the merged files hold.
//  6. place: the merged files are renamed to their places.
//  7. remove: the replaced files go.
//
// A run begins with finishing what a crash left after 5, and with shutting out other compactors of the hour, and who lets its day expire, as
// partition.go's fence does: it deletes their commit folders, without which they cannot commit.
type Compactor struct {
	cfg   Config
	log   *slog.Logger
	store store.Store
	key   ed25519.PrivateKey
	hook  func(step string) error
	now   func() time.Time
}

// NewCompactor checks the configuration.
func NewCompactor(cfg Config, log *slog.Logger) (*Compactor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("archiver: %w", err)
	}
	c := &Compactor{cfg: cfg, log: log.With("component", "compact"), hook: func(string) error { return nil }, now: time.Now}
	var err error
	if cfg.SignKeyFile != "" {
		if c.key, err = archive.ReadSignKey(cfg.SignKeyFile); err != nil {
			return nil, fmt.Errorf("archiver: sign_key_file: %w", err)
		}
	}
	if c.store, err = store.Open(cfg.Config); err != nil {
		return nil, fmt.Errorf("archiver: %w", err)
	}
	return c, nil
}

// Close ends the connections to the store.
func (c *Compactor) Close() error { return c.store.Close() }

// Merge is what one compaction record replaces.
type Merge struct {
	Topic       string
	Hour        time.Time
	Files       []archive.Place
	Rows, Bytes int64
}

func (m *Merge) add(p archive.Place) {
	m.Files = append(m.Files, p)
	m.Rows, m.Bytes = m.Rows+p.Rows, m.Bytes+p.Bytes
}

// Hour is an hour that has something to be done.
type Hour struct {
	Topic      string
	Start      time.Time
	Merges     []Merge
	Unfinished bool // a compaction was killed after its commit: the next one finishes it
	places     []archive.Place
}

// Plan finds the closed hours in a scope that have small files to merge, or a compaction to finish. It changes nothing.
func (c *Compactor) Plan(ctx context.Context, scope archive.Scope) ([]Hour, error) {
	closed := c.now().Add(-c.cfg.Compact.ClosedAfter).Truncate(time.Hour)
	if scope.Until.IsZero() || scope.Until.After(closed) {
		scope.Until = closed
	}
	scope.Since, scope.Until = scope.Since.Truncate(time.Hour), scope.Until.Truncate(time.Hour) // whole hours alone
	places, err := archive.Snapshot(ctx, c.store, scope)
	if err != nil {
		return nil, err
	}
	type key struct {
		topic string
		hour  time.Time
	}
	byHour := map[key][]archive.Place{}
	for _, p := range places {
		k := key{p.Topic, p.Hour().UTC()}
		byHour[k] = append(byHour[k], p)
	}
	var hours []Hour
	for k, places := range byHour {
		h := Hour{Topic: k.topic, Start: k.hour, places: places}
		there, err := c.listed(k.topic, k.hour)
		if err != nil {
			return nil, err
		}
		h.Merges = c.merges(k.topic, k.hour, places, there)
		records, err := c.records(ctx, k.topic, k.hour)
		if err != nil {
			return nil, err
		}
		if h.Unfinished, err = c.unfinished(records, there); err != nil {
			return nil, err
		}
		if len(h.Merges) > 0 || h.Unfinished {
			hours = append(hours, h)
		}
	}
	slices.SortFunc(hours, func(a, b Hour) int { return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Topic, b.Topic)) })
	return hours, nil
}

// merges divides an hour's small files. One that would be alone stays as it is, and so does one that is not in its place yet: the archiver
// would put it there after its rows were merged.
func (c *Compactor) merges(topic string, hour time.Time, places []archive.Place, there map[string]int64) []Merge {
	var all []Merge
	for _, p := range places {
		if _, ok := there[p.Path]; !ok || p.Bytes >= c.cfg.Compact.TargetBytes/2 {
			continue
		}
		if n := len(all); n == 0 || all[n-1].Bytes+p.Bytes > mergeTargets*c.cfg.Compact.TargetBytes {
			all = append(all, Merge{Topic: topic, Hour: hour})
		}
		all[len(all)-1].add(p)
	}
	return slices.DeleteFunc(all, func(m Merge) bool { return len(m.Files) < 2 })
}

// records reads the compaction records of an hour.
func (c *Compactor) records(ctx context.Context, topic string, hour time.Time) ([]*archive.Compaction, error) {
	return archive.Compactions(ctx, c.store, topic, archive.Scope{Since: hour, Until: hour.Add(time.Hour)})
}

// unfinished tells whether files of the hour's last record are not where they belong. Earlier ones were finished before it was made.
func (c *Compactor) unfinished(records []*archive.Compaction, there map[string]int64) (bool, error) {
	if len(records) == 0 {
		return false, nil
	}
	last := records[len(records)-1]
	for _, f := range last.Files {
		if _, ok := there[f.Path]; !ok {
			// Where it is not waiting either, it has expired.
			if _, err := c.store.Stat(f.Tmp); err == nil {
				return true, nil
			} else if !errors.Is(err, fs.ErrNotExist) {
				return false, fmt.Errorf("stat %s: %w", f.Tmp, err)
			}
		}
	}
	return slices.ContainsFunc(last.Replaces, func(r archive.Replaced) bool { _, ok := there[r.Path]; return ok }), nil
}

// listed gives the sizes of the files in an hour's folder.
func (c *Compactor) listed(topic string, hour time.Time) (map[string]int64, error) {
	dir := archive.HourDir("", topic, hour)
	entries, err := c.store.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	there := map[string]int64{}
	for _, e := range entries {
		there[path.Join(dir, e.Name)] = e.Size
	}
	return there, nil
}

// Run merges what is planned for an hour, and returns the records it made. What another run has merged meanwhile is passed over.
func (c *Compactor) Run(ctx context.Context, h *Hour) (made []*archive.Compaction, err error) {
	made, err = c.run(ctx, h)
	if err != nil {
		return made, fmt.Errorf("compact %s %s in %s: %w", h.Topic, h.Start.UTC().Format("2006-01-02 15h"), c.cfg.Root, err)
	}
	return made, nil
}

func (c *Compactor) run(ctx context.Context, h *Hour) (made []*archive.Compaction, err error) {
	base := archive.HourDir(compactTmp, h.Topic, h.Start)
	own, err := c.begin(base)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil { // after a failure the commit may have happened: the next run finds out
			err = c.end(base, own)
		}
	}()
	others, err := c.fence(base, own)
	if err != nil {
		return nil, err
	}
	if _, err := c.fence(archive.DayDir(expireTmp, h.Topic, h.Start), own); err != nil {
		return nil, err
	}
	records, err := c.records(ctx, h.Topic, h.Start)
	if err != nil {
		return nil, err
	}
	expiries, err := archive.Expiries(ctx, c.store, h.Topic, archive.Scope{Since: h.Start, Until: h.Start.Add(time.Hour)})
	if err != nil {
		return nil, err
	}
	there, err := c.listed(h.Topic, h.Start)
	if err != nil {
		return nil, err
	}
	if left, err := c.unfinished(records, there); err != nil {
		return nil, err
	} else if left {
		if err := c.finish(records[len(records)-1]); err != nil {
			return nil, err
		}
		if there, err = c.listed(h.Topic, h.Start); err != nil {
			return nil, err
		}
	}
	for _, dir := range others {
		if err := store.RemoveTree(c.store, dir); err != nil {
			return nil, err
		}
	}
	for _, m := range c.merges(h.Topic, h.Start, archive.Unexpired(current(h.places, records), expiries), there) {
		r, err := c.merge(ctx, own, &m, records)
		if err != nil {
			return made, err
		}
		records, made = append(records, r), append(made, r)
	}
	return made, nil
}

// begin makes a folder of the run's own. It comes first: of two that begin at once, at least the later one then sees the other.
func (c *Compactor) begin(base string) (own string, err error) {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails
	own = path.Join(base, hex.EncodeToString(nonce[:]))
	if err := c.store.MkdirAll(path.Join(own, "commit")); err != nil {
		return "", fmt.Errorf("make folder %s: %w", own, err)
	}
	return own, nil
}

func (c *Compactor) end(base, own string) error {
	err := store.RemoveTree(c.store, own)
	_ = c.store.Remove(base) // not while another one has a folder there
	return err
}

// current is what of a plan's files still holds, with the merged files of records that came since.
func current(places []archive.Place, records []*archive.Compaction) []archive.Place {
	seen := map[string]bool{}
	return slices.DeleteFunc(archive.Resolve(places, records), func(p archive.Place) bool {
		before := seen[p.Path]
		seen[p.Path] = true
		return before
	})
}

// fence deletes the commit folders of all others in a base folder, and returns their folders.
func (c *Compactor) fence(base, own string) (others []string, err error) {
	if err := c.hook("fence"); err != nil {
		return nil, err
	}
	entries, err := c.store.List(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", base, err)
	}
	for _, e := range entries {
		dir := path.Join(base, e.Name)
		if dir == own {
			continue
		}
		if err := store.RemoveTree(c.store, path.Join(dir, "commit")); err != nil {
			return nil, err
		}
		others = append(others, dir)
	}
	return others, nil
}

// merge makes one record and puts it through.
func (c *Compactor) merge(ctx context.Context, own string, m *Merge, before []*archive.Compaction) (*archive.Compaction, error) {
	r := &archive.Compaction{Version: archive.CompactionVersion, Topic: m.Topic, Hour: m.Hour, N: 1, Created: c.now().UTC()}
	if n := len(before); n > 0 {
		r.N = before[n-1].N + 1
		data, err := c.store.ReadFile(before[n-1].Name())
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", before[n-1].Name(), err)
		}
		r.Prev = archive.Digest(data)
	}
	c.log.Info("merging", "topic", m.Topic, "hour", m.Hour, "files", len(m.Files), "bytes", m.Bytes, "rows", m.Rows)
	if err := c.write(ctx, own, m, r); err != nil {
		return nil, err
	}
	for _, p := range m.Files {
		r.Replaces = append(r.Replaces, archive.Replaced{Path: p.Path, Rows: p.Rows, SHA256: p.SHA256})
	}
	if err := c.commit(ctx, own, r); err != nil {
		return nil, err
	}
	return r, c.settle(r)
}

// commit puts a record, of a compaction or an expiry, in its place.
func (c *Compactor) commit(ctx context.Context, own string, r interface {
	Name() string
	Encode() ([]byte, error)
}) error {
	data, err := r.Encode()
	if err == nil {
		data, err = archive.Sign(data, c.key)
	}
	if err != nil {
		return fmt.Errorf("encode the record: %w", err)
	}
	name := r.Name()
	tmp := path.Join(own, "commit", path.Base(name))
	if err := c.step("record", func() error { return store.WriteFile(c.store, tmp, data) }); err != nil {
		return fmt.Errorf("%w (another compaction or expiry may have taken over)", err)
	}
	if err := c.step("folder", func() error { return c.store.MkdirAll(path.Dir(name)) }); err != nil {
		return fmt.Errorf("make folder %s: %w", path.Dir(name), err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.step("commit", func() error { return c.store.Rename(tmp, name) }); err != nil {
		return fmt.Errorf("rename the record to %s: %w (another compaction or expiry may have taken over)", name, err)
	}
	return nil
}

func (c *Compactor) step(name string, fn func() error) error {
	if err := c.hook(name); err != nil {
		return err
	}
	return fn()
}

// finish settles a record of another run.
func (c *Compactor) finish(r *archive.Compaction) error {
	if err := c.trust(r.Name()); err != nil {
		return err
	}
	return c.settle(r)
}

// trust checks a record of another run before it is finished. Where records are signed it must be, too: files are deleted on its word.
func (c *Compactor) trust(name string) error {
	if c.key == nil {
		return nil
	}
	data, err := c.store.ReadFile(name)
	if err == nil {
		err = archive.Verify(data, []ed25519.PublicKey{c.key.Public().(ed25519.PublicKey)})
	}
	if err != nil {
		return fmt.Errorf("record %s is not finished: %w; `weir audit` tells whether it was forged, and without archiver.sign_key_file it is finished", name, err)
	}
	return nil
}

// settle puts the merged files of a committed record in their places and removes those that they replace. It may be done
// again any number of times, also by two at once.
func (c *Compactor) settle(r *archive.Compaction) error {
	for _, f := range r.Files {
		err := c.step("place", func() error { return c.store.Rename(f.Tmp, f.Path) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("rename %s to %s: %w", f.Tmp, f.Path, err)
		}
	}
	there, err := c.listed(r.Topic, r.Hour)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(r.Replaces, func(old archive.Replaced) bool { _, ok := there[old.Path]; return ok }) {
		return nil
	}
	for _, f := range r.Files {
		if size, ok := there[f.Path]; !ok || size != f.Bytes {
			return fmt.Errorf("record %s: its merged file %s is not there with %d bytes, nor at %s; what it replaced is left alone: restore it (sha256 %s)", r.Name(), f.Path, f.Bytes, f.Tmp, f.SHA256)
		}
	}
	for _, old := range r.Replaces {
		if _, ok := there[old.Path]; !ok {
			continue
		}
		if err := c.step("remove", func() error { return c.store.Remove(old.Path) }); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", old.Path, err)
		}
	}
	return nil
}

// write merges the rows of all files into new ones, and checks that they are the same rows.
func (c *Compactor) write(ctx context.Context, own string, m *Merge, r *archive.Compaction) error {
	dir, err := os.MkdirTemp(c.cfg.Compact.TempDir, "weir-compact-")
	if err != nil {
		return fmt.Errorf("archiver.compact.temp_dir: %w", err)
	}
	defer os.RemoveAll(dir)
	s := &sorter{dir: dir, budget: c.cfg.Compact.MemoryBytes}
	defer s.close()
	var want, whole archive.Content
	for i := range m.Files {
		if i > 0 && i%50 == 0 {
			c.log.Info("reading", "topic", m.Topic, "hour", m.Hour, "files", i, "of", len(m.Files))
		}
		content, all, err := c.read(ctx, &m.Files[i], s.add)
		if err != nil {
			return err
		}
		want.Add(content)
		whole.Add(all)
	}
	w := &merged{c: c, own: own, r: r}
	if err := c.step("merge", func() error { return s.each(ctx, w.add) }); err != nil {
		w.abort()
		return err
	}
	if err := w.finish(); err != nil {
		w.abort()
		return err
	}
	rows := m.Rows
	for i := range r.Files {
		p := archive.Place{File: r.Files[i], Topic: r.Topic, Listed: "the compaction"}
		var content, all archive.Content
		if err := c.step("verify", func() (err error) { content, all, err = c.read(ctx, &p, nil); return err }); err != nil {
			return err
		}
		r.Files[i].Content = content
		rows -= p.Rows
		want.Sub(content)
		whole.Sub(all)
	}
	if rows != 0 || want != (archive.Content{}) || whole != (archive.Content{}) {
		return fmt.Errorf("the merged files do not hold the rows that were read (%d are missing); nothing was changed", rows)
	}
	return nil
}

// read gives fn the rows of a file that must be as it is listed, and returns their content, and that of all their columns.
func (c *Compactor) read(ctx context.Context, p *archive.Place, fn func([]archive.Row) error) (content, whole archive.Content, err error) {
	r, err := p.Open(c.store)
	if err != nil {
		return content, whole, err
	}
	defer r.Close()
	sum, err := archive.DigestReader(r, p.Bytes)
	if err != nil {
		return content, whole, fmt.Errorf("read %s: %w", p.Path, err)
	}
	if sum != p.SHA256 {
		return content, whole, fmt.Errorf("%s has sha256 %s, and %s says %s: it was changed; `weir audit` says more", p.Path, sum, p.Listed, p.SHA256)
	}
	rows := int64(0)
	var s, all archive.Summer
	err = archive.EachRow(r, p.Bytes, func(some []archive.Row) error {
		for i := range some {
			s.Add(&some[i])
			all.AddWhole(&some[i])
		}
		rows += int64(len(some))
		if fn == nil {
			return ctx.Err()
		}
		return errors.Join(fn(some), ctx.Err())
	})
	if err != nil {
		return content, whole, fmt.Errorf("read %s: %w", p.Path, err)
	}
	if rows != p.Rows || p.Content != (archive.Content{}) && p.Content != s.Sum {
		return content, whole, fmt.Errorf("%s holds %d rows of content %s, and %s says %d of %s", p.Path, rows, s.Sum, p.Listed, p.Rows, p.Content)
	}
	return s.Sum, all.Sum, nil
}
