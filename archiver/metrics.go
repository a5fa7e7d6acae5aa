package archiver

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	rows, bytes, files, commits *prometheus.CounterVec // by topic; rows, bytes and files count at their commit
	errors                      *prometheus.CounterVec // by operation
	seconds                     prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		rows:    counter("weir_archiver_rows_total", "Rows committed to the archive.", "topic"),
		bytes:   counter("weir_archiver_bytes_total", "Bytes of Parquet files committed to the archive.", "topic"),
		files:   counter("weir_archiver_files_total", "Parquet files committed to the archive.", "topic"),
		commits: counter("weir_archiver_commits_total", "Commits that wrote a manifest.", "topic"),
		errors:  counter("weir_archiver_errors_total", "Failed operations; each is tried again from the last commit.", "operation"),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_archiver_commit_seconds", Help: "Duration of commits that wrote a manifest.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 13),
		}),
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.rows, m.bytes, m.files, m.commits, m.errors, m.seconds} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
