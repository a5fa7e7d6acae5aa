package archiver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"time"

	"github.com/parquet-go/parquet-go"

	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
)

// Commit makes all that was written durable together with the checkpoint. Without rows since the last commit it does
// nothing: reading then goes on from the earlier offset, over batches that the interval state knows already.
//
// The steps, each of which may be the last before a crash:
//
//  1. close: the open files are finished in the writer's folder.
//  2. verify: each is read back from the store, length and footer.
//  3. seen: the interval state is written beside the manifests.
//  4. manifest: written to the writer's commit folder.
//  5. day: the folder of the day's manifests is made.
//  6. commit: the manifest is renamed into it. From here on the commit has happened.
//  7. settle: the files are renamed to their places. Open does this again after a crash.
//  8. done: a marker says that they are there.
//  9. prune: the sidecars of the commit before go.
func (p *partition) Commit(ctx context.Context, cp ingest.Checkpoint) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.measure()
	if p.broken != nil {
		return p.broken
	}
	if len(p.hours) == 0 && len(p.finished) == 0 {
		return nil
	}
	begin := p.a.now()
	m, err := p.commit(ctx, cp)
	if err != nil {
		return p.fail("commit", fmt.Errorf("up to offset %d: %w", cp.NextOffset, err))
	}
	p.count(m, p.a.now().Sub(begin))
	p.reset()
	return nil
}

func (p *partition) commit(ctx context.Context, cp ingest.Checkpoint) (*archive.Manifest, error) {
	m, err := p.prepare(ctx, cp)
	if err != nil {
		return nil, err
	}
	data, err := m.Encode()
	if err == nil {
		data, err = archive.Sign(data, p.a.key)
	}
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	s := m.Span()
	dir := path.Join(p.manifests, archive.ManifestDay(m.Created))
	name, tmp := path.Join(dir, s.Manifest()), path.Join(p.commitDir(), s.Manifest())
	if err := p.step("manifest", func() error { return store.WriteFile(p.a.store, tmp, data) }); err != nil {
		return nil, err
	}
	if err := p.step("day", func() error { return p.a.store.MkdirAll(dir) }); err != nil {
		return nil, fmt.Errorf("make folder %s: %w", dir, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := p.step("commit", func() error { return p.a.store.Rename(tmp, name) }); err != nil {
		return nil, fmt.Errorf("rename the manifest to %s: %w", name, err)
	}
	before, sidecar := p.last, p.seen
	p.last, p.prevSum, p.seen, p.created = s, archive.Digest(data), m.Seen.Path, m.Created
	if err := p.settle(m, name); err != nil {
		return nil, err
	}
	return m, p.step("prune", func() error {
		if sidecar != "" {
			p.discard(sidecar)
			p.discard(path.Join(p.manifests, before.Done()))
		}
		return nil
	})
}

// prepare does the steps before the manifest, which leave the archive as it was.
func (p *partition) prepare(ctx context.Context, cp ingest.Checkpoint) (*archive.Manifest, error) {
	m := &archive.Manifest{
		Version: archive.ManifestVersion, Topic: p.tp.Topic, Partition: p.tp.Partition,
		First: p.first, Next: cp.NextOffset, Sources: map[string]archive.Source{}, Prev: p.prevSum, Created: p.a.now().UTC(),
	}
	if p.last.Next > 0 {
		m.First = p.last.Next
	}
	if m.Created.Before(p.created) { // the newest manifest must be in the newest folder
		m.Created = p.created
	}
	for name, s := range p.sources {
		m.Sources[name] = *s
	}
	if m.Next <= m.First {
		return nil, fmt.Errorf("rows were written, but the next offset is not past %d", m.First)
	}
	open := make([]*hourFile, 0, len(p.hours))
	for _, f := range p.hours {
		open = append(open, f)
	}
	sort.Slice(open, func(i, j int) bool { return open[i].hour < open[j].hour })
	for _, f := range open {
		if err := p.step("close", func() error { return p.finish(f) }); err != nil {
			return nil, err
		}
	}
	m.Files = p.finished
	for i := range m.Files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := p.step("verify", func() error { return p.verify(&m.Files[i]) }); err != nil {
			return nil, err
		}
	}
	// The owner in the name keeps a writer that was fenced from touching the sidecar of the one that came after it.
	m.Seen = archive.Seen{
		Path:  path.Join(p.manifests, m.Span().Base()+"."+p.owner+".seen"),
		Bytes: int64(len(cp.Seen)), SHA256: archive.Digest(cp.Seen),
	}
	return m, p.step("seen", func() error { return store.WriteFile(p.a.store, m.Seen.Path, cp.Seen) })
}

func (p *partition) step(name string, fn func() error) error {
	if err := p.a.hook(name); err != nil {
		return err
	}
	return fn()
}

// verify reads a finished file's length and footer back through the store.
func (p *partition) verify(f *archive.File) error {
	e, err := p.a.store.Stat(f.Tmp)
	if err != nil {
		return fmt.Errorf("verify %s: %w", f.Tmp, err)
	}
	if e.Size != f.Bytes {
		return fmt.Errorf("verify %s: the store has %d bytes of %d", f.Tmp, e.Size, f.Bytes)
	}
	r, err := p.a.store.Open(f.Tmp)
	if err != nil {
		return fmt.Errorf("verify %s: %w", f.Tmp, err)
	}
	pf, err := parquet.OpenFile(r, f.Bytes, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err == nil && pf.NumRows() != f.Rows {
		err = fmt.Errorf("the footer counts %d rows of %d", pf.NumRows(), f.Rows)
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("verify %s: %w", f.Tmp, err)
	}
	return nil
}

// settle puts the files of a committed manifest in their places. It may be done again any number of times, also by two
// writers at once.
func (p *partition) settle(m *archive.Manifest, name string) error {
	done := path.Join(p.manifests, m.Span().Done())
	if _, err := p.a.store.Stat(done); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stat %s: %w", done, err)
	}
	for i := range m.Files {
		f := &m.Files[i]
		if err := p.step("settle", func() error { return p.place(f) }); err != nil {
			return fmt.Errorf("manifest %s: %w", name, err)
		}
	}
	return p.step("done", func() error {
		if err := store.WriteFile(p.a.store, done, nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
}

// place renames one file, unless it is in its place already.
func (p *partition) place(f *archive.File) error {
	if err := p.a.store.MkdirAll(path.Dir(f.Path)); err != nil {
		return fmt.Errorf("make folder %s: %w", path.Dir(f.Path), err)
	}
	err := p.a.store.Rename(f.Tmp, f.Path)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("rename %s to %s: %w", f.Tmp, f.Path, err)
	}
	e, err := p.a.store.Stat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if gone, err := p.gone(f); err != nil || gone {
			return err
		}
		return fmt.Errorf("its file is neither at %s nor at %s; restore it (%d rows, sha256 %s), or, if it was deleted on "+
			"purpose, create the empty file <manifest without .json>.done", f.Tmp, f.Path, f.Rows, f.SHA256)
	case err != nil:
		return fmt.Errorf("stat %s: %w", f.Path, err)
	case e.Dir || e.Size != f.Bytes:
		return fmt.Errorf("%s has %d bytes, not the %d that were written; move it away", f.Path, e.Size, f.Bytes)
	}
	return p.same(f)
}

// gone tells whether a compaction has put another file in the place of one, or it expired: both may come between the renaming and the marker.
func (p *partition) gone(f *archive.File) (bool, error) {
	ctx, hour := context.Background(), f.MinTime.Truncate(time.Hour)
	scope := archive.Scope{Since: hour, Until: hour.Add(time.Hour)}
	records, err := archive.ReadRecords(ctx, p.a.store, p.tp.Topic, scope)
	if err != nil {
		return false, err
	}
	for _, c := range records.Compactions {
		if slices.ContainsFunc(c.Replaces, func(r archive.Replaced) bool { return r.Path == f.Path && r.SHA256 == f.SHA256 }) {
			return true, nil
		}
	}
	return archive.Covers(records.Expiries, f), nil
}

// same tells a file that is in its place from another one that has its name, say of an archive whose _weir folder was lost.
func (p *partition) same(f *archive.File) error {
	r, err := p.a.store.Open(f.Path)
	if err != nil {
		return fmt.Errorf("open %s: %w", f.Path, err)
	}
	sum := sha256.New()
	_, err = io.Copy(sum, io.NewSectionReader(r, 0, f.Bytes))
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("read %s: %w", f.Path, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return fmt.Errorf("%s has sha256 %s, not the %s that was written; move it away", f.Path, got, f.SHA256)
	}
	return nil
}

func (p *partition) count(m *archive.Manifest, took time.Duration) {
	var rows, bytes int64
	for _, f := range m.Files {
		rows, bytes = rows+f.Rows, bytes+f.Bytes
	}
	p.a.m.rows.WithLabelValues(p.tp.Topic).Add(float64(rows))
	p.a.m.bytes.WithLabelValues(p.tp.Topic).Add(float64(bytes))
	p.a.m.files.WithLabelValues(p.tp.Topic).Add(float64(len(m.Files)))
	p.a.m.commits.WithLabelValues(p.tp.Topic).Inc()
	p.a.m.seconds.Observe(took.Seconds())
	p.log.Debug("committed", "first", m.First, "next", m.Next, "rows", rows, "bytes", bytes, "files", len(m.Files), "took", took)
}
