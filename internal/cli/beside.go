package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weir/control/notify"
	"weir/internal/search"
	"weir/internal/status"
	"weir/schema"
)

// groups are the consumer groups that the status page shows, in the order of the data path, and what they read.
func (r *runtime) groups() []status.Group {
	const patience = time.Minute
	all := []status.Group{
		{Name: "indexer", Topics: []string{schema.TopicLogs, schema.TopicEvents, schema.TopicSignals, schema.TopicActions, schema.TopicDeadLetter}, Patience: patience},
		{Name: "archiver", Topics: []string{schema.TopicLogs, schema.TopicEvents, schema.TopicSignals, schema.TopicActions}, Patience: max(patience, 2*r.cfg.Consumer.ArchiveCommitInterval)},
		{Name: "processor", Topics: []string{schema.TopicLogs}, Patience: patience},
		{Name: "control", Topics: []string{schema.TopicEvents, schema.TopicSignals, schema.TopicActions}, Patience: patience},
	}
	if r.cfg.Control.Notify.Any() {
		all = append(all, status.Group{Name: notify.Group, Topics: []string{schema.TopicSignals}, Patience: patience})
	}
	return all
}

// besideControl is what runs where control does: the status page, where HTTP is served, and what tells others of signals, where any are named.
func (r *runtime) besideControl() (runs []func(context.Context) error, err error) {
	if r.cfg.HTTP.Listen != "" {
		if err := r.showStatus(); err != nil {
			return nil, err
		}
		runs = append(runs, r.page.Run)
	}
	if r.cfg.Control.Notify.Any() {
		n, err := notify.New(r.cfg.Control.Notify, r.kafka.Table(notify.Table), r.log, r.reg)
		if err != nil {
			return nil, err
		}
		read, err := r.consumer(r.cfg.Consumer.For(notify.Group, schema.TopicSignals), n)
		if err != nil {
			return nil, err
		}
		runs = append(runs, read, n.Run)
	}
	return runs, nil
}

func (r *runtime) showStatus() (err error) {
	d := status.Deps{Kafka: r.kafka, Metrics: r.reg, Groups: r.groups(), Version: version, Local: status.Loopback(r.cfg.HTTP.Listen), Log: r.log.With("component", "status")}
	if len(r.cfg.Indexer.Addresses) > 0 {
		d.Search = r.search
	}
	r.page, err = status.New(r.cfg.Status, d)
	return err
}

// search answers the page's search as `weir search` does.
func (r *runtime) search(ctx context.Context, kql, since string, limit int) (hits []status.Hit, notes []string, err error) {
	es, err := search.New(r.cfg.Indexer, func(warning string) { notes = append(notes, warning) })
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, es.Close()) }()
	q := &search.Query{KQL: kql, Limit: limit}
	if q.Index, err = search.Pattern("", "", ""); err != nil {
		return nil, nil, err
	}
	if q.Since, err = search.ParseTime(since, time.Now()); err != nil {
		return nil, nil, fmt.Errorf("since: %w", err)
	}
	if err := q.Validate(); err != nil {
		return nil, nil, err
	}
	if err := es.Check(ctx, q, nil); err != nil {
		return nil, nil, err
	}
	hits = []status.Hit{}
	err = es.Each(ctx, q, func(h *search.Hit) error {
		doc, err := h.Document()
		if err != nil {
			return err
		}
		l := doc.Line()
		hits = append(hits, status.Hit{ID: h.ID, Time: doc.Text("@timestamp"), Level: l.Level, What: l.What, Body: l.Body})
		return nil
	})
	if err == nil && es.Complete() != nil {
		notes = append(notes, es.Complete().Error())
	}
	return hits, notes, err
}
