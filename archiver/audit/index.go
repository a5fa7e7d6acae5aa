package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/indexer"
	"weir/schema"
)

// askIndex compares what Elasticsearch has of each source and hour with the archive.
func (a *auditor) askIndex(ctx context.Context) error {
	if a.o.Index == nil {
		return nil
	}
	a.progress("Elasticsearch: counts")
	err := a.o.Index.Counts(ctx, a.o.Scope.Since, a.o.Scope.Until, a.o.Container, func(name string, hour time.Time, n int64) error {
		if len(a.o.Scope.Topics) > 0 && a.sources[name] == nil {
			return nil // of a topic that is not asked for
		}
		src := a.source(name)
		src.indexed += n
		src.hour(hour.UnixNano()).indexed += n
		return nil
	})
	if err != nil {
		return fmt.Errorf("elasticsearch: %w", err)
	}
	different := map[*source]map[int64]bool{}
	for _, src := range a.sources {
		for h, n := range src.hours {
			if n.archived != n.indexed {
				if different[src] == nil {
					different[src] = map[int64]bool{}
				}
				different[src][h] = true
			}
		}
	}
	if len(different) == 0 {
		return nil
	}
	return a.drillIndex(ctx, different)
}

// drillIndex names the documents that are missing, there twice, or of nothing that the archive has.
func (a *auditor) drillIndex(ctx context.Context, different map[*source]map[int64]bool) error {
	a.progress("Elasticsearch: ids of %d sources", len(different))
	archived := map[*source]map[string]int64{} // ids, and their offsets
	pending := map[string]bool{}
	held := 0
	err := a.eachRow(ctx, a.reading(), func(r *slim) {
		src := a.sources[r.Source]
		hours := different[src]
		at := r.time()
		if hours == nil || !hours[at/int64(time.Hour)] || !a.inRange(at) || !strings.HasPrefix(r.ContainerID, a.o.Container) {
			return
		}
		if held++; held > mostIDs {
			return
		}
		if archived[src] == nil {
			archived[src] = map[string]int64{}
		}
		archived[src][r.ID] = r.KafkaOffset
	})
	if err != nil {
		return err
	}
	if held > mostIDs {
		a.note("more than %d documents would have to be compared one by one: the counts of what Elasticsearch misses are not exact; ask for a shorter range", mostIDs)
		return nil
	}
	if a.o.Kafka != nil {
		for _, c := range a.chains {
			if !c.asked {
				continue
			}
			if _, err := a.pending(ctx, c, func(id string) {
				if len(pending) < mostIDs {
					pending[id] = true
				}
			}); err != nil {
				return err
			}
		}
	}
	refused, asked := map[string]string{}, false
	for _, src := range slices.SortedFunc(maps.Keys(different), func(x, y *source) int { return strings.Compare(x.name, y.name) }) {
		missing := archived[src]
		if missing == nil {
			missing = map[string]int64{}
		}
		twice, unknown := []string{}, []string{}
		where := map[string]string{}
		for _, h := range slices.Sorted(maps.Keys(different[src])) {
			from, to := time.Unix(h*3600, 0).UTC(), time.Unix(h*3600+3600, 0).UTC()
			if a.o.Scope.Since.After(from) {
				from = a.o.Scope.Since
			}
			if u := a.o.Scope.Until; !u.IsZero() && u.Before(to) {
				to = u
			}
			err := a.o.Index.IDs(ctx, src.name, from, to, func(id, index string) error {
				if was, ok := where[id]; ok {
					if was != index {
						twice = append(twice, id+" in "+was+" and "+index)
					}
					return nil
				}
				where[id] = index
				if _, ok := missing[id]; ok {
					delete(missing, id)
				} else if !pending[id] && !a.tells(src, id) {
					unknown = append(unknown, id+" in "+index)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("elasticsearch: %w", err)
			}
		}
		if c := a.chains[src.tp]; c != nil && c.asked {
			maps.DeleteFunc(missing, func(_ string, offset int64) bool { return offset >= c.indexed }) // the indexer has not come to them yet
		}
		if len(missing) > 0 && a.o.Kafka != nil && !asked {
			asked = true
			if refused, err = a.deadLetters(ctx); err != nil {
				return err
			}
		}
		maps.DeleteFunc(missing, func(id string, _ int64) bool {
			_, ok := refused[id]
			if ok {
				src.refused++
			}
			return ok
		})
		src.notIndexed, src.indexedTwice, src.indexedAlone = int64(len(missing)), int64(len(twice)), int64(len(unknown))
		if len(missing) > 0 {
			id := slices.Min(slices.Collect(maps.Keys(missing)))
			a.find(Finding{Kind: "not_indexed", Where: fmt.Sprintf("%s offset %d", src.tp, missing[id]), Source: src.name, Records: src.notIndexed,
				What: fmt.Sprintf("Elasticsearch does not have %d records that the archive has, such as %s", len(missing), id), Do: "if the lifecycle policy or somebody deleted an index, ask for a range that begins later; else index them again (weir replay)"})
		}
		if len(twice) > 0 {
			a.find(Finding{Kind: "indexed_twice", Where: twice[0], Source: src.name, Records: int64(len(twice)), What: fmt.Sprintf("Elasticsearch has %d records twice", len(twice)), Do: "delete those of the older index"})
		}
		if len(unknown) > 0 {
			a.find(Finding{Kind: "indexed_alone", Where: unknown[0], Source: src.name, Records: int64(len(unknown)), What: fmt.Sprintf("Elasticsearch has %d documents of records that no manifest tells of", len(unknown)), Do: "find out who wrote them, or what is missing in the archive"})
		}
	}
	return nil
}

// tells says whether manifests cover the record of an id: where its row is missing, that has its finding.
func (a *auditor) tells(src *source, id string) bool {
	place, ok := strings.CutPrefix(id, src.hash+"-")
	if !ok {
		return false
	}
	// "<start>.<print>-<offset>", all hexadecimal; start may be negative.
	dot, dash := strings.IndexByte(place, '.'), strings.LastIndexByte(place, '-')
	if dot < 0 || dash < dot {
		return false
	}
	start, err1 := strconv.ParseInt(place[:dot], 16, 64)
	print, err2 := strconv.ParseUint(place[dot+1:dash], 16, 32)
	offset, err3 := strconv.ParseInt(place[dash+1:], 16, 64)
	return err1 == nil && err2 == nil && err3 == nil && covered(src.cover.Ranges, schema.Position{Incarnation: schema.Incarnation{Start: start, Print: uint32(print)}, Offset: offset})
}

// deadLetters lists what Elasticsearch refused, by id: why.
func (a *auditor) deadLetters(ctx context.Context) (map[string]string, error) {
	refused := map[string]string{}
	n, err := a.o.Kafka.Partitions(ctx, schema.TopicDeadLetter)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	for p := range n {
		c := &chain{}
		c.tp.Topic, c.tp.Partition = schema.TopicDeadLetter, p
		if c.first, c.next, err = a.o.Kafka.Bounds(ctx, c.tp); err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
		err := a.o.Kafka.Range(ctx, c.tp, c.first, c.next, func(b *schema.Batch) error {
			for i := range b.Records {
				if l, ok := indexer.ReadDeadLetter(&b.Records[i]); ok && !l.Replayed {
					refused[strings.Clone(l.ID)] = strings.Clone(l.Reason)
				}
			}
			return ctx.Err()
		}, func(error) {})
		if err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
	}
	if len(refused) > 0 {
		a.note("Elasticsearch refused records for good; `weir deadletter list` shows them")
	}
	return refused, nil
}

// verdicts adds everything up.
func (a *auditor) verdicts() {
	by := map[string]*Verdict{}
	total := Verdict{Name: "total", Written: NotAsked, Indexed: NotAsked}
	for _, src := range a.sources {
		v := Verdict{Name: src.app, Written: NotAsked, Archived: src.archived, Indexed: NotAsked, Lost: src.lost, LostUnknown: src.lostUnknown, Refused: src.refused}
		if a.o.BySource {
			v.Name = src.name
		} else if v.Name == "" {
			v.Name = "-"
		}
		if a.o.Kafka != nil {
			v.Written = src.before + src.inKafka.n
		}
		if a.o.Index != nil {
			v.Indexed = src.indexed
		}
		// What is missing in a file is missing against Kafka and against Elasticsearch too.
		v.Unexplained = max(src.notInFiles, src.notArchived, src.indexedAlone) + src.notWritten + src.archivedTwice + src.holes + src.notIndexed + src.indexedTwice
		if v.Archived == 0 && v.Unexplained == 0 && v.Written <= 0 && v.Indexed <= 0 && v.Lost+v.LostUnknown == 0 {
			continue // not of this range
		}
		if by[v.Name] == nil {
			by[v.Name] = &Verdict{Name: v.Name, Written: NotAsked, Indexed: NotAsked}
		}
		by[v.Name].add(v)
		total.add(v)
	}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		a.rep.Verdicts = append(a.rep.Verdicts, *by[name])
	}
	a.rep.Total = total
}
