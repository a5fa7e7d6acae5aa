// Package status is weir's status page: the data path with rates and lags, nodes, containers with their last hour, signals, actions, losses and
// dead letters, and a search. It reads alone, from the process's metrics and from a light look at Kafka's topics, and keeps a bounded amount in memory.
package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/ingest"
	"weir/internal/secret"
	"weir/schema"
)

// Config of the page. It is served at http.listen. Where that is not a loopback address a token is needed; where one is set it is needed everywhere.
type Config struct {
	TokenEnv  string `yaml:"token_env"`
	TokenFile string `yaml:"token_file"`
	ClearText bool   `yaml:"clear_text"`            // the token may be asked for beyond loopback without http.tls, because something else encrypts, such as a service mesh
	LogsBytes int64  `yaml:"logs_bytes_per_second"` // of weir.logs, for nodes and containers; of what is more, some is passed over. 0: none of it
}

// DefaultConfig needs no token, and reads of the logs what costs next to nothing.
func DefaultConfig() Config { return Config{LogsBytes: 4 << 20} }

// Validate joins what is wrong, each with its key.
func (c *Config) Validate() error {
	if c.TokenEnv != "" && c.TokenFile != "" {
		return errors.New("token_env: give one of token_env and token_file")
	}
	if c.LogsBytes < 0 {
		return errors.New("logs_bytes_per_second: is below zero")
	}
	return nil
}

// ValidateClear says what is wrong where the page is served beyond loopback without TLS: whoever is on the way would read the token.
func (c *Config) ValidateClear(addr string) error {
	key := "token_file"
	if c.TokenEnv != "" {
		key = "token_env"
	}
	if c.ClearText || c.TokenEnv == "" && c.TokenFile == "" {
		return nil
	}
	return fmt.Errorf("%s: the token would cross the network in clear text: http.listen is %q and there is no http.tls; set http.tls, or clear_text: true where something else encrypts", key, addr)
}

// minToken is the least length of a token: shorter ones can be guessed.
const minToken = 16

// token is "" where none is set.
func (c *Config) token() (string, error) {
	if c.TokenEnv == "" && c.TokenFile == "" {
		return "", nil
	}
	token, err := secret.Read(c.TokenEnv, c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("status.token_file: %w", err)
	}
	if len(token) < minToken {
		return "", fmt.Errorf("status: the token has fewer than %d characters", minToken)
	}
	return token, nil
}

// Kafka is what the page asks Kafka for; *ingest.Kafka has it.
type Kafka interface {
	Watch(ctx context.Context, topic string, l ingest.Looking, fn func(*schema.Batch), skipped func(messages int64)) error
	TopicOffsets(ctx context.Context, topics ...string) (map[ingest.TopicPartition][2]int64, error)
	GroupOffsets(ctx context.Context, group string, of map[ingest.TopicPartition][2]int64) (map[ingest.TopicPartition]int64, error)
}

// Hit is a record that a search found.
type Hit struct {
	ID    string `json:"id"`
	Time  string `json:"time"`
	Level string `json:"level"`
	What  string `json:"what"`
	Body  string `json:"body"`
}

// Group is a consumer group.
type Group struct {
	Name     string
	Topics   []string
	Patience time.Duration // how long it may be behind without a commit until it counts as stuck
}

// Deps is what the page is made from.
type Deps struct {
	Kafka   Kafka
	Metrics prometheus.Gatherer
	Groups  []Group // in the order of the data path
	Search  func(ctx context.Context, kql, since string, limit int) ([]Hit, []string, error)
	Version string
	Local   bool // http.listen is a loopback address
	Log     *slog.Logger
}

// Page collects and serves. Run owns the goroutines; what they collect is read under mu.
type Page struct {
	cfg   Config
	deps  Deps
	token string
	began time.Time
	busy  chan struct{} // a place for each search under way

	mu         sync.Mutex
	containers map[string]*container
	nodes      map[string]*node
	lists      map[string]*list
	skipped    int64
	flow       flow
}

// New prepares a page; Run fills it.
func New(cfg Config, deps Deps) (*Page, error) {
	token, err := cfg.token()
	if err != nil {
		return nil, err
	}
	p := &Page{cfg: cfg, deps: deps, token: token, began: time.Now(), busy: make(chan struct{}, 2), containers: map[string]*container{}, nodes: map[string]*node{}, lists: map[string]*list{}}
	for _, name := range listNames {
		p.lists[name] = &list{}
	}
	if token == "" && !deps.Local {
		deps.Log.Warn("the status page shows nothing: http.listen is not a loopback address and there is no token", "remedy", "set status.token_file or status.token_env")
	}
	return p, nil
}

// history is how many messages before the end of each partition the page begins with; mostBehind how far it lets itself fall behind.
const history, mostBehind = 100, 2000

// Run collects until ctx ends.
func (p *Page) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	watch := func(topic string, l ingest.Looking) {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := p.deps.Kafka.Watch(ctx, topic, l, p.take, p.skip)
				if ctx.Err() == nil {
					p.deps.Log.Debug("the status page cannot read a topic yet", "topic", topic, "err", err)
				}
				sleep(ctx, 5*time.Second)
			}
		})
	}
	for _, topic := range []string{schema.TopicEvents, schema.TopicSignals, schema.TopicActions, schema.TopicDeadLetter} {
		watch(topic, ingest.Looking{Last: history, Most: mostBehind})
	}
	if p.cfg.LogsBytes > 0 {
		watch(schema.TopicLogs, ingest.Looking{Most: mostBehind, BytesPerSecond: p.cfg.LogsBytes})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			p.look(ctx)
			sleep(ctx, lookEvery)
		}
	})
	wg.Wait()
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (p *Page) skip(messages int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skipped += messages
}
