package lives

import (
	"fmt"
	"strconv"
	"time"

	"weir/processor/signal"
	"weir/schema"
)

const minute = int64(time.Minute)

// log takes the lines of a container.
func (t *Tracker) log(n *node, c *container, b *schema.Batch) {
	if c.Ended == 0 && !c.Removed {
		c.Running = true // its start was before all that is known
	}
	lastLine := -1
	for i := range b.Records {
		r := &b.Records[i]
		at := timeOf(r)
		n.heard(at)
		c.seen(at)
		switch r.EventName {
		case "":
		case schema.EventLoss: // what an app writes beyond its quota is noise too
			if why, _ := r.Attr(schema.AttrLossReason); why.Str == "quota" {
				records, _ := r.Attr(schema.AttrLossRecords)
				bytes, _ := r.Attr(schema.AttrLossBytes)
				t.write(c, at, max(records.Num, 0), max(bytes.Num, 0))
			}
			continue
		case schema.EventSourceClosed:
			if attr(b, schema.AttrContainerID) == c.ID {
				c.Removed, c.Running = true, false
			}
			continue
		default:
			continue
		}
		t.write(c, at, 1, int64(len(r.Body)))
		c.Lines++
		if c.First == 0 {
			c.First, c.Last = max(at, 1), at
		}
		if at >= c.Last {
			if c.Silent.Since == 0 { // a silence that was told is not what is usual
				c.Gap.add(at-max(c.Last, c.Started, c.Resumed), at)
			} else if at > c.Last {
				t.resolve(&c.Silent, at, c.signal(signal.SilentContainer, signal.Info, float64(at-c.Last)/1e9, "writes again", []string{b.ID(r)}))
			}
			c.Last, lastLine = at, i
		}
	}
	if lastLine >= 0 {
		c.Record = b.ID(&b.Records[lastLine])
	}
}

// write counts what is written in a minute.
func (t *Tracker) write(c *container, at, lines, bytes int64) {
	if c.Minute == 0 || t.still(c) {
		c.Minute = at / minute
	}
	t.minutes(c, at/minute)
	c.Written[0] += lines
	c.Written[1] += bytes
}

// still reports whether closing a minute would change nothing.
func (t *Tracker) still(c *container) bool {
	return c.Written == [2]int64{} && c.Busy == 0 && c.Calm >= t.cfg.Noisy.Minutes
}

// minutes closes the minutes before one. Lines that come late count in the open one.
func (t *Tracker) minutes(c *container, until int64) {
	for c.Minute > 0 && c.Minute < until && !t.still(c) {
		w := c.Written
		c.changed = true
		c.Written = [2]int64{}
		c.Minute++
		end := c.Minute * minute
		if w[0] >= t.cfg.Noisy.Lines || w[1] >= t.cfg.Noisy.Bytes {
			c.Busy++
		} else {
			c.Busy = 0
		}
		if 2*w[0] < t.cfg.Noisy.Lines && 2*w[1] < t.cfg.Noisy.Bytes {
			c.Calm = min(c.Calm+1, t.cfg.Noisy.Minutes)
		} else {
			c.Calm = 0
		}
		counts := [...]schema.Attr{schema.Int("weir.window.lines", w[0]), schema.Int("weir.window.bytes", w[1])}
		if c.Busy >= t.cfg.Noisy.Minutes && c.Noise.Since == 0 {
			t.fire(&c.Noise, end, c.signal(signal.NoisyContainer, signal.Warn, float64(w[0]), fmt.Sprintf("writes %d lines and %d bytes a minute, in %d minutes in a row as many as is too much", w[0], w[1], c.Busy), c.record(), counts[:]...))
		} else if c.Calm >= t.cfg.Noisy.Minutes && c.Noise.Since != 0 {
			t.resolve(&c.Noise, end, c.signal(signal.NoisyContainer, signal.Info, float64(w[0]), fmt.Sprintf("writes less again, %d lines a minute", w[0]), nil, counts[:]...))
		}
	}
}

func (c *container) record() []string {
	if c.Record == "" {
		return nil
	}
	return []string{c.Record}
}

// attempt takes the number of a pod's container's start, which its log's name has, and sees whether the starts follow too quickly.
// The log of an attempt may be in another partition, so numbers may be missing; the time counts over all that came between.
func (t *Tracker) attempt(c *container, b *schema.Batch, number string) {
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || len(b.Records) == 0 {
		return
	}
	if k := len(c.Attempts); k > 0 && n <= c.Attempts[k-1].N {
		return
	}
	at := timeOf(&b.Records[0])
	c.Restarts = n
	c.Attempts = append(last(c.Attempts, maxExits-1), attempt{n, at, b.ID(&b.Records[0])})
	c.Removed, c.Running = false, true
	newest := c.Attempts[len(c.Attempts)-1]
	each := int64(t.cfg.CrashLoop.Stable) + maxPause
	count := int64(0)
	for i := len(c.Attempts) - 2; i >= 0; i-- {
		a := c.Attempts[i]
		starts := min(newest.N-a.N, 1<<20)
		if newest.At-a.At > starts*each {
			break
		}
		count = starts
	}
	if count < int64(t.cfg.CrashLoop.Exits) {
		return
	}
	var apart []int64 // short runs, and so the pauses
	for i, a := range c.Attempts[1:] {
		if a.N == c.Attempts[i].N+1 {
			apart = append(apart, a.At-c.Attempts[i].At)
		} else {
			apart = nil
		}
	}
	t.fireCrash(c, at, signal.Error, count, fmt.Sprintf("was started %d times within %s, each time within %s of the start before", count, time.Duration(newest.At-c.Attempts[max(0, len(c.Attempts)-int(count)-1)].At).Round(time.Second), t.cfg.CrashLoop.Stable+time.Duration(maxPause)), apart, ids(c.Attempts, func(a attempt) string { return a.ID }))
}

// judge sees what follows from time alone.
func (t *Tracker) judge(c *container, now int64) {
	before := len(t.out)
	t.minutes(c, now/minute)
	t.judgeHealth(c, now)
	t.judgeCrash(c, now)
	t.judgeSilence(c, now)
	c.changed = c.changed || len(t.out) > before
}

func (t *Tracker) judgeCrash(c *container, now int64) {
	if c.Crash.Since == 0 {
		return
	}
	stable := int64(t.cfg.CrashLoop.Stable)
	ends, why := int64(0), ""
	switch {
	case len(c.Attempts) > 0:
		ends, why = c.Attempts[len(c.Attempts)-1].At+stable+maxPause, "was not started again for so long that the loop has ended"
	case c.Running && c.Started > 0:
		ends, why = c.Started+stable, fmt.Sprintf("has run for %s", t.cfg.CrashLoop.Stable)
	case c.Removed:
		ends, why = c.Ended+maxPause, "was removed"
	default:
		return
	}
	if now >= ends {
		c.Exits, c.Count = nil, 0
		t.resolve(&c.Crash, ends, c.signal(signal.CrashLoop, signal.Info, 0, why, nil))
	}
}

func (t *Tracker) judgeSilence(c *container, now int64) {
	if !c.Running || c.Paused || c.Removed {
		if c.Silent.Since != 0 {
			if !c.Running && c.Ended > c.Silent.Since {
				now = c.Ended
			}
			t.resolve(&c.Silent, now, c.signal(signal.SilentContainer, signal.Info, 0, "does not run any more", nil))
		}
		return
	}
	n := t.nodes[c.Node]
	if c.Silent.Since != 0 || n == nil || !n.Events || n.Quiet.Since != 0 || len(c.Attempts) > 0 || c.Lines < t.cfg.Silent.Lines || c.Last-c.First < int64(t.cfg.Silent.Age) {
		return
	}
	from := max(c.Last, c.Started, c.Resumed)
	wait := max(int64(t.cfg.Silent.After), int64(t.cfg.Silent.Gaps*float64(c.Gap.longest())))
	at, ok := t.due(&c.Silent, from+wait, now)
	if !ok || n.Seen-from < wait { // where nothing else of the node comes, it is not the container that is silent
		return
	}
	t.fire(&c.Silent, at, c.signal(signal.SilentContainer, signal.Warn, float64(at-c.Last)/1e9, fmt.Sprintf("runs, and has written nothing for %s; its longest pause of the last day was %s", time.Duration(at-c.Last).Round(time.Second), time.Duration(c.Gap.longest()).Round(time.Second)), c.record(), schema.Int(AttrLast, c.Last)))
}
