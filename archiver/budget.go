package archiver

import (
	"cmp"
	"slices"
	"sync"
)

// budget knows what the rows of all open partitions take in memory.
type budget struct {
	mu   sync.Mutex
	open map[*partition]struct{}
}

func (b *budget) enter(p *partition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == nil {
		b.open = map[*partition]struct{}{}
	}
	b.open[p] = struct{}{}
}

func (b *budget) leave(p *partition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, p)
}

// over returns the partitions that hold rows, the one with the largest row group first, when all together hold more than limit.
func (b *budget) over(limit int64) (fullest []*partition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	total := int64(0)
	for p := range b.open {
		total += p.held.Load()
		if p.largest.Load() > 0 {
			fullest = append(fullest, p)
		}
	}
	if total <= limit {
		return nil
	}
	slices.SortFunc(fullest, func(p, q *partition) int { return cmp.Compare(q.largest.Load(), p.largest.Load()) })
	return fullest
}

// shrink writes the largest row groups, whosever they are, until all together are within the budget. A partition that is at work just now is
// passed over: it does the same after its write.
func (a *Archiver) shrink() {
	for {
		flushed := false
		for _, p := range a.budget.over(a.cfg.BufferBytes) {
			if flushed = p.flushLargest(); flushed {
				break
			}
		}
		if !flushed {
			return
		}
	}
}

// flushLargest writes the partition's largest row group, unless the partition is at work. Where that fails, the partition's own next call says so.
func (p *partition) flushLargest() bool {
	if !p.mu.TryLock() {
		return false
	}
	defer p.mu.Unlock()
	defer p.measure()
	f := p.fullest()
	if f == nil || p.broken != nil {
		return false
	}
	if err := p.flush(f); err != nil {
		_ = p.fail("write", err)
	}
	return true
}

func (p *partition) fullest() (f *hourFile) {
	most := 0
	for _, h := range p.hours {
		if n := h.group.Held(); n > most {
			f, most = h, n
		}
	}
	return f
}

// measure tells the budget what the partition holds.
func (p *partition) measure() {
	held, largest := 0, 0
	if p.broken == nil {
		for _, f := range p.hours {
			n := f.group.Held()
			held += n
			largest = max(largest, n)
		}
	}
	p.held.Store(int64(held))
	p.largest.Store(int64(largest))
}
