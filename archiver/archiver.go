// Package archiver keeps every record for good, as Parquet files in a local folder or in HDFS that Spark reads.
//
// It is an ingest.Sink with its own commit: what is archived and how far it goes become durable in one rename, so each
// record is in the archive exactly once whatever is killed when. commit.go has the steps, partition.go the fence
// that keeps a second writer of the same partition out.
package archiver

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
)

// Archiver is the sink. It has no goroutines of its own; it may be used by those of many partitions.
type Archiver struct {
	cfg   Config
	log   *slog.Logger
	m     *metrics
	store *store.Watched
	key   ed25519.PrivateKey // nil: manifests are not signed
	// budget is what binds the partitions' memory.
	budget budget
	// hook is called before each step of a commit, by its name, and stops it there with its error. Only tests set it.
	hook func(step string) error
	now  func() time.Time
}

var (
	_ ingest.Sink  = (*Archiver)(nil)
	_ ingest.Pacer = (*partition)(nil)
)

// New checks the configuration. An HDFS root is first contacted by Open.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Archiver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("archiver: %w", err)
	}
	var key ed25519.PrivateKey
	if cfg.SignKeyFile != "" {
		var err error
		if key, err = archive.ReadSignKey(cfg.SignKeyFile); err != nil {
			return nil, fmt.Errorf("archiver: sign_key_file: %w", err)
		}
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("archiver: register metrics: %w", err)
	}
	s, err := store.Watch(cfg.Config, log.With("component", "archiver"), reg)
	if err != nil {
		return nil, fmt.Errorf("archiver: %w", err)
	}
	return &Archiver{
		cfg: cfg, log: log.With("component", "archiver"), m: m, store: s, key: key,
		hook: func(string) error { return nil }, now: time.Now,
	}, nil
}

// Close ends the connections to the store. The partitions must have been closed before.
func (a *Archiver) Close() error { return a.store.Close() }

// Ready says which call to the store fails, since when and why. It asks nothing.
func (a *Archiver) Ready(context.Context) error { return a.store.Health() }

// Open takes a partition over: it shuts out any earlier writer of it, finishes the last commit, removes what belongs to no
// commit, and returns the checkpoint of the last commit, or nil when there was none.
func (a *Archiver) Open(ctx context.Context, tp ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	p, cp, err := a.open(ctx, tp)
	if err != nil {
		a.m.errors.WithLabelValues("open").Inc()
		return nil, nil, fmt.Errorf("archiver: open %s/%d in %s: %w", tp.Topic, tp.Partition, a.cfg.Root, err)
	}
	a.budget.enter(p)
	return p, cp, nil
}

func (a *Archiver) open(ctx context.Context, tp ingest.TopicPartition) (*partition, *ingest.Checkpoint, error) {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails
	p := &partition{
		a: a, tp: tp, owner: hex.EncodeToString(nonce[:]),
		tmp: archive.PartitionDir(archive.TmpDir, tp), manifests: archive.PartitionDir(archive.ManifestDir, tp),
	}
	p.reset()
	p.log = a.log.With("topic", tp.Topic, "partition", tp.Partition)
	// The own folder comes first: of two that open at once, at least the later one then sees the other.
	for _, dir := range []string{p.manifests, p.commitDir()} {
		if err := a.store.MkdirAll(dir); err != nil {
			return nil, nil, fmt.Errorf("make folder %s: %w", dir, err)
		}
	}
	others, err := p.fence()
	if err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	cp, err := p.recover()
	if err != nil {
		return nil, nil, err
	}
	for _, dir := range others {
		if err := store.RemoveTree(a.store, dir); err != nil {
			return nil, nil, err
		}
	}
	return p, cp, nil
}

// fence deletes the commit folders of all other writers of the partition. A manifest becomes a commit by a rename out of
// its writer's commit folder, and writers make that folder only when they open; so from here on only this
// writer can commit, and the newest manifest is final. It returns the folders of the others.
func (p *partition) fence() (others []string, err error) {
	entries, err := p.a.store.List(p.tmp)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", p.tmp, err)
	}
	for _, e := range entries {
		if e.Name == p.owner {
			continue
		}
		dir := path.Join(p.tmp, e.Name)
		if !e.Dir {
			return nil, fmt.Errorf("%s does not belong there; move it away", dir)
		}
		if err := store.RemoveTree(p.a.store, path.Join(dir, "commit")); err != nil {
			return nil, err
		}
		others = append(others, dir)
	}
	return others, nil
}

// recover finds the newest manifest and finishes its commit.
func (p *partition) recover() (*ingest.Checkpoint, error) {
	entries, err := p.a.store.List(p.manifests)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", p.manifests, err)
	}
	var sidecars []store.Entry
	name := ""
	for _, e := range slices.Backward(entries) {
		_, day := archive.ParseDay(e.Name)
		_, rest, span := archive.ParseSpan(e.Name)
		switch {
		case day && e.Dir && name == "":
			if name, err = p.newest(path.Join(p.manifests, e.Name)); err != nil {
				return nil, err
			}
		case day && e.Dir:
		case span && rest != ".json":
			sidecars = append(sidecars, e)
		default:
			return nil, fmt.Errorf("%s does not belong there: is the archive of an older weir? Move it away, or choose another root", path.Join(p.manifests, e.Name))
		}
	}
	if name == "" {
		return nil, nil
	}
	data, err := p.a.store.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", name, err)
	}
	m, err := archive.ParseManifest(data, p.tp, p.last)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", name, err)
	}
	p.prevSum, p.seen, p.created = archive.Digest(data), m.Seen.Path, m.Created
	seen, err := p.readSeen(m, name)
	if err != nil {
		return nil, err
	}
	if err := p.settle(m, name); err != nil {
		return nil, err
	}
	p.dropOlder(sidecars)
	return &ingest.Checkpoint{NextOffset: m.Next, Seen: seen}, nil
}

// newest finds the last manifest of a day's folder. The name is empty when the folder holds none: a crash came between the
// folder and its first manifest.
func (p *partition) newest(dir string) (name string, err error) {
	entries, err := p.a.store.List(dir)
	if err != nil {
		return "", fmt.Errorf("list %s: %w", dir, err)
	}
	for _, e := range entries {
		s, rest, ok := archive.ParseSpan(e.Name)
		if !ok || rest != ".json" {
			return "", fmt.Errorf("%s does not belong there; move it away", path.Join(dir, e.Name))
		}
		if s.Next > p.last.Next { // spans are never empty, so the first one counts too
			p.last, name = s, path.Join(dir, e.Name)
		}
	}
	return name, nil
}

func (p *partition) readSeen(m *archive.Manifest, name string) ([]byte, error) {
	seen, err := p.a.store.ReadFile(m.Seen.Path)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: read the interval state beside it: %w", name, err)
	}
	if int64(len(seen)) != m.Seen.Bytes || archive.Digest(seen) != m.Seen.SHA256 {
		return nil, fmt.Errorf("manifest %s: %s is not the %d bytes that were written; restore it from a copy",
			name, m.Seen.Path, m.Seen.Bytes)
	}
	return seen, nil
}

// dropOlder deletes the sidecars of earlier commits. Later ones may belong to a writer that has fenced this one, so they
// stay. A failure only leaves a file behind.
func (p *partition) dropOlder(sidecars []store.Entry) {
	for _, e := range sidecars {
		if s, _, ok := archive.ParseSpan(e.Name); ok && s.Next < p.last.Next {
			p.discard(path.Join(p.manifests, e.Name))
		}
	}
}

// discard deletes a file that nothing needs any more.
func (p *partition) discard(name string) {
	if err := p.a.store.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.a.m.errors.WithLabelValues("remove").Inc()
		p.log.Warn("a file that is no longer needed was not removed; it does no harm", "file", name, "error", err)
	}
}
