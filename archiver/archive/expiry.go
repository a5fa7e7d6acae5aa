package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"
)

// ExpiryVersion is the version of expiry records that this package writes, and reads.
const ExpiryVersion = 1

// ExpiryDir holds the expiry records: <topic>/dt=YYYY-MM-DD/<n>.json.
const ExpiryDir = "_weir/expiries"

// Expiry says that files of one day of a topic have come to the end of their life: they are read no more, and may be gone. It holds if and
// only if its record is in its place. Files that come for the day later are not covered.
type Expiry struct {
	Version int       `json:"version"`
	Topic   string    `json:"topic"`
	Day     time.Time `json:"day"` // its beginning, UTC
	N       int       `json:"n"`   // counts the records of the day, from 1
	Created time.Time `json:"created"`
	Before  time.Time `json:"before"`      // the day that was asked for: what is of earlier days expires
	Prev    string    `json:"prev_sha256"` // of the day's record before with its signature, empty for the first
	Files   []Expired `json:"files"`
}

// Expired is a file as its manifest or compaction record lists it.
type Expired struct {
	Path    string    `json:"path"`
	Rows    int64     `json:"rows"`
	Bytes   int64     `json:"bytes"`
	SHA256  string    `json:"sha256"`
	MinTime time.Time `json:"min_time"`
	MaxTime time.Time `json:"max_time"`
}

// DayDir is the folder of a day below a base folder.
func DayDir(base, topic string, day time.Time) string {
	return path.Join(base, topic, day.UTC().Format("dt=2006-01-02"))
}

// Name is where the record has its place.
func (e *Expiry) Name() string {
	return path.Join(DayDir(ExpiryDir, e.Topic, e.Day), fmt.Sprintf("%06d.json", e.N))
}

// Encode gives the record's bytes.
func (e *Expiry) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(e, "", " ")
	return append(b, '\n'), err
}

// ParseExpiry reads a record and checks that it is the one its name claims.
func ParseExpiry(data []byte, name string) (*Expiry, error) {
	e := new(Expiry)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, err
	}
	if e.Version != ExpiryVersion {
		return nil, fmt.Errorf("version %d is not %d; another weir wrote it", e.Version, ExpiryVersion)
	}
	if e.Name() != name {
		return nil, fmt.Errorf("is of %s, %s, number %d", e.Topic, e.Day.UTC().Format(time.DateOnly), e.N)
	}
	if e.Day.AddDate(0, 0, 1).After(e.Before) || e.Before.After(e.Created) {
		return nil, errors.New("its day was not over when it was made, or not asked for")
	}
	for _, f := range e.Files {
		hour := path.Dir(f.Path)
		if _, ok := ParseHourDir(path.Base(hour)); !ok || path.Dir(hour) != DayDir("", e.Topic, e.Day) {
			return nil, fmt.Errorf("%q is not a file of its day", f.Path)
		}
	}
	return e, nil
}

// Covers tells whether one of the records says that a file has expired.
func Covers(records []*Expiry, f *File) bool {
	for _, e := range records {
		if slices.ContainsFunc(e.Files, func(x Expired) bool { return x.Path == f.Path && x.SHA256 == f.SHA256 }) {
			return true
		}
	}
	return false
}

// Unexpired leaves out of places those that records cover.
func Unexpired(places []Place, records []*Expiry) []Place {
	type key struct{ path, sum string }
	covered := map[key]bool{}
	for _, e := range records {
		for _, f := range e.Files {
			covered[key{f.Path, f.SHA256}] = true
		}
	}
	return slices.DeleteFunc(places, func(p Place) bool { return covered[key{p.Path, p.SHA256}] })
}
