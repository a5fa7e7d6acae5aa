package multiline

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Config says which lines belong together and how large a record may become.
type Config struct {
	Recognisers []string      `yaml:"recognisers"` // of java, python, go, dotnet, node, ruby, rust; or all; none turns them off
	Start       string        `yaml:"start"`       // own pattern: a line that matches starts a record, all others continue it
	Continue    string        `yaml:"continue"`    // own pattern: a line that matches continues the record before it
	MaxLines    int           `yaml:"max_lines"`   // of one record
	MaxBytes    int           `yaml:"max_bytes"`   // of one record, its inner newlines included
	MaxGap      time.Duration `yaml:"max_gap"`     // between the timestamps of neighbouring lines of one record
}

// DefaultConfig recognises the traces of all languages.
func DefaultConfig() Config {
	return Config{Recognisers: []string{"all"}, MaxLines: 500, MaxBytes: 256 << 10, MaxGap: 2 * time.Second}
}

// Validate joins what is wrong, each with its key.
func (c Config) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for _, name := range c.Recognisers {
		bad(languages(name) == 0, "recognisers: %q is none of %s or all", name, strings.Join(names[:], ", "))
	}
	_, err := regexp.Compile(c.Start)
	bad(err != nil, "start: %w", err)
	_, err = regexp.Compile(c.Continue)
	bad(err != nil, "continue: %w", err)
	bad(c.Start != "" && c.Continue != "", "continue: has no use beside start, which decides every line")
	bad(c.MaxLines < 1 || c.MaxLines > 100_000, "max_lines: %d is not within 1 and 100000", c.MaxLines)
	bad(c.MaxBytes < 1<<10 || c.MaxBytes > 16<<20, "max_bytes: %d is not within 1 KiB and 16 MiB", c.MaxBytes)
	bad(c.MaxGap <= 0, "max_gap: must be above zero")
	return errors.Join(errs...)
}

// A language is one bit of the set of recognisers that are on.
type language uint8

const (
	java language = 1 << iota
	python
	golang
	dotnet
	node
	ruby
	rust
)

// The names stand in the order of the bits.
var names = [...]string{"java", "python", "go", "dotnet", "node", "ruby", "rust"}

// classes are the languages whose exceptions show as a class name and frames that begin with "at".
const classes = java | dotnet | node

// grows are the languages that may continue a line which shows no sign of a trace itself.
const grows = classes | ruby | golang

// languages gives the bits of a recogniser's name, or 0 when there is no such recogniser.
func languages(name string) language {
	if name == "all" {
		return 1<<len(names) - 1
	}
	if i := slices.Index(names[:], name); i >= 0 {
		return 1 << i
	}
	return 0
}
