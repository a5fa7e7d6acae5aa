package processor

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"weir/processor/lives"
	"weir/processor/patterns"
	"weir/processor/rules"
)

// Config of the processor.
type Config struct {
	Rules   []string           `yaml:"rules"`   // rule files, folders of them, or patterns; looked at again every few seconds
	Windows []rules.WindowSpec `yaml:"windows"` // counts without a condition

	Interval time.Duration `yaml:"interval"` // between two commits while nothing is behind: how long what was counted waits to be told
	Idle     time.Duration `yaml:"idle"`     // a source that is silent for so long holds no window open
	Hold     time.Duration `yaml:"hold"`     // the most that a source which is behind the others holds windows open
	Lateness time.Duration `yaml:"lateness"` // how long after its end a window is corrected; what is later is told as an addition

	Patterns Patterns `yaml:"patterns"`
	Lives    Lives    `yaml:"lives"`

	MaxGroups   int `yaml:"max_groups"`   // of all rules together, in one partition of weir.partials
	MaxDistinct int `yaml:"max_distinct"` // of the things that distinct tells apart, in one pane of one group
}

// Patterns says whether templates of lines are mined, and how. docs/signals.md has the values' meaning.
type Patterns struct {
	Enabled         bool `yaml:"enabled"`
	patterns.Config `yaml:",inline"`
}

// Lives says whether states of containers and nodes are derived, and how. docs/signals.md has the values' meaning.
type Lives struct {
	Enabled      bool `yaml:"enabled"`
	lives.Config `yaml:",inline"`
}

// DefaultConfig counts by the minute.
func DefaultConfig() Config {
	c := Config{Patterns: Patterns{true, patterns.DefaultConfig()}, Lives: Lives{true, lives.DefaultConfig()},
		Interval: 200 * time.Millisecond, Idle: 400 * time.Millisecond, Hold: 30 * time.Second, Lateness: 10 * time.Minute, MaxGroups: 1_000_000, MaxDistinct: 1000}
	for _, by := range []string{"container_id", "app", "node", "image", "site"} {
		c.Windows = append(c.Windows, rules.WindowSpec{By: []string{by}, Window: time.Minute})
	}
	return c
}

// Validate joins what is wrong, each with its key. Rule files are read when the processor starts.
func (c Config) Validate() error {
	var errs []error
	bad := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(c.Interval < 10*time.Millisecond || c.Interval > time.Minute, "interval: must be 10ms to 1m")
	bad(c.Idle < 10*time.Millisecond || c.Idle > time.Hour, "idle: must be 10ms to 1h")
	bad(c.Hold < c.Idle || c.Hold > time.Hour, "hold: must be at least idle, and at most 1h")
	bad(c.Lateness < 0 || c.Lateness > 24*time.Hour, "lateness: must be 0s to 24h")
	bad(c.MaxGroups < 1, "max_groups: must be at least 1")
	bad(c.MaxDistinct < 1 || c.MaxDistinct > 10_000, "max_distinct: must be 1 to 10000")
	section := func(prefix string, err error) {
		if err == nil {
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			errs = append(errs, errors.New(prefix+line))
		}
	}
	_, err := rules.Windows(c.Windows)
	section("", err)
	section("patterns.", c.Patterns.Validate())
	section("lives.", c.Lives.Validate())
	return errors.Join(errs...)
}

// load reads the rule files and adds the windows.
func (c Config) load() (*rules.Set, error) {
	windows, err := rules.Windows(c.Windows)
	if err != nil {
		return nil, err
	}
	files, err := rules.Files(c.Rules)
	if err != nil {
		return nil, err
	}
	read, err := rules.Load(files)
	if err != nil {
		return nil, err
	}
	return rules.NewSet(windows, read)
}
