package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"weir/archiver/archive"
	"weir/archiver/read"
	"weir/archiver/store"
	"weir/indexer"
	"weir/internal/search"
	"weir/internal/show"
	"weir/internal/view"
	"weir/schema"
)

// openArchive opens an archive to read. Whatever else the configuration says of the archiver's store holds for it too.
func openArchive(cfg store.Config, root string) (store.Store, error) {
	cfg.Root = root
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("--archive: %w", err)
	}
	// The store would make a folder that is not there.
	if dir, ok := strings.CutPrefix(root, "file://"); ok {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("--archive: %w", err)
		}
	}
	return store.Open(cfg)
}

// topicsOf are the topics of a dataset, none for all.
func topicsOf(dataset string) ([]string, error) {
	if dataset == "" {
		return nil, nil
	}
	var known []string
	for _, topic := range []string{schema.TopicLogs, schema.TopicEvents, schema.TopicSignals, schema.TopicActions, schema.TopicDeadLetter} {
		name := strings.TrimPrefix(indexer.Dataset(topic), "weir.")
		if strings.TrimPrefix(dataset, "weir.") == name {
			return []string{topic}, nil
		}
		known = append(known, name)
	}
	return nil, fmt.Errorf("--dataset %q is not one of the archive's: %s", dataset, strings.Join(known, ", "))
}

// inArchive is the search in the archive instead of Elasticsearch.
func (s *searchCmd) inArchive(ctx context.Context, g *globals) error {
	for _, f := range []struct {
		set       bool
		flag, why string
	}{
		{s.Follow, "--follow", "the archive has what was committed; follow in Elasticsearch, or with `weir tail`"},
		{s.Link, "--link", "Kibana does not see the archive"},
		{s.Around != "", "--around", "look for its weir.source, with --since and --until about its time"},
		{s.Index != "", "--index", "it has topics: choose one with --dataset"},
		{s.Namespace != "", "--namespace", "that is a matter of Elasticsearch"},
	} {
		if f.set {
			return fmt.Errorf("%s does not go with --archive: %s", f.flag, f.why)
		}
	}
	cfg, err := g.load()
	if err != nil {
		return err
	}
	now := time.Now()
	q, err := s.query(now)
	if err != nil {
		return err
	}
	query, err := archiveQuery(q.KQL, q.App, s.Dataset, q.Since, q.Until, now)
	if err != nil {
		return err
	}
	query.Newest = !s.Oldest
	st, err := openArchive(cfg.Archiver.Config, s.Archive)
	if err != nil {
		return err
	}
	defer st.Close()
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	p := s.printer(g)
	for _, f := range s.Fields {
		if !read.Known(f) {
			fmt.Fprintln(g.err, "weir: warning: no record has a field", show.Clean(f))
		}
	}
	told := &reading{out: g.err, terminal: isTerminal(g.err), before: p.w.Flush}
	r := read.New(st)
	if s.Histogram {
		err = archiveHistogram(ctx, g, r, query, p, told)
	} else {
		err = archiveHits(ctx, r, query, cfg.Indexer, q.Limit, p, told)
	}
	if flushed := p.w.Flush(); err == nil {
		err = flushed
	}
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	told.end()
	return err
}

// archiveQuery makes the reader's query.
func archiveQuery(kql, app, dataset string, since, until, now time.Time) (read.Query, error) {
	q := read.Query{Scope: archive.Scope{Since: since, Until: until}}
	var err error
	if q.Topics, err = topicsOf(dataset); err != nil {
		return q, err
	}
	if q.Filter, err = read.ParseFilter(kql, now); err == nil && app != "" {
		q.Filter, err = q.Filter.And("weir.app", app)
	}
	return q, err
}

// archiveHits prints what is found as Elasticsearch's documents of the same records would be.
func archiveHits(ctx context.Context, r *read.Reader, q read.Query, cfg indexer.Config, limit int, p *printer, told *reading) error {
	e := indexer.NewEncoder(cfg)
	var last *schema.Batch
	var hit search.Hit
	if limit == 0 {
		return nil
	}
	for h, err := range r.Records(ctx, q, told.see) {
		if err != nil {
			return err
		}
		told.clear()
		if !p.json && len(p.fields) == 0 { // a document is not needed
			err = p.record(lineOf(h))
		} else {
			if h.Batch != last {
				last = h.Batch
				e.Begin(last)
			}
			hit.ID = h.ID()
			hit.Source, hit.Index = e.Document(hit.Source[:0], h.Batch, &h.Record)
			err = p.hit(&hit)
		}
		if err != nil {
			return err
		}
		if limit--; limit == 0 {
			break
		}
	}
	return nil
}

// lineOf is the record for people, as search.Document has it.
func lineOf(h *read.Hit) show.Line {
	l := show.Line{At: time.Unix(0, h.At), Level: strings.ToUpper(h.Record.SeverityText), Body: h.Record.Body}
	if a, ok := h.Record.Attr(schema.AttrContainerName); ok {
		l.What = a.Str
	} else if a, ok := h.Batch.ResourceAttr(schema.AttrContainerName); ok {
		l.What = a.Str
	} else {
		l.What = h.Batch.Source
	}
	if h.Record.EventName != "" {
		l.Body = h.Record.EventName + ": " + l.Body
	}
	return l
}

func archiveHistogram(ctx context.Context, g *globals, r *read.Reader, q read.Query, p *printer, told *reading) error {
	const rows = 30
	from, to := q.Since, q.Until
	if to.IsZero() && !from.IsZero() {
		to = time.Now()
	}
	if from.IsZero() || to.IsZero() {
		first, last, ok, err := r.Span(ctx, q.Scope)
		if err != nil {
			return err
		}
		if ok && from.IsZero() {
			from = first
		}
		if ok && to.IsZero() {
			to = last.Add(1)
		}
	}
	step := show.Step(to.Sub(from), rows)
	_, zone := from.Local().Zone()
	start := func(at time.Time) int64 {
		shift := int64(zone) * int64(time.Second)
		n := at.UnixNano() + shift
		return n - (n%int64(step)+int64(step))%int64(step) - shift
	}
	var buckets []show.Bucket
	if from.Before(to) {
		for at := start(from); at < to.UnixNano() && len(buckets) < 1000; at += int64(step) {
			buckets = append(buckets, show.Bucket{At: time.Unix(0, at), Levels: map[string]int64{}})
		}
	}
	q.Newest = false
	if err := r.Count(ctx, q, told.see, func(at int64, level string) {
		if i := int((at - start(from)) / int64(step)); i >= 0 && i < len(buckets) {
			buckets[i].Levels[strings.ToLower(level)]++
		}
	}); err != nil {
		return err
	}
	told.clear()
	_, err := p.w.WriteString(p.style.Histogram(buckets, step, show.Width(g.out, 100)))
	return err
}

// reading tells how reading goes: on a terminal while it does, and at the end.
type reading struct {
	out      io.Writer
	terminal bool
	before   func() error // writes what was found so far
	last     read.Progress
	told     time.Time
	shown    bool
}

func (r *reading) see(p read.Progress) {
	r.last = p
	if time.Since(r.told) < 200*time.Millisecond {
		return
	}
	r.told = time.Now()
	_ = r.before() // the next write fails too
	if r.terminal {
		r.shown = true
		fmt.Fprintf(r.out, "\r\x1b[K%s", r.line())
	}
}

// clear takes the line away before something else is written.
func (r *reading) clear() {
	if r.shown {
		fmt.Fprint(r.out, "\r\x1b[K")
		r.shown = false
	}
}

func (r *reading) line() string {
	p := &r.last
	expired := ""
	if p.Expired > 0 {
		expired = fmt.Sprintf("; %d files of these days have expired", p.Expired)
	}
	return fmt.Sprintf("%d records in %s; read %d of %d files, %d of %d row groups, %s of %s", p.Hits, p.Took.Round(10*time.Millisecond), p.FilesRead, p.Listed, p.Groups-p.GroupsPruned, p.Groups, view.Bytes(float64(p.BytesRead)), view.Bytes(float64(p.ListedBytes))) + expired
}

func (r *reading) end() {
	r.clear()
	fmt.Fprintln(r.out, r.line())
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
