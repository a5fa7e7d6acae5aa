package processor

import (
	"weir/internal/unpack"
	"weir/processor/lives"
	"weir/processor/patterns"
)

// keyed is a library's state by key, in the form of the changelog's entries: a kind, the key, and what was added to its state; nothing where it
// is forgotten.
type keyed struct {
	kind byte
	keys map[string]bool

	changed func() []string
	delta   func(dst []byte, key string) []byte // since the last delta or whole
	whole   func(dst []byte, key string) []byte
	restore func(key string, state []byte) error

	restored map[string][][]byte // what was read, until all is
}

const (
	entryLife    = 'L'
	entryPattern = 'T'
)

func keyedLives(t *lives.Tracker) *keyed {
	return &keyed{kind: entryLife, keys: map[string]bool{}, changed: t.Changed, delta: t.AppendState, whole: t.AppendState, restore: t.Restore}
}

func keyedPatterns(m *patterns.Miner) *keyed {
	return &keyed{kind: entryPattern, keys: map[string]bool{}, changed: m.Changed, delta: m.AppendDelta, whole: m.AppendState, restore: m.Restore}
}

func (k *keyed) entry(key string, state []byte) []byte {
	return append(appendText([]byte{k.kind}, key), state...)
}

func (k *keyed) changes(put func([]byte)) {
	for _, key := range k.changed() {
		state := k.delta(nil, key)
		if k.keys[key] = len(state) > 0; !k.keys[key] {
			delete(k.keys, key)
		}
		put(k.entry(key, state))
	}
}

// snapshot comes after changes, so that keys are complete.
func (k *keyed) snapshot(put func([]byte)) {
	for key := range k.keys {
		put(k.entry(key, k.whole(nil, key)))
	}
}

func (k *keyed) reset() { k.restored = nil }

// read takes an entry; of a life the newest state alone counts, of a pattern's app all since the whole one.
func (k *keyed) read(b []byte) error {
	r := unpack.Reader{B: b[1:]}
	key := r.String()
	if r.Bad {
		return errDamaged
	}
	state := append([]byte(nil), r.B...)
	if k.restored == nil {
		k.restored = map[string][][]byte{}
	}
	switch {
	case len(state) == 0:
		delete(k.restored, key)
	case k.kind == entryLife:
		k.restored[key] = [][]byte{state}
	default:
		k.restored[key] = append(k.restored[key], state)
	}
	return nil
}

// finish gives the library what was read.
func (k *keyed) finish() error {
	for key, states := range k.restored {
		for _, state := range states {
			if err := k.restore(key, state); err != nil {
				return err
			}
		}
		k.keys[key] = true
	}
	k.restored = nil
	k.changed() // what was restored is not new
	return nil
}
