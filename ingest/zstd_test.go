package ingest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/twmb/franz-go/pkg/kmsg"

	"weir/internal/bench/loglines"
	"weir/schema"
)

// requests makes what the agent's produce requests hold: three full batches each, of different files.
func requests(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	resource := []schema.Attr{schema.String("container.id", "4f1c9a0e1d7b"), schema.String("container.name", "c1"), schema.String("host.name", "bench"), schema.String("weir.app", "bench")}
	var all [][]byte
	for i := range n {
		var request []byte
		for f := range 3 {
			var e schema.Encoder
			source := []string{"docker/bench/aa", "docker/bench/bb", "docker/bench/cc"}[f]
			e.Reset(source, schema.Incarnation{Start: at.UnixNano(), Print: 7}, resource)
			offset := int64(i) << 18
			for n := i * 1000; e.Len() < 256<<10; n++ {
				line := loglines.Text(r, at, f, n)
				at = at.Add(time.Duration(r.IntN(200_000)))
				e.Append(&schema.Record{Time: at.UnixNano(), Observed: at.Add(time.Second).Truncate(time.Millisecond).UnixNano(), Body: string(line), Offset: offset,
					Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}, Severity: 9, SeverityText: "INFO"})
				offset += int64(len(line)) + 70
			}
			request = append(request, e.Bytes()...)
		}
		all = append(all, request)
	}
	return all
}

// BenchmarkCompress compresses produce requests of logs as the producer does, and with the library that this replaced.
func BenchmarkCompress(b *testing.B) {
	installZstd()
	library, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(512<<10), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		b.Fatal(err)
	}
	for name, compressed := range map[string]func(to *bytes.Buffer, request []byte) error{
		"weir": func(to *bytes.Buffer, request []byte) error {
			w := compress.Zstd.Codec().NewWriter(to)
			_, err := w.Write(request)
			return errors.Join(err, w.Close())
		},
		"klauspost": func(to *bytes.Buffer, request []byte) error {
			_, err := to.Write(library.EncodeAll(request, to.AvailableBuffer()))
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			all := requests(8)
			var in, out int
			var to bytes.Buffer
			for i := 0; b.Loop(); i++ {
				to.Reset()
				if err := compressed(&to, all[i%len(all)]); err != nil {
					b.Fatal(err)
				}
				in, out = in+len(all[i%len(all)]), out+to.Len()
			}
			b.SetBytes(int64(in / b.N))
			b.ReportMetric(100*float64(out)/float64(in), "%left")
		})
	}
}

// TestZstdCodec reads with kafka-go's reader what writers used again have written.
func TestZstdCodec(t *testing.T) {
	installZstd()
	codec := compress.Zstd.Codec()
	for i, request := range append(requests(2), nil, []byte("short"), make([]byte, 3<<20)) {
		var to bytes.Buffer
		w := codec.NewWriter(&to)
		for at := 0; at < len(request); at += 100_000 {
			if n, err := w.Write(request[at:min(at+100_000, len(request))]); err != nil || n != min(100_000, len(request)-at) {
				t.Fatal(n, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(codec.NewReader(&to)); err != nil || !bytes.Equal(got, request) {
			t.Errorf("request %d: %d bytes came back as %d others: %v", i, len(request), len(got), err)
		}
	}
	w := codec.NewWriter(broken{})
	if err := w.Close(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to what is closed: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestUnreadable: what a broker cannot decompress reaches it without compression.
func TestUnreadable(t *testing.T) {
	cluster, k := testKafka(t, 1)
	refused := 0
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		var batch kmsg.RecordBatch
		if err := batch.ReadFrom(r.Topics[0].Partitions[0].Records); err != nil {
			return nil, err, true
		}
		if batch.Attributes&7 == 0 {
			return nil, nil, false
		}
		refused++
		res := r.ResponseKind().(*kmsg.ProduceResponse)
		res.Topics = []kmsg.ProduceResponseTopic{{Topic: r.Topics[0].Topic, Partitions: []kmsg.ProduceResponseTopicPartition{{Partition: r.Topics[0].Partitions[0].Partition, ErrorCode: int16(kafka.Unknown)}}}}
		return res, nil, true
	})
	p, err := NewProducer(k, DefaultProducerConfig(), quiet(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer running(p.Run)()
	if err := p.Send(t.Context(), Message{Topic: schema.TopicLogs, Source: "s", Count: 1, Value: []byte("batch")}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Flush(ctx); err != nil || refused != 3 {
		t.Errorf("refused %d times: %v", refused, err)
	}
}
