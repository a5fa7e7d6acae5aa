package search

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

const (
	keepAlive  = "2m" // of a point in time, from page to page
	firstPage  = 100
	maxPage    = 1000
	comfort    = 4 << 20 // an answer of this size is no trouble to anybody
	maxRenewal = 3       // points in time that are lost one after the other without a hit between
	maxAtOnce  = 100_000 // hits at one place of the order that are remembered
)

// orderBy is the order of the hits: by time, and where that is the same by place in the log.
func orderBy(direction string) []any {
	return []any{
		map[string]any{"@timestamp": map[string]any{"order": direction, "format": "strict_date_optional_time_nanos", "numeric_type": "date_nanos", "unmapped_type": "date_nanos"}},
		map[string]any{"log.offset": map[string]any{"order": direction, "unmapped_type": "long"}},
	}
}

// pager reads everything that a query finds, page after page of one point in time. Where that is lost, it goes on in a new
// one from the last hit.
type pager struct {
	e     *Elasticsearch
	q     *Query
	pit   string
	size  int
	after []json.RawMessage
	last  []json.RawMessage   // place of the last hit
	shown map[string]struct{} // the hits there: the order among them is another in a new point in time
	left  int                 // hits that may still come; below zero: any number
}

// Each calls fn with every hit, in order.
func (e *Elasticsearch) Each(ctx context.Context, q *Query, fn func(*Hit) error) error {
	p := &pager{e: e, q: q, size: firstPage, left: q.Limit, shown: map[string]struct{}{}}
	defer p.close(ctx)
	renewals := 0
	for p.left != 0 {
		before := p.left
		more, err := p.page(ctx, func(h *Hit) error {
			renewals = 0
			p.left--
			return fn(h)
		})
		switch {
		case expired(err):
			if renewals++; renewals > maxRenewal {
				return fmt.Errorf("the point in time is lost again and again: %w", err)
			}
			p.renew()
			continue
		case tooMuch(err) && p.size > 1:
			p.size = max(1, p.size/4)
			continue
		case err != nil || !more:
			return err
		}
		if before < 0 {
			p.left = -1
		}
	}
	return nil
}

// renew goes on behind the last place, at the first of the hits there.
func (p *pager) renew() {
	p.pit = ""
	if p.last == nil {
		return
	}
	beforeAll := json.RawMessage("-1")
	if !p.q.Oldest {
		beforeAll = json.RawMessage(strconv.Itoa(math.MaxInt64))
	}
	p.after = append(slices.Clone(p.last), beforeAll)
}

func (p *pager) page(ctx context.Context, fn func(*Hit) error) (more bool, err error) {
	if p.pit == "" {
		if err := p.open(ctx); err != nil {
			return false, err
		}
	}
	direction := "desc"
	if p.q.Oldest {
		direction = "asc"
	}
	size := p.size
	if p.left > 0 {
		size = min(size, p.left+len(p.shown))
	}
	body := map[string]any{"size": size, "track_total_hits": false, "query": p.q.filter(), "pit": map[string]any{"id": p.pit, "keep_alive": keepAlive},
		"sort": append(orderBy(direction), map[string]any{"_shard_doc": direction})}
	if p.after != nil {
		body["search_after"] = p.after
	}
	a, err := p.e.search(ctx, p.q, "/_search", body)
	if err != nil {
		return false, err
	}
	if a.gone() {
		return false, &answerError{status: http.StatusNotFound, fault: a.Shards.Failures[0].Reason, text: a.missing()}
	}
	if a.PIT != "" {
		p.pit = a.PIT
	}
	for i := range a.Hits.Hits {
		h := &a.Hits.Hits[i]
		if len(h.Sort) != 3 {
			return false, fmt.Errorf("elasticsearch: a hit with %d sort values instead of 3", len(h.Sort))
		}
		if p.left == 0 {
			return false, nil
		}
		p.after = h.Sort
		if place := h.Sort[:2]; !slices.EqualFunc(place, p.last, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			p.last = place
			clear(p.shown)
		}
		if _, ok := p.shown[h.key()]; ok {
			continue
		}
		if len(p.shown) < maxAtOnce {
			p.shown[h.key()] = struct{}{}
		} else {
			p.e.once(fmt.Sprintf("more than %d records have the same time and offset (%s): should the point in time be lost there, some are shown twice", maxAtOnce, bytes.Join([][]byte{p.last[0], p.last[1]}, []byte(", "))))
		}
		if err := fn(h); err != nil {
			return false, err
		}
	}
	switch {
	case a.size > 4*comfort:
		p.size = max(1, p.size/2)
	case a.size < comfort:
		p.size = min(maxPage, p.size*2)
	}
	return len(a.Hits.Hits) == size, nil
}

func (p *pager) open(ctx context.Context) error {
	var got struct {
		ID     string
		Shards struct{ Total, Failed int } `json:"_shards"`
	}
	path := indexPath(p.q.Index, "/_pit?keep_alive="+keepAlive+"&allow_partial_search_results=true&preference="+url.QueryEscape(p.e.session))
	if err := p.e.ask(ctx, http.MethodPost, path, nil, &got); err != nil {
		return err
	}
	if got.Shards.Failed > 0 {
		p.e.partial = true
		p.e.once(fmt.Sprintf("%d of %d shards are not available", got.Shards.Failed, got.Shards.Total))
	}
	p.pit = got.ID
	return nil
}

// close frees what the point in time holds in the cluster; it would end by itself.
func (p *pager) close(ctx context.Context) {
	if p.pit == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	_ = p.e.try(ctx, http.MethodDelete, "/_pit", map[string]any{"id": p.pit}, nil)
}

// Around finds one record by its id, and up to n before and after it of the same source.
func (e *Elasticsearch) Around(ctx context.Context, index, id string, n int) (before []Hit, hit *Hit, after []Hit, err error) {
	q := &Query{Index: index}
	// Incarnations sort as text in the order in which their files were written: their starts have as many digits from 2001 until 2286.
	order := func(direction string) []any {
		by := orderBy(direction)
		return []any{by[0], map[string]any{"weir.incarnation": map[string]any{"order": direction, "unmapped_type": "keyword"}}, by[1]}
	}
	a, err := e.search(ctx, q, indexPath(index, "/_search"), map[string]any{"size": 1, "query": map[string]any{"ids": map[string]any{"values": []string{id}}}, "sort": order("asc")})
	if err != nil {
		return nil, nil, nil, err
	}
	if len(a.Hits.Hits) == 0 {
		if err := e.Complete(); err != nil {
			return nil, nil, nil, err
		}
		return nil, nil, nil, fmt.Errorf("%s has no record with the id %q; --json shows ids as _id", index, id)
	}
	hit = &a.Hits.Hits[0]
	doc, err := hit.Document()
	if err != nil {
		return nil, nil, nil, err
	}
	source := doc.Text("weir.source")
	if source == "" {
		return nil, nil, nil, fmt.Errorf("the record %q has no weir.source, so nothing is known to be around it", id)
	}
	beside := func(direction string) ([]Hit, error) {
		var all []Hit
		from := hit.Sort
		for size := min(n, firstPage); len(all) < n; {
			a, err := e.search(ctx, q, indexPath(index, "/_search"), map[string]any{"size": min(size, n-len(all)), "track_total_hits": false, "sort": order(direction), "search_after": from,
				"query": map[string]any{"bool": map[string]any{"filter": map[string]any{"term": map[string]any{"weir.source": source}}}}})
			if tooMuch(err) && size > 1 {
				size = max(1, size/4)
				continue
			}
			if err != nil {
				return nil, err
			}
			if len(a.Hits.Hits) == 0 {
				break
			}
			all = append(all, a.Hits.Hits...)
			from = all[len(all)-1].Sort
		}
		return all, nil
	}
	if before, err = beside("desc"); err == nil {
		slices.Reverse(before)
		after, err = beside("asc")
	}
	return before, hit, after, err
}

var errEnough = errors.New("enough")

// newest reads the newest n hits, oldest first.
func (e *Elasticsearch) newest(ctx context.Context, q Query, n int) ([]Hit, error) {
	var hits []Hit
	q.Oldest, q.Limit = false, n
	size := 0
	err := e.Each(ctx, &q, func(h *Hit) error {
		if hits, size = append(hits, *h), size+len(h.Source); size > e.bytes {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		e.once(fmt.Sprintf("the newest %d records are larger than %d bytes; the rest of the %d is left out", len(hits), e.bytes, n))
		err = nil
	}
	slices.Reverse(hits)
	return hits, err
}
