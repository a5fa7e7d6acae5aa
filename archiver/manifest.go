package archiver

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

const manifestVersion = 1

// The archive's own folders. Readers such as Spark pass over names that begin with an underscore.
const (
	tmpDir      = "_weir/tmp"
	manifestDir = "_weir/manifests"
)

// manifest says what one commit added to one partition: the files, and the offset that reading goes on from.
// A commit has happened if and only if its manifest is in the manifest folder.
type manifest struct {
	Version   int              `json:"version"`
	Topic     string           `json:"topic"`
	Partition int              `json:"partition"`
	First     int64            `json:"first_offset"` // the next offset of the commit before
	Next      int64            `json:"next_offset"`
	Files     []manifestFile   `json:"files"`
	Sources   map[string]int64 `json:"sources"` // rows by source
	Seen      manifestSeen     `json:"seen"`
	Prev      string           `json:"prev_sha256,omitempty"` // of the manifest before, empty for the first
	Created   time.Time        `json:"created"`
}

type manifestFile struct {
	Tmp     string    `json:"tmp"`
	Path    string    `json:"path"`
	Rows    int64     `json:"rows"`
	Bytes   int64     `json:"bytes"`
	SHA256  string    `json:"sha256"`
	MinTime time.Time `json:"min_time"`
	MaxTime time.Time `json:"max_time"`
}

// manifestSeen names the sidecar with the interval state that belongs to Next.
type manifestSeen struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// span is the offsets of a manifest as its name gives them, so that the newest is found without reading any.
type span struct{ first, next int64 }

func (s span) base() string     { return fmt.Sprintf("%020d-%020d", s.first, s.next) }
func (s span) manifest() string { return s.base() + ".json" }

// done is the name of the marker that says the manifest's files are in place. From then on they are the reader's: a
// retention job may delete them.
func (s span) done() string { return s.base() + ".done" }

// parseSpan reads "<20 digits>-<20 digits><rest>".
func parseSpan(name string) (s span, rest string, ok bool) {
	if len(name) < 41 || name[20] != '-' {
		return span{}, "", false
	}
	for i, c := range []byte(name[:41]) {
		if i != 20 && (c < '0' || c > '9') {
			return span{}, "", false
		}
	}
	var err1, err2 error
	s.first, err1 = strconv.ParseInt(name[:20], 10, 64)
	s.next, err2 = strconv.ParseInt(name[21:41], 10, 64)
	return s, name[41:], err1 == nil && err2 == nil && s.first < s.next
}

func (m *manifest) encode() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", " ")
	return append(b, '\n'), err
}

// parseManifest reads a manifest and checks that it is the one its name claims.
func parseManifest(data []byte, tp ingest.TopicPartition, s span) (*manifest, error) {
	m := new(manifest)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, err
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("version %d is not %d; a newer weir wrote it", m.Version, manifestVersion)
	}
	if m.Topic != tp.Topic || m.Partition != tp.Partition || (span{m.First, m.Next}) != s {
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

// finalPath is where a file of the given hour goes: <topic>/dt=YYYY-MM-DD/hour=HH/p<partition>-<first>-<last>-<n>.parquet.
func finalPath(tp ingest.TopicPartition, hour, first, last int64, n int) string {
	t := time.Unix(hour*3600, 0).UTC()
	return path.Join(tp.Topic, t.Format("dt=2006-01-02"), t.Format("hour=15"),
		fmt.Sprintf("p%d-%d-%d-%d.parquet", tp.Partition, first, last, n))
}

func partitionDir(base string, tp ingest.TopicPartition) string {
	return path.Join(base, tp.Topic, strconv.Itoa(tp.Partition))
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
