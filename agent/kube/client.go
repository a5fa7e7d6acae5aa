// Package kube follows the pods of one node through the Kubernetes API: it lists them, and then watches for changes. It
// is all that the agent needs of a cluster, so it is written over net/http; docs/decisions has why.
//
// Nothing depends on it but attributes of records. Whatever fails is told, counted, and tried again.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Client knows the pods of a node. One goroutine, Run, asks the API; Pod may be called from any.
type Client struct {
	cfg      Config
	log      *slog.Logger
	requests *prometheus.CounterVec

	http *http.Client
	ca   []byte // that http trusts

	callTimeout time.Duration // for a list, and for a watch to begin
	watchFor    time.Duration // the least that the API is asked to go on with a watch; it ends by itself up to twice as late
	minPause    time.Duration // after the first failure; doubles up to maxPause
	maxPause    time.Duration

	told   string // the last failure that was logged
	toldAt time.Time
	well   bool // the last request that ended was answered

	mu      sync.Mutex
	pods    map[string]*Pod
	gone    map[string]time.Time // of pods: when the API removed them
	changed chan struct{}
}

// New makes a client, or none where there is no API to ask.
func New(cfg Config, env func(string) string, log *slog.Logger, reg prometheus.Registerer) *Client {
	cfg, why := cfg.resolve(env)
	if why != "" {
		log.Warn("records have no metadata of the Kubernetes API: this pod has no service account token", "err", why)
	}
	if cfg.API == Off {
		return nil
	}
	return &Client{cfg: cfg, log: log, callTimeout: 30 * time.Second, watchFor: 5 * time.Minute, minPause: time.Second, maxPause: time.Minute,
		requests: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "weir_agent_kubernetes_requests_total", Help: "Lists and watches of the Kubernetes API that ended, by result: ok, unreachable (no answer), broken (not understood, cut off, or no token or CA file), unauthorized, forbidden, expired (410: listed again), refused."}, []string{"result"}),
		pods:     map[string]*Pod{}, gone: map[string]time.Time{}, changed: make(chan struct{}, 1)}
}

// Run lists and watches until ctx ends.
func (c *Client) Run(ctx context.Context) {
	// The API's cache will do for the first list, so that a thousand agents that start at once are no burden. It may be behind:
	// after the API has said that a version is too old, its store is asked.
	from, version, listed := "0", "", false
	pause := c.minPause
	for ctx.Err() == nil {
		var err error
		if !listed {
			version, err = c.list(ctx, from)
			listed = err == nil
		} else {
			var progress bool
			if version, progress, err = c.watch(ctx, version); progress {
				pause = c.minPause
			}
		}
		if ctx.Err() != nil {
			break
		}
		if c.requests.WithLabelValues(result(err)).Inc(); err == nil {
			c.tellWell(listed)
			continue
		}
		c.tell(err)
		if outdated(err) {
			from, listed = "", false
		}
		wait := pause/2 + rand.N(pause/2+1)
		if s := (*statusError)(nil); errors.As(err, &s) {
			wait = max(wait, min(s.after, c.maxPause))
		}
		pause = min(2*pause, c.maxPause)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// list takes all pods of the node, page by page, in place of those that are known.
func (c *Client) list(ctx context.Context, version string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.callTimeout)
	defer cancel()
	found := map[string]*Pod{}
	q := url.Values{"limit": {"250"}}
	if version != "" {
		q.Set("resourceVersion", version)
	}
	for {
		body, err := c.get(ctx, q)
		if err != nil {
			return "", err
		}
		version, more, err := readList(body, func(o *object) error {
			if len(found) >= maxPods {
				return errTooMany
			}
			p := c.take(o)
			found[p.UID] = p
			return nil
		})
		body.Close()
		if err != nil {
			return "", broken(ctx, err)
		}
		if more == "" {
			c.replace(found)
			return version, nil
		}
		c.requests.WithLabelValues(result(nil)).Inc()
		q.Set("continue", more)
		q.Del("resourceVersion") // the token has it
	}
}

// errShort keeps an API that ends every watch at once from being asked without a pause.
var errShort = errors.New("the Kubernetes API ended a watch at once")

// watch follows changes from a version on until the stream ends. It returns the version to go on from, and whether
// anything was learned.
func (c *Client) watch(ctx context.Context, version string) (at string, progress bool, err error) {
	length := c.watchFor + rand.N(c.watchFor) // so that not all agents come back at once
	// The API ends the watch in time. A connection that died without a word must not last for ever.
	ctx, cancel := context.WithTimeout(ctx, length+c.callTimeout)
	defer cancel()
	q := url.Values{"watch": {"1"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {version}, "timeoutSeconds": {strconv.Itoa(max(1, int(length.Seconds())))}}
	body, err := c.get(ctx, q)
	if err != nil {
		return version, false, err
	}
	defer body.Close()
	began := time.Now()
	c.tellWell(false)
	err = readEvents(body, func(kind string, o *object) error {
		progress = true
		if v := o.Metadata.ResourceVersion; v != "" {
			version = v
		}
		switch kind {
		case added, modified:
			return c.put(c.take(o))
		case deleted:
			p, _ := o.pod()
			c.remove(p.UID)
		}
		return nil
	})
	if err == nil && !progress && time.Since(began) < min(time.Second, c.watchFor) {
		err = errShort
	}
	if err != nil {
		return version, progress, broken(ctx, err)
	}
	return version, true, nil
}

// get asks for pods of the node. The caller closes the body.
func (c *Client) get(ctx context.Context, q url.Values) (io.ReadCloser, error) {
	if err := c.trust(); err != nil {
		return nil, err
	}
	q.Set("fieldSelector", "spec.nodeName="+c.cfg.Node)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.cfg.API, "/")+"/api/v1/pods?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "weir")
	if c.cfg.TokenFile != "" {
		token, err := readSmall(c.cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("agent.kubernetes.token_file: %w", err)
		}
		token = bytes.TrimSpace(token)
		if len(token) == 0 || bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("agent.kubernetes.token_file: %s does not hold one line with a token", c.cfg.TokenFile)
		}
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, &unreachable{err}
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	s := &statusError{}
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	_ = json.Unmarshal(b, s) // a proxy's answer is not the API's
	s.Code = res.StatusCode
	if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && n > 0 {
		s.after = time.Duration(min(n, 3600)) * time.Second
	}
	return nil, s
}

// trust makes the HTTP client, and makes it anew when the authorities' file changed.
func (c *Client) trust() error {
	var ca []byte
	var pool *x509.CertPool
	if c.cfg.CAFile != "" {
		var err error
		if ca, err = readSmall(c.cfg.CAFile); err != nil {
			return fmt.Errorf("agent.kubernetes.ca_file: %w", err)
		}
		if pool = x509.NewCertPool(); !pool.AppendCertsFromPEM(ca) {
			return fmt.Errorf("agent.kubernetes.ca_file: %s holds no certificate in PEM", c.cfg.CAFile)
		}
	}
	if c.http != nil && bytes.Equal(ca, c.ca) {
		return nil
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.ca = ca
	c.http = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this server
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: c.callTimeout, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: c.callTimeout, ResponseHeaderTimeout: c.callTimeout, IdleConnTimeout: 90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}},
	}
	return nil
}

// readSmall reads a file that has no reason to be large.
func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const limit = 1 << 20
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && len(b) > limit {
		err = &fs.PathError{Op: "read", Path: name, Err: errors.New("has more than 1 MiB")}
	}
	return b, err
}

// take makes a pod of an object.
func (c *Client) take(o *object) *Pod {
	p, cut := o.pod()
	if cut {
		c.log.Warn("a pod has more labels than are kept; the last in the alphabet are left out", "namespace", p.Namespace, "pod", p.Name, "bytes", maxLabels)
	}
	return p
}

// statusError is an answer of the API that is not what was asked for.
type statusError struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	after   time.Duration
	event   bool // it came in the stream of a watch
}

func (s *statusError) Error() string {
	return fmt.Sprintf("the Kubernetes API answers %d %.60s: %.500s", s.Code, s.Reason, s.Message)
}

// unreachable is a request without an answer.
type unreachable struct{ err error }

func (u *unreachable) Error() string { return u.err.Error() }
func (u *unreachable) Unwrap() error { return u.err }

// broken tells a body that took too long from one that cannot be understood.
func broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &unreachable{fmt.Errorf("the answer of the Kubernetes API does not end: %w", ctx.Err())}
	}
	return err
}

// outdated tells that a watch cannot go on from where it was: the version is too old, or newer than what the API has since
// its store was restored.
func outdated(err error) bool {
	var s *statusError
	return errors.As(err, &s) && (s.event || s.Code == http.StatusGone || s.Code == http.StatusBadRequest || s.Code == http.StatusGatewayTimeout)
}

// result is what the metric says of a request.
func result(err error) string {
	var s *statusError
	var u *unreachable
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &u):
		return "unreachable"
	case !errors.As(err, &s):
		return "broken"
	case s.Code == http.StatusUnauthorized:
		return "unauthorized"
	case s.Code == http.StatusForbidden:
		return "forbidden"
	case s.Code == http.StatusGone:
		return "expired"
	}
	return "refused"
}

// tell logs a failure when it is another one than before, or a while has passed. That a watch must start over is no failure.
func (c *Client) tell(err error) {
	why := result(err)
	c.well = false
	if why == "expired" || why == c.told && time.Since(c.toldAt) < 10*time.Minute {
		return
	}
	c.told, c.toldAt = why, time.Now()
	todo := "trying again"
	switch why {
	case "forbidden":
		todo = "grant the agent's service account a ClusterRole with the verbs get, list and watch on the resource pods"
	case "unauthorized":
		todo = "see that agent.kubernetes.token_file holds a token which this cluster takes"
	}
	c.log.Warn("logs are collected without new metadata of the Kubernetes API", "api", c.cfg.API, "node", c.cfg.Node, "err", err, "todo", todo)
}

// tellWell logs that the API answers, when it did not before.
func (c *Client) tellWell(listed bool) {
	if c.well {
		return
	}
	c.well = true
	c.mu.Lock()
	n := len(c.pods)
	c.mu.Unlock()
	if listed && n == 0 {
		c.log.Warn("the Kubernetes API has no pod of this node; is agent.kubernetes.node its name there?", "api", c.cfg.API, "node", c.cfg.Node)
		return
	}
	c.log.Info("metadata of pods come from the Kubernetes API", "api", c.cfg.API, "node", c.cfg.Node, "pods", n)
}
