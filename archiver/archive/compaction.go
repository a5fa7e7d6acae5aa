package archive

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// CompactionVersion is the version of compaction records that this package writes, and reads.
const CompactionVersion = 1

// CompactionDir holds the compaction records: <topic>/dt=YYYY-MM-DD/hour=HH/<n>.json.
const CompactionDir = "_weir/compactions"

// Compaction says that the rows of some files of one hour of a topic are in other files from now on. It holds if and only if its record
// is in its place. The files that it replaces are of manifests, or of earlier records of the same hour.
type Compaction struct {
	Version  int        `json:"version"`
	Topic    string     `json:"topic"`
	Hour     time.Time  `json:"hour"` // its beginning, UTC
	N        int        `json:"n"`    // counts the records of the hour, from 1
	Created  time.Time  `json:"created"`
	Prev     string     `json:"prev_sha256"` // of the hour's record before with its signature, empty for the first
	Files    []File     `json:"files"`       // the merged ones; at Path, or still at Tmp
	Replaces []Replaced `json:"replaces"`    // the files that are read no more, and may be gone
}

// Replaced names a file whose rows are in a merged one.
type Replaced struct {
	Path   string `json:"path"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"`
}

// HourDir is the folder of an hour below a base folder.
func HourDir(base, topic string, hour time.Time) string {
	return path.Join(DayDir(base, topic, hour), hour.UTC().Format("hour=15"))
}

// Name is where the record has its place.
func (c *Compaction) Name() string {
	return path.Join(HourDir(CompactionDir, c.Topic, c.Hour), fmt.Sprintf("%06d.json", c.N))
}

// MergedPath is where the i-th merged file of a record goes.
func (c *Compaction) MergedPath(i int) string {
	return path.Join(HourDir("", c.Topic, c.Hour), fmt.Sprintf("c%d-%d.parquet", c.N, i))
}

// Encode gives the record's bytes.
func (c *Compaction) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", " ")
	return append(b, '\n'), err
}

// ParseCompaction reads a record and checks that it is the one its name claims.
func ParseCompaction(data []byte, name string) (*Compaction, error) {
	c := new(Compaction)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, err
	}
	if c.Version != CompactionVersion {
		return nil, fmt.Errorf("version %d is not %d; another weir wrote it", c.Version, CompactionVersion)
	}
	if c.Name() != name {
		return nil, fmt.Errorf("is of %s, %s, number %d", c.Topic, c.Hour.UTC().Format("2006-01-02 15h"), c.N)
	}
	for _, f := range c.Files {
		if !fs.ValidPath(f.Path) || !fs.ValidPath(f.Tmp) {
			return nil, fmt.Errorf("%q or %q is not a path within the archive", f.Path, f.Tmp)
		}
	}
	paths := make([]string, 0, len(c.Files)+len(c.Replaces))
	for _, f := range c.Files {
		paths = append(paths, f.Path)
	}
	for _, r := range c.Replaces {
		paths = append(paths, r.Path)
	}
	for _, p := range paths {
		if path.Dir(p) != HourDir("", c.Topic, c.Hour) {
			return nil, fmt.Errorf("%q is not a file of its hour", p)
		}
	}
	return c, nil
}

// ParseDayDir reads dt=YYYY-MM-DD.
func ParseDayDir(name string) (time.Time, bool) {
	t, err := time.Parse("dt=2006-01-02", name)
	return t, err == nil
}

// ParseHourDir reads hour=HH.
func ParseHourDir(name string) (time.Duration, bool) {
	digits, ok := strings.CutPrefix(name, "hour=")
	n, err := strconv.Atoi(digits)
	return time.Duration(n) * time.Hour, ok && err == nil && len(digits) == 2 && n >= 0 && n < 24
}
