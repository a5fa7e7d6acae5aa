// Package archive is the form of the archive: rows, manifests and names, for those who write it and those who read it.
package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"time"

	"weir/ingest"
	"weir/schema"
)

// ManifestVersion is the version of manifests that this package writes, and reads.
const ManifestVersion = 2

// The archive's own folders. Readers such as Spark pass over names that begin with an underscore.
const (
	TmpDir      = "_weir/tmp"
	ManifestDir = "_weir/manifests"
)

// Manifest says what one commit added to one partition: the files, what of each source they cover, and the offset that
// reading goes on from. A commit has happened if and only if its manifest is in the manifest folder. Manifests are never
// deleted: each holds the hash of the one before, so that nobody can take one out unseen. docs/archive.md is the
// specification.
type Manifest struct {
	Version   int               `json:"version"`
	Topic     string            `json:"topic"`
	Partition int               `json:"partition"`
	First     int64             `json:"first_offset"` // the next offset of the commit before
	Next      int64             `json:"next_offset"`
	Created   time.Time         `json:"created"`     // not before that of the manifest before, whatever the clock says
	Prev      string            `json:"prev_sha256"` // of the manifest before with its signature, empty for the first
	Seen      Seen              `json:"seen"`
	Files     []File            `json:"files"`
	Sources   map[string]Source `json:"sources"`
}

// Source is what a commit holds of one source.
type Source struct {
	Records int64   `json:"records"`
	Ranges  []Range `json:"ranges"` // sorted, disjoint, merged where they touch
}

// Range is a run of positions [From, To) that the writer of the source said it had told all of. That is more than the bytes of
// the records: what lies between them is in it too.
type Range struct {
	Incarnation schema.Incarnation `json:"incarnation"`
	From        int64              `json:"from"`
	To          int64              `json:"to"`
}

// Add counts records and merges the range that they are of.
func (s *Source) Add(records int64, r Range) {
	s.Records += records
	at, _ := slices.BinarySearchFunc(s.Ranges, r, func(a, b Range) int {
		if c := a.Incarnation.Compare(b.Incarnation); c != 0 {
			return c
		}
		if a.To < b.From {
			return -1
		}
		return 1
	})
	end := at
	for ; end < len(s.Ranges) && s.Ranges[end].Incarnation == r.Incarnation && s.Ranges[end].From <= r.To; end++ {
		r.From, r.To = min(r.From, s.Ranges[end].From), max(r.To, s.Ranges[end].To)
	}
	s.Ranges = slices.Replace(s.Ranges, at, end, r)
}

type File struct {
	Tmp     string    `json:"tmp"`
	Path    string    `json:"path"`
	Rows    int64     `json:"rows"`
	Bytes   int64     `json:"bytes"`
	SHA256  string    `json:"sha256"`
	Content Content   `json:"content"`
	MinTime time.Time `json:"min_time"`
	MaxTime time.Time `json:"max_time"`
}

// Seen names the sidecar with the interval state that belongs to Next.
type Seen struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ManifestDay is the name of the folder, below the partition's, of the manifests that were made on a day: there may be very many
// over the years, and the newest is found in the newest folder.
func ManifestDay(created time.Time) string { return created.UTC().Format(time.DateOnly) }

// ParseDay reads what ManifestDay writes.
func ParseDay(name string) (time.Time, bool) {
	t, err := time.Parse(time.DateOnly, name)
	return t, err == nil
}

// Span is the offsets of a manifest as its name gives them, so that the newest is found without reading any.
type Span struct{ First, Next int64 }

func (s Span) Base() string     { return fmt.Sprintf("%020d-%020d", s.First, s.Next) }
func (s Span) Manifest() string { return s.Base() + ".json" }

// Done is the name of the marker that says the manifest's files are in place. From then on they are the readers', and may be merged or
// expire.
func (s Span) Done() string { return s.Base() + ".done" }

// ParseSpan reads "<20 digits>-<20 digits><rest>".
func ParseSpan(name string) (s Span, rest string, ok bool) {
	if len(name) < 41 || name[20] != '-' {
		return Span{}, "", false
	}
	for i, c := range []byte(name[:41]) {
		if i != 20 && (c < '0' || c > '9') {
			return Span{}, "", false
		}
	}
	var err1, err2 error
	s.First, err1 = strconv.ParseInt(name[:20], 10, 64)
	s.Next, err2 = strconv.ParseInt(name[21:41], 10, 64)
	return s, name[41:], err1 == nil && err2 == nil && s.First < s.Next
}

// Encode gives the manifest's bytes, without a signature.
func (m *Manifest) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", " ")
	return append(b, '\n'), err
}

// ParseManifest reads a manifest and checks that it is the one its name claims.
func ParseManifest(data []byte, tp ingest.TopicPartition, s Span) (*Manifest, error) {
	m := new(Manifest)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, err
	}
	if m.Version != ManifestVersion {
		return nil, fmt.Errorf("version %d is not %d; another weir wrote it", m.Version, ManifestVersion)
	}
	if m.Topic != tp.Topic || m.Partition != tp.Partition || m.Span() != s {
		return nil, fmt.Errorf("is of %s/%d offsets %d to %d", m.Topic, m.Partition, m.First, m.Next)
	}
	names := []string{m.Seen.Path}
	for _, f := range m.Files {
		names = append(names, f.Tmp, f.Path)
	}
	for _, name := range names {
		if !fs.ValidPath(name) {
			return nil, fmt.Errorf("%q is not a path within the archive", name)
		}
	}
	return m, nil
}

// FinalPath is where a file of the given hour goes: <topic>/dt=YYYY-MM-DD/hour=HH/p<partition>-<first>-<last>-<n>.parquet.
func FinalPath(tp ingest.TopicPartition, hour, first, last int64, n int) string {
	t := time.Unix(hour*3600, 0).UTC()
	return path.Join(tp.Topic, t.Format("dt=2006-01-02"), t.Format("hour=15"),
		fmt.Sprintf("p%d-%d-%d-%d.parquet", tp.Partition, first, last, n))
}

func PartitionDir(base string, tp ingest.TopicPartition) string {
	return path.Join(base, tp.Topic, strconv.Itoa(tp.Partition))
}

func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Span is the offsets that the manifest covers.
func (m *Manifest) Span() Span { return Span{m.First, m.Next} }
