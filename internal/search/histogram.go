package search

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"weir/internal/show"
)

// Histogram counts the hits by time and level, in at most rows steps.
func (e *Elasticsearch) Histogram(ctx context.Context, q *Query, rows int) ([]show.Bucket, time.Duration, error) {
	from, to := q.Since, q.Until
	if to.IsZero() || from.IsZero() {
		first, last, ok, err := e.span(ctx, q)
		if err != nil || !ok {
			return nil, time.Second, err
		}
		if from.IsZero() {
			from = first
		}
		if to.IsZero() {
			to = last
		}
	}
	step := show.Step(to.Sub(from), rows)
	bounds := map[string]any{"min": from.UnixMilli(), "max": max(from.UnixMilli(), to.UnixMilli()-1)}
	a, err := e.search(ctx, q, indexPath(q.Index, "/_search"), map[string]any{"size": 0, "track_total_hits": false, "query": q.filter(), "aggs": map[string]any{"h": map[string]any{
		"date_histogram": map[string]any{"field": "@timestamp", "fixed_interval": fmt.Sprintf("%ds", int64(step/time.Second)), "time_zone": from.Local().Format("-07:00"), "min_doc_count": 0, "extended_bounds": bounds},
		"aggs":           map[string]any{"levels": map[string]any{"terms": map[string]any{"field": "log.level", "size": 100}}}}}})
	if err != nil {
		return nil, 0, err
	}
	buckets, err := bucketsOf(a.Aggregations)
	return buckets, step, err
}

// span is the time of the first and of the last hit.
func (e *Elasticsearch) span(ctx context.Context, q *Query) (first, last time.Time, ok bool, err error) {
	of := func(kind string) map[string]any { return map[string]any{kind: map[string]any{"field": "@timestamp"}} }
	a, err := e.search(ctx, q, indexPath(q.Index, "/_search"), map[string]any{"size": 0, "track_total_hits": false, "query": q.filter(), "aggs": map[string]any{"first": of("min"), "last": of("max")}})
	if err != nil {
		return first, last, false, err
	}
	var got struct{ First, Last struct{ Value *float64 } }
	if err := json.Unmarshal(a.Aggregations, &got); err != nil {
		return first, last, false, fmt.Errorf("elasticsearch: first and last record: %w", err)
	}
	if got.First.Value == nil || got.Last.Value == nil {
		return first, last, false, nil
	}
	return time.UnixMilli(int64(*got.First.Value)), time.UnixMilli(int64(*got.Last.Value) + 1), true, nil
}

// bucketsOf takes the answer apart.
func bucketsOf(raw json.RawMessage) ([]show.Bucket, error) {
	var got struct {
		H struct {
			Buckets []struct {
				Key    int64
				Count  int64 `json:"doc_count"`
				Levels struct {
					Buckets []struct {
						Key   string
						Count int64 `json:"doc_count"`
					}
				}
			}
		}
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		return nil, fmt.Errorf("elasticsearch: histogram: %w", err)
	}
	var all []show.Bucket
	for _, b := range got.H.Buckets {
		bucket := show.Bucket{At: time.UnixMilli(b.Key), Levels: map[string]int64{}}
		rest := b.Count
		for _, l := range b.Levels.Buckets {
			bucket.Levels[l.Key] += l.Count
			rest -= l.Count
		}
		if rest > 0 {
			bucket.Levels[""] = rest
		}
		all = append(all, bucket)
	}
	return all, nil
}
