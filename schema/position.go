package schema

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Incarnation names one physical file of a source in a way that needs no saved state.
//
// Start is Unix nanoseconds: the timestamp of the file's first line, raised to one more than its
// predecessor's where the clock stood still or stepped back, so that incarnations sort in writing order.
// Print is the CRC32C of the first line. It keeps two files that begin in the same nanosecond apart even
// when the predecessor that would raise Start is gone.
type Incarnation struct {
	Start int64
	Print uint32
}

// Compare orders incarnations by Start, then Print.
func (i Incarnation) Compare(j Incarnation) int {
	if c := cmp.Compare(i.Start, j.Start); c != 0 {
		return c
	}
	return cmp.Compare(i.Print, j.Print)
}

// AppendText appends "<start>-<print as 8 hex digits>".
func (i Incarnation) AppendText(dst []byte) ([]byte, error) {
	dst = strconv.AppendInt(dst, i.Start, 10)
	dst = append(dst, '-')
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, digits[i.Print>>shift&15])
	}
	return dst, nil
}

func (i Incarnation) String() string {
	b, _ := i.AppendText(make([]byte, 0, 32))
	return string(b)
}

// MarshalText lets incarnations stand in JSON files such as the archive's manifests.
func (i Incarnation) MarshalText() ([]byte, error) { return i.AppendText(nil) }

// UnmarshalText reads what MarshalText writes.
func (i *Incarnation) UnmarshalText(b []byte) (err error) {
	*i, err = ParseIncarnation(string(b))
	return err
}

// ParseIncarnation reads what String writes.
func ParseIncarnation(s string) (Incarnation, error) {
	// The last dash divides: Start may be negative.
	cut := strings.LastIndexByte(s, '-')
	if cut < 1 || len(s)-cut-1 != 8 {
		return Incarnation{}, fmt.Errorf("incarnation %q is not <start ns>-<8 hex digits>", s)
	}
	start, err := strconv.ParseInt(s[:cut], 10, 64)
	if err != nil {
		return Incarnation{}, fmt.Errorf("incarnation %q: start: %w", s, err)
	}
	print, err := strconv.ParseUint(s[cut+1:], 16, 32)
	if err != nil {
		return Incarnation{}, fmt.Errorf("incarnation %q: print: %w", s, err)
	}
	return Incarnation{Start: start, Print: uint32(print)}, nil
}

// Position is a place in a source: the byte where a record's first line starts, in one incarnation.
// For the engine's event stream the incarnation is zero and Offset is the engine's time in Unix nanoseconds.
type Position struct {
	Incarnation
	Offset int64
}

// Compare orders positions in writing order.
func (p Position) Compare(q Position) int {
	if c := p.Incarnation.Compare(q.Incarnation); c != 0 {
		return c
	}
	return cmp.Compare(p.Offset, q.Offset)
}

// AppendText appends "<incarnation>:<offset>".
func (p Position) AppendText(dst []byte) ([]byte, error) {
	dst, _ = p.Incarnation.AppendText(dst)
	dst = append(dst, ':')
	return strconv.AppendInt(dst, p.Offset, 10), nil
}

func (p Position) String() string {
	b, _ := p.AppendText(make([]byte, 0, 48))
	return string(b)
}

// MarshalText lets positions stand in JSON files such as the agent's checkpoint.
func (p Position) MarshalText() ([]byte, error) { return p.AppendText(nil) }

// UnmarshalText reads what MarshalText writes.
func (p *Position) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePosition(string(b))
	return err
}

// ParsePosition reads what String writes.
func ParsePosition(s string) (Position, error) {
	inc, off, ok := strings.Cut(s, ":")
	if !ok {
		return Position{}, fmt.Errorf("position %q has no ':' before its offset", s)
	}
	i, err := ParseIncarnation(inc)
	if err != nil {
		return Position{}, fmt.Errorf("position %q: %w", s, err)
	}
	o, err := strconv.ParseInt(off, 10, 64)
	if err != nil || o < 0 {
		return Position{}, fmt.Errorf("position %q: offset is not a whole number of bytes", s)
	}
	return Position{Incarnation: i, Offset: o}, nil
}

// SourceHash is the first half of a record id: 20 hex digits (80 bits) of the source's SHA-256.
func SourceHash(source string) string {
	sum := sha256.Sum256([]byte(source))
	return hex.EncodeToString(sum[:10])
}

// AppendID appends a record's id, "<source hash>-<start>.<print>-<offset>" in hexadecimal. It derives from
// source and position alone, so a record read again, or cut into another batch, keeps its id.
func AppendID(dst []byte, sourceHash string, p Position) []byte {
	dst = append(dst, sourceHash...)
	dst = append(dst, '-')
	dst = strconv.AppendInt(dst, p.Start, 16)
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, uint64(p.Print), 16)
	dst = append(dst, '-')
	return strconv.AppendInt(dst, p.Offset, 16)
}
