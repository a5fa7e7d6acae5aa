package search

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"weir/indexer"
	"weir/internal/show"
)

// Elasticsearch answers queries. It is used by one goroutine.
type Elasticsearch struct {
	cluster *indexer.Cluster
	cfg     indexer.Config
	session string // the same copies of the shards answer all of one search
	warn    func(string)
	warned  map[string]bool
	partial bool
	bytes   int           // the most of one answer
	pause   time.Duration // after the first refusal of a full cluster; it doubles
}

// New prepares a search. warn is told what the user should know while it goes on: what is unknown, what does not answer.
func New(cfg indexer.Config, warn func(string)) (*Elasticsearch, error) {
	c, err := indexer.Connect(cfg)
	if err != nil {
		return nil, err
	}
	return &Elasticsearch{cluster: c, cfg: cfg, session: "weir" + rand.Text()[:12], warn: warn, warned: map[string]bool{}, bytes: 64 << 20, pause: 200 * time.Millisecond}, nil
}

// Close ends the connections.
func (e *Elasticsearch) Close() error { return e.cluster.Close() }

// ErrPartial says that shards did not answer, so that something may be missing of what was shown.
var ErrPartial = errors.New("the answer is not complete: some shards did not answer")

// Complete is ErrPartial where any part of what was read so far may be missing.
func (e *Elasticsearch) Complete() error {
	if e.partial {
		return ErrPartial
	}
	return nil
}

func (e *Elasticsearch) once(warning string) {
	if !e.warned[warning] {
		e.warned[warning] = true
		e.warn(warning)
	}
}

// QueryError is a query that Elasticsearch's parser does not take, with the place.
type QueryError struct {
	KQL       string
	Line, Col int // from 1, in characters
	Reason    string
}

// grouped is how the parser of 8.19 stumbles over values that are joined within parentheses.
var grouped = regexp.MustCompile(`(?i)missing '\)' at '(and|or)'`)

// Error shows the line with a mark under the place.
func (q *QueryError) Error() string {
	lines := strings.Split(q.KQL, "\n")
	if q.Line < 1 || q.Line > len(lines) {
		return "the query is not understood: " + show.Clean(q.Reason)
	}
	text := []rune(lines[q.Line-1])
	before := text[:min(max(q.Col-1, 0), len(text))]
	where := fmt.Sprintf("line %d, character %d", q.Line, q.Col)
	if len(lines) == 1 {
		where = fmt.Sprintf("character %d", q.Col)
	}
	// The mark stands after as many columns as what is before it takes.
	indent := strings.Map(func(c rune) rune {
		if c == '\t' {
			return c
		}
		return ' '
	}, show.Widen(show.Clean(string(before))))
	hint := ""
	if grouped.MatchString(q.Reason) {
		hint = "\nElasticsearch 8.19 does not take field: (a or b), as Kibana does; write (field: a or field: b)"
	}
	return fmt.Sprintf("the query is not understood at %s: %s\n    %s\n    %s^%s", where, show.Clean(q.Reason), show.Clean(string(text)), indent, hint)
}

// fault is an error as Elasticsearch tells it.
type fault struct {
	Type     string  `json:"type"`
	Reason   string  `json:"reason"`
	CausedBy *fault  `json:"caused_by"`
	Root     []fault `json:"root_cause"`
	Failed   []struct {
		Index  string `json:"index"`
		Reason fault  `json:"reason"`
	} `json:"failed_shards"`
}

// walk calls fn for f and all that is beneath, until fn says that it has enough.
func (f *fault) walk(fn func(*fault) bool) bool {
	if fn(f) || f.CausedBy != nil && f.CausedBy.walk(fn) {
		return true
	}
	for i := range f.Root {
		if f.Root[i].walk(fn) {
			return true
		}
	}
	for i := range f.Failed {
		if f.Failed[i].Reason.walk(fn) {
			return true
		}
	}
	return false
}

func (f *fault) is(kind string) bool {
	return f.walk(func(f *fault) bool { return f.Type == kind })
}

// because is the deepest reason.
func (f *fault) because() string {
	for f.CausedBy != nil && f.CausedBy.Reason != "" {
		f = f.CausedBy
	}
	if len(f.Failed) > 0 {
		return f.Failed[0].Reason.because()
	}
	if len(f.Root) > 0 && f.CausedBy == nil {
		return f.Root[0].because()
	}
	return f.Reason
}

// answerError is an answer that is no result.
type answerError struct {
	status int
	fault  fault
	text   string
}

func (a *answerError) Error() string { return a.text }

// expired tells whether an error, or failures of shards, say that the point in time is gone.
func expired(err error) bool {
	var a *answerError
	return errors.As(err, &a) && a.fault.is("search_context_missing_exception")
}

func busy(err error) bool {
	var a *answerError
	return errors.As(err, &a) && (a.status == http.StatusTooManyRequests && !tooMuch(err) || a.status == http.StatusBadGateway || a.status == http.StatusServiceUnavailable || a.status == http.StatusGatewayTimeout)
}

var errLong = errors.New("the answer is too long")

// tooMuch tells whether fewer hits at once would help.
func tooMuch(err error) bool {
	var a *answerError
	return errors.Is(err, errLong) || errors.As(err, &a) && a.fault.is("circuit_breaking_exception")
}

// maxTries is how often a request is sent that nobody answers, or that a full cluster refuses.
const maxTries = 5

// ask sends one request and tries again where that can help: reading twice does no harm.
func (e *Elasticsearch) ask(ctx context.Context, method, path string, body any, into any) error {
	pause := e.pause
	for try := 1; ; try++ {
		err := e.try(ctx, method, path, body, into)
		var answered *answerError
		lost := err != nil && !errors.As(err, &answered) && !errors.Is(err, errLong) && try < len(e.cfg.Addresses)+1
		if err == nil || ctx.Err() != nil || !lost && !(busy(err) && try < maxTries) {
			return err
		}
		if lost && try < len(e.cfg.Addresses) {
			continue // at once, another node
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause *= 2
		}
	}
}

func (e *Elasticsearch) try(ctx context.Context, method, path string, body any, into any) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.RequestTimeout)
	defer cancel()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := e.cluster.Perform(req)
	if err != nil {
		return fmt.Errorf("elasticsearch at %s does not answer: %w; see indexer.addresses or WEIR_ELASTICSEARCH_URL", strings.Join(e.cfg.Addresses, ", "), err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, int64(e.bytes)+1))
	if err != nil {
		return fmt.Errorf("elasticsearch at %s broke off its answer: %w", strings.Join(e.cfg.Addresses, ", "), err)
	}
	if len(answer) > e.bytes {
		return errLong
	}
	if res.StatusCode >= 300 {
		return refusal(res.StatusCode, answer)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("elasticsearch: %s %.60s: the answer is not what it should be: %w", method, path, err)
	}
	if a, ok := into.(*result); ok {
		a.size = len(answer)
	}
	return nil
}

func refusal(status int, answer []byte) error {
	a := &answerError{status: status}
	var got struct{ Error json.RawMessage }
	if json.Unmarshal(answer, &got) == nil {
		_ = json.Unmarshal(got.Error, &a.fault) // an error may be a text alone
	}
	reason := a.fault.because()
	if reason == "" {
		reason = fmt.Sprintf("%.300s", answer)
	}
	reason = show.Clean(reason)
	switch {
	case status == http.StatusUnauthorized:
		a.text = "elasticsearch refuses the credentials: set indexer.username and password_env or password_file, or api_key_env or api_key_file (" + reason + ")"
	case status == http.StatusForbidden:
		a.text = "elasticsearch does not allow it: grant the user or the API key the index privileges read and view_index_metadata on logs-weir.* (" + reason + ")"
	case a.fault.walk(func(f *fault) bool { return strings.Contains(f.Reason, "unknown query [kql]") }):
		a.text = "this Elasticsearch has no kql query, of which weir search is made; 8.19 has it"
	default:
		a.text = fmt.Sprintf("elasticsearch: status %d: %s", status, reason)
	}
	return a
}

// place finds the place of a fault in the query.
func (q *Query) place(err error) error {
	var a *answerError
	if !errors.As(err, &a) {
		return err
	}
	var found error
	a.fault.walk(func(f *fault) bool {
		if f.Type != "kql_parsing_exception" {
			return false
		}
		e := &QueryError{KQL: q.KQL, Reason: f.Reason}
		if at, reason, ok := strings.Cut(f.Reason, ": "); ok {
			if n, _ := fmt.Sscanf(at, "line %d:%d", &e.Line, &e.Col); n == 2 {
				e.Reason = reason
			}
		}
		found = e
		return true
	})
	if found != nil {
		return found
	}
	if a.status == http.StatusBadRequest && a.fault.is("query_shard_exception") {
		return fmt.Errorf("a value in the query is not of its field's type: %w", err)
	}
	return err
}

// result is the answer to a search.
type result struct {
	PIT      string `json:"pit_id"`
	TimedOut bool   `json:"timed_out"`
	Shards   struct {
		Total, Failed int
		Failures      []struct {
			Index  string
			Reason fault
		}
	} `json:"_shards"`
	Clusters struct {
		Skipped, Partial, Failed int
	} `json:"_clusters"`
	Hits struct {
		Hits []Hit
	}
	Aggregations json.RawMessage

	size int // in bytes
}

// missing tells what did not answer, "" where all did.
func (a *result) missing() string {
	var parts []string
	if a.Shards.Failed > 0 {
		part := fmt.Sprintf("%d of %d shards failed", a.Shards.Failed, a.Shards.Total)
		if len(a.Shards.Failures) > 0 {
			f := &a.Shards.Failures[0]
			part += ": " + show.Clean(f.Index+": "+f.Reason.because())
		}
		parts = append(parts, part)
	}
	if n := a.Clusters.Skipped + a.Clusters.Partial + a.Clusters.Failed; n > 0 {
		parts = append(parts, fmt.Sprintf("%d remote clusters did not answer wholly", n))
	}
	if a.TimedOut {
		parts = append(parts, "the search timed out")
	}
	return strings.Join(parts, "; ")
}

// gone tells whether shards lost the point in time, such as when their node restarted.
func (a *result) gone() bool {
	for i := range a.Shards.Failures {
		if a.Shards.Failures[i].Reason.is("search_context_missing_exception") {
			return true
		}
	}
	return false
}

// search sends one search; what did not answer is told.
func (e *Elasticsearch) search(ctx context.Context, q *Query, path string, body map[string]any) (*result, error) {
	a := &result{}
	if err := e.ask(ctx, http.MethodPost, path, body, a); err != nil {
		return nil, q.place(err)
	}
	if m := a.missing(); m != "" && !a.gone() {
		e.partial = true
		e.once(m)
	}
	return a, nil
}

func indexPath(index, rest string) string {
	return "/" + strings.ReplaceAll(url.PathEscape(index), "%2A", "*") + rest
}
