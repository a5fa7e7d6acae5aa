package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/archiver/archive"
	"weir/ingest"
)

// chain is the manifests of one partition, by their offsets.
type chain struct {
	tp  ingest.TopicPartition
	all []*manifest

	// Of Kafka:
	asked              bool  // it has the partition; else nothing of what follows is set
	first, next        int64 // what it has
	committed, indexed int64 // by the archiver and the indexer; -1: nothing
	start              int64 // from where on it is compared
}

// manifest is one manifest, and what was found of its rows.
type manifest struct {
	archive.ManifestName
	m         *archive.Manifest // nil: it cannot be read
	sum       string            // SHA-256
	err       error             // why it cannot be read
	signature error             // of archive.Verify
	before    bool              // of before the range: it is there for its successor's sake

	expired map[int64]bool   // hours since 1970 of which its rows have expired, or some of them
	whole   bool             // all of its files are in the range, and none has expired
	trouble bool             // a file with rows of it is not as it should be, and has its finding
	rows    map[string]int64 // found, by source
	strange map[string]int64 // rows found that it does not tell of, by source
}

func (c *chain) head() *manifest {
	if len(c.all) == 0 {
		return nil
	}
	return c.all[len(c.all)-1]
}

// end is the offset that the chain reaches.
func (c *chain) end() int64 {
	if h := c.head(); h != nil {
		return h.Next
	}
	return 0
}

// of finds the manifest of an offset.
func (c *chain) of(offset int64) *manifest {
	at, ok := slices.BinarySearchFunc(c.all, offset, func(m *manifest, offset int64) int {
		switch {
		case m.Next <= offset:
			return -1
		case m.First > offset:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return c.all[at]
}

func (a *auditor) findTopics(ctx context.Context) error {
	if a.topics = a.o.Scope.Topics; len(a.topics) > 0 {
		return nil
	}
	var err error
	if a.topics, err = archive.Topics(a.s); err != nil {
		return err
	}
	if a.o.Kafka == nil {
		return nil
	}
	for _, topic := range a.o.Topics {
		if slices.Contains(a.topics, topic) {
			continue
		}
		n, err := a.o.Kafka.Partitions(ctx, topic)
		if err != nil {
			return fmt.Errorf("kafka: topic %s: %w", topic, err)
		}
		if n > 0 {
			a.topics = append(a.topics, topic) // the archive should have it, unless nothing was written
		}
	}
	slices.Sort(a.topics)
	return nil
}

// partitions lists those of a topic that the archive or Kafka has.
func (a *auditor) partitions(topic string) (all []ingest.TopicPartition, err error) {
	if all, err = archive.Partitions(a.s, topic); err != nil {
		return nil, err
	}
	for tp := range a.chains {
		if tp.Topic == topic && !slices.Contains(all, tp) {
			all = append(all, tp)
		}
	}
	slices.SortFunc(all, func(a, b ingest.TopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
	return all, nil
}

func (a *auditor) chain(tp ingest.TopicPartition) *chain {
	c := a.chains[tp]
	if c == nil {
		c = &chain{tp: tp, committed: -1, indexed: -1}
		a.chains[tp] = c
	}
	return c
}

func (a *auditor) readChains(ctx context.Context) error {
	for _, topic := range a.topics {
		partitions, err := a.partitions(topic)
		if err != nil {
			return err
		}
		for _, tp := range partitions {
			a.progress("manifests of %s", tp)
			c := a.chain(tp)
			if err := a.readChain(ctx, c); err != nil {
				return err
			}
			if err := a.checkChain(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// readChain reads the manifests that may have files of the range, and the one before them.
func (a *auditor) readChain(ctx context.Context, c *chain) error {
	if _, err := a.s.List(archive.PartitionDir(archive.ManifestDir, c.tp)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var since time.Time
	if !a.o.Scope.Since.IsZero() {
		since = a.o.Scope.Since.Add(-archive.Ahead)
	}
	names, err := archive.Manifests(a.s, c.tp, since)
	if err != nil {
		return err
	}
	if !since.IsZero() {
		before, err := a.before(c.tp, since)
		if err != nil {
			return err
		}
		if before != nil {
			c.all = append(c.all, &manifest{ManifestName: *before, before: true})
		}
	}
	for _, n := range names {
		c.all = append(c.all, &manifest{ManifestName: n})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, m := range c.all {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			data, err := a.s.ReadFile(m.Path)
			if err != nil {
				return fmt.Errorf("read manifest %s: %w", m.Path, err)
			}
			m.sum = archive.Digest(data)
			m.m, m.err = archive.ParseManifest(data, m.TopicPartition, m.Span)
			if len(a.o.Keys) > 0 {
				m.signature = archive.Verify(data, a.o.Keys)
			}
			return nil
		})
	}
	a.rep.Manifests += int64(len(c.all))
	return g.Wait()
}

// before finds the last manifest of the days before since.
func (a *auditor) before(tp ingest.TopicPartition, since time.Time) (*archive.ManifestName, error) {
	dir := archive.PartitionDir(archive.ManifestDir, tp)
	days, err := a.s.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	for _, e := range slices.Backward(days) {
		day, ok := archive.ParseDay(e.Name)
		if !ok || day.AddDate(0, 0, 1).After(since) {
			continue
		}
		entries, err := a.s.List(path.Join(dir, e.Name))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", path.Join(dir, e.Name), err)
		}
		for _, m := range slices.Backward(entries) {
			if span, rest, ok := archive.ParseSpan(m.Name); ok && rest == ".json" {
				return &archive.ManifestName{TopicPartition: tp, Span: span, Path: path.Join(dir, e.Name, m.Name)}, nil
			}
		}
	}
	return nil, nil
}

const restore = "restore the manifest folder from a copy that is older than the change, or explain it"

// checkChain checks each manifest against the one before it, the signatures, and that the chain ends where it ended.
func (a *auditor) checkChain(c *chain) error {
	signing := false
	for i, m := range c.all {
		if m.err != nil {
			a.find(Finding{Kind: "manifest_unreadable", Where: m.Path, What: "the manifest cannot be read: " + m.err.Error(), Do: restore})
		}
		if len(a.o.Keys) > 0 {
			a.checkSignature(c, m, &signing)
		}
		if m.m == nil {
			continue
		}
		if i == 0 {
			if m.m.Prev != "" && !m.before {
				a.find(Finding{Kind: "manifest_missing", Where: m.Path, What: fmt.Sprintf("manifests before it are missing: it names one of sha256 %s that ends at offset %d", m.m.Prev, m.First), Do: restore})
			}
			continue
		}
		switch was := c.all[i-1]; {
		case m.First > was.Next:
			a.find(Finding{Kind: "manifest_missing", Where: m.Path, What: fmt.Sprintf("the manifests of offsets %d to %d of %s are missing: it follows on %s", was.Next, m.First-1, c.tp, was.Path), Do: restore})
		case m.First < was.Next:
			a.find(Finding{Kind: "manifest_forged", Where: m.Path, What: fmt.Sprintf("it is of offsets from %d on, which %s has up to %d: one of them does not belong there", m.First, was.Path, was.Next-1), Do: restore})
		case m.m.Prev != was.sum:
			a.find(Finding{Kind: "manifest_changed", Where: was.Path, What: fmt.Sprintf("its sha256 is %s, and the manifest after it, %s, says %s: one of them was changed", was.sum, m.Path, cmp.Or(m.m.Prev, "that there is none")), Do: restore})
		}
	}
	if len(a.o.Keys) > 0 && !signing && len(c.all) > 0 {
		a.find(Finding{Kind: "manifest_unsigned", Where: c.head().Path, What: fmt.Sprintf("no manifest of %s is signed", c.tp), Do: "set archiver.sign_key_file, or look who took the signatures away"})
	}
	return a.checkHead(c)
}

// checkSignature lets manifests of before the first signature pass: those that are signed hold the hashes of them.
func (a *auditor) checkSignature(c *chain, m *manifest, signing *bool) {
	switch {
	case m.signature == nil:
		if !*signing && m.m != nil {
			*signing = true
			if t, ok := a.signed[c.tp.Topic]; !ok || m.m.Created.Before(t) {
				a.signed[c.tp.Topic] = m.m.Created
			}
		}
	case !errors.Is(m.signature, archive.ErrUnsigned):
		a.find(Finding{Kind: "manifest_signature", Where: m.Path, What: m.signature.Error(), Do: restore})
	case *signing:
		a.find(Finding{Kind: "manifest_unsigned", Where: m.Path, What: "it has no signature, and manifests before it have one", Do: restore})
	}
}

// checkHead looks for the interval state beside the last manifest. When a commit follows, that of the one before is removed: so it is gone where
// manifests were cut off the end.
func (a *auditor) checkHead(c *chain) error {
	h := c.head()
	if h == nil || h.m == nil {
		return nil
	}
	data, err := a.s.ReadFile(h.m.Seen.Path)
	if errors.Is(err, fs.ErrNotExist) {
		newer, err := archive.Manifests(a.s, c.tp, h.m.Created.Add(-time.Nanosecond))
		if err != nil {
			return err
		}
		if len(newer) > 0 && newer[len(newer)-1].Next > h.Next {
			return nil // the archiver goes on meanwhile
		}
		a.find(Finding{Kind: "chain_cut", Where: h.Path, What: fmt.Sprintf("the interval state %s of the last manifest is gone, as after a commit that followed it: manifests from offset %d on were removed, or the state was", h.m.Seen.Path, h.Next), Do: restore})
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", h.m.Seen.Path, err)
	}
	if archive.Digest(data) != h.m.Seen.SHA256 {
		a.find(Finding{Kind: "state_changed", Where: h.m.Seen.Path, What: fmt.Sprintf("its sha256 is %s, and %s says %s", archive.Digest(data), h.Path, h.m.Seen.SHA256), Do: "restore it from a copy; the archiver will not start on it"})
	}
	return nil
}

// readCompactions puts merged files in the place of those that they replace, hour by hour.
func (a *auditor) readCompactions(ctx context.Context) error {
	type hourOf struct {
		topic string
		hour  time.Time
	}
	byHour := map[hourOf]map[string]*file{}
	for tp, c := range a.chains {
		for _, m := range c.all {
			if m.m == nil {
				continue
			}
			m.whole = true
			for _, f := range m.m.Files {
				p := archive.Place{File: f, Topic: tp.Topic, Listed: m.Path}
				if !overlaps(a.o.Scope, f.MinTime, f.MaxTime) {
					m.whole = false
				}
				if !overlaps(a.wide, f.MinTime, f.MaxTime) {
					continue
				}
				k := hourOf{tp.Topic, p.Hour().UTC()}
				if byHour[k] == nil {
					byHour[k] = map[string]*file{}
				}
				a.listed[f.Path] = &file{Place: p, of: []*manifest{m}}
				byHour[k][f.Path] = a.listed[f.Path]
			}
			for name, s := range m.m.Sources {
				src := a.source(strings.Clone(name))
				src.tp = tp
				for _, r := range s.Ranges {
					src.cover.Add(0, r)
				}
			}
		}
	}
	for _, topic := range a.topics {
		records, err := a.records(topic)
		if err != nil {
			return err
		}
		for _, r := range records {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			k := hourOf{topic, r.hour}
			if byHour[k] == nil {
				byHour[k] = map[string]*file{}
			}
			a.checkRecord(r, byHour[k])
		}
	}
	for _, files := range byHour {
		for name, f := range files {
			a.live[name] = f
		}
	}
	return nil
}

func overlaps(s archive.Scope, first, last time.Time) bool {
	return (s.Since.IsZero() || !last.Before(s.Since)) && (s.Until.IsZero() || first.Before(s.Until))
}

// record is one compaction record.
type record struct {
	name string
	hour time.Time
	sum  string
	c    *archive.Compaction // nil: it cannot be read
	err  error
	last *record // of the same hour
	sig  error
}

// records reads a topic's compaction records of the range, by hour and number.
func (a *auditor) records(topic string) (all []*record, err error) {
	err = a.eachHour(path.Join(archive.CompactionDir, topic), func(dir string, hour time.Time) error {
		var last *record
		return a.eachRecord(dir, func(name string, data []byte, sig error) {
			r := &record{name: name, hour: hour, last: last, sum: archive.Digest(data), sig: sig}
			r.c, r.err = archive.ParseCompaction(data, name)
			all, last = append(all, r), r
			a.rep.Records++
		})
	})
	return all, err
}

// eachRecord calls fn with the records of a folder in their order, and what archive.Verify says of each.
func (a *auditor) eachRecord(dir string, fn func(name string, data []byte, sig error)) error {
	entries, err := a.s.List(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, e := range entries {
		if e.Dir || !strings.HasSuffix(e.Name, ".json") {
			continue
		}
		name := path.Join(dir, e.Name)
		data, err := a.s.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read record %s: %w", name, err)
		}
		var sig error
		if len(a.o.Keys) > 0 {
			sig = archive.Verify(data, a.o.Keys)
		}
		fn(name, data, sig)
	}
	return nil
}

// checkRecord checks one compaction record against what it replaces, and applies it as readers do.
func (a *auditor) checkRecord(r *record, files map[string]*file) {
	forged := func(format string, args ...any) {
		a.find(Finding{Kind: "compaction_forged", Where: r.name, What: fmt.Sprintf(format, args...), Do: "restore the record, and the files that it replaces, from a copy; readers take the merged files for what they replace"})
	}
	if r.err != nil {
		forged("the compaction record cannot be read: %v", r.err)
		return
	}
	since, signing := a.signed[r.c.Topic]
	if r.sig != nil && (!errors.Is(r.sig, archive.ErrUnsigned) || signing && !(r.c.Created.Before(since) && r.hour.Before(since))) {
		forged("the record: %v", r.sig)
	}
	n, prev := 1, ""
	if r.last != nil {
		prev = r.last.sum
		if n = 0; r.last.c != nil {
			n = r.last.c.N + 1
		}
	}
	if n > 0 && r.c.N != n || r.c.Prev != prev {
		forged("it has the number %d and names a record of sha256 %q before it; there is number %d of %q: a record of the hour was changed or removed", r.c.N, r.c.Prev, n-1, prev)
	}
	var rows int64
	var content archive.Content
	known := true
	var of []*manifest
	for _, old := range r.c.Replaces {
		f := files[old.Path]
		switch {
		case f == nil:
			forged("it replaces %s, which no manifest and no earlier record lists (a record whose clock ran more than %s ahead may be of an earlier manifest: then audit since an earlier time)", old.Path, archive.Ahead)
			continue
		case f.SHA256 != old.SHA256 || f.Rows != old.Rows:
			forged("it replaces %s of sha256 %s with %d rows, and %s lists it with %s and %d", old.Path, old.SHA256, old.Rows, f.Listed, f.SHA256, f.Rows)
		}
		rows += f.Rows
		content.Add(f.Content)
		known = known && f.Content != archive.Content{}
		of = append(of, f.of...)
		delete(files, old.Path)
		delete(a.there, old.Path) // it may be there until the compaction is finished
	}
	var merged int64
	var got archive.Content
	for _, f := range r.c.Files {
		merged += f.Rows
		got.Add(f.Content)
		a.listed[f.Path] = &file{Place: archive.Place{File: f, Topic: r.c.Topic, Listed: r.name}, of: unique(of), merged: true}
		files[f.Path] = a.listed[f.Path]
	}
	switch {
	case merged != rows:
		forged("its files have %d rows, and those that they replace %d", merged, rows)
	case known && got != content:
		forged("the content of its files is %s, and that of those that they replace %s: other records", got, content)
	}
}

func unique(all []*manifest) []*manifest {
	slices.SortFunc(all, func(a, b *manifest) int { return cmp.Compare(a.Path, b.Path) })
	return slices.Compact(all)
}

// eachHour calls fn with the folders of hours of the range below a topic's folder.
func (a *auditor) eachHour(base string, fn func(dir string, hour time.Time) error) error {
	return a.eachDay(base, func(dir string, day time.Time) error {
		hours, err := a.s.List(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have expired just now
			return fmt.Errorf("list %s: %w", dir, err)
		}
		for _, h := range hours {
			at, ok := archive.ParseHourDir(h.Name)
			if hour := day.Add(at); ok && overlaps(a.wide, hour, hour.Add(time.Hour-1)) {
				if err := fn(path.Join(dir, h.Name), hour); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// eachDay calls fn with the folders of days of the range below a topic's folder.
func (a *auditor) eachDay(base string, fn func(dir string, day time.Time) error) error {
	days, err := a.s.List(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list %s: %w", base, err)
	}
	for _, d := range days {
		day, ok := archive.ParseDayDir(d.Name)
		if !ok || !overlaps(a.wide, day, day.Add(24*time.Hour-1)) {
			continue
		}
		if err := fn(path.Join(base, d.Name), day); err != nil {
			return err
		}
	}
	return nil
}
