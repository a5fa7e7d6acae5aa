package zstdfast

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"weir/internal/bench/loglines"
)

// contents has what the parts of a frame depend on: blocks, windows, few and many literals and sequences, of one kind and of many.
func contents() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	var lines []byte
	for n := 0; len(lines) < 3<<20; n++ {
		lines = append(append(lines, loglines.Text(r, time.UnixMilli(int64(n)), 1, n)...), '\n')
	}
	words := make([][]byte, 4000) // each a sequence: more than a block takes
	for i := range words {
		words[i] = random(7)
	}
	var short []byte
	for len(short) < 400<<10 {
		short = append(short, words[r.IntN(len(words))]...)
	}
	digits := make([]byte, 200<<10)
	for i := range digits {
		digits[i] = "0123456789"[r.IntN(10)]
	}
	far := append(random(40<<10), make([]byte, window-40<<10-1)...) // repeats at the window's very end, and beyond it
	far = append(append(far, far[:40<<10]...), far...)
	all := map[string][]byte{"lines": lines, "short sequences": short, "digits": digits, "far": far, "random": random(300 << 10), "zeros": make([]byte, 2<<20), "last block": make([]byte, 3*maxBlock),
		"repeats across blocks": bytes.Repeat(random(maxBlock-1), 3), "random, then lines": append(random(maxBlock), lines[:maxBlock]...)}
	for _, n := range []int{0, 1, 7, 8, 9, 29, 30, 31, 63, 64, 255, 256, 1023, 1024, 4096, 16384, 65535, maxBlock - 1, maxBlock, maxBlock + 1, window, window + 1} {
		all[fmt.Sprint("lines of ", n)] = lines[:n]
		all[fmt.Sprint("digits of ", n)] = digits[:min(n, len(digits))]
	}
	return all
}

// decode decodes as a stream within the window that frames promise.
func decode(t testing.TB, frame []byte) []byte {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Reset(bytes.NewReader(frame)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := d.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestAppend(t *testing.T) {
	var e Encoder
	for name, src := range contents() {
		frame := e.Append([]byte("before"), src)
		if !bytes.HasPrefix(frame, []byte("before")) {
			t.Fatalf("%s: what was there is gone", name)
		}
		frame = frame[len("before"):]
		if got := decode(t, frame); !bytes.Equal(got, src) {
			t.Errorf("%s: %d bytes came back as %d others", name, len(src), len(got))
		}
		var h zstd.Header
		if err := h.Decode(frame); err != nil || !h.HasFCS || !h.HasCheckSum || h.FrameContentSize != uint64(len(src)) || h.WindowSize > window {
			t.Errorf("%s: %v: %+v", name, err, h)
		}
		if most := len(src) + 17 + 3*(len(src)/maxBlock+1); len(frame) > most {
			t.Errorf("%s: %d bytes became %d", name, len(src), len(frame))
		}
		if again := new(Encoder).Append(nil, src); !bytes.Equal(again, frame) {
			t.Errorf("%s: the frame depends on those before", name)
		}
	}
}

func TestSizes(t *testing.T) {
	all := contents()
	for name, most := range map[string]float64{"lines": 0.175, "zeros": 0.0002, "digits": 0.44, "far": 0.04, "repeats across blocks": 0.34, "random, then lines": 0.6} {
		src := all[name]
		if got := float64(len(new(Encoder).Append(nil, src))) / float64(len(src)); got > most {
			t.Errorf("%s: %.4f of what it was, not %.4f", name, got, most)
		}
	}
}

// TestSequences writes sequences that find would not choose: most alike, a few of any length and distance, so that now and then one takes nearly all the bits there can be.
func TestSequences(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	any := func(most int) int { // as many small ones as large ones
		return min(r.IntN(1<<r.IntN(bits.Len(uint(most))+1)), most)
	}
	blockHeader := func(frame []byte, kind, size int) []byte {
		return append(frame, byte(kind|size<<3), byte(size>>5), byte(size>>13))
	}
	var e Encoder
	for range 100 {
		content := make([]byte, 3*maxBlock+r.IntN(4)*maxBlock) // of blocks that are not compressed
		for i := range content {
			content[i] = byte(r.Uint32())
		}
		before := len(content)
		e.seqs, e.lits, e.hasTree = e.seqs[:0], e.lits[:0], false
		for {
			lit, match, offset := r.IntN(3), minMatch+r.IntN(3), 1+any(30)
			if r.IntN(30) == 0 { // a rare one, whose codes take many bits too
				lit, match, offset = any(1000), minMatch+any(2000), 1+any(before-1)
			}
			if len(content)+lit+match > before+maxBlock {
				break
			}
			for range lit {
				e.lits = append(e.lits, byte(r.IntN(20)))
			}
			content = append(content, e.lits[len(e.lits)-lit:]...)
			e.seqs = append(e.seqs, sequence{lit: uint32(lit), match: uint32(match), offset: uint32(offset) + 3})
			for range match {
				content = append(content, content[len(content)-offset])
			}
		}
		frame := appendHeader(nil, len(content))
		for at := 0; at < before; at += maxBlock {
			frame = append(blockHeader(frame, 0, maxBlock), content[at:at+maxBlock]...)
		}
		block := e.appendSequences(e.appendLiterals(nil))
		frame = append(blockHeader(frame, 2<<1|1, len(block)), block...)
		frame = binary.LittleEndian.AppendUint32(frame, uint32(xxhash.Sum64(content)))
		if got := decode(t, frame); !bytes.Equal(got, content) {
			t.Fatalf("%d bytes came back as %d others", len(content), len(got))
		}
	}
}

// TestReference asks the reference implementation.
func TestReference(t *testing.T) {
	program, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("zstd is not installed")
	}
	var e Encoder
	for name, src := range contents() {
		cmd := exec.Command(program, "-d", "-c", "--memory=1MiB")
		cmd.Stdin = bytes.NewReader(e.Append(nil, src))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if got, err := cmd.Output(); err != nil || !bytes.Equal(got, src) {
			t.Errorf("%s: %d bytes came back as %d others: %v %s", name, len(src), len(got), err, stderr.Bytes())
		}
	}
}

// FuzzAppend takes contents that are short, and many times the same with other bytes between.
func FuzzAppend(f *testing.F) {
	for _, src := range contents() {
		f.Add(src[:min(len(src), 2000)], []byte{1, 2, 250}, uint16(len(src)))
	}
	var e Encoder
	f.Fuzz(func(t *testing.T, src, between []byte, size uint16) {
		all := slices.Clone(src)
		for i := 0; i < len(between) && len(all) < 4*int(size); i++ { // up to two blocks
			all = append(append(all, between[i]), src[:len(src)-len(src)*int(between[i])/300]...)
			if i == len(between)-1 {
				i = 0
			}
		}
		if got := decode(t, e.Append(nil, all)); !bytes.Equal(got, all) {
			t.Fatalf("%d bytes came back as %d others", len(all), len(got))
		}
	})
}
