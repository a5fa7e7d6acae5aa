package audit

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/archiver/archive"
	"weir/schema"
)

func kinds(r *Report) (all []string) {
	for _, f := range r.Findings {
		if !slices.Contains(all, f.Kind) {
			all = append(all, f.Kind)
		}
	}
	slices.Sort(all)
	return all
}

func TestClean(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   func(t *testing.T) *world
		change func(*Options)
		want   Verdict
	}{
		{"as written", usual, nil, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 400}},
		{"one hour", usual, func(o *Options) { o.Scope.Since, o.Scope.Until = begin.Add(time.Hour), begin.Add(2*time.Hour) }, Verdict{Name: "total", Written: 200, Archived: 200, Indexed: 200}},
		{"part of an hour", usual, func(o *Options) {
			o.Scope.Since, o.Scope.Until = begin.Add(50*time.Millisecond), begin.Add(20*time.Minute)
		}, Verdict{Name: "total", Written: 150, Archived: 150, Indexed: 150}},
		{"one container", usual, func(o *Options) { o.Container = container(1)[:12]; o.Index = nil }, Verdict{Name: "total", Written: 200, Archived: 200, Indexed: NotAsked}},
		{"one topic, and documents of another", func(t *testing.T) *world {
			w := usual(t)
			w.index.docs["x"] = document{"docker-events/n1", begin.UnixNano(), "logs-weir.event-default"}
			return w
		}, func(o *Options) { o.Scope.Topics = []string{logs.Topic} }, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 400}},
		{"archive alone", usual, func(o *Options) { o.Kafka, o.Index = nil, nil }, Verdict{Name: "total", Written: NotAsked, Archived: 400, Indexed: NotAsked}},
		{"not deep", usual, func(o *Options) { o.Deep = false }, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 400}},
		{"compacted", func(t *testing.T) *world { w := usual(t); w.compact(); return w }, nil, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 400}},
		{"compacted, then late files, compacted again", func(t *testing.T) *world {
			w := usual(t)
			w.compact()
			w.put(w.batch(1, 5, 10))
			w.compact()
			w.put(w.batch(2, 6, 10))
			return w
		}, nil, Verdict{Name: "total", Written: 420, Archived: 420, Indexed: 420}},
		{"signed", func(t *testing.T) *world {
			w := newWorld(t)
			w.put(w.batch(1, 0, 10)) // of before
			w.sign()
			w.put(w.batch(1, 1, 10), w.batch(2, 2, 10))
			w.compact()
			return w
		}, nil, Verdict{Name: "total", Written: 30, Archived: 30, Indexed: 30}},
		{"Kafka has the end alone", func(t *testing.T) *world { w := usual(t); w.kafka.first = 3; return w }, nil, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 400}},
		{"Kafka has the topic no more", func(t *testing.T) *world { w := usual(t); w.kafka.gone = true; return w }, nil, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 400}},
		{"not archived yet", func(t *testing.T) *world {
			w := usual(t)
			b := w.batch(1, 90, 10)
			b.KafkaOffset = 4
			w.kafka.batches = append(w.kafka.batches, *b)
			w.index.docs[b.ID(&b.Records[0])] = document{b.Source, b.Records[0].Time, "logs-weir.container-default"} // but indexed in part
			return w
		}, nil, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 401}},
		{"not indexed yet", func(t *testing.T) *world {
			w := usual(t)
			w.put(w.batch(1, 90, 10))
			w.kafka.committed["indexer"] = 4
			maps.DeleteFunc(w.index.docs, func(_ string, d document) bool { return d.at >= begin.Add(90*time.Minute).UnixNano() })
			return w
		}, nil, Verdict{Name: "total", Written: 410, Archived: 410, Indexed: 400}},
		{"repeats in Kafka", func(t *testing.T) *world {
			w := usual(t)
			again := w.kafka.batches[2]
			again.KafkaOffset = 4
			w.kafka.batches = append(w.kafka.batches, again)
			w.kafka.committed["archiver"] = 5 // without a manifest: there was nothing new
			return w
		}, nil, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 400}},
		{"repeats of what Kafka no longer has", func(t *testing.T) *world {
			w := usual(t)
			again := w.kafka.batches[0]
			again.KafkaOffset = 4
			w.kafka.batches = append(w.kafka.batches, again)
			w.kafka.committed["archiver"], w.kafka.first = 5, 3
			return w
		}, nil, Verdict{Name: "total", Written: 500, Archived: 400, Indexed: 400}},
		{"an archive that began in the midst of a log", func(t *testing.T) *world {
			w := newWorld(t)
			inc := schema.Incarnation{Start: begin.Add(-time.Hour).UnixNano(), Print: 1}
			w.ends[logOf(1)] = schema.Position{Incarnation: inc, Offset: 300}
			w.put(w.batch(1, 0, 10), gapEvent(1, inc, 300))
			return w
		}, nil, Verdict{Name: "total", Written: 11, Archived: 11, Indexed: 11}},
		{"a document that Elasticsearch refused", func(t *testing.T) *world {
			w := usual(t)
			id := slices.Min(slices.Collect(maps.Keys(w.index.docs)))
			delete(w.index.docs, id)
			w.kafka.letters = []schema.Record{{EventName: schema.EventDeadLetter, Attrs: []schema.Attr{schema.String("weir.deadletter.id", id), schema.String("error.message", "mapper_parsing_exception")}}}
			return w
		}, nil, Verdict{Name: "total", Written: 400, Archived: 400, Indexed: 399, Refused: 1}},
		{"a gap that Kafka's retention explains", func(t *testing.T) *world {
			w := usual(t)
			w.skip(1)
			told := &schema.Batch{Source: "weir/ingest/archiver/weir.logs/0", Begin: schema.Position{Offset: 4}, End: schema.Position{Offset: 5}, Records: []schema.Record{{Offset: 4, Observed: begin.Add(92 * time.Minute).UnixNano(), EventName: schema.EventLoss,
				Attrs: []schema.Attr{schema.String(schema.AttrLossReason, "kafka_retention"), schema.Int("weir.kafka.from", 4), schema.Int("weir.kafka.to", 5)}}}}
			w.put(told, w.batch(1, 91, 10))
			return w
		}, nil, Verdict{Name: "total", Written: 411, Archived: 411, Indexed: 411, LostUnknown: 1}},
		{"a gap that a loss record explains", func(t *testing.T) *world {
			w := usual(t)
			from, to := w.skip(1)
			w.put(lost(1, from, to.String(), 90), w.batch(1, 91, 10))
			return w
		}, nil, Verdict{Name: "total", Written: 411, Archived: 411, Indexed: 411, Lost: 50}},
		{"a loss record that does not say how far", func(t *testing.T) *world {
			w := usual(t)
			from, _ := w.skip(1)
			w.put(lost(1, from, "unknown", 90), w.batch(1, 91, 10))
			return w
		}, nil, Verdict{Name: "total", Written: 411, Archived: 411, Indexed: 411, Lost: 50}},
		{"a loss that was told after the range", func(t *testing.T) *world {
			w := usual(t)
			from, to := w.skip(1)
			w.put(w.batch(1, 91, 10), lost(1, from, to.String(), 200))
			return w
		}, func(o *Options) { o.Scope.Until = begin.Add(2 * time.Hour) }, Verdict{Name: "total", Written: 410, Archived: 410, Indexed: 410}},
		{"a gap that was filled", func(t *testing.T) *world {
			w := usual(t)
			early, later := w.batch(1, 90, 10), w.batch(1, 91, 10)
			w.put(later, early)
			return w
		}, nil, Verdict{Name: "total", Written: 420, Archived: 420, Indexed: 420}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := c.make(t)
			change := c.change
			if change == nil {
				change = func(*Options) {}
			}
			r := w.audit(change)
			for _, f := range r.Findings {
				t.Errorf("%+v", f)
			}
			if r.Total != c.want {
				t.Errorf("total %+v, want %+v; notes %q", r.Total, c.want, r.Notes)
			}
		})
	}
}

// TestCoveredBeforeTheRange has a stretch of a log archived days before what is on both sides of it, and what is not archived at all is still found.
func TestCoveredBeforeTheRange(t *testing.T) {
	for _, archived := range []bool{true, false} {
		w := newWorld(t)
		const days = 4
		first, second, third := w.batch(1, days*24*60, 10), w.batch(1, 1, 10), w.batch(1, days*24*60+1, 10)
		put := func(day time.Time, batches ...*schema.Batch) {
			w.put(batches...)
			all := w.files(manifests)
			now := filepath.Dir(all[len(all)-1])
			if err := os.Rename(now, filepath.Join(filepath.Dir(now), archive.ManifestDay(day))); err != nil {
				t.Fatal(err)
			}
		}
		early := []*schema.Batch{second, w.batch(2, 2, 10)} // the last manifest before the range is read too
		if !archived {
			early = early[1:]
		}
		put(begin, early...)
		put(begin.AddDate(0, 0, days), first, third)
		r := w.audit(func(o *Options) { o.Scope.Since, o.Index, o.Kafka = begin.AddDate(0, 0, 3), nil, nil })
		if got := strings.Join(kinds(r), " "); archived != (got == "") || !archived && got != "hole" {
			t.Errorf("archived=%v: findings %+v", archived, r.Findings)
		}
	}
}

// TestTampering does to an archive what must not be, and wants it found and named.
func TestTampering(t *testing.T) {
	compacted := func(t *testing.T) *world { w := usual(t); w.compact(); return w }
	signed := func(t *testing.T) *world {
		w := newWorld(t)
		w.sign()
		w.put(w.batch(1, 0, 100), w.batch(2, 10, 100), w.batch(1, 70, 100))
		return w
	}
	for _, c := range []struct {
		name  string
		make  func(t *testing.T) *world
		do    func(w *world) (named string) // a part of a file's name that a finding must have
		kind  string
		alone bool // found also without Kafka and Elasticsearch
		lost  int64
	}{
		{"a flipped bit", usual, func(w *world) string {
			f := w.files(data)[1]
			b, _ := os.ReadFile(f)
			b[len(b)/3] ^= 4
			w.write(f, b)
			return filepath.Base(f)
		}, "file_changed", true, 100},
		{"a file cut", usual, func(w *world) string {
			f := w.files(data)[1]
			if err := os.Truncate(f, 100); err != nil {
				w.t.Fatal(err)
			}
			return filepath.Base(f)
		}, "file_changed", true, 100},
		{"a file deleted", usual, func(w *world) string {
			f := w.files(data)[0]
			w.remove(f)
			return filepath.Base(f)
		}, "file_missing", true, 100},
		{"a file replaced by another good one", usual, func(w *world) string {
			f := w.files(data)
			b, _ := os.ReadFile(f[1])
			w.write(f[0], b)
			return filepath.Base(f[0])
		}, "file_changed", true, 100},
		{"a file added", usual, func(w *world) string {
			f := w.files(data)[0]
			b, _ := os.ReadFile(f)
			w.write(filepath.Join(filepath.Dir(f), "p0-9-9-1.parquet"), b)
			return "p0-9-9-1.parquet"
		}, "file_unlisted", true, 0},
		{"a merged file changed", compacted, func(w *world) string {
			f := w.files(data)[0]
			b, _ := os.ReadFile(f)
			b[len(b)/3] ^= 4
			w.write(f, b)
			return filepath.Base(f)
		}, "file_changed", true, 200},
		{"a manifest edited", usual, func(w *world) string {
			f := w.files(manifests)[1]
			w.edit(f, `"records": 100`, `"records": 101`)
			return filepath.Base(f)
		}, "manifest_changed", true, 1},
		{"a manifest that is no JSON", usual, func(w *world) string {
			f := w.files(manifests)[1]
			w.edit(f, "{", "[")
			return filepath.Base(f)
		}, "manifest_unreadable", true, 100},
		{"the last manifest edited", usual, func(w *world) string {
			f := w.files(manifests)[3]
			w.edit(f, `"records": 100`, `"records": 99`)
			return filepath.Base(f)
		}, "rows_differ", true, 0},
		{"the first manifest removed", usual, func(w *world) string {
			w.remove(w.files(manifests)[0])
			return filepath.Base(w.files(manifests)[0])
		}, "manifest_missing", true, 100},
		{"a manifest removed from the middle", usual, func(w *world) string {
			all := w.files(manifests)
			w.remove(all[1])
			return filepath.Base(all[2])
		}, "manifest_missing", true, 100},
		{"a manifest removed from the middle, with its files", usual, func(w *world) string {
			all := w.files(manifests)
			w.remove(all[1])
			w.remove(w.files("weir.logs/*/*/p0-1-1-*.parquet")[0])
			return filepath.Base(all[2])
		}, "manifest_missing", true, 100},
		{"the tail cut, found by the state", usual, func(w *world) string {
			all := w.files(manifests)
			w.remove(all[3])
			w.remove(w.files("weir.logs/*/*/p0-3-3-*.parquet")[0])
			return filepath.Base(all[2])
		}, "chain_cut", true, 100},
		{"the tail cut, found by Kafka", usual, func(w *world) string {
			all := w.files(manifests)
			w.remove(all[3])
			return "weir.logs/0 offset 3"
		}, "chain_cut", false, 100},
		{"a manifest signed by another key", signed, func(w *world) string {
			f := w.files(manifests)[2]
			_, other, _ := ed25519.GenerateKey(nil)
			w.forge(f, `"records": 100`, `"records": 99`, other)
			return filepath.Base(f)
		}, "manifest_signature", true, 0},
		{"a manifest forged without a signature, the chain is right", signed, func(w *world) string {
			f := w.files(manifests)[2]
			w.forge(f, `"created": "20`, `"created": "20`, nil)
			return filepath.Base(f)
		}, "manifest_unsigned", true, 0},
		{"all signatures taken away and the chain made right", signed, func(w *world) string {
			prev := ""
			for _, f := range w.files(manifests) {
				m := w.manifest(f)
				m.Prev = prev
				b, err := m.Encode()
				if err != nil {
					w.t.Fatal(err)
				}
				w.write(f, b)
				prev = archive.Digest(b)
			}
			return "weir.logs/0"
		}, "manifest_unsigned", true, 0},
		{"the interval state changed", usual, func(w *world) string {
			f := w.files("_weir/manifests/weir.logs/0/*.seen")[0]
			w.write(f, []byte("x"))
			return filepath.Base(f)
		}, "state_changed", true, 0},
		{"a compaction record edited", compacted, func(w *world) string {
			f := w.files(records)[0]
			w.edit(f, `"rows": 200`, `"rows": 199`)
			return f[len(w.dir)+1:]
		}, "compaction_forged", true, 0},
		{"a compaction record removed", compacted, func(w *world) string {
			w.remove(w.files(records)[0])
			return "c1-1.parquet"
		}, "file_unlisted", true, 200},
		{"a compaction record forged, with a merged file of its own", compacted, func(w *world) string {
			// The rows of another hour, as many as before, in a good file that the record names with its right hash.
			f := w.files(data)
			b, _ := os.ReadFile(f[1])
			w.write(f[0], b)
			was, other := w.record(w.files(records)[0]), w.record(w.files(records)[1])
			was.Files[0].SHA256, was.Files[0].Bytes, was.Files[0].Content = other.Files[0].SHA256, other.Files[0].Bytes, other.Files[0].Content
			w.rewrite(w.files(records)[0], was)
			return w.files(records)[0][len(w.dir)+1:]
		}, "compaction_forged", true, 400},
		{"a merged file forged, and its record made to fit it but for the rows", compacted, func(w *world) string {
			f := w.files(data)
			b, _ := os.ReadFile(f[1])
			w.write(f[0], b)
			was, other := w.record(w.files(records)[0]), w.record(w.files(records)[1])
			was.Files[0].SHA256, was.Files[0].Bytes = other.Files[0].SHA256, other.Files[0].Bytes
			w.rewrite(w.files(records)[0], was)
			return filepath.Base(f[0])
		}, "file_changed", true, 200},
		{"a compaction record that replaces what no manifest has", usual, func(w *world) string {
			c := &archive.Compaction{Version: archive.CompactionVersion, Topic: logs.Topic, Hour: begin, N: 1, Replaces: []archive.Replaced{{Path: w.files(data)[0][len(w.dir)+1:], Rows: 100, SHA256: archive.Digest(nil)}}}
			w.rewrite(filepath.Join(w.dir, c.Name()), c)
			return c.Name()
		}, "compaction_forged", true, 100},
		{"a compaction record forged without a signature", func(t *testing.T) *world { w := signed(t); w.compact(); return w }, func(w *world) string {
			f := w.files(records)[0]
			w.rewrite(f, w.record(f))
			return f[len(w.dir)+1:]
		}, "compaction_forged", true, 0},
		{"records that Kafka does not have", usual, func(w *world) string {
			w.kafka.dropped = map[int64]bool{2: true}
			return "weir.logs/0 offset 2"
		}, "not_written", false, 100},
		{"a topic made anew", usual, func(w *world) string {
			w.kafka.batches = w.kafka.batches[:2]
			return "weir.logs/0"
		}, "kafka_behind", false, 200},
		{"a document missing in Elasticsearch", usual, func(w *world) string {
			delete(w.index.docs, slices.Min(slices.Collect(maps.Keys(w.index.docs))))
			return "weir.logs/0 offset"
		}, "not_indexed", false, 1},
		{"a document twice in Elasticsearch", usual, func(w *world) string {
			w.index.twice = []string{slices.Min(slices.Collect(maps.Keys(w.index.docs)))}
			return "logs-weir.other-default"
		}, "indexed_twice", false, 1},
		{"a document of nothing", usual, func(w *world) string {
			w.index.docs["made up"] = document{logOf(1), begin.UnixNano(), "logs-weir.container-default"}
			return "made up"
		}, "indexed_alone", false, 1},
		{"a gap that nothing explains", usual, func(w *world) string {
			w.skip(1)
			w.put(w.batch(1, 91, 10))
			return filepath.Base(w.files(manifests)[4])
		}, "hole", true, 1},
		{"a gap that a loss record explains in part", usual, func(w *world) string {
			from, to := w.skip(1)
			to.Offset -= 20
			w.put(lost(1, from, to.String(), 90), w.batch(1, 91, 10))
			return filepath.Base(w.files(manifests)[5])
		}, "hole", true, 1},
		{"a loss record of another source", usual, func(w *world) string {
			from, to := w.skip(1)
			w.put(lost(2, from, to.String(), 90), w.batch(1, 91, 10))
			return filepath.Base(w.files(manifests)[5])
		}, "hole", true, 1},
		{"a gap at a file's beginning that the consumer noticed", usual, func(w *world) string {
			inc := schema.Incarnation{Start: time.Now().UnixNano(), Print: 1}
			w.ends[logOf(1)] = schema.Position{Incarnation: inc, Offset: 300}
			w.put(w.batch(1, 91, 10), gapEvent(4, inc, 300))
			return filepath.Base(w.files(manifests)[4])
		}, "hole", true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := c.make(t)
			named := c.do(w)
			check := func(r *Report) {
				t.Helper()
				ok := slices.ContainsFunc(r.Findings, func(f Finding) bool {
					return f.Kind == c.kind && strings.Contains(f.Where, named) && f.What != "" && f.Do != ""
				})
				if !ok {
					t.Errorf("want %s of %s, found %v", c.kind, named, kinds(r))
					for _, f := range r.Findings {
						t.Logf("%+v", f)
					}
				}
			}
			r := w.audit()
			check(r)
			if r.Total.Unexplained != c.lost {
				t.Errorf("unexplained %d, want %d: %+v", r.Total.Unexplained, c.lost, r.Findings)
			}
			if c.alone {
				check(w.audit(func(o *Options) { o.Kafka, o.Index = nil, nil }))
			}
		})
	}
}

// TestNotDone wants an error, and not a verdict, where a part of the audit could not be done.
func TestNotDone(t *testing.T) {
	w := usual(t)
	w.kafka.fails = errors.New("connection refused")
	if _, err := Run(t.Context(), w.store(), w.options()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Kafka is away: %v", err)
	}
	empty := newWorld(t)
	if _, err := Run(t.Context(), empty.store(), empty.options()); err == nil || !strings.Contains(err.Error(), "no archive") {
		t.Errorf("no archive: %v", err)
	}
}

func (w *world) write(file string, b []byte) {
	w.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, b, 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

func decode[T any](w *world, file string) *T {
	w.t.Helper()
	into := new(T)
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return into
}

func (w *world) manifest(file string) *archive.Manifest { return decode[archive.Manifest](w, file) }
func (w *world) record(file string) *archive.Compaction { return decode[archive.Compaction](w, file) }

// rewrite puts a record in the place of another, unsigned.
func (w *world) rewrite(file string, c *archive.Compaction) {
	w.t.Helper()
	b, err := c.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(file, b)
}

// forge changes a manifest and signs it with a key, or not at all.
func (w *world) forge(file, old, fresh string, key ed25519.PrivateKey) {
	w.t.Helper()
	m := w.manifest(file)
	b, err := m.Encode()
	if err == nil {
		if !strings.Contains(string(b), old) {
			w.t.Fatalf("%s has no %s", file, old)
		}
		b, err = archive.Sign([]byte(strings.Replace(string(b), old, fresh, 1)), key)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(file, b)
}
