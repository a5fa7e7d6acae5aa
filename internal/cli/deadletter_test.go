//go:build e2e

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"weir/ingest"
	"weir/internal/broker"
	"weir/schema"
)

// elasticsearch asks the real server and wants success.
func elasticsearch(t *testing.T, method, path, body string, into any) {
	t.Helper()
	url := os.Getenv("WEIR_ELASTICSEARCH_URL")
	if url == "" {
		t.Fatal("WEIR_ELASTICSEARCH_URL is not set: run `make e2e`")
	}
	req, err := http.NewRequest(method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(res.Body)
	if res.StatusCode >= 300 && res.StatusCode != http.StatusNotFound {
		t.Fatalf("%s %s: %d %.500s", method, path, res.StatusCode, answer)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatal(err)
		}
	}
}

func documents(t *testing.T, stream, query string) int {
	t.Helper()
	elasticsearch(t, http.MethodPost, "/"+stream+"/_refresh?ignore_unavailable=true", "", nil)
	var found struct{ Count int }
	elasticsearch(t, http.MethodPost, "/"+stream+"/_count?ignore_unavailable=true", `{"query":`+query+`}`, &found)
	return found.Count
}

// TestDeadLettersAreReplayed has a data stream whose mapping refuses the records of one tenant. They wait in the dead letters until the
// mapping is mended, and then each is there once: also one that is too large for a letter, and not one that is no batch.
func TestDeadLettersAreReplayed(t *testing.T) {
	for _, name := range []string{"WEIR_KAFKA_BROKERS", "WEIR_ARCHIVE_ROOT"} {
		t.Setenv(name, "")
	}
	space := fmt.Sprintf("letters%d", time.Now().UnixNano())
	stream := "logs-weir.container-" + space
	b, err := broker.Start(t.TempDir(), 0, 256<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	config := writeConfig(t, fmt.Sprintf("kafka:\n  brokers: [%q]\ntopics:\n  partitions: 2\nconsumer:\n  commit_interval: 200ms\nindexer:\n  namespace: %s\n  apply: true\nhttp:\n  listen: \"\"\n", b.Addrs()[0], space))
	if exit, out, err := weir("topics", "apply", "--config", config); exit != 0 {
		t.Fatal(out, err)
	}
	if exit, out, err := weir("index", "apply", "--config", config); exit != 0 || !strings.Contains(out, "weir@mappings") {
		t.Fatal(out, err)
	}
	if exit, out, err := weir("index", "apply", "--dry-run", "--config", config); exit != 0 || strings.Count(out, "up to date") != 3 || !strings.Contains(out, "nothing was changed") || !strings.Contains(out, "note: the cluster has no index lifecycle management") {
		t.Errorf("a second apply: exit %d\n%s%s", exit, out, err)
	}
	template := func(tenant string) {
		elasticsearch(t, http.MethodPut, "/_index_template/weir-test-"+space, `{"index_patterns":["`+stream+`"],"priority":300,"composed_of":["weir@mappings","weir@settings"],"data_stream":{},"template":{"mappings":{"properties":{"weir":{"properties":{"tenant":{"type":"`+tenant+`"}}}}}}}`, nil)
	}
	template("long")

	kcfg := ingest.DefaultKafkaConfig()
	kcfg.Brokers = b.Addrs()
	k, err := ingest.NewKafka(kcfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	producer, err := ingest.NewProducer(k, ingest.DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 2)
	go func() { ended <- producer.Run(ctx) }()
	g := &globals{Config: config, out: new(output), err: new(output)}
	go func() { ended <- g.component(ctx, "indexer") }()
	t.Cleanup(func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})

	inc := schema.Incarnation{Start: 1764054000e9, Print: 7}
	send := func(source, tenant string, bodies ...string) {
		t.Helper()
		var e schema.Encoder
		e.Reset(source, inc, []schema.Attr{schema.String(schema.AttrTenant, tenant), schema.String(schema.AttrContainerName, "web")})
		for i, body := range bodies {
			e.Append(&schema.Record{Offset: int64(i), Time: time.Now().UnixNano(), Body: body})
		}
		at := schema.Position{Incarnation: inc}
		m := ingest.Message{Topic: schema.TopicLogs, Source: source, Begin: at, End: schema.Position{Incarnation: inc, Offset: int64(len(bodies))}, Prev: at, PrevKnown: true, Count: len(bodies), Value: e.Bytes()}
		if err := producer.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	lines := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint("line ", i))
		}
		return all
	}
	send("docker/n/good", "5", lines(20)...)
	send("docker/n/bad", "bank", lines(10)...)
	send("docker/n/large", "bank", strings.Repeat("large words ", 60_000)) // 720 kB
	if err := producer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	w := &kafka.Writer{Addr: kafka.TCP(b.Addrs()...), Topic: schema.TopicLogs, RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond, Transport: transport}
	if err := w.WriteMessages(t.Context(), kafka.Message{Key: []byte("x"), Value: []byte("not a batch")}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	list := func(args ...string) []map[string]any {
		t.Helper()
		exit, out, stderr := weir(append([]string{"deadletter", "list", "--json", "--config", config}, args...)...)
		if exit != 0 {
			t.Fatalf("exit %d: %s", exit, stderr)
		}
		var all []map[string]any
		for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
			if l == "" {
				continue
			}
			var m map[string]any
			if err := json.Unmarshal([]byte(l), &m); err != nil {
				t.Fatalf("%v: %s", err, l)
			}
			all = append(all, m)
		}
		return all
	}
	for deadline := time.Now().Add(time.Minute); len(list()) < 12 || documents(t, stream, `{"match_all":{}}`) < 20; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: %d letters, %d documents\n%s", len(list()), documents(t, stream, `{"match_all":{}}`), g.err)
		}
	}
	all := list("--since", "1h")
	if len(all) != 12 || documents(t, stream, `{"match_all":{}}`) != 20 {
		t.Errorf("%d letters, %d documents, want 12 and 20", len(all), documents(t, stream, `{"match_all":{}}`))
	}
	replayable, id := 0, ""
	for _, l := range all {
		if l["replayable"] == true {
			replayable++
			id = fmt.Sprint(l["id"])
			if l["index"] != stream || l["topic"] != schema.TopicLogs || !strings.Contains(fmt.Sprint(l["reason"]), "document_parsing_exception") || !strings.HasPrefix(fmt.Sprint(l["source"]), "docker/n/") {
				t.Errorf("letter %v", l)
			}
		} else if !strings.Contains(fmt.Sprint(l["reason"]), "not a weir batch") {
			t.Errorf("letter %v", l)
		}
	}
	if replayable != 11 || len(list("--reason", "not a weir batch")) != 1 || len(list("--topic", "weir.events")) != 0 {
		t.Errorf("%d can be replayed", replayable)
	}
	if exit, out, stderr := weir("deadletter", "list", "--config", config); exit != 0 || strings.Count(out, "\n") != 13 || !strings.Contains(out, "docker/n/large") {
		t.Errorf("exit %d\n%s%s", exit, out, stderr)
	}

	replay := func(wantExit int, want string, args ...string) {
		t.Helper()
		exit, out, stderr := weir(append([]string{"deadletter", "replay", "--config", config}, args...)...)
		if exit != wantExit || !strings.Contains(out, want) {
			t.Errorf("replay %v: exit %d, want %d and %q:\n%s%s", args, exit, wantExit, want, out, stderr)
		}
	}
	replay(1, "0 replayed, 11 refused again, 1 cannot be replayed", "--all")
	template("keyword")
	elasticsearch(t, http.MethodPost, "/"+stream+"/_rollover", "", nil)
	replay(0, "1 replayed, 0 refused again", "--id", id, "--id", "none")
	replay(1, "0 refused again, 1 cannot be replayed", "--all")
	replay(0, "0 replayed, 0 refused again, 0 cannot be replayed, 11 were replayed before", "--reason", "document_parsing")
	if n := documents(t, stream, `{"match_all":{}}`); n != 31 {
		t.Errorf("%d documents, want 31", n)
	}
	if n := documents(t, stream, `{"bool":{"filter":[{"term":{"weir.tenant":"bank"}},{"match":{"message":"large"}}]}}`); n != 1 {
		t.Errorf("%d large documents, want 1", n)
	}
	if left, replayed := list(), list("--all"); len(left) != 1 || len(replayed) != 12 {
		t.Errorf("%d letters are left of %d", len(left), len(replayed))
	}
	// The letters are searchable themselves, and so is what became of them.
	letters := "logs-weir.deadletter-" + space
	for deadline := time.Now().Add(time.Minute); documents(t, letters, `{"term":{"event.action":"weir.deadletter.replayed"}}`) < 11; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d documents about letters", documents(t, letters, `{"match_all":{}}`))
		}
	}
	if n := documents(t, letters, `{"term":{"weir.deadletter.source":"docker/n/bad"}}`); n != 20 {
		t.Errorf("%d documents about the letters of docker/n/bad, want 10 and 10 that were replayed", n)
	}
}
