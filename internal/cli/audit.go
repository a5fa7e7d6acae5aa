package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"text/tabwriter"
	"time"

	"weir/archiver/archive"
	"weir/archiver/audit"
	"weir/archiver/store"
	"weir/ingest"
	"weir/internal/config"
	"weir/internal/search"
	"weir/schema"
)

type auditCmd struct {
	Since         string   `help:"From when, by the records' time: how long ago (90m, 2d), or a time; all for everything there is." default:"24h"`
	Until         string   `help:"Until when. What is newer may not be archived yet." default:"20m" placeholder:"TIME"`
	Container     string   `help:"Only the records of the container with this id, or with ids that begin so." placeholder:"ID"`
	Topic         []string `help:"Only these topics."`
	Root          string   `help:"The archive, instead of archiver.root." placeholder:"URL"`
	PublicKey     string   `help:"PEM file with the Ed25519 public keys that manifests must be signed with." placeholder:"FILE"`
	Kafka         bool     `help:"Compare with Kafka, where brokers are configured." default:"true" negatable:""`
	Elasticsearch bool     `help:"Compare with Elasticsearch, where it is configured." default:"true" negatable:""`
	Deep          bool     `help:"Hash all files." default:"true" negatable:""`
	By            string   `help:"Verdicts by app or by source." enum:"app,source" default:"app"`
	JSON          bool     `help:"One JSON object."`
}

// exitError ends the process with a status of its own. What it stands for is hidden: an audit that was interrupted is not done, too.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }

const (
	exitUnexplained = 1
	exitNotDone     = 2
)

// Run exits with 0 when everything is explained, 1 when something is not, and 2 when the audit could not be done.
func (a auditCmd) Run(ctx context.Context, g *globals) error {
	r, err := a.audit(ctx, g)
	if r != nil && (err == nil || len(r.Findings) > 0) {
		show := a.table
		if a.JSON {
			show = func(g *globals, r *audit.Report) error { return json.NewEncoder(g.out).Encode(r) }
		}
		err = errors.Join(err, show(g, r))
	}
	switch {
	case err != nil:
		return &exitError{exitNotDone, fmt.Errorf("the audit could not be done: %w", err)}
	case len(r.Findings) > 0:
		return &exitError{exitUnexplained, fmt.Errorf("%d findings are not explained", len(r.Findings))}
	}
	return nil
}

func (a auditCmd) audit(ctx context.Context, g *globals) (*audit.Report, error) {
	cfg, err := g.load()
	if err != nil {
		return nil, err
	}
	if err := withRoot(&cfg, a.Root); err != nil {
		return nil, err
	}
	o, err := a.options(&cfg)
	if err != nil {
		return nil, err
	}
	last := time.Now()
	o.Progress = func(what string) {
		if time.Since(last) >= time.Second {
			last = time.Now()
			fmt.Fprintln(g.err, "weir: audit:", what)
		}
	}
	s, err := store.Open(cfg.Archiver.Config)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var notes []string
	if a.Kafka && !cfg.NoKafka {
		k, err := ingest.NewKafka(cfg.Kafka)
		if err != nil {
			return nil, err
		}
		defer k.Close()
		o.Kafka = k
	} else if a.Kafka {
		notes = append(notes, "Kafka was not asked: kafka.brokers is not set")
	}
	if a.Elasticsearch && len(cfg.Indexer.Addresses) > 0 {
		es, err := search.New(cfg.Indexer, func(warning string) { fmt.Fprintln(g.err, "weir: warning:", warning) })
		if err != nil {
			return nil, err
		}
		defer es.Close()
		pattern, _ := search.Pattern("", "", "")
		o.Index = &audit.Elasticsearch{Search: es, Index: pattern}
	} else if a.Elasticsearch {
		notes = append(notes, "Elasticsearch was not asked: indexer.addresses is not set")
	}
	r, err := audit.Run(ctx, s, o)
	r.Notes = append(r.Notes, notes...)
	if len(o.Keys) == 0 {
		r.Notes = append(r.Notes, "signatures were not checked: no --public-key")
	}
	return r, err
}

var containerForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_.-]*$`)

func (a auditCmd) options(cfg *config.Config) (o audit.Options, err error) {
	o = audit.Options{Container: a.Container, Deep: a.Deep, BySource: a.By == "source", Group: "archiver", Indexer: "indexer",
		Topics: []string{schema.TopicLogs, schema.TopicEvents, schema.TopicSignals, schema.TopicActions}}
	if a.Container != "" && !containerForm.MatchString(a.Container) {
		return o, fmt.Errorf("--container %q is not the id of a container", a.Container)
	}
	o.Scope = archive.Scope{Topics: a.Topic}
	if o.Scope.Since, o.Scope.Until, err = span(a.Since, a.Until, time.Now()); err != nil {
		return o, err
	}
	if a.PublicKey != "" {
		if o.Keys, err = archive.ReadVerifyKeys(a.PublicKey); err != nil {
			return o, fmt.Errorf("--public-key: %w", err)
		}
	}
	return o, nil
}

// mostFindings is how many findings are shown; --json has all.
const mostFindings = 100

func (a auditCmd) table(g *globals, r *audit.Report) error {
	span := "everything"
	if !r.Since.IsZero() {
		span = "from " + r.Since.Format(time.RFC3339)
	}
	if !r.Until.IsZero() {
		span += " until " + r.Until.Format(time.RFC3339)
	}
	fmt.Fprintf(g.out, "%s: %d manifests, %d compaction records, %d expiry records, %d files of %d bytes\n\n", span, r.Manifests, r.Records, r.Expiries, r.Files, r.Bytes)
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\tWRITTEN\tARCHIVED\tINDEXED\tLOST ON THE RECORD\tUNEXPLAINED\n", map[string]string{"app": "APP", "source": "SOURCE"}[a.By])
	for _, v := range append(r.Verdicts, r.Total) {
		lost := strconv.FormatInt(v.Lost, 10)
		if v.LostUnknown > 0 {
			lost += fmt.Sprintf(", and %d times it is not known how many", v.LostUnknown)
		}
		if v.Refused > 0 {
			lost += fmt.Sprintf(", and %d refused by Elasticsearch", v.Refused)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\n", cmp.Or(cell(v.Name), "-"), asked(v.Written), v.Archived, asked(v.Indexed), lost, v.Unexplained)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i, f := range r.Findings {
		if i == 0 {
			fmt.Fprintln(g.out)
		}
		if i == mostFindings {
			fmt.Fprintf(g.out, "and %d more; --json has all\n", len(r.Findings)-i)
			break
		}
		fmt.Fprintf(g.out, "%s: %s\n", f.Kind, cell(f.Where))
		if f.Source != "" {
			fmt.Fprintf(g.out, "  source: %s\n", cell(f.Source))
		}
		fmt.Fprintf(g.out, "  %s\n  what to do: %s\n", cell(f.What), cell(f.Do))
	}
	if x := r.Expired; x.Files > 0 {
		fmt.Fprintf(g.out, "\nexpired on the record: %d records in %d files of %d bytes\n", x.Rows, x.Files, x.Bytes)
		if x.There > 0 {
			fmt.Fprintf(g.out, "%d of the files are there still: `weir archive expire` goes on with them\n", x.There)
		}
	}
	for i, n := range r.Notes {
		if i == 0 {
			fmt.Fprintln(g.out)
		}
		fmt.Fprintln(g.out, "note:", cell(n))
	}
	return nil
}

func asked(n int64) string {
	if n == audit.NotAsked {
		return "not asked"
	}
	return strconv.FormatInt(n, 10)
}
