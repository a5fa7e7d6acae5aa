package control

import (
	"encoding/json"
	"time"

	"weir/ingest"
)

// Fleet is what the events told of the containers: how many of an app there are, and which are healthy. It is kept by container id
// and written by what changed; unlike State it need not be exact, and the next event mends it.
type Fleet struct {
	all     map[string]*Instance
	changed map[string]bool
}

// Instance is one container.
type Instance struct {
	App  string `json:"app"`
	Node string `json:"node"`
	Up   bool   `json:"up"`
	Sick bool   `json:"sick,omitempty"`
	At   int64  `json:"at"`
}

// maxFleet bounds the memory; forgetDown is how long one is remembered that is down.
const (
	maxFleet   = 200_000
	forgetDown = 24 * time.Hour
)

func newFleet() *Fleet { return &Fleet{all: map[string]*Instance{}, changed: map[string]bool{}} }

// note takes an event. One that is older than what is known changes nothing.
func (f *Fleet) note(c *change) {
	id := c.subject.Container
	if id == "" {
		return
	}
	was := f.all[id]
	if was != nil && c.at < was.At || was == nil && len(f.all) >= maxFleet {
		return
	}
	now := Instance{App: c.subject.App, Node: c.subject.Node, At: c.at}
	if was != nil {
		now.Up, now.Sick = was.Up, was.Sick
	}
	switch c.event {
	case "docker.container.start", "docker.container.unpause":
		now.Up, now.Sick = true, false
	case "docker.container.create", "docker.container.die", "docker.container.pause":
		now.Up = false
	case "docker.container.health_status":
		now.Up, now.Sick = true, c.detail == "unhealthy"
	case "docker.container.destroy":
		delete(f.all, id)
		f.changed[id] = true
		return
	default:
		return
	}
	f.all[id], f.changed[id] = &now, true
}

// prune forgets containers that are down for long.
func (f *Fleet) prune(now time.Time) {
	for id, i := range f.all {
		if !i.Up && now.UnixNano()-i.At > int64(forgetDown) {
			delete(f.all, id)
			f.changed[id] = true
		}
	}
}

// others counts the other containers of the subject's app, and those of them that are healthy.
func (f *Fleet) others(s *Subject) (all, healthy int) {
	for id, i := range f.all {
		if i.App == s.App && id != s.Container {
			all++
			if i.Up && !i.Sick {
				healthy++
			}
		}
	}
	return all, healthy
}

// fleetKey begins the keys of instances in the journal.
const fleetKey = "container/"

// take returns what changed since the last call as entries of the journal; a nil value removes.
func (f *Fleet) take() (entries []ingest.JournalEntry) {
	for id := range f.changed {
		var value []byte
		if i := f.all[id]; i != nil {
			value, _ = json.Marshal(i)
		}
		entries = append(entries, ingest.JournalEntry{Key: fleetKey + id, Value: value})
	}
	clear(f.changed)
	return entries
}

func (f *Fleet) load(id string, value []byte) error {
	if len(value) == 0 {
		delete(f.all, id)
		return nil
	}
	i := new(Instance)
	f.all[id] = i
	return json.Unmarshal(value, i)
}
