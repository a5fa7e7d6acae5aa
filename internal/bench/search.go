package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/archiver"
	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
	"weir/internal/bench/loglines"
	"weir/internal/cli"
	"weir/schema"
)

const (
	benchContainers = 100
	benchPartitions = 4
)

// search measures `weir search --archive`: one container's records, and a scan of all bodies, in an archive that the archiver wrote of
// b.mb megabytes of lines. Where a root is given, its archive is kept, and taken as it is.
func (b *bench) search(ctx context.Context) error {
	root := b.archiveDir
	if root == "" {
		tmp, err := os.MkdirTemp("", "weir-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		root = "file://" + tmp
	}
	cfg := archiver.DefaultConfig()
	cfg.Root = root
	s, err := store.Open(cfg.Config)
	if err != nil {
		return err
	}
	_, err = archive.Topics(s)
	if closed := s.Close(); closed != nil {
		return closed
	}
	if err != nil { // there is none yet
		if err := b.fillArchive(ctx, cfg); err != nil {
			return err
		}
	}
	if b.profile != "" {
		f, err := os.Create(b.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var took, cpu [3]time.Duration
	for i, query := range []string{"container.id: " + benchID(7, 20), "container.id: " + benchID(0, 0), "nosuchword"} {
		for range 3 {
			var told bytes.Buffer
			var hits counter
			begin, before := time.Now(), ownCPU()
			if exit := cli.Main([]string{"search", "--archive", root, "--since", "all", query}, &hits, &told); exit != 0 {
				return fmt.Errorf("search %s: exit status %d: %s", query, exit, told.String())
			}
			d, c := time.Since(begin), ownCPU()-before
			if took[i] == 0 || d < took[i] {
				took[i] = d
			}
			if cpu[i] == 0 || c < cpu[i] {
				cpu[i] = c
			}
			fmt.Printf("%s: %d lines, %s of CPU; %s", query, hits.lines, c.Round(10*time.Millisecond), told.String())
		}
	}
	rate := float64(b.mb) / took[2].Seconds()
	ok := took[0].Seconds() <= aimSearchID && took[1].Seconds() <= aimSearchID && rate >= aimScanMBPerS
	fmt.Printf("RESULT bench-search id_s=%.2f long_id_s=%.2f scan_mb_per_s=%.0f id_cpu_s=%.2f long_id_cpu_s=%.2f scan_mb_per_cpu_s=%.0f ok=%t\n",
		took[0].Seconds(), took[1].Seconds(), rate, cpu[0].Seconds(), cpu[1].Seconds(), float64(b.mb)/cpu[2].Seconds(), ok)
	return nil
}

type counter struct{ lines int }

func (c *counter) Write(p []byte) (int, error) {
	c.lines += bytes.Count(p, []byte{'\n'})
	return len(p), nil
}

// benchID is the container's id of a slot in a minute: the first slots are of containers that live throughout, the others of such as
// live for ten minutes.
func benchID(slot, minute int) string {
	if slot < benchContainers/2 && slot%7 != 0 || slot == 0 {
		minute = 0
	}
	return fmt.Sprintf("%064x", 1_000_003*(slot*1000+minute/10+1))
}

// fillArchive writes lines of about 200 bytes over two hours, in commits of a minute of four partitions.
func (b *bench) fillArchive(ctx context.Context, cfg archiver.Config) error {
	a, err := archiver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	defer a.Close()
	begin := time.Now()
	const minutes, second = 120, int64(time.Second)
	perMinute := b.mb * 1e6 / minutes / benchContainers
	start := time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)
	var lines, size int64
	for p := range benchPartitions {
		sink, _, err := a.Open(ctx, ingest.TopicPartition{Topic: schema.TopicLogs, Partition: p})
		if err != nil {
			return err
		}
		r := rand.New(rand.NewPCG(1, uint64(p)))
		next := int64(0)
		for minute := range minutes {
			at := start.Add(time.Duration(minute) * time.Minute)
			for slot := p; slot < benchContainers; slot += benchPartitions {
				id := benchID(slot, minute)
				batch := &schema.Batch{Source: "docker/n1/" + id, Topic: schema.TopicLogs, Partition: p, KafkaOffset: next}
				batch.Begin = schema.Position{Incarnation: schema.Incarnation{Start: start.UnixNano(), Print: uint32(slot)}, Offset: int64(minute) << 32}
				batch.Resource = []schema.Attr{schema.String(schema.AttrContainerID, id), schema.String(schema.AttrContainerName, fmt.Sprintf("web-%d", slot)), schema.String(schema.AttrApp, fmt.Sprintf("app-%d", slot%10)),
					schema.String(schema.AttrHostName, fmt.Sprintf("n%d", slot%5)), schema.String(schema.AttrImageName, "registry.example/app:1.2"), schema.String(schema.AttrFilePath, "/var/lib/docker/containers/"+id+"/"+id+"-json.log"), schema.String(schema.LabelPrefix+"team", "core")}
				offset := batch.Begin.Offset
				for done := int64(0); done < perMinute; {
					n := r.IntN(50)
					line := loglines.Text(r, at, slot, n)
					done += int64(len(line))
					rec := schema.Record{Time: at.UnixNano() + done*60*second/perMinute, Observed: at.UnixNano(), Severity: 9, SeverityText: "INFO", Body: string(line), Offset: offset, Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}}
					offset += int64(len(line))
					batch.Records = append(batch.Records, rec)
				}
				batch.End = schema.Position{Incarnation: batch.Begin.Incarnation, Offset: offset}
				batch.From = batch.Begin.Offset
				lines, size = lines+int64(len(batch.Records)), size+offset-batch.Begin.Offset
				if err := sink.Write(ctx, batch); err != nil {
					return err
				}
				next++
			}
			if minute%5 == 4 {
				if err := sink.Commit(ctx, ingest.Checkpoint{NextOffset: next}); err != nil {
					return err
				}
			}
		}
		if err := sink.Close(); err != nil {
			return err
		}
	}
	fmt.Printf("wrote %d lines, %d MB, in %s on %d processors\n", lines, size/1e6, time.Since(begin).Round(time.Second), runtime.GOMAXPROCS(0))
	return nil
}

// ownCPU is the processor time that this process took so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail so
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
