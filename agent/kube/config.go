package kube

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"
)

// Config says how the API is reached.
type Config struct {
	API       string        `yaml:"api"`        // auto: the cluster that the agent runs in, if it runs in one; off; or https://host:port
	TokenFile string        `yaml:"token_file"` // read for each request, since tokens are short-lived. With auto the service account's; else none when empty
	CAFile    string        `yaml:"ca_file"`    // likewise; with an address and no file, the host's authorities are trusted
	Node      string        `yaml:"node"`       // this node's name in the cluster; agent.node when empty
	Wait      time.Duration `yaml:"wait"`       // the longest that a container's first line waits for the API to know its pod
}

// The values of api that are no address.
const (
	Auto = "auto"
	Off  = "off"
)

// serviceAccount is where the kubelet puts what a pod needs for the API.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

// DefaultConfig asks the API where the agent runs in a cluster.
func DefaultConfig() Config { return Config{API: Auto, Wait: 2 * time.Second} }

// Validate joins what is wrong, each with its key.
func (c Config) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if c.API != Auto && c.API != Off {
		u, err := url.Parse(c.API)
		bad(err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "", "api: is not auto, off or https://host:port")
	}
	bad(c.Wait < 0 || c.Wait > time.Minute, "wait: %v is not within 0 and 1m", c.Wait)
	return errors.Join(errs...)
}

// resolve finds the address and the files, or says why there is no API to ask; both are empty where nothing speaks of one.
func (c Config) resolve(env func(string) string) (resolved Config, why string) {
	if c.API != Auto {
		return c, ""
	}
	host, port := env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		c.API = Off
		return c, ""
	}
	c.API = "https://" + net.JoinHostPort(host, port)
	if c.CAFile == "" {
		c.CAFile = serviceAccount + "ca.crt"
	}
	if c.TokenFile == "" {
		c.TokenFile = serviceAccount + "token"
		if _, err := os.Stat(c.TokenFile); err != nil {
			c.API, why = Off, err.Error()
		}
	}
	return c, why
}
