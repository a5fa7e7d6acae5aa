package lives

import (
	"errors"
	"fmt"
	"time"
)

// Config of a tracker. docs/signals.md says what the values mean to an operator.
type Config struct {
	MaxContainers int           `yaml:"max_containers"` // of one tracker; beyond it the one heard of longest ago is forgotten
	MaxNodes      int           `yaml:"max_nodes"`
	Expire        time.Duration `yaml:"expire"`    // a container or node of which nothing is heard for so long is forgotten
	CoolDown      time.Duration `yaml:"cool_down"` // between two firings of one state of one container or node

	CrashLoop CrashLoop `yaml:"crash_loop"`
	Flapping  Flapping  `yaml:"flapping_health"`
	Unhealthy Unhealthy `yaml:"unhealthy"`
	Silent    Silent    `yaml:"silent_container"`
	Noisy     Noisy     `yaml:"noisy_container"`
	Engine    Engine    `yaml:"engine_restart"`
	NodeQuiet NodeQuiet `yaml:"node_quiet"`
}

// CrashLoop: so many runs in a row that were shorter than Stable. A run that lasts so long ends the loop.
type CrashLoop struct {
	Exits  int           `yaml:"exits"`
	Stable time.Duration `yaml:"stable"`
}

// Flapping: so many changes between healthy and unhealthy within a time. It ends when there was none for as long.
type Flapping struct {
	Changes int           `yaml:"changes"`
	Within  time.Duration `yaml:"within"`
}

// Unhealthy: the engine has called the container unhealthy for so long.
type Unhealthy struct {
	For time.Duration `yaml:"for"`
}

// Silent: a container that wrote for at least Age, and Lines lines, writes nothing for After, and for Gaps times its longest pause of the last day.
type Silent struct {
	Age   time.Duration `yaml:"age"`
	Lines uint64        `yaml:"lines"`
	After time.Duration `yaml:"after"`
	Gaps  float64       `yaml:"gaps"`
}

// Noisy: a container writes Lines or Bytes a minute, in so many minutes in a row. It ends after as many of less than half.
type Noisy struct {
	Lines   int64 `yaml:"lines"`
	Bytes   int64 `yaml:"bytes"`
	Minutes int   `yaml:"minutes"`
}

// Engine: of a node's running containers at least Containers, and this share, end within Within, and half of them are started again, not made anew.
type Engine struct {
	Containers int           `yaml:"containers"`
	Share      float64       `yaml:"share"`
	Within     time.Duration `yaml:"within"`
}

// NodeQuiet: nothing of a node that was heard for at least Age comes for After, and for Gaps times its longest pause of the last day.
type NodeQuiet struct {
	Age   time.Duration `yaml:"age"`
	After time.Duration `yaml:"after"`
	Gaps  float64       `yaml:"gaps"`
}

// DefaultConfig fires where an operator would look, and leaves alone what mends itself.
func DefaultConfig() Config {
	return Config{MaxContainers: 20_000, MaxNodes: 5000, Expire: 24 * time.Hour, CoolDown: 10 * time.Minute,
		CrashLoop: CrashLoop{Exits: 4, Stable: 10 * time.Minute},
		Flapping:  Flapping{Changes: 4, Within: 15 * time.Minute},
		Unhealthy: Unhealthy{For: 30 * time.Second},
		Silent:    Silent{Age: time.Hour, Lines: 100, After: 10 * time.Minute, Gaps: 4},
		Noisy:     Noisy{Lines: 60_000, Bytes: 60 << 20, Minutes: 3},
		Engine:    Engine{Containers: 3, Share: 0.8, Within: 2 * time.Minute},
		NodeQuiet: NodeQuiet{Age: time.Hour, After: 10 * time.Minute, Gaps: 3}}
}

// Validate joins what is wrong, each with its key.
func (c Config) Validate() error {
	var errs []error
	bad := func(cond bool, key, what string) {
		if cond {
			errs = append(errs, fmt.Errorf("%s: %s", key, what))
		}
	}
	bad(c.MaxContainers < 1, "max_containers", "must be at least 1")
	bad(c.MaxNodes < 1, "max_nodes", "must be at least 1")
	bad(c.Expire < time.Hour, "expire", "must be at least 1h")
	bad(c.CoolDown < 0, "cool_down", "must not be negative")
	bad(c.CrashLoop.Exits < 2 || c.CrashLoop.Exits > maxExits, "crash_loop.exits", fmt.Sprintf("must be from 2 to %d", maxExits))
	bad(c.CrashLoop.Stable < time.Second, "crash_loop.stable", "must be at least 1s")
	bad(c.Flapping.Changes < 2 || c.Flapping.Changes > maxChanges, "flapping_health.changes", fmt.Sprintf("must be from 2 to %d", maxChanges))
	bad(c.Flapping.Within < time.Second, "flapping_health.within", "must be at least 1s")
	bad(c.Unhealthy.For < 0, "unhealthy.for", "must not be negative")
	bad(c.Silent.Age < time.Minute, "silent_container.age", "must be at least 1m")
	bad(c.Silent.After < time.Minute, "silent_container.after", "must be at least 1m")
	bad(!(c.Silent.Gaps >= 1), "silent_container.gaps", "must be at least 1")
	bad(c.Noisy.Lines < 1, "noisy_container.lines", "must be at least 1")
	bad(c.Noisy.Bytes < 1, "noisy_container.bytes", "must be at least 1")
	bad(c.Noisy.Minutes < 1, "noisy_container.minutes", "must be at least 1")
	bad(c.Engine.Containers < 2, "engine_restart.containers", "must be at least 2")
	bad(!(c.Engine.Share > 0 && c.Engine.Share <= 1), "engine_restart.share", "must be above 0, and at most 1")
	bad(c.Engine.Within < time.Second, "engine_restart.within", "must be at least 1s")
	bad(c.NodeQuiet.Age < time.Minute, "node_quiet.age", "must be at least 1m")
	bad(c.NodeQuiet.After < time.Minute, "node_quiet.after", "must be at least 1m")
	bad(!(c.NodeQuiet.Gaps >= 1), "node_quiet.gaps", "must be at least 1")
	return errors.Join(errs...)
}
