package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"
)

// logFile writes as Docker's json-file driver does: one JSON object for each piece of at most 16 KiB, the file renamed
// when it is full, the oldest dropped.
type logFile struct {
	path string

	mu   sync.Mutex
	f    *os.File
	size int64
}

const (
	pieceBytes   = 16 << 10
	maxFileBytes = 1 << 20
	maxFiles     = 5
)

func (l *logFile) line(stream, text string) error {
	text += "\n"
	for len(text) > 0 {
		n := min(len(text), pieceBytes)
		if err := l.piece(stream, text[:n]); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

func (l *logFile) piece(stream, text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		info, err := f.Stat()
		if err != nil {
			return errors.Join(fmt.Errorf("demo: %w", err), f.Close())
		}
		l.f, l.size = f, info.Size()
	}
	b, err := json.Marshal(struct {
		Log    string    `json:"log"`
		Stream string    `json:"stream"`
		Time   time.Time `json:"time"`
	}{text, stream, time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	n, err := l.f.Write(append(b, '\n'))
	l.size += int64(n)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if l.size < maxFileBytes {
		return nil
	}
	return l.rotate()
}

func (l *logFile) rotate() error {
	err := l.f.Close()
	l.f = nil
	for n := maxFiles - 1; n > 0; n-- {
		from := l.path
		if n > 1 {
			from = fmt.Sprintf("%s.%d", l.path, n-1)
		}
		if e := os.Rename(from, fmt.Sprintf("%s.%d", l.path, n)); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

func gateway(ctx context.Context, h *Host, p *pretended) error {
	h.engine.Start(p.id)
	paths := []string{"/", "/cart", "/api/v1/orders", "/api/v1/payments", "/static/app.js"}
	for sleep(ctx, 70*time.Millisecond) {
		status, took := 200, 5+rand.IntN(60)
		if rand.IntN(60) == 0 {
			status, took = 502, 3000
		}
		if err := p.log.line("stdout", fmt.Sprintf(`10.0.%d.%d - - [%s] "GET %s HTTP/1.1" %d %d "-" "okhttp/4.12" %d.%03d`,
			rand.IntN(9), rand.IntN(255), time.Now().UTC().Format("02/Jan/2006:15:04:05 -0700"), paths[rand.IntN(len(paths))], status, 200+rand.IntN(9000), took/1000, took%1000)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func checkout(ctx context.Context, h *Host, p *pretended) error {
	h.engine.Start(p.id)
	for sleep(ctx, 120*time.Millisecond) {
		stream, level, msg := "stdout", "info", "order accepted"
		switch rand.IntN(40) {
		case 0:
			stream, level, msg = "stderr", "error", "payment refused: upstream timed out"
		case 1:
			level, msg = "warn", "retrying payment"
		}
		if err := p.log.line(stream, fmt.Sprintf(`{"level":%q,"ts":%q,"msg":%q,"order":%d,"amount":"%d.%02d","trace_id":"%016x%016x"}`,
			level, time.Now().UTC().Format(time.RFC3339Nano), msg, 100_000+rand.IntN(900_000), rand.IntN(500), rand.IntN(100), rand.Uint64(), rand.Uint64())); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func ledger(ctx context.Context, h *Host, p *pretended) error {
	h.engine.Start(p.id)
	for n := 0; sleep(ctx, 150*time.Millisecond); n++ {
		at := time.Now().UTC().Format("2006-01-02 15:04:05.000")
		lines := []string{at + fmt.Sprintf("  INFO [posting-%d] c.b.ledger.Posting : posted entry %08d", rand.IntN(8), rand.IntN(1e8))}
		switch {
		case n%200 == 199: // longer than one piece
			lines = []string{at + "  INFO [main] c.b.ledger.Snapshot : " + strings.Repeat("account=0001 balance=12.34; ", 1000)}
		case rand.IntN(80) == 0:
			lines = []string{at + " ERROR [posting-3] c.b.ledger.Posting : entry refused",
				"java.lang.IllegalStateException: period is closed", "\tat c.b.ledger.Posting.post(Posting.java:118)", "\tat c.b.ledger.Posting.run(Posting.java:61)"}
		}
		for _, line := range lines {
			if err := p.log.line("stdout", line); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// report is a job that runs again and again; each third time it fails.
func report(ctx context.Context, h *Host, p *pretended) error {
	for n := 1; ; n++ {
		h.engine.Start(p.id)
		for i := range 20 {
			if !sleep(ctx, 100*time.Millisecond) {
				return ctx.Err()
			}
			if err := p.log.line("stdout", fmt.Sprintf("level=info report=%d page=%d rows=%d", n, i, rand.IntN(1000))); err != nil {
				return err
			}
		}
		code := 0
		if n%3 == 0 {
			code = 1
			if err := p.log.line("stderr", fmt.Sprintf("level=error report=%d msg=\"cannot write the report: no space left on device\"", n)); err != nil {
				return err
			}
		}
		h.engine.Die(p.id, code)
		if !sleep(ctx, 8*time.Second) {
			return ctx.Err()
		}
	}
}

// cache grows until it is killed.
func cache(ctx context.Context, h *Host, p *pretended) error {
	for {
		h.engine.Start(p.id)
		for mb := 64; mb <= 512; mb += 16 {
			if !sleep(ctx, time.Second) {
				return ctx.Err()
			}
			if err := p.log.line("stdout", fmt.Sprintf("I%s       1 cache.go:77] resident=%dMB limit=512MB", time.Now().UTC().Format("0102 15:04:05.000000"), mb)); err != nil {
				return err
			}
		}
		h.engine.OOM(p.id)
		h.engine.Die(p.id, 137)
		if !sleep(ctx, 3*time.Second) {
			return ctx.Err()
		}
	}
}
