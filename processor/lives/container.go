package lives

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"weir/processor/signal"
	"weir/schema"
)

// Bounds of what is kept of one container.
const (
	maxExits   = 20 // short runs in a row
	maxChanges = 20 // of health
	maxCodes   = 8  // different exit codes
	maxSubject = 48 // attributes
	maxText    = 512
)

// container is what is known of one. The fields that have names of JSON are its state.
type container struct {
	key     string
	changed bool

	Node    string `json:"node"`
	ID      string `json:"id,omitempty"`
	Subject []pair `json:"subject,omitempty"`
	Told    int    `json:"told,omitempty"` // attributes of the batch that Subject is from
	Used    uint64 `json:"used"`           // the tracker's number of writes when it was heard of last
	Seen    int64  `json:"seen"`           // highest time of what was heard of it

	Running  bool   `json:"running,omitempty"`
	Paused   bool   `json:"paused,omitempty"`
	Started  int64  `json:"started,omitempty"` // of the run, 0 where it is not known
	Ended    int64  `json:"ended,omitempty"`   // of the run before, or of the last one
	Killed   int64  `json:"killed,omitempty"`  // when the engine was last asked to
	Made     bool   `json:"made,omitempty"`    // made anew since it ended
	Removed  bool   `json:"removed,omitempty"`
	Starts   int64  `json:"starts,omitempty"`
	Restarts int64  `json:"restarts,omitempty"`
	Ready    int64  `json:"ready,omitempty"`    // ns
	IsReady  bool   `json:"is_ready,omitempty"` // in this run
	Resumed  int64  `json:"resumed,omitempty"`  // after a pause
	Health   health `json:"health,omitempty"`   // what the engine said last, also in a run before
	Sick     int64  `json:"sick,omitempty"`     // unhealthy since, in this run
	SickID   string `json:"sick_id,omitempty"`

	Exits    []exit    `json:"exits,omitempty"` // short runs in a row
	Count    int64     `json:"count,omitempty"` // of them, also those that are not in Exits
	Codes    []code    `json:"codes,omitempty"`
	Attempts []attempt `json:"attempts,omitempty"` // of a pod's container
	Changes  []change  `json:"changes,omitempty"`  // of health
	OOMs     int64     `json:"ooms,omitempty"`     // since the last signal
	OOMRun   bool      `json:"oom_run,omitempty"`  // one in this run was counted

	First   int64    `json:"first,omitempty"` // line
	Last    int64    `json:"last,omitempty"`
	Lines   uint64   `json:"lines,omitempty"`
	Gap     gaps     `json:"gap,omitzero"`
	Record  string   `json:"record,omitempty"` // id of the last line
	Minute  int64    `json:"minute,omitempty"` // number of the open one
	Written [2]int64 `json:"written,omitzero"` // lines and bytes in it
	Busy    int      `json:"busy,omitempty"`   // minutes in a row
	Calm    int      `json:"calm,omitempty"`

	Crash  state `json:"crash,omitzero"`
	Flap   state `json:"flap,omitzero"`
	Ill    state `json:"ill,omitzero"`
	OOM    state `json:"oom,omitzero"`
	Silent state `json:"silent,omitzero"`
	Noise  state `json:"noise,omitzero"`
}

// pair is an attribute: key and value.
type pair [2]string

type health int8

const (
	healthy   health = 1
	unhealthy health = 2
)

// exit is the end of a short run.
type exit struct {
	At    int64  `json:"at"`
	Pause int64  `json:"pause,omitempty"` // before its start, 0 where it is not known
	Code  int64  `json:"code,omitempty"`
	ID    string `json:"id"`
}

type code struct {
	Code  int64 `json:"code"`
	Times int64 `json:"times"`
}

// attempt is a start of a pod's container, at the time of the first line of it that was seen.
type attempt struct {
	N  int64  `json:"n"`
	At int64  `json:"at"`
	ID string `json:"id"`
}

type change struct {
	At int64  `json:"at"`
	ID string `json:"id"`
}

// gaps are the longest pauses in the last day, in four parts of it.
type gaps struct {
	Part    int64    `json:"part"`
	Longest [4]int64 `json:"longest"`
}

const gapPart = int64(6 * time.Hour)

// add counts a pause that ends at a time.
func (g *gaps) add(pause, at int64) {
	for part := at / gapPart; g.Part < part; g.Part++ {
		if part-g.Part >= int64(len(g.Longest)) {
			g.Part, g.Longest = part, [4]int64{}
			break
		}
		copy(g.Longest[1:], g.Longest[:])
		g.Longest[0] = 0
	}
	g.Longest[0] = max(g.Longest[0], pause)
}

func (g *gaps) longest() int64 { return slices.Max(g.Longest[:]) }

func (c *container) stateKey() string { return "container/" + c.key }

func (c *container) seen(at int64) { c.Seen = max(c.Seen, at) }

// describe keeps what a batch says of the container. The log's batches say more than the engine's events.
func (c *container) describe(b *schema.Batch) {
	id := attr(b, schema.AttrContainerID)
	if id == c.ID && len(b.Resource) <= c.Told {
		return
	}
	var subject []pair
	for _, a := range b.Resource {
		switch a.Key {
		case schema.AttrContainerID, schema.AttrContainerName, schema.AttrImageName, schema.AttrApp, schema.AttrTenant, schema.AttrHostName, schema.AttrSite, schema.AttrCell:
		default:
			if !strings.HasPrefix(a.Key, schema.LabelPrefix) && !strings.HasPrefix(a.Key, "k8s.") {
				continue
			}
		}
		if a.Kind == schema.KindString && len(subject) < maxSubject {
			subject = append(subject, pair{text(a.Key), text(a.Str)})
		}
	}
	c.ID, c.Subject, c.Told = text(id), subject, len(b.Resource)
}

// text is a copy of the batch's memory, bounded, and as JSON can keep it.
func text(s string) string {
	return strings.ToValidUTF8(strings.Clone(s[:min(len(s), maxText)]), "\ufffd")
}

// group names the container, without what changes when it is made anew.
func (c *container) group() string {
	parts := strings.Split(c.key, "/")
	name := parts[len(parts)-1]
	if pod := strings.Split(parts[len(parts)-2], "_"); parts[0] == "cri" && len(pod) == 3 {
		return signal.Group(schema.AttrHostName, c.Node, schema.AttrK8sNamespace, pod[0], schema.AttrK8sPod, pod[1], schema.AttrK8sContainer, name)
	}
	return signal.Group(schema.AttrHostName, c.Node, schema.AttrContainerName, name)
}

func (c *container) name() string {
	if strings.HasPrefix(c.key, "cri/") {
		return "container " + strings.TrimPrefix(c.key, "cri/"+c.Node+"/") + " on " + c.Node
	}
	return "container " + c.key[strings.LastIndexByte(c.key, '/')+1:] + " on " + c.Node
}

// signal makes one of the container; the body begins with its name.
func (c *container) signal(kind string, severity int32, value float64, says string, records []string, more ...schema.Attr) signal.Signal {
	s := signal.Signal{Kind: kind, Group: c.group(), Severity: severity, Value: value, Body: c.name() + " " + says, Records: records}
	for _, p := range c.Subject {
		s.Subject = append(s.Subject, schema.String(p[0], p[1]))
	}
	s.Subject = append(s.Subject, more...)
	if c.Starts+c.Restarts > 0 {
		s.Subject = append(s.Subject, schema.Int(AttrRestarts, c.Restarts))
	}
	if len(c.Codes) > 0 {
		var parts []string
		for _, x := range c.Codes {
			parts = append(parts, fmt.Sprintf("%d:%d", x.Code, x.Times))
		}
		s.Subject = append(s.Subject, schema.String(AttrExitCodes, strings.Join(parts, ",")))
	}
	if c.Ready > 0 {
		s.Subject = append(s.Subject, schema.Int(AttrReady, c.Ready/int64(time.Millisecond)))
	}
	return s
}

// last keeps the last n of a list.
func last[T any](list []T, n int) []T { return slices.Clone(list[max(0, len(list)-n):]) }

// ids are those of the last records of a list.
func ids[T any](list []T, id func(T) string) (all []string) {
	for _, x := range list[max(0, len(list)-signal.MaxRecords):] {
		all = append(all, id(x))
	}
	return all
}
