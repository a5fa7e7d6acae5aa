package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/archiver/store"
	"weir/ingest"
	"weir/internal/bench/loglines"
	"weir/schema"
)

// The aims for the archiver; docs/performance.md says what was reached.
const (
	aimArchiverMBPerS = 150.0
	aimArchiverBytes  = 0.5 // of gzip's
	aimArchiverRSS    = 256.0
	aimSparkTimes     = 10.0
	aimSearchID       = 1.0
	aimScanMBPerS     = 500.0
)

const (
	archived   = `weir_archiver_rows_total{topic="weir.logs"}`
	readByArch = `weir_ingest_records_total{group="archiver",topic="weir.logs"}`
)

// archiveData is the records of a run in the forms that the archive is compared with.
type archiveData struct {
	bytes int64    // of json-file lines
	logs  []string // those lines, a file for each container
	json  string   // a folder in the store: JSON lines of the same records with their app, gzipped
}

// archiver measures the archiver from a filled topic into HDFS, on one core; what its files take and what Spark takes to read them, beside compressed lines; its memory
// while 24 hours of event time are open; and searches of the archive.
func (b *bench) archiver(ctx context.Context) (err error) {
	if b.archiveRoot == "" || b.spark == "" {
		return errors.New("no HDFS or Spark: run `make bench-archiver`, or give -archive-root and -spark-submit")
	}
	root := b.archiveRoot + "/bench-" + strconv.FormatInt(time.Now().Unix(), 36)
	cfg := store.DefaultConfig()
	cfg.Root = root
	s, err := store.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(s), s.Close()) }()
	dir, err := b.folder("archiver")
	if err != nil {
		return err
	}

	fmt.Printf("filling the topic with %d records\n", b.records)
	data, err := b.fillLines(ctx, s, dir, b.records, 1)
	if err != nil {
		return err
	}
	mb := float64(data.bytes) / 1e6
	took, used, err := b.archive(ctx, dir, root+"/archive", b.records)
	if err != nil {
		return err
	}
	files, size, err := sizes(s, "archive/"+schema.TopicLogs)
	if err != nil {
		return err
	}
	fmt.Printf("archiver on one core: %.0f MB of lines in %.1f s, %.1f s CPU, %.0f MB RSS; %d files\n", mb, took.Seconds(), used.cpu.Seconds(), used.rssMB, files)
	gz, err := compressed(ctx, data.logs, "gzip", "-6")
	if err != nil {
		return err
	}
	zst, err := compressed(ctx, data.logs, "zstd", "-3")
	if err != nil {
		return err
	}
	fmt.Printf("bytes: Parquet %d, gzip -6 %d, zstd -3 %d\n", size, gz, zst)
	ours, theirs, err := b.countWithSpark(ctx, dir, root+"/archive", root+"/"+data.json, b.records)
	if err != nil {
		return err
	}
	searchID, scan := b.searchArchive(ctx, root+"/archive", mb)

	const hours = 24
	if _, err := b.fillLines(ctx, nil, dir, b.records/4, hours); err != nil {
		return err
	}
	_, spread, err := b.archive(ctx, dir, root+"/spread", b.records/4)
	if err != nil {
		return err
	}
	fmt.Printf("with %d hours open: %.0f MB RSS\n", hours, spread.rssMB)
	rss := max(used.rssMB, spread.rssMB)

	fmt.Printf("RESULT bench-archiver mb_per_s=%.0f cpu_s_per_gb=%.2f peak_rss_mb=%.0f bytes=%d gzip6_bytes=%d zstd3_bytes=%d spark_s=%.1f spark_json_s=%.1f search_id_s=%s scan_mb_per_s=%s\n",
		mb/took.Seconds(), used.cpu.Seconds()/mb*1000, rss, size, gz, zst, ours, theirs, figure(searchID, 2), figure(scan, 0))
	for _, a := range []struct {
		missed bool
		what   string
	}{{mb/took.Seconds() < aimArchiverMBPerS, "MB a second"}, {float64(size) > aimArchiverBytes*float64(gz), "bytes"}, {rss > aimArchiverRSS, "RSS"}, {theirs < aimSparkTimes*ours, "Spark's time"},
		{searchID > aimSearchID, "search for a container"}, {scan > 0 && scan < aimScanMBPerS, "full-text scan"}} {
		if a.missed {
			fmt.Fprintln(os.Stderr, "aim missed:", a.what)
		}
	}
	return nil
}

// figure shows what was measured, or a dash for what was not.
func figure(v float64, digits int) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// fillLines makes the topic anew, with records of twenty containers whose event times cover some hours, each message in another. With a store it keeps
// the same records as json-file logs and as gzipped JSON lines too.
func (b *bench) fillLines(ctx context.Context, s store.Store, dir string, records, hours int) (d archiveData, err error) {
	if err := b.topics(ctx); err != nil {
		return d, err
	}
	const sources, perBatch = 20, 1000
	var logs, lines []io.Writer
	var done []func() error
	if s != nil {
		d.json = "json"
		if err := s.MkdirAll(d.json); err != nil {
			return d, err
		}
		for f := range sources {
			log, err := os.Create(filepath.Join(dir, fmt.Sprintf("c%02d-json.log", f)))
			if err != nil {
				return d, err
			}
			d.logs = append(d.logs, log.Name())
			w := bufio.NewWriterSize(log, 1<<20)
			out, err := s.Create(path.Join(d.json, fmt.Sprintf("c%02d.json.gz", f)))
			if err != nil {
				return d, err
			}
			z := gzip.NewWriter(out)
			logs, lines, done = append(logs, w), append(lines, z), append(done, w.Flush, log.Close, z.Close, out.Close)
		}
	}
	p, err := ingest.NewProducer(b.k, ingest.DefaultProducerConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return d, err
	}
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(running) })
	defer wg.Wait()
	defer stop()
	r := rand.New(rand.NewPCG(5, 6))
	began := time.Now().UTC().Truncate(time.Hour).Add(-time.Duration(hours+1) * time.Hour)
	for at := 0; at < records; at += perBatch {
		f, n := at/perBatch%sources, min(perBatch, records-at)
		id := fmt.Sprintf("%064x", f+1)
		app := fmt.Sprintf("app%d", f%5)
		inc := schema.Incarnation{Start: began.UnixNano(), Print: uint32(f)}
		first := int64(at/perBatch/sources) * perBatch * 1000
		var e schema.Encoder
		e.Reset("docker/bench/"+id, inc, []schema.Attr{schema.String(schema.AttrContainerID, id), schema.String(schema.AttrImageName, "registry/shop:7"), schema.String(schema.AttrContainerName, fmt.Sprintf("c%d", f)),
			schema.String(schema.AttrHostName, "bench"), schema.String(schema.AttrApp, app), schema.String(schema.AttrFilePath, "/var/lib/docker/containers/"+id+"/"+id+"-json.log"), schema.String(schema.LabelPrefix+"app.kubernetes.io/name", "shop")})
		for i := range n {
			when := began.Add(time.Duration(at/perBatch%hours)*time.Hour + time.Duration(at+i)*time.Millisecond)
			line := loglines.Text(r, when, f, (at+i)%57) // none of the long ones
			for want := 330 + r.IntN(200); len(line) < want; {
				line = append(append(line, loglines.Word(r)...), ' ')
			}
			e.Append(&schema.Record{Time: when.UnixNano(), Observed: when.UnixNano() + 1e6, Body: string(line), Offset: first + int64(i)*1000, Severity: 9, SeverityText: "INFO", Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}})
			if s == nil {
				continue
			}
			k, err := writePiece(logs[f], append(line, '\n'), "stdout", when)
			if err != nil {
				return d, err
			}
			d.bytes += int64(k)
			j, err := json.Marshal(map[string]string{"time": when.Format(time.RFC3339Nano), "container_id": id, "container_name": fmt.Sprintf("c%d", f), "app": app, "stream": "stdout", "level": "INFO", "log": string(line)})
			if err != nil {
				return d, err
			}
			if _, err := lines[f].Write(append(j, '\n')); err != nil {
				return d, err
			}
		}
		prev := schema.Position{Incarnation: inc, Offset: first}
		if err := p.Send(ctx, ingest.Message{Topic: schema.TopicLogs, Source: "docker/bench/" + id, Begin: prev, Prev: prev, PrevKnown: true, End: schema.Position{Incarnation: inc, Offset: first + perBatch*1000}, Count: n, Value: e.Take()}); err != nil {
			return d, err
		}
	}
	for _, f := range done {
		err = errors.Join(err, f())
	}
	return d, errors.Join(err, p.Flush(ctx))
}

// archive runs the archiver on one core until all records are in the archive.
func (b *bench) archive(ctx context.Context, dir, root string, records int) (took time.Duration, used usage, err error) {
	// The variable would win over the configuration.
	if err := errors.Join(os.Setenv("GOMAXPROCS", "1"), os.Unsetenv("WEIR_ARCHIVE_ROOT")); err != nil {
		return 0, used, err
	}
	p, err := start(b.binary, "archiver", dir, fmt.Sprintf("kafka:\n  brokers: [%s]\narchiver:\n  root: %s\n", b.broker, root))
	if err := errors.Join(err, os.Unsetenv("GOMAXPROCS")); err != nil {
		return 0, used, err
	}
	limit, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := p.await(limit, readByArch, 1); err != nil {
		return 0, used, err
	}
	began := time.Now()
	if err := p.await(limit, readByArch, float64(records)); err != nil {
		return 0, used, err
	}
	used, err = p.stop() // commits
	if took = time.Since(began); err != nil {
		log, _ := os.ReadFile(p.log)
		err = fmt.Errorf("%w: its log ends: %s", err, log[max(0, len(log)-2000):])
	}
	return took, used, err
}

// sizes counts the files below a folder and their bytes.
func sizes(s store.Store, dir string) (files int, size int64, err error) {
	entries, err := s.List(dir)
	for _, e := range entries {
		n, sum := 1, e.Size
		if e.Dir {
			var childErr error
			n, sum, childErr = sizes(s, path.Join(dir, e.Name))
			err = errors.Join(err, childErr)
		}
		files, size = files+n, size+sum
	}
	return files, size, err
}

func removeAll(s store.Store) error {
	var err error
	for _, dir := range []string{"archive", "spread", "json"} {
		if e := store.RemoveTree(s, dir); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, s.Remove("."))
}

// compressed is what a program makes of the files, each alone.
func compressed(ctx context.Context, files []string, program, level string) (total int64, err error) {
	for _, f := range files {
		cmd := exec.CommandContext(ctx, program, level, "-c", f)
		out, err := cmd.StdoutPipe()
		if err != nil {
			return 0, err
		}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		n, err := io.Copy(io.Discard, out)
		if err := errors.Join(err, cmd.Wait()); err != nil {
			return 0, fmt.Errorf("%s %s: %w", program, f, err)
		}
		total += n
	}
	return total, nil
}

// sparkJob counts by app, on the archive and on JSON lines whose schema is given, each twice: the first time is for the JVM to get warm.
const sparkJob = `
import json, sys, time
from pyspark.sql import SparkSession
spark = SparkSession.builder.appName("weir-bench").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
def timed(read):
    for _ in range(2):
        began = time.time()
        rows = {r["app"]: r["count"] for r in read().groupBy("app").count().collect()}
        took = time.time() - began
    return took, rows
ours, a = timed(lambda: spark.read.parquet(sys.argv[1] + "/weir.logs"))
theirs, b = timed(lambda: spark.read.schema("time string, container_id string, container_name string, app string, stream string, level string, log string").json(sys.argv[2]))
print("SPARK " + json.dumps({"ours": ours, "theirs": theirs, "rows": sum(a.values()), "same": a == b}))
`

func (b *bench) countWithSpark(ctx context.Context, dir, root, lines string, records int) (ours, theirs float64, err error) {
	job := filepath.Join(dir, "count.py")
	if err := os.WriteFile(job, []byte(sparkJob), 0o600); err != nil {
		return 0, 0, err
	}
	out, err := exec.CommandContext(ctx, b.spark, job, root, lines).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		var r struct {
			Ours, Theirs float64
			Rows         int
			Same         bool
		}
		if j, ok := strings.CutPrefix(line, "SPARK "); ok && json.Unmarshal([]byte(j), &r) == nil {
			if r.Rows != records || !r.Same {
				return 0, 0, fmt.Errorf("the Spark job counted %s of %d records", j, records)
			}
			fmt.Printf("Spark counts by app: %.1f s on the archive, %.1f s on gzipped JSON lines\n", r.Ours, r.Theirs)
			return r.Ours, r.Theirs, nil
		}
	}
	return 0, 0, fmt.Errorf("the Spark job gave nothing: %w: %s", err, out[max(0, len(out)-2000):])
}

// searchArchive times `weir search --archive` for one container, in seconds, and over all bodies, in MB of lines a second. A binary that has no such command gives zeros.
func (b *bench) searchArchive(ctx context.Context, root string, mb float64) (id, scan float64) {
	help, _ := exec.CommandContext(ctx, b.binary, "search", "--help").CombinedOutput()
	if !strings.Contains(string(help), "--archive") {
		fmt.Println("the binary has no search --archive: not measured")
		return 0, 0
	}
	timed := func(query string) float64 {
		began := time.Now()
		if out, err := exec.CommandContext(ctx, b.binary, "search", "--archive", root, "--since", "all", query).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "search %s: %v: %s\n", query, err, out[max(0, len(out)-1000):])
			return 0
		}
		return time.Since(began).Seconds()
	}
	id = timed(fmt.Sprintf("container.id: %064x", 7))
	if took := timed("nosuchword"); took > 0 {
		scan = mb / took
	}
	fmt.Printf("search: %.2f s for one container, %.0f MB a second for a word that is not there\n", id, scan)
	return id, scan
}
