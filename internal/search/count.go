package search

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// CountBySource calls fn with the number of hits of each source in each hour.
func (e *Elasticsearch) CountBySource(ctx context.Context, q *Query, fn func(source string, hour time.Time, n int64) error) error {
	by := map[string]any{"size": 1000, "sources": []any{
		map[string]any{"source": map[string]any{"terms": map[string]any{"field": "weir.source"}}},
		map[string]any{"hour": map[string]any{"date_histogram": map[string]any{"field": "@timestamp", "fixed_interval": "1h"}}},
	}}
	for {
		a, err := e.search(ctx, q, indexPath(q.Index, "/_search"), map[string]any{"size": 0, "track_total_hits": false, "query": q.filter(), "aggs": map[string]any{"by": map[string]any{"composite": by}}})
		if err != nil {
			return err
		}
		if len(a.Aggregations) == 0 {
			return nil // there is no index
		}
		var got struct {
			By struct {
				After   json.RawMessage `json:"after_key"`
				Buckets []struct {
					Key struct {
						Source string
						Hour   int64
					}
					Count int64 `json:"doc_count"`
				}
			}
		}
		if err := json.Unmarshal(a.Aggregations, &got); err != nil {
			return fmt.Errorf("elasticsearch: counts by source: %w", err)
		}
		for _, b := range got.By.Buckets {
			if err := fn(b.Key.Source, time.UnixMilli(b.Key.Hour), b.Count); err != nil {
				return err
			}
		}
		if len(got.By.Buckets) == 0 || len(got.By.After) == 0 {
			return nil
		}
		by["after"] = got.By.After
	}
}
