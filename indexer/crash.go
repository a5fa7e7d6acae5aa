package indexer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// maxAsked is how many ids one search asks for; Elasticsearch gives at most 10,000 hits.
const maxAsked = 5000

// news leaves out the documents that are there already. After a crash, the records since the last commit are read again; their ids keep
// them from being twice in one index, but not when the data stream was rolled over meanwhile. A partition is written in order, so
// once nothing of a request is there, nothing of what follows is.
func (p *partition) news(ctx context.Context, docs []doc) ([]doc, error) {
	there := map[string]bool{}
	for from, try := 0, 0; from < len(docs); {
		err := p.x.there(ctx, p, docs[from:min(len(docs), from+maxAsked)], there)
		switch {
		case err == nil:
			from, try = from+maxAsked, 0
		case code(err) == http.StatusForbidden && p.again:
			return nil, fmt.Errorf("what is replayed may be there already, and these credentials may not look: give them the privileges read and maintenance on logs-weir.*: %w", err)
		case code(err) == http.StatusForbidden:
			p.unsure = false
			p.x.log.Warn("the credentials may not search: after a crash and a rollover, records of the last commit interval may be there twice", "remedy", "give them the privileges read and maintenance on logs-weir.*", "err", err)
			return docs, nil
		default:
			p.x.say(try, "cannot ask Elasticsearch what it has from before; trying again", "topic", p.tp.Topic, "partition", p.tp.Partition, "err", err)
			if err := rest(ctx, try); err != nil {
				return nil, fmt.Errorf("%d documents of %s are not in Elasticsearch yet: %w", len(docs), p.tp, err)
			}
			try++
		}
	}
	p.unsure = p.again || len(there) > 0
	if len(there) == 0 {
		return docs, nil
	}
	kept := docs[:0]
	for i := range docs {
		if there[string(p.id(&docs[i]))] {
			p.x.m.documents.WithLabelValues("repeated").Inc()
		} else {
			kept = append(kept, docs[i])
		}
	}
	return kept, nil
}

// there adds the ids that the documents' data streams hold, in whichever of their indices.
func (x *Indexer) there(ctx context.Context, p *partition, docs []doc, found map[string]bool) error {
	var ids []string
	streams := map[string]bool{}
	for i := range docs {
		ids = append(ids, string(p.id(&docs[i])))
		streams[docs[i].stream.name] = true
	}
	index := "logs-weir.*"
	if len(streams) <= 10 {
		var names []string
		for s := range streams {
			names = append(names, s)
		}
		index = strings.Join(names, ",")
	}
	// What was written in the last second is seen only after a refresh.
	if err := x.call(ctx, http.MethodPost, "/"+index+"/_refresh?ignore_unavailable=true", "", nil); err != nil {
		return err
	}
	query, err := json.Marshal(map[string]any{"size": len(ids), "_source": false, "track_total_hits": false, "query": map[string]any{"ids": map[string]any{"values": ids}}})
	if err != nil {
		return err
	}
	var got struct {
		Hits struct {
			Hits []struct {
				ID string `json:"_id"`
			} `json:"hits"`
		} `json:"hits"`
	}
	if err := x.call(ctx, http.MethodPost, "/"+index+"/_search?ignore_unavailable=true&allow_partial_search_results=false&filter_path=hits.hits._id", string(query), &got); err != nil {
		return err
	}
	for _, h := range got.Hits.Hits {
		found[h.ID] = true
	}
	return nil
}
