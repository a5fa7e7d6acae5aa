package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"weir/archiver/archive"
	"weir/archiver/read"
	"weir/processor"
	"weir/processor/rules"
	"weir/processor/signal"
	"weir/schema"
)

type rulesReplayCmd struct {
	Files   []string `arg:"" optional:"" help:"Rule files, or folders of them; without any those of processor.rules."`
	Archive string   `help:"The archive: hdfs://namenode:8020/path or file:///path." placeholder:"ROOT" required:""`
	From    string   `help:"From when: how long ago (90m, 2d), or a time." required:""`
	To      string   `help:"Until when, as --from; now without it." placeholder:"TIME"`
	App     string   `help:"Only the records of this app."`
	JSON    bool     `name:"json" help:"A JSON object a signal."`
}

// Run runs rules over recorded days as fast as they can be read, and says what they would have said.
func (c rulesReplayCmd) Run(ctx context.Context, g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if len(c.Files) == 0 {
		c.Files = cfg.Processor.Rules
	}
	loaded, err := loadRules(c.Files)
	if err != nil {
		return err
	}
	set, err := rules.NewSet(loaded)
	if err != nil {
		return err
	}
	now := time.Now()
	from, to, err := fromTo(c.From, c.To, now)
	if err != nil {
		return err
	}
	if !from.Before(to) {
		return errors.New("--from: is not before --to")
	}
	query, err := archiveQuery("", c.App, "", from, to, now)
	if err != nil {
		return err
	}
	query.Topics = []string{schema.TopicLogs, schema.TopicEvents}
	st, err := openArchive(cfg.Archiver.Config, c.Archive)
	if err != nil {
		return err
	}
	defer st.Close()
	cfg.Processor.Patterns.Enabled, cfg.Processor.Lives.Enabled = false, false // rules alone
	sim, err := processor.NewSimulation(cfg.Processor, set)
	if err != nil {
		return err
	}
	told := &reading{out: g.err, terminal: isTerminal(g.err), before: func() error { return nil }}
	p := rulesReplay{c: c, g: g, sim: sim, told: told, fired: map[string]int{}}
	err = p.run(ctx, read.New(st), query)
	told.end()
	if err != nil {
		return err
	}
	if !c.JSON {
		for _, r := range loaded {
			fmt.Fprintf(g.out, "%6d times  %s\n", p.fired[r.Name], r.Name)
		}
	}
	return nil
}

func loadRules(patterns []string) ([]*rules.Rule, error) {
	if len(patterns) == 0 {
		return nil, errors.New("no rule files: name some, or set processor.rules")
	}
	files, err := rules.Files(patterns)
	if err != nil {
		return nil, err
	}
	return rules.Load(files)
}

type rulesReplay struct {
	c     rulesReplayCmd
	g     *globals
	sim   *processor.Simulation
	told  *reading
	fired map[string]int // by rule
}

// run gives the records to the rules second by second of event time: so windows end where they did.
func (p *rulesReplay) run(ctx context.Context, r *read.Reader, q read.Query) error {
	var hits []*read.Hit
	second := q.Since.Unix()
	flush := func() {
		for _, b := range read.Group(hits) {
			p.sim.Write(b)
		}
		hits = hits[:0]
	}
	for h, err := range r.Records(ctx, q, p.told.see) {
		if err != nil {
			return err
		}
		at := archive.EventTime(&h.Record) / int64(time.Second)
		if at > second || len(hits) >= 8192 {
			flush()
		}
		if at > second {
			if err := p.say(p.sim.Advance(at * int64(time.Second))); err != nil {
				return err
			}
			second = at
		}
		hits = append(hits, h)
	}
	flush()
	return p.say(p.sim.Advance(q.Until.UnixNano()))
}

func (p *rulesReplay) say(signals []signal.Signal) error {
	for i := range signals {
		s := &signals[i]
		if s.State != signal.Resolved && s.Revision == 0 {
			p.fired[s.Rule]++
		}
		p.told.clear()
		var err error
		if p.c.JSON {
			err = json.NewEncoder(p.g.out).Encode(map[string]any{"time": time.Unix(0, s.End).UTC(), "rule": s.Rule, "group": s.Group, "state": s.State, "value": s.Value, "revision": s.Revision, "summary": s.Body, "records": s.Records})
		} else {
			_, err = fmt.Fprintf(p.g.out, "%s  %-8s  %s  %s\n", time.Unix(0, s.End).UTC().Format("2006-01-02 15:04:05"), s.State, s.Rule, s.Body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
