package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/indexer"
	"weir/ingest"
	"weir/internal/show"
	"weir/internal/telemetry"
	"weir/internal/view"
	"weir/schema"
)

type letterCmds struct {
	List   letterListCmd   `cmd:"" help:"Show the dead letters: when, why, from where and for which index."`
	Replay letterReplayCmd `cmd:"" help:"Give refused documents to Elasticsearch again, after what refused them is mended. What is there already is not written twice."`
}

// letterFilter chooses dead letters.
type letterFilter struct {
	Topic  []string      `help:"Only of these topics."`
	Since  time.Duration `help:"Only of the last time, such as 24h."`
	Reason string        `help:"Only those whose reason contains this text."`
	ID     []string      `name:"id" help:"Only these documents."`
}

func (f *letterFilter) takes(l *indexer.DeadLetter) bool {
	return (len(f.Topic) == 0 || slices.Contains(f.Topic, l.Topic)) && (len(f.ID) == 0 || slices.Contains(f.ID, l.ID)) &&
		strings.Contains(l.Reason, f.Reason) && (f.Since == 0 || time.Since(l.At) <= f.Since)
}

// read calls fn with each letter, oldest first in each partition of the topic.
func (f *letterFilter) read(ctx context.Context, g *globals, k *ingest.Kafka, fn func(*indexer.DeadLetter) error) error {
	var since time.Time
	if f.Since > 0 {
		since = time.Now().Add(-f.Since)
	}
	return k.Scan(ctx, schema.TopicDeadLetter, since, func(b *schema.Batch) error {
		for i := range b.Records {
			if l, ok := indexer.ReadDeadLetter(&b.Records[i]); ok {
				if err := fn(&l); err != nil {
					return err
				}
			}
		}
		return nil
	}, func(err error) { fmt.Fprintln(g.err, "weir:", err) })
}

// letterKey names what a letter is about. It may be written twice: a crash can come between a letter and the commit.
type letterKey struct {
	id, topic string
	partition int
	offset    int64
}

func keyOf(l *indexer.DeadLetter) letterKey { return letterKey{l.ID, l.Topic, l.Partition, l.Offset} }

// collect reads the letters without their documents, each once.
func (f *letterFilter) collect(ctx context.Context, g *globals, k *ingest.Kafka) ([]*letterState, error) {
	byKey := map[letterKey]*letterState{}
	err := f.read(ctx, g, k, func(l *indexer.DeadLetter) error {
		key := keyOf(l)
		s := byKey[key]
		switch {
		case l.Replayed && s != nil:
			s.replayed = l.At
		case !l.Replayed && f.takes(l):
			if s == nil {
				s = &letterState{}
				byKey[key] = s
			}
			s.DeadLetter, s.cannot = *l, l.Replayable()
			s.Document = nil
		}
		return nil
	})
	var all []*letterState
	for _, s := range byKey {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *letterState) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Offset, b.Offset))
	})
	return all, err
}

type letterState struct {
	indexer.DeadLetter
	replayed time.Time
	cannot   error
}

func (s *letterState) done() bool { return s.replayed.After(s.At) }

type letterListCmd struct {
	letterFilter
	All  bool `help:"Also those that were replayed."`
	JSON bool `help:"One JSON object a line."`
}

func (c letterListCmd) Run(ctx context.Context, g *globals) error {
	_, k, err := g.kafka()
	if err != nil {
		return err
	}
	defer k.Close()
	all, err := c.collect(ctx, g, k)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(s *letterState) bool { return s.done() && !c.All })
	if c.JSON {
		e := json.NewEncoder(g.out)
		for _, s := range all {
			line := map[string]any{"time": s.At.UTC(), "id": s.ID, "index": s.Index, "reason": s.Reason, "source": s.Source, "topic": s.Topic, "partition": s.Partition, "kafka_offset": s.Offset, "bytes": s.Bytes, "replayable": s.cannot == nil}
			if s.done() {
				line["replayed"] = s.replayed.UTC()
			}
			if err := e.Encode(line); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIME\tINDEX\tSOURCE\tKAFKA\tSIZE\tID\tREASON")
	for _, s := range all {
		reason := cell(s.Reason)
		if s.done() {
			reason = "(replayed " + s.replayed.Format(time.DateTime) + ") " + reason
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s/%d/%d\t%s\t%s\t%.200s\n", s.At.Format(time.DateTime), cmp.Or(cell(s.Index), "-"), cmp.Or(cell(s.Source), "-"), cell(s.Topic), s.Partition, s.Offset, view.Bytes(float64(s.Bytes)), cmp.Or(cell(s.ID), "-"), reason)
	}
	return w.Flush()
}

// cell keeps control characters from the terminal, and tabs from the table.
func cell(s string) string { return strings.ReplaceAll(show.Clean(s), "\t", " ") }

type letterReplayCmd struct {
	letterFilter
	All bool `help:"All that were not replayed yet."`
}

// replayChunk bounds the documents in memory; a chunk is noted as replayed before the next is read.
const (
	replayChunk      = 1000
	replayChunkBytes = 16 << 20
)

func (c letterReplayCmd) Run(ctx context.Context, g *globals) error {
	if !c.All && len(c.Topic) == 0 && len(c.ID) == 0 && c.Reason == "" && c.Since == 0 {
		return errors.New("choose what to replay with --id, --reason, --topic or --since, or take --all")
	}
	cfg, err := g.load()
	if err != nil {
		return err
	}
	r, err := newRuntime(cfg, telemetry.Logger(g.err, cfg.Log.Format, cfg.Log.Level))
	if err != nil {
		return err
	}
	defer r.kafka.Close()
	refused := &indexer.Refusals{}
	x, err := indexer.New(cfg.Indexer, refused, r.log, r.reg)
	if err != nil {
		return err
	}
	defer x.Close()
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var producer errgroup.Group
	producer.Go(func() error { return r.producer.Run(running) })
	defer func() { stop(); _ = producer.Wait() }()
	return c.replay(ctx, g, r, x, refused)
}

func (c letterReplayCmd) replay(ctx context.Context, g *globals, r *runtime, x *indexer.Indexer, refused *indexer.Refusals) error {
	all, err := c.collect(ctx, g, r.kafka)
	if err != nil {
		return err
	}
	todo := map[letterKey]bool{}
	replayed, again, cannot, before := 0, 0, 0, 0
	for _, s := range all {
		switch {
		case s.done():
			before++
		case s.cannot != nil:
			cannot++
			fmt.Fprintln(g.err, "weir: not replayed:", s.cannot)
		default:
			todo[keyOf(&s.DeadLetter)] = true
		}
	}
	notes := &indexer.Letters{Out: r.producer}
	var chunk []indexer.DeadLetter
	size := 0
	flush := func() error {
		if err := x.Replay(ctx, r.kafka, chunk); err != nil {
			return err
		}
		for _, l := range chunk {
			if reason := refused.Reason(l.ID); reason != "" {
				again++
				fmt.Fprintf(g.err, "weir: refused again: %s: %s\n", l.ID, cell(reason))
				continue
			}
			l.Replayed, l.Document = true, nil
			if err := notes.Put(ctx, l); err != nil {
				return err
			}
			replayed++
		}
		chunk, size = nil, 0
		return r.producer.Flush(ctx)
	}
	err = c.read(ctx, g, r.kafka, func(l *indexer.DeadLetter) error {
		key := keyOf(l)
		if l.Replayed || !todo[key] {
			return nil
		}
		delete(todo, key)
		chunk, size = append(chunk, *l), size+l.Bytes
		if len(chunk) == replayChunk || size > replayChunkBytes {
			return flush()
		}
		return nil
	})
	if err == nil && len(chunk) > 0 {
		err = flush()
	}
	fmt.Fprintf(g.out, "%d replayed, %d refused again, %d cannot be replayed, %d were replayed before\n", replayed, again, cannot, before)
	if err == nil && again+cannot > 0 {
		err = errors.New("not everything could be replayed")
	}
	return err
}
