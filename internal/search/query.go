// Package search finds records by KQL, from the terminal. A Query says what is wanted; Elasticsearch answers it.
package search

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Query is what is looked for.
type Query struct {
	KQL          string // empty: everything
	App          string
	Since, Until time.Time // of @timestamp, Until excluded; zero: no bound
	Index        string    // data streams or indices, with patterns
	Oldest       bool      // oldest first
	Limit        int       // the most hits; below zero: all
}

// Kibana is the query as one would type it in Kibana.
func (q *Query) Kibana() string {
	if q.App == "" {
		return q.KQL
	}
	app := `weir.app: "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(q.App) + `"`
	if strings.TrimSpace(q.KQL) == "" {
		return app
	}
	return "(" + q.KQL + ") and " + app
}

// maxQuery bounds a query; Elasticsearch's parser recurses.
const maxQuery = 64 << 10

// Validate tells what no server needs to be asked for.
func (q *Query) Validate() error {
	switch {
	case len(q.KQL) > maxQuery:
		return fmt.Errorf("the query is longer than %d bytes", maxQuery)
	case !utf8.ValidString(q.KQL):
		return errors.New("the query is not UTF-8")
	case !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until):
		return fmt.Errorf("--since (%s) is not before --until (%s)", q.Since.Format(time.RFC3339), q.Until.Format(time.RFC3339))
	}
	return nil
}

// filter is the query in Elasticsearch's terms, with more conditions.
func (q *Query) filter(more ...any) map[string]any {
	all := more
	if strings.TrimSpace(q.KQL) != "" {
		all = append(all, map[string]any{"kql": map[string]any{"query": q.KQL}})
	}
	if q.App != "" {
		all = append(all, map[string]any{"term": map[string]any{"weir.app": q.App}})
	}
	at := map[string]any{"format": "strict_date_optional_time_nanos"}
	if !q.Since.IsZero() {
		at["gte"] = q.Since.UTC().Format(time.RFC3339Nano)
	}
	if !q.Until.IsZero() {
		at["lt"] = q.Until.UTC().Format(time.RFC3339Nano)
	}
	if len(at) > 1 {
		all = append(all, map[string]any{"range": map[string]any{"@timestamp": at}})
	}
	if len(all) == 0 {
		return map[string]any{"match_all": map[string]any{}}
	}
	return map[string]any{"bool": map[string]any{"filter": all}}
}

var (
	indexForm   = regexp.MustCompile(`^[^\s/\\?"<>|#]+$`)
	streamForm  = regexp.MustCompile(`^[a-z0-9_.*,]+$`)
	spanForm    = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h|d|w)`)
	units       = map[string]time.Duration{"ns": 1, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"}
	hourLayouts = []string{"15:04:05.999999999", "15:04"}
)

// Pattern is the data streams of a dataset and a namespace, any where one is empty; or index, where that is given.
func Pattern(index, dataset, namespace string) (string, error) {
	if index != "" {
		switch {
		case dataset != "" || namespace != "":
			return "", errors.New("--index says it all: leave out --dataset and --namespace")
		case !indexForm.MatchString(index) || index[0] == '_' || index[0] == '-':
			return "", fmt.Errorf("--index %q is not a name or a pattern of data streams or indices", index)
		}
		return index, nil
	}
	for _, f := range [2][2]string{{"--dataset", dataset}, {"--namespace", namespace}} {
		if f[1] != "" && (!streamForm.MatchString(f[1]) || strings.Contains(f[1], ",")) {
			return "", fmt.Errorf("%s %q may hold a-z 0-9 _ . and * alone", f[0], f[1])
		}
	}
	if dataset == "" {
		dataset = "*"
	}
	if namespace == "" {
		namespace = "*"
	}
	return "logs-weir." + strings.TrimPrefix(dataset, "weir.") + "-" + namespace, nil
}

// ParseTime reads a point of time: how long before now (90m, 1h30m, 2d, 1w), a date, a time of today, or both; without a zone it is local.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if s == "now" {
		return now, nil
	}
	if span, ok := parseSpan(s); ok {
		return now.Add(-span), nil
	}
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range hourLayouts {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), now.Location()), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a time before now, such as 90m, 1h30m, 2d or 1w, nor a time such as 2006-01-02T15:04:05Z, 2006-01-02 15:04 or 15:04", s)
}

// maxSpan keeps times where Elasticsearch has nanoseconds for them.
const maxSpan = 50 * 365 * 24 * time.Hour

func parseSpan(s string) (time.Duration, bool) {
	var sum time.Duration
	for s != "" {
		m := spanForm.FindStringSubmatch(s)
		if m == nil {
			return 0, false
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil || n*float64(units[m[2]]) > float64(maxSpan) {
			return 0, false
		}
		sum += time.Duration(n * float64(units[m[2]]))
		s = s[len(m[0]):]
	}
	return sum, sum > 0 && sum <= maxSpan
}
