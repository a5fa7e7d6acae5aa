//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/processor/signal"
	"weir/schema"
)

// counted is what is said of one window of one group.
type counted struct{ lines, bytes int64 }

type countedWindow struct {
	rule, group string
	end         int64
}

// TestProcessorsShareTheWork: of two processors one is killed, and another joins, while records are written, a part of them late, some very late.
// The last word on every window must be the count of the input.
func TestProcessorsShareTheWork(t *testing.T) {
	brokers := strings.Split(os.Getenv("WEIR_KAFKA_BROKERS"), ",")
	if brokers[0] == "" {
		t.Fatal("WEIR_KAFKA_BROKERS is not set: run `make e2e`")
	}
	k := newKafka(t, brokers)
	freshTopics(t, k, brokers)
	work := t.TempDir()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	binary, config := filepath.Join(work, "weir"), filepath.Join(work, "weir.yaml")
	run(t, repository, nil, "go", "build", "-o", binary, "./cmd/weir")
	if err := os.WriteFile(config, fmt.Appendf(nil, `kafka: {brokers: [%s]}
http: {listen: ""}
consumer: {session_timeout: 6s}
processor:
  rules: [%s]
  lateness: 20s
  windows:
  - {by: [container_id], window: 10s}
  - {by: [app], window: 10s}
  - {by: [node, app], window: 20s, slide: 10s}
`, strings.Join(brokers, ","), filepath.Join(work, "rules.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "rules.yaml"), []byte("rules:\n- {name: busy, by: [app], when: count > 0, window: 10s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, repository, nil, binary, "topics", "apply", "--config", config)
	processor := func(name string) *process {
		p := &process{t: t, binary: binary, config: config, name: "processor", log: filepath.Join(work, name+".log")}
		t.Cleanup(func() { p.kill(); p.tell() })
		p.start()
		return p
	}
	first := processor("first")
	processor("second")

	want := map[countedWindow]counted{}
	written := writeLate(t, k, want, map[time.Duration]func(){
		6 * time.Second: func() { first.kill() },
		9 * time.Second: func() { processor("third") },
	})

	var got map[countedWindow]counted
	var firing map[string]bool
	var signals int
	deadline := time.Now().Add(60 * time.Second)
	for {
		got, firing, signals = readSignals(t, k)
		if missing, _ := compare(want, got); missing == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Second)
	}
	wrong, example := compare(want, got)
	if wrong > 0 {
		t.Errorf("%d of %d windows differ from the input: %s", wrong, len(want), example)
	}
	if len(firing) != 5 {
		t.Errorf("rule busy fired for %v, want 5 apps", firing)
	}
	t.Logf("%d records, %d windows, %d signals", written, len(want), signals)
}

func compare(want, got map[countedWindow]counted) (wrong int, example string) {
	for key, w := range want {
		if got[key] != w {
			wrong++
			example = fmt.Sprintf("%v is %v, want %v", key, got[key], w)
		}
	}
	for key, g := range got {
		if _, known := want[key]; !known {
			wrong++
			example = fmt.Sprintf("%v is %v and was never written", key, g)
		}
	}
	return wrong, example
}

// writeLate writes for 15 s, and counts beside. at is done on the way.
func writeLate(t *testing.T, k *ingest.Kafka, want map[countedWindow]counted, at map[time.Duration]func()) (written int) {
	producer, err := ingest.NewProducer(k, ingest.DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	stop := background(t, producer.Run)
	defer stop()
	rnd := rand.New(rand.NewPCG(1, 2))
	const containers = 30
	var offsets [containers]int64
	inc := schema.Incarnation{Start: time.Now().UnixNano()}
	add := func(rule, group string, at, window, slide int64, size int) {
		for end := at - at%slide + slide; end <= at-at%slide+window; end += slide {
			key := countedWindow{rule, group, end}
			sum := want[key]
			want[key] = counted{sum.lines + 1, sum.bytes + int64(size)}
		}
	}
	const second = int64(time.Second)
	for began := time.Now(); time.Since(began) < 15*time.Second; time.Sleep(50 * time.Millisecond) {
		for after, do := range at {
			if time.Since(began) >= after {
				delete(at, after)
				do()
			}
		}
		for c := range containers {
			id, app, node := fmt.Sprintf("c%d", c), fmt.Sprintf("app%d", c%5), fmt.Sprintf("n%d", c%3)
			source := fmt.Sprintf("docker/%s/%s", node, id)
			var e schema.Encoder
			e.Reset(source, inc, []schema.Attr{schema.String(schema.AttrContainerID, id), schema.String(schema.AttrApp, app), schema.String(schema.AttrHostName, node)})
			begin := offsets[c]
			for range 1 + rnd.IntN(8) {
				now := time.Now().UnixNano()
				r := schema.Record{Offset: offsets[c], Time: now, Observed: now, Body: fmt.Sprintf("line %d of %s", offsets[c], id)}
				switch rnd.IntN(100) {
				case 0, 1, 2, 3, 4, 5, 6, 7:
					r.Time -= rnd.Int64N(15 * second)
				case 8: // its window is forgotten
					r.Time -= 60*second + rnd.Int64N(30*second)
				}
				offsets[c]++
				e.Append(&r)
				add("window_container_id_10s", "container_id="+id, r.Time, 10*second, 10*second, len(r.Body))
				add("window_app_10s", "app="+app, r.Time, 10*second, 10*second, len(r.Body))
				add("window_node_app_20s_by_10s", "node="+node+",app="+app, r.Time, 20*second, 10*second, len(r.Body))
				written++
			}
			place := func(o int64) schema.Position { return schema.Position{Incarnation: inc, Offset: o} }
			if err := producer.Send(t.Context(), ingest.Message{Topic: schema.TopicLogs, Source: source, Begin: place(begin), End: place(offsets[c]), Prev: place(begin), PrevKnown: true, Count: e.Count(), Value: e.Take()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := producer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return written
}

// readSignals adds up what a consumer of weir.signals counts that drops repeats.
func readSignals(t *testing.T, k *ingest.Kafka) (got map[countedWindow]counted, firing map[string]bool, signals int) {
	t.Helper()
	firing = map[string]bool{}
	got = map[countedWindow]counted{}
	last, revisions := map[countedWindow]counted{}, map[countedWindow]int64{}
	records, ids := map[string]bool{}, map[string]bool{}
	err := k.Scan(t.Context(), schema.TopicSignals, time.Time{}, func(b *schema.Batch) error {
		for i := range b.Records {
			r := &b.Records[i]
			if id := b.ID(r); records[id] {
				continue
			} else {
				records[id] = true
			}
			s, err := signal.FromRecord(r)
			if err != nil {
				return err
			}
			if ids[s.ID()] {
				t.Errorf("signal %s of %s %s was made twice", s.ID(), s.Rule, s.Group)
			}
			ids[s.ID()] = true
			signals++
			if s.Kind == signal.Rule {
				if s.State == signal.Firing && s.Revision == 0 {
					firing[s.Group] = true
				}
				continue
			}
			lines, _ := r.Attr("weir.window.lines")
			size, _ := r.Attr("weir.window.bytes")
			key, sum := countedWindow{s.Rule, s.Group, s.End}, counted{lines.Num, size.Num}
			if s.Late {
				got[key] = counted{got[key].lines + sum.lines, got[key].bytes + sum.bytes}
				continue
			}
			if s.Revision < revisions[key] {
				continue
			}
			revisions[key] = s.Revision
			got[key] = counted{got[key].lines - last[key].lines + sum.lines, got[key].bytes - last[key].bytes + sum.bytes}
			last[key] = sum
		}
		return nil
	}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return got, firing, signals
}

// background starts what runs until its context ends, and returns what ends it and waits.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = run(ctx) }()
	return func() { cancel(); <-done }
}
