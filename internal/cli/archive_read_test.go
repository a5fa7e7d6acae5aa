package cli

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/archiver"
	"weir/ingest"
	"weir/internal/broker"
	"weir/schema"
)

var archiveDay = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// writeArchive archives lines of three containers over two hours, and the deaths of some of them. It gives the ids of the lines.
func writeArchive(t *testing.T, root string) (ids []string) {
	t.Helper()
	cfg := archiver.DefaultConfig()
	cfg.Root = root
	a, err := archiver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	write := func(tp ingest.TopicPartition, batches ...*schema.Batch) {
		t.Helper()
		sink, _, err := a.Open(t.Context(), tp)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range batches {
			b.Topic, b.Partition, b.KafkaOffset = tp.Topic, tp.Partition, int64(i)
			b.End = schema.Position{Incarnation: b.Begin.Incarnation, Offset: b.Records[len(b.Records)-1].Offset + 1}
			if err := sink.Write(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if err := sink.Commit(t.Context(), ingest.Checkpoint{NextOffset: int64(i + 1)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	trace := [16]byte{0xab, 0xcd, 15: 1}
	var lines []*schema.Batch
	for c := range 3 {
		for half := range 4 {
			b := &schema.Batch{Source: fmt.Sprintf("docker/n1/c%d", c), Begin: schema.Position{Incarnation: schema.Incarnation{Start: archiveDay.UnixNano(), Print: uint32(c)}, Offset: int64(half) * 1000}}
			b.From = b.Begin.Offset
			b.Resource = []schema.Attr{schema.String(schema.AttrContainerID, fmt.Sprintf("c%d", c)), schema.String(schema.AttrContainerName, fmt.Sprintf("web-%d", c)), schema.String(schema.AttrApp, []string{"shop", "bank", "bank"}[c]),
				schema.String(schema.AttrHostName, "n1"), schema.String(schema.AttrImageName, "app:1")}
			for i := range 25 {
				r := schema.Record{Time: archiveDay.Add(time.Duration(half)*30*time.Minute + time.Duration(i)*time.Minute + time.Duration(c)).UnixNano(), Body: fmt.Sprintf("line %d of %d", i, c), Offset: b.Begin.Offset + int64(i), Severity: 9, SeverityText: "INFO", Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}}
				if i%5 == 0 {
					r.Severity, r.SeverityText, r.Body = 17, "ERROR", fmt.Sprintf("\x1b[2J timed out %d", i)
					r.Attrs = append(r.Attrs, schema.Int("http.response.status_code", 503))
				}
				if i == 7 {
					r.TraceID = trace
				}
				b.Records = append(b.Records, r)
				ids = append(ids, b.ID(&r))
			}
			lines = append(lines, b)
		}
	}
	write(ingest.TopicPartition{Topic: schema.TopicLogs}, lines...)
	deaths := &schema.Batch{Source: "docker-events/n1", Begin: schema.Position{Offset: archiveDay.UnixNano()}, From: archiveDay.UnixNano()}
	for i, action := range []string{"die", "oom", "start", "start", "start"} {
		at := archiveDay.Add(time.Duration(i) * time.Minute).UnixNano()
		r := schema.Record{Time: at, Offset: at, EventName: "docker.container." + action, Body: action, Attrs: []schema.Attr{schema.String(schema.AttrContainerID, []string{"c1", "c1", "c1", "c1", "c2"}[i]), schema.String(schema.AttrImageName, "app:1")}}
		if action == "die" {
			r.Attrs = append(r.Attrs, schema.Int(schema.AttrExitCode, 137), schema.Bool(schema.AttrOOM, true))
		}
		deaths.Records = append(deaths.Records, r)
	}
	write(ingest.TopicPartition{Topic: schema.TopicEvents}, deaths)
	slices.Sort(ids)
	return ids
}

func TestSearchInArchive(t *testing.T) {
	t.Setenv("WEIR_CONFIG", "")
	root := "file://" + t.TempDir()
	writeArchive(t, root)
	for _, c := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{"--since", "all", "-n", "1"}, 0, "INFO  web-2            line 24 of 2\n1 records in "},
		{[]string{"--since", "all", "-n", "1", "--oldest", "--dataset", "container"}, 0, `ERROR web-0            \x1b[2J timed out 0` + "\n"},
		{[]string{"--since", "all", "--json", "-n", "1", "--oldest", "timed and weir.app: bank"}, 0, `{"_index":"logs-weir.container-default","_id":"`},
		{[]string{"--since", "all", "--json", "process.exit_code: 137"}, 0, `"process":{"exit_code":137}`},
		{[]string{"--since", "all", "--fields", "container.id,http.response.status_code,none", "-n", "1", `"timed out 20"`}, 0, "c2\t503\t-\n"},
		{[]string{"--since", "all", "--fields", "nothing"}, 0, "no record has a field nothing"},
		{[]string{"--since", "2026-11-20T11:00:00Z", "--until", "2026-11-20T12:00:00Z", "container.id: c1 and log.level: error"}, 0, "10 records in "},
		{[]string{"--since", "2026-11-20T11:00:00Z", "--until", "2026-11-20T12:00:00Z", "container.id: c1"}, 0, "; read 6 of 7 files, "},
		{[]string{"--since", "all", "--app", "shop", "--histogram"}, 0, "total 100   █ error 20"},
		{[]string{"--since", "all", "nothing.like: it"}, 1, "column 1: there is no field"},
		{[]string{"--follow"}, 1, "--follow does not go with --archive"},
		{[]string{"--link"}, 1, "--link does not go with"},
		{[]string{"--around", "x"}, 1, "--around does not go with"},
		{[]string{"--index", "x"}, 1, "--index does not go with"},
		{[]string{"--namespace", "x"}, 1, "--namespace does not go with"},
		{[]string{"--dataset", "x"}, 1, "is not one of the archive's: container, event"},
		{[]string{"--archive", "file:///nowhere/at/all"}, 1, "--archive: stat /nowhere/at/all"},
		{[]string{"--archive", "/data"}, 1, "--archive: root: "},
		{[]string{"--archive", "file://" + t.TempDir()}, 1, "there is no archive"},
	} {
		exit, stdout, stderr := weir(append([]string{"search", "--archive", root}, c.args...)...)
		if all := stdout + stderr; exit != c.exit || !strings.Contains(all, c.want) || strings.ContainsAny(all, "\x1b") {
			t.Errorf("weir search %q: exit %d, want %d and %q:\n%q", c.args, exit, c.exit, c.want, all)
		}
	}
	_, stdout, _ := weir("search", "--archive", root, "--since", "all", "--json", "--oldest", "trace.id: abcd*")
	last := ""
	for line := range strings.Lines(stdout) {
		var doc struct {
			At string `json:"@timestamp"`
		}
		if err := json.Unmarshal([]byte(line), &doc); err != nil || doc.At < last {
			t.Errorf("%s after %s: %v", line, last, err)
		}
		last = doc.At
	}
	if n := strings.Count(stdout, "\n"); n != 12 {
		t.Errorf("%d records of the trace, want 12", n)
	}
	var stderr output
	if exit := Main([]string{"search", "--archive", root, "--since", "all"}, &pipe{100}, &stderr); exit != 0 || stderr.String() != "" {
		t.Errorf("a pipe that is closed: exit %d: %s", exit, stderr.String())
	}
}

// TestReplayToKafka sends a part of an archive twice. What is in the topic has the same ids.
func TestReplayToKafka(t *testing.T) {
	for _, name := range []string{"WEIR_CONFIG", "WEIR_KAFKA_BROKERS", "WEIR_ARCHIVE_ROOT"} {
		t.Setenv(name, "")
	}
	root := "file://" + t.TempDir()
	ids := writeArchive(t, root)
	b, err := broker.Start(t.TempDir(), 0, 256<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	config := writeConfig(t, fmt.Sprintf("kafka:\n  brokers: [%q]\ntopics:\n  partitions: 2\n", b.Addrs()[0]))
	if exit, out, err := weir("topics", "apply", "--config", config); exit != 0 {
		t.Fatal(out, err)
	}
	for _, c := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{"--to", "kafka", "--since", "all", "--dry-run"}, 0, "305 records would be sent\n"},
		{[]string{"--to", "kafka", "--since", "all", "--rate", "fast"}, 1, `--rate "fast" is not a number`},
		{[]string{"--to", "elasticsearch", "--since", "all", "--topic", "x"}, 1, "--topic is of Kafka"},
		{[]string{"--to", "kafka"}, 2, "missing flags: --since"},
		{[]string{"--to", "kafka", "--since", "all", "level: error"}, 1, "near to it: log.level"},
		{[]string{"--to", "kafka", "--since", "all", "--dataset", "container", "--rate", "0"}, 0, "300 records sent and acknowledged"},
		{[]string{"--to", "kafka", "--since", "all", "--rate", "2000/s", "log.level: error"}, 0, "60 records sent and acknowledged"},
		{[]string{"--to", "kafka", "--since", "all", "--topic", "weir.logs", "event.action: *"}, 0, "5 records sent and acknowledged"},
	} {
		begin := time.Now()
		exit, stdout, stderr := weir(append([]string{"replay", "--archive", root, "--config", config}, c.args...)...)
		if all := stdout + stderr; exit != c.exit || !strings.Contains(all, c.want) {
			t.Errorf("weir replay %q: exit %d, want %d and %q:\n%s", c.args, exit, c.exit, c.want, all)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("weir replay %q took %s", c.args, took)
		}
	}
	kcfg := ingest.DefaultKafkaConfig()
	kcfg.Brokers = b.Addrs()
	k, err := ingest.NewKafka(kcfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	seen := map[string]int{}
	apps := map[string]bool{}
	if err := k.Scan(t.Context(), schema.TopicLogs, time.Time{}, func(b *schema.Batch) error {
		for i := range b.Records {
			seen[b.ID(&b.Records[i])]++
		}
		if a, ok := b.ResourceAttr(schema.AttrApp); ok {
			apps[a.Str] = true
		}
		return nil
	}, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, id := range ids {
		n += seen[id]
	}
	if len(seen) != 305 || n != 360 || len(apps) != 2 {
		t.Errorf("%d ids, %d lines of the archive's, apps %v", len(seen), n, apps)
	}
}
