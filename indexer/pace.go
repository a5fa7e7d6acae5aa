package indexer

import (
	"context"
	"sync"
	"time"
)

// How fast Elasticsearch is written to follows what it answers: additive increase, multiplicative decrease, as TCP does.
const (
	// A bulk request below this costs more in overhead than it saves.
	minBulk = 64 << 10
	// What each good answer adds to a request's size: from the smallest to 4 MiB takes 16 requests.
	growBulk = 256 << 10
	// A request that takes longer holds its partition back, and with it the commit (5 s by default) and how soon its records
	// are found; so it was too large for what the cluster does at the moment.
	slowBulk = 2 * time.Second
)

// pace bounds how many bulk requests are under way and how large they are. It serves all partitions.
type pace struct {
	most, mostBytes int

	mu     sync.Mutex
	freed  chan struct{} // closed when a place may be free
	busy   int
	limit  float64 // requests at once
	bytes  int     // of one request
	cut    time.Time
	budget int // bytes of all partitions' buffers together
	open   int // partitions
}

func newPace(cfg *Config) *pace {
	return &pace{most: cfg.Concurrency, mostBytes: cfg.BulkBytes, limit: float64(cfg.Concurrency), bytes: min(cfg.BulkBytes, 1<<20), budget: cfg.BufferBytes, freed: make(chan struct{})}
}

func (p *pace) opened(n int) {
	p.mu.Lock()
	p.open += n
	p.mu.Unlock()
}

// size is how much a partition gathers before it sends.
func (p *pace) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(minBulk, min(p.bytes, p.budget/max(1, p.open)))
}

// enter waits for a place; leave gives it back.
func (p *pace) enter(ctx context.Context) error {
	for {
		p.mu.Lock()
		if p.busy < max(1, int(p.limit)) {
			p.busy++
			p.mu.Unlock()
			return nil
		}
		freed := p.freed
		p.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leave learns from a request that began at start. What was sent before the last cut says nothing of the pace after it.
func (p *pace) leave(start time.Time, refused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	now := time.Now()
	slow := now.Sub(start) > slowBulk
	switch {
	case (refused || slow) && start.Before(p.cut):
	case refused:
		p.cut = now
		p.limit = max(1, p.limit/2)
		p.bytes = max(minBulk, p.bytes/2)
	case slow:
		p.cut = now
		p.bytes = max(minBulk, p.bytes/2)
	default:
		p.limit = min(float64(p.most), p.limit+1/p.limit) // one more for each round of requests
		p.bytes = min(p.mostBytes, p.bytes+growBulk)
	}
	close(p.freed)
	p.freed = make(chan struct{})
}

func (p *pace) now() (requests, bytes float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limit, float64(p.bytes)
}
