package agent

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	read, records, damaged, reconnects, eventGaps, checkpointErrors prometheus.Counter
	sources, lag, filesLeft                                         prometheus.Gauge
	held, heldFiles, heldFilesLimit                                 prometheus.Gauge
	lost, unsupported, redacted, droppedBytes, droppedRecords       *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	return metrics{
		read:             counter("weir_agent_read_bytes_total", "Bytes of logs read."),
		records:          counter("weir_agent_records_total", "Log records put into batches."),
		damaged:          counter("weir_agent_damaged_lines_total", "Lines that the json-file driver does not write; they are sent as they are."),
		reconnects:       counter("weir_agent_event_reconnects_total", "Times that the engine's event stream ended and was taken up again."),
		eventGaps:        counter("weir_agent_event_gaps_total", "Times that the engine had forgotten events before they were read."),
		checkpointErrors: counter("weir_agent_checkpoint_errors_total", "Checkpoints that could not be written."),
		sources:          gauge("weir_agent_sources", "Logs followed."),
		lag:              gauge("weir_agent_lag_bytes", "Bytes of open log files that are not read yet."),
		filesLeft:        gauge("weir_agent_unfollowed_files", "Plain files that were found and are not followed, because there are more than agent.max_files."),
		held:             gauge("weir_agent_held_bytes", "Bytes read that wait in memory: unfinished records, and batches that are not full yet."),
		heldFiles:        gauge("weir_agent_held_file_bytes", "Bytes of deleted log files that are held open because they are not read yet."),
		heldFilesLimit:   gauge("weir_agent_held_file_limit_bytes", "agent.disk_bytes: past it deleted log files are given up, with a loss record."),
		droppedBytes:     vec("weir_agent_dropped_bytes_total", "Bytes that loss records speak of, where their number is known, by reason.", "reason"),
		droppedRecords:   vec("weir_agent_dropped_records_total", "Records that loss records speak of, where their number is known, by reason.", "reason"),
		redacted:         vec("weir_agent_redacted_secrets_total", "Secrets replaced in bodies, by kind.", "kind"),
		lost:             vec("weir_agent_loss_records_total", "Loss records written, by reason.", "reason"),
		unsupported:      vec("weir_agent_unsupported_containers_total", "Containers whose log the engine cannot read, by driver.", "driver"),
	}
}

// lagCollector tells each app's lag when it is asked for.
type lagCollector struct{ a *Agent }

var (
	appLagBytes   = prometheus.NewDesc("weir_agent_app_lag_bytes", "Bytes of an app's log files that are not read yet.", []string{"app"}, nil)
	appLagSeconds = prometheus.NewDesc("weir_agent_app_lag_seconds", "How old an app's first line is that Kafka does not have.", []string{"app"}, nil)
)

func (c lagCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- appLagBytes
	ch <- appLagSeconds
}

func (c lagCollector) Collect(ch chan<- prometheus.Metric) {
	bytes, seconds := map[string]float64{}, map[string]float64{}
	for _, s := range c.a.Status() {
		bytes[s.App] += float64(s.UnreadBytes)
		seconds[s.App] = max(seconds[s.App], s.LagSeconds)
	}
	for app := range bytes {
		ch <- prometheus.MustNewConstMetric(appLagBytes, prometheus.GaugeValue, bytes[app], app)
		ch <- prometheus.MustNewConstMetric(appLagSeconds, prometheus.GaugeValue, seconds[app], app)
	}
}
