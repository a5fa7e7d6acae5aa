package window

import "time"

// Watermark is the time up to which all is thought to be there: the least of what the sources have reached, of those that are not idle. It
// never goes back.
type Watermark struct {
	sources map[string]*progress
	mark    int64
	newest  int64
}

type progress struct {
	at    int64     // Unix ns, the newest event time
	heard time.Time // when something came last
}

// Observe notes that a source has reached an event time.
func (w *Watermark) Observe(source string, at int64, now time.Time) {
	// A clock that runs ahead must not end windows that others still write to.
	at = min(at, now.UnixNano())
	p := w.sources[source]
	if p == nil {
		if w.sources == nil {
			w.sources = map[string]*progress{}
		}
		p = &progress{}
		w.sources[string(append([]byte(nil), source...))] = p
	}
	p.at, p.heard = max(p.at, at), now
	w.newest = max(w.newest, at)
}

// Advance moves the mark and returns it.
//
// Where all that is there was read, a source that was silent for idle holds nothing back. While there is more to read, silence says
// nothing. In no case does a source hold the mark back further than hold behind the newest: what comes later still counts, as a correction.
func (w *Watermark) Advance(now time.Time, caughtUp bool, idle, hold time.Duration) int64 {
	w.advance(now, caughtUp, idle, hold)
	return w.mark
}

// Follow is Advance, but where all are silent the mark follows the clock, idle behind it.
func (w *Watermark) Follow(now time.Time, caughtUp bool, idle, hold time.Duration) int64 {
	if !w.advance(now, caughtUp, idle, hold) && caughtUp {
		w.mark = max(w.mark, now.Add(-idle).UnixNano())
	}
	return w.mark
}

// advance says whether any source is not silent.
func (w *Watermark) advance(now time.Time, caughtUp bool, idle, hold time.Duration) bool {
	least, active := int64(0), false
	for source, p := range w.sources {
		silent := now.Sub(p.heard)
		if caughtUp && silent >= idle {
			if silent > time.Minute {
				delete(w.sources, source)
			}
			continue
		}
		if !active || p.at < least {
			least = p.at
		}
		active = true
	}
	if active {
		w.mark = max(w.mark, least, w.newest-int64(hold))
	}
	return active
}

// Each gives what the sources have reached.
func (w *Watermark) Each(f func(source string, at int64)) {
	for source, p := range w.sources {
		f(source, p.at)
	}
}

// Mark is the watermark as it stands.
func (w *Watermark) Mark() int64 { return w.mark }

// Restore sets the mark that held before.
func (w *Watermark) Restore(mark int64) { w.mark = max(w.mark, mark) }
