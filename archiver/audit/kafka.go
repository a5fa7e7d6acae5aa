package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"weir/archiver/archive"
	"weir/ingest"
	"weir/schema"
)

// late is how much earlier than a record's own time Kafka may say that it was written.
const late = time.Hour

// askOffsets asks what Kafka has of each partition, and how far the groups are.
func (a *auditor) askOffsets(ctx context.Context) error {
	if a.o.Kafka == nil {
		return nil
	}
	for _, topic := range a.topics {
		n, err := a.o.Kafka.Partitions(ctx, topic)
		if err != nil {
			return fmt.Errorf("kafka: topic %s: %w", topic, err)
		}
		for p := range n {
			c := a.chain(ingest.TopicPartition{Topic: topic, Partition: p})
			c.asked = true
			if err := a.askPartition(ctx, c); err != nil {
				return fmt.Errorf("kafka: %w", err)
			}
		}
	}
	return nil
}

func (a *auditor) askPartition(ctx context.Context, c *chain) (err error) {
	if c.first, c.next, err = a.o.Kafka.Bounds(ctx, c.tp); err != nil {
		return err
	}
	if c.committed, err = a.o.Kafka.Committed(ctx, a.o.Group, c.tp); err != nil {
		return err
	}
	if a.o.Index != nil {
		if c.indexed, err = a.o.Kafka.Committed(ctx, a.o.Indexer, c.tp); err != nil {
			return err
		}
	}
	c.start = c.first
	if !a.o.Scope.Since.IsZero() {
		at, err := a.o.Kafka.OffsetAt(ctx, c.tp, a.o.Scope.Since.Add(-late))
		if err != nil {
			return err
		}
		c.start = max(c.start, at)
	}
	return nil
}

// reached is the offset up to which the archive should have everything.
func (c *chain) reached() int64 { return min(max(c.committed, c.end()), c.next) }

// askKafka compares the records that Kafka still has with the archive's rows.
func (a *auditor) askKafka(ctx context.Context) error {
	if a.o.Kafka == nil {
		return nil
	}
	var pending int64
	for _, tp := range slices.SortedFunc(maps.Keys(a.chains), func(x, y ingest.TopicPartition) int { return strings.Compare(x.String(), y.String()) }) {
		c := a.chains[tp]
		if !c.asked {
			a.note("Kafka has no partition %s: what the archive has of it is compared with nothing", tp)
			continue
		}
		var err error
		if _, c.next, err = a.o.Kafka.Bounds(ctx, tp); err != nil { // the archiver has gone on since
			return fmt.Errorf("kafka: %w", err)
		}
		a.progress("Kafka: %s, offsets %d to %d", tp, c.start, c.reached()-1)
		if err := a.checkEnd(c); err != nil {
			return err
		}
		beyond, err := a.readPartition(ctx, c)
		if err != nil {
			return err
		}
		n, err := a.pending(ctx, c, nil)
		if err != nil {
			return err
		}
		pending += n
		if first, _, err := a.o.Kafka.Bounds(ctx, tp); err != nil || first > c.start {
			return errors.Join(err, fmt.Errorf("kafka: retention deleted offsets of %s while they were read; run it again", tp))
		}
		if beyond > 0 {
			a.find(Finding{Kind: "chain_cut", Where: fmt.Sprintf("%s offset %d", tp, c.end()), Records: beyond, What: fmt.Sprintf("the group %s has committed offset %d, the manifests end at %d, and Kafka has %d records between that the archive does not have: manifests were removed from the end", a.o.Group, c.committed, c.end(), beyond),
				Do: "restore the manifests from a copy, or set the group's offset back and let the archiver go on from there"})
		}
	}
	if pending > 0 {
		a.note("%d records of the range are in Kafka and not archived yet", pending)
	}
	different := map[string]*source{}
	for name, s := range a.sources {
		if s.inKafka != s.recent {
			different[name] = s
		}
	}
	if len(different) == 0 {
		return nil
	}
	return a.drill(ctx, different)
}

// checkEnd looks at offsets that were committed and are neither in the archive nor in Kafka.
func (a *auditor) checkEnd(c *chain) error {
	if c.end() > c.next {
		a.find(Finding{Kind: "kafka_behind", Where: c.tp.String(), What: fmt.Sprintf("Kafka ends at offset %d, and the archive has records up to %d: the topic was made anew or lost its end", c.next, c.end()-1), Do: "what the archive has cannot be compared with Kafka; give an archive of a topic made anew another root"})
	}
	if gone := min(c.first, c.committed); gone > c.end() && c.head() != nil {
		a.note("offsets %d to %d of %s were committed without a manifest, and Kafka no longer has them: they held nothing that was new, unless the chain was cut and the interval state put beside its new end", c.end(), gone-1, c.tp)
	}
	return nil
}

// readPartition counts what Kafka has of each source, each record once. Beyond is how many of them come after the last manifest and are in none.
func (a *auditor) readPartition(ctx context.Context, c *chain) (beyond int64, err error) {
	var id []byte
	bad := 0
	err = a.once(ctx, c, c.start, c.reached(), func(b *schema.Batch, r *schema.Record) {
		src := a.source(b.Source)
		src.tp = c.tp
		id = schema.AppendID(id[:0], src.hash, b.Position(r))
		if app, ok := b.ResourceAttr(schema.AttrApp); ok && src.app != app.Str {
			src.app = strings.Clone(app.Str)
		}
		src.inKafka.add(id)
		if b.KafkaOffset >= c.end() && !covered(src.cover.Ranges, b.Position(r)) {
			beyond++
		}
	}, &bad)
	if bad > 0 {
		a.note("%d messages of %s are no batches; the consumers have sent them to the dead letters", bad, c.tp)
	}
	return beyond, err
}

// pending counts, and gives fn, the records that the archiver has not come to yet.
func (a *auditor) pending(ctx context.Context, c *chain, fn func(id string)) (n int64, err error) {
	return n, a.once(ctx, c, max(c.start, c.reached()), c.next, func(b *schema.Batch, r *schema.Record) {
		if covered(a.source(b.Source).cover.Ranges, b.Position(r)) {
			return // a repeat
		}
		n++
		if fn != nil {
			fn(b.ID(r))
		}
	}, new(int))
}

// once gives fn the records of the range in a run of offsets, each once, without those that have expired.
func (a *auditor) once(ctx context.Context, c *chain, from, to int64, fn func(*schema.Batch, *schema.Record), bad *int) error {
	if from >= to {
		return nil
	}
	seen := map[string]*ingest.Seen{}
	err := a.o.Kafka.Range(ctx, c.tp, from, to, func(b *schema.Batch) error {
		s := seen[b.Source]
		if s == nil {
			s = new(ingest.Seen)
			seen[strings.Clone(b.Source)] = s
		}
		v := s.Admit(&schema.Info{Source: b.Source, Begin: b.Begin, End: b.End, Prev: b.Prev, PrevKnown: b.PrevKnown, Count: len(b.Records)})
		container, _ := b.ResourceAttr(schema.AttrContainerID)
		if !strings.HasPrefix(container.Str, a.o.Container) {
			return nil
		}
		for i := range b.Records {
			if r := &b.Records[i]; v.Admits(r.Offset) && a.inRange(archive.EventTime(r)) && !c.expired(b.KafkaOffset, archive.EventTime(r)) {
				fn(b, r)
			}
		}
		return ctx.Err()
	}, func(error) { *bad++ })
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	return nil
}

// mostIDs bounds the ids that are held to name what is different.
const mostIDs = 2 << 20

// drill names what Kafka and the archive have different of some sources.
func (a *auditor) drill(ctx context.Context, different map[string]*source) error {
	a.progress("names what is different in %d sources", len(different))
	type place struct {
		src    *source
		offset int64
	}
	missing := map[string]place{}
	partitions := map[*chain]bool{}
	for _, s := range different {
		if c := a.chains[s.tp]; c != nil && c.asked {
			partitions[c] = true
		}
	}
	for c := range partitions {
		err := a.once(ctx, c, c.start, c.reached(), func(b *schema.Batch, r *schema.Record) {
			if s := different[b.Source]; s != nil && len(missing) < mostIDs {
				missing[b.ID(r)] = place{s, b.KafkaOffset}
			}
		}, new(int))
		if err != nil {
			return err
		}
	}
	if len(missing) == mostIDs {
		a.note("more than %d records would have to be compared one by one: the counts of what is missing are not exact; ask for a shorter range", mostIDs)
	}
	extra, twice := map[string]place{}, map[string]place{}
	known, rows := maps.Clone(missing), map[string]bool{}
	err := a.eachRow(ctx, a.reading(), func(r *slim) {
		s := different[r.Source]
		if s == nil {
			return
		}
		if rows[r.ID] {
			twice[r.ID] = place{s, r.KafkaOffset}
		} else if len(rows) < mostIDs {
			rows[r.ID] = true
		}
		delete(missing, r.ID)
		if _, ok := known[r.ID]; !ok && len(known) < mostIDs && a.chains[s.tp] != nil && a.chains[s.tp].asked && r.KafkaOffset >= a.chains[s.tp].start && !a.chains[s.tp].expired(r.KafkaOffset, r.time()) && a.inRange(r.time()) && strings.HasPrefix(r.ContainerID, a.o.Container) {
			extra[r.ID] = place{s, r.KafkaOffset}
		}
	})
	if err != nil {
		return err
	}
	tell := func(all map[string]place, count func(*source) *int64, f Finding, what string) {
		examples := map[*source]string{}
		for id, p := range all {
			*count(p.src)++
			if was, ok := examples[p.src]; !ok || id < was {
				examples[p.src] = id
			}
		}
		for _, src := range slices.SortedFunc(maps.Keys(examples), func(x, y *source) int { return strings.Compare(x.name, y.name) }) {
			id := examples[src]
			f.Where, f.Source, f.Records = fmt.Sprintf("%s offset %d", src.tp, all[id].offset), src.name, *count(src)
			f.What = fmt.Sprintf(what, *count(src), id)
			a.find(f)
		}
	}
	tell(missing, func(s *source) *int64 { return &s.notArchived }, Finding{Kind: "not_archived", Do: "restore the files that the other findings name, or archive the offsets again into another root"}, "Kafka has %d records that the archive does not have, such as %s")
	tell(extra, func(s *source) *int64 { return &s.notWritten }, Finding{Kind: "not_written", Do: "find out who wrote them; records that Kafka lost have a topic that was made anew or truncated"}, "the archive has %d records that Kafka does not have although it has those offsets, such as %s")
	tell(twice, func(s *source) *int64 { return &s.archivedTwice }, Finding{Kind: "archived_twice", Do: "find out who wrote them; the manifests and compaction records that list their files say when"}, "the archive has %d records twice, such as %s")
	return nil
}

// eachRow reads the files that are as they should be once more.
func (a *auditor) eachRow(ctx context.Context, files []*file, fn func(*slim)) error {
	for _, f := range files {
		if f.bad {
			continue
		}
		r, _, err := a.open(f)
		if err != nil {
			return fmt.Errorf("open %s again: %w", f.Path, err)
		}
		err = archive.EachRow(r, f.Bytes, func(some []slim) error {
			for i := range some {
				fn(&some[i])
			}
			return ctx.Err()
		})
		_ = r.Close()
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Path, err)
		}
	}
	return nil
}
