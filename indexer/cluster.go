package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8"

	"weir/internal/secret"
)

// Cluster is the connection to Elasticsearch.
type Cluster struct {
	cfg  Config
	es   *elasticsearch.Client
	auth credentials
	idle func() // closes connections that are not in use
}

// Connect prepares the connection; nothing is sent yet.
func Connect(cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("indexer: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	transport.ResponseHeaderTimeout = cfg.RequestTimeout
	transport.MaxIdleConnsPerHost = cfg.Concurrency
	var err error
	if transport.TLSClientConfig, err = secret.TLS(cfg.CAFile); err != nil {
		return nil, fmt.Errorf("indexer.%w", err)
	}
	return connect(cfg, transport, transport.CloseIdleConnections)
}

func connect(cfg Config, transport http.RoundTripper, idle func()) (*Cluster, error) {
	c := &Cluster{cfg: cfg, idle: idle, auth: credentials{cfg: &cfg}}
	if err := c.auth.read(); err != nil {
		return nil, fmt.Errorf("indexer.%w", err)
	}
	var err error
	// One Perform is one try on one node: what to do after a failure is decided where the documents are known.
	c.es, err = elasticsearch.NewClient(elasticsearch.Config{Addresses: cfg.Addresses, Transport: transport, DisableRetry: true,
		ConnectionPoolFunc: func(all []*elastictransport.Connection, _ elastictransport.Selector) elastictransport.ConnectionPool {
			return newNodes(all)
		}})
	if err != nil {
		return nil, fmt.Errorf("indexer: %w", err)
	}
	return c, nil
}

// Close ends the connections.
func (c *Cluster) Close() error {
	c.idle()
	return nil
}

// perform sends one request, and reads the credentials anew when they are refused: a key's file may have been replaced.
func (c *Cluster) perform(req *http.Request) (*http.Response, error) {
	if h := c.auth.header(); h != "" {
		req.Header.Set("Authorization", h)
	}
	res, err := c.es.Perform(req)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		if err := c.auth.read(); err != nil {
			res.Body.Close()
			return nil, fmt.Errorf("the credentials are refused, and to read them anew fails: indexer.%w", err)
		}
	}
	return res, err
}

// Perform sends one request to one of the nodes, once; for those who read.
func (c *Cluster) Perform(req *http.Request) (*http.Response, error) { return c.perform(req) }

// credentials are the value of the Authorization header.
type credentials struct {
	cfg *Config
	mu  sync.Mutex
	now string
}

func (a *credentials) header() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

func (a *credentials) read() error {
	c := a.cfg
	now, err := secret.Credentials{Username: c.Username, PasswordEnv: c.PasswordEnv, PasswordFile: c.PasswordFile, APIKeyEnv: c.APIKeyEnv, APIKeyFile: c.APIKeyFile}.Header()
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = now
	return nil
}

type statusError struct {
	code int
	text string
}

func (e statusError) Error() string { return e.text }

// code is the status that Elasticsearch answered, 0 where the error is another.
func code(err error) int {
	var s statusError
	errors.As(err, &s)
	return s.code
}

// maxAnswer bounds what is read of an answer: about 100 bytes an item, for the smallest documents.
const maxAnswer = 256 << 20

func readBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return b, err
}

func (c *Cluster) call(ctx context.Context, method, path, body string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.perform(req)
	if err != nil {
		return fmt.Errorf("elasticsearch at %v: %s %s: %w", c.cfg.Addresses, method, path, err)
	}
	defer res.Body.Close()
	answer, err := readBounded(res.Body)
	if err != nil {
		return fmt.Errorf("elasticsearch: %s %s: %w", method, path, err)
	}
	if res.StatusCode >= 300 {
		return statusError{res.StatusCode, fmt.Sprintf("elasticsearch: %s %s: status %d: %.300s", method, path, res.StatusCode, answer)}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// streams lists the data streams of weir that the cluster has.
func (c *Cluster) streams(ctx context.Context) ([]string, error) {
	var got struct {
		Streams []struct {
			Name string `json:"name"`
		} `json:"data_streams"`
	}
	if err := c.call(ctx, http.MethodGet, "/_resolve/index/logs-weir.*?filter_path=data_streams.name", "", &got); err != nil {
		return nil, err
	}
	var names []string
	for _, s := range got.Streams {
		names = append(names, s.Name)
	}
	return names, nil
}

// nodes is the pool of the cluster's addresses. The library's own leaves a node out for a minute at first and for half an hour
// after a few failures, with a goroutine for each; here a node that restarts is in use again within 30 s, and
// one that stays dead costs one request in that time.
type nodes struct {
	all  []*elastictransport.Connection
	next int
}

func newNodes(all []*elastictransport.Connection) *nodes { return &nodes{all: all} }

const (
	firstRest = time.Second
	longRest  = 30 * time.Second
)

// rested is when a node may be tried again.
func rested(c *elastictransport.Connection) time.Time {
	if !c.IsDead {
		return time.Time{}
	}
	return c.DeadSince.Add(min(firstRest<<min(c.Failures-1, 10), longRest))
}

// Next takes turns among the nodes that are well, and takes the one that rested longest where none is. The library calls
// all methods under one lock.
func (n *nodes) Next() (*elastictransport.Connection, error) {
	if len(n.all) == 0 {
		return nil, errors.New("no address is configured")
	}
	now := time.Now()
	best := -1
	for i := range n.all {
		at := (n.next + i) % len(n.all)
		if !rested(n.all[at]).After(now) {
			best = at
			break
		}
		if best < 0 || rested(n.all[at]).Before(rested(n.all[best])) {
			best = at
		}
	}
	n.next = best + 1
	if c := n.all[best]; c.IsDead {
		c.DeadSince = now // others do not try it meanwhile
	}
	return n.all[best], nil
}

// OnSuccess is any answer at all.
func (n *nodes) OnSuccess(c *elastictransport.Connection) error {
	c.IsDead, c.Failures = false, 0
	return nil
}

// OnFailure is no answer.
func (n *nodes) OnFailure(c *elastictransport.Connection) error {
	c.IsDead, c.DeadSince = true, time.Now()
	c.Failures++
	return nil
}

// URLs lists all nodes.
func (n *nodes) URLs() []*url.URL {
	var all []*url.URL
	for _, c := range n.all {
		all = append(all, c.URL)
	}
	return all
}
