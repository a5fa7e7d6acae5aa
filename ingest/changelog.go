package ingest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"weir/internal/unpack"

	"github.com/segmentio/kafka-go"
)

// Changelog is the state of one partition of a sink that remembers more than its destination shows: numbered commits on a partition of a
// compacted topic that belongs to it alone.
//
// A commit is one or more entries and holds when its last one is there, so that a crash leaves a whole commit or none. Every entry has a key
// of its own: what an unfinished commit wrote takes nothing away from those before it, whenever the topic is compacted. A
// snapshot is a commit that replaces all before it; their keys are then deleted, so that the topic and the time to restore stay small.
//
// Who opens a changelog claims it with an entry of a higher epoch. What a former owner writes after that does not count, and it
// learns of it: entries that do not land directly behind its own last one mean that somebody else writes here.
type Changelog struct {
	k  *Kafka
	at TopicPartition

	epoch, seq int64
	next       int64    // offset at which the next entry must land
	commit     int64    // number of the last whole commit
	live       []string // keys of entries since the last snapshot, and its own
	grown      int64    // bytes of commits since then
	base       int64    // bytes of the last snapshot
}

// ErrFenced says that another process has opened the changelog.
var ErrFenced = errors.New("another process has taken this partition over")

const (
	entryVersion  = 1
	entryLast     = 1 // flags
	entrySnapshot = 2
	entryClaim    = 4

	// ChangelogChunk is the most that one chunk of a commit should hold, so that a request stays under Kafka's default message.max.bytes.
	ChangelogChunk = 512 << 10
	// snapshotAfter is how far a changelog grows at least before a snapshot is due, in bytes and in entries.
	snapshotAfter        = 4 << 20
	snapshotAfterEntries = 20_000
)

// OpenChangelog claims the changelog and gives every whole commit since the last snapshot to apply, in order; of a snapshot, what was
// applied before it no longer holds. apply must not keep the chunks.
func OpenChangelog(ctx context.Context, k *Kafka, at TopicPartition, apply func(snapshot bool, chunks [][]byte) error) (*Changelog, error) {
	n, err := k.partitions(ctx, at.Topic)
	if err != nil {
		return nil, fmt.Errorf("changelog topic %s (create it with `weir topics apply`): %w", at.Topic, err)
	}
	if at.Partition >= n {
		return nil, fmt.Errorf("changelog topic %s has %d partitions, fewer than the topic whose state it keeps: delete it, and make it anew with `weir topics apply`", at.Topic, n)
	}
	first, end, err := k.bounds(ctx, at)
	if err != nil {
		return nil, err
	}
	c := &Changelog{k: k, at: at}
	r := changelogReader{c: c, apply: apply}
	for {
		if err := r.read(ctx, first, end); err != nil {
			return nil, err
		}
		epoch := c.epoch + 1
		key := fmt.Sprintf("%d/claim/%s", epoch, rand.Text())
		claimed, err := k.produceAt(ctx, at, []kafka.Record{{Key: kafka.NewBytes([]byte(key)), Value: kafka.NewBytes([]byte{entryVersion, entryClaim, 0, 0})}}, 2*requestTimeout)
		if err != nil {
			return nil, fmt.Errorf("claim %s: %w", at, err)
		}
		// Somebody may have written since, or claimed the same epoch first.
		if err := r.read(ctx, end, claimed); err != nil {
			return nil, err
		}
		if c.epoch < epoch {
			c.epoch, c.seq, c.next = epoch, 0, claimed+1
			c.live = append(c.live, key)
			break
		}
		first, end = claimed, claimed+1
	}
	if r.broken != nil {
		return nil, fmt.Errorf("changelog %s is damaged: %w; where its state is to be given up, delete the topic and make it anew with `weir topics apply`", at, r.broken)
	}
	return c, nil
}

// changelogReader puts commits together from entries.
type changelogReader struct {
	c       *Changelog
	apply   func(bool, [][]byte) error
	started bool // a commit was applied
	chunks  [][]byte
	keys    []string
	number  int64
	broken  error // commits are missing, unless a snapshot follows
}

func (r *changelogReader) read(ctx context.Context, at, end int64) error {
	if err := r.c.k.between(ctx, r.c.at, at, end, r.entry); err != nil {
		return fmt.Errorf("changelog: %w", err)
	}
	return nil
}

func (r *changelogReader) entry(m *fetched) error {
	if len(m.value) == 0 {
		return nil // a deleted key
	}
	text, _, _ := strings.Cut(m.key, "/")
	epoch, err := strconv.ParseInt(text, 10, 64)
	if err != nil || len(m.value) < 4 || m.value[0] != entryVersion {
		return fmt.Errorf("key %q: not an entry of a changelog", m.key)
	}
	if epoch < r.c.epoch {
		return nil // of a former owner that did not know yet
	}
	if epoch > r.c.epoch {
		r.c.epoch = epoch
		r.abandon() // what the former owner did not finish
	}
	flags, rest := m.value[1], unpack.Reader{B: m.value[2:]}
	number, index := int64(rest.Uvarint()), rest.Uvarint()
	if rest.Bad {
		return fmt.Errorf("key %q: cut short", m.key)
	}
	if flags&entryClaim != 0 {
		r.c.live = append(r.c.live, m.key)
		return nil
	}
	if index == 0 {
		r.abandon()
		r.number = number
	}
	r.keys = append(r.keys, m.key)
	if number != r.number || int(index) != len(r.chunks) { // the rest was deleted after a snapshot
		r.abandon()
		r.broken = fmt.Errorf("of commit %d entries are missing", number)
		return nil
	}
	r.chunks = append(r.chunks, rest.B)
	if flags&entryLast == 0 {
		return nil
	}
	return r.whole(flags&entrySnapshot != 0)
}

// abandon forgets an unfinished commit; its keys are deleted with those of the others.
func (r *changelogReader) abandon() {
	r.c.live = append(r.c.live, r.keys...)
	r.chunks, r.keys = nil, nil
}

// whole takes a commit that is complete.
func (r *changelogReader) whole(snapshot bool) error {
	chunks, keys := r.chunks, r.keys
	r.chunks, r.keys = nil, nil
	size := int64(0)
	for _, c := range chunks {
		size += int64(len(c))
	}
	c := r.c
	switch {
	case snapshot:
		r.broken, c.base, c.grown = nil, size, 0
	case r.started && r.number != c.commit+1 || !r.started && r.number != 1:
		if r.broken == nil {
			r.broken = fmt.Errorf("commit %d follows commit %d", r.number, c.commit)
		}
		fallthrough
	default:
		c.grown += size
	}
	c.live = append(c.live, keys...)
	c.commit, r.started = r.number, true
	if r.broken != nil {
		return nil
	}
	if err := r.apply(snapshot, chunks); err != nil {
		return fmt.Errorf("commit %d: %w", c.commit, err)
	}
	return nil
}

// SnapshotDue says that the commits since the last snapshot have become as large as the state itself.
func (c *Changelog) SnapshotDue() bool {
	return c.grown > max(snapshotAfter, c.base) || len(c.live) > snapshotAfterEntries
}

// Commit appends chunks as one commit. After an error the changelog must be opened anew.
func (c *Changelog) Commit(ctx context.Context, snapshot bool, chunks ...[]byte) error {
	if len(chunks) == 0 {
		chunks = [][]byte{nil}
	}
	var records []kafka.Record
	var keys []string
	var size, pending int64
	flush := func() error {
		err := c.put(ctx, records)
		records, pending = nil, 0
		return err
	}
	for i, chunk := range chunks {
		flags := byte(0)
		if snapshot {
			flags |= entrySnapshot
		}
		if i == len(chunks)-1 {
			flags |= entryLast
		}
		value := append(make([]byte, 0, len(chunk)+24), entryVersion, flags)
		value = binary.AppendUvarint(value, uint64(c.commit+1))
		value = append(binary.AppendUvarint(value, uint64(i)), chunk...)
		if pending > 0 && pending+int64(len(value)) > ChangelogChunk {
			if err := flush(); err != nil {
				return err
			}
		}
		key := fmt.Sprintf("%d/%d", c.epoch, c.seq)
		c.seq++
		keys = append(keys, key)
		records = append(records, kafka.Record{Key: kafka.NewBytes([]byte(key)), Value: kafka.NewBytes(value)})
		pending += int64(len(value))
		size += int64(len(chunk))
	}
	if err := flush(); err != nil {
		return err
	}
	c.commit++
	if !snapshot {
		c.live, c.grown = append(c.live, keys...), c.grown+size
		return nil
	}
	old := c.live
	c.live, c.base, c.grown = keys, size, 0
	for len(old) > 0 {
		n := min(len(old), 1000)
		for _, key := range old[:n] {
			records = append(records, kafka.Record{Key: kafka.NewBytes([]byte(key))})
		}
		if err := flush(); err != nil {
			return err
		}
		old = old[n:]
	}
	return nil
}

// put appends entries and looks where they landed.
func (c *Changelog) put(ctx context.Context, records []kafka.Record) error {
	base, err := c.k.produceAt(ctx, c.at, records, 2*requestTimeout)
	if err != nil {
		return fmt.Errorf("write the changelog %s: %w", c.at, err)
	}
	if base != c.next {
		return fmt.Errorf("changelog %s: an entry landed at offset %d instead of %d: %w", c.at, base, c.next, ErrFenced)
	}
	c.next += int64(len(records))
	return nil
}

// Chunks makes the chunks of a commit of entries of any size.
type Chunks struct {
	done [][]byte
	buf  []byte
}

// Add appends an entry. It is copied.
func (c *Chunks) Add(entry []byte) {
	if c.buf == nil {
		c.buf = make([]byte, 0, 4<<10)
	}
	c.buf = binary.AppendUvarint(c.buf, uint64(len(entry)))
	for len(c.buf)+len(entry) > ChangelogChunk {
		n := max(0, ChangelogChunk-len(c.buf))
		c.done = append(c.done, append(c.buf, entry[:n]...))
		c.buf, entry = make([]byte, 0, ChangelogChunk), entry[n:]
	}
	c.buf = append(c.buf, entry...)
}

// All returns the chunks, and begins anew.
func (c *Chunks) All() [][]byte {
	all := c.done
	if len(c.buf) > 0 {
		all = append(all, c.buf)
	}
	*c = Chunks{}
	return all
}

// Entries gives the entries that Chunks took. f must not keep them.
func Entries(chunks [][]byte, f func(entry []byte) error) error {
	var rest []byte // of an entry that goes on in the next chunk
	for _, b := range chunks {
		if len(rest) > 0 {
			b = append(rest, b...)
		}
		for len(b) > 0 {
			size, n := binary.Uvarint(b)
			if n < 0 || size > 1<<32 {
				return errState
			}
			if n == 0 || uint64(len(b)-n) < size {
				break
			}
			if err := f(b[n : n+int(size)]); err != nil {
				return err
			}
			b = b[n+int(size):]
		}
		rest = append([]byte(nil), b...)
	}
	if len(rest) > 0 {
		return errState
	}
	return nil
}
