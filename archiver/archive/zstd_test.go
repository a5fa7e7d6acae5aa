package archive

import (
	"bytes"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestPack packs with encoders that do and do not do what they should: what comes out is always what went in.
func TestPack(t *testing.T) {
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	src := []byte(strings.Repeat("a line of a page ", 1000))
	good := packers.Get().(*packer)
	for name, fast := range map[string]func(dst, src []byte) []byte{
		"the encoder":     good.fast,
		"no frame":        func(dst, _ []byte) []byte { return append(dst, "nothing"...) },
		"another content": func(dst, src []byte) []byte { return good.fast(dst, append(bytes.Clone(src), 'x')) },
		"half a frame":    func(dst, src []byte) []byte { out := good.fast(dst, src); return out[:len(out)/2] },
	} {
		p := &packer{fast: fast, decoder: good.decoder}
		for _, content := range [][]byte{src, src[:100], {}} {
			packed := p.pack([]byte("before"), content)
			if got, err := d.DecodeAll(packed, nil); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: %d bytes come out of %d: %v", name, len(got), len(content), err)
			}
		}
	}
}
