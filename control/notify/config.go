package notify

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"weir/schema"
)

// Config says whom signals are told to.
type Config struct {
	Alertmanager []Target      `yaml:"alertmanager"` // base URLs, such as http://127.0.0.1:9093; each is told everything
	Webhooks     []Target      `yaml:"webhooks"`     // get what Alertmanager's webhooks get, version 4
	MinSeverity  string        `yaml:"min_severity"` // of the signals that are told: info, warn, error or fatal
	GroupBy      []string      `yaml:"group_by"`     // labels: alerts that have the same go to a webhook together; Alertmanager groups by itself
	Wait         time.Duration `yaml:"wait"`         // how long a webhook's group waits for more
	Resend       time.Duration `yaml:"resend"`       // between two tellings of what fires to an Alertmanager, which forgets it after four times that
	Repeat       time.Duration `yaml:"repeat"`       // between two tellings of what still fires to a webhook
	PointFor     time.Duration `yaml:"point_for"`    // how long a single happening counts as firing
	GiveUp       time.Duration `yaml:"give_up"`      // how long after its end an alert is still told to who did not take it
	MaxAlerts    int           `yaml:"max_alerts"`
}

// Target is an address and what it asks for. An address that is a secret comes from the environment or a file.
type Target struct {
	URL       string `yaml:"url"`
	URLEnv    string `yaml:"url_env"`
	URLFile   string `yaml:"url_file"`
	TokenEnv  string `yaml:"token_env"` // sent as Authorization: Bearer
	TokenFile string `yaml:"token_file"`
	CAFile    string `yaml:"ca_file"`
}

// DefaultConfig tells nobody.
func DefaultConfig() Config {
	return Config{MinSeverity: "warn", GroupBy: []string{"alertname"}, Wait: 5 * time.Second, Resend: time.Minute, Repeat: 4 * time.Hour, PointFor: 5 * time.Minute, GiveUp: time.Hour, MaxAlerts: 10_000}
}

// Any tells whether anybody is to be told.
func (c *Config) Any() bool { return len(c.Alertmanager)+len(c.Webhooks) > 0 }

// Validate joins what is wrong, each with its key.
func (c *Config) Validate() error {
	var errs []error
	bad := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for key, targets := range map[string][]Target{"alertmanager": c.Alertmanager, "webhooks": c.Webhooks} {
		for i := range targets {
			if err := targets[i].validate(); err != nil {
				for _, line := range strings.Split(err.Error(), "\n") {
					errs = append(errs, fmt.Errorf("%s[%d].%s", key, i, line))
				}
			}
		}
	}
	bad(schema.SeverityOf(c.MinSeverity) < schema.SeverityInfo, "min_severity: %q is not one of info, warn, error, fatal", c.MinSeverity)
	for i, l := range c.GroupBy {
		bad(labelName(l) != l, "group_by[%d]: %q is not the name of a label: a-z A-Z 0-9 _ alone", i, l)
	}
	bad(c.Wait < 0 || c.Wait > time.Hour, "wait: %v is not within 0 and 1h", c.Wait)
	bad(c.Resend < time.Second || c.Resend > time.Hour, "resend: %v is not within 1s and 1h", c.Resend)
	bad(c.Repeat < time.Minute, "repeat: %v is less than 1m", c.Repeat)
	bad(c.PointFor < time.Second, "point_for: %v is less than 1s", c.PointFor)
	bad(c.GiveUp < time.Minute, "give_up: %v is less than 1m", c.GiveUp)
	bad(c.MaxAlerts < 1 || c.MaxAlerts > 1_000_000, "max_alerts: %d is not within 1 and 1000000", c.MaxAlerts)
	return errors.Join(errs...)
}

func (t *Target) validate() error {
	given := 0
	for _, s := range []string{t.URL, t.URLEnv, t.URLFile} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		return errors.New("url: give one of url, url_env and url_file")
	}
	if t.TokenEnv != "" && t.TokenFile != "" {
		return errors.New("token_env: give one of token_env and token_file")
	}
	if t.URL != "" {
		if err := validURL(t.URL); err != nil {
			return fmt.Errorf("url: %w", err)
		}
	}
	return nil
}

// validURL never says what the URL is: it may be a secret.
func validURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("not an http or https URL")
	case u.User != nil:
		return errors.New("credentials do not belong into the URL: use token_env or token_file, or url_env or url_file for all of it")
	}
	return nil
}
