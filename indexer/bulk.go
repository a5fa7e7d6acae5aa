package indexer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/klauspost/compress/gzip"

	"weir/schema"
)

// bulkPath asks for what is judged and no more: an item's full answer is as long as a short document.
const bulkPath = "/_bulk?filter_path=errors,error.type,error.reason,items.*._id,items.*.status,items.*.failure_store,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"

// longestWait is between two tries while Elasticsearch is away, and so how late it is noticed that it is back.
const longestWait = 10 * time.Second

type answer struct {
	Error fault `json:"error"` // of the whole request
	Items []struct {
		Create *item `json:"create"`
	} `json:"items"`
}

type item struct {
	Status int    `json:"status"`
	ID     string `json:"_id"`
	Store  string `json:"failure_store"`
	Error  fault  `json:"error"`
}

type fault struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
	Cause  struct {
		Reason string `json:"reason"`
	} `json:"caused_by"`
}

func (f *fault) String() string {
	s := f.Type + ": " + f.Reason
	if f.Cause.Reason != "" {
		s += ": " + f.Cause.Reason
	}
	return s
}

// bulk returns nil when every document is durable, was there already, or is in the dead letters. Temporary refusals are
// tried again, those documents alone, until ctx ends.
func (p *partition) bulk(ctx context.Context, docs []doc) error {
	most := len(docs) // documents of one request
	for try := 0; len(docs) > 0; {
		n := p.fitting(docs, most)
		status, a, err := p.send(ctx, docs[:n])
		switch {
		case err != nil, status == http.StatusTooManyRequests, status >= 500, status == http.StatusUnauthorized, status == http.StatusForbidden:
			reason := ""
			if a != nil {
				reason = a.Error.String()
			}
			p.x.say(try, "Elasticsearch does not take a bulk request; trying again", "topic", p.tp.Topic, "partition", p.tp.Partition, "documents", n, "status", status, "reason", reason, "err", err,
				"remedy", "check that the cluster is up and not overloaded, and that the credentials may write")
		case status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge:
			// The whole request is refused for one document, or for its size: halves of it find the one.
			if n > 1 {
				most = n / 2
				continue
			}
			reason := "larger than the cluster's http.max_content_length"
			if status == http.StatusBadRequest {
				reason = a.Error.String()
			}
			if err := p.bury(ctx, &docs[0], reason); err != nil {
				return err
			}
			docs, most, try = docs[1:], len(docs), 0
			continue
		case status >= 300:
			return fmt.Errorf("bulk request of %s: status %d: %s", p.tp, status, a.Error.String())
		default:
			left, err := p.judge(ctx, docs[:n], a)
			if err != nil {
				return err
			}
			docs = docs[n-left:]
			most = min(2*most, len(docs))
			if left == 0 {
				try = 0
				continue
			}
			if left < n {
				try = 0
			}
			p.x.m.retries.Add(float64(left))
			p.x.say(try, "Elasticsearch refuses documents for now; trying them again", "topic", p.tp.Topic, "partition", p.tp.Partition, "documents", left)
		}
		if err := rest(ctx, try); err != nil {
			return fmt.Errorf("%d documents of %s are not in Elasticsearch yet: %w", len(docs), p.tp, err)
		}
		try++
	}
	return nil
}

// rest waits after the try-th failure, with jitter, so that the partitions do not all come back at once.
func rest(ctx context.Context, try int) error {
	wait := min(100*time.Millisecond<<min(try, 10), longestWait)
	t := time.NewTimer(wait/2 + rand.N(wait/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// fitting counts the documents of the next request: at most most, and of the size that the pace allows.
func (p *partition) fitting(docs []doc, most int) int {
	n, size, limit := 0, 0, p.x.pace.size()
	for n < len(docs) && n < max(1, most) && (n == 0 || size < limit) {
		size += docs[n].to - docs[n].from
		n++
	}
	return n
}

// say logs the first try and then ever fewer.
func (x *Indexer) say(try int, msg string, args ...any) {
	if try&(try+1) == 0 {
		x.log.Warn(msg, append(args, "try", try+1)...)
	}
}

// pack compresses the documents into p.packed.
func (p *partition) pack(docs []doc) error {
	w := bytes.NewBuffer(p.packed[:0])
	z := p.x.zips.Get().(*gzip.Writer)
	defer p.x.zips.Put(z)
	z.Reset(w)
	for i := 0; i < len(docs); { // neighbours in the buffer are one run
		j := i + 1
		for j < len(docs) && docs[j].from == docs[j-1].to {
			j++
		}
		if _, err := z.Write(p.buf[docs[i].from:docs[j-1].to]); err != nil {
			return err
		}
		i = j
	}
	err := z.Close()
	p.packed = w.Bytes()
	return err
}

// send makes one try. The answer is nil where every document was created.
func (p *partition) send(ctx context.Context, docs []doc) (status int, a *answer, err error) {
	if err := p.pack(docs); err != nil {
		return 0, nil, err
	}
	if err := p.x.pace.enter(ctx); err != nil {
		return 0, nil, err
	}
	start := time.Now()
	defer func() {
		all := a == nil && err == nil
		p.x.pace.leave(start, !all && (err != nil || status == http.StatusTooManyRequests || status >= 500 || a.busy()))
	}()
	try, cancel := context.WithTimeout(ctx, p.x.cfg.RequestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(try, http.MethodPost, bulkPath, bytes.NewReader(p.packed))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Content-Encoding", "gzip")
	res, err := p.x.perform(req)
	p.x.m.seconds.Observe(time.Since(start).Seconds())
	if err != nil {
		p.x.m.requests.WithLabelValues("error").Inc()
		p.packed = nil // the connection may still be reading it
		return 0, nil, err
	}
	defer res.Body.Close()
	p.x.m.requests.WithLabelValues(strconv.Itoa(res.StatusCode)).Inc()
	p.x.m.sent.Add(float64(len(p.packed)))
	b, err := readBounded(res.Body)
	if err != nil {
		p.packed = nil
		return 0, nil, err
	}
	if res.StatusCode < 300 && p.allCreated(b, docs) {
		return res.StatusCode, nil, nil
	}
	a = new(answer)
	if err := json.Unmarshal(b, a); err != nil && res.StatusCode < 300 {
		return 0, nil, fmt.Errorf("the answer to a bulk request is not JSON: %w", err)
	}
	return res.StatusCode, a, nil
}

// busy tells whether the cluster was too busy for some of the documents.
func (a *answer) busy() bool {
	for i := range a.Items {
		if it := a.Items[i].Create; it != nil && (it.Status == http.StatusTooManyRequests || it.Status >= 500) {
			return true
		}
	}
	return false
}

// allCreated recognises the usual answer without taking it apart: each document, in order, was created.
func (p *partition) allCreated(b []byte, docs []doc) bool {
	ok := true
	take := func(s string) {
		if ok = ok && len(b) >= len(s) && string(b[:len(s)]) == s; ok {
			b = b[len(s):]
		}
	}
	take(`{"errors":false,"items":[`)
	for i := range docs {
		if i > 0 {
			take(",")
		}
		take(`{"create":{"_id":"`)
		id := p.id(&docs[i])
		if !ok || !bytes.HasPrefix(b, id) {
			return false
		}
		b = b[len(id):]
		take(`","status":201}}`)
	}
	take("]}")
	return ok && len(b) == 0
}

// judge gives each item its verdict, moves the documents to try again to the end of docs and counts them.
func (p *partition) judge(ctx context.Context, docs []doc, a *answer) (again int, err error) {
	if a == nil {
		p.x.m.documents.WithLabelValues("created").Add(float64(len(docs)))
		return 0, nil
	}
	if len(a.Items) != len(docs) {
		return 0, fmt.Errorf("bulk request of %s: %d items were sent, %d answered", p.tp, len(docs), len(a.Items))
	}
	for i := range docs {
		if it := a.Items[i].Create; it == nil || it.ID != string(p.id(&docs[i])) {
			return 0, fmt.Errorf("bulk request of %s: item %d of the answer is not of %s", p.tp, i, p.id(&docs[i]))
		}
	}
	for i := len(docs) - 1; i >= 0; i-- {
		it := a.Items[i].Create
		switch {
		case it.Status/100 == 2 && it.Store != "used":
			p.x.m.documents.WithLabelValues("created").Inc()
		case it.Status == http.StatusConflict:
			p.x.m.documents.WithLabelValues("repeated").Inc()
		case it.temporary():
			again++
			docs[len(docs)-again] = docs[i]
		default:
			reason := it.Error.String()
			switch it.Store {
			case "used":
				reason = "redirected to the failure store"
			case "failed":
				reason += " (and the failure store did not take it)"
			}
			if err := p.bury(ctx, &docs[i], reason); err != nil {
				return 0, err
			}
		}
	}
	return again, nil
}

// temporary tells whether the cluster, and not the document, is why an item was refused: it is busy, blocked, out of shards, or
// does not let these credentials write. Such an item would be taken once that is mended, so it is no dead letter.
func (it *item) temporary() bool {
	switch it.Status {
	case http.StatusTooManyRequests, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout:
		return true
	}
	switch it.Error.Type {
	case "cluster_block_exception", "index_closed_exception", "validation_exception":
		return true
	}
	return it.Status >= 500
}

func (p *partition) bury(ctx context.Context, d *doc, reason string) error {
	id := string(p.id(d))
	if p.x.dead == nil {
		return fmt.Errorf("document %s of %s offset %d is refused by %s for good, and there are no dead letters: %s", id, p.tp, d.offset, d.stream.name, reason)
	}
	p.x.m.documents.WithLabelValues("dead_letter").Inc()
	if p.tp.Topic == schema.TopicDeadLetter {
		// It is in the dead letters already; a letter about a letter would come back here.
		p.x.log.Error("a dead letter cannot be made searchable; it stays in its topic", "id", id, "offset", d.offset, "reason", reason)
		return nil
	}
	p.x.log.Error("a document goes to the dead letters", "id", id, "index", d.stream.name, "topic", p.tp.Topic, "partition", p.tp.Partition, "offset", d.offset, "reason", reason)
	document := bytes.Clone(p.buf[d.body : d.to-1])
	return p.x.dead.Put(ctx, DeadLetter{Topic: p.tp.Topic, Partition: p.tp.Partition, Offset: d.offset, ID: id, Index: d.stream.name, Source: d.source, Reason: reason, Bytes: len(document), Document: document})
}
