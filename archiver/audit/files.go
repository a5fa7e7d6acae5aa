package audit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/bits"
	"path"
	"slices"
	"strings"
	"time"

	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
	"weir/schema"
)

// file is a file that holds records.
type file struct {
	archive.Place
	of      []*manifest // whose rows it holds
	merged  bool
	bad     bool // it has its finding, and its rows count as missing
	special bool // it holds loss records or gap events
}

// set is a number of records and the sum of their ids' hashes: two sets are the same where both are.
type set struct {
	n   int64
	sum [2]uint64
}

func (s *set) add(id []byte) {
	h := sha256.Sum256(id)
	var carry uint64
	s.sum[0], carry = bits.Add64(s.sum[0], binary.LittleEndian.Uint64(h[:8]), 0)
	s.sum[1], _ = bits.Add64(s.sum[1], binary.LittleEndian.Uint64(h[8:16]), carry)
	s.n++
}

// slim is what is read of every row.
type slim struct {
	TimestampNS    int64  `parquet:"timestamp_ns,delta"`
	ObservedNS     int64  `parquet:"observed_ns,delta"`
	ID             string `parquet:"id"`
	Source         string `parquet:"source,dict"`
	Incarnation    string `parquet:"incarnation,dict"`
	Offset         int64  `parquet:"offset,delta"`
	Topic          string `parquet:"topic,dict"`
	KafkaPartition int32  `parquet:"kafka_partition"`
	KafkaOffset    int64  `parquet:"kafka_offset,delta"`
	App            string `parquet:"app,dict"`
	ContainerID    string `parquet:"container_id,dict"`
	EventName      string `parquet:"event_name,dict"`
}

func (r *slim) time() int64 {
	return archive.EventTime(&schema.Record{Time: r.TimestampNS, Observed: r.ObservedNS})
}

func slimOf(r *archive.Row) slim {
	return slim{r.TimestampNS, r.ObservedNS, r.ID, r.Source, r.Incarnation, r.Offset, r.Topic, r.KafkaPartition, r.KafkaOffset, r.App, r.ContainerID, r.EventName}
}

func (a *auditor) listFolders(context.Context) error {
	for _, topic := range a.topics {
		a.progress("folders of %s", topic)
		err := a.eachHour(topic, func(dir string, _ time.Time) error {
			entries, err := a.s.List(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have expired just now
				return fmt.Errorf("list %s: %w", dir, err)
			}
			for _, e := range entries {
				if !e.Dir && !strings.HasPrefix(e.Name, "_") && !strings.HasPrefix(e.Name, ".") {
					a.there[path.Join(dir, e.Name)] = e.Size
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reading lists the files to be read, by path.
func (a *auditor) reading() []*file {
	return slices.SortedFunc(func(yield func(*file) bool) {
		for f := range maps.Values(a.live) {
			if overlaps(a.o.Scope, f.MinTime, f.MaxTime) && !yield(f) {
				return
			}
		}
	}, func(x, y *file) int { return cmp.Compare(x.Path, y.Path) })
}

func (a *auditor) readFiles(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(a.there)) {
		if a.live[name] == nil {
			a.strayed(name)
		}
	}
	files := a.reading()
	for i, f := range files {
		if i%100 == 0 {
			a.progress("files: %d of %d", i, len(files))
		}
		if err := a.readFile(ctx, f); err != nil {
			return err
		}
		a.rep.Files++
		a.rep.Bytes += f.Bytes
		if f.bad {
			for _, m := range f.of {
				m.trouble = true
			}
		}
	}
	return nil
}

// strayed tells of a file that nothing lists. Its name may tell where it came from.
func (a *auditor) strayed(name string) {
	what := "no manifest and no compaction record lists it, and who lists the folder reads it"
	for tp, c := range a.chains {
		var partition int
		var first int64
		if n, _ := fmt.Sscanf(path.Base(name), "p%d-%d-", &partition, &first); n == 2 && partition == tp.Partition && strings.HasPrefix(name, tp.Topic+"/") && c.of(first) == nil {
			what += fmt.Sprintf("; by its name it is of offset %d of %s, of which the manifest is missing", first, tp)
		}
	}
	a.find(Finding{Kind: "file_unlisted", Where: name, What: what, Do: "restore the manifest or the record that lists it, or move the file away"})
}

// readFile checks a file and counts its rows.
func (a *auditor) readFile(ctx context.Context, f *file) error {
	const mend = "restore it from a copy, or archive its offsets again from Kafka while it has them"
	r, size, err := a.open(f)
	if errors.Is(err, fs.ErrNotExist) {
		if again, err := a.gone(ctx, f); err != nil || again {
			return errors.Join(err, fmt.Errorf("%s was compacted or has expired while the audit ran; run it again", f.Path))
		}
		f.bad = true
		a.find(Finding{Kind: "file_missing", Where: f.Path, Records: f.Rows, What: fmt.Sprintf("it is gone, and not at %s either; %s lists it with %d rows and sha256 %s", f.Tmp, f.Listed, f.Rows, f.SHA256), Do: mend})
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	changed := func(format string, args ...any) {
		f.bad = true
		a.find(Finding{Kind: "file_changed", Where: f.Path, Records: f.Rows, What: fmt.Sprintf(format, args...), Do: mend})
	}
	if size != f.Bytes {
		changed("it has %d bytes, and %s says %d", size, f.Listed, f.Bytes)
		return nil
	}
	if a.o.Deep {
		sum, err := archive.DigestReader(r, f.Bytes)
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Path, err)
		}
		if sum != f.SHA256 {
			changed("its sha256 is %s, and %s says %s", sum, f.Listed, f.SHA256)
			return nil
		}
	}
	rows, content, err := a.readRows(ctx, r, f)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && a.o.Deep: // the hash is right, so it was the reading that failed, or it never was a good file
		return fmt.Errorf("read %s, the sha256 of which is right: %w", f.Path, err)
	case err != nil:
		changed("it cannot be read: %v", err)
	case rows != f.Rows:
		changed("it has %d rows, and %s says %d", rows, f.Listed, f.Rows)
	case content != archive.Content{} && f.Content != archive.Content{} && content != f.Content:
		changed("the content of its rows is %s, and %s says %s", content, f.Listed, f.Content)
	}
	return nil
}

// open opens a file at its place or at its temporary one, and tells its size.
func (a *auditor) open(f *file) (store.Reader, int64, error) {
	for _, name := range []string{f.Path, f.Tmp, f.Path} {
		e, err := a.s.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("stat %s: %w", name, err)
		}
		r, err := a.s.Open(name)
		if err == nil {
			return r, e.Size, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, 0, fmt.Errorf("open %s: %w", name, err)
		}
	}
	return nil, 0, fs.ErrNotExist
}

// gone tells whether a compaction or an expiry that came meanwhile has taken a file away.
func (a *auditor) gone(ctx context.Context, f *file) (bool, error) {
	scope := archive.Scope{Since: f.MinTime, Until: f.MinTime.Add(1)}
	places := []archive.Place{f.Place}
	if compactions, err := archive.Compactions(ctx, a.s, f.Topic, scope); err == nil { // else it has its finding
		places = archive.Resolve(places, compactions)
	}
	if !slices.ContainsFunc(places, func(p archive.Place) bool { return p.Path == f.Path }) {
		return true, nil
	}
	expiries, err := archive.Expiries(ctx, a.s, f.Topic, scope)
	if err != nil {
		return false, nil // as above
	}
	return archive.Covers(slices.DeleteFunc(expiries, func(e *archive.Expiry) bool { return a.expiries[e.Name()] }), &f.File), nil
}

// readRows counts a file's rows. The content is given where the file is a merged one: the manifests vouch for it, not for its bytes.
func (a *auditor) readRows(ctx context.Context, r io.ReaderAt, f *file) (rows int64, content archive.Content, err error) {
	if !f.merged || !a.o.Deep {
		err = archive.EachRow(r, f.Bytes, func(some []slim) error {
			rows += int64(len(some))
			for i := range some {
				a.row(f, &some[i])
			}
			return ctx.Err()
		})
	} else {
		var sum archive.Summer
		err = archive.EachRow(r, f.Bytes, func(some []archive.Row) error {
			rows += int64(len(some))
			for i := range some {
				sum.Add(&some[i])
				s := slimOf(&some[i])
				a.row(f, &s)
			}
			return ctx.Err()
		})
		content = sum.Sum
	}
	if err == nil && f.special {
		err = a.readSpecial(ctx, r, f.Bytes)
	}
	return rows, content, err
}

// row counts one row for its manifest, its source and its hour.
func (a *auditor) row(f *file, r *slim) {
	tp := ingest.TopicPartition{Topic: r.Topic, Partition: int(r.KafkaPartition)}
	c := a.chains[tp]
	src := a.source(r.Source)
	src.tp = tp
	src.app, src.container = cmp.Or(r.App, src.app), cmp.Or(r.ContainerID, src.container)
	inc, err := schema.ParseIncarnation(r.Incarnation)
	place := schema.Position{Incarnation: inc, Offset: r.Offset}
	id := schema.AppendID(nil, src.hash, place)
	var m *manifest
	if c != nil {
		m = c.of(r.KafkaOffset)
	}
	if m == nil || m.m == nil {
		m = f.of[0] // where the manifest is missing, that has its finding
	}
	if m.rows == nil {
		m.rows, m.strange = map[string]int64{}, map[string]int64{}
	}
	if err != nil || string(id) != r.ID || m.m != nil && !covered(m.m.Sources[r.Source].Ranges, place) {
		m.strange[src.name]++
		return
	}
	m.rows[src.name]++
	if r.EventName == schema.EventLoss || r.EventName == schema.EventGapOpened {
		f.special = true
	}
	at := r.time()
	if !a.inRange(at) || !strings.HasPrefix(r.ContainerID, a.o.Container) {
		return
	}
	src.archived++
	if c != nil && c.asked && r.KafkaOffset >= c.start && !c.expired(r.KafkaOffset, at) {
		src.recent.add(id)
	} else {
		src.before++
	}
	if a.o.Index != nil && (c == nil || !c.asked || r.KafkaOffset < c.indexed) {
		src.hour(at).archived++
	}
}

// covered tells whether a position lies within ranges, which are sorted.
func covered(ranges []archive.Range, p schema.Position) bool {
	at, found := slices.BinarySearchFunc(ranges, p, func(r archive.Range, p schema.Position) int {
		if c := r.Incarnation.Compare(p.Incarnation); c != 0 {
			return c
		}
		switch {
		case r.To <= p.Offset:
			return -1
		case r.From > p.Offset:
			return 1
		}
		return 0
	})
	return found && at < len(ranges)
}

// checkRows compares the rows that were found with what each manifest says that it holds.
func (a *auditor) checkRows(context.Context) error {
	for _, topic := range a.topics {
		partitions, err := a.partitions(topic)
		if err != nil {
			return err
		}
		for _, tp := range partitions {
			for _, m := range a.chain(tp).all {
				a.checkManifestRows(m)
			}
		}
	}
	return nil
}

func (a *auditor) checkManifestRows(m *manifest) {
	for name, n := range m.strange {
		a.find(Finding{Kind: "rows_forged", Where: m.Path, Source: name, Records: n, What: fmt.Sprintf("files hold %d rows that the manifest does not tell of, or the ids of which are not those of their places", n), Do: "find out who wrote them, and restore the files from a copy"})
	}
	if m.m == nil || !m.whole {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m.m.Sources)) {
		missing := m.m.Sources[name].Records - m.rows[name]
		if missing > 0 {
			a.source(name).notInFiles += missing
		}
		if missing != 0 && !m.trouble {
			a.find(Finding{Kind: "rows_differ", Where: m.Path, Source: name, Records: max(missing, -missing), What: fmt.Sprintf("it says %d records, and its files hold %d", m.m.Sources[name].Records, m.rows[name]), Do: restore})
		}
	}
}
