// Package audit tells whether an archive is what was written: its chains of manifests, its files, what Kafka still has, and what
// Elasticsearch has. docs/audit.md says what it finds and what it cannot.
package audit

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
	"weir/schema"
)

// Kafka is what an audit asks of Kafka; *ingest.Kafka is one.
type Kafka interface {
	Partitions(ctx context.Context, topic string) (int, error)
	Bounds(ctx context.Context, tp ingest.TopicPartition) (first, next int64, err error)
	OffsetAt(ctx context.Context, tp ingest.TopicPartition, t time.Time) (int64, error)
	Committed(ctx context.Context, group string, tp ingest.TopicPartition) (int64, error)
	Range(ctx context.Context, tp ingest.TopicPartition, from, to int64, fn func(*schema.Batch) error, bad func(error)) error
}

// Index is what an audit asks of Elasticsearch.
type Index interface {
	// Counts calls fn with the number of documents of each source in each hour.
	Counts(ctx context.Context, since, until time.Time, container string, fn func(source string, hour time.Time, n int64) error) error
	// IDs calls fn with each document of a source.
	IDs(ctx context.Context, source string, since, until time.Time, fn func(id, index string) error) error
}

// Options say what is audited, and against what.
type Options struct {
	Scope     archive.Scope
	Container string              // an id, or the beginning of one; empty: all records
	Keys      []ed25519.PublicKey // none: signatures are not checked
	Deep      bool                // hash the files
	BySource  bool                // verdicts by source, not by app
	Kafka     Kafka               // nil: not asked
	Index     Index               // nil: not asked
	Topics    []string            // that the archiver reads, whether or not the archive has them
	Group     string              // of the archiver
	Indexer   string              // the indexer's group
	Progress  func(string)
}

// Finding is something that is not explained.
type Finding struct {
	Kind    string `json:"kind"`
	Where   string `json:"where"` // file, manifest, record, or partition and offset
	Source  string `json:"source,omitempty"`
	Records int64  `json:"records,omitempty"` // 0: not known
	What    string `json:"what"`
	Do      string `json:"do"`
}

// Verdict counts the records of an app or of a source.
type Verdict struct {
	Name        string `json:"name"`
	Written     int64  `json:"written"` // what Kafka has or had; NotAsked where it was not asked
	Archived    int64  `json:"archived"`
	Indexed     int64  `json:"indexed"` // NotAsked where Elasticsearch was not asked
	Lost        int64  `json:"lost"`    // that loss records tell of
	LostUnknown int64  `json:"lost_unknown"`
	Refused     int64  `json:"refused"`     // by Elasticsearch, with a dead letter
	Unexplained int64  `json:"unexplained"` // at least
}

// NotAsked stands for a count that nobody was asked for.
const NotAsked = -1

func (v *Verdict) add(w Verdict) {
	sum := func(a *int64, b int64) {
		if b != NotAsked {
			*a = max(*a, 0) + b
		}
	}
	sum(&v.Written, w.Written)
	sum(&v.Indexed, w.Indexed)
	v.Archived += w.Archived
	v.Lost += w.Lost
	v.LostUnknown += w.LostUnknown
	v.Refused += w.Refused
	v.Unexplained += w.Unexplained
}

// Report is what an audit found. Everything is explained where there are no findings.
type Report struct {
	Since     time.Time `json:"since"` // zero: no bound
	Until     time.Time `json:"until"`
	Verdicts  []Verdict `json:"verdicts"`
	Total     Verdict   `json:"total"`
	Findings  []Finding `json:"findings"`
	Notes     []string  `json:"notes"`
	Manifests int64     `json:"manifests"`
	Records   int64     `json:"compaction_records"`
	Expiries  int64     `json:"expiry_records"`
	Files     int64     `json:"files"`
	Bytes     int64     `json:"bytes"`
	Expired   Expired   `json:"expired"`
}

// Expired counts what has expired on the record, of files that have a part in the range.
type Expired struct {
	Files int64 `json:"files"`
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
	There int64 `json:"there"` // of the files: those that are not deleted yet
}

type auditor struct {
	o        Options
	s        store.Store
	wide     archive.Scope // whole hours
	rep      *Report
	chains   map[ingest.TopicPartition]*chain
	topics   []string
	expiries map[string]bool  // expiry records that were read
	there    map[string]int64 // files in the hours' folders, by path: their sizes, as of the beginning
	listed   map[string]*file // files that manifests and compaction records list
	live     map[string]*file // of these, the files that hold the records now
	sources  map[string]*source
	losses   []loss
	gaps     []gap
	signed   map[string]time.Time // by topic: since when manifests are signed
}

// Run audits an archive. An error means that the audit could not be done to its end; the report then has what was found until then.
func Run(ctx context.Context, s store.Store, o Options) (*Report, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	a := &auditor{o: o, s: s, rep: &Report{Since: o.Scope.Since, Until: o.Scope.Until}, chains: map[ingest.TopicPartition]*chain{}, there: map[string]int64{},
		expiries: map[string]bool{}, listed: map[string]*file{}, live: map[string]*file{}, sources: map[string]*source{}, signed: map[string]time.Time{}}
	a.wide = archive.Scope{Since: o.Scope.Since.Truncate(time.Hour), Until: o.Scope.Until}
	if u := o.Scope.Until; !u.IsZero() {
		a.wide.Until = u.Add(time.Hour - 1).Truncate(time.Hour)
	}
	err := a.run(ctx)
	a.verdicts()
	return a.rep, err
}

func (a *auditor) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		a.findTopics,
		a.askOffsets, // before the manifests, which are then not older than what the group committed
		a.listFolders,
		a.readChains,
		a.readCompactions,
		a.readExpiries,
		a.readFiles,
		a.checkRows,
		a.checkHoles,
		a.askKafka,
		a.askIndex,
	} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) find(f Finding) { a.rep.Findings = append(a.rep.Findings, f) }

func (a *auditor) note(format string, args ...any) {
	a.rep.Notes = append(a.rep.Notes, fmt.Sprintf(format, args...))
}

func (a *auditor) progress(format string, args ...any) { a.o.Progress(fmt.Sprintf(format, args...)) }

// inRange tells whether a record of a time is asked for.
func (a *auditor) inRange(at int64) bool {
	since, until := a.o.Scope.Since, a.o.Scope.Until
	return (since.IsZero() || at >= since.UnixNano()) && (until.IsZero() || at < until.UnixNano())
}

// source is what was found of one source.
type source struct {
	name, hash     string
	app, container string
	tp             ingest.TopicPartition
	cover          archive.Source // of all manifests that were read
	archived       int64
	recent         set // of archived: those that Kafka still has
	inKafka        set
	before         int64 // of archived: those that Kafka no longer has
	indexed        int64
	hours          map[int64]*hourCount // by hour since 1970
	lost           int64
	lostUnknown    int64
	refused        int64
	holes          int64

	// What is not explained:
	notInFiles, notArchived, notWritten, archivedTwice, notIndexed, indexedTwice, indexedAlone int64
}

// hourCount is what the archive and Elasticsearch have of a source in one hour.
type hourCount struct{ archived, indexed int64 }

func (s *source) hour(at int64) *hourCount {
	h := at / int64(time.Hour)
	if s.hours == nil {
		s.hours = map[int64]*hourCount{}
	}
	if s.hours[h] == nil {
		s.hours[h] = new(hourCount)
	}
	return s.hours[h]
}

func (a *auditor) source(name string) *source {
	s := a.sources[name]
	if s == nil {
		s = &source{name: name, hash: schema.SourceHash(name)}
		a.sources[name] = s
	}
	return s
}
