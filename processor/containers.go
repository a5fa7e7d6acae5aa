package processor

import (
	"encoding/binary"

	"weir/internal/unpack"
	"weir/processor/window"
	"weir/schema"
)

// maxUnits bounds the containers whose starts are remembered in one partition.
const maxUnits = 100_000

// containers remembers of every container when it started and whether it has died before: time to ready and restarts need that.
type containers struct {
	by      map[string]unit
	changed map[string]bool
}

type unit struct {
	started int64 // Unix ns; 0: not running, or healthy since
	died    bool
}

const entryUnit = 'U'

func (c *containers) reset() { c.by, c.changed = map[string]unit{}, map[string]bool{} }

func (c *containers) restored() { clear(c.changed) }

func (c *containers) set(id string, u unit) {
	if u == c.by[id] {
		return
	}
	id = string(append([]byte(nil), id...))
	c.changed[id] = true
	if u == (unit{}) {
		delete(c.by, id)
	} else if _, known := c.by[id]; known || len(c.by) < maxUnits {
		c.by[id] = u
	}
}

// The events of a container's life.
const (
	eventStart   = "docker.container.start"
	eventDie     = "docker.container.die"
	eventOOM     = "docker.container.oom"
	eventHealth  = "docker.container.health_status"
	eventDestroy = "docker.container.destroy"
	attrDetail   = "docker.action.detail"
)

// count counts an event of a window. It changes nothing: a batch is counted once for every length of windows.
func (c *containers) count(b *schema.Batch, r *schema.Record, at int64, counts []int64) {
	switch r.EventName {
	case eventStart:
		counts[window.Starts]++
		if c.unit(b).died {
			counts[window.Restarts]++
		}
	case eventDie:
		counts[window.Exits]++
		code, _ := r.Attr(schema.AttrExitCode)
		counts[exitOf(code.Num)]++
	case eventOOM:
		counts[window.OOMKills]++
	case eventHealth:
		switch detail, _ := r.Attr(attrDetail); detail.Str {
		case "healthy":
			counts[window.Healthy]++
			if u := c.unit(b); u.started > 0 && at >= u.started {
				counts[window.Ready]++
				counts[window.ReadyNanos] += at - u.started
			}
		case "unhealthy":
			counts[window.Unhealthy]++
		}
	case schema.EventLoss:
		n := int64(1)
		if a, ok := r.Attr(schema.AttrLossRecords); ok && a.Num > 0 {
			n = a.Num
		}
		counts[window.Losses] += n
	}
}

func exitOf(code int64) int {
	switch code {
	case 0:
		return window.ExitZero
	case 1:
		return window.ExitOne
	case 2:
		return window.ExitTwo
	case 125, 126, 127:
		return window.ExitCannotRun
	case 134:
		return window.ExitAborted
	case 137:
		return window.ExitKilled
	case 139:
		return window.ExitSegfault
	case 143:
		return window.ExitTerm
	default:
		return window.ExitOther
	}
}

func (c *containers) unit(b *schema.Batch) unit {
	id, _ := b.ResourceAttr(schema.AttrContainerID)
	return c.by[id.Str]
}

// note follows an event.
func (c *containers) note(b *schema.Batch, r *schema.Record, at int64) {
	id, ok := b.ResourceAttr(schema.AttrContainerID)
	if !ok {
		return
	}
	u := c.by[id.Str]
	switch r.EventName {
	case eventStart:
		u.started = at
	case eventDie:
		u = unit{died: true}
	case eventHealth:
		if detail, _ := r.Attr(attrDetail); detail.Str == "healthy" {
			u.started = 0
		}
	case eventDestroy:
		u = unit{}
	default:
		return
	}
	c.set(id.Str, u)
}

func (c *containers) append(b []byte, id string) []byte {
	u := c.by[id]
	b = appendText(append(b, entryUnit), id)
	b = binary.AppendVarint(b, u.started)
	died := int64(0)
	if u.died {
		died = 1
	}
	return binary.AppendVarint(b, died)
}

func (c *containers) changes(put func([]byte)) {
	for id := range c.changed {
		put(c.append(nil, id))
	}
	clear(c.changed)
}

func (c *containers) snapshot(put func([]byte)) {
	for id := range c.by {
		put(c.append(nil, id))
	}
	clear(c.changed)
}

func (c *containers) restore(b []byte) error {
	if b[0] != entryUnit {
		return errDamaged
	}
	r := unpack.Reader{B: b[1:]}
	id, u := r.String(), unit{started: r.Varint(), died: r.Varint() != 0}
	if err := ended(&r); err != nil {
		return err
	}
	c.set(id, u)
	return nil
}
