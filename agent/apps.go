package agent

import (
	"fmt"
	"strings"
	"time"

	"weir/agent/multiline"
	"weir/agent/redact"
	"weir/schema"
)

// multilineLabel on a container names recognisers, such as "java,go" or "all", or is "off".
const multilineLabel = "weir.multiline"

// everyApp is the key of agent.multiline that holds for the apps that are not named.
const everyApp = "*"

// joining is how one app's lines are put together.
type joining struct {
	joiner *multiline.Joiner // nil: every line is a record
	maxGap time.Duration
}

// prepare compiles what the configuration says of bodies.
func (a *Agent) prepare() (err error) {
	if a.redactor, err = redact.New(a.cfg.Redact); err != nil {
		return fmt.Errorf("redact: %w", err)
	}
	a.looksFor = strings.Join(a.cfg.Redact.Enabled(), ",")
	a.counts = make([]int, len(a.redactor.Kinds()))
	for _, kind := range a.redactor.Kinds() {
		a.secrets = append(a.secrets, a.m.redacted.WithLabelValues(kind))
	}
	a.joiners = map[string]joining{"label:off": {}}
	for app, cfg := range a.cfg.Multiline {
		if a.joiners["app:"+app], err = newJoining(cfg); err != nil {
			return fmt.Errorf("multiline.%s: %w", app, err)
		}
	}
	return nil
}

// withDefaults fills in what a configuration of multiline leaves out.
func withDefaults(c multiline.Config) multiline.Config {
	d := multiline.DefaultConfig()
	if len(c.Recognisers) == 0 && c.Start == "" && c.Continue == "" {
		c.Recognisers = d.Recognisers
	}
	if c.MaxLines == 0 {
		c.MaxLines = d.MaxLines
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = d.MaxBytes
	}
	if c.MaxGap == 0 {
		c.MaxGap = d.MaxGap
	}
	return c
}

func newJoining(c multiline.Config) (joining, error) {
	c = withDefaults(c)
	j, err := multiline.New(c)
	return joining{j, c.MaxGap}, err
}

// configure finds how the source's lines are joined: by its container's label, by its app, or as for every app. Once a line was
// read, that stays as it is also where the label changes: a record that is read again must end where it ended before.
func (a *Agent) configure(s *source) {
	var app, label, quota string
	for _, attr := range s.resource {
		switch attr.Key {
		case schema.AttrApp:
			app = attr.Str
		case schema.LabelPrefix + multilineLabel:
			label = attr.Str
		case schema.LabelPrefix + quotaLabel:
			quota = attr.Str
		}
	}
	if s.joins == "" {
		if s.joins = "app:" + app; label != "" {
			s.joins = "label:" + label
		}
	}
	j, ok := a.joiners[s.joins]
	if !ok {
		if label, ok = strings.CutPrefix(s.joins, "label:"); ok {
			var err error
			if j, err = newJoining(multiline.Config{Recognisers: strings.Split(label, ",")}); err != nil {
				a.log.Warn("a container's label is wrong; its lines are not joined", "source", s.name, "label", multilineLabel, "value", label, "err", err)
			}
			a.joiners[s.joins] = j
		} else {
			j = a.joiners["app:"+everyApp]
		}
	}
	s.joiner, s.maxGap = j.joiner, j.maxGap
	s.mu.Lock()
	s.app = app
	s.mu.Unlock()
	s.quota = a.quotaOf(s, quota)
}

// quotaOf finds the quota of a source's app: what the configuration says of the app, else its container's label, which may ask
// for less than the apps that are not named have, but not for more.
func (a *Agent) quotaOf(s *source, label string) *quota {
	if q := a.quotas[s.app]; q != nil {
		return q
	}
	q, ok := a.cfg.Quotas[s.app]
	if every := a.cfg.Quotas[everyApp]; !ok {
		q = every
		if label != "" {
			if asked, err := parseQuota(label); err != nil {
				a.log.Warn("a container's label is wrong; it does not count", "source", s.name, "label", quotaLabel, "value", label, "err", err)
			} else {
				q = asked.within(every)
			}
		}
	}
	if q == (Quota{}) {
		return nil
	}
	a.quotas[s.app] = newQuota(q)
	return a.quotas[s.app]
}

// joinsOnceRead is what the checkpoint keeps of configure: nothing while it may change.
func (s *source) joinsOnceRead() string {
	if s.lines == 0 && !s.waitTo.IsZero() {
		return ""
	}
	return s.joins
}

// redact replaces the secrets of a body, and counts them. The result is valid until the next call.
func (a *Agent) redact(body []byte) ([]byte, int) {
	out, changed := a.redactor.Redact(a.redacted[:0], body, a.counts)
	if !changed {
		return body, 0
	}
	a.redacted = out
	n := 0
	for i, count := range a.counts {
		a.secrets[i].Add(float64(count))
		n += count
		a.counts[i] = 0
	}
	return out, n
}
