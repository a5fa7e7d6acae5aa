package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"weir/archiver"
	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
	"weir/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	begin = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	logs  = ingest.TopicPartition{Topic: schema.TopicLogs, Partition: 0}
)

// world is an archive with a Kafka and an Elasticsearch that have the same records.
type world struct {
	t     *testing.T
	dir   string
	key   string // file of the private key; empty: manifests are not signed
	keys  []ed25519.PublicKey
	kafka *fakeKafka
	index *fakeIndex
	ends  map[string]schema.Position
}

func newWorld(t *testing.T) *world {
	return &world{t: t, dir: t.TempDir(), ends: map[string]schema.Position{}, kafka: &fakeKafka{committed: map[string]int64{}}, index: &fakeIndex{docs: map[string]document{}}}
}

// sign makes a key: from here on manifests are signed.
func (w *world) sign() {
	w.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		w.t.Fatal(err)
	}
	w.key, w.keys = filepath.Join(w.t.TempDir(), "key.pem"), []ed25519.PublicKey{public}
	if err := os.WriteFile(w.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) config() archiver.Config {
	cfg := archiver.DefaultConfig()
	cfg.Root, cfg.SignKeyFile, cfg.Compact.TempDir = "file://"+w.dir, w.key, w.t.TempDir()
	return cfg
}

// logOf names the log of one of two containers.
func logOf(n int) string { return "docker/n1/" + container(n) }

func container(n int) string { return strings.Repeat(fmt.Sprint(n), 64) }

// batch makes the next batch of a container's log, with n records of the minutes after the beginning.
func (w *world) batch(c, minute, n int) *schema.Batch {
	name := logOf(c)
	from, known := w.ends[name]
	if !known {
		from = schema.Position{Incarnation: schema.Incarnation{Start: begin.UnixNano(), Print: uint32(c)}}
	}
	b := &schema.Batch{Source: name, Begin: from, Prev: from, PrevKnown: known, Resource: []schema.Attr{schema.String(schema.AttrApp, fmt.Sprint("app", c)), schema.String(schema.AttrContainerID, container(c))}}
	for i := range n {
		at := begin.Add(time.Duration(minute)*time.Minute + time.Duration(i)*time.Millisecond)
		b.Records = append(b.Records, schema.Record{Offset: from.Offset + int64(i)*10, Time: at.UnixNano(), Observed: at.UnixNano(), Body: fmt.Sprintf("line %d of minute %d", i, minute)})
	}
	b.End = schema.Position{Incarnation: from.Incarnation, Offset: from.Offset + int64(n)*10}
	w.ends[name] = b.End
	return b
}

// skip passes over a stretch of a log, as when it was deleted before it was read.
func (w *world) skip(c int) (from, to schema.Position) {
	from = w.ends[logOf(c)]
	to = from
	to.Offset += 500
	w.ends[logOf(c)] = to
	return from, to
}

// lost is a loss record of the agent.
func lost(c int, from schema.Position, to string, minute int) *schema.Batch {
	at := from
	at.Print = ^at.Print
	end := at
	end.Offset++
	return &schema.Batch{Source: logOf(c), Begin: at, End: end, Resource: []schema.Attr{schema.String(schema.AttrApp, fmt.Sprint("app", c)), schema.String(schema.AttrContainerID, container(c))},
		Records: []schema.Record{{Offset: at.Offset, Observed: begin.Add(time.Duration(minute) * time.Minute).UnixNano(), EventName: schema.EventLoss, Body: "lost",
			Attrs: []schema.Attr{schema.String(schema.AttrLossReason, "rotated_away"), schema.String(schema.AttrLossFrom, from.String()), schema.String(schema.AttrLossTo, to), schema.Int(schema.AttrLossRecords, 50)}}}}
}

// gapEvent is what the archiver's consumer tells of a jump to a position in the first container's log.
func gapEvent(offset int64, inc schema.Incarnation, to int64) *schema.Batch {
	from, end := schema.Position{Incarnation: inc}, schema.Position{Incarnation: inc, Offset: to}
	return &schema.Batch{Source: "weir/ingest/archiver/weir.logs/0", Begin: schema.Position{Offset: offset}, End: schema.Position{Offset: offset + 1}, Records: []schema.Record{{Offset: offset, Observed: begin.Add(92 * time.Minute).UnixNano(), EventName: schema.EventGapOpened,
		Attrs: []schema.Attr{schema.String("weir.gap.source", logOf(1)), schema.String("weir.gap.from", from.String()), schema.String("weir.gap.to", end.String())}}}}
}

// put writes batches to Kafka, has them archived in one commit each, and indexed.
func (w *world) put(batches ...*schema.Batch) {
	w.t.Helper()
	a, err := archiver.New(w.config(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		w.t.Fatal(err)
	}
	defer a.Close()
	s, _, err := a.Open(w.t.Context(), logs)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, b := range batches {
		b.Topic, b.Partition, b.KafkaOffset = logs.Topic, logs.Partition, int64(len(w.kafka.batches))
		w.kafka.batches = append(w.kafka.batches, *b)
		info := schema.Info{Begin: b.Begin, End: b.End, Prev: b.Prev, PrevKnown: b.PrevKnown}
		b.From, _ = info.Covers()
		next := b.KafkaOffset + 1
		if err := errors.Join(s.Write(w.t.Context(), b), s.Commit(w.t.Context(), ingest.Checkpoint{NextOffset: next})); err != nil {
			w.t.Fatal(err)
		}
		w.kafka.committed["archiver"], w.kafka.committed["indexer"] = next, next
		for i := range b.Records {
			w.index.docs[b.ID(&b.Records[i])] = document{b.Source, archive.EventTime(&b.Records[i]), "logs-weir.container-default"}
		}
	}
	if err := s.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// usual is three commits of two containers over two hours.
func usual(t *testing.T) *world {
	w := newWorld(t)
	w.put(w.batch(1, 0, 100), w.batch(2, 10, 100), w.batch(1, 70, 100), w.batch(2, 80, 100))
	return w
}

func (w *world) compact() {
	w.t.Helper()
	c, err := archiver.NewCompactor(w.config(), slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	hours, err := c.Plan(w.t.Context(), archive.Scope{})
	if err != nil || len(hours) == 0 {
		w.t.Fatal(hours, err)
	}
	for i := range hours {
		if _, err := c.Run(w.t.Context(), &hours[i]); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) store() store.Store {
	w.t.Helper()
	s, err := store.Open(w.config().Config)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) options() Options {
	return Options{Deep: true, Kafka: w.kafka, Index: w.index, Keys: w.keys, Topics: []string{logs.Topic}, Group: "archiver", Indexer: "indexer"}
}

func (w *world) audit(change ...func(*Options)) *Report {
	w.t.Helper()
	o := w.options()
	for _, c := range change {
		c(&o)
	}
	r, err := Run(w.t.Context(), w.store(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// files matches files of the archive by a pattern, in order.
func (w *world) files(pattern string) []string {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.dir, pattern))
	if err != nil || len(found) == 0 {
		w.t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	slices.Sort(found)
	return found
}

const (
	manifests = "_weir/manifests/weir.logs/0/*/*.json"
	data      = "weir.logs/*/*/*.parquet"
	records   = "_weir/compactions/weir.logs/*/*/*.json"
)

func (w *world) edit(file, old, fresh string) {
	w.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(b, []byte(old)) {
		w.t.Fatalf("%s has no %q: %v", file, old, err)
	}
	if err := os.WriteFile(file, bytes.Replace(b, []byte(old), []byte(fresh), 1), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(file string) {
	w.t.Helper()
	if err := os.Remove(file); err != nil {
		w.t.Fatal(err)
	}
}

// fakeKafka has one partition.
type fakeKafka struct {
	batches   []schema.Batch
	first     int64
	dropped   map[int64]bool // offsets that the topic does not have
	committed map[string]int64
	fails     error
	gone      bool // the topic was deleted
	letters   []schema.Record
}

func (k *fakeKafka) Partitions(_ context.Context, topic string) (int, error) {
	if topic == logs.Topic && !k.gone || topic == schema.TopicDeadLetter && len(k.letters) > 0 {
		return 1, k.fails
	}
	return 0, k.fails
}

func (k *fakeKafka) Bounds(context.Context, ingest.TopicPartition) (first, next int64, err error) {
	if k.gone {
		return 0, 0, errors.New("unknown topic")
	}
	return k.first, int64(len(k.batches)), nil
}

func (k *fakeKafka) OffsetAt(context.Context, ingest.TopicPartition, time.Time) (int64, error) {
	return k.first, nil
}

func (k *fakeKafka) Committed(_ context.Context, group string, _ ingest.TopicPartition) (int64, error) {
	if n, ok := k.committed[group]; ok {
		return n, nil
	}
	return -1, nil
}

func (k *fakeKafka) Range(_ context.Context, tp ingest.TopicPartition, from, to int64, fn func(*schema.Batch) error, _ func(error)) error {
	if tp.Topic == schema.TopicDeadLetter {
		return fn(&schema.Batch{Records: k.letters})
	}
	for i := max(from, k.first); i < min(to, int64(len(k.batches))); i++ {
		if k.dropped[i] {
			continue
		}
		b := k.batches[i]
		if err := fn(&b); err != nil {
			return err
		}
	}
	return nil
}

type document struct {
	source string
	at     int64
	index  string
}

type fakeIndex struct {
	docs  map[string]document
	twice []string // ids that are in another index too
}

func (x *fakeIndex) Counts(_ context.Context, since, until time.Time, _ string, fn func(string, time.Time, int64) error) error {
	type key struct {
		source string
		hour   int64
	}
	counts := map[key]int64{}
	add := func(d document) {
		if (since.IsZero() || d.at >= since.UnixNano()) && (until.IsZero() || d.at < until.UnixNano()) {
			counts[key{d.source, d.at / int64(time.Hour)}]++
		}
	}
	for d := range maps.Values(x.docs) {
		add(d)
	}
	for _, id := range x.twice {
		add(x.docs[id])
	}
	for k, n := range counts {
		if err := fn(k.source, time.Unix(k.hour*3600, 0), n); err != nil {
			return err
		}
	}
	return nil
}

func (x *fakeIndex) IDs(_ context.Context, source string, since, until time.Time, fn func(id, index string) error) error {
	each := func(id, index string) error {
		if d := x.docs[id]; d.source == source && d.at >= since.UnixNano() && d.at < until.UnixNano() {
			return fn(id, index)
		}
		return nil
	}
	for id, d := range x.docs {
		if err := each(id, d.index); err != nil {
			return err
		}
	}
	for _, id := range x.twice {
		if err := each(id, "logs-weir.other-default"); err != nil {
			return err
		}
	}
	return nil
}
