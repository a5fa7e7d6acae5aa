// Package indexer is the sink that makes every record searchable in Elasticsearch, once: the record's id is the
// document's _id, and each item of each bulk request is judged by itself. docs/design.md has the failure table.
package indexer

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Config of the indexer. Credentials come from the environment or from files, never from the configuration itself. A file is
// read again when Elasticsearch refuses what it held.
type Config struct {
	Addresses      []string      `yaml:"addresses"`
	Username       string        `yaml:"username"`
	PasswordEnv    string        `yaml:"password_env"`
	PasswordFile   string        `yaml:"password_file"`
	APIKeyEnv      string        `yaml:"api_key_env"`
	APIKeyFile     string        `yaml:"api_key_file"`
	CAFile         string        `yaml:"ca_file"`
	Namespace      string        `yaml:"namespace"` // last part of the data streams' names
	Routing        []Rule        `yaml:"routing"`
	MaxDataStreams int           `yaml:"max_data_streams"` // in the cluster; past them records go to the dataset of their topic
	Lifecycle      Lifecycle     `yaml:"lifecycle"`
	Apply          *bool         `yaml:"apply"`           // install templates and policy at the start; null: only under `weir up`
	JSONBodies     bool          `yaml:"json_bodies"`     // index the fields of messages that are JSON objects
	BulkBytes      int           `yaml:"bulk_bytes"`      // the most of one bulk request, before compression
	BufferBytes    int           `yaml:"buffer_bytes"`    // of all partitions together
	Concurrency    int           `yaml:"concurrency"`     // the most bulk requests at once
	RequestTimeout time.Duration `yaml:"request_timeout"` // of one try
}

// Lifecycle is what the ILM policy says, in Elasticsearch's units. An empty warm or cold phase is left out.
type Lifecycle struct {
	RolloverSize string `yaml:"rollover_size"` // of the primary shard
	RolloverAge  string `yaml:"rollover_age"`
	WarmAfter    string `yaml:"warm_after"`
	ColdAfter    string `yaml:"cold_after"`
	DeleteAfter  string `yaml:"delete_after"` // after the rollover; empty: never
}

// DefaultConfig writes to the namespace "default" and keeps a month; the addresses are to be given.
func DefaultConfig() Config {
	return Config{Namespace: "default", MaxDataStreams: 50, Lifecycle: Lifecycle{RolloverSize: "50gb", RolloverAge: "1d", DeleteAfter: "30d"}, JSONBodies: true,
		BulkBytes: 4 << 20, BufferBytes: 32 << 20, Concurrency: 4, RequestTimeout: 60 * time.Second}
}

var (
	namespaceForm = regexp.MustCompile(`^[a-z0-9_.]{1,100}$`)
	ageForm       = regexp.MustCompile(`^[1-9][0-9]{0,8}[dhms]$`)
	sizeForm      = regexp.MustCompile(`^[1-9][0-9]{0,8}[kmgt]b$`)
)

// Validate joins what is wrong, each with its key.
func (c *Config) Validate() error {
	var errs []error
	bad := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(len(c.Addresses) == 0, "addresses: at least one URL is needed")
	for i, a := range c.Addresses {
		u, err := url.Parse(a)
		bad(err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https", "addresses[%d]: %q is not an http or https URL", i, a)
		bad(err == nil && u.User != nil, "addresses[%d]: credentials do not belong into the URL: use username and password_env or password_file", i)
	}
	bad(c.Username == "" && (c.PasswordEnv != "" || c.PasswordFile != ""), "username: is empty, and there is a password")
	bad(!namespaceForm.MatchString(c.Namespace), "namespace: %q must be of a-z 0-9 _ . alone, at most 100 of them", c.Namespace)
	for i := range c.Routing {
		if err := c.Routing[i].validate(); err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				errs = append(errs, fmt.Errorf("routing[%d].%s", i, line))
			}
		}
	}
	bad(c.MaxDataStreams < len(datasets) || c.MaxDataStreams > 10_000, "max_data_streams: %d is not within %d and 10000", c.MaxDataStreams, len(datasets))
	l := &c.Lifecycle
	bad(!sizeForm.MatchString(l.RolloverSize), "lifecycle.rollover_size: %q is not a size such as 50gb", l.RolloverSize)
	bad(!ageForm.MatchString(l.RolloverAge), "lifecycle.rollover_age: %q is not an age such as 1d", l.RolloverAge)
	for _, f := range [3][2]string{{"warm_after", l.WarmAfter}, {"cold_after", l.ColdAfter}, {"delete_after", l.DeleteAfter}} {
		bad(f[1] != "" && !ageForm.MatchString(f[1]), "lifecycle.%s: %q is not an age such as 7d", f[0], f[1])
	}
	bad(c.BulkBytes < minBulk || c.BulkBytes > 90<<20, "bulk_bytes: %d is not within 64 KiB and 90 MiB", c.BulkBytes)
	bad(c.BufferBytes < c.BulkBytes, "buffer_bytes: %d is less than bulk_bytes", c.BufferBytes)
	bad(c.Concurrency < 1 || c.Concurrency > 256, "concurrency: %d is not within 1 and 256", c.Concurrency)
	bad(c.RequestTimeout <= 0, "request_timeout: must be above zero")
	return errors.Join(errs...)
}
