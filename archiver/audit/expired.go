package audit

import (
	"context"
	"fmt"
	"path"
	"time"

	"weir/archiver/archive"
)

// readExpiries takes away what has expired on the record. A record that is not as it should be is a finding and holds for nothing here: then the
// files that it names have theirs where they are gone.
func (a *auditor) readExpiries(ctx context.Context) error {
	for _, topic := range a.topics {
		err := a.eachDay(path.Join(archive.ExpiryDir, topic), func(dir string, _ time.Time) error {
			n, prev := 0, ""
			err := a.eachRecord(dir, func(name string, data []byte, sig error) {
				a.rep.Expiries++
				a.expiries[name] = true
				e, err := archive.ParseExpiry(data, name)
				if err == nil {
					err = sig
				}
				if n++; err == nil {
					err = a.checkExpiry(e, n, prev)
				}
				if err == nil {
					a.expire(e)
				} else {
					a.find(Finding{Kind: "expiry_forged", Where: name, What: fmt.Sprintf("the expiry record: %v", err), Do: "restore the record, and the files that it names, from a copy; readers take these for expired"})
				}
				prev = archive.Digest(data)
			})
			if err == nil {
				err = ctx.Err()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkExpiry checks a record against the one before it, and against what is listed of the files that it names.
func (a *auditor) checkExpiry(e *archive.Expiry, n int, prev string) error {
	if e.N != n || e.Prev != prev {
		return fmt.Errorf("it has the number %d and names a record of sha256 %q before it; there is number %d of %q: a record of the day was changed or removed", e.N, e.Prev, n-1, prev)
	}
	for _, x := range e.Files {
		f := a.listed[x.Path]
		switch {
		case f == nil && overlaps(a.wide, x.MinTime, x.MaxTime):
			return fmt.Errorf("it names %s, which no manifest and no compaction record lists (a record whose clock ran more than %s ahead may be of an earlier manifest: then audit since an earlier time)", x.Path, archive.Ahead)
		case f != nil && x != (archive.Expired{Path: f.Path, Rows: f.Rows, Bytes: f.Bytes, SHA256: f.SHA256, MinTime: f.MinTime, MaxTime: f.MaxTime}):
			return fmt.Errorf("it names %s of sha256 %s with %d rows from %s to %s, and %s lists it with %s, %d, and from %s to %s", x.Path, x.SHA256, x.Rows, x.MinTime, x.MaxTime, f.Listed, f.SHA256, f.Rows, f.MinTime, f.MaxTime)
		}
	}
	return nil
}

// expire applies a record as readers do.
func (a *auditor) expire(e *archive.Expiry) {
	for _, x := range e.Files {
		f := a.listed[x.Path]
		if f == nil {
			continue // of another part of the day
		}
		_, there := a.there[x.Path]
		delete(a.live, x.Path)
		delete(a.there, x.Path) // it may be there until the next run
		for _, m := range f.of {
			if m.expired == nil {
				m.expired = map[int64]bool{}
			}
			m.expired[f.Hour().Unix()/3600] = true
			m.whole = false
		}
		if !overlaps(a.o.Scope, f.MinTime, f.MaxTime) {
			continue
		}
		a.rep.Expired.Files, a.rep.Expired.Rows, a.rep.Expired.Bytes = a.rep.Expired.Files+1, a.rep.Expired.Rows+f.Rows, a.rep.Expired.Bytes+f.Bytes
		if there {
			a.rep.Expired.There++
		}
	}
}

// expired tells whether a record of some offset and time was in a file that has expired.
func (c *chain) expired(offset, at int64) bool {
	m := c.of(offset)
	return m != nil && m.expired[at/int64(time.Hour)]
}

// expiredBeside tells whether rows between what is before and after a hole have expired: a loss record that told of it may be among them.
func (a *auditor) expiredBeside(h *hole) bool {
	first, last := h.before, h.after
	if first == nil {
		first = last
	}
	if last == nil {
		last = first
	}
	c := a.chains[h.src.tp]
	if c == nil || first == nil {
		return false
	}
	for _, m := range c.all {
		if len(m.expired) > 0 && m.Next > first.First && m.First < last.Next {
			return true
		}
	}
	return false
}
