// Package demo is a make-believe container host for a first look at weir on a machine without Docker: a few pretended
// containers write genuine Docker json-file logs, with rotation, and live and die through a pretended engine.
package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/internal/engine"
)

// Host is the make-believe container host.
type Host struct {
	engine     *engine.Engine
	containers []*pretended
}

type pretended struct {
	id   string
	log  *logFile
	life func(context.Context, *Host, *pretended) error
}

// Open makes the containers' folders under dir, or takes up those of an earlier run.
func Open(dir string) (*Host, error) {
	e, err := engine.Listen()
	if err != nil {
		return nil, err
	}
	h := &Host{engine: e}
	for _, c := range []struct {
		name, image, app string
		life             func(context.Context, *Host, *pretended) error
	}{
		{"gateway-1", "shop/gateway:2.4", "gateway", gateway},
		{"checkout-1", "shop/checkout:1.9.1", "checkout", checkout},
		{"checkout-2", "shop/checkout:1.9.1", "checkout", checkout},
		{"ledger-1", "bank/ledger:7.0", "ledger", ledger},
		{"report-1", "bank/report:3", "report", report},
		{"cache-1", "shop/cache:5", "cache", cache},
	} {
		sum := sha256.Sum256([]byte(dir + c.name))
		id := hex.EncodeToString(sum[:])
		folder := filepath.Join(dir, id)
		if err := os.MkdirAll(folder, 0o750); err != nil {
			return nil, fmt.Errorf("demo: %w", err)
		}
		p := &pretended{id: id, life: c.life, log: &logFile{path: filepath.Join(folder, id+"-json.log")}}
		h.containers = append(h.containers, p)
		e.Add(engine.Container{ID: id, Name: c.name, Image: c.image, LogPath: p.log.path, Labels: map[string]string{"weir.app": c.app, "weir.demo": "true"}})
	}
	return h, nil
}

// Address is what to give to a Docker client, as DOCKER_HOST.
func (h *Host) Address() string { return h.engine.Address() }

// Containers is how many are pretended.
func (h *Host) Containers() int { return len(h.containers) }

// Run lets the containers live until ctx ends. The engine answers for as long as serving lasts, so that an agent that
// stops later still finds it.
func (h *Host) Run(ctx, serving context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return h.engine.Serve(serving) })
	for _, p := range h.containers {
		g.Go(func() error {
			err := p.life(ctx, h, p)
			if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				err = nil
			}
			return errors.Join(err, p.log.close())
		})
	}
	return g.Wait()
}

// sleep waits for about d, and says whether ctx still holds.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
