package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/archiver/store"
	"weir/ingest"
)

// Scope is what of an archive is looked at.
type Scope struct {
	Topics       []string  // none: all there are
	Since, Until time.Time // of event time, Until excluded; zero: no bound
}

// Ahead is how far event times may be ahead of the archiver's clock. Manifests that were made longer than this before Since are
// not read; a record that claims to be of a later time than that is found without Since alone.
const Ahead = 24 * time.Hour

// Place is one file of a snapshot. Its rows are there at Path, else at Tmp.
type Place struct {
	File
	Topic  string
	Listed string // the manifest or compaction record that lists it
}

// Hour is the hour of event time that all rows of the file are of.
func (p *Place) Hour() time.Time { return p.MinTime.Truncate(time.Hour) }

// Open opens the file. It matches fs.ErrNotExist where the file is gone: a compaction may have replaced it since the snapshot, or it
// expired (Compactions and Expiries tell), or somebody deleted it.
func (p *Place) Open(s store.Store) (store.Reader, error) {
	var err error
	// At its place again after its temporary name: it may have been settled between the two.
	for _, name := range []string{p.Path, p.Tmp, p.Path} {
		var r store.Reader
		if r, err = s.Open(name); err == nil {
			return r, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
	}
	return nil, fmt.Errorf("%s lists %s, which is neither there nor at %s: %w", p.Listed, p.Path, p.Tmp, err)
}

// Snapshot lists the files that hold the archive's records of a scope, each record once, as of a moment. An archiver and a
// compaction may work meanwhile. What is listed are whole files, whose other rows the caller passes over.
//
// Manifests are read before compaction records: a file that is replaced in between is then known to be, while the files of
// a manifest that comes in between are missing with all of their rows or, merged, there with all of them. Expiry records come last.
func Snapshot(ctx context.Context, s store.Store, scope Scope) ([]Place, error) {
	l, err := List(ctx, s, scope)
	if err != nil {
		return nil, err
	}
	return l.Places, nil
}

// Listing is a snapshot, with how much there is that the scope passes over.
type Listing struct {
	Places  []Place
	Files   int // of all manifests and compaction records that were read, without those that were replaced or expired
	Bytes   int64
	Expired int // of the scope's days, on the record
}

// List is Snapshot for those who also tell what was passed over.
func List(ctx context.Context, s store.Store, scope Scope) (*Listing, error) {
	topics := scope.Topics
	if len(topics) == 0 {
		var err error
		if topics, err = Topics(s); err != nil {
			return nil, err
		}
	}
	l := &Listing{}
	for _, topic := range topics {
		listed, err := manifested(ctx, s, topic, scope)
		if err != nil {
			return nil, err
		}
		records, err := ReadRecords(ctx, s, topic, scope)
		if err != nil {
			return nil, err
		}
		left, expired := records.Living(listed)
		l.Expired += expired
		l.Places = append(l.Places, left...)
	}
	l.Places = slices.DeleteFunc(l.Places, func(p Place) bool {
		l.Files++
		l.Bytes += p.Bytes
		return !scope.overlaps(p.MinTime, p.MaxTime)
	})
	slices.SortFunc(l.Places, func(a, b Place) int {
		return cmp.Or(a.MinTime.Compare(b.MinTime), cmp.Compare(a.Path, b.Path))
	})
	return l, nil
}

// overlaps tells whether something from first to last, both included, has a part in the scope.
func (s *Scope) overlaps(first, last time.Time) bool {
	return (s.Since.IsZero() || !last.Before(s.Since)) && (s.Until.IsZero() || first.Before(s.Until))
}

// Records are what says which of the files that manifests list still hold.
type Records struct {
	Compactions []*Compaction
	Expiries    []*Expiry
}

// ReadRecords reads a topic's records of a scope, compactions first: what a compaction has merged may expire in between.
func ReadRecords(ctx context.Context, s store.Store, topic string, scope Scope) (r Records, err error) {
	if r.Compactions, err = Compactions(ctx, s, topic, scope); err == nil {
		r.Expiries, err = Expiries(ctx, s, topic, scope)
	}
	return r, err
}

// Living puts merged files in the place of those that they replace, and leaves out what has expired, which it counts.
func (r *Records) Living(listed []Place) (left []Place, expired int) {
	all := Resolve(listed, r.Compactions)
	left = Unexpired(all, r.Expiries)
	return left, len(all) - len(left)
}

// Resolve puts merged files in the place of those that they replace.
func Resolve(listed []Place, compactions []*Compaction) []Place {
	replaced := map[string]bool{}
	all := slices.Clone(listed)
	for _, c := range compactions {
		for _, r := range c.Replaces {
			replaced[r.Path] = true
		}
		for _, f := range c.Files {
			all = append(all, Place{File: f, Topic: c.Topic, Listed: c.Name()})
		}
	}
	return slices.DeleteFunc(all, func(p Place) bool { return replaced[p.Path] })
}

// Topics lists the topics that the archive has manifests of.
func Topics(s store.Store) ([]string, error) {
	dirs, err := folders(s, ManifestDir)
	if err != nil {
		return nil, err
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("there is no archive: no folder in %s", ManifestDir)
	}
	return dirs, nil
}

// Partitions lists the partitions of a topic that the archive has manifests of.
func Partitions(s store.Store, topic string) ([]ingest.TopicPartition, error) {
	dir := path.Join(ManifestDir, topic)
	names, err := folders(s, dir)
	if err != nil {
		return nil, err
	}
	var all []ingest.TopicPartition
	for _, name := range names {
		n, err := strconv.Atoi(name)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s is not the folder of a partition; move it away", path.Join(dir, name))
		}
		all = append(all, ingest.TopicPartition{Topic: topic, Partition: n})
	}
	slices.SortFunc(all, func(a, b ingest.TopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
	return all, nil
}

// ManifestName is a manifest's place, as far as a listing tells.
type ManifestName struct {
	ingest.TopicPartition
	Span
	Path string
}

// Read reads the manifest, and its bytes as they are in the store.
func (n *ManifestName) Read(s store.Store) (*Manifest, []byte, error) {
	data, err := s.ReadFile(n.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest %s: %w", n.Path, err)
	}
	m, err := ParseManifest(data, n.TopicPartition, n.Span)
	if err != nil {
		return nil, nil, fmt.Errorf("manifest %s: %w", n.Path, err)
	}
	return m, data, nil
}

// Manifests lists a partition's manifests by their offsets, without those of days before since.
func Manifests(s store.Store, tp ingest.TopicPartition, since time.Time) ([]ManifestName, error) {
	days, err := manifestDays(s, tp)
	if err != nil {
		return nil, err
	}
	var all []ManifestName
	for _, day := range days {
		if !since.IsZero() && !day.AddDate(0, 0, 1).After(since) {
			continue
		}
		of, err := manifestsOf(s, tp, day)
		if err != nil {
			return nil, err
		}
		all = append(all, of...)
	}
	return all, nil
}

// manifestDays lists the days on which a partition's manifests were made.
func manifestDays(s store.Store, tp ingest.TopicPartition) ([]time.Time, error) {
	dir := PartitionDir(ManifestDir, tp)
	entries, err := s.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var days []time.Time
	for _, e := range entries {
		if _, rest, ok := ParseSpan(e.Name); ok && rest == ".json" {
			return nil, fmt.Errorf("%s is a manifest of an older weir, which kept no folders of days", path.Join(dir, e.Name))
		}
		if !e.Dir {
			continue
		}
		day, ok := ParseDay(e.Name)
		if !ok {
			return nil, fmt.Errorf("%s is not the folder of a day; move it away", path.Join(dir, e.Name))
		}
		days = append(days, day)
	}
	return days, nil
}

// manifestsOf lists the manifests of one day by their offsets.
func manifestsOf(s store.Store, tp ingest.TopicPartition, day time.Time) ([]ManifestName, error) {
	dir := path.Join(PartitionDir(ManifestDir, tp), ManifestDay(day))
	entries, err := s.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var all []ManifestName
	for _, e := range entries {
		if span, rest, ok := ParseSpan(e.Name); ok && rest == ".json" && !e.Dir {
			all = append(all, ManifestName{tp, span, path.Join(dir, e.Name)})
		}
	}
	slices.SortFunc(all, func(a, b ManifestName) int { return cmp.Compare(a.First, b.First) })
	return all, nil
}

// atOnce is how many small files are read at once: over a network most of the time is waiting.
const atOnce = 8

// manifested lists the files of those of a topic's manifests that may have something of the scope.
//
// Of days long after Until, which hold little of it but very many manifests, only those are read that list a file which is in the folders of
// the scope's hours, and the newest, whose files may not be in their places yet.
func manifested(ctx context.Context, s store.Store, topic string, scope Scope) ([]Place, error) {
	partitions, err := Partitions(s, topic)
	if err != nil {
		return nil, err
	}
	var since time.Time
	if !scope.Since.IsZero() {
		since = scope.Since.Add(-Ahead)
	}
	var near []ManifestName
	later := map[int]*laterDays{}
	for _, tp := range partitions {
		days, err := manifestDays(s, tp)
		if err != nil {
			return nil, err
		}
		l := &laterDays{store: s, tp: tp, listed: map[time.Time][]ManifestName{}}
		for i, day := range days {
			switch {
			case !since.IsZero() && !day.AddDate(0, 0, 1).After(since):
				continue
			case !scope.Since.IsZero() && !scope.Until.IsZero() && day.After(scope.Until.Add(Ahead)):
				if l.days = append(l.days, day); i < len(days)-1 {
					continue
				}
			}
			of, err := manifestsOf(s, tp, day)
			if err != nil {
				return nil, err
			}
			if len(l.days) > 0 { // the newest of all
				of = of[max(0, len(of)-1):]
			}
			near = append(near, of...)
		}
		if len(l.days) > 0 {
			later[tp.Partition] = l
		}
	}
	places, err := readManifests(ctx, s, near)
	if err != nil || len(later) == 0 {
		return places, err
	}
	late, err := lateManifests(ctx, s, topic, scope, places, later)
	if err != nil {
		return nil, err
	}
	more, err := readManifests(ctx, s, late)
	return append(places, more...), err
}

// laterDays are days of one partition whose manifests are looked up one by one.
type laterDays struct {
	store  store.Store
	tp     ingest.TopicPartition
	days   []time.Time
	listed map[time.Time][]ManifestName
}

func (l *laterDays) of(day time.Time) ([]ManifestName, error) {
	if all, ok := l.listed[day]; ok {
		return all, nil
	}
	all, err := manifestsOf(l.store, l.tp, day)
	l.listed[day] = all
	return all, err
}

// find finds the manifest that an offset is of. Manifests of later days have later offsets.
func (l *laterDays) find(offset int64) (found ManifestName, ok bool, err error) {
	days := l.days
	for len(days) > 0 {
		middle := len(days) / 2
		all, err := l.of(days[middle])
		if err != nil {
			return found, false, err
		}
		switch {
		case len(all) == 0: // a crash came between the folder and its first manifest
			days = slices.Concat(days[:middle], days[middle+1:])
		case offset < all[0].First:
			days = days[:middle]
		case offset >= all[len(all)-1].Next:
			days = days[middle+1:]
		default:
			i := slices.IndexFunc(all, func(n ManifestName) bool { return offset >= n.First && offset < n.Next })
			if i < 0 {
				return found, false, nil
			}
			return all[i], true, nil
		}
	}
	return found, false, nil
}

// lateManifests finds the manifests of files in the folders of the scope's hours that none of those that were read lists.
func lateManifests(ctx context.Context, s store.Store, topic string, scope Scope, known []Place, later map[int]*laterDays) ([]ManifestName, error) {
	listed := map[string]bool{}
	for i := range known {
		listed[known[i].Path] = true
	}
	found := map[string]ManifestName{}
	for hour := scope.Since.Truncate(time.Hour); hour.Before(scope.Until); hour = hour.Add(time.Hour) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dir := HourDir("", topic, hour)
		entries, err := s.List(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		for _, e := range entries {
			var partition, n int
			var first, last int64
			if _, err := fmt.Sscanf(e.Name, "p%d-%d-%d-%d.parquet", &partition, &first, &last, &n); err != nil || listed[path.Join(dir, e.Name)] || later[partition] == nil {
				continue
			}
			name, ok, err := later[partition].find(first)
			if err != nil {
				return nil, err
			}
			if ok {
				found[name.Path] = name
			}
		}
	}
	for i := range known { // the newest was read already
		delete(found, known[i].Listed)
	}
	return slices.Collect(maps.Values(found)), nil
}

// OfDay lists what the folders of a day hold of the files that manifests and compaction records list, whenever those were made, without what
// is replaced or expired, and the records that say so. Files that are not in their places may be in it or not.
func OfDay(ctx context.Context, s store.Store, topic string, day time.Time) (places []Place, records Records, err error) {
	partitions, err := Partitions(s, topic)
	if err != nil {
		return nil, records, err
	}
	all := map[int]*laterDays{}
	for _, tp := range partitions {
		days, err := manifestDays(s, tp)
		if err != nil {
			return nil, records, err
		}
		all[tp.Partition] = &laterDays{store: s, tp: tp, days: days, listed: map[time.Time][]ManifestName{}}
	}
	scope := Scope{Since: day, Until: day.AddDate(0, 0, 1)}
	names, err := lateManifests(ctx, s, topic, scope, nil, all)
	if err != nil {
		return nil, records, err
	}
	listed, err := readManifests(ctx, s, names)
	if err != nil {
		return nil, records, err
	}
	if records, err = ReadRecords(ctx, s, topic, scope); err != nil {
		return nil, records, err
	}
	places, _ = records.Living(listed)
	places = slices.DeleteFunc(places, func(p Place) bool { return !scope.overlaps(p.MinTime, p.MaxTime) })
	slices.SortFunc(places, func(a, b Place) int { return cmp.Compare(a.Path, b.Path) })
	return places, records, nil
}

// readManifests reads manifests, several at once, and lists their files.
func readManifests(ctx context.Context, s store.Store, names []ManifestName) ([]Place, error) {
	var mu sync.Mutex
	var places []Place
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range names {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m, _, err := names[i].Read(s)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, f := range m.Files {
				places = append(places, Place{File: f, Topic: m.Topic, Listed: names[i].Path})
			}
			return nil
		})
	}
	return places, g.Wait()
}

// Compactions reads the compaction records of a topic's hours that overlap the scope.
func Compactions(ctx context.Context, s store.Store, topic string, scope Scope) ([]*Compaction, error) {
	var mu sync.Mutex
	var all []*Compaction
	err := eachDay(ctx, s, path.Join(CompactionDir, topic), scope, func(ctx context.Context, dir string, day time.Time) error {
		hours, err := folders(s, dir)
		if err != nil {
			return err
		}
		for _, h := range hours {
			at, ok := ParseHourDir(h)
			if !ok || !scope.overlaps(day.Add(at), day.Add(at+time.Hour-1)) {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			of, err := records(s, path.Join(dir, h), "compaction", ParseCompaction)
			if err != nil {
				return err
			}
			mu.Lock()
			all = append(all, of...)
			mu.Unlock()
		}
		return nil
	})
	slices.SortFunc(all, func(a, b *Compaction) int { return cmp.Or(a.Hour.Compare(b.Hour), cmp.Compare(a.N, b.N)) })
	return all, err
}

// Expiries reads the expiry records of a topic's days that overlap the scope.
func Expiries(ctx context.Context, s store.Store, topic string, scope Scope) ([]*Expiry, error) {
	var mu sync.Mutex
	var all []*Expiry
	err := eachDay(ctx, s, path.Join(ExpiryDir, topic), scope, func(_ context.Context, dir string, _ time.Time) error {
		of, err := records(s, dir, "expiry", ParseExpiry)
		mu.Lock()
		all = append(all, of...)
		mu.Unlock()
		return err
	})
	slices.SortFunc(all, func(a, b *Expiry) int { return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.N, b.N)) })
	return all, err
}

// eachDay calls fn with the folders of days below a topic's folder that overlap the scope, several at once.
func eachDay(ctx context.Context, s store.Store, base string, scope Scope, fn func(ctx context.Context, dir string, day time.Time) error) error {
	days, err := folders(s, base)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, name := range days {
		day, ok := ParseDayDir(name)
		if !ok || !scope.overlaps(day, day.Add(24*time.Hour-1)) {
			continue
		}
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fn(ctx, path.Join(base, name), day)
		})
	}
	return g.Wait()
}

// records reads all records of a folder.
func records[T any](s store.Store, dir, kind string, parse func(data []byte, name string) (T, error)) ([]T, error) {
	entries, err := s.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var all []T
	for _, e := range entries {
		if e.Dir || !strings.HasSuffix(e.Name, ".json") {
			continue
		}
		name := path.Join(dir, e.Name)
		data, err := s.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read %s record %s: %w", kind, name, err)
		}
		r, err := parse(data, name)
		if err != nil {
			return nil, fmt.Errorf("%s record %s: %w", kind, name, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// folders lists the names of the folders in one, none where it is not there.
func folders(s store.Store, dir string) ([]string, error) {
	entries, err := s.List(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var names []string
	for _, e := range entries {
		if e.Dir {
			names = append(names, e.Name)
		}
	}
	return names, nil
}
