//go:build e2e

package archiver

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/schema"
)

// realRoot is a new folder in the real HDFS of the development stack.
func realRoot(t *testing.T, scheme, key string) string {
	t.Helper()
	namenode := strings.TrimPrefix(os.Getenv(key), "http://")
	if namenode == "" {
		t.Fatalf("%s is not set: run `make e2e`", key)
	}
	return fmt.Sprintf("%s://%s/archiver-test/%d", scheme, namenode, time.Now().UnixNano())
}

func hdfsRoot(t *testing.T) string { return realRoot(t, "hdfs", "WEIR_HDFS_NAMENODE") }

func TestHDFSSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness { return harness(hdfsRoot(t)) })
}

func TestWebHDFSSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness { return harness(realRoot(t, "webhdfs", "WEIR_WEBHDFS_URL")) })
}

func TestHttpFSSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness { return harness(realRoot(t, "webhdfs", "WEIR_HTTPFS_URL")) })
}

func TestHDFSKilledAtEachStep(t *testing.T) {
	killedAtEachStep(t, hdfsRoot)
}

// sparkRows prints the schema and all rows, bodies and maps in a form that JSON can hold.
const sparkRows = `
import base64, json, sys
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
spark = SparkSession.builder.appName("weir-rows").config("spark.sql.session.timeZone", "UTC").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
rows = spark.read.parquet(sys.argv[1])
print("SCHEMA " + json.dumps(rows.dtypes))
for r in rows.withColumn("body", F.col("body").cast("binary")).withColumn("timestamp", F.unix_micros("timestamp")).collect():
    row = r.asDict()
    row["body"] = base64.b64encode(row["body"]).decode()
    row["dt"] = str(row["dt"])
    print("ROW " + json.dumps(row))
`

// TestSparkReadsEveryColumn writes a commit to HDFS and compares each value that Spark reads with what was given.
func TestSparkReadsEveryColumn(t *testing.T) {
	submit := os.Getenv("WEIR_SPARK_SUBMIT")
	if submit == "" {
		t.Fatal("WEIR_SPARK_SUBMIT is not set: run `make e2e`")
	}
	root := hdfsRoot(t)
	b := batch(0)
	b.Resource = append(b.Resource, schema.String(schema.AttrContainerID, "cid"), schema.String(schema.AttrTenant, "t"), schema.String(schema.AttrSite, "s"), schema.String(schema.AttrCell, "c"), schema.String(schema.AttrImageName, "i"), schema.String(schema.AttrHostName, "h"))
	b.Records[0].TraceID, b.Records[0].SpanID, b.Records[0].EventName, b.Records[0].SeverityText = [16]byte{1}, [8]byte{2}, "e", "Error"
	b.Records[1].Body, b.Records[1].Attrs, b.Records[1].Time = "", nil, 0
	a := testArchiver(t, root)
	defer a.Close()
	s, _, err := a.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Write(t.Context(), b), s.Commit(t.Context(), ingest.Checkpoint{NextOffset: 1}), s.Close()); err != nil {
		t.Fatal(err)
	}
	job := filepath.Join(t.TempDir(), "rows.py")
	if err := os.WriteFile(job, []byte(sparkRows), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), submit, job, root+"/"+tp.Topic).Output()
	if err != nil {
		t.Fatalf("spark: %v: %.2000s", err, out)
	}
	got := map[string]map[string]any{}
	for line := range strings.Lines(string(out)) {
		if j, ok := strings.CutPrefix(line, "SCHEMA "); ok {
			types := map[string]string{"INT64": "bigint", "INT32": "int", "STRING": "string", "INT64 TIMESTAMP(MICROS, UTC)": "timestamp", "MAP<STRING, STRING>": "map<string,string>"}
			var want [][2]string
			for _, row := range table(t, "column | Parquet type") {
				want = append(want, [2]string{strings.Trim(row[0], "`"), types[row[1]]})
			}
			want = append(want, [2]string{"dt", "date"}, [2]string{"hour", "int"})
			var schema [][2]string
			if err := json.Unmarshal([]byte(j), &schema); err != nil || !slices.Equal(schema, want) {
				t.Errorf("Spark's schema is %v, want %v, %v", schema, want, err)
			}
		}
		if j, ok := strings.CutPrefix(line, "ROW "); ok {
			d := json.NewDecoder(strings.NewReader(j))
			d.UseNumber()
			row := map[string]any{}
			if err := d.Decode(&row); err != nil {
				t.Fatal(err)
			}
			got[row["id"].(string)] = row
		}
	}
	if len(got) != len(b.Records) {
		t.Fatalf("Spark read %d records of %d: %.2000s", len(got), len(b.Records), out)
	}
	for i := range b.Records {
		r := &b.Records[i]
		at := max(r.Time, 1764054000e9)
		want := map[string]any{"timestamp": at / 1000, "timestamp_ns": r.Time, "observed_ns": r.Observed, "id": b.ID(r), "source": b.Source, "incarnation": "5-00000006", "offset": r.Offset, "topic": tp.Topic, "kafka_partition": tp.Partition, "kafka_offset": 0,
			"app": "shop", "tenant": "t", "site": "s", "cell": "c", "container_id": "cid", "container_name": "web", "image": "i", "host": "h", "stream": "stderr", "level": "ERROR", "severity": 17, "event_name": "", "trace_id": "", "span_id": "",
			"body": []byte(r.Body), "labels": map[string]string{"team": "a"}, "attributes": map[string]string{"k8s.pod.name": "web-1", "n": fmt.Sprint(i), "b": "true", "d": "1.5"},
			"dt": time.Unix(0, at).UTC().Format(time.DateOnly), "hour": time.Unix(0, at).UTC().Hour()}
		switch i {
		case 0:
			want["trace_id"], want["span_id"], want["event_name"], want["level"] = "01000000000000000000000000000000", "0200000000000000", "e", "Error"
		case 1:
			want["stream"], want["attributes"] = "", map[string]string{"k8s.pod.name": "web-1"}
		}
		w, err1 := json.Marshal(want)
		g, err2 := json.Marshal(got[b.ID(r)])
		if err1 != nil || err2 != nil || string(w) != string(g) {
			t.Fatalf("record %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

// TestHDFSCompactKilled stops compactions in the real HDFS before each of their steps.
func TestHDFSCompactKilled(t *testing.T) { compactKilled(t, hdfsRoot, 1) }

// TestHDFSExpireKilled does so with expiries.
func TestHDFSExpireKilled(t *testing.T) { expireKilled(t, hdfsRoot, 1) }

// TestSpoolDiskFull commits more into HDFS than the disk of the spool, a real one of 1 MiB, has room for, and then less again.
func TestSpoolDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("weir-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs the right to mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	cfg, reg := DefaultConfig(), prometheus.NewRegistry()
	cfg.Root, cfg.SpoolDir = hdfsRoot(t), dir
	a, err := New(cfg, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	s, _, err := a.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	next := int64(0)
	commit := func(batches int64, full float64) {
		t.Helper()
		for end := next + batches; next < end; next++ {
			if err := s.Write(t.Context(), fat(next)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Commit(t.Context(), ingest.Checkpoint{NextOffset: next}); err != nil {
			t.Fatal(err)
		}
		ids := readIDs(t, a.store)
		for id, n := range ids {
			if n != 1 {
				t.Fatalf("%s is there %d times", id, n)
			}
		}
		metrics := map[string]float64{}
		families, err := reg.Gather()
		for _, f := range families {
			for _, m := range f.GetMetric() {
				metrics[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		if len(ids) != int(next)*300 || err != nil || metrics["weir_archiver_spool_full_total"] != full || metrics["weir_archiver_spool_bytes"] != 0 || metrics["weir_archiver_store_up"] != 1 || metrics["weir_archiver_store_errors_total"] != 0 {
			t.Errorf("after %d batches the archive has %d records, %v; metrics %v", next, len(ids), err, metrics)
		}
	}
	commit(2, 0)
	commit(24, 3) // the files of three hours, each in the midst of its last step
	commit(2, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
