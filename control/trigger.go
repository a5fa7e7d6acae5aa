package control

import (
	"strings"

	"weir/processor/signal"
	"weir/schema"
)

// Trigger is a signal or an event that may call for an action.
type Trigger struct {
	ID      string  `json:"id"`               // of the signal or the record
	Signal  string  `json:"signal,omitempty"` // kind of a signal
	Rule    string  `json:"rule,omitempty"`
	Event   string  `json:"event,omitempty"` // name of an event
	Detail  string  `json:"detail,omitempty"`
	Trouble string  `json:"trouble"`
	At      int64   `json:"at"` // Unix ns
	Subject Subject `json:"subject"`
}

func (t *Trigger) what() string {
	if t.Signal != "" {
		return "signal " + t.Signal
	}
	return strings.TrimSuffix("event "+t.Event+" "+t.Detail, " ")
}

// A container with the label weir.control=off is left alone.
const (
	OptOutLabel = "weir.control"
	OptOut      = "off"
)

// input is what a record means to the decider: one of these.
type input struct {
	trigger *Trigger
	change  *change
	outcome *Outcome
	command *Command
	sealed  Sealed // of the outcome or the command
}

// change is what an event says of a container's life.
type change struct {
	subject Subject
	event   string
	detail  string
	at      int64
}

// read finds what a record means; nothing for most. Its memory is its own.
func read(b *schema.Batch, r *schema.Record) (in input, bad error) {
	switch {
	case r.EventName == schema.EventSignal:
		s, err := signal.FromRecord(r)
		if err != nil {
			return in, err
		}
		if s.State == signal.Resolved || s.Revision > 0 || s.Late {
			return in, nil // it ends or corrects one that was acted on
		}
		t := &Trigger{ID: s.ID(), Signal: bounded(s.Kind), Rule: bounded(s.Rule), Trouble: Beyond, At: s.End, Subject: subjectOf(b.Resource, r.Attrs)}
		switch s.Kind {
		case signal.CrashLoop, signal.OOM:
			t.Trouble = Down
		case signal.Unhealthy:
			t.Trouble = Sick
		}
		in.trigger = t
	case strings.HasPrefix(r.EventName, "docker."):
		detail, _ := r.Attr("docker.action.detail")
		t := &Trigger{ID: b.ID(r), Event: bounded(r.EventName), Detail: bounded(detail.Str), Trouble: Beyond, At: r.Time, Subject: subjectOf(b.Resource, r.Attrs)}
		in.change = &change{subject: t.Subject, event: t.Event, detail: t.Detail, at: t.At}
		switch t.Event {
		case "docker.container.die":
			t.Trouble = Down
			if code, _ := r.Attr(schema.AttrExitCode); code.Num == 0 {
				return in, nil // it ended well
			}
		case "docker.container.oom":
			t.Trouble = Down
		case "docker.container.health_status":
			t.Trouble = Sick
		}
		in.trigger = t
	case r.EventName == schema.EventOutcome:
		in.outcome = new(Outcome)
		in.sealed, bad = Unseal(r, in.outcome)
	case r.EventName == schema.EventCommand:
		in.command = new(Command)
		in.sealed, bad = Unseal(r, in.command)
	}
	return in, bad
}

// bounded copies text that others chose, and cuts it where it is longer than any name should be: it goes into the state.
func bounded(s string) string {
	return strings.Clone(s[:min(len(s), 256)])
}

func subjectOf(lists ...[]schema.Attr) Subject {
	s := Subject{Labels: map[string]string{}}
	for _, list := range lists {
		for _, a := range list {
			if a.Kind != schema.KindString {
				continue
			}
			v := bounded(a.Str)
			switch a.Key {
			case schema.AttrHostName:
				s.Node = v
			case schema.AttrContainerID:
				s.Container = v
			case schema.AttrContainerName:
				s.Name = v
			case schema.AttrApp:
				s.App = v
			case schema.AttrImageName:
				s.Image = v
			case schema.AttrK8sNamespace:
				s.Namespace = v
			case schema.AttrK8sPod:
				s.Pod = v
			case schema.AttrK8sPodUID:
				s.PodUID = v
			default:
				if key, ok := strings.CutPrefix(a.Key, schema.LabelPrefix); ok {
					s.Labels[strings.Clone(key)] = v
				}
			}
		}
	}
	return s
}

// calls tells whether the trigger is what the policy waits for.
func (o *On) calls(t *Trigger) bool {
	if o.Signal != "" {
		return o.Signal == t.Signal && (o.Rule == "" || o.Rule == t.Rule)
	}
	return o.Event == t.Event && (o.Detail == "" || o.Detail == t.Detail)
}
