package ingest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"weir/internal/unpack"
)

// snapshot packs the interval state of every source of a partition, for a sink that keeps it with its own commit.
func snapshot(sources map[string]*Seen) []byte {
	b := binary.AppendUvarint(nil, uint64(len(sources)))
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
		one, _ := sources[name].AppendBinary(nil)
		b = binary.AppendUvarint(b, uint64(len(one)))
		b = append(b, one...)
	}
	return b
}

func restore(b []byte) (map[string]*Seen, error) {
	sources := map[string]*Seen{}
	if len(b) == 0 {
		return sources, nil
	}
	r := unpack.Reader{B: b}
	for range r.Count(3) {
		name, s := r.String(), new(Seen)
		if err := s.UnmarshalBinary([]byte(r.String())); err != nil {
			return nil, fmt.Errorf("source %q: %w", name, err)
		}
		sources[name] = s
	}
	if !r.Whole() {
		return nil, errState
	}
	return sources, nil
}
