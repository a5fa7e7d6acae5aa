// Package archive is the form of the archive: rows, manifests and names, for those who write it and those who read it.
package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"time"

	"weir/ingest"
)

const ManifestVersion = 1

// The archive's own folders. Readers such as Spark pass over names that begin with an underscore.
const (
	TmpDir      = "_weir/tmp"
	ManifestDir = "_weir/manifests"
)

// Manifest says what one commit added to one partition: the files, and the offset that reading goes on from.
// A commit has happened if and only if its manifest is in the manifest folder.
type Manifest struct {
	Version   int              `json:"version"`
	Topic     string           `json:"topic"`
	Partition int              `json:"partition"`
	First     int64            `json:"first_offset"` // the next offset of the commit before
	Next      int64            `json:"next_offset"`
	Files     []File           `json:"files"`
	Sources   map[string]int64 `json:"sources"` // rows by source
	Seen      Seen             `json:"seen"`
	Prev      string           `json:"prev_sha256,omitempty"` // of the manifest before, empty for the first
	Created   time.Time        `json:"created"`
}

type File struct {
	Tmp     string    `json:"tmp"`
	Path    string    `json:"path"`
	Rows    int64     `json:"rows"`
	Bytes   int64     `json:"bytes"`
	SHA256  string    `json:"sha256"`
	MinTime time.Time `json:"min_time"`
	MaxTime time.Time `json:"max_time"`
}

// Seen names the sidecar with the interval state that belongs to Next.
type Seen struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Span is the offsets of a manifest as its name gives them, so that the newest is found without reading any.
type Span struct{ First, Next int64 }

func (s Span) Base() string     { return fmt.Sprintf("%020d-%020d", s.First, s.Next) }
func (s Span) Manifest() string { return s.Base() + ".json" }

// Done is the name of the marker that says the manifest's files are in place. From then on they are the reader's: a
// retention job may delete them.
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
		return nil, fmt.Errorf("version %d is not %d; a newer weir wrote it", m.Version, ManifestVersion)
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
