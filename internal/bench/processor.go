package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/processor"
	"weir/processor/rules"
	"weir/processor/signal"
	"weir/processor/window"
	"weir/schema"
)

// The aims of the processor, on one core.
const (
	aimCount, aimRules, aimPatterns = 1e6, 300e3, 150e3 // records a second
	aimRestore                      = 10.0              // s, a million groups
	aimSignal                       = 1000.0            // ms beyond the window's end
)

func (b *bench) processor(ctx context.Context) error {
	rss, err := groupsRSS(100_000)
	if err != nil {
		return err
	}
	fmt.Printf("100,000 groups of container windows, ten minutes of each: %.0f MB\n", rss)
	batches := logBatches(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), 0)
	rate := map[string]float64{}
	for _, part := range []struct {
		name     string
		rules    int
		patterns bool
	}{{"count", 0, false}, {"rules20", 20, false}, {"rules100", 100, false}, {"patterns", 0, true}} {
		perSecond, err := throughput(batches, part.rules, part.patterns)
		if err != nil {
			return err
		}
		rate[part.name] = perSecond
		fmt.Printf("%-8s %9.0f records/s, %4.0f ns a record, on one core\n", part.name, perSecond, 1e9/perSecond)
	}
	restore, err := b.restore(ctx, 1_000_000)
	if err != nil {
		return err
	}
	fmt.Printf("a million groups restored in %.1f s\n", restore)
	for _, part := range []struct{ name, config string }{{"counting", "  patterns: {enabled: false}\n  lives: {enabled: false}\n"}, {"counting, patterns and lives", ""}} {
		perCPU, wall, err := b.fromKafka(ctx, part.config)
		if err != nil {
			return err
		}
		fmt.Printf("from Kafka, %s: %.0f records a second of CPU, all in %.1f s\n", part.name, perCPU, wall)
	}
	p99, err := b.signalDelay(ctx)
	if err != nil {
		return err
	}
	var missed []string
	for _, a := range []struct {
		name  string
		short bool
	}{{"counting", rate["count"] < aimCount}, {"100 rules", rate["rules100"] < aimRules}, {"patterns", rate["patterns"] < aimPatterns}, {"restoring", restore > aimRestore}, {"signal delay", p99 > aimSignal}} {
		if a.short {
			missed = append(missed, a.name)
		}
	}
	if len(missed) > 0 {
		fmt.Fprintln(os.Stderr, "aims missed: "+strings.Join(missed, "; "))
	}
	fmt.Printf("RESULT bench-processor count_rps=%.0f rules20_rps=%.0f rules100_rps=%.0f patterns_rps=%.0f restore_s=%.1f rss_mb_100k_groups=%.0f signal_p99_ms=%.0f\n",
		rate["count"], rate["rules20"], rate["rules100"], rate["patterns"], restore, rss, p99)
	return nil
}

// message is a batch as Kafka holds it.
type message struct {
	info  schema.Info
	value []byte
}

// logBatches are lines of 40 containers, 64 KiB a batch, over a minute: about 200 bytes each, one in twenty a warning and one in fifty an error. Each
// round goes on where the one before ended.
func logBatches(from time.Time, round int64) (all []message) {
	const containers, perRound = 40, 400
	start := from.Add(time.Duration(round) * time.Minute).UnixNano()
	bodies := []string{
		"2026-11-01 12:00:%02d.%03d  INFO [posting-%d] c.b.ledger.Posting : posted entry %d of account 6222%08d in %d ms, balance checked, journal written to segment %d",
		"2026-11-01 12:00:%02d.%03d  INFO [http-%d] c.b.gateway.Access : GET /api/v1/accounts/%d/entries?limit=50 200 %d bytes in %d ms from 10.0.4.%d agent okhttp/4.9",
		"2026-11-01 12:00:%02d.%03d  WARN [pool-%d] c.b.db.Pool : connection %d was idle for %d ms and is closed; %d of the pool's connections are left in shard %d of the cluster",
		"2026-11-01 12:00:%02d.%03d ERROR [pool-%d] c.b.db.Pool : cannot connect to db-%d:3306 after %d tries in %d ms: connection refused by the server of shard %d of the cluster",
	}
	var e schema.Encoder
	for n := range perRound {
		c := n % containers
		source := fmt.Sprintf("docker/n%d/%064d", c%8, c)
		inc := schema.Incarnation{Start: 1}
		e.Reset(source, inc, []schema.Attr{schema.String(schema.AttrContainerID, fmt.Sprintf("%064d", c)), schema.String(schema.AttrContainerName, fmt.Sprintf("app%d-%d", c%10, c)), schema.String(schema.AttrApp, fmt.Sprintf("app%d", c%10)),
			schema.String(schema.AttrHostName, fmt.Sprintf("n%d", c%8)), schema.String(schema.AttrImageName, fmt.Sprintf("bank/app%d:1.4.2", c%10)), schema.String(schema.AttrSite, "east"), schema.String(schema.LabelPrefix+"team", "core")})
		first := (round*perRound + int64(n)) * 1000
		offset := first
		for i := 0; e.Len() < 64<<10; i++ {
			kind, severity := i%2, int32(9)
			if i%20 == 7 {
				kind, severity = 2, 13
			}
			if i%50 == 9 {
				kind, severity = 3, 17
			}
			at := start + int64(n)*150e6 + int64(i)*400e3
			e.Append(&schema.Record{Offset: offset, Time: at, Observed: at + 1e6, Severity: severity, SeverityText: map[int32]string{9: "INFO", 13: "WARN", 17: "ERROR"}[severity],
				Body: fmt.Sprintf(bodies[kind], i%60, i%1000, i%8, i*7919%100000, i*104729%1000000, i%300, i%16), Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}})
			offset++
		}
		at := func(o int64) schema.Position { return schema.Position{Incarnation: inc, Offset: o} }
		all = append(all, message{schema.Info{Source: source, Begin: at(first), End: at(offset), Count: e.Count()}, e.Take()})
	}
	return all
}

// ruleText makes rules as people write them: most are of one app; some read every body.
func ruleText(n int) string {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range n {
		where := [...]string{
			fmt.Sprintf(`app == "app%d" and severity >= ERROR`, i%10),
			fmt.Sprintf(`app in ["app%d", "app%d"] and body contains "refused"`, i%10, (i+3)%10),
			fmt.Sprintf(`severity >= ERROR and body contains "db-%d"`, i),
			fmt.Sprintf(`node == "n%d" and number("http.response.status_code") >= 500`, i%8),
			fmt.Sprintf(`severity >= WARN and body matches "shard %d[0-9]* of"`, i%10),
			fmt.Sprintf(`label("team") == "team%d"`, i),
			`severity >= FATAL`,
			fmt.Sprintf(`body contains "OutOfMemoryError%d"`, i),
			fmt.Sprintf(`container startsWith "app%d-" and severity >= WARN`, i%10),
			`severity >= ERROR`,
		}[i%10]
		by := [...]string{"app", "container_id", "node", "app, node", "site"}[i%5]
		fmt.Fprintf(&b, "- {name: r%d, where: '%s', by: [%s], when: count > 100000, window: 1m, slide: 10s}\n", i, where, by)
	}
	return b.String()
}

// throughput decodes and counts for about three seconds on one core.
func throughput(batches []message, n int, patterns bool) (float64, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	cfg := processor.DefaultConfig()
	cfg.Patterns.Enabled, cfg.Lives.Enabled = patterns, false
	windows, err := rules.Windows(cfg.Windows)
	if err != nil {
		return 0, err
	}
	read, err := rules.Parse("bench", []byte(ruleText(n)))
	if err != nil {
		return 0, err
	}
	set, err := rules.NewSet(windows, read)
	if err != nil {
		return 0, err
	}
	sim, err := processor.NewSimulation(cfg, set)
	if err != nil {
		return 0, err
	}
	var d schema.Decoder
	var batch schema.Batch
	records := 0
	began := cpu()
	for round := int64(0); cpu()-began < 3*time.Second; round++ {
		for i := range batches {
			m := &batches[i]
			if err := d.Decode(m.value, &m.info, &batch); err != nil {
				return 0, err
			}
			for k := range batch.Records { // time goes on from round to round
				batch.Records[k].Time += round * int64(time.Minute)
			}
			sim.Write(&batch)
			records += len(batch.Records)
			if i%50 == 49 { // about as often as a processor commits that reads a million records a second
				sim.Advance(batch.Records[0].Time)
			}
		}
	}
	return float64(records) / (cpu() - began).Seconds(), nil
}

// cpu is what this process used; nothing else runs in it meanwhile but the garbage collector.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// filled is a machine with groups of container windows, with panes minutes of each.
func filled(groups, panes int) (*window.Machine, *rules.Set, error) {
	list, err := rules.Windows([]rules.WindowSpec{{By: []string{"container_id"}, Window: time.Minute, MaxGroups: 1_000_000}})
	if err != nil {
		return nil, nil, err
	}
	set, err := rules.NewSet(list)
	if err != nil {
		return nil, nil, err
	}
	m := window.New(set, window.Limits{Lateness: 10 * time.Minute, MaxGroups: 1_000_000, MaxSet: 1000})
	counts := make([]int64, window.Fatal)
	counts[window.Count], counts[window.Bytes], counts[window.Info], counts[window.Error] = 1200, 240_000, 1190, 10
	for minute := range panes {
		start := time.Date(2026, 11, 1, 0, minute, 0, 0, time.UTC)
		for i := range groups {
			id := fmt.Sprintf("%064d", i)
			m.Add(&window.Delta{Rule: set.Rules[0].ID, Key: window.Key([]string{id}), Panes: []window.Pane{{Start: start.UnixNano(), Counts: counts}},
				Subject: []schema.Attr{schema.String(schema.AttrContainerID, id), schema.String(schema.AttrContainerName, "app-"+id[60:]), schema.String(schema.AttrApp, "app"), schema.String(schema.AttrHostName, "node-1"), schema.String(schema.AttrImageName, "bank/app:1.4.2"), schema.String(schema.LabelPrefix+"team", "core")}})
		}
		m.Advance(start.Add(time.Minute).UnixNano())
		m.Changes(func([]byte) {})
	}
	return m, set, nil
}

func groupsRSS(n int) (float64, error) {
	m, _, err := filled(n, 10)
	if err != nil {
		return 0, err
	}
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	var kb float64
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, _ = fmt.Sscan(rest, &kb)
		}
	}
	if m.Groups() != n {
		return 0, fmt.Errorf("%d groups", m.Groups())
	}
	return kb / 1024, nil
}

// restore writes a snapshot of so many groups to Kafka, and times how long a processor takes to have it again.
func (b *bench) restore(ctx context.Context, groups int) (float64, error) {
	if err := b.topics(ctx); err != nil {
		return 0, err
	}
	tp := ingest.TopicPartition{Topic: schema.ChangelogPrefix + schema.TopicPartials}
	log, err := ingest.OpenChangelog(ctx, b.k, tp, func(bool, [][]byte) error { return nil })
	if err != nil {
		return 0, err
	}
	m, set, err := filled(groups, 1)
	if err != nil {
		return 0, err
	}
	var chunks ingest.Chunks
	m.Snapshot(chunks.Add)
	began := time.Now()
	if err := log.Commit(ctx, true, chunks.All()...); err != nil {
		return 0, err
	}
	fmt.Printf("a million groups written as a snapshot in %.1f s\n", time.Since(began).Seconds())
	m = nil
	debug.FreeOSMemory()
	began = time.Now()
	again := window.New(set, window.Limits{Lateness: 10 * time.Minute, MaxGroups: 1_000_000, MaxSet: 1000})
	if _, err := ingest.OpenChangelog(ctx, b.k, tp, func(_ bool, chunks [][]byte) error {
		return ingest.Entries(chunks, again.Restore)
	}); err != nil {
		return 0, err
	}
	took := time.Since(began).Seconds()
	if again.Groups() != groups {
		return 0, fmt.Errorf("%d groups restored", again.Groups())
	}
	return took, nil
}

// fromKafka has a process read a filled topic, from its start to the last record: fetching, decompressing, dropping repeats, and all that is written.
func (b *bench) fromKafka(ctx context.Context, config string) (perCPU, wall float64, err error) {
	if err := b.topics(ctx); err != nil {
		return 0, 0, err
	}
	records, err := b.fillLogs(ctx)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	p, err := start(b.binary, "processor", b.dir, fmt.Sprintf("kafka:\n  brokers: [%s]\nprocessor:\n%s  interval: 200ms\n", b.broker, config))
	if err != nil {
		return 0, 0, err
	}
	limited, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	err = p.await(limited, `weir_ingest_records_total{group="processor",topic="weir.logs"}`, float64(records))
	wall = time.Since(began).Seconds()
	used, stopped := p.stop()
	return float64(records) / used.cpu.Seconds(), wall, errors.Join(err, stopped)
}

// fillLogs writes at least b.records lines of the last hour.
func (b *bench) fillLogs(ctx context.Context) (records int, err error) {
	producer, err := ingest.NewProducer(b.k, ingest.DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- producer.Run(running) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()
	from := time.Now().Add(-time.Hour)
	for round := int64(0); records < b.records; round++ {
		for _, m := range logBatches(from, round) {
			if err := producer.Send(ctx, ingest.Message{Topic: schema.TopicLogs, Source: m.info.Source, Begin: m.info.Begin, End: m.info.End, Count: m.info.Count, Value: m.value}); err != nil {
				return 0, err
			}
			records += m.info.Count
		}
	}
	return records, producer.Flush(ctx)
}

// signalDelay writes steadily for a minute and times signals from their window's end until a reader has them.
func (b *bench) signalDelay(ctx context.Context) (float64, error) {
	if err := b.topics(ctx); err != nil {
		return 0, err
	}
	p, err := start(b.binary, "processor", b.dir, fmt.Sprintf("kafka:\n  brokers: [%s]\nprocessor:\n  windows: [{by: [container_id], window: 10s}, {by: [app], window: 10s}]\n", b.broker))
	if err != nil {
		return 0, err
	}
	defer func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() }()
	producer, err := ingest.NewProducer(b.k, ingest.DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 3)
	go func() { ended <- producer.Run(running) }()
	go func() { ended <- b.steady(running, producer) }()
	var delays []float64
	begun := time.Now().Add(15 * time.Second) // until both stages have their partitions
	go func() {
		ended <- b.k.Tail(running, []string{schema.TopicSignals}, true, func(batch *schema.Batch) error {
			for i := range batch.Records {
				s, err := signal.FromRecord(&batch.Records[i])
				if err != nil {
					return err
				}
				if s.Revision == 0 && s.End > begun.UnixNano() && !s.Late {
					delays = append(delays, float64(time.Now().UnixNano()-s.End)/1e6)
				}
			}
			return nil
		}, nil)
	}()
	select {
	case <-ctx.Done():
	case <-time.After(75 * time.Second):
	}
	stop()
	for range 3 {
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			return 0, err
		}
	}
	if len(delays) < 100 {
		return 0, fmt.Errorf("only %d signals came", len(delays))
	}
	slices.Sort(delays)
	p99 := delays[len(delays)*99/100]
	fmt.Printf("%d signals, from the end of their window: half within %.0f ms, 99 %% within %.0f ms\n", len(delays), delays[len(delays)/2], p99)
	return p99, nil
}

// steady writes ten times a second from each of twenty containers.
func (b *bench) steady(ctx context.Context, producer *ingest.Producer) error {
	var offsets [20]int64
	inc := schema.Incarnation{Start: time.Now().UnixNano()}
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		for c := range offsets {
			id := fmt.Sprintf("c%d", c)
			source := "docker/n1/" + id
			var e schema.Encoder
			e.Reset(source, inc, []schema.Attr{schema.String(schema.AttrContainerID, id), schema.String(schema.AttrApp, fmt.Sprintf("app%d", c%4)), schema.String(schema.AttrHostName, "n1")})
			begin, now := offsets[c], time.Now().UnixNano()
			for range 10 {
				e.Append(&schema.Record{Offset: offsets[c], Time: now, Observed: now, Body: "a line"})
				offsets[c]++
			}
			at := func(o int64) schema.Position { return schema.Position{Incarnation: inc, Offset: o} }
			if err := producer.Send(ctx, ingest.Message{Topic: schema.TopicLogs, Source: source, Begin: at(begin), End: at(offsets[c]), Prev: at(begin), PrevKnown: true, Count: e.Count(), Value: e.Take()}); err != nil {
				return nil // the end
			}
		}
	}
}
