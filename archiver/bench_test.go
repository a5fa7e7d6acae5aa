package archiver

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/ingest"
	"weir/schema"
)

// jsonLine is what the json-file driver adds to a line of the benchmark.
const jsonLine = len(`{"log":"\n","stream":"stdout","time":"2026-11-25T12:00:00.000000000Z"}` + "\n")

// benchBatches are records of twenty containers, of about 430 bytes, in messages of a thousand. It returns their bytes as json-file lines too.
func benchBatches(n int) (batches []*schema.Batch, original int64) {
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("request accepted order payment retry upstream timeout=30s status=200 took=12ms user session cache miss INFO worker-7 ledger posted")
	for i := range n {
		f := i % 20
		source := fmt.Sprintf("docker/bench/%064x", f)
		inc := schema.Incarnation{Start: 1764054000e9, Print: uint32(f)}
		b := &schema.Batch{Topic: schema.TopicLogs, KafkaOffset: int64(i), Source: source, Begin: schema.Position{Incarnation: inc, Offset: int64(i) * 1e6}, From: int64(i) * 1e6, End: schema.Position{Incarnation: inc, Offset: int64(i+1) * 1e6},
			Resource: []schema.Attr{schema.String(schema.AttrContainerID, source[13:]), schema.String(schema.AttrImageName, "registry/shop:7"), schema.String(schema.AttrContainerName, fmt.Sprintf("c%d", f)), schema.String(schema.AttrHostName, "bench"),
				schema.String(schema.AttrApp, fmt.Sprintf("app%d", f%5)), schema.String(schema.AttrFilePath, "/var/lib/docker/containers/c/c-json.log"), schema.String(schema.LabelPrefix+"app.kubernetes.io/name", "shop")}}
		for j := range int64(1000) {
			at := int64(1764054000e9) + int64(i)*1e6 + j*1000
			line := fmt.Appendf(nil, "%s INFO f=%d n=%d req=%016x user=%d ", time.Unix(0, at).UTC().Format("2006-01-02T15:04:05.000Z"), f, j, r.Uint64(), r.IntN(1e6))
			for want := 350 + r.IntN(160); len(line) < want; {
				line = append(append(line, words[r.IntN(len(words))]...), ' ')
			}
			b.Records = append(b.Records, schema.Record{Offset: int64(i)*1e6 + j*500, Time: at, Observed: at + 1e6, Body: string(line), Severity: 9, SeverityText: "INFO", Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}})
			original += int64(len(line) + jsonLine)
		}
		batches = append(batches, b)
	}
	return batches, original
}

// BenchmarkWrite measures records to Parquet in a local folder, in original bytes.
func BenchmarkWrite(b *testing.B) {
	batches, original := benchBatches(400)
	b.SetBytes(original)
	before := cpu(b)
	var written prometheus.Collector
	for b.Loop() {
		a, err := newTestArchiver("file://"+b.TempDir(), DefaultConfig().RowGroupRows, DefaultConfig().OpenHours)
		if err != nil {
			b.Fatal(err)
		}
		s, _, err := a.Open(b.Context(), tp)
		if err != nil {
			b.Fatal(err)
		}
		for _, batch := range batches {
			if err := s.Write(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Commit(b.Context(), ingest.Checkpoint{NextOffset: int64(len(batches))}); err != nil {
			b.Fatal(err)
		}
		written = a.m.bytes
	}
	b.ReportMetric(100*testutil.ToFloat64(written)/float64(original), "%ofbytes")
	b.ReportMetric(float64(original)*float64(b.N)/1e6/(cpu(b)-before).Seconds(), "MB/cpu-s")
}

// cpu is what the process has taken: on a busy machine the time that passes says little.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
