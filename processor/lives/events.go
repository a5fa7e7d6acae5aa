package lives

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"weir/processor/signal"
	"weir/schema"
)

const (
	// grace is how long after a kill an end counts as wanted.
	grace = int64(2 * time.Minute)
	// maxPause is longer than the pauses that a kubelet (5 min) or an engine (1 min) grows to.
	maxPause = int64(6 * time.Minute)
)

// event takes one event of an engine. Where another tracker judges, only facts are taken.
func (t *Tracker) event(n *node, b *schema.Batch, r *schema.Record, judge bool) {
	at := timeOf(r)
	n.heard(at)
	n.Events = true
	if r.EventName == schema.EventGapOpened {
		if judge {
			t.point(&n.Engine, at, n.signal(signal.EngineRestart, signal.Warn, 0, "its engine was restarted, or forgot events that nobody had read", []string{b.ID(r)}, schema.String(AttrEvidence, "events_forgotten")))
		}
		return
	}
	action, ok := strings.CutPrefix(r.EventName, "docker.container.")
	name := attr(b, schema.AttrContainerName)
	if !ok || name == "" || strings.HasPrefix(action, "exec_") {
		return
	}
	c := t.container("docker/"+n.name+"/"+name, n, b)
	c.seen(at)
	if judge { // what fell due before the event, as if time had been told to pass
		t.judgeHealth(c, at)
		t.judgeCrash(c, at)
	}
	switch action {
	case "create":
		c.Made, c.Removed = true, false
	case "start":
		t.started(n, c, b, r, at, judge)
	case "kill":
		c.Killed = at
	case "die":
		t.died(n, c, b, r, at, judge)
	case "oom":
		c.OOMRun = true
		if judge {
			t.oom(c, b, r, at)
		}
	case "health_status":
		if judge {
			t.health(c, b, r, at)
		}
	case "pause", "unpause":
		if c.Paused = action == "pause"; !c.Paused {
			c.Resumed = at
		}
	case "destroy":
		c.Removed, c.Running = true, false
		if c.Ended == 0 {
			c.Ended = at
		}
		if judge {
			t.end(c, at, "was removed")
		}
	case "rename":
		if a, ok := b.ResourceAttr(schema.LabelPrefix + "oldName"); ok {
			if old := t.containers["docker/"+n.name+"/"+strings.TrimPrefix(a.Str, "/")]; old != nil && old != c {
				c.Running, c.Started = old.Running, old.Started
				if old.Running, old.Removed, old.changed = false, true, true; judge {
					t.forget(old, at, "was renamed to "+text(name))
				}
			}
		}
	}
}

// started begins a run.
func (t *Tracker) started(n *node, c *container, b *schema.Batch, r *schema.Record, at int64, judge bool) {
	again := !c.Made && c.Ended > 0
	if c.Made && len(c.Exits) > 0 && c.Exits[len(c.Exits)-1].Code == 0 { // a job that is run again and again, not one that fails
		c.Exits, c.Count = nil, 0
	}
	c.Starts++
	if c.Starts > 1 || c.Ended > 0 {
		c.Restarts++
	}
	c.Running, c.Paused, c.Removed, c.Made, c.Started, c.Killed, c.OOMRun, c.IsReady = true, false, false, false, at, 0, false, false
	if judge && again && n.restarted(c.key, at) {
		t.point(&n.Engine, at, n.signal(signal.EngineRestart, signal.Error, float64(len(n.Downs)), fmt.Sprintf("its engine was restarted: %d containers ended within %s, and were started again", len(n.Downs), t.cfg.Engine.Within), []string{b.ID(r)}, schema.String(AttrEvidence, "containers")))
		n.Downs, n.Ups, n.Stopped = nil, 0, 0
	}
}

// died ends a run. One that was short, and not ended on purpose, is a crash.
func (t *Tracker) died(n *node, c *container, b *schema.Batch, r *schema.Record, at int64, judge bool) {
	run, pause := int64(-1), int64(0)
	if c.Started > 0 {
		run = at - c.Started
		if c.Ended > 0 {
			pause = max(c.Started-c.Ended, 0)
		}
	}
	if judge {
		n.down(c.key, at, t.running(c), t.cfg.Engine)
	}
	wanted := c.Killed > 0 && at-c.Killed <= grace
	c.Running, c.Paused, c.Started, c.Ended, c.Killed = false, false, 0, at, 0
	if !judge {
		return
	}
	number, _ := r.Attr(schema.AttrExitCode)
	c.ended(number.Num)
	if oom, _ := r.Attr(schema.AttrOOM); oom.Num != 0 && !c.OOMRun { // the event itself was missed
		t.oom(c, b, r, at)
	}
	c.OOMRun = false
	t.endHealth(c, at, "ended")
	switch {
	case wanted:
		c.Exits, c.Count = nil, 0
		t.resolve(&c.Crash, at, c.signal(signal.CrashLoop, signal.Info, 0, "was stopped on purpose", []string{b.ID(r)}))
		return
	case run >= int64(t.cfg.CrashLoop.Stable), pause > maxPause:
		c.Exits, c.Count = nil, 0
		t.resolve(&c.Crash, at, c.signal(signal.CrashLoop, signal.Info, 0, "ran long enough", []string{b.ID(r)}))
		if run >= int64(t.cfg.CrashLoop.Stable) {
			return
		}
	}
	if len(c.Exits) == 0 {
		pause = 0 // before the first crash there is none to be held back for
	}
	c.Exits = append(last(c.Exits, maxExits-1), exit{At: at, Pause: pause, Code: number.Num, ID: b.ID(r)})
	if c.Count++; c.Count >= int64(t.cfg.CrashLoop.Exits) {
		t.crashes(c, at)
	}
}

// crashes fires a crash loop of an engine's container.
func (t *Tracker) crashes(c *container, at int64) {
	severity := signal.Warn // a command that ends as it should, and is started again and again
	for _, e := range c.Exits {
		if e.Code != 0 {
			severity = signal.Error
		}
	}
	var pauses []int64
	for _, e := range c.Exits {
		if e.Pause > 0 {
			pauses = append(pauses, e.Pause)
		}
	}
	e := c.Exits[len(c.Exits)-1]
	says := fmt.Sprintf("ended %d times in a row within %s of its start, last with exit code %d", c.Count, t.cfg.CrashLoop.Stable, e.Code)
	t.fireCrash(c, at, severity, c.Count, says, pauses, ids(c.Exits, func(e exit) string { return e.ID }))
}

func (t *Tracker) fireCrash(c *container, at int64, severity int32, count int64, says string, pauses []int64, records []string) {
	more := []schema.Attr{schema.Int(AttrExits, count), schema.Bool(AttrBackOff, growing(pauses))}
	if growing(pauses) {
		says += "; it is held back ever longer"
	}
	if n := len(pauses); n > 0 {
		more = append(more, schema.Int(AttrPause, pauses[n-1]/int64(time.Millisecond)))
	}
	t.fire(&c.Crash, at, c.signal(signal.CrashLoop, severity, float64(count), says, records, more...))
}

// growing reports whether the last three pauses grow, by half in all at least, as a back-off's do that doubles, with what the engine itself takes.
func growing(pauses []int64) bool {
	n := len(pauses)
	return n >= 3 && pauses[n-1] > pauses[n-2] && pauses[n-2] > pauses[n-3] && 2*pauses[n-1] >= 3*pauses[n-3]
}

// ended counts an exit code.
func (c *container) ended(number int64) {
	x := code{Code: number}
	if i := slices.IndexFunc(c.Codes, func(x code) bool { return x.Code == number }); i >= 0 {
		x = c.Codes[i]
		c.Codes = slices.Delete(c.Codes, i, i+1)
	}
	x.Times++
	c.Codes = append([]code{x}, c.Codes[:min(len(c.Codes), maxCodes-1)]...)
}

// oom tells that the kernel killed a process of the container for want of memory. It may tell of several at once.
func (t *Tracker) oom(c *container, b *schema.Batch, r *schema.Record, at int64) {
	c.OOMRun = true
	c.OOMs++
	before := len(t.out)
	t.point(&c.OOM, at, c.signal(signal.OOM, signal.Error, float64(c.OOMs), "came to its memory limit, and a process of it was killed", []string{b.ID(r)}))
	if len(t.out) > before {
		c.OOMs = 0
	}
}

// health takes a change of the container's health.
func (t *Tracker) health(c *container, b *schema.Batch, r *schema.Record, at int64) {
	detail, _ := r.Attr("docker.action.detail")
	was := c.Health
	switch detail.Str {
	case "healthy":
		if c.Started > 0 && !c.IsReady {
			c.IsReady, c.Ready = true, max(at-c.Started, 0)
		}
		c.Health, c.Sick, c.SickID = healthy, 0, ""
		t.resolve(&c.Ill, at, c.signal(signal.Unhealthy, signal.Info, 0, "is healthy again", []string{b.ID(r)}))
	case "unhealthy":
		if c.Sick == 0 {
			c.Sick, c.SickID = max(at, 1), b.ID(r)
		}
		c.Health = unhealthy
	}
	if was != 0 && c.Health != was {
		c.Changes = append(last(c.Changes, maxChanges-1), change{at, b.ID(r)})
	}
	t.judgeHealth(c, at)
}

// judgeHealth sees whether the container flaps or is ill at a time.
func (t *Tracker) judgeHealth(c *container, at int64) {
	within := int64(t.cfg.Flapping.Within)
	var newest int64
	for _, x := range c.Changes {
		newest = x.At
	}
	for len(c.Changes) > 0 && at-c.Changes[0].At >= within {
		c.Changes, c.changed = c.Changes[1:], true
	}
	if n := len(c.Changes); n >= t.cfg.Flapping.Changes {
		if due, ok := t.due(&c.Flap, newest, at); ok {
			t.fire(&c.Flap, due, c.signal(signal.FlappingHealth, signal.Warn, float64(n), fmt.Sprintf("changed %d times between healthy and unhealthy within %s", n, t.cfg.Flapping.Within), ids(c.Changes, func(x change) string { return x.ID })))
		}
	} else if n == 0 && c.Flap.Since != 0 {
		t.resolve(&c.Flap, newest+within, c.signal(signal.FlappingHealth, signal.Info, 0, fmt.Sprintf("did not change its health for %s", t.cfg.Flapping.Within), nil))
	}
	if c.Sick > 0 {
		if due, ok := t.due(&c.Ill, c.Sick+int64(t.cfg.Unhealthy.For), at); ok {
			t.fire(&c.Ill, due, c.signal(signal.Unhealthy, signal.Error, float64(due-c.Sick)/1e9, fmt.Sprintf("has been unhealthy for %s", time.Duration(due-c.Sick)), []string{c.SickID}))
		}
	}
}

// endHealth: a container that does not run is not ill; its changes are kept, because a restart may be part of the flapping.
func (t *Tracker) endHealth(c *container, at int64, why string) {
	c.Sick, c.SickID = 0, ""
	t.resolve(&c.Ill, at, c.signal(signal.Unhealthy, signal.Info, 0, why, nil))
}

// end resolves what a container cannot be any more that is gone.
func (t *Tracker) end(c *container, at int64, why string) {
	t.endHealth(c, at, why)
	t.resolve(&c.Flap, at, c.signal(signal.FlappingHealth, signal.Info, 0, why, nil))
	c.Changes, c.Health = nil, 0
	t.resolve(&c.Silent, at, c.signal(signal.SilentContainer, signal.Info, 0, why, nil))
}

// running counts the containers of one's node that run, with the one that just ended.
func (t *Tracker) running(ended *container) (n int) {
	for _, c := range t.containers {
		if c.Node == ended.Node && (c.Running || c == ended) {
			n++
		}
	}
	return n
}
