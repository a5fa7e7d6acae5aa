package processor

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/ingest"
	"weir/processor/patterns"
	"weir/processor/rules"
	"weir/processor/signal"
	"weir/processor/window"
	"weir/schema"
)

// counter is the first stage's work on one partition of weir.logs or weir.events.
type counter struct {
	p    *Processor
	j    *journal
	set  *rules.Set
	view rules.View

	plans   []*plan // of rules
	widths  []*width
	waiting int // groups that have something to be sent
	times   []int64
	units   containers
	signs   signs
	miner   *patterns.Miner // nil: none
	apps    *keyed          // the miner's state
	found   []signal.Signal
	parts   int // of weir.partials

	sources  window.Watermark
	told     int64 // second of the mark that was told last
	tick     time.Time
	caughtUp bool
	dirty    bool // something was counted since the last commit
}

// plan is a rule, and what was counted of it since the last commit.
type plan struct {
	rule   *rules.Rule
	fixed  bool // a batch is of one group
	labels bool // a group is a container: its signals carry labels
	key    []byte
	groups map[string]*tally
}

// width is the windows that share panes: a batch is counted once for all of them.
type width struct {
	slide int64
	plans []*plan
	panes []tallyPane
}

// tally is what was counted of one group since the last commit.
type tally struct {
	subject []schema.Attr
	records []string
	panes   []tallyPane
}

type tallyPane struct {
	start  int64
	counts []int64
	set    map[uint64]struct{}
	more   bool
}

// maxWaiting is how many groups wait for a commit at most; then one is made at once.
const maxWaiting = 50_000

// maxAhead is how far a record's time may be ahead.
const maxAhead = 10 * time.Minute

func (p *Processor) openCounter(ctx context.Context, tp ingest.TopicPartition) (*counter, error) {
	c := &counter{p: p}
	c.units.reset()
	var err error
	if c.parts, err = p.out.Partitions(ctx, schema.TopicPartials); err != nil {
		return nil, err
	}
	if err := c.mine(tp.Topic); err != nil {
		return nil, err
	}
	if c.j, err = p.openJournal(ctx, tp, (*counterState)(c)); err != nil {
		return nil, err
	}
	c.units.restored()
	if c.apps != nil {
		if err := c.apps.finish(); err != nil {
			return nil, err
		}
	}
	c.plan(p.rules.Load())
	return c, nil
}

// mine makes the miner of a partition of logs.
func (c *counter) mine(topic string) (err error) {
	if !c.p.cfg.Patterns.Enabled || topic != schema.TopicLogs {
		return nil
	}
	if c.miner, err = patterns.New(c.p.cfg.Patterns.Config); err == nil {
		c.apps = keyedPatterns(c.miner)
	}
	return err
}

// counterState is a counter as the journal sees it.
type counterState counter

func (c *counterState) changes(put func([]byte)) {
	c.units.changes(put)
	if c.apps != nil {
		c.apps.changes(put)
	}
}

func (c *counterState) snapshot(put func([]byte)) {
	c.units.snapshot(put)
	if c.apps != nil {
		c.apps.snapshot(put)
	}
}

func (c *counterState) reset() {
	c.units.reset()
	if c.apps != nil {
		c.apps.reset()
	}
}

func (c *counterState) restore(b []byte) error {
	if b[0] != entryPattern {
		return c.units.restore(b)
	}
	if c.apps == nil { // patterns were switched off
		return new(keyed).read(b)
	}
	return c.apps.read(b)
}

// plan takes rules up. What was counted for those of before goes out with the next commit.
func (c *counter) plan(set *rules.Set) {
	old := map[uint64]*plan{}
	for _, pl := range c.all() {
		old[pl.rule.ID] = pl
	}
	c.set, c.plans, c.widths = set, nil, nil
	for _, r := range set.Rules {
		pl := &plan{rule: r, fixed: true, groups: map[string]*tally{}}
		for i := range r.By {
			pl.fixed = pl.fixed && r.By[i].Resource
			pl.labels = pl.labels || r.By[i].Name == "container_id"
		}
		if was := old[r.ID]; was != nil {
			pl.groups = was.groups
		}
		delete(old, r.ID)
		c.add(pl)
	}
	for _, pl := range old {
		c.waiting -= len(pl.groups) // a rule that is gone is not counted any more
	}
}

func (c *counter) add(pl *plan) {
	if pl.rule.Kind != signal.Window {
		c.plans = append(c.plans, pl)
		return
	}
	at := slices.IndexFunc(c.widths, func(w *width) bool { return w.slide == int64(pl.rule.Slide) })
	if at < 0 {
		at = len(c.widths)
		c.widths = append(c.widths, &width{slide: int64(pl.rule.Slide)})
	}
	c.widths[at].plans = append(c.widths[at].plans, pl)
}

func (c *counter) all() []*plan {
	all := slices.Clone(c.plans)
	for _, w := range c.widths {
		all = append(all, w.plans...)
	}
	return all
}

// Write counts.
func (c *counter) Write(_ context.Context, b *schema.Batch) error {
	if c.j.passed(b.KafkaOffset) {
		return nil
	}
	if set := c.p.rules.Load(); set != c.set {
		c.plan(set)
	}
	c.count(b)
	c.dirty = true
	return nil
}

// count counts a batch for all windows and rules.
func (c *counter) count(b *schema.Batch) {
	now := c.p.now()
	c.view.SetBatch(b)
	logs, events := c.time(b, now)
	// Each record is counted for all windows before the next is followed: what an event means depends on those before it.
	for _, w := range c.widths {
		w.panes = w.panes[:0]
	}
	c.windows(b)
	if c.p.cfg.Lives.Enabled {
		switch {
		case strings.HasPrefix(b.Source, "docker-events/"):
			c.signs.events(b)
		case !strings.HasPrefix(b.Source, "weir/"):
			c.signs.log(b, c.times, now)
		}
	}
	if c.miner != nil && logs {
		c.found = c.miner.Write(b, c.found)
	}
	for _, pl := range c.plans {
		if pl.rule.Events && events || !pl.rule.Events && logs {
			c.rule(pl, b)
		}
	}
}

// time finds the records' times, and what kinds of records there are.
func (c *counter) time(b *schema.Batch, now time.Time) (logs, events bool) {
	c.times = c.times[:0]
	newest, limit := int64(0), now.Add(maxAhead).UnixNano()
	for i := range b.Records {
		r := &b.Records[i]
		at := r.Time
		if at == 0 {
			at = r.Observed
		}
		if at > limit {
			at = now.UnixNano()
			c.p.m.ahead.Inc()
		}
		newest = max(newest, at)
		c.times = append(c.times, at)
		if r.EventName == "" {
			logs = true
		} else {
			events = true
		}
	}
	c.sources.Observe(b.Source, newest, now)
	if n := len(b.Records); c.caughtUp && n > 0 {
		if node, ok := b.ResourceAttr(schema.AttrHostName); ok && b.Records[n-1].Observed > 0 {
			c.p.skew.observe(node.Str, b.Records[n-1].Observed, now, c.p.m.skew)
		}
	}
	return logs, events
}

// group finds or begins the tally of the view's group.
func (c *counter) group(pl *plan) *tally {
	pl.key = pl.key[:0]
	for i := range pl.rule.By {
		pl.key = window.AppendKey(pl.key, pl.rule.By[i].Get(&c.view))
	}
	t := pl.groups[string(pl.key)]
	if t == nil {
		t = &tally{subject: pl.subject(c.view.Batch)}
		pl.groups[string(pl.key)] = t
		c.waiting++
	}
	return t
}

// subject is what a group's signals say of it: what its fields determine. A batch shows one container of many that an app has.
func (pl *plan) subject(b *schema.Batch) []schema.Attr {
	if pl.labels {
		return window.Subject(b.Resource, true)
	}
	return nil
}

func (t *tally) pane(start int64, size int) *tallyPane {
	for i := len(t.panes) - 1; i >= 0; i-- {
		if t.panes[i].start == start {
			return &t.panes[i]
		}
	}
	t.panes = append(t.panes, tallyPane{start: start, counts: make([]int64, size)})
	return &t.panes[len(t.panes)-1]
}

func (p *tallyPane) tell(hash uint64, limit int) {
	if p.set == nil {
		p.set = map[uint64]struct{}{}
	}
	if _, known := p.set[hash]; !known {
		if len(p.set) >= limit {
			p.more = true
			return
		}
		p.set[hash] = struct{}{}
	}
}

// ruleCounts is how many counts a rule's pane has.
const ruleCounts = window.Total + 1

func (c *counter) rule(pl *plan, b *schema.Batch) {
	r := pl.rule
	counts, divides := r.Where.Batch(&c.view), r.Total != nil && r.Total.Batch(&c.view)
	if !counts && !divides {
		return
	}
	var t *tally
	var p *tallyPane
	slide := int64(r.Slide)
	for i := range b.Records {
		record := &b.Records[i]
		if (record.EventName != "") != r.Events {
			continue
		}
		c.view.SetRecord(record)
		is, of := counts && r.Where.Record(&c.view), divides && r.Total.Record(&c.view)
		if !is && !of {
			continue
		}
		if t == nil || !pl.fixed {
			t, p = c.group(pl), nil
		}
		if start := floor(c.times[i], slide); p == nil || p.start != start {
			p = t.pane(start, ruleCounts)
		}
		if of {
			p.counts[window.Total]++
		}
		if is {
			p.counts[window.Count]++
			p.counts[window.Bytes] += int64(len(record.Body))
			if r.Of != nil {
				p.tell(hash(r.Of.Get(&c.view)), c.p.cfg.MaxDistinct)
			}
			if len(t.records) < signal.MaxRecords {
				t.records = append(t.records, b.ID(record))
			}
		}
	}
}

// floor rounds down to a multiple.
func floor(t, step int64) int64 {
	if r := t % step; r < 0 {
		return t - r - step
	} else {
		return t - r
	}
}

// hash must be the same in every process: the sets of several partitions are joined.
func hash(s string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return h
}

// windows counts a batch once for all windows of one length, and adds it to their groups.
func (c *counter) windows(b *schema.Batch) {
	for i := range b.Records {
		r := &b.Records[i]
		for _, w := range c.widths {
			p := w.pane(floor(c.times[i], w.slide))
			if r.EventName != "" {
				c.units.count(b, r, c.times[i], p.counts)
				continue
			}
			p.counts[window.Count]++
			p.counts[window.Bytes] += int64(len(r.Body))
			p.counts[levelOf(r.Severity)]++
			if r.Severity >= signal.Error {
				p.tell(shape(r.Body), c.p.cfg.MaxDistinct)
			}
		}
		if r.EventName != "" {
			c.units.note(b, r, c.times[i])
		}
	}
	for _, w := range c.widths {
		for _, pl := range w.plans {
			if !pl.empty(&c.view) {
				c.group(pl).add(w.panes, c.p.cfg.MaxDistinct)
			}
		}
	}
}

// pane finds or begins the pane of the batch that is being counted; the newest is the likeliest.
func (w *width) pane(start int64) *tallyPane {
	if n := len(w.panes); n > 0 && w.panes[n-1].start == start {
		return &w.panes[n-1]
	}
	for i := range w.panes {
		if w.panes[i].start == start {
			return &w.panes[i]
		}
	}
	if n := len(w.panes); n < cap(w.panes) && w.panes[:n+1][n].counts != nil { // its memory of before
		w.panes = w.panes[:n+1]
		p := &w.panes[n]
		p.start, p.more = start, false
		clear(p.counts)
		clear(p.set)
		return p
	}
	w.panes = append(w.panes, tallyPane{start: start, counts: make([]int64, window.Counts)})
	return &w.panes[len(w.panes)-1]
}

func (t *tally) add(panes []tallyPane, limit int) {
	for i := range panes {
		into := t.pane(panes[i].start, window.Counts)
		for k, v := range panes[i].counts {
			into.counts[k] += v
		}
		for h := range panes[i].set {
			into.tell(h, limit)
		}
		into.more = into.more || panes[i].more
	}
}

// empty says that the batch has nothing of what the window is by.
func (pl *plan) empty(v *rules.View) bool {
	for i := range pl.rule.By {
		if pl.rule.By[i].Get(v) != "" {
			return false
		}
	}
	return len(pl.rule.By) > 0
}

func levelOf(severity int32) int {
	switch {
	case severity <= 0 || severity > 24:
		return window.NoLevel
	default:
		return window.Trace + int(severity-1)/4
	}
}

// shape is a hash of a body that is the same where only numbers differ.
func shape(body string) uint64 {
	const prime = 1099511628211
	h, digit := uint64(14695981039346656037), false
	for i := range min(len(body), 1024) {
		b := body[i]
		if b >= '0' && b <= '9' {
			if digit {
				continue
			}
			digit, b = true, '0'
		} else {
			digit = false
		}
		if b == '\n' {
			break // the trace below an error's first line has as many forms as there are places
		}
		h = (h ^ uint64(b)) * prime
	}
	return h
}

// Tick asks for a commit where a second of event time is over, so that the second stage learns of it, or much is waiting.
func (c *counter) Tick(_ context.Context, caughtUp bool) (bool, error) {
	c.caughtUp = caughtUp
	now := c.p.now()
	mark := c.sources.Follow(now, caughtUp, c.p.cfg.Idle, c.p.cfg.Hold)
	if c.waiting > maxWaiting {
		return true, nil
	}
	wait := c.p.cfg.Interval
	if !caughtUp {
		wait = time.Second
	}
	return mark/int64(time.Second) > c.told && now.Sub(c.tick) >= wait, nil
}

// partitionOf must be the same in every process.
func partitionOf(rule uint64, key string, n int) int { return int((hash(key) ^ rule) % uint64(n)) }

// Commit sends what was counted, with the mark that it reaches.
func (c *counter) Commit(ctx context.Context, cp ingest.Checkpoint) error {
	mark := c.sources.Mark()
	second := mark / int64(time.Second)
	if !c.dirty && second <= c.told {
		return nil
	}
	to := make([]partials, c.parts)
	for q := range to {
		to[q].told = c.told * int64(time.Second)
	}
	c.signs.take(c.p.now(), func(f forward) { to[partitionOf(0, f.node, c.parts)].add(partialBatches, f.value) })
	var entry []byte
	c.take(func(d *window.Delta) {
		entry = d.Append(entry[:0])
		to[partitionOf(d.Rule, d.Key, c.parts)].add(partialDeltas, entry)
	})
	for q := range to {
		bodies := to[q].close(mark, second > c.told)
		if len(bodies) == 0 {
			continue
		}
		o := c.j.outlet(schema.TopicPartials, "weir/partials/"+c.j.tp.String()+"/"+strconv.Itoa(q), true, q)
		for _, body := range bodies {
			c.j.emit(o, schema.Record{EventName: schema.EventPartial, Body: string(body), BodyBytes: true})
		}
	}
	if c.miner != nil {
		c.found = c.miner.Advance(mark, c.found)
	}
	c.j.tell(c.found)
	c.found = c.found[:0]
	if err := c.j.commit(ctx, cp.NextOffset); err != nil {
		return err
	}
	c.told, c.tick, c.dirty = max(c.told, second), c.p.now(), false
	return nil
}

// take gives what was counted since the last time.
func (c *counter) take(f func(*window.Delta)) {
	for _, pl := range c.all() {
		for key, t := range pl.groups {
			d := window.Delta{Rule: pl.rule.ID, Key: key, Subject: t.subject, Records: t.records}
			for _, d.Panes = range chunked(t.deltas()) {
				f(&d)
			}
		}
		clear(pl.groups)
	}
	c.waiting = 0
}

// chunked divides panes so that a delta stays small: a record on Kafka cannot be of any size.
func chunked(panes []window.Pane) iter.Seq2[int, []window.Pane] {
	return func(yield func(int, []window.Pane) bool) {
		for from := 0; from < len(panes); {
			to, size := from, 0
			for to < len(panes) && (to == from || size < 64<<10) {
				size += 8*len(panes[to].Set) + 2*window.Counts
				to++
			}
			if !yield(from, panes[from:to]) {
				return
			}
			from = to
		}
	}
}

// deltas are the panes as they are sent.
func (t *tally) deltas() []window.Pane {
	panes := make([]window.Pane, len(t.panes))
	for i := range t.panes {
		p := &t.panes[i]
		panes[i] = window.Pane{Start: p.start, Counts: p.counts, More: p.more}
		for h := range p.set {
			panes[i].Set = append(panes[i].Set, h)
		}
		slices.Sort(panes[i].Set)
	}
	return panes
}

// Close drops what is not committed.
func (c *counter) Close() error { return nil }
