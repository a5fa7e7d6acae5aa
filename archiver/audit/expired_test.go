package audit

import (
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/archiver"
	"weir/archiver/archive"
	"weir/schema"
)

// longAgo is in minutes after the beginning, of a day that may expire.
const longAgo = -3 * 24 * 60

const expiries = "_weir/expiries/weir.logs/*/*.json"

// expire lets everything before the day of the beginning expire.
func (w *world) expire() *archive.Expiry {
	w.t.Helper()
	e, err := archiver.NewExpirer(w.config(), slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	defer e.Close()
	days, err := e.Days(begin.AddDate(0, 0, -1), nil)
	if err != nil || len(days) != 1 {
		w.t.Fatal(days, err)
	}
	r, err := e.Run(w.t.Context(), days[0])
	if err != nil || r == nil {
		w.t.Fatal(r, err)
	}
	return r
}

// older is the usual world with two batches of a day long ago before it.
func older(t *testing.T) *world {
	w := newWorld(t)
	w.sign()
	w.put(w.batch(1, longAgo, 100), w.batch(2, longAgo+10, 100), w.batch(1, 0, 100), w.batch(2, 10, 100), w.batch(1, 70, 100), w.batch(2, 80, 100))
	return w
}

// TestExpired wants nothing to be found where a day has expired on the record. Kafka and Elasticsearch have its records still.
func TestExpired(t *testing.T) {
	rest := Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 600}
	for _, c := range []struct {
		name    string
		make    func(t *testing.T) *world
		change  func(*Options)
		want    Verdict
		expired Expired
		note    string
	}{
		{"a day", func(t *testing.T) *world { w := older(t); w.expire(); return w }, nil, rest, Expired{Files: 2, Rows: 200}, ""},
		{"without Kafka and Elasticsearch", func(t *testing.T) *world { w := older(t); w.expire(); return w }, func(o *Options) { o.Kafka, o.Index = nil, nil }, Verdict{Name: "total", Written: NotAsked, Archived: 400, Indexed: NotAsked}, Expired{Files: 2, Rows: 200}, ""},
		{"a part of the day is asked for", func(t *testing.T) *world { w := older(t); w.expire(); return w }, func(o *Options) {
			o.Scope.Since, o.Scope.Until = begin.Add((longAgo-1)*time.Minute), begin.Add((longAgo+5)*time.Minute)
		}, Verdict{Name: "total", Written: 0, Archived: 0, Indexed: 100}, Expired{Files: 1, Rows: 100}, ""},
		{"what is not of the day is asked for", func(t *testing.T) *world { w := older(t); w.expire(); return w }, func(o *Options) { o.Scope.Since = begin.AddDate(0, 0, -1) }, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 400}, Expired{}, ""},
		{"compacted before", func(t *testing.T) *world { w := older(t); w.compact(); w.expire(); return w }, nil, rest, Expired{Files: 1, Rows: 200}, ""},
		{"late records after, which expired too", func(t *testing.T) *world {
			w := older(t)
			w.expire()
			w.put(w.batch(1, longAgo+20, 10))
			w.expire()
			return w
		}, nil, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 610}, Expired{Files: 3, Rows: 210}, ""},
		{"late records after, which have not expired", func(t *testing.T) *world {
			w := older(t)
			w.expire()
			w.put(w.batch(1, longAgo+20, 10), w.batch(2, longAgo+21, 10))
			w.compact()
			return w
		}, nil, Verdict{Name: "total", Written: 420, Archived: 420, Indexed: 620}, Expired{Files: 2, Rows: 200}, ""},
		{"a commit of which a part has expired", func(t *testing.T) *world {
			w := older(t)
			b := w.batch(1, longAgo+30, 10)
			for i := range b.Records[5:] {
				b.Records[5+i].Time = begin.Add(95 * time.Minute).UnixNano()
			}
			w.put(b)
			w.expire()
			return w
		}, nil, Verdict{Name: "total", Written: 405, Archived: 405, Indexed: 610}, Expired{Files: 3, Rows: 205}, ""},
		{"files that are there still", func(t *testing.T) *world {
			w := older(t)
			f := w.files(data)[0]
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			w.expire()
			w.write(f, b)
			return w
		}, nil, rest, Expired{Files: 2, Rows: 200, There: 1}, ""},
		{"a hole that an expired loss record told of", func(t *testing.T) *world {
			w := newWorld(t)
			w.put(w.batch(1, longAgo, 100))
			from, to := w.skip(1)
			w.put(lost(1, from, to.String(), longAgo+1), w.batch(1, 0, 100))
			w.expire()
			return w
		}, nil, Verdict{Name: "total", Written: 100, Archived: 100, Indexed: 201}, Expired{Files: 2, Rows: 101}, "1 holes in positions lie beside records that have expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := c.make(t)
			change := c.change
			if change == nil {
				change = func(*Options) {}
			}
			r := w.audit(change)
			for _, f := range r.Findings {
				t.Errorf("%+v", f)
			}
			if r.Expired.Bytes = 0; r.Total != c.want || r.Expired != c.expired {
				t.Errorf("total %+v, want %+v; expired %+v, want %+v; notes %q", r.Total, c.want, r.Expired, c.expired, r.Notes)
			}
			if !strings.Contains(strings.Join(r.Notes, "\n"), c.note) {
				t.Errorf("notes %q, want %q", r.Notes, c.note)
			}
		})
	}
}

// TestExpiryTampering deletes files without a record that holds.
func TestExpiryTampering(t *testing.T) {
	expired := func(t *testing.T) *world { w := older(t); w.expire(); return w }
	unsigned := func(t *testing.T) *world {
		w := newWorld(t)
		w.put(w.batch(1, longAgo, 100), w.batch(2, longAgo+10, 100), w.batch(1, 0, 100))
		w.expire()
		return w
	}
	change := func(w *world, key ed25519.PrivateKey, fn func(e *archive.Expiry)) string {
		f := w.files(expiries)[0]
		e := decode[archive.Expiry](w, f)
		fn(e)
		b, err := e.Encode()
		if err == nil {
			b, err = archive.Sign(b, key)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		w.write(f, b)
		return f[len(w.dir)+1:]
	}
	for _, c := range []struct {
		name    string
		make    func(t *testing.T) *world
		do      func(w *world) (named string) // the record, or a file
		missing int                           // files that have their finding
		forged  bool
	}{
		{"a file deleted by hand", expired, func(w *world) string { f := w.files(data)[0]; w.remove(f); return filepath.Base(f) }, 1, false},
		{"the record removed", expired, func(w *world) string {
			named := w.files(expiries)[0]
			w.remove(named)
			return ".parquet"
		}, 2, false},
		{"a record edited", expired, func(w *world) string {
			f := w.files(expiries)[0]
			w.edit(f, `"rows": 100`, `"rows": 101`)
			return f[len(w.dir)+1:]
		}, 2, true},
		{"a record without its signature", expired, func(w *world) string { return change(w, nil, func(*archive.Expiry) {}) }, 2, true},
		{"a record by another key", expired, func(w *world) string {
			_, other, _ := ed25519.GenerateKey(nil)
			return change(w, other, func(*archive.Expiry) {})
		}, 2, true},
		{"a record that is no JSON", expired, func(w *world) string {
			f := w.files(expiries)[0]
			w.edit(f, "{", "[")
			return f[len(w.dir)+1:]
		}, 2, true},
		{"a record made up for a file that was deleted", older, func(w *world) string {
			f := w.files(data)[0]
			day := begin.Add(longAgo * time.Minute).Truncate(24 * time.Hour)
			e := &archive.Expiry{Version: archive.ExpiryVersion, Topic: schema.TopicLogs, Day: day, N: 1, Created: time.Now().UTC(), Before: day.AddDate(0, 0, 1)}
			m := w.manifest(w.files(manifests)[0]).Files[0]
			e.Files = []archive.Expired{{Path: m.Path, Rows: m.Rows, Bytes: m.Bytes, SHA256: m.SHA256, MinTime: m.MinTime, MaxTime: m.MaxTime}}
			b, err := e.Encode()
			if err != nil {
				w.t.Fatal(err)
			}
			w.write(filepath.Join(w.dir, e.Name()), b)
			w.remove(f)
			return e.Name()
		}, 1, true},
		{"a number that does not follow", unsigned, func(w *world) string {
			f := w.files(expiries)[0]
			w.edit(f, `"n": 1`, `"n": 2`)
			if err := os.Rename(f, strings.Replace(f, "000001", "000002", 1)); err != nil {
				w.t.Fatal(err)
			}
			return "000002.json"
		}, 2, true},
		{"a file that nothing lists", unsigned, func(w *world) string {
			return change(w, nil, func(e *archive.Expiry) { e.Files[0].Path += ".parquet" })
		}, 2, true},
		{"other rows", unsigned, func(w *world) string {
			return change(w, nil, func(e *archive.Expiry) { e.Files[0].Rows = 1 })
		}, 2, true},
		{"another time", unsigned, func(w *world) string {
			return change(w, nil, func(e *archive.Expiry) { e.Files[0].MinTime = begin })
		}, 2, true},
		{"a record of before its day was over", unsigned, func(w *world) string {
			return change(w, nil, func(e *archive.Expiry) { e.Created = e.Day.Add(time.Hour) })
		}, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := c.make(t)
			named := c.do(w)
			for _, alone := range []bool{false, true} {
				r := w.audit(func(o *Options) {
					if alone {
						o.Kafka, o.Index = nil, nil
					}
				})
				missing := 0
				for _, f := range r.Findings {
					if f.Kind == "file_missing" {
						missing++
					}
				}
				forged := slices.ContainsFunc(r.Findings, func(f Finding) bool {
					return f.Kind == "expiry_forged" && strings.Contains(f.Where, named) && f.Do != ""
				})
				if missing != c.missing || forged != c.forged {
					t.Errorf("%d files are missing, want %d; forged %t, want %t: %v", missing, c.missing, forged, c.forged, r.Findings)
				}
			}
		})
	}
}
