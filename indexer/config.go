// Package indexer is the sink that makes every record searchable in Elasticsearch, once: the record's id is the
// document's _id, and each item of each bulk request is judged by itself. docs/design.md has the failure table.
package indexer

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// Config of the indexer. Credentials come from the environment or from files, never from the configuration itself.
type Config struct {
	Addresses      []string      `yaml:"addresses"`
	Username       string        `yaml:"username"`
	PasswordEnv    string        `yaml:"password_env"`
	PasswordFile   string        `yaml:"password_file"`
	APIKeyEnv      string        `yaml:"api_key_env"`
	APIKeyFile     string        `yaml:"api_key_file"`
	CAFile         string        `yaml:"ca_file"`
	Namespace      string        `yaml:"namespace"`  // last part of the data streams' names
	BulkBytes      int           `yaml:"bulk_bytes"` // of one bulk request, before compression
	RequestTimeout time.Duration `yaml:"request_timeout"`
}

// DefaultConfig writes to the namespace "default"; the addresses are to be given.
func DefaultConfig() Config {
	return Config{Namespace: "default", BulkBytes: 4 << 20, RequestTimeout: 60 * time.Second}
}

var namespaceForm = regexp.MustCompile(`^[a-z0-9_.]{1,100}$`)

// Validate joins what is wrong, each with its key.
func (c Config) Validate() error {
	var errs []error
	if len(c.Addresses) == 0 {
		errs = append(errs, errors.New("addresses: at least one URL is needed"))
	}
	for i, a := range c.Addresses {
		if u, err := url.Parse(a); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("addresses[%d]: %q is not an http or https URL", i, a))
		}
	}
	if !namespaceForm.MatchString(c.Namespace) {
		errs = append(errs, fmt.Errorf("namespace: %q must be of a-z 0-9 _ . alone, at most 100 of them", c.Namespace))
	}
	if c.BulkBytes < 64<<10 || c.BulkBytes > 90<<20 {
		errs = append(errs, fmt.Errorf("bulk_bytes: %d is not within 64 KiB and 90 MiB", c.BulkBytes))
	}
	if c.RequestTimeout <= 0 {
		errs = append(errs, errors.New("request_timeout: must be above zero"))
	}
	return errors.Join(errs...)
}

func secret(env, file string) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		return strings.TrimSpace(string(b)), err
	}
	if env == "" {
		return "", nil
	}
	return os.Getenv(env), nil
}
