package search

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// follower shows what becomes searchable, once, whatever time it bears: a shard numbers its documents as it takes them
// (_seq_no), and what has a number above those seen is new, however late it is. Numbers are given a moment before documents
// can be found, so one may be found after its successor; for that what lies below is counted again for a while, and read
// again where the count has grown.
type follower struct {
	e      *Elasticsearch
	q      *Query
	shards []map[string]*reached // by number of the shard, by index
	listed map[string]struct{}   // shown before following began
	seen   int                   // ids in all shards
	emit   func(*Hit) error
}

// reached is how far a shard of an index is seen.
type reached struct {
	floor  int64            // nothing new is expected here and below
	middle int64            // the next floor
	top    int64            // highest number seen
	seen   map[string]int64 // ids above the floor, with their numbers
}

const (
	recount    = 10 * time.Second // a floor is at least so old, and at most twice
	startDepth = 10_000           // numbers below the first top that are looked at all the same
	maxSeen    = 300_000          // ids remembered; past them the floors rise sooner
	longPause  = 30 * time.Second // between tries while Elasticsearch does not answer
)

// Follow shows the newest q.Limit hits, oldest first, and then each new one until ctx ends. flush is called when all that was found is given.
func (e *Elasticsearch) Follow(ctx context.Context, q *Query, every time.Duration, fn func(*Hit) error, flush func() error) error {
	f := &follower{e: e, q: q, listed: map[string]struct{}{}, emit: fn}
	if err := f.start(ctx); err != nil {
		return err
	}
	hits, err := e.newest(ctx, *q, max(0, q.Limit))
	if err != nil {
		return err
	}
	for i := range hits {
		f.listed[hits[i].key()] = struct{}{}
		if err := fn(&hits[i]); err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	hits = nil
	turned, pause, away := time.Now(), every, false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		err := f.poll(ctx)
		if err == nil && (time.Since(turned) >= recount || f.seen > maxSeen) {
			if err = f.turn(ctx); err == nil {
				turned = time.Now()
			}
		}
		var given *outputError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &given):
			return given.err
		case err != nil && !passing(err):
			return err
		case err != nil && !away:
			e.warn("nothing new is seen for now; it is tried again, and what comes meanwhile is shown later: " + err.Error())
			away = true
		case err == nil && away:
			e.warn("Elasticsearch answers again")
			away = false
		}
		if pause = every; err != nil {
			pause = min(max(2*pause, time.Second), longPause)
		}
		if err := flush(); err != nil {
			return err
		}
	}
}

// start marks what there is already as seen.
func (f *follower) start(ctx context.Context) error {
	return f.each(ctx, func(n int, shard map[string]*reached) (bool, error) {
		a, err := f.e.search(ctx, f.q, f.path(n), map[string]any{"size": 0, "track_total_hits": false, "query": f.q.filter(),
			"aggs": map[string]any{"i": map[string]any{"terms": map[string]any{"field": "_index", "size": 10_000}, "aggs": map[string]any{"top": map[string]any{"max": map[string]any{"field": "_seq_no"}}}}}})
		if err != nil || a.Shards.Total == 0 {
			return false, err
		}
		if m := a.missing(); m != "" {
			return false, fmt.Errorf("what is there already must be known before new records can be: %s", m)
		}
		var got struct {
			I struct {
				Buckets []struct {
					Key string
					Top struct{ Value float64 }
				}
			}
		}
		if err := json.Unmarshal(a.Aggregations, &got); err != nil {
			return false, fmt.Errorf("elasticsearch: numbers of documents: %w", err)
		}
		for _, b := range got.I.Buckets {
			top := int64(b.Top.Value)
			shard[b.Key] = &reached{floor: max(-1, top-startDepth), middle: top, top: top, seen: map[string]int64{}}
		}
		_, err = f.read(ctx, n, shard, func(r *reached) int64 { return r.floor }, false)
		return true, err
	})
}

func (f *follower) path(shard int) string {
	return indexPath(f.q.Index, "/_search?preference="+url.QueryEscape(fmt.Sprintf("_shards:%d|%s", shard, f.e.session)))
}

// each calls fn with the shards by their number, until there is none of such a number: most indices have one alone.
func (f *follower) each(ctx context.Context, fn func(n int, shard map[string]*reached) (bool, error)) error {
	for n := 0; ; n++ {
		if n == len(f.shards) {
			f.shards = append(f.shards, map[string]*reached{})
		}
		if more, err := fn(n, f.shards[n]); err != nil || !more {
			return err
		}
	}
}

// above is the condition for numbers above from, in any index.
func above(shard map[string]*reached, from func(*reached) int64) map[string]any {
	var either []any
	known := slices.AppendSeq([]string{}, maps.Keys(shard)) // not null where there is none
	slices.Sort(known)
	for _, index := range known {
		either = append(either, inIndex(index, map[string]any{"gt": from(shard[index])}))
	}
	either = append(either, map[string]any{"bool": map[string]any{"must_not": map[string]any{"terms": map[string]any{"_index": known}}}})
	return map[string]any{"bool": map[string]any{"should": either, "minimum_should_match": 1}}
}

func inIndex(index string, numbers map[string]any) any {
	return map[string]any{"bool": map[string]any{"filter": []any{map[string]any{"term": map[string]any{"_index": index}}, map[string]any{"range": map[string]any{"_seq_no": numbers}}}}}
}

func (f *follower) poll(ctx context.Context) error {
	return f.each(ctx, func(n int, shard map[string]*reached) (bool, error) {
		return f.read(ctx, n, shard, func(r *reached) int64 { return r.top }, true)
	})
}

// read gives what is above from and not seen yet, the oldest first of each page, and tells whether there is such a shard at all.
func (f *follower) read(ctx context.Context, n int, shard map[string]*reached, from func(*reached) int64, give bool) (is bool, err error) {
	var after []json.RawMessage
	condition := above(shard, from) // as it was at the first page: tops rise meanwhile
	for size := firstPage; ; {
		body := map[string]any{"size": size, "track_total_hits": false, "_source": give, "seq_no_primary_term": true, "query": f.q.filter(condition), "sort": []any{map[string]any{"_seq_no": "asc"}, map[string]any{"_index": "asc"}}}
		if after != nil {
			body["search_after"] = after
		}
		a, err := f.e.search(ctx, f.q, f.path(n), body)
		if tooMuch(err) && size > 1 {
			size = max(1, size/4)
			continue
		}
		if err != nil {
			return is, err
		}
		is = a.Shards.Total > 0
		var fresh []timed
		for i := range a.Hits.Hits {
			h := &a.Hits.Hits[i]
			r := shard[h.Index]
			if r == nil {
				r = &reached{floor: -1, middle: -1, top: -1, seen: map[string]int64{}}
				shard[h.Index] = r
			}
			if _, ok := r.seen[h.ID]; ok || h.Seq <= r.floor {
				continue
			}
			r.seen[h.ID] = h.Seq
			r.top = max(r.top, h.Seq)
			f.seen++
			if _, ok := f.listed[h.key()]; give && !ok {
				t := timed{hit: h}
				if doc, err := h.Document(); err == nil {
					t.at = doc.Line().At
				}
				fresh = append(fresh, t)
			}
		}
		slices.SortStableFunc(fresh, func(a, b timed) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
		for _, t := range fresh {
			if err := f.emit(t.hit); err != nil {
				return is, &outputError{err}
			}
		}
		if len(a.Hits.Hits) < size {
			return is, nil
		}
		after = a.Hits.Hits[size-1].Sort
		if a.size < comfort {
			size = min(maxPage, 2*size)
		}
	}
}

type timed struct {
	hit *Hit
	at  time.Time
}

// turn counts what lies between the floors and the tops, reads it again where there is more than was seen, and raises the floors.
func (f *follower) turn(ctx context.Context) error {
	for n, shard := range f.shards {
		grown, err := f.grown(ctx, n, shard)
		if err == nil && grown {
			_, err = f.read(ctx, n, shard, func(r *reached) int64 { return r.floor }, true)
		}
		if err != nil {
			return err
		}
		for _, r := range shard {
			for id, seq := range r.seen {
				if seq <= r.middle {
					delete(r.seen, id)
					f.seen--
				}
			}
			r.floor, r.middle = r.middle, r.top
		}
	}
	return nil
}

func (f *follower) grown(ctx context.Context, n int, shard map[string]*reached) (bool, error) {
	var ranges []any
	for _, index := range slices.Sorted(maps.Keys(shard)) {
		if r := shard[index]; r.top > r.floor {
			ranges = append(ranges, inIndex(index, map[string]any{"gt": r.floor, "lte": r.top}))
		}
	}
	if len(ranges) == 0 {
		return false, nil
	}
	a, err := f.e.search(ctx, f.q, f.path(n), map[string]any{"size": 0, "track_total_hits": false, "query": f.q.filter(map[string]any{"bool": map[string]any{"should": ranges, "minimum_should_match": 1}}),
		"aggs": map[string]any{"i": map[string]any{"terms": map[string]any{"field": "_index", "size": 10_000}}}})
	if err != nil {
		return false, err
	}
	var got struct {
		I struct {
			Buckets []struct {
				Key   string
				Count int `json:"doc_count"`
			}
		}
	}
	if err := json.Unmarshal(a.Aggregations, &got); err != nil {
		return false, fmt.Errorf("elasticsearch: counts of documents: %w", err)
	}
	for _, b := range got.I.Buckets {
		if r := shard[b.Key]; r != nil && b.Count > len(r.seen) {
			return true, nil
		}
	}
	return false, nil
}

// outputError is a hit that could not be given.
type outputError struct{ err error }

func (o *outputError) Error() string { return o.err.Error() }

// passing tells whether to go on trying: nobody answers, or somebody who may answer otherwise soon.
func passing(err error) bool {
	var a *answerError
	var q *QueryError
	return !errors.As(err, &q) && (!errors.As(err, &a) || a.status >= 500 || a.status == http.StatusTooManyRequests || a.status == http.StatusNotFound)
}
