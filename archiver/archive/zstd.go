package archive

import (
	"bytes"
	"sync"

	"github.com/klauspost/compress/zstd"

	"weir/internal/zstdfast"
)

// packer compresses pages, and compares what comes out of them again: an archive outlives Kafka's copy, and the encoder is weir's own. A page that did not come out as it was would be
// left to the library's.
type packer struct {
	fast    func(dst, src []byte) []byte
	decoder *zstd.Decoder
	back    []byte
}

// packers are as few as pages are made at the same time.
var packers = sync.Pool{New: func() any {
	// The options are constants, with which neither fails.
	d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	return &packer{fast: new(zstdfast.Encoder).Append, decoder: d}
}}

// pack compresses src into dst's memory.
func pack(dst, src []byte) []byte {
	p := packers.Get().(*packer)
	defer packers.Put(p)
	return p.pack(dst, src)
}

func (p *packer) pack(dst, src []byte) []byte {
	dst = p.fast(dst[:0], src)
	var err error
	if p.back, err = p.decoder.DecodeAll(dst, p.back[:0]); err == nil && bytes.Equal(p.back, src) {
		return dst
	}
	e, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(pageBytes), zstd.WithZeroFrames(true))
	return e.EncodeAll(src, dst[:0])
}
