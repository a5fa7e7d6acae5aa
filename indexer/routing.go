package indexer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"weir/schema"
)

// Rule sends the records that match to a data stream of their own. The first rule that matches decides; what none does goes to the
// dataset of its topic in indexer.namespace. Dataset and Namespace may hold {app}, {namespace}, {tenant}, {site}, {cell}; a rule
// that names what a record does not have is passed over.
type Rule struct {
	Match     Match  `yaml:"match"`
	Dataset   string `yaml:"dataset"`   // without the weir. that all begin with; empty: the topic's
	Namespace string `yaml:"namespace"` // empty: indexer.namespace
}

// Match is patterns, all of which must fit: * stands for any characters, ? for one. An empty one fits all.
type Match struct {
	Topic     string            `yaml:"topic"`
	App       string            `yaml:"app"`
	Namespace string            `yaml:"namespace"` // of Kubernetes
	Tenant    string            `yaml:"tenant"`
	Labels    map[string]string `yaml:"labels"`
}

var placeholders = map[string]string{"app": schema.AttrApp, "namespace": schema.AttrK8sNamespace, "tenant": schema.AttrTenant, "site": schema.AttrSite, "cell": schema.AttrCell}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

func (r *Rule) validate() error {
	var errs []error
	if r.Dataset == "" && r.Namespace == "" {
		errs = append(errs, errors.New("neither dataset nor namespace is set, so the rule does nothing"))
	}
	for _, f := range [2][2]string{{"dataset", r.Dataset}, {"namespace", r.Namespace}} {
		for _, p := range placeholder.FindAllString(f[1], -1) {
			if placeholders[p[1:len(p)-1]] == "" {
				errs = append(errs, fmt.Errorf("%s: %s is not one of {app}, {namespace}, {tenant}, {site}, {cell}", f[0], p))
			}
		}
		if rest := placeholder.ReplaceAllString(f[1], ""); rest != string(sanitise(nil, rest)) {
			errs = append(errs, fmt.Errorf("%s: %q may hold a-z 0-9 _ . and placeholders", f[0], f[1]))
		}
	}
	return errors.Join(errs...)
}

// datasets are the middle parts of the data streams' names, by topic.
var datasets = map[string]string{
	schema.TopicLogs: "weir.container", schema.TopicEvents: "weir.event", schema.TopicSignals: "weir.signal", schema.TopicActions: "weir.action", schema.TopicDeadLetter: "weir.deadletter",
}

// stream is one data stream.
type stream struct {
	name                       string
	datasetJSON, namespaceJSON string
}

func streamOf(dataset, namespace string) *stream {
	return &stream{"logs-" + dataset + "-" + namespace, `"` + dataset + `"`, `"` + namespace + `"`}
}

// parts takes a data stream's name apart.
func parts(name string) (dataset, namespace string) {
	dataset, namespace, _ = strings.Cut(strings.TrimPrefix(name, "logs-"), "-")
	return dataset, namespace
}

// router finds the data stream of a record. It serves all partitions.
type router struct {
	rules    []compiled
	max      int
	fallback map[string]*stream // by topic
	log      *slog.Logger
	diverted prometheus.Counter

	mu      sync.Mutex
	streams map[string]*stream // those that exist, or will; by name
	full    bool               // told once
}

type compiled struct {
	rule  *Rule
	topic *regexp.Regexp
	fits  []condition
}

type condition struct {
	attr    string
	pattern *regexp.Regexp
}

func newRouter(cfg *Config, log *slog.Logger, diverted prometheus.Counter) *router {
	rt := &router{max: cfg.MaxDataStreams, fallback: map[string]*stream{}, streams: map[string]*stream{}, log: log, diverted: diverted}
	for topic, dataset := range datasets {
		s := streamOf(dataset, cfg.Namespace)
		rt.fallback[topic], rt.streams[s.name] = s, s
	}
	for i := range cfg.Routing {
		r := cfg.Routing[i]
		if r.Namespace == "" {
			r.Namespace = cfg.Namespace
		}
		c := compiled{rule: &r, topic: glob(r.Match.Topic)}
		for _, f := range [3][2]string{{schema.AttrApp, r.Match.App}, {schema.AttrK8sNamespace, r.Match.Namespace}, {schema.AttrTenant, r.Match.Tenant}} {
			if f[1] != "" {
				c.fits = append(c.fits, condition{f[0], glob(f[1])})
			}
		}
		for label, pattern := range r.Match.Labels {
			c.fits = append(c.fits, condition{schema.LabelPrefix + label, glob(pattern)})
		}
		rt.rules = append(rt.rules, c)
	}
	return rt
}

func glob(pattern string) *regexp.Regexp {
	if pattern == "" {
		pattern = "*"
	}
	return regexp.MustCompile(`(?s)^` + strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern)) + `$`)
}

// look learns which data streams the cluster has. A partition that changes its owner must go on in the same
// streams, or a record that both write would be there twice; so this is asked at each Open.
func (rt *router) look(ctx context.Context, c *Cluster) error {
	if len(rt.rules) == 0 {
		return nil
	}
	names, err := c.streams(ctx)
	if err != nil {
		return err
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for _, name := range names {
		if rt.streams[name] == nil {
			rt.streams[name] = streamOf(parts(name))
		}
	}
	return nil
}

// perRecord tells whether the records of a topic must be routed one by one: lines share what they are routed by.
func (rt *router) perRecord(topic string) bool { return len(rt.rules) > 0 && topic != schema.TopicLogs }

// route finds the stream for a record, or for all of a batch where r is nil.
func (rt *router) route(b *schema.Batch, r *schema.Record) *stream {
	value := func(key string) string {
		if r != nil {
			if a, ok := r.Attr(key); ok {
				return a.Str
			}
		}
		a, _ := b.ResourceAttr(key)
		return a.Str
	}
	for i := range rt.rules {
		if dataset, namespace, ok := rt.rules[i].apply(b.Topic, value); ok {
			if dataset == "" {
				dataset = datasets[b.Topic]
			}
			return rt.admit(b, r, dataset, namespace)
		}
	}
	return rt.fallback[b.Topic]
}

func (c *compiled) apply(topic string, value func(string) string) (dataset, namespace string, ok bool) {
	if !c.topic.MatchString(topic) {
		return "", "", false
	}
	for _, f := range c.fits {
		v := value(f.attr)
		if v == "" || !f.pattern.MatchString(v) {
			return "", "", false
		}
	}
	fill := func(template string) string {
		return placeholder.ReplaceAllStringFunc(template, func(p string) string {
			v := value(placeholders[p[1:len(p)-1]])
			ok = ok && v != ""
			return v
		})
	}
	ok = true
	if c.rule.Dataset != "" {
		dataset = string(sanitise([]byte("weir."), fill(c.rule.Dataset)))
	}
	namespace = string(sanitise(nil, fill(c.rule.Namespace)))
	return dataset, namespace, ok
}

// admit bounds the data streams: each costs the cluster shards and memory, and what an app is called is not ours to say.
func (rt *router) admit(b *schema.Batch, r *schema.Record, dataset, namespace string) *stream {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	name := "logs-" + dataset + "-" + namespace
	s := rt.streams[name]
	if s == nil && len(rt.streams) < rt.max {
		s = streamOf(dataset, namespace)
		rt.streams[name] = s
	}
	if s != nil {
		return s
	}
	if !rt.full {
		rt.full = true
		rt.log.Warn("indexer.max_data_streams is reached; what would need more goes to the dataset of its topic", "max", rt.max, "refused", name, "default", rt.fallback[b.Topic].name,
			"remedy", "raise it, or let indexer.routing make fewer names")
	}
	if r != nil {
		rt.diverted.Inc()
	} else {
		rt.diverted.Add(float64(len(b.Records)))
	}
	return rt.fallback[b.Topic]
}

// sanitise appends s as a part of a data stream's name: lower case, with _ for what may not be there, at most 100 bytes in all.
func sanitise(b []byte, s string) []byte {
	for i := 0; i < len(s) && len(b) < 100; i++ {
		c := s[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '.':
		default:
			c = '_'
		}
		b = append(b, c)
	}
	return b
}
