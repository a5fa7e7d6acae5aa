package executor

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"weir/control"
)

// Config of the executor. What it allows holds whatever a decider orders.
type Config struct {
	Name        string             `yaml:"name"`          // whose orders it carries out: the node's, as agent.node has it
	DockerHost  string             `yaml:"docker_host"`   // as agent.docker_host; none where no containers are acted on
	StateDir    string             `yaml:"state_dir"`     // holds the ledger of orders
	TrustedKeys []string           `yaml:"trusted_keys"`  // files with the public keys of deciders
	SignKeyFile string             `yaml:"sign_key_file"` // this executor's own key, for outcomes; where control.executor_keys has its public half
	Actions     []string           `yaml:"actions"`       // those that it carries out
	Limit       control.Budget     `yaml:"limit"`         // of this executor, over a sliding window
	Never       control.Match      `yaml:"never"`         // containers that any of these lists names are never acted on
	Webhooks    map[string]Webhook `yaml:"webhooks"`      // by name; an order gives the name alone
	Kubernetes  Kubernetes         `yaml:"kubernetes"`
}

// Webhook is an address that is told of a decision, by POST, as JSON.
type Webhook struct {
	URL       string `yaml:"url"`
	TokenFile string `yaml:"token_file"` // sent as Bearer; read each time
}

// Kubernetes says how the cluster's API is asked.
type Kubernetes struct {
	API       string `yaml:"api"`        // https://host:port; none when empty
	TokenFile string `yaml:"token_file"` // read for each request
	CAFile    string `yaml:"ca_file"`
}

// NoDocker as docker_host says that the executor has no engine.
const NoDocker = "none"

// DefaultConfig acts on this host's containers, once it has keys.
func DefaultConfig() Config {
	name, _ := os.Hostname()
	return Config{Name: name, StateDir: "/var/lib/weir/executor", Actions: []string{control.Restart, control.Start, control.Stop, control.Recreate}, Limit: control.Budget{Actions: 30, Per: 10 * time.Minute},
		Never: control.Infrastructure()}
}

// Validate joins what is wrong, each with its key.
func (c *Config) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(c.Name == "" || strings.ContainsRune(c.Name, '/'), "name: %q is empty or has a slash", c.Name)
	bad(c.StateDir == "", "state_dir: is empty")
	bad(len(c.TrustedKeys) == 0, "trusted_keys: name at least one file with a decider's public key (`weir control keygen` makes them)")
	all := slices.Concat(control.ContainerActions, []string{control.Webhook}, control.KubernetesActions)
	for i, a := range c.Actions {
		bad(!slices.Contains(all, a), "actions[%d]: %q is not one of %s", i, a, strings.Join(all, ", "))
		bad(slices.Contains(control.KubernetesActions, a) && c.Kubernetes.API == "", "actions[%d]: %s needs kubernetes.api", i, a)
		bad(slices.Contains(control.ContainerActions, a) && c.DockerHost == NoDocker, "actions[%d]: %s needs an engine, and docker_host is none", i, a)
	}
	bad(c.Limit.Actions < 1 || c.Limit.Per < time.Second || c.Limit.Per > 24*time.Hour, "limit: actions must be at least 1, and per within 1s and 24h")
	for name, w := range c.Webhooks {
		u, err := url.Parse(w.URL)
		bad(err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil, "webhooks.%s.url: is not an http or https URL without credentials", name)
	}
	if c.Kubernetes.API != "" {
		u, err := url.Parse(c.Kubernetes.API)
		bad(err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "", "kubernetes.api: is not https://host:port")
	}
	return errors.Join(errs...)
}
