package read

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"weir/archiver"
	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
	"weir/schema"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "weir-read-")
	if err != nil {
		panic(err)
	}
	readyDir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(exit int) {
		_ = os.RemoveAll(dir)
		os.Exit(exit)
	}))
}

var (
	readyDir  string
	readyOnce sync.Once
	readyMade *made
)

// ready is an archive for tests that change nothing in it.
func ready(t *testing.T) *made {
	t.Helper()
	readyOnce.Do(func() { readyMade = buildIn(t, readyDir) })
	return readyMade
}

var day = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

func clock(hour, minute int) time.Time {
	return day.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
}

// made is an archive and what was written to it.
type made struct {
	store   store.Store
	records map[string]written // by id
}

type written struct {
	b schema.Batch // without records
	r schema.Record
}

func (w *written) at() int64 { return archive.EventTime(&w.r) }

func (w *written) attr(key string) string {
	if a, ok := w.r.Attr(key); ok {
		return a.Str
	}
	a, _ := w.b.ResourceAttr(key)
	return a.Str
}

// build writes an archive of two topics and three partitions: lines from 10 to 13 o'clock, in commits of half an hour, some of them late.
func build(t *testing.T) *made {
	t.Helper()
	return buildIn(t, t.TempDir())
}

func buildIn(t *testing.T, dir string) *made {
	t.Helper()
	cfg := archiver.DefaultConfig()
	cfg.Root, cfg.RowGroupRows = "file://"+dir, 128
	a, err := archiver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	m := &made{records: map[string]written{}}
	if m.store, err = store.Open(cfg.Config); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	for p := range 3 {
		m.fill(t, a, ingest.TopicPartition{Topic: schema.TopicLogs, Partition: p}, rnd, func(n int, at time.Time) (*schema.Batch, func(i int) schema.Record) {
			c := p*3 + n%3
			b := &schema.Batch{Source: fmt.Sprintf("docker/n1/c%d", c)}
			b.Begin.Incarnation = schema.Incarnation{Start: day.UnixNano() + int64(c), Print: 0xab}
			b.Resource = []schema.Attr{schema.String(schema.AttrContainerID, fmt.Sprintf("c%d", c)), schema.String(schema.AttrContainerName, fmt.Sprintf("web-%d", c)),
				schema.String(schema.AttrApp, []string{"shop", "bank"}[c%2]), schema.String(schema.AttrHostName, "n1"), schema.String(schema.AttrFilePath, fmt.Sprintf("/log/%d", c)),
				schema.String(schema.LabelPrefix+"team", []string{"core", "edge"}[c%2]), schema.String(schema.LabelPrefix+"a.b", "x"), schema.String(schema.AttrK8sNamespace, "pay")}
			return b, func(i int) schema.Record {
				r := schema.Record{Time: at.Add(time.Duration(i) * time.Second).UnixNano(), Observed: at.Add(time.Hour).UnixNano(), Body: fmt.Sprintf("request %d took %d ms", n, i), Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}}
				switch i % 5 {
				case 0:
					r.Severity, r.SeverityText, r.Body = 17, "ERROR", "connection timed out\n\tat c.b.Pool.get"
				case 1:
					r.Body = fmt.Sprintf(`{"user":{"id":%d,"name":"Ann"},"ok":true,"tags":["x","y"]}`, i)
				case 2:
					r.TraceID, r.SpanID = [16]byte{1, byte(n), byte(i)}, [8]byte{9, byte(i)}
					r.Attrs = append(r.Attrs, schema.Int("http.response.status_code", int64(200+i*10)), schema.String("custom", fmt.Sprint(i)), schema.Bool(schema.AttrTruncated, i%2 == 0))
				case 3:
					r.Time, r.Body = 0, "no time \xff" // it is filed under the time it was read
					r.Observed = at.Add(time.Duration(i) * time.Second).UnixNano()
				}
				return r
			}
		})
	}
	m.fill(t, a, ingest.TopicPartition{Topic: schema.TopicEvents}, rnd, func(n int, at time.Time) (*schema.Batch, func(i int) schema.Record) {
		b := &schema.Batch{Source: "docker-events/n1"}
		b.Resource = []schema.Attr{schema.String(schema.AttrHostName, "n1")}
		return b, func(i int) schema.Record {
			return schema.Record{Time: at.UnixNano() + int64(i), EventName: "docker.container.die", Body: "c1 died", Attrs: []schema.Attr{
				schema.String(schema.AttrContainerID, fmt.Sprintf("c%d", i%9)), schema.Int(schema.AttrExitCode, int64(100+i)), schema.Bool(schema.AttrOOM, i%4 == 0)}}
		}
	})
	return m
}

func (m *made) fill(t *testing.T, a *archiver.Archiver, tp ingest.TopicPartition, rnd *rand.Rand, batch func(n int, at time.Time) (*schema.Batch, func(i int) schema.Record)) {
	t.Helper()
	p, _, err := a.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	offsets := map[string]int64{}
	for n := range 36 {
		at := clock(10, 5*n)
		if n%9 == 8 {
			at = at.Add(-time.Duration(rnd.IntN(90)) * time.Minute)
		}
		b, record := batch(n, at)
		b.Topic, b.Partition, b.KafkaOffset = tp.Topic, tp.Partition, int64(n)
		first := offsets[b.Source]
		b.Begin.Offset, b.From = first, first
		for i := range 20 + rnd.IntN(20) {
			r := record(i)
			r.Offset = first + int64(i)*100
			b.Records = append(b.Records, r)
			offsets[b.Source] = r.Offset + 100
		}
		b.End = schema.Position{Incarnation: b.Begin.Incarnation, Offset: offsets[b.Source]}
		for _, r := range b.Records {
			w := written{b: *b, r: r}
			w.b.Records = nil
			m.records[b.ID(&r)] = w
		}
		if err := p.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if n%6 == 5 {
			if err := p.Commit(t.Context(), ingest.Checkpoint{NextOffset: int64(n + 1)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// ids are those of the records that match, sorted.
func (m *made) ids(match func(w *written) bool) []string {
	var ids []string
	for id, w := range m.records {
		if match(&w) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// find reads what a query finds, checks the order, and returns the sorted ids.
func find(t *testing.T, r *Reader, q Query) ([]string, Progress) {
	t.Helper()
	var ids []string
	var last *Hit
	var progress Progress
	for h, err := range r.Records(t.Context(), q, func(p Progress) { progress = p }) {
		if err != nil {
			t.Fatal(err)
		}
		if last != nil && (q.Newest && last.compare(h) < 0 || !q.Newest && last.compare(h) > 0) {
			t.Fatalf("%s after %s", h.ID(), last.ID())
		}
		last = h
		ids = append(ids, h.ID())
	}
	slices.Sort(ids)
	return ids, progress
}

func TestQueries(t *testing.T) {
	m := ready(t)
	r := New(m.store)
	log := func(f func(w *written) bool) func(w *written) bool {
		return func(w *written) bool { return w.b.Topic == schema.TopicLogs && f(w) }
	}
	status := func(w *written) int64 { a, _ := w.r.Attr("http.response.status_code"); return a.Num }
	exit := func(w *written) int64 { a, _ := w.r.Attr(schema.AttrExitCode); return a.Num }
	some := ""
	for id, w := range m.records {
		if w.b.Topic == schema.TopicLogs {
			some = id
		}
	}
	for query, want := range map[string]func(w *written) bool{
		"":                 func(*written) bool { return true },
		"container.id: c4": func(w *written) bool { return w.attr(schema.AttrContainerID) == "c4" },
		"container.id: c4 and not event.action: *": log(func(w *written) bool { return w.attr(schema.AttrContainerID) == "c4" }),
		"container.id: nothing":                    func(*written) bool { return false },
		"container.name: web-*":                    log(func(*written) bool { return true }),
		"container.name: (web-1 or web-2)":         func(w *written) bool { n := w.attr(schema.AttrContainerName); return n == "web-1" || n == "web-2" },
		"log.level: error":                         func(w *written) bool { return w.r.SeverityText == "ERROR" },
		"log.level: ERROR":                         func(*written) bool { return false },
		"log.level: *":                             func(w *written) bool { return w.r.SeverityText != "" },
		"not log.level: *":                         func(w *written) bool { return w.r.SeverityText == "" },
		"event.severity >= 17":                     func(w *written) bool { return w.r.Severity >= 17 },
		"event.severity < 17":                      func(*written) bool { return false },
		"timed":                                    func(w *written) bool { return strings.Contains(w.r.Body, "timed") },
		`"Timed Out"`:                              func(w *written) bool { return strings.Contains(w.r.Body, "timed out") },
		"message: tim*": func(w *written) bool {
			return strings.Contains(w.r.Body, "timed") || strings.HasPrefix(w.r.Body, "no time")
		},
		"time":                     func(w *written) bool { return strings.HasPrefix(w.r.Body, "no time") },
		"weir.app: shop and timed": func(w *written) bool { return w.attr(schema.AttrApp) == "shop" && w.r.SeverityText == "ERROR" },
		"weir.app: shop and (log.level: error or http.response.status_code >= 300)": func(w *written) bool {
			return w.attr(schema.AttrApp) == "shop" && (w.r.SeverityText == "ERROR" || status(w) >= 300)
		},
		"http.response.status_code: 220":             func(w *written) bool { return status(w) == 220 },
		"http.response.status_code: *":               func(w *written) bool { return status(w) != 0 },
		"process.exit_code > 110":                    func(w *written) bool { return exit(w) > 110 },
		"weir.oom: true":                             func(w *written) bool { a, _ := w.r.Attr(schema.AttrOOM); return a.Num == 1 },
		"weir.truncated: false":                      func(w *written) bool { a, ok := w.r.Attr(schema.AttrTruncated); return ok && a.Num == 0 },
		"container.labels.team: core":                log(func(w *written) bool { return w.attr(schema.LabelPrefix+"team") == "core" }),
		"container.labels.a.b: x":                    log(func(*written) bool { return true }),
		"container.labels: edge":                     log(func(w *written) bool { return w.attr(schema.LabelPrefix+"team") == "edge" }),
		"weir.attributes.custom: 7":                  func(w *written) bool { return w.attr("custom") == "7" },
		"weir.attributes: 7":                         func(w *written) bool { return w.attr("custom") == "7" },
		"weir.json.user.name: Ann":                   func(w *written) bool { return strings.HasPrefix(w.r.Body, "{") },
		"weir.json.user.id: 6":                       func(w *written) bool { return strings.Contains(w.r.Body, `"id":6,`) },
		"weir.json.tags: y and weir.json.ok: true":   func(w *written) bool { return strings.HasPrefix(w.r.Body, "{") },
		"weir.json.user: Ann":                        func(*written) bool { return false },
		"weir.json: Ann":                             func(w *written) bool { return strings.HasPrefix(w.r.Body, "{") },
		"orchestrator.namespace: pay":                log(func(*written) bool { return true }),
		"log.file.path: /log/3":                      func(w *written) bool { return w.attr(schema.AttrFilePath) == "/log/3" },
		"event.action: docker.container.*":           func(w *written) bool { return w.r.EventName != "" },
		"data_stream.dataset: weir.event":            func(w *written) bool { return w.b.Topic == schema.TopicEvents },
		"log.iostream: stdout":                       log(func(*written) bool { return true }),
		"trace.id: 01020200000000000000000000000000": func(w *written) bool { return w.r.TraceID == [16]byte{1, 2, 2} },
		"span.id: 09*":                               func(w *written) bool { return w.r.SpanID[0] == 9 },
		"log.offset <= 200":                          func(w *written) bool { return w.r.Offset <= 200 },
		"weir.source: docker/n1/c5":                  func(w *written) bool { return w.b.Source == "docker/n1/c5" },
		"_id: " + some:                               func(w *written) bool { return w.b.ID(&w.r) == some },
		"_id: " + some[:12] + "*":                    func(w *written) bool { return strings.HasPrefix(w.b.ID(&w.r), some[:12]) },
		`@timestamp >= "2026-11-25T11:00:00Z" and @timestamp < "2026-11-25T11:30"`: func(w *written) bool { return w.at() >= clock(11, 0).UnixNano() && w.at() < clock(11, 30).UnixNano() },
		"@timestamp: 2026-11-24": func(*written) bool { return false },
		"@timestamp < now-1h":    func(w *written) bool { return w.at() < clock(11, 0).UnixNano() },
		"*.name: web-1":          func(w *written) bool { return w.attr(schema.AttrContainerName) == "web-1" },
		"not (timed or 7)": func(w *written) bool {
			return !slices.ContainsFunc(strings.FieldsFunc(strings.ToLower(w.r.Body), func(c rune) bool { return !isWord(c) || c == '\ufffd' }), func(s string) bool { return s == "timed" || s == "7" })
		},
	} {
		f, err := ParseFilter(query, clock(12, 0))
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		got, p := find(t, r, Query{Filter: f})
		if ids := m.ids(want); !slices.Equal(got, ids) {
			t.Errorf("%s: %d records, want %d", query, len(got), len(ids))
		}
		if p.Hits != int64(len(got)) || p.Files != p.FilesRead {
			t.Errorf("%s: progress %+v", query, p)
		}
	}
}

func TestBadQueries(t *testing.T) {
	for query, want := range map[string]string{
		"level: error":                  `column 1: there is no field "level"; near to it: log.level`,
		"a and nothing.like.it: x":      `column 7: there is no field "nothing.like.it"`,
		"event.severity: high":          `column 17: event.severity is a whole number, not "high"`,
		"weir.oom: maybe":               "weir.oom is true or false",
		"@timestamp > yesterday":        "@timestamp is a time",
		"message > 5":                   "message is text",
		"data_stream.namespace: x":      "matter of Elasticsearch",
		"log.level: error and (":        "ends at column 23",
		"xyz*: 1":                       `there is no field "xyz*"`,
		"http.response.status_code: 5*": "is a whole number",
	} {
		if _, err := ParseFilter(query, day); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
}

// TestOrders reads in both directions and with little memory, in which the same must be found.
func TestOrders(t *testing.T) {
	m := ready(t)
	for _, newest := range []bool{false, true} {
		for _, budget := range []int{1, 20_000, 1 << 20} {
			for _, scope := range []archive.Scope{{}, {Since: clock(10, 30)}, {Until: clock(11, 59).Add(7)}, {Since: clock(11, 2), Until: clock(12, 1), Topics: []string{schema.TopicLogs}}} {
				r := New(m.store)
				r.budget = budget
				got, _ := find(t, r, Query{Scope: scope, Newest: newest})
				want := m.ids(func(w *written) bool {
					return (scope.Since.IsZero() || w.at() >= scope.Since.UnixNano()) && (scope.Until.IsZero() || w.at() < scope.Until.UnixNano()) && (scope.Topics == nil || w.b.Topic == schema.TopicLogs)
				})
				if !slices.Equal(got, want) {
					t.Errorf("newest %v, budget %d, %v: %d records, want %d", newest, budget, scope, len(got), len(want))
				}
			}
		}
	}
}

// TestRecordsAreWhole compares what comes back with what was written.
func TestRecordsAreWhole(t *testing.T) {
	m := ready(t)
	for h, err := range New(m.store).Records(t.Context(), Query{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		w := m.records[h.ID()]
		got, want := h.Record, w.r
		if want.BodyBytes = strings.Contains(want.Body, "\xff"); want.SeverityText == "" && want.Severity != 0 {
			want.SeverityText = got.SeverityText
		}
		attrs := func(all []schema.Attr) string {
			var text []string
			for _, a := range all {
				text = append(text, fmt.Sprintf("%+v", a))
			}
			slices.Sort(text)
			return strings.Join(text, "\n")
		}
		if attrs(got.Attrs) != attrs(want.Attrs) {
			t.Fatalf("attributes\n%s\nwant\n%s", attrs(got.Attrs), attrs(want.Attrs))
		}
		got.Attrs, want.Attrs = nil, nil
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("%+v\nwant\n%+v", got, want)
		}
		resource := append([]schema.Attr{schema.String(schema.AttrSource, w.b.Source), schema.String(schema.AttrIncarnation, w.b.Begin.Incarnation.String())}, w.b.Resource...)
		if attrs(h.Batch.Resource) != attrs(resource) {
			t.Fatalf("resource\n%s\nwant\n%s", attrs(h.Batch.Resource), attrs(resource))
		}
		if h.Batch.Topic != w.b.Topic || h.Batch.Partition != w.b.Partition || h.Batch.KafkaOffset != w.b.KafkaOffset {
			t.Fatalf("of %+v, want %+v", h.Batch, w.b)
		}
	}
}

// TestBatches sends batches the way that they go through Kafka.
func TestBatches(t *testing.T) {
	m := ready(t)
	var ids []string
	batches := 0
	for b, err := range New(m.store).Batches(t.Context(), Query{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		batches++
		var e schema.Encoder
		e.Reset(b.Source, b.Begin.Incarnation, b.Resource[2:])
		for i := range b.Records {
			e.Append(&b.Records[i])
		}
		info := schema.Info{Source: b.Source, Begin: b.Begin, End: b.End, Count: len(b.Records)}
		var d schema.Decoder
		var got schema.Batch
		if err := d.Decode(e.Bytes(), &info, &got); err != nil {
			t.Fatal(err)
		}
		for i := range got.Records {
			ids = append(ids, got.ID(&got.Records[i]))
		}
	}
	slices.Sort(ids)
	if want := m.ids(func(*written) bool { return true }); !slices.Equal(ids, want) {
		t.Errorf("%d records, want %d", len(ids), len(want))
	}
	if batches > len(m.records)/10 {
		t.Errorf("%d batches of %d records", batches, len(m.records))
	}
}

func TestPruning(t *testing.T) {
	m := ready(t)
	f, err := ParseFilter("container.id: c8 and timed", day)
	if err != nil {
		t.Fatal(err)
	}
	scope := archive.Scope{Topics: []string{schema.TopicLogs}, Since: clock(11, 0), Until: clock(12, 0)}
	_, p := find(t, New(m.store), Query{Scope: scope, Filter: f})
	if p.GroupsPruned < p.Groups/2 || p.Files >= p.Listed || p.Rows > 1000 {
		t.Errorf("%+v", p)
	}
}

func TestCount(t *testing.T) {
	m := ready(t)
	levels := map[string]int{}
	last := int64(0)
	if err := New(m.store).Count(t.Context(), Query{}, nil, func(at int64, level string) {
		if at < last {
			t.Fatal("not in order")
		}
		last = at
		levels[level]++
	}); err != nil {
		t.Fatal(err)
	}
	errs := len(m.ids(func(w *written) bool { return w.r.SeverityText == "ERROR" }))
	if levels["ERROR"] != errs || levels[""] != len(m.records)-errs {
		t.Errorf("%v of %d records, %d errors", levels, len(m.records), errs)
	}
}

// compactHour merges all files of an hour as `weir archive compact` does: aside, record, into place, and the old ones away.
func compactHour(t *testing.T, s store.Store, hour time.Time, n int) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	places, err := archive.Snapshot(context.Background(), s, archive.Scope{Topics: []string{schema.TopicLogs}, Since: hour, Until: hour.Add(time.Hour)})
	must(err)
	c := &archive.Compaction{Version: archive.CompactionVersion, Topic: schema.TopicLogs, Hour: hour, N: n, Created: clock(20, 0)}
	merged := archive.File{Path: c.MergedPath(0), Tmp: fmt.Sprintf("_weir/tmp/compact/%d-%d.parquet", hour.Hour(), n), MinTime: places[0].MinTime}
	must(s.MkdirAll(path.Dir(merged.Tmp)))
	out, err := s.Create(merged.Tmp)
	must(err)
	sum := sha256.New()
	w := parquet.NewGenericWriter[archive.Row](out, parquet.MaxRowsPerRowGroup(100), parquet.PageBufferSize(2000))
	for _, p := range places {
		if p.MaxTime.After(merged.MaxTime) {
			merged.MaxTime = p.MaxTime
		}
		r, err := p.Open(s)
		must(err)
		f, err := parquet.OpenFile(r, p.Bytes)
		must(err)
		rows := make([]archive.Row, p.Rows)
		reader := parquet.NewGenericReader[archive.Row](f)
		if got, _ := reader.Read(rows); int64(got) != p.Rows {
			t.Fatalf("%d rows of %d", got, p.Rows)
		}
		_, err = w.Write(rows)
		must(errors.Join(err, reader.Close(), r.Close()))
		merged.Rows += p.Rows
		c.Replaces = append(c.Replaces, archive.Replaced{Path: p.Path, Rows: p.Rows, SHA256: p.SHA256})
	}
	must(errors.Join(w.Close(), out.Close()))
	e, err := s.Stat(merged.Tmp)
	must(err)
	merged.Bytes, merged.SHA256 = e.Size, hex.EncodeToString(sum.Sum(nil))
	c.Files = []archive.File{merged}
	data, err := c.Encode()
	must(err)
	must(s.MkdirAll(path.Dir(c.Name())))
	must(store.WriteFile(s, c.Name(), data))
	must(s.Rename(merged.Tmp, merged.Path))
	for _, r := range c.Replaces {
		must(s.Remove(r.Path))
	}
}

// TestWhileCompacting has hours merged while they are being read: before a file is opened, and between two row groups of open files, whose
// blocks are then gone.
func TestWhileCompacting(t *testing.T) {
	for _, at := range []int{0, 2, 9, 20} {
		m := build(t)
		r := New(m.store)
		r.workers, r.budget = 1, 50_000
		calls, n := 0, 0
		gone := map[string]bool{}
		r.refuse = func(p *archive.Place) error {
			if calls++; calls == 2*at+1 || calls == 2*at+9 {
				before, err := archive.Snapshot(t.Context(), m.store, archive.Scope{})
				if err != nil {
					t.Error(err)
				}
				n++
				compactHour(t, m.store, clock(11, 0), n)
				for _, p := range before {
					gone[p.Path] = p.Topic == schema.TopicLogs && p.MinTime.Hour() == 11
				}
			}
			if gone[p.Path] {
				return &fs.PathError{Op: "read", Path: p.Path, Err: fs.ErrNotExist}
			}
			return nil
		}
		got, _ := find(t, r, Query{Newest: at%2 == 0})
		if want := m.ids(func(*written) bool { return true }); !slices.Equal(got, want) {
			t.Fatalf("compacted at call %d: %d records, want %d", 2*at+1, len(got), len(want))
		}
	}
}

func TestMissingFiles(t *testing.T) {
	m := build(t)
	places, err := archive.Snapshot(t.Context(), m.store, archive.Scope{Topics: []string{schema.TopicLogs}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.store.Remove(places[3].Path); err != nil {
		t.Fatal(err)
	}
	n, failed := 0, error(nil)
	for _, err := range New(m.store).Records(t.Context(), Query{}, nil) {
		if failed = err; err == nil {
			n++
		}
	}
	if !errors.Is(failed, ErrMissing) || !strings.Contains(failed.Error(), places[3].Path) || n != len(m.records)-int(places[3].Rows) {
		t.Errorf("%d records of %d, %d of them gone: %v", n, len(m.records), places[3].Rows, failed)
	}
}

func TestDamagedFile(t *testing.T) {
	m := build(t)
	places, err := archive.Snapshot(t.Context(), m.store, archive.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	p := places[2]
	data, err := m.store.ReadFile(p.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{len(data) / 2, len(data) - 40, len(data) - 4} {
		bad := slices.Clone(data)
		for i := range 24 {
			bad[min(at+i, len(bad)-1)] ^= 0x5a
		}
		if err := errors.Join(m.store.Remove(p.Path), store.WriteFile(m.store, p.Path, bad)); err != nil {
			t.Fatal(err)
		}
		var failed error
		for _, err := range New(m.store).Records(t.Context(), Query{}, nil) {
			failed = err
		}
		if failed == nil || !strings.Contains(failed.Error(), p.Path) {
			t.Errorf("damaged at %d of %d: %v", at, len(data), failed)
		}
	}
}

func TestCancel(t *testing.T) {
	m := ready(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, failed := 0, error(nil)
	r := New(m.store)
	r.budget = 20_000
	for _, err := range r.Records(ctx, Query{}, nil) {
		if failed = err; err != nil {
			break
		}
		n++
		cancel()
	}
	if !errors.Is(failed, context.Canceled) || n == 0 || n == len(m.records) {
		t.Errorf("%d records, %v", n, failed)
	}
	for range r.Records(t.Context(), Query{}, nil) {
		break // the files that are open are closed
	}
}
