package ingest

import (
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"
)

// zstdWindow is how far back the encoder looks for repeats. Requests are below a megabyte, and log lines repeat what
// stands close by, so more would only cost memory: twice the window for each partition that is being written.
const zstdWindow = 512 << 10

// zstdCodec takes the place of kafka-go's own for writing: at its level and window, the encoder took two thirds of the
// agent's CPU and half of its memory (docs/performance.md). Reading is kafka-go's.
type zstdCodec struct {
	compress.Codec
	encoders sync.Pool
}

var installZstd = sync.OnceFunc(func() {
	compress.Codecs[compress.Zstd] = &zstdCodec{Codec: compress.Codecs[compress.Zstd]}
})

// NewWriter takes an encoder that was used before, if there is one.
func (c *zstdCodec) NewWriter(w io.Writer) io.WriteCloser {
	if e, ok := c.encoders.Get().(*zstd.Encoder); ok {
		e.Reset(w)
		return &zstdWriter{e, c}
	}
	e, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(zstdWindow), zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return c.Codec.NewWriter(w) // the options are constants: it does not fail
	}
	return &zstdWriter{e, c}
}

type zstdWriter struct {
	*zstd.Encoder
	c *zstdCodec
}

// Close ends the frame and gives the encoder back.
func (w *zstdWriter) Close() error {
	err := w.Encoder.Close()
	w.Encoder.Reset(nil)
	w.c.encoders.Put(w.Encoder)
	w.Encoder = nil
	return err
}
