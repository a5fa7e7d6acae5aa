package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/archiver/archive"
	"weir/ingest"
	"weir/schema"
)

// loss is a loss record.
type loss struct {
	source   string
	reason   string
	from, to schema.Position
	open     bool // to is not known
	// Of one that tells of Kafka's offsets:
	tp                 ingest.TopicPartition
	kafkaFrom, kafkaTo int64
}

// gap is what a consumer noticed: a jump past positions that may still come.
type gap struct {
	source   string
	from, to schema.Position
}

// special is what is read of loss records and gap events.
type special struct {
	TimestampNS int64             `parquet:"timestamp_ns,delta"`
	ObservedNS  int64             `parquet:"observed_ns,delta"`
	Source      string            `parquet:"source,dict"`
	ContainerID string            `parquet:"container_id,dict"`
	EventName   string            `parquet:"event_name,dict"`
	Attributes  map[string]string `parquet:"attributes" parquet-key:",dict" parquet-value:",dict"`
}

// readSpecial takes the loss records and gap events from a file.
func (a *auditor) readSpecial(ctx context.Context, r io.ReaderAt, size int64) error {
	return archive.EachRow(r, size, func(some []special) error {
		for i := range some {
			row := &some[i]
			at := archive.EventTime(&schema.Record{Time: row.TimestampNS, Observed: row.ObservedNS})
			switch row.EventName {
			case schema.EventLoss:
				a.takeLoss(row, a.inRange(at) && strings.HasPrefix(row.ContainerID, a.o.Container))
			case schema.EventGapOpened:
				a.takeGap(row)
			}
		}
		return ctx.Err()
	})
}

func (a *auditor) takeLoss(row *special, counts bool) {
	l := loss{source: row.Source, reason: row.Attributes[schema.AttrLossReason]}
	if counts {
		src := a.source(row.Source)
		if n, err := strconv.ParseInt(row.Attributes[schema.AttrLossRecords], 10, 64); err == nil && n > 0 {
			src.lost += n
		} else {
			src.lostUnknown++
		}
	}
	if from, err := strconv.ParseInt(row.Attributes["weir.kafka.from"], 10, 64); err == nil {
		to, err := strconv.ParseInt(row.Attributes["weir.kafka.to"], 10, 64)
		topic, partition, ok := strings.Cut(strings.TrimPrefix(row.Source, "weir/ingest/"+a.o.Group+"/"), "/")
		n, err2 := strconv.Atoi(partition)
		if err == nil && err2 == nil && ok {
			l.tp, l.kafkaFrom, l.kafkaTo = ingest.TopicPartition{Topic: topic, Partition: n}, from, to
			a.losses = append(a.losses, l)
		}
		return
	}
	var err error
	if l.from, err = schema.ParsePosition(row.Attributes[schema.AttrLossFrom]); err != nil {
		return // it does not say where: the engine's events
	}
	if l.to, err = schema.ParsePosition(row.Attributes[schema.AttrLossTo]); err != nil {
		l.open = true
	}
	a.losses = append(a.losses, l)
}

func (a *auditor) takeGap(row *special) {
	if !strings.HasPrefix(row.Source, "weir/ingest/"+a.o.Group+"/") {
		return // of another consumer
	}
	g := gap{source: row.Attributes["weir.gap.source"]}
	var err1, err2 error
	g.from, err1 = schema.ParsePosition(row.Attributes["weir.gap.from"])
	g.to, err2 = schema.ParsePosition(row.Attributes["weir.gap.to"])
	if err1 == nil && err2 == nil && g.from.Incarnation == g.to.Incarnation {
		a.gaps = append(a.gaps, g)
	}
}

// hole is a run of positions that no manifest covers, with positions after it that one does.
type hole struct {
	src           *source
	inc           schema.Incarnation
	from, to      int64
	before, after *manifest // that cover what is beside it; before is nil at a file's beginning
}

// checkHoles looks for positions that are not covered, and for the loss records that tell of them.
func (a *auditor) checkHoles(ctx context.Context) error {
	holes := a.holes()
	holes = slices.DeleteFunc(holes, func(h hole) bool { return a.explained(&h) })
	if len(holes) > 0 {
		// A loss may have been told before the range or after it.
		if err := a.otherLosses(ctx); err != nil {
			return err
		}
		holes = slices.DeleteFunc(holes, func(h hole) bool { return a.explained(&h) })
	}
	if len(holes) > 0 && !a.o.Scope.Since.IsZero() {
		var err error
		if holes, err = a.withoutEarlier(ctx, holes); err != nil {
			return err
		}
	}
	older, told := 0, 0
	for _, h := range holes {
		if a.older(&h) {
			older++
			continue
		}
		if a.expiredBeside(&h) {
			told++
			continue
		}
		h.src.holes++
		where := h.src.tp.String()
		if h.after != nil {
			where = h.after.Path
		}
		a.find(Finding{Kind: "hole", Where: where, Source: h.src.name, What: fmt.Sprintf("nothing tells of the positions %s to %s: neither a record nor a loss record", schema.Position{Incarnation: h.inc, Offset: h.from}, schema.Position{Incarnation: h.inc, Offset: h.to}),
			Do: "look at the agent's log of that time, and for manifests that were removed; if the log is still on the node, losing the agent's state has it read again"})
	}
	if older > 0 {
		a.note("%d files of logs were begun before the archive was: what they had until then is not in it", older)
	}
	if told > 0 {
		a.note("%d holes in positions lie beside records that have expired: loss records that told of them may be among those", told)
	}
	return nil
}

// older tells whether a hole is the beginning of a file that was begun before the archive's first commit.
func (a *auditor) older(h *hole) bool {
	c := a.chains[h.src.tp]
	if c == nil || len(c.all) == 0 || h.from != 0 || h.before != nil {
		return false
	}
	first := c.all[0].m
	return first != nil && first.Prev == "" && h.inc.Start < first.Created.UnixNano() && (len(h.src.cover.Ranges) == 0 || h.src.cover.Ranges[0].Incarnation.Compare(h.inc) >= 0)
}

func (a *auditor) holes() (all []hole) {
	missed := map[*source]*archive.Source{}
	note := func(src *source, inc schema.Incarnation, from, to int64) {
		if missed[src] == nil {
			missed[src] = new(archive.Source)
		}
		missed[src].Add(0, archive.Range{Incarnation: inc, From: from, To: to})
	}
	for _, src := range a.sources {
		for i, r := range src.cover.Ranges[:max(0, len(src.cover.Ranges)-1)] {
			if next := src.cover.Ranges[i+1]; next.Incarnation == r.Incarnation {
				note(src, r.Incarnation, r.To, next.From)
			}
		}
	}
	for _, g := range a.gaps {
		src := a.sources[g.source]
		if src == nil {
			src = a.source(g.source)
		}
		at := g.from.Offset
		for _, r := range src.cover.Ranges {
			if r.Incarnation != g.from.Incarnation || r.To <= at || r.From >= g.to.Offset {
				continue
			}
			if r.From > at {
				note(src, r.Incarnation, at, r.From)
			}
			at = max(at, r.To)
		}
		if at < g.to.Offset {
			note(src, g.from.Incarnation, at, g.to.Offset)
		}
	}
	for src, m := range missed {
		for _, r := range m.Ranges {
			h := hole{src: src, inc: r.Incarnation, from: r.From, to: r.To}
			a.beside(&h)
			if a.concerns(&h) {
				all = append(all, h)
			}
		}
	}
	slices.SortFunc(all, func(x, y hole) int {
		return cmp.Or(cmp.Compare(x.src.name, y.src.name), x.inc.Compare(y.inc), cmp.Compare(x.from, y.from))
	})
	return all
}

// beside finds the manifests that cover what is before and after a hole.
func (a *auditor) beside(h *hole) {
	for _, c := range a.chains {
		for _, m := range c.all {
			if m.m == nil {
				continue
			}
			for _, r := range m.m.Sources[h.src.name].Ranges {
				if r.Incarnation != h.inc {
					continue
				}
				if r.To == h.from {
					h.before = m
				}
				if r.From == h.to && h.after == nil {
					h.after = m
				}
			}
		}
	}
}

// concerns tells whether a hole has to do with the range and the container that are asked for.
func (a *auditor) concerns(h *hole) bool {
	if a.o.Container != "" && !strings.HasPrefix(h.src.container, a.o.Container) && !strings.Contains(h.src.name, "/"+a.o.Container) {
		return false
	}
	for _, m := range []*manifest{h.before, h.after} {
		if m == nil {
			continue
		}
		for _, f := range m.m.Files {
			if overlaps(a.o.Scope, f.MinTime, f.MaxTime) {
				return true
			}
		}
	}
	return h.before == nil && h.after == nil // the consumer told of it within the range
}

// explained takes away from a hole what loss records tell of, and says whether that is all of it.
func (a *auditor) explained(h *hole) bool {
	at := h.from
	for again := true; again && at < h.to; {
		again = false
		for _, l := range a.losses {
			if l.kafkaTo > 0 { // Kafka's retention deleted batches, and with them some of this source
				if l.tp == h.src.tp && h.after != nil && l.kafkaFrom < h.after.Next && (h.before == nil || l.kafkaTo > h.before.First) {
					return true
				}
				continue
			}
			if l.source != h.src.name || l.from.Incarnation.Compare(h.inc) > 0 {
				continue
			}
			from, to := int64(0), h.to
			if l.from.Incarnation == h.inc {
				from = l.from.Offset
			}
			switch {
			case l.open:
				// Nobody knows how far: up to what comes next.
				if l.from.Incarnation != h.inc || from < h.from && !a.reaches(h.src, h.inc, from, h.from) {
					continue
				}
			case l.to.Incarnation == h.inc:
				to = l.to.Offset
			case l.to.Incarnation.Compare(h.inc) < 0:
				continue
			}
			if from <= at && to > at {
				at, again = to, true
			}
		}
	}
	return at >= h.to
}

// reaches tells whether all from one position to another is covered.
func (a *auditor) reaches(src *source, inc schema.Incarnation, from, to int64) bool {
	for _, r := range src.cover.Ranges {
		if r.Incarnation == inc && r.From <= from && r.To >= to {
			return true
		}
	}
	return false
}

// otherLosses reads the loss records that the archive has beside the range. They do not count for its verdicts.
func (a *auditor) otherLosses(ctx context.Context) error {
	scope := archive.Scope{Topics: a.topics}
	if !a.o.Scope.Since.IsZero() {
		scope.Since = a.o.Scope.Since.Add(-archive.Ahead)
	}
	if a.o.Scope.Since.IsZero() && a.o.Scope.Until.IsZero() {
		return nil
	}
	a.progress("loss records beside the range")
	places, err := archive.Snapshot(ctx, a.s, scope)
	if err != nil {
		a.note("loss records beside the range could not be read: %v", err)
		return nil
	}
	for i := range places {
		p := &places[i]
		if a.live[p.Path] != nil && overlaps(a.o.Scope, p.MinTime, p.MaxTime) {
			continue
		}
		r, err := p.Open(a.s)
		if errors.Is(err, fs.ErrNotExist) {
			continue // of another range
		}
		if err != nil {
			return err
		}
		if err := errors.Join(a.readSpecial(ctx, r, p.Bytes), r.Close()); err != nil {
			return fmt.Errorf("read %s: %w", p.Path, err)
		}
	}
	return nil
}

// withoutEarlier leaves out holes that manifests of before the range cover, which were not read. None of them is older than the file that it tells of.
func (a *auditor) withoutEarlier(ctx context.Context, holes []hole) ([]hole, error) {
	oldest := map[ingest.TopicPartition]time.Time{}
	for _, h := range holes {
		began := time.Unix(0, h.inc.Start)
		if was, ok := oldest[h.src.tp]; !ok || began.Before(was) {
			oldest[h.src.tp] = began
		}
	}
	found := make([]archive.Source, len(holes))
	for tp, since := range oldest {
		c := a.chains[tp]
		if c == nil || len(c.all) == 0 {
			continue
		}
		a.progress("manifests of %s before the range", tp)
		names, err := archive.Manifests(a.s, tp, since.Add(-archive.Ahead))
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if n.First >= c.all[0].First {
				break
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			data, err := a.s.ReadFile(n.Path)
			if err != nil {
				return nil, fmt.Errorf("read manifest %s: %w", n.Path, err)
			}
			m, err := archive.ParseManifest(data, n.TopicPartition, n.Span)
			if err != nil {
				a.note("%s, of before the range, cannot be read: %v", n.Path, err)
				continue
			}
			for i, h := range holes {
				if h.src.tp != tp {
					continue
				}
				for _, r := range m.Sources[h.src.name].Ranges {
					if r.Incarnation == h.inc {
						found[i].Add(0, r)
					}
				}
			}
		}
	}
	var left []hole
	for i, h := range holes {
		if !slices.ContainsFunc(found[i].Ranges, func(r archive.Range) bool { return r.From <= h.from && r.To >= h.to }) {
			left = append(left, h)
		}
	}
	return left, nil
}
