package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"weir/ingest"
	"weir/internal/engine"
	"weir/schema"
)

type bench struct {
	binary, broker, dir, kafkaData string
	elastic, archiveRoot, spark    string
	archiveDir, profile            string
	elasticPid, records            int
	mb                             int64
	k                              *ingest.Kafka
}

// The aims that the command holds itself to; docs/performance.md says what was reached.
const (
	aimKcatShare = 0.4
	aimRSS       = 64.0
	aimIdleCPU   = 0.1
	aimIdleRSS   = 40.0
	aimP99       = 100.0
	aimQuietP99  = 1000.0
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var b bench
	flag.StringVar(&b.binary, "weir", "bin/weir", "the binary to measure")
	flag.StringVar(&b.broker, "broker", os.Getenv("WEIR_KAFKA_BROKERS"), "a real Kafka")
	flag.StringVar(&b.kafkaData, "kafka-data", ".stack/data/kafka", "the broker's data folder")
	flag.Int64Var(&b.mb, "mb", 1000, "megabytes of logs")
	flag.StringVar(&b.elastic, "elasticsearch", os.Getenv("WEIR_ELASTICSEARCH_URL"), "a real Elasticsearch, for the indexer")
	flag.IntVar(&b.elasticPid, "elasticsearch-pid", 0, "its process, for its CPU time")
	flag.IntVar(&b.records, "records", 2_000_000, "records for the indexer, and for the archiver")
	only := flag.String("only", "", "one part: throughput, idle or latency; or indexer, archiver, processor or search, which are not among the others")
	flag.StringVar(&b.archiveRoot, "archive-root", os.Getenv("WEIR_ARCHIVE_ROOT"), "a folder in a real HDFS, for the archiver")
	flag.StringVar(&b.spark, "spark-submit", os.Getenv("WEIR_SPARK_SUBMIT"), "a real Spark, for the archiver")
	flag.StringVar(&b.archiveDir, "archive", "", "the root of an archive to search, which is filled where it is not there; a folder of its own without it")
	flag.StringVar(&b.profile, "cpuprofile", "", "a file for the profile of searching the archive")
	flag.Parse()
	if err := b.run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, only string) (err error) {
	if only == "search" {
		return b.search(ctx)
	}
	if b.broker == "" {
		return errors.New("no broker: run `make bench-agent`, or set WEIR_KAFKA_BROKERS")
	}
	if b.dir, err = os.MkdirTemp("", "weir-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	cfg := ingest.DefaultKafkaConfig()
	cfg.Brokers = strings.Split(b.broker, ",")
	if b.k, err = ingest.NewKafka(cfg); err != nil {
		return err
	}
	defer b.k.Close()
	if only == "processor" {
		return b.processor(ctx)
	}
	if only == "indexer" {
		return b.indexer(ctx)
	}
	if only == "archiver" {
		return b.archiver(ctx)
	}
	var r result
	for _, part := range []struct {
		name string
		run  func(context.Context, *result) error
	}{{"throughput", b.throughput}, {"idle", b.idle}, {"latency", b.latency}} {
		if only != "" && only != part.name {
			continue
		}
		if err := part.run(ctx, &r); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return r.tell(only)
}

type result struct {
	gb                      float64
	agent, kcat             usage
	wall, kcatWall          time.Duration
	kafkaMB, kcatKafkaMB    float64
	lost, repeated          int
	idle100, idle2000       usage
	idle100Pct, idle2000Pct float64
	p50, p99, quietP99      float64 // ms
}

func (r *result) tell(only string) error {
	agent, kcat := r.agent.cpu.Seconds()/r.gb, r.kcat.cpu.Seconds()/r.gb
	fmt.Printf("RESULT bench-agent cpu_s_per_gb=%.2f kcat_cpu_s_per_gb=%.2f wall_s=%.1f peak_rss_mb=%.0f kafka_mb=%.0f lost=%d repeated=%d idle100_cpu_pct=%.2f idle100_rss_mb=%.0f idle2000_cpu_pct=%.2f idle2000_rss_mb=%.0f p50_ms=%.0f p99_ms=%.0f quiet_p99_ms=%.0f\n",
		agent, kcat, r.wall.Seconds(), r.agent.rssMB, r.kafkaMB, r.lost, r.repeated, r.idle100Pct, r.idle100.rssMB, r.idle2000Pct, r.idle2000.rssMB, r.p50, r.p99, r.quietP99)
	if only != "" {
		return nil
	}
	var missed []string
	for _, a := range []struct {
		name      string
		got, want float64
	}{{"CPU as a share of kcat's", agent / kcat, aimKcatShare}, {"peak RSS, MB", r.agent.rssMB, aimRSS}, {"idle CPU, %", r.idle100Pct, aimIdleCPU}, {"idle RSS, MB", r.idle100.rssMB, aimIdleRSS},
		{"p99 latency, ms", r.p99, aimP99}, {"a quiet container's p99, ms", r.quietP99, aimQuietP99}} {
		if a.got > a.want {
			missed = append(missed, fmt.Sprintf("%s: %.2f, aimed at %.2f", a.name, a.got, a.want))
		}
	}
	if len(missed) > 0 {
		fmt.Fprintln(os.Stderr, "aims missed: "+strings.Join(missed, "; "))
	}
	if r.lost > 0 || r.repeated > 0 {
		return fmt.Errorf("%d lines lost, %d repeated", r.lost, r.repeated)
	}
	return nil
}

// topics makes weir's topics anew, so that what is counted is of this run.
func (b *bench) topics(ctx context.Context) error {
	c := &kafka.Client{Addr: kafka.TCP(strings.Split(b.broker, ",")...), Timeout: 20 * time.Second}
	specs := ingest.DefaultTopics(6, 1)
	specs = append(specs, ingest.TopicSpec{Name: "bench.bare", Partitions: 6, Replication: 1})
	var names []string
	for _, s := range specs {
		names = append(names, s.Name)
	}
	if _, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: names}); err != nil {
		return err
	}
	for range 100 {
		plan, err := ingest.PlanTopics(ctx, b.k, specs)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(plan, func(c ingest.TopicChange) bool { return !c.Create }) {
			time.Sleep(time.Second) // the broker still deletes
			return ingest.ApplyTopics(ctx, b.k, plan)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the topics of the run before are not deleted")
}

// host starts a pretended engine with containers whose logs are at the given paths.
func (b *bench) host(ctx context.Context, logs []string) (string, error) {
	e, err := engine.Listen()
	if err != nil {
		return "", err
	}
	for i, path := range logs {
		id := fmt.Sprintf("%064x", i+1)
		e.Add(engine.Container{ID: id, Name: fmt.Sprintf("c%d", i), Image: "bench", LogPath: path, Labels: map[string]string{"weir.app": "bench"}})
		e.Start(id)
	}
	go func() { _ = e.Serve(ctx) }()
	return e.Address(), nil
}

func (b *bench) folder(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	return dir, os.MkdirAll(dir, 0o755)
}

func (b *bench) throughput(ctx context.Context, r *result) error {
	dir, err := b.folder("throughput")
	if err != nil {
		return err
	}
	fmt.Printf("making %d MB of logs\n", b.mb)
	d, err := makeData(dir, 20, b.mb*1e6)
	if err != nil {
		return err
	}
	r.gb = float64(d.bytes) / 1e9
	if err := b.topics(ctx); err != nil {
		return err
	}
	host, err := b.host(ctx, d.logs)
	if err != nil {
		return err
	}
	fmt.Printf("agent: %d lines in %d files\n", d.lines, len(d.logs))
	began := time.Now()
	p, err := startAgent(b.binary, dir, b.broker, host)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := p.await(limit, "weir_producer_acked_records_total", float64(d.lines)); err != nil {
		return err
	}
	r.wall = time.Since(began)
	if r.agent, err = p.stop(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	r.kafkaMB = b.topicMB(schema.TopicLogs)
	fmt.Printf("agent: %.2f s CPU, %.1f s, %.0f MB RSS, %.0f MB in Kafka; counting\n", r.agent.cpu.Seconds(), r.wall.Seconds(), r.agent.rssMB, r.kafkaMB)
	if r.lost, r.repeated, err = b.count(ctx, d.lines); err != nil {
		return err
	}
	began = time.Now()
	kcat := exec.CommandContext(ctx, "kcat", "-P", "-b", b.broker, "-t", "bench.bare", "-z", "zstd", "-X", "acks=all", "-l", d.bare)
	kcat.Stderr = os.Stderr
	if err := kcat.Start(); err != nil {
		return fmt.Errorf("kcat, the yardstick: %w (on Debian: apt-get install kcat)", err)
	}
	if r.kcat, err = wait(kcat); err != nil {
		return fmt.Errorf("kcat: %w", err)
	}
	r.kcatWall, r.kcatKafkaMB = time.Since(began), b.topicMB("bench.bare")
	fmt.Printf("kcat:  %.2f s CPU, %.1f s, %.0f MB RSS, %.0f MB in Kafka\n", r.kcat.cpu.Seconds(), r.kcatWall.Seconds(), r.kcat.rssMB, r.kcatKafkaMB)
	return os.RemoveAll(dir)
}

func (b *bench) topicMB(topic string) float64 {
	files, _ := filepath.Glob(filepath.Join(b.kafkaData, topic+"-*", "*.log"))
	more, _ := filepath.Glob(filepath.Join(b.kafkaData, "*", topic+"-*", "*.log"))
	var n int64
	for _, f := range append(files, more...) {
		if strings.HasSuffix(filepath.Dir(f), "-delete") {
			continue // of the run before; the broker removes it a minute later
		}
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return float64(n) / 1e6
}

// count reads the topic and finds each line, once.
func (b *bench) count(ctx context.Context, lines int) (lost, repeated int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(20*time.Second, cancel)
	seen := make(map[[2]int]bool, lines)
	err = b.k.Tail(ctx, []string{schema.TopicLogs}, true, func(batch *schema.Batch) error {
		patience := 20 * time.Second // the machine may be busy
		if len(seen) == lines {
			patience = 3 * time.Second
		}
		idle.Reset(patience)
		for i := range batch.Records {
			var at string
			var f, n int
			if _, err := fmt.Sscanf(batch.Records[i].Body, "%s INFO f=%d n=%d ", &at, &f, &n); err != nil {
				return fmt.Errorf("a body that was not written: %.80q", batch.Records[i].Body)
			}
			if seen[[2]int{f, n}] {
				repeated++
			}
			seen[[2]int{f, n}] = true
		}
		return nil
	}, func(err error) { fmt.Println("counting:", err) })
	if !errors.Is(err, context.Canceled) {
		return 0, 0, err
	}
	return lines - len(seen), repeated, nil
}

// idle measures the agent beside containers that are quiet.
func (b *bench) idle(ctx context.Context, r *result) error {
	for _, c := range []struct {
		n   int
		u   *usage
		pct *float64
	}{{100, &r.idle100, &r.idle100Pct}, {2000, &r.idle2000, &r.idle2000Pct}} {
		dir, err := b.folder(fmt.Sprintf("idle%d", c.n))
		if err != nil {
			return err
		}
		d, err := makeData(dir, c.n, int64(c.n)*2000)
		if err != nil {
			return err
		}
		if err := b.topics(ctx); err != nil {
			return err
		}
		host, err := b.host(ctx, d.logs)
		if err != nil {
			return err
		}
		p, err := startAgent(b.binary, dir, b.broker, host)
		if err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(ctx, time.Minute)
		err = p.await(limit, "weir_producer_acked_records_total", float64(d.lines))
		cancel()
		if err != nil {
			return err
		}
		time.Sleep(5 * time.Second)
		before, err := p.now()
		if err != nil {
			return err
		}
		const span = 20 * time.Second
		time.Sleep(span)
		if *c.u, err = p.now(); err != nil {
			return err
		}
		*c.pct = 100 * (c.u.cpu - before.cpu).Seconds() / span.Seconds()
		fmt.Printf("idle: %d containers, %.2f %% of a core, %.0f MB RSS\n", c.n, *c.pct, c.u.rssMB)
		if _, err := p.stop(); err != nil {
			return err
		}
	}
	return nil
}

// latency writes at 10 MB/s and reads the topic, then floods one container beside a quiet one.
func (b *bench) latency(ctx context.Context, r *result) (err error) {
	all, err := b.live(ctx, "steady", []int{2_500_000, 2_500_000, 2_500_000, 2_500_000}, 15*time.Second)
	if err != nil {
		return err
	}
	var steady []float64
	for _, l := range all {
		steady = append(steady, l...)
	}
	r.p50, r.p99 = percentile(steady, 50), percentile(steady, 99)
	fmt.Printf("latency at 10 MB/s: p50 %.0f ms, p99 %.0f ms, %d lines\n", r.p50, r.p99, len(steady))
	if all, err = b.live(ctx, "flood", []int{60_000_000, 2_000}, 10*time.Second); err != nil {
		return err
	}
	r.quietP99 = percentile(all[1], 99)
	fmt.Printf("a quiet container beside one that writes 60 MB/s: p99 %.0f ms, %d lines\n", r.quietP99, len(all[1]))
	return nil
}

// live lets containers write at the given rates, in bytes a second, and returns for each the milliseconds between writing a line
// and finding it in Kafka.
func (b *bench) live(ctx context.Context, name string, rates []int, span time.Duration) ([][]float64, error) {
	dir, err := b.folder(name)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := b.topics(ctx); err != nil {
		return nil, err
	}
	var logs []string
	for i := range rates {
		logs = append(logs, filepath.Join(dir, fmt.Sprintf("l%d-json.log", i)))
		if err := os.WriteFile(logs[i], nil, 0o644); err != nil { // as the engine does when it starts a container
			return nil, err
		}
	}
	host, err := b.host(ctx, logs)
	if err != nil {
		return nil, err
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	found := make([][]float64, len(rates))
	var readers sync.WaitGroup
	readers.Go(func() {
		_ = b.k.Tail(reading, []string{schema.TopicLogs}, true, func(batch *schema.Batch) error {
			now := time.Now().UnixNano()
			for i := range batch.Records {
				var f int
				if _, err := fmt.Sscanf(batch.Records[i].Body, "f=%d ", &f); err == nil {
					found[f] = append(found[f], float64(now-batch.Records[i].Time)/1e6)
				}
			}
			return nil
		}, nil)
	})
	p, err := startAgent(b.binary, dir, b.broker, host)
	if err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Second)
	errs := make(chan error, len(rates))
	for f, rate := range rates {
		go func() { errs <- write(ctx, logs[f], f, rate, span) }()
	}
	for range rates {
		err = errors.Join(err, <-errs)
	}
	time.Sleep(3 * time.Second)
	stop()
	readers.Wait()
	_, stopErr := p.stop()
	return found, errors.Join(err, stopErr)
}

// write appends lines at a rate, in bursts of 10 ms.
func write(ctx context.Context, path string, f, rate int, span time.Duration) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	padding := strings.Repeat("abcdefghij", 17)
	began := time.Now()
	for n, sent := 0, 0; time.Since(began) < span && ctx.Err() == nil; {
		due := int(time.Since(began).Seconds() * float64(rate))
		for ; sent < due; n++ {
			k, err := writePiece(out, fmt.Appendf(nil, "f=%d n=%d %s\n", f, n, padding), "stdout", time.Now())
			if err != nil {
				return err
			}
			sent += k
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

func percentile(x []float64, p int) float64 {
	if len(x) == 0 {
		return 0
	}
	slices.Sort(x)
	return x[min(len(x)-1, len(x)*p/100)]
}
