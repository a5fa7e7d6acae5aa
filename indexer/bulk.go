package indexer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// maxAnswer bounds what is read of an answer: about 300 bytes an item, for the smallest documents.
const maxAnswer = 256 << 20

func readBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return b, err
}

type answer struct {
	Items []map[string]item `json:"items"`
}

type item struct {
	Status int    `json:"status"`
	ID     string `json:"_id"`
	Index  string `json:"_index"`
	Store  string `json:"failure_store"`
	Error  struct {
		Type   string `json:"type"`
		Reason string `json:"reason"`
	} `json:"error"`
}

// bulk returns nil when every document is durable, was there already, or is in the dead letters. Temporary refusals are
// tried again, those documents alone, until ctx ends.
func (p *partition) bulk(ctx context.Context, docs []doc) error {
	for try := 0; len(docs) > 0; {
		status, a, err := p.send(ctx, docs)
		switch {
		case err != nil, status == http.StatusTooManyRequests, status >= 500, status == http.StatusUnauthorized, status == http.StatusForbidden:
			p.x.say(try, "Elasticsearch does not take a bulk request; trying again", "index", p.index, "documents", len(docs), "status", status, "err", err,
				"remedy", "check that the cluster is up and not overloaded, and that the credentials may write")
		case status == http.StatusRequestEntityTooLarge && len(docs) > 1:
			half := len(docs) / 2
			if err := p.bulk(ctx, docs[:half]); err != nil {
				return err
			}
			docs = docs[half:]
			continue
		case status == http.StatusRequestEntityTooLarge:
			return p.bury(ctx, docs[0], "larger than the cluster's http.max_content_length")
		case status >= 300:
			return fmt.Errorf("bulk request to %s: status %d: %s", p.index, status, a.reason())
		default:
			left, err := p.judge(ctx, docs, a)
			if err != nil {
				return err
			}
			if len(left) < len(docs) {
				try = 0
			}
			docs = left
			if len(docs) == 0 {
				return nil
			}
			p.x.m.retries.Add(float64(len(docs)))
			p.x.say(try, "Elasticsearch refuses documents for now; trying them again", "index", p.index, "documents", len(docs))
		}
		wait := min(100*time.Millisecond<<min(try, 10), 30*time.Second)
		try++
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%d documents are not in %s yet: %w", len(docs), p.index, context.Cause(ctx))
		case <-t.C:
		}
	}
	return nil
}

func (a *answer) reason() string {
	for _, i := range a.Items {
		for _, v := range i {
			return v.Error.Reason
		}
	}
	return "no reason given"
}

// say logs the first try and then ever fewer.
func (x *Indexer) say(try int, msg string, args ...any) {
	if try&(try+1) == 0 {
		x.log.Warn(msg, append(args, "try", try+1)...)
	}
}

func (p *partition) send(ctx context.Context, docs []doc) (int, *answer, error) {
	ctx, cancel := context.WithTimeout(ctx, p.x.cfg.RequestTimeout)
	defer cancel()
	body := make([]io.Reader, 0, 8)
	for i := 0; i < len(docs); { // neighbours in the buffer are one reader
		j := i + 1
		for j < len(docs) && docs[j].from == docs[j-1].to {
			j++
		}
		body = append(body, bytes.NewReader(p.buf[docs[i].from:docs[j-1].to]))
		i = j
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/"+p.index+"/_bulk", io.MultiReader(body...))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	start := time.Now()
	res, err := p.x.es.Perform(req)
	p.x.m.seconds.Observe(time.Since(start).Seconds())
	if err != nil {
		p.x.m.requests.WithLabelValues("error").Inc()
		return 0, nil, err
	}
	defer res.Body.Close()
	p.x.m.requests.WithLabelValues(strconv.Itoa(res.StatusCode)).Inc()
	b, err := readBounded(res.Body)
	if err != nil {
		return 0, nil, err
	}
	a := new(answer)
	if err := json.Unmarshal(b, a); err != nil && res.StatusCode < 300 {
		return 0, nil, fmt.Errorf("the answer to a bulk request is not JSON: %w", err)
	}
	return res.StatusCode, a, nil
}

// judge gives each item its verdict and returns the documents to try again.
func (p *partition) judge(ctx context.Context, docs []doc, a *answer) (again []doc, err error) {
	if len(a.Items) != len(docs) {
		return nil, fmt.Errorf("bulk request to %s: %d items were sent, %d answered", p.index, len(docs), len(a.Items))
	}
	for i, d := range docs {
		it, ok := a.Items[i]["create"]
		if !ok || it.ID != d.id {
			return nil, fmt.Errorf("bulk request to %s: item %d of the answer is of %q, not of %q", p.index, i, it.ID, d.id)
		}
		switch {
		case it.Status/100 == 2 && it.Store != "used":
			p.x.m.documents.WithLabelValues("created").Inc()
		case it.Status == http.StatusConflict:
			p.x.m.documents.WithLabelValues("repeated").Inc()
		case it.Status == http.StatusTooManyRequests || it.Status >= 500 || it.Error.Type == "cluster_block_exception":
			again = append(again, d)
		default:
			reason := it.Error.Type + ": " + it.Error.Reason
			if it.Store == "used" {
				reason = "redirected to the failure store"
			}
			if err := p.bury(ctx, d, reason); err != nil {
				return nil, err
			}
		}
	}
	return again, nil
}

func (p *partition) bury(ctx context.Context, d doc, reason string) error {
	if p.x.dead == nil {
		return fmt.Errorf("document %s of %s offset %d is refused by %s for good, and there are no dead letters: %s", d.id, p.tp, d.offset, p.index, reason)
	}
	p.x.m.documents.WithLabelValues("dead_letter").Inc()
	p.x.log.Error("a document goes to the dead letters", "id", d.id, "index", p.index, "topic", p.tp.Topic, "partition", p.tp.Partition, "offset", d.offset, "reason", reason)
	return p.x.dead.Put(ctx, DeadLetter{Topic: p.tp.Topic, Partition: p.tp.Partition, Offset: d.offset, ID: d.id, Index: p.index, Reason: reason, Document: bytes.Clone(p.buf[d.body : d.to-1])})
}
