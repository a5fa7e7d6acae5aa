package archive

import (
	"sync"

	"github.com/klauspost/compress/zstd"
)

// packer compresses pages for all files with few encoders: one for each file, with the usual window of 8 MB, would be most of the archiver's memory.
type packer struct{ encoders sync.Pool }

var pages packer

// pack compresses src into dst's memory.
func (p *packer) pack(dst, src []byte) []byte {
	e, _ := p.encoders.Get().(*zstd.Encoder)
	if e == nil {
		var err error
		if e, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(pageBytes), zstd.WithLowerEncoderMem(true), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false)); err != nil {
			panic(err) // the options are constants
		}
	}
	defer p.encoders.Put(e)
	return e.EncodeAll(src, dst[:0])
}
