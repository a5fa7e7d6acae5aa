//go:build e2e

package audit

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"weir/archiver"
	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/indexer"
	"weir/ingest"
	"weir/internal/search"
	"weir/schema"
)

const (
	logsWritten  = 20
	batchesOfLog = 10
	linesOfBatch = 100
	allRecords   = logsWritten*batchesOfLog*linesOfBatch + 1 // and a loss record
)

// asLogs gives records of a topic of the test's own to the indexer as those of weir.logs, for which it has a data stream.
type asLogs struct{ *indexer.Indexer }

func (s asLogs) Open(ctx context.Context, tp ingest.TopicPartition) (ingest.PartitionSink, *ingest.Checkpoint, error) {
	p, cp, err := s.Indexer.Open(ctx, ingest.TopicPartition{Topic: schema.TopicLogs, Partition: tp.Partition})
	return logsSink{p}, cp, err
}

type logsSink struct{ ingest.PartitionSink }

func (s logsSink) Write(ctx context.Context, b *schema.Batch) error {
	b.Topic = schema.TopicLogs
	return s.PartitionSink.Write(ctx, b)
}

// servers is the real Kafka, HDFS and Elasticsearch, each with a name of the test's own.
type servers struct {
	t       *testing.T
	k       *ingest.Kafka
	topic   string
	es      string // address
	space   string // namespace of the data streams
	archive archiver.Config
	indexer indexer.Config
}

func newServers(t *testing.T) *servers {
	t.Helper()
	var address [3]string
	for i, name := range []string{"WEIR_KAFKA_BROKERS", "WEIR_ELASTICSEARCH_URL", "WEIR_HDFS_NAMENODE"} {
		if address[i] = os.Getenv(name); address[i] == "" {
			t.Fatal(name + " is not set: run `make e2e`")
		}
	}
	name := fmt.Sprint("audit", time.Now().UnixNano())
	s := &servers{t: t, topic: "weir." + name, es: address[1], space: name, archive: archiver.DefaultConfig(), indexer: indexer.DefaultConfig()}
	s.archive.Root = "hdfs://" + address[2] + "/audit-test/" + name
	apply := true
	s.indexer.Addresses, s.indexer.Namespace, s.indexer.Apply = []string{s.es}, name, &apply
	cfg := ingest.DefaultKafkaConfig()
	cfg.Brokers = strings.Split(address[0], ",")
	var err error
	if s.k, err = ingest.NewKafka(cfg); err != nil {
		t.Fatal(err)
	}
	topics := []ingest.TopicSpec{{Name: s.topic, Partitions: 2, Replication: 1}, {Name: ingest.StateTopic("index-" + name), Partitions: 1, Replication: 1, Config: map[string]string{"cleanup.policy": "compact"}}}
	plan, err := ingest.PlanTopics(t.Context(), s.k, topics)
	if err == nil {
		err = ingest.ApplyTopics(t.Context(), s.k, plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.k.Close()
		client := &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Timeout: 10 * time.Second, Transport: &kafka.Transport{}}
		_, _ = client.DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topics[0].Name, topics[1].Name}})
		client.Transport.(*kafka.Transport).CloseIdleConnections()
		s.ask(http.MethodDelete, "/_data_stream/logs-weir.*-"+s.space)
		root := s.archive.Config
		root.Root = path.Dir(root.Root)
		if st, err := store.Open(root); err == nil {
			_ = store.RemoveTree(st, name)
			_ = st.Close()
		}
	})
	return s
}

func (s *servers) ask(method, what string) string {
	req, err := http.NewRequest(method, s.es+what, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return fmt.Sprint(res.StatusCode, " ", string(b))
}

// write sends the logs' batches, half of them twice, and a hole in the first log with its loss record.
func (s *servers) write(from time.Time) {
	s.t.Helper()
	p, err := ingest.NewProducer(s.k, ingest.DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) })
	defer running.Wait()
	defer stop()
	send := func(b *schema.Batch, repeat bool) {
		m := ingest.Message{Topic: s.topic, Source: b.Source, Begin: b.Begin, End: b.End, Prev: b.Prev, PrevKnown: b.PrevKnown, Count: len(b.Records)}
		for range map[bool]int{false: 1, true: 2}[repeat] {
			var e schema.Encoder
			e.Reset(b.Source, b.Begin.Incarnation, b.Resource)
			for i := range b.Records {
				e.Append(&b.Records[i])
			}
			m.Value = e.Bytes()
			if err := p.Send(ctx, m); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	w := &world{t: s.t, ends: map[string]schema.Position{}}
	for n := range batchesOfLog {
		for c := range logsWritten {
			if c == 0 && n == 5 {
				at, to := w.skip(c)
				l := lost(c, at, to.String(), 0)
				l.Records[0].Observed = from.UnixNano()
				send(l, false)
			}
			b := w.batch(c, 0, linesOfBatch)
			for i := range b.Records {
				at := from.Add(time.Duration(n)*12*time.Minute + time.Duration(i)*time.Second)
				b.Records[i].Time, b.Records[i].Observed = at.UnixNano(), at.UnixNano()
			}
			send(b, n%2 == 1)
		}
	}
	if err := p.Flush(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// consume runs both consumers until they have committed everything.
func (s *servers) consume() {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	a, err := archiver.New(s.archive, log, prometheus.NewRegistry())
	if err != nil {
		s.t.Fatal(err)
	}
	defer a.Close()
	x, err := indexer.New(s.indexer, nil, log, prometheus.NewRegistry())
	if err != nil {
		s.t.Fatal(err)
	}
	defer x.Close()
	ctx, stop := context.WithTimeout(s.t.Context(), time.Minute)
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	groups := map[string]ingest.Sink{"archive-" + s.space: a, "index-" + s.space: asLogs{x}}
	for group, sink := range groups {
		cfg := ingest.DefaultConsumerConfig(group, s.topic)
		cfg.OwnCommit, cfg.CommitBytes = sink == a, 200<<10
		c, err := ingest.NewConsumer(s.k, cfg, sink, nil, log, prometheus.NewRegistry())
		if err != nil {
			s.t.Fatal(err)
		}
		running.Go(func() { _ = c.Run(ctx) })
	}
	defer stop()
	for group := range groups {
		for p := range 2 {
			tp := ingest.TopicPartition{Topic: s.topic, Partition: p}
			for {
				_, next, err := s.k.Bounds(ctx, tp)
				at, err2 := s.k.Committed(ctx, group, tp)
				if err == nil && err2 == nil && at >= next {
					break
				}
				if ctx.Err() != nil {
					s.t.Fatalf("%s is at %d of %d in %s: %v, %v", group, at, next, tp, err, err2)
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
	}
}

func (s *servers) audit() *Report {
	s.t.Helper()
	s.ask(http.MethodPost, "/logs-weir.*-"+s.space+"/_refresh")
	st, err := store.Open(s.archive.Config)
	if err != nil {
		s.t.Fatal(err)
	}
	defer st.Close()
	es, err := search.New(s.indexer, func(warning string) { s.t.Error(warning) })
	if err != nil {
		s.t.Fatal(err)
	}
	defer es.Close()
	began := time.Now()
	r, err := Run(s.t.Context(), st, Options{Deep: true, Kafka: s.k, Index: &Elasticsearch{Search: es, Index: "logs-weir.*-" + s.space}, Group: "archive-" + s.space, Indexer: "index-" + s.space, Topics: []string{s.topic}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("%d manifests, %d compaction records, %d files of %d bytes in %v: %+v", r.Manifests, r.Records, r.Files, r.Bytes, time.Since(began).Round(time.Millisecond), r.Total)
	return r
}

// TestServers writes logs, archives them in HDFS, indexes them, and audits; compacts, and audits; and then tampers with all of it.
func TestServers(t *testing.T) {
	s := newServers(t)
	s.write(time.Now().Add(-6 * time.Hour).Truncate(time.Hour))
	s.consume()
	clean := func(when string) {
		t.Helper()
		r := s.audit()
		for _, f := range r.Findings {
			t.Errorf("%s: %+v", when, f)
		}
		if want := (Verdict{Name: "total", Written: allRecords, Archived: allRecords, Indexed: allRecords, Lost: 50}); r.Total != want {
			t.Errorf("%s: %+v, want %+v; %q", when, r.Total, want, r.Notes)
		}
	}
	clean("as written")

	c, err := archiver.NewCompactor(s.archive, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The second hour stays as it is, for there is more to tamper with then.
	hours, err := c.Plan(t.Context(), archive.Scope{})
	if err != nil || len(hours) != 2 {
		t.Fatal(hours, err)
	}
	if made, err := c.Run(t.Context(), &hours[0]); err != nil || len(made) != 1 {
		t.Fatal(made, err)
	}
	clean("compacted")

	named := s.tamper()
	r := s.audit()
	for kind, where := range named {
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Kind == kind && strings.Contains(f.Where, where) }) {
			t.Errorf("no finding %s that names %s; found %v", kind, where, kinds(r))
		}
	}
	if r.Total.Unexplained == 0 {
		t.Errorf("nothing is unexplained: %+v", r.Total)
	}
}

// tamper does what must be found: what kind of finding, and what it must name.
func (s *servers) tamper() map[string]string {
	s.t.Helper()
	st, err := store.Open(s.archive.Config)
	if err != nil {
		s.t.Fatal(err)
	}
	defer st.Close()
	must := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	places, err := archive.Snapshot(s.t.Context(), st, archive.Scope{})
	must(err)
	merged, deleted := places[0], places[len(places)-1]
	data, err := st.ReadFile(merged.Path)
	must(err)
	data[len(data)/2] ^= 1
	must(st.Remove(merged.Path))
	must(store.WriteFile(st, merged.Path, data))
	must(st.Remove(deleted.Path))
	manifests, err := archive.Manifests(st, ingest.TopicPartition{Topic: s.topic}, time.Time{})
	must(err)
	if len(manifests) < 3 {
		s.t.Fatalf("%d manifests", len(manifests))
	}
	middle := len(manifests) / 2
	must(st.Remove(manifests[middle].Path))
	query := fmt.Sprintf(`container.id:%s AND @timestamp:["%s" TO *]`, container(3), deleted.Hour().UTC().Format(time.RFC3339))
	answer := s.ask(http.MethodPost, "/logs-weir.*-"+s.space+"/_delete_by_query?refresh=true&q="+url.QueryEscape(query))
	if !strings.HasPrefix(answer, "200") || strings.Contains(answer, `"deleted":0`) {
		s.t.Fatal(answer)
	}
	return map[string]string{"file_changed": merged.Path, "file_missing": deleted.Path, "manifest_missing": manifests[middle+1].Path, "not_indexed": s.topic, "not_archived": s.topic}
}
