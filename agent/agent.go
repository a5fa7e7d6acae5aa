package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/agent/kube"
	"weir/agent/parse"
	"weir/agent/redact"
	"weir/ingest"
	"weir/schema"
)

// Agent owns three goroutines: one reads logs and decides all about sources, one follows the engine, and one sends
// the engine's events, so that a slow Kafka never holds back their reading. Each container that is read through the engine
// has one more. The checkpoint is written by the first.
type Agent struct {
	cfg    Config
	engine engine
	kube   *kube.Client // nil: the Kubernetes API is not asked
	out    sender
	log    *slog.Logger
	m      metrics

	commands chan command
	sources  map[string]*source // by name; changed by the reading goroutine, under mu
	ring     []*source          // the same, in the order of their turns
	at       int                // of ring: whose turn is first
	held     int64              // bytes of unfinished records and open batches of all sources
	mu       sync.Mutex
	blocked  atomic.Bool           // reading waits for Kafka
	givenUp  atomic.Int64          // files, to free the disk
	diskErr  atomic.Pointer[error] // of the last checkpoint
	saved    checkpoint
	forgot   bool // saved differs from the file although no source is dirty
	events   eventQueue

	began   time.Time
	fresh   bool              // there was no checkpoint
	ran     map[string]bool   // containers whose creation was seen: whether their start was; the event stream's goroutine's
	gone    recently[string]  // containers destroyed lately: an inspection that comes late does not bring them back
	foreign map[string]string // containers whose logs cannot be read: the driver

	watcher *watcher        // nil: there is none
	watched map[int]*source // by watch descriptor

	followers  chan *follower // to be started
	unfollowed chan struct{}  // closed when none is started any more
	ready      chan *source   // one whose follower has something to hand over

	buffers chan []byte // of batches that Kafka has

	buf   []byte // shared by all sources: one reads at a time
	text  []byte
	attrs []schema.Attr
	piece piece
	spare [][]byte // memory of bodies that were released

	fields   parse.Fields
	redactor *redact.Redactor
	looksFor string // kinds of secrets, as records say it
	redacted []byte
	counts   []int // by kind, of one body
	secrets  []prometheus.Counter
	joiners  map[string]joining // by app or label
	quotas   map[string]*quota  // by app

	plain   *format          // of plain files
	literal map[string]bool  // paths of plain files that the configuration names without wildcards
	refused recently[string] // told: plain files that are not text
}

type command struct {
	prefix    string // of the names of the sources that are spoken of
	container container
	gone      bool // destroyed
	started   bool
	nudge     bool            // it has been started: look at once, if it is known
	doubt     bool            // whether it was read is not known
	all       map[string]bool // set: the ids of all containers that the engine had at the time asOf
	asOf      time.Time
	files     []container // set with all: the plain files that are found
}

// New makes an agent that reads from the Docker engine. Stop the agent before the producer: it waits for acknowledgements.
func New(cfg Config, out *ingest.Producer, log *slog.Logger, reg prometheus.Registerer) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if cfg.DockerHost == NoDocker {
		return newAgent(cfg, nil, out, log, reg)
	}
	e, err := newDocker(cfg.DockerHost)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return newAgent(cfg, e, out, log, reg)
}

func newAgent(cfg Config, e engine, out sender, log *slog.Logger, reg prometheus.Registerer) (*Agent, error) {
	log = log.With("component", "agent")
	if err := os.MkdirAll(cfg.StateDir, 0o750); err != nil {
		return nil, fmt.Errorf("agent.state_dir: %w", err)
	}
	saved, err := loadCheckpoint(cfg.StateDir, log)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a := &Agent{cfg: cfg, engine: e, out: out, log: log, saved: saved, commands: make(chan command, 1024), sources: map[string]*source{}, buf: make([]byte, 256<<10), buffers: make(chan []byte, 12), watched: map[int]*source{},
		began: time.Now(), fresh: saved.Events.Last == 0 && len(saved.Sources) == 0 && !saved.lost, ran: map[string]bool{}, followers: make(chan *follower), unfollowed: make(chan struct{}), ready: make(chan *source), gone: newRecently[string](1024), foreign: map[string]string{}, quotas: map[string]*quota{}, m: newMetrics(reg),
		literal: literals(cfg.Files), refused: newRecently[string](1024)}
	a.m.heldFilesLimit.Set(float64(cfg.DiskBytes))
	a.plain = a.plainFormat()
	reg.MustRegister(lagCollector{a})
	a.events.init(a)
	if cfg.PodsDir != "" {
		if cfg.Kubernetes.Node == "" {
			cfg.Kubernetes.Node = cfg.Node
		}
		a.kube = kube.New(cfg.Kubernetes, os.Getenv, log, reg)
	}
	if err := a.prepare(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return a, nil
}

// Run works until ctx ends; then it sends what it read, waits at most stop_timeout for acknowledgements, and saves the checkpoint.
func (a *Agent) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	// Sending outlives ctx by the stop timeout, so that what was read is acknowledged.
	sending, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	for name, s := range a.saved.Sources {
		a.resume(name, s)
	}
	if a.engine != nil {
		wg.Go(func() { a.follow(ctx) })
		wg.Go(func() { a.followLogs(ctx) })
	}
	if a.cfg.PodsDir != "" {
		wg.Go(func() { a.pods(ctx) })
		if a.kube != nil {
			wg.Go(func() { a.kube.Run(ctx) })
		}
	}
	if known := a.savedFiles(); len(a.cfg.Files)+len(known) > 0 {
		wg.Go(func() { a.files(ctx, known) })
	}
	wg.Go(func() { a.events.send(sending) })
	wg.Go(func() { a.serveStatus(ctx) })
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(a.cfg.StopTimeout, stopSending) })
	defer stop()

	a.read(ctx, sending)

	a.events.close()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.StopTimeout)
	defer cancel()
	now := time.Now()
	err := a.sealAll(last, now, true, &now)
	err = errors.Join(err, a.out.Flush(last))
	err = errors.Join(err, a.checkpoint())
	stopSending()
	wg.Wait()
	for _, s := range a.sources {
		if s.file != nil {
			s.file.Close()
		}
		closeAll(s.ahead)
	}
	return err
}

// sealAll sends the batches that are due, or all, forgets the sources that are done, and moves wake to when the next
// batch is due.
func (a *Agent) sealAll(ctx context.Context, now time.Time, force bool, wake *time.Time) error {
	room := true // until there is none
	for _, s := range a.ring {
		if due := s.due(); !due.IsZero() && (force || !now.Before(due)) {
			if room = force || room && a.out.Room(schema.TopicLogs, turnRoom); room {
				if err := s.sealIfDue(ctx, now, force); err != nil {
					return err
				}
			}
		} else if !due.IsZero() {
			*wake = earlier(*wake, due)
		}
	}
	for _, s := range a.ring {
		s.mu.Lock()
		done := s.done
		s.mu.Unlock()
		if done {
			a.forget(s)
		}
	}
	a.ring = slices.DeleteFunc(a.ring, func(s *source) bool { return a.sources[s.name] != s })
	return nil
}

// forget drops a source of which everything is acknowledged.
func (a *Agent) forget(s *source) {
	a.mu.Lock()
	delete(a.sources, s.name)
	a.mu.Unlock()
	delete(a.saved.Sources, s.name)
	a.forgot = true
	a.m.sources.Dec()
	a.held -= s.counted
	a.leave(s)
}

// leave forgets the quota of a source's app, if no other source has it.
func (a *Agent) leave(s *source) {
	if s.quota != nil && !slices.ContainsFunc(a.ring, func(o *source) bool { return o != s && o.app == s.app }) {
		delete(a.quotas, s.app)
	}
}

// buffer returns memory for a batch of the full size.
func (a *Agent) buffer() []byte {
	select {
	case b := <-a.buffers:
		return b[:0]
	default:
		return make([]byte, 0, a.cfg.BatchBytes+a.cfg.BatchBytes/8)
	}
}

// reuse takes back what buffer gave, or what is as large. Called from the producer's goroutines.
func (a *Agent) reuse(b []byte) {
	if cap(b) < a.cfg.BatchBytes || cap(b) > 2*a.cfg.BatchBytes {
		return
	}
	select {
	case a.buffers <- b:
	default:
	}
}

// resume takes up a source of the checkpoint; the engine may no longer know its container.
func (a *Agent) resume(name string, s saved) {
	src := &source{path: s.Path, acked: s.mark, started: s.Started, joins: s.Joins}
	if s.mark.At != (schema.Position{}) { // else nothing of it was acknowledged, and it is read from its start
		src.resumeAt = &s.mark
	}
	for k, v := range s.Tags {
		src.resource = append(src.resource, schema.String(k, v))
	}
	slices.SortFunc(src.resource, func(a, b schema.Attr) int { return strings.Compare(a.Key, b.Key) })
	if a.kube != nil && formatOf(name) == criFile && src.resumeAt == nil && s.Joins == "" { // nothing of it was read yet
		src.waitTo = time.Now().Add(a.cfg.Kubernetes.Wait)
	}
	a.enlist(name, src)
}

// enlist adds a source that has its path and its resource.
func (a *Agent) enlist(name string, s *source) {
	s.a, s.name, s.kind, s.ends, s.since = a, name, formatOf(name), map[schema.Incarnation]int64{}, time.Now()
	if strings.HasPrefix(name, filePrefix) {
		s.kind, s.plain = a.plain, &plainFile{}
	}
	a.configure(s)
	a.mu.Lock()
	a.sources[name] = s
	a.mu.Unlock()
	a.ring = append(a.ring, s)
	a.m.sources.Inc()
}

// obey adds a container, or notes that one is gone.
func (a *Agent) obey(c command) {
	id := c.container.id
	s := a.sources[c.prefix+id]
	switch {
	case c.all != nil:
		a.found(c)
		for _, s := range a.sources {
			if id, ok := strings.CutPrefix(s.name, c.prefix); ok && s.added.Before(c.asOf) && !c.all[id] {
				s.removed, s.next = true, time.Time{}
			}
		}
	case c.gone:
		a.gone.add(id)
		if _, ok := a.foreign[id]; ok {
			delete(a.foreign, id)
			return
		}
		if s == nil && c.started {
			s = a.follows(c.prefix+id, c.container) // it came and went before it could be inspected: what it wrote is lost
			s.run(true)
			s.doubt = c.doubt
		}
		if s != nil {
			s.removed, s.next = true, time.Time{}
		}
	case c.nudge:
		if s != nil {
			s.run(true)
			s.engine.nudge()
			s.idle, s.next = 0, time.Time{}
		}
	case a.gone.has(id): // inspected just before it was destroyed
	case a.foreign[id] != "":
	case s == nil && readsFiles(c.container.driver) && c.container.path == "": // created and not started: the engine has named no log yet
	case s == nil && !readsFiles(c.container.driver) && !c.container.ran && !c.started:
	default:
		if s == nil {
			s = a.follows(c.prefix+id, c.container)
		} else {
			a.renew(s, c.container)
		}
		s.run(c.started || !readsFiles(c.container.driver))
		if !readsFiles(c.container.driver) {
			s.readThroughEngine(c.container)
		}
		s.next = time.Time{}
	}
}

// run notes that the container ran. The checkpoint says so too, so that a log of which nothing was acknowledged yet is not
// forgotten by a crash.
func (s *source) run(started bool) {
	if started && !s.started {
		s.started = true
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
}

// follows adds the source of a container that the engine or the kubelet has.
func (a *Agent) follows(name string, c container) *source {
	s := &source{path: c.path, added: time.Now(), resource: a.resource(c)}
	if c.wait {
		s.waitTo = s.added.Add(a.cfg.Kubernetes.Wait)
	}
	a.enlist(name, s)
	return s
}

// renew gives a source what is known of its container by now. The batch that is being built has its resource already; the next
// one gets this.
func (a *Agent) renew(s *source, c container) {
	if c.unknown && len(s.resource) > 0 { // the checkpoint may know more
		return
	}
	had := s.resource
	s.resource = a.resource(c)
	for _, key := range [...]string{schema.AttrContainerID, schema.AttrImageName} { // the API forgets those of containers that were started anew
		has := func(attr schema.Attr) bool { return attr.Key == key }
		if i := slices.IndexFunc(had, has); i >= 0 && !slices.ContainsFunc(s.resource, has) {
			s.resource = append(s.resource, had[i])
		}
	}
	slices.SortFunc(s.resource, func(a, b schema.Attr) int { return strings.Compare(a.Key, b.Key) })
	if s.lines == 0 && !s.waitTo.IsZero() { // nothing of it was read, so how its lines are joined may still change
		s.joins = ""
	}
	if app := schema.String(schema.AttrApp, s.app); !slices.Contains(s.resource, app) {
		a.leave(s)
	}
	a.configure(s)
	if !c.wait {
		s.waitTo = time.Time{}
	}
	s.mu.Lock()
	s.dirty = s.dirty || s.started
	s.mu.Unlock()
}

// resource are the attributes that all records of a container share.
func (a *Agent) resource(c container) []schema.Attr {
	attrs := append([]schema.Attr(nil), c.pod...)
	if len(c.pod) == 0 && c.driver != fileDriver {
		attrs = append(attrs, schema.String(schema.AttrContainerID, c.id), schema.String(schema.AttrImageName, c.image))
	}
	if c.driver != fileDriver {
		attrs = append(attrs, schema.String(schema.AttrContainerName, c.name))
	}
	attrs = append(attrs, schema.String(schema.AttrHostName, a.cfg.Node), schema.String(schema.AttrApp, cmp.Or(c.app, pick(a.cfg.AppLabels, c.labels, c.name))))
	for _, f := range [][2]string{{schema.AttrFilePath, c.path}, {schema.AttrTenant, pick(a.cfg.TenantLabels, c.labels, "")}, {schema.AttrSite, a.cfg.Site}, {schema.AttrCell, a.cfg.Cell}} {
		if f[1] != "" {
			attrs = append(attrs, schema.String(f[0], f[1]))
		}
	}
	if a.looksFor != "" {
		attrs = append(attrs, schema.String(schema.AttrRedaction, a.looksFor))
	}
	for k, v := range c.labels {
		attrs = append(attrs, schema.String(schema.LabelPrefix+k, v))
	}
	slices.SortFunc(attrs, func(a, b schema.Attr) int { return strings.Compare(a.Key, b.Key) })
	return attrs
}

func pick(keys []string, labels map[string]string, otherwise string) string {
	for _, k := range keys {
		if v := labels[k]; v != "" {
			return v
		}
	}
	return otherwise
}

// DiskReady returns why the last checkpoint could not be written, or nil.
func (a *Agent) DiskReady(context.Context) error {
	if err := a.diskErr.Load(); err != nil {
		return *err
	}
	return nil
}

// checkpoint writes what is acknowledged, when that changed.
func (a *Agent) checkpoint() error {
	changed, unread := a.forgot, int64(0)
	for name, s := range a.sources {
		s.mu.Lock()
		unread += s.shown.unread()
		if s.dirty {
			tags := map[string]string{}
			for _, t := range s.resource {
				tags[t.Key] = t.Str
			}
			a.saved.Sources[name] = saved{mark: s.acked, Path: s.path, Started: s.started, Tags: tags, Joins: s.joinsOnceRead()}
			s.dirty, changed = false, true
		}
		s.mu.Unlock()
	}
	a.m.lag.Set(float64(unread))
	a.m.held.Set(float64(a.held))
	if events := a.events.acknowledged(); events.Last != a.saved.Events.Last {
		a.saved.Events, changed = events, true
	}
	if !changed {
		return nil
	}
	if err := a.saved.save(a.cfg.StateDir); err != nil {
		a.forgot = true // so that the next second tries again
		a.diskErr.Store(&err)
		return err
	}
	a.forgot = false
	a.diskErr.Store(nil)
	return nil
}
