package audit

import (
	"context"
	"strings"
	"time"

	"weir/internal/search"
)

// Elasticsearch is an Index.
type Elasticsearch struct {
	Search *search.Elasticsearch
	Index  string // data streams, as a pattern
}

// notLetters leaves out what the archive has none of.
const notLetters = "not event.action: weir.deadletter*"

func (e *Elasticsearch) Counts(ctx context.Context, since, until time.Time, container string, fn func(source string, hour time.Time, n int64) error) error {
	kql := notLetters
	if container != "" {
		kql += " and container.id: " + container + "*"
	}
	if err := e.Search.CountBySource(ctx, &search.Query{KQL: kql, Since: since, Until: until, Index: e.Index, Limit: -1}, fn); err != nil {
		return err
	}
	return e.Search.Complete()
}

func (e *Elasticsearch) IDs(ctx context.Context, source string, since, until time.Time, fn func(id, index string) error) error {
	kql := notLetters + ` and weir.source: "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(source) + `"`
	err := e.Search.Each(ctx, &search.Query{KQL: kql, Since: since, Until: until, Index: e.Index, Oldest: true, Limit: -1}, func(h *search.Hit) error { return fn(h.ID, h.Index) })
	if err != nil {
		return err
	}
	return e.Search.Complete()
}
