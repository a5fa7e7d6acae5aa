package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/internal/bench/loglines"
	"weir/schema"
)

// The aims for the indexer; docs/performance.md says what was reached.
const (
	aimLimitShare = 0.9
	aimESShare    = 0.1
	aimIndexerRSS = 128.0
	aimSearchP99  = 2000.0
)

const (
	created = `weir_indexer_documents_total{result="created"}`
	senders = 4 // of prepared requests at once, as the indexer has by default
)

// indexer measures the indexer from a filled topic into Elasticsearch, then the same documents sent by a bare loop, then how long a
// line takes from its writing to a search that finds it.
func (b *bench) indexer(ctx context.Context) error {
	if b.elastic == "" || b.elasticPid == 0 {
		return errors.New("no Elasticsearch: run `make bench-indexer`, or give -elasticsearch and -elasticsearch-pid")
	}
	if err := b.topics(ctx); err != nil {
		return err
	}
	fmt.Printf("filling the topic with %d records\n", b.records)
	if err := b.fill(ctx); err != nil {
		return err
	}
	mark := strconv.FormatInt(time.Now().Unix(), 36)
	namespace, bare := "bencha"+mark, "benchb"+mark // of one length
	defer b.drop(namespace)
	defer b.drop(bare)

	dir, err := b.folder("indexer")
	if err != nil {
		return err
	}
	es0, err := taken(b.elasticPid)
	if err != nil {
		return err
	}
	p, err := b.startIndexer(dir, namespace)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	if err := p.await(limit, created, 1); err != nil {
		return err
	}
	began, had := time.Now(), p.metric(created)
	if err := p.await(limit, created, float64(b.records)); err != nil {
		return err
	}
	rate := (float64(b.records) - had) / time.Since(began).Seconds()
	sent := written(p.cmd.Process.Pid)
	used, err := p.stop()
	if err != nil {
		return err
	}
	es1, err := taken(b.elasticPid)
	if err != nil {
		return err
	}
	es := (es1.cpu - es0.cpu).Seconds()
	fmt.Printf("indexer: %.0f records a second, %.1f s CPU beside Elasticsearch's %.1f, %.0f MB sent, %.0f MB RSS\n", rate, used.cpu.Seconds(), es, sent, used.rssMB)
	if n, err := b.found(ctx, namespace); err != nil || n != b.records {
		return fmt.Errorf("%d documents of %d records: %w", n, b.records, err)
	}

	size, err := b.size(ctx, namespace)
	if err != nil {
		return err
	}
	fmt.Printf("%.0f bytes a record in Elasticsearch\n", float64(size)/float64(b.records))

	bodies, err := b.prepare(ctx, namespace, bare)
	if err != nil {
		return err
	}
	began = time.Now()
	if err := b.sendAll(ctx, bodies); err != nil {
		return err
	}
	limitRate := float64(b.records) / time.Since(began).Seconds()
	fmt.Printf("a bare loop of prepared requests: %.0f records a second\n", limitRate)
	if n, err := b.found(ctx, bare); err != nil || n != b.records {
		return fmt.Errorf("the bare loop: %d documents of %d: %w", n, b.records, err)
	}
	bodies = nil
	b.drop(namespace)
	b.drop(bare)

	p99, err := b.searchLatency(ctx, "benchc"+mark)
	if err != nil {
		return err
	}
	fmt.Printf("RESULT bench-indexer records_per_s=%.0f limit_records_per_s=%.0f cpu_s=%.1f es_cpu_s=%.1f peak_rss_mb=%.0f search_p99_ms=%.0f sent_mb=%.0f\n", rate, limitRate, used.cpu.Seconds(), es, used.rssMB, p99, sent)
	for _, a := range []struct {
		missed bool
		what   string
	}{{rate < aimLimitShare*limitRate, "rate as a share of the bare loop's"}, {used.cpu.Seconds() > aimESShare*es, "CPU as a share of Elasticsearch's"}, {used.rssMB > aimIndexerRSS, "RSS"}, {p99 > aimSearchP99, "search latency"}} {
		if a.missed {
			fmt.Fprintln(os.Stderr, "aim missed:", a.what)
		}
	}
	return nil
}

func (b *bench) startIndexer(dir, namespace string) (*process, error) {
	return start(b.binary, "indexer", dir, fmt.Sprintf("kafka:\n  brokers: [%s]\nindexer:\n  addresses: [%q]\n  namespace: %s\n  apply: true\n", b.broker, b.elastic, namespace))
}

// fill writes the records of twenty containers.
func (b *bench) fill(ctx context.Context) error {
	p, err := ingest.NewProducer(b.k, ingest.DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(running) })
	defer wg.Wait()
	defer stop()
	const sources, perBatch = 20, 1000
	r := rand.New(rand.NewPCG(3, 4))
	began := time.Now().Add(-time.Hour)
	for at := 0; at < b.records; at += perBatch {
		f := at / perBatch % sources
		source := fmt.Sprintf("docker/bench/%064x", f+1)
		inc := schema.Incarnation{Start: began.UnixNano(), Print: uint32(f)}
		var e schema.Encoder
		e.Reset(source, inc, []schema.Attr{schema.String(schema.AttrContainerID, source[len("docker/bench/"):]), schema.String(schema.AttrImageName, "registry/shop:7"), schema.String(schema.AttrContainerName, fmt.Sprintf("c%d", f)),
			schema.String(schema.AttrHostName, "bench"), schema.String(schema.AttrApp, fmt.Sprintf("app%d", f%5)), schema.String(schema.AttrFilePath, "/var/lib/docker/containers/c/c-json.log"), schema.String(schema.LabelPrefix+"app.kubernetes.io/name", "shop")})
		n := min(perBatch, b.records-at)
		first := int64(at/perBatch/sources) * perBatch * 300
		for i := range n {
			when := began.Add(time.Duration(at+i) * time.Microsecond)
			line := loglines.Text(r, when, f, (at+i)%57) // none of the long ones
			e.Append(&schema.Record{Time: when.UnixNano(), Observed: when.UnixNano() + 1e6, Body: string(line), Offset: first + int64(i)*300, Severity: 9, SeverityText: "INFO",
				Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}})
		}
		m := ingest.Message{Topic: schema.TopicLogs, Source: source, Begin: schema.Position{Incarnation: inc, Offset: first}, End: schema.Position{Incarnation: inc, Offset: first + perBatch*300}, Count: n, Value: e.Take()}
		if err := p.Send(ctx, m); err != nil {
			return err
		}
	}
	return p.Flush(ctx)
}

// call asks Elasticsearch, and decodes its answer.
func (b *bench) call(ctx context.Context, method, path string, body, into any) error {
	var payload io.Reader
	if body != nil {
		j, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(b.elastic, "/")+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: status %d: %.300s", method, path, res.StatusCode, answer)
	}
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(answer, into)
}

func streams(namespace string) string { return "logs-weir.*-" + namespace }

func (b *bench) found(ctx context.Context, namespace string) (int, error) {
	if err := b.call(ctx, http.MethodPost, "/"+streams(namespace)+"/_refresh", nil, nil); err != nil {
		return 0, err
	}
	var c struct {
		Count int `json:"count"`
	}
	err := b.call(ctx, http.MethodGet, "/"+streams(namespace)+"/_count", nil, &c)
	return c.Count, err
}

// size is what the primaries of a namespace's indices take on disk.
func (b *bench) size(ctx context.Context, namespace string) (int64, error) {
	var stats struct {
		All struct {
			Primaries struct {
				Store struct {
					Bytes int64 `json:"size_in_bytes"`
				} `json:"store"`
			} `json:"primaries"`
		} `json:"_all"`
	}
	err := b.call(ctx, http.MethodGet, "/"+streams(namespace)+"/_stats/store", nil, &stats)
	return stats.All.Primaries.Store.Bytes, err
}

// drop deletes the data streams of a namespace as far as the server can.
func (b *bench) drop(namespace string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if b.call(ctx, http.MethodDelete, "/_data_stream/"+streams(namespace), nil, nil) == nil {
		return
	}
	// A server without that call deletes the indices of a data stream but for the one that is written to: a new one makes it an older one.
	var old map[string]any
	if b.call(ctx, http.MethodGet, "/"+streams(namespace)+"/_settings?expand_wildcards=all&filter_path=*.settings.index.uuid", nil, &old) != nil {
		return
	}
	for index := range old {
		stream := strings.TrimPrefix(index[:strings.Index(index, namespace)+len(namespace)], ".ds-")
		if b.call(ctx, http.MethodPost, "/"+stream+"/_rollover", nil, nil) == nil {
			_ = b.call(ctx, http.MethodDelete, "/"+index, nil, nil)
		}
	}
}

// prepare reads the documents back and makes compressed bulk requests of them, for other data streams.
func (b *bench) prepare(ctx context.Context, from, to string) (bodies [][]byte, err error) {
	type page struct {
		Scroll string `json:"_scroll_id"`
		Hits   struct {
			Hits []struct {
				ID     string          `json:"_id"`
				Index  string          `json:"_index"`
				Source json.RawMessage `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	var p page
	if err := b.call(ctx, http.MethodPost, "/"+streams(from)+"/_search?scroll=2m", map[string]any{"size": 5000, "sort": []string{"_doc"}}, &p); err != nil {
		return nil, err
	}
	var raw bytes.Buffer
	flush := func() error {
		if raw.Len() == 0 {
			return nil
		}
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
		if err != nil {
			return err
		}
		if _, err := z.Write(raw.Bytes()); err != nil {
			return err
		}
		raw.Reset()
		if err := z.Close(); err != nil {
			return err
		}
		bodies = append(bodies, packed.Bytes())
		return nil
	}
	for len(p.Hits.Hits) > 0 {
		for _, h := range p.Hits.Hits {
			stream := strings.TrimPrefix(h.Index[:strings.Index(h.Index, from)+len(from)], ".ds-")
			fmt.Fprintf(&raw, "{\"create\":{\"_index\":%q,\"_id\":%q}}\n", strings.Replace(stream, from, to, 1), h.ID)
			raw.Write(bytes.ReplaceAll(h.Source, []byte(from), []byte(to)))
			raw.WriteByte('\n')
			if raw.Len() > 4<<20 {
				if err := flush(); err != nil {
					return nil, err
				}
			}
		}
		next := map[string]any{"scroll": "2m", "scroll_id": p.Scroll}
		p = page{}
		if err := b.call(ctx, http.MethodPost, "/_search/scroll", next, &p); err != nil {
			return nil, err
		}
	}
	return bodies, flush()
}

// sendAll posts the requests, some at once.
func (b *bench) sendAll(ctx context.Context, bodies [][]byte) error {
	work := make(chan []byte)
	errs := make(chan error, senders)
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for body := range work {
				if err := b.send(ctx, body); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	var err error
	for _, body := range bodies {
		select {
		case work <- body:
			continue
		case err = <-errs:
		}
		break
	}
	close(work)
	wg.Wait()
	select {
	case later := <-errs:
		err = errors.Join(err, later)
	default:
	}
	return err
}

func (b *bench) send(ctx context.Context, body []byte) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(b.elastic, "/")+"/_bulk?filter_path=errors", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-ndjson")
		req.Header.Set("Content-Encoding", "gzip")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(res.Body)
		res.Body.Close()
		switch {
		case err != nil:
			return err
		case res.StatusCode == http.StatusTooManyRequests:
			time.Sleep(50 * time.Millisecond)
		case res.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"errors":false`)):
			return fmt.Errorf("a bulk request: status %d: %.300s", res.StatusCode, answer)
		default:
			return nil
		}
	}
}

// searchLatency lets four containers write 5,000 lines a second, and returns in ms how long a line takes until a search finds it, at the
// 99th percentile.
func (b *bench) searchLatency(ctx context.Context, namespace string) (float64, error) {
	const containers, perSecond, lineBytes, span = 4, 5000, 268, 30 * time.Second
	defer b.drop(namespace)
	dir, err := b.folder("search")
	if err != nil {
		return 0, err
	}
	if err := b.topics(ctx); err != nil {
		return 0, err
	}
	var logs []string
	for i := range containers {
		logs = append(logs, filepath.Join(dir, fmt.Sprintf("l%d-json.log", i)))
	}
	host, err := b.host(ctx, logs)
	if err != nil {
		return 0, err
	}
	indexer, err := b.startIndexer(dir, namespace)
	if err != nil {
		return 0, err
	}
	agent, err := startAgent(b.binary, dir, b.broker, host)
	if err != nil {
		return 0, err
	}
	time.Sleep(5 * time.Second)
	errs := make(chan error, containers)
	for f := range containers {
		go func() { errs <- write(ctx, logs[f], f, perSecond*lineBytes/containers, span) }()
	}
	var all []float64
	newest := make([]time.Time, containers) // the containers' own events, which are older than the first line, are not measured
	began := time.Now()
	for time.Since(began) < span {
		time.Sleep(50 * time.Millisecond)
		for f := range containers {
			at, err := b.newest(ctx, namespace, fmt.Sprintf("c%d", f))
			if err != nil || at.Before(began) {
				continue // the data stream is not there yet
			}
			now := time.Now()
			if !newest[f].IsZero() {
				for t := newest[f].Add(10 * time.Millisecond); !t.After(at); t = t.Add(10 * time.Millisecond) {
					all = append(all, float64(now.Sub(t).Milliseconds()))
				}
			}
			newest[f] = at
		}
	}
	for range containers {
		err = errors.Join(err, <-errs)
	}
	lines := agent.metric("weir_agent_records_total")
	_, err1 := agent.stop()
	_, err2 := indexer.stop()
	if err = errors.Join(err, err1, err2); err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return 0, errors.New("no search found a line")
	}
	p50, p99 := percentile(all, 50), percentile(all, 99)
	fmt.Printf("from a line's writing to a search that finds it, at %.0f lines a second: p50 %.0f ms, p99 %.0f ms\n", lines/span.Seconds(), p50, p99)
	return p99, nil
}

// newest finds the time of the youngest line of a container that a search sees.
func (b *bench) newest(ctx context.Context, namespace, container string) (time.Time, error) {
	var found struct {
		Hits struct {
			Hits []struct {
				Source struct {
					At time.Time `json:"@timestamp"`
				} `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	err := b.call(ctx, http.MethodPost, "/"+streams(namespace)+"/_search", map[string]any{"size": 1, "track_total_hits": false, "_source": []string{"@timestamp"}, "sort": []any{map[string]any{"@timestamp": "desc"}},
		"query": map[string]any{"term": map[string]any{"container.name": container}}}, &found)
	if err != nil || len(found.Hits.Hits) == 0 {
		return time.Time{}, err
	}
	return found.Hits.Hits[0].Source.At, nil
}

// written is how many megabytes a process has given to the kernel, nearly all of them to sockets.
func written(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "wchar: "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(n), 64)
			return v / 1e6
		}
	}
	return 0
}
