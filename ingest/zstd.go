package ingest

import (
	"io"
	"sync"

	"github.com/segmentio/kafka-go/compress"

	"weir/internal/zstdfast"
)

// zstdCodec takes the place of kafka-go's own for writing: with that, compression was two thirds of the agent's CPU and half of its memory
// (docs/decisions/0012). Reading is kafka-go's.
type zstdCodec struct {
	compress.Codec
	writers, encoders sync.Pool
}

var installZstd = sync.OnceFunc(func() {
	compress.Codecs[compress.Zstd] = &zstdCodec{Codec: compress.Codecs[compress.Zstd]}
})

// NewWriter takes a writer that was used before, if there is one.
func (c *zstdCodec) NewWriter(to io.Writer) io.WriteCloser {
	w, _ := c.writers.Get().(*zstdWriter)
	if w == nil {
		w = new(zstdWriter)
	}
	w.codec, w.to = c, to
	return w
}

// zstdWriter gathers a whole request: at most max.message.bytes, which the producer keeps below a megabyte by default.
type zstdWriter struct {
	codec *zstdCodec
	to    io.Writer
	plain []byte
}

func (w *zstdWriter) Write(p []byte) (int, error) {
	w.plain = append(w.plain, p...)
	return len(p), nil
}

// Close compresses what was written as one frame. There are only as many encoders as requests are compressed at the same time.
func (w *zstdWriter) Close() error {
	e, _ := w.codec.encoders.Get().(*encoder)
	if e == nil {
		e = new(encoder)
	}
	e.frame = e.Append(e.frame[:0], w.plain)
	_, err := w.to.Write(e.frame)
	codec := w.codec
	codec.encoders.Put(e)
	*w = zstdWriter{plain: w.plain[:0]}
	codec.writers.Put(w)
	return err
}

type encoder struct {
	zstdfast.Encoder
	frame []byte
}
