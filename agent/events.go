package agent

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"

	"weir/ingest"
	"weir/schema"
)

// maxQueuedEvents bounds the memory of events that Kafka does not take yet: about 100 MB.
const maxQueuedEvents = 100_000

// eventQueue stands between the engine's stream, which must be drained at once, and the producer, which may be slow.
type eventQueue struct {
	a *Agent

	mu      sync.Mutex
	wake    chan struct{}
	queue   []events.Message
	closed  bool
	dropped int
	oom     map[string]bool // containers with an oom event since their start

	last   int64 // position of the last event taken; the sender's
	recent recently[eventKey]
	done   eventMark // what is acknowledged

	awaited eventKey // to be repeated after a reconnect; zero when it was, or none is
}

// eventKey tells an event from its repeats after a reconnect.
type eventKey struct {
	Time int64  `json:"time"` // Unix ns of the engine
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// keptKeys is more than the 256 events that an engine repeats.
const keptKeys = 300

// outOfOrder is how far back the stream is asked for again: engines emit neighbouring events out of order.
const outOfOrder = 5 * time.Second

func (q *eventQueue) init(a *Agent) {
	q.a, q.wake, q.oom = a, make(chan struct{}, 1), map[string]bool{}
	q.last, q.done = a.saved.Events.Last, a.saved.Events
	q.recent = newRecently(keptKeys, a.saved.Events.Recent...)
}

// follow keeps the event stream open and turns events into commands for the reading loop.
func (a *Agent) follow(ctx context.Context) {
	for try := 0; ctx.Err() == nil; try++ {
		// Subscribed first and listed second, nothing that happens between is missed.
		since := a.events.since()
		a.events.await()
		began := time.Now()
		listed := make(chan struct{})
		err := a.engine.follow(ctx, since, func() { go func() { defer close(listed); a.reconcile(ctx) }() }, func(m events.Message) { a.event(ctx, m) })
		<-listed
		if ctx.Err() != nil {
			return
		}
		a.m.reconnects.Inc()
		if time.Since(began) > time.Minute {
			try = 0
		}
		a.log.Warn("the engine's event stream ended; connecting again", "err", err, "remedy", "check that the engine runs and agent.docker_host is its socket")
		t := time.NewTimer(min(time.Second<<min(try, 4), 10*time.Second))
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
	}
}

// reconcile compares what the engine has with what is followed.
func (a *Agent) reconcile(ctx context.Context) {
	for try := 0; ctx.Err() == nil && try < 3; try++ {
		asOf := time.Now()
		all, err := a.engine.list(ctx)
		if err != nil {
			a.log.Warn("cannot list the containers", "err", err)
			time.Sleep(time.Second)
			continue
		}
		ids := map[string]bool{}
		for _, c := range all {
			ids[c.id] = true
			a.add(ctx, c, c.running)
		}
		a.command(ctx, command{prefix: a.dockerPrefix(), all: ids, asOf: asOf})
		return
	}
}

func (a *Agent) dockerPrefix() string { return "docker/" + a.cfg.Node + "/" }

func (a *Agent) add(ctx context.Context, c container, started bool) {
	a.command(ctx, command{prefix: a.dockerPrefix(), container: c, started: started})
}

func (a *Agent) command(ctx context.Context, c command) {
	select {
	case a.commands <- c:
	case <-ctx.Done():
	}
}

// event is called for each event of the engine, in order; it must be quick.
func (a *Agent) event(ctx context.Context, m events.Message) {
	if !a.events.put(m) || m.Type != events.ContainerEventType {
		return
	}
	id := m.Actor.ID
	// Without a checkpoint, what the engine remembers from before this process is not the agent's to account for.
	past := m.TimeNano < a.began.UnixNano()
	if !past || !a.fresh {
		switch m.Action {
		case events.ActionCreate:
			a.ran[id] = false
		case events.ActionStart:
			a.ran[id] = true
		}
	}
	if m.Action == events.ActionStart { // one that is known from its creation is opened without asking the engine first
		a.command(ctx, command{prefix: a.dockerPrefix(), container: container{id: id}, nudge: true})
	}
	switch m.Action {
	case events.ActionCreate, events.ActionStart, events.ActionRename:
		go func() { // inspect may take its time; the stream must not wait
			c, err := a.engine.inspect(ctx, id)
			if err == nil {
				a.add(ctx, c, m.Action == events.ActionStart)
			}
		}()
	case events.ActionDestroy:
		c := container{id: id, name: m.Actor.Attributes["name"], image: m.Actor.Attributes["image"], labels: map[string]string{}}
		for k, v := range m.Actor.Attributes {
			if k != "name" && k != "image" {
				c.labels[k] = v
			}
		}
		ran, known := a.ran[id]
		// One that was destroyed before this process, and whose beginning the engine no longer remembers, may have run.
		unknown := !known && past && !a.fresh
		a.command(ctx, command{prefix: a.dockerPrefix(), container: c, gone: true, started: ran || unknown, doubt: unknown || past && a.saved.lost})
		delete(a.ran, id)
	}
}

// since is the engine time from which events are wanted. It is that of the newest event even if an earlier one bears a
// later time, as after the engine's clock was set back. Without any, all that the engine remembers is wanted.
func (q *eventQueue) since() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	newest, _ := q.recent.last()
	return max(1, newest.Time-int64(outOfOrder))
}

// put takes an event, and reports whether it is a new one: after a reconnect the engine repeats some.
func (q *eventQueue) put(m events.Message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := keyOf(m)
	if key == q.awaited {
		q.awaited = eventKey{}
	}
	if !q.recent.add(key) { // the time alone does not tell
		return false
	}
	if q.awaited != (eventKey{}) {
		q.gap(m.TimeNano)
	}
	if len(q.queue) < maxQueuedEvents {
		q.queue = append(q.queue, m)
	} else {
		q.dropped++
		q.a.m.lost.WithLabelValues("event_queue_full").Inc()
	}
	q.signal()
	return true
}

// await expects that the engine repeats the last event after a reconnect. If it does not, it has forgotten it, and perhaps
// others that came after it: it remembers 256, and none over its own restart.
func (q *eventQueue) await() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.awaited, _ = q.recent.last()
}

// gap puts a record of it before the event that shows it. The caller has the lock.
func (q *eventQueue) gap(until int64) {
	q.a.m.eventGaps.Inc()
	q.a.log.Warn("the engine has forgotten events that were not read; the containers are listed anew", "from", time.Unix(0, q.awaited.Time), "to", time.Unix(0, until))
	q.queue = append(q.queue, events.Message{Type: gapType, TimeNano: until, Actor: events.Actor{Attributes: map[string]string{"from": strconv.FormatInt(q.awaited.Time, 10), "to": strconv.FormatInt(until, 10)}}})
	q.awaited = eventKey{}
}

// gapType marks an entry of the queue that is no event of the engine.
const gapType = events.Type("weir.gap")

func (q *eventQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *eventQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

// send gives events to the producer until the queue is closed and empty, or ctx ends.
func (q *eventQueue) send(ctx context.Context) {
	for {
		q.mu.Lock()
		batch, closed, dropped := q.queue, q.closed, q.dropped
		q.queue, q.dropped = nil, 0
		q.mu.Unlock()
		for _, m := range batch {
			if err := q.sendOne(ctx, m); err != nil {
				return
			}
		}
		if dropped > 0 {
			r := schema.Record{EventName: schema.EventLoss, Body: fmt.Sprintf("%d engine events did not fit into memory while Kafka was away", dropped), Severity: schema.SeverityError, SeverityText: "ERROR",
				Attrs: []schema.Attr{schema.String(schema.AttrLossReason, "event_queue_full"), schema.Int("weir.loss.events", int64(dropped))}}
			if err := q.emit(ctx, q.last+1, eventKey{}, nil, r); err != nil {
				return
			}
		}
		if closed && len(batch) == 0 {
			return
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		}
	}
}

func (q *eventQueue) sendOne(ctx context.Context, m events.Message) error {
	resource, r := q.record(m)
	key := keyOf(m)
	if m.Type == gapType {
		key = eventKey{} // the engine will not repeat it
	}
	return q.emit(ctx, max(m.TimeNano, q.last+1), key, resource, r)
}

func keyOf(m events.Message) eventKey {
	return eventKey{m.TimeNano, string(m.Type) + "/" + string(m.Action), m.Actor.ID}
}

// acknowledge remembers for the checkpoint that Kafka has an event. Acknowledgements come in the order of sending.
func (q *eventQueue) acknowledge(at int64, key eventKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.done.Last = at
	if key != (eventKey{}) {
		q.done.Recent = append(q.done.Recent, key)
		q.done.Recent = q.done.Recent[max(0, len(q.done.Recent)-keptKeys):]
	}
}

// acknowledged returns what the checkpoint keeps.
func (q *eventQueue) acknowledged() eventMark {
	q.mu.Lock()
	defer q.mu.Unlock()
	return eventMark{q.done.Last, slices.Clone(q.done.Recent)}
}

func (q *eventQueue) emit(ctx context.Context, at int64, key eventKey, resource []schema.Attr, r schema.Record) error {
	source := "docker-events/" + q.a.cfg.Node
	r.Offset, r.Observed = at, time.Now().UnixNano()
	var e schema.Encoder
	e.Reset(source, schema.Incarnation{}, append(resource, schema.String(schema.AttrHostName, q.a.cfg.Node)))
	e.Append(&r)
	m := ingest.Message{Topic: schema.TopicEvents, Source: source, Begin: schema.Position{Offset: at}, End: schema.Position{Offset: at + 1}, Count: 1, Value: e.Bytes(), Acked: func() { q.acknowledge(at, key) }}
	if q.last > 0 {
		m.Prev, m.PrevKnown = schema.Position{Offset: q.last + 1}, true
	}
	q.last = at
	return q.a.out.Send(ctx, m)
}

// record turns an engine event into a record: docker.<type>.<action>, with what follows a colon in the action as an attribute.
func (q *eventQueue) record(m events.Message) (resource []schema.Attr, r schema.Record) {
	if m.Type == gapType {
		return nil, schema.Record{EventName: schema.EventGapOpened, Severity: schema.SeverityWarn, SeverityText: "WARN", Time: m.TimeNano, Body: "the engine has forgotten events that were not read",
			Attrs: []schema.Attr{schema.String("weir.gap.from", m.Actor.Attributes["from"]), schema.String("weir.gap.to", m.Actor.Attributes["to"])}}
	}
	action, detail, _ := strings.Cut(string(m.Action), ": ")
	r = schema.Record{Time: m.TimeNano, EventName: "docker." + string(m.Type) + "." + action, Severity: schema.SeverityInfo, SeverityText: "INFO"}
	name := m.Actor.Attributes["name"]
	r.Body = fmt.Sprintf("%s %s %s", m.Type, name, action)
	if detail != "" {
		r.Attrs = append(r.Attrs, schema.String("docker.action.detail", detail))
		r.Body += ": " + detail
	}
	if m.Type != events.ContainerEventType {
		return nil, schema.Record{Time: r.Time, EventName: r.EventName, Severity: r.Severity, SeverityText: r.SeverityText, Body: r.Body, Attrs: append(r.Attrs, schema.String(schema.AttrActorID, m.Actor.ID))}
	}
	switch m.Action {
	case events.ActionStart:
		delete(q.oom, m.Actor.ID)
	case events.ActionOOM:
		q.oom[m.Actor.ID] = true
		r.Severity, r.SeverityText = 17, "ERROR"
	case events.ActionDie:
		code, _ := strconv.ParseInt(m.Actor.Attributes["exitCode"], 10, 64)
		r.Attrs = append(r.Attrs, schema.Int(schema.AttrExitCode, code), schema.Bool(schema.AttrOOM, q.oom[m.Actor.ID]))
		r.Body = fmt.Sprintf("container %s died, exit code %d", name, code)
		if code != 0 {
			r.Severity, r.SeverityText = 17, "ERROR"
		}
	case events.ActionDestroy:
		delete(q.oom, m.Actor.ID)
	}
	labels := map[string]string{}
	resource = []schema.Attr{schema.String(schema.AttrContainerID, m.Actor.ID), schema.String(schema.AttrContainerName, name), schema.String(schema.AttrImageName, m.Actor.Attributes["image"])}
	for k, v := range m.Actor.Attributes {
		switch k {
		case "name", "image", "exitCode", "signal", "execID", "execDuration":
		default:
			labels[k] = v
			resource = append(resource, schema.String(schema.LabelPrefix+k, v))
		}
	}
	resource = append(resource, schema.String(schema.AttrApp, pick(q.a.cfg.AppLabels, labels, name)))
	return resource, r
}
