package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"weir/internal/config"
	"weir/internal/kibana"
	"weir/internal/search"
	"weir/internal/show"
)

type searchCmd struct {
	Query     string   `arg:"" optional:"" help:"What to find, in KQL as in Kibana: 'log.level: error and container.name: web*'. Everything without one."`
	Since     string   `help:"From when: how long ago (90m, 2d), or a time; all for everything there is." default:"15m"`
	Until     string   `help:"Until when, as --since." placeholder:"TIME"`
	App       string   `help:"Only this app."`
	Dataset   string   `help:"Only this dataset, such as container, event or signal."`
	Namespace string   `help:"Only this namespace of the data streams."`
	Index     string   `help:"Data streams or indices, instead of --dataset and --namespace."`
	Limit     *int     `help:"At most so many records; all without it, and the last 10 before those that --follow shows." short:"n"`
	Oldest    bool     `help:"Oldest first." xor:"order"`
	Newest    bool     `help:"Newest first, as without --oldest." xor:"order"`
	Follow    bool     `help:"Go on with new records until Ctrl-C; also late ones, each once." short:"f" xor:"what"`
	Histogram bool     `help:"Count by time and level instead." xor:"what"`
	Around    string   `help:"The record with this id, and -n records of the same source (10) before and after it." placeholder:"ID" xor:"what"`
	Link      bool     `help:"Print the address of this search in Kibana and do nothing else." xor:"what"`
	Fields    []string `help:"Show these fields alone."`
	JSON      bool     `help:"One JSON object a line, every field."`
	Archive   string   `help:"Search this archive instead of Elasticsearch: hdfs://namenode:8020/path or file:///path." placeholder:"ROOT"`
}

// followEvery is between two looks for new records; Elasticsearch makes them searchable once a second.
const followEvery = time.Second

func (s searchCmd) Run(ctx context.Context, g *globals) (err error) {
	if s.Archive != "" {
		return s.inArchive(ctx, g)
	}
	cfg, err := g.load()
	if err != nil {
		return err
	}
	q, err := s.query(time.Now())
	if err != nil {
		return err
	}
	link := s.link(cfg.Kibana, q)
	if s.Link {
		if link == "" {
			return errors.New("kibana.url: is not set, so there is no address to print")
		}
		_, err := fmt.Fprintln(g.out, link)
		return err
	}
	es, err := search.New(cfg.Indexer, func(warning string) { fmt.Fprintln(g.err, "weir: warning:", warning) })
	if err != nil {
		return err
	}
	defer es.Close()
	// A pipe that is closed is an error of a write then, not the end of the process, so that what the search holds in the cluster is freed.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	if err := es.Check(ctx, q, s.Fields); err != nil {
		return err
	}
	p := s.printer(g)
	switch {
	case s.Histogram:
		err = s.histogram(ctx, g, es, q, p)
	case s.Around != "":
		err = s.around(ctx, es, q, p)
	case s.Follow:
		err = es.Follow(ctx, q, followEvery, p.hit, p.w.Flush)
	default:
		err = es.Each(ctx, q, p.hit)
	}
	if flushed := p.w.Flush(); err == nil {
		err = flushed
	}
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	if err == nil && !s.Follow {
		err = es.Complete()
	}
	if link != "" {
		fmt.Fprintln(g.err, "in Kibana:", link)
	}
	return err
}

func (s *searchCmd) printer(g *globals) *printer {
	return &printer{w: bufio.NewWriterSize(g.out, 64<<10), style: show.StyleFor(g.out, os.Getenv), fields: s.Fields, json: s.JSON}
}

// query reads the flags.
func (s *searchCmd) query(now time.Time) (*search.Query, error) {
	q := &search.Query{KQL: s.Query, App: s.App, Oldest: s.Oldest, Limit: -1}
	var err error
	if q.Index, err = search.Pattern(s.Index, s.Dataset, s.Namespace); err != nil {
		return nil, err
	}
	if s.Since != "all" {
		if q.Since, err = search.ParseTime(s.Since, now); err != nil {
			return nil, fmt.Errorf("--since: %w, nor all", err)
		}
	}
	if s.Until != "" {
		if q.Until, err = search.ParseTime(s.Until, now); err != nil {
			return nil, fmt.Errorf("--until: %w", err)
		}
	}
	if s.Follow {
		q.Limit = 10
	}
	if s.Limit != nil {
		q.Limit = *s.Limit
	}
	switch {
	case s.Limit != nil && *s.Limit < 0:
		return nil, fmt.Errorf("--limit %d is below zero", *s.Limit)
	case s.Follow && s.Until != "":
		return nil, errors.New("--follow has no end: leave out --until")
	case s.Follow && (s.Oldest || s.Newest):
		return nil, errors.New("--follow shows records as they come: leave out --oldest and --newest")
	case (s.Follow || s.Around != "") && q.Limit > 10_000:
		return nil, errors.New("--limit is at most 10000 with --follow and --around")
	case s.Around != "" && (s.Query != "" || s.App != ""):
		return nil, errors.New("--around shows all records beside one: leave out the query and --app")
	case s.Histogram && (s.JSON || len(s.Fields) > 0 || s.Limit != nil):
		return nil, errors.New("--histogram counts: leave out --json, --fields and --limit")
	}
	return q, q.Validate()
}

// link is the address of the same search in Kibana.
func (s *searchCmd) link(cfg config.Kibana, q *search.Query) string {
	kql := q.Kibana()
	if s.Around != "" {
		return ""
	}
	for _, f := range [2][2]string{{"data_stream.dataset", s.Dataset}, {"data_stream.namespace", s.Namespace}} {
		value := f[1]
		if value == "" {
			continue
		}
		if f[0] == "data_stream.dataset" {
			value = "weir." + strings.TrimPrefix(value, "weir.")
		}
		if kql = strings.TrimSpace(kql); kql != "" {
			kql = "(" + kql + ") and "
		}
		kql += f[0] + ": " + value
	}
	from, to := "1970-01-01T00:00:00.000Z", "now"
	const form = "2006-01-02T15:04:05.000Z07:00"
	if !q.Since.IsZero() {
		from = q.Since.UTC().Format(form)
	}
	if !q.Until.IsZero() {
		to = q.Until.UTC().Format(form)
	} else if !s.Follow {
		to = time.Now().UTC().Format(form)
	}
	return kibana.DiscoverURL(cfg, kql, from, to)
}

func (s *searchCmd) around(ctx context.Context, es *search.Elasticsearch, q *search.Query, p *printer) error {
	n := 10
	if s.Limit != nil {
		n = *s.Limit
	}
	before, hit, after, err := es.Around(ctx, q.Index, s.Around, n)
	if err != nil {
		return err
	}
	p.mark = hit.ID
	for _, list := range [][]search.Hit{before, {*hit}, after} {
		for i := range list {
			if err := p.hit(&list[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *searchCmd) histogram(ctx context.Context, g *globals, es *search.Elasticsearch, q *search.Query, p *printer) error {
	const rows = 30
	if q.Until.IsZero() && !q.Since.IsZero() {
		now := *q
		now.Until = time.Now()
		q = &now
	}
	buckets, step, err := es.Histogram(ctx, q, rows)
	if err != nil {
		return err
	}
	_, err = p.w.WriteString(p.style.Histogram(buckets, step, show.Width(g.out, 100)))
	return err
}

// printer writes hits.
type printer struct {
	w      *bufio.Writer
	style  show.Style
	fields []string
	json   bool
	mark   string // id of the hit that is marked
	line   bytes.Buffer
}

func (p *printer) hit(h *search.Hit) error {
	p.line.Reset()
	if p.json {
		if err := h.AppendJSON(&p.line, p.fields); err != nil {
			return err
		}
		_, err := p.w.Write(p.line.Bytes())
		return err
	}
	doc, err := h.Document()
	if err != nil {
		return err
	}
	if len(p.fields) == 0 {
		l := doc.Line()
		if p.mark == h.ID {
			l.Mark = "> "
		} else if p.mark != "" {
			l.Mark = "  "
		}
		return p.record(l)
	}
	for i, f := range p.fields {
		if i > 0 {
			p.line.WriteByte('\t')
		}
		value := doc.Text(f)
		switch {
		case f == "_id":
			value = h.ID
		case f == "_index":
			value = h.Index
		case value == "":
			value = "-"
		}
		p.line.WriteString(cell(value))
	}
	p.line.WriteByte('\n')
	_, err = p.w.Write(p.line.Bytes())
	return err
}

// record writes a record for people.
func (p *printer) record(l show.Line) error {
	if _, err := p.w.WriteString(p.style.Line(l)); err != nil {
		return err
	}
	return p.w.WriteByte('\n')
}
