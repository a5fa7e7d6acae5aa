package cli

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"weir/control"
	"weir/control/notify"
	"weir/internal/certtest"
	"weir/internal/config"
	"weir/internal/telemetry"
)

var update = flag.Bool("update", false, "write the files that are made from code: make generate")

// labels are what metrics may be told apart by, and what each says. A metric with another one does not pass: a label is a series for each
// of its values, so nothing that has many of them may be one.
var labels = map[string]string{
	"action":    "what a policy does or would do",
	"app":       "the app that wrote the lines",
	"driver":    "logging driver of the engine",
	"error":     "kind of error",
	"group":     "consumer group",
	"kind":      "what was found",
	"node":      "host.name; at most 10,000",
	"operation": "what failed",
	"partition": "of the topic",
	"reason":    "why",
	"result":    "how it ended",
	"rule":      "a rule of the processor or a window, by its name",
	"status":    "HTTP status, or error",
	"policy":    "a policy of control, by its name",
	"target":    "whom alerts are told to, by its place in control.notify",
	"topic":     "of Kafka",
	"verdict":   "what was decided",
}

// components are the second words of metrics' names, in the order of the data path, and what each is.
var components = [][2]string{
	{"agent", "the node agent"}, {"producer", "what sends to Kafka, in every component that does"}, {"ingest", "what reads from Kafka, in every consumer"},
	{"indexer", "what makes records searchable in Elasticsearch"}, {"archiver", "what archives records as Parquet"}, {"processor", "what makes signals"}, {"control", "self-healing: the decider"}, {"executor", "self-healing: what carries orders out on a node"},
	{"notify", "alerts to Alertmanager and to webhooks"}, {"http", "what a process shows itself by, in every component, where `http.tls` is set"},
}

// metric is what is known of one without a server.
type metric struct {
	name, kind, help string
	labels           []string
}

// recorder is a registry that takes down what is registered.
type recorder struct {
	*prometheus.Registry
	t       *testing.T
	metrics map[string]metric
}

func (r recorder) Register(c prometheus.Collector) error {
	r.t.Helper()
	ch := make(chan *prometheus.Desc, 100)
	c.Describe(ch)
	close(ch)
	for d := range ch {
		m := describe(r.t, d)
		if counts := strings.HasSuffix(m.name, "_total"); typeName(c) != "" && counts != strings.Contains(typeName(c), "ounter") {
			r.t.Errorf("%s is a %s: counters end with _total, and nothing else does", m.name, typeName(c))
		} else if counts {
			m.kind = "counter"
		} else if m.kind = "gauge"; strings.Contains(typeName(c), "istogram") {
			m.kind = "histogram"
		}
		r.metrics[m.name] = m
	}
	return r.Registry.Register(c)
}

func (r recorder) MustRegister(cs ...prometheus.Collector) {
	r.t.Helper()
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			r.t.Fatal(err)
		}
	}
}

// typeName is the type of a collector of the library, below the one that adds labels; "" for others, of which the name alone tells.
func typeName(c prometheus.Collector) string {
	v := reflect.ValueOf(c)
	if v.Kind() == reflect.Pointer {
		if inner := v.Elem().FieldByName("wrappedCollector"); inner.IsValid() {
			v = inner.Elem()
		}
	}
	name := v.Type().String()
	if !strings.HasPrefix(name, "*prometheus.") || strings.Contains(name, "valueFunc") {
		return ""
	}
	return name
}

var descForm = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*?)"(?:, unit: "[^"]*")?, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func describe(t *testing.T, d *prometheus.Desc) metric {
	t.Helper()
	f := descForm.FindStringSubmatch(d.String())
	if f == nil {
		t.Fatalf("%s is not understood", d)
	}
	m := metric{name: f[1], help: f[2]}
	for _, l := range append(strings.Split(f[3], ","), strings.Split(f[4], ",")...) {
		if name, _, _ := strings.Cut(l, "="); name != "" {
			m.labels = append(m.labels, name)
		}
	}
	return m
}

// allMetrics makes every component, with all that can be switched on, and starts none.
func allMetrics(t *testing.T) []metric {
	t.Helper()
	r := recorder{prometheus.NewRegistry(), t, map[string]metric{}}
	cfg := config.Default()
	dir := t.TempDir()
	cfg.HTTP.Listen = "127.0.0.1:0"
	cfg.Agent.StateDir, cfg.Agent.PodsDir, cfg.Agent.Kubernetes.API = dir, dir, "https://127.0.0.1:1"
	cfg.Archiver.Root = "file://" + dir
	cfg.Indexer.Addresses = []string{"http://127.0.0.1:1"}
	cfg.Control.Notify.Webhooks = []notify.Target{{URL: "http://127.0.0.1:1"}}
	key, err := control.NewKey()
	if err == nil {
		err = key.Write(filepath.Join(dir, "key.pem"))
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg.Executor.TrustedKeys = []string{filepath.Join(dir, "key.pub")}
	cert, certKey := certtest.New(t, dir, "ca").Issue("weir")
	cfg.HTTP.TLS = &telemetry.TLS{CertFile: cert, KeyFile: certKey}
	run, err := newRuntimeOn(r, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(componentsByName)) {
		if _, err := componentsByName[name](run); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if _, err := run.besideControl(); err != nil {
		t.Fatal(err)
	}
	all := slices.Collect(maps.Values(r.metrics))
	slices.SortFunc(all, func(a, b metric) int { return cmp.Compare(a.name, b.name) })
	return all
}

var nameForm = regexp.MustCompile(`^weir_([a-z]+)(_[a-z0-9]+)+$`)

// TestMetrics holds every metric to the scheme, and docs/metrics.md to the metrics.
func TestMetrics(t *testing.T) {
	all := allMetrics(t)
	if len(all) < 40 {
		t.Fatalf("only %d metrics were found", len(all))
	}
	bad := func(is bool, format string, args ...any) {
		t.Helper()
		if is {
			t.Errorf(format, args...)
		}
	}
	for _, m := range all {
		f := nameForm.FindStringSubmatch(m.name)
		if f == nil {
			t.Errorf("%s: a name is weir_<component>_<what>_<unit>[_total]", m.name)
			continue
		}
		bad(!slices.ContainsFunc(components, func(c [2]string) bool { return c[0] == f[1] }), "%s: there is no component %s; add it to components", m.name, f[1])
		words := strings.Split(strings.TrimSuffix(m.name, "_total"), "_")
		last := words[len(words)-1]
		for _, w := range words {
			bad(w != last && (w == "bytes" || w == "seconds"), "%s: the unit stands at the end", m.name)
			bad(slices.Contains([]string{"ms", "millis", "milliseconds", "ns", "minutes", "hours", "kb", "mb", "kib", "mib", "percent"}, w), "%s: units are seconds and bytes", m.name)
		}
		bad(m.kind == "histogram" && last != "seconds" && last != "bytes", "%s: a histogram is of seconds or bytes", m.name)
		bad(!strings.HasSuffix(m.help, ".") || len(m.help) > 250, "%s: its help is to be a sentence of at most 250 characters: %q", m.name, m.help)
		for _, l := range m.labels {
			bad(labels[l] == "", "%s: the label %s has no meaning yet; add it to labels, if it has few values", m.name, l)
		}
	}
	const path = "../../docs/metrics.md"
	have, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	want := metricsDocument(all)
	if bytes.Equal(have, want) {
		return
	}
	if !*update {
		t.Fatalf("docs/metrics.md is not what the code has: run `make generate`\n%s", differing(string(have), string(want)))
	}
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

// differing are the lines that one text has and the other has not.
func differing(have, want string) (all string) {
	for _, d := range []struct{ mark, of, in string }{{"-", have, want}, {"+", want, have}} {
		lines := strings.Split(d.in, "\n")
		for _, l := range strings.Split(d.of, "\n") {
			if !slices.Contains(lines, l) {
				all += d.mark + " " + l + "\n"
			}
		}
	}
	return all
}

func metricsDocument(all []metric) []byte {
	var b bytes.Buffer
	b.WriteString(`# Metrics

<!-- made by ` + "`make generate`" + ` from what the components register; a test holds it to them -->

Every component serves them at ` + "`http.listen`, path `/metrics`" + `, for Prometheus. A name is ` + "`weir_<component>_<what>_<unit>`" + `, and ends with
` + "`_total`" + ` where it is a counter; units are seconds and bytes, and else the things that are counted. With them come those of the Go runtime and of the process
(` + "`go_*`, `process_*`" + `). [deployments/prometheus](../deployments/prometheus/README.md) has rules and alerts on them, [deployments/grafana](../deployments/grafana/README.md) dashboards.
`)
	for _, c := range components {
		rows := ""
		for _, m := range all {
			if strings.HasPrefix(m.name, "weir_"+c[0]+"_") {
				named := ""
				for i, l := range m.labels {
					if i > 0 {
						named += ", "
					}
					named += "`" + l + "`"
				}
				rows += fmt.Sprintf("| `%s` | %s | %s | %s |\n", m.name, m.kind, named, strings.ReplaceAll(m.help, "|", "\\|"))
			}
		}
		if rows != "" {
			fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n%s", c[0], strings.ToUpper(c[1][:1])+c[1][1:], rows)
		}
	}
	b.WriteString("\n## Labels\n\n| label | meaning |\n|---|---|\n")
	for _, l := range slices.Sorted(maps.Keys(labels)) {
		if !slices.ContainsFunc(all, func(m metric) bool { return slices.Contains(m.labels, l) }) {
			continue
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", l, labels[l])
	}
	return b.Bytes()
}
