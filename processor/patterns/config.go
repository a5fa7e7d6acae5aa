package patterns

import (
	"errors"
	"fmt"
	"time"

	"weir/schema"
)

// Config of a miner. The bounds hold for one miner, of which a consumer has one per partition.
type Config struct {
	Similarity   float64       `yaml:"similarity"`    // share of equal words that makes a line one of a template
	MaxApps      int           `yaml:"max_apps"`      // beyond it the app that wrote longest ago is forgotten
	MaxTemplates int           `yaml:"max_templates"` // per app; beyond it the template seen longest ago is forgotten
	MaxBytes     int           `yaml:"max_bytes"`     // memory of all apps; beyond it templates are forgotten, of the app that holds most first
	MaxLine      int           `yaml:"max_line"`      // bytes of a line that count
	MaxWords     int           `yaml:"max_words"`     // words of a line that count
	Expire       time.Duration `yaml:"expire"`        // an app that writes nothing for so long is forgotten

	Learn       time.Duration `yaml:"learn"`        // no pattern of an app never seen before is told as new for so long
	LearnLines  int           `yaml:"learn_lines"`  // nor before so many lines, up to six times as long
	NewSeverity int32         `yaml:"new_severity"` // lowest severity of a new pattern that is told (OpenTelemetry: 13 WARN, 17 ERROR); 0 tells all
	ToldPerApp  int           `yaml:"told_per_app"` // new patterns of an app told one by one in a window, and jumps; the others become one signal with their number

	Window    time.Duration `yaml:"window"`     // of event time, in which a template's lines are counted
	RateCount int           `yaml:"rate_count"` // lines in a window, and
	RateRatio float64       `yaml:"rate_ratio"` // times the second busiest of the last 30 windows: a jump
	RateAfter int           `yaml:"rate_after"` // windows of history that a template must have
	CoolDown  time.Duration `yaml:"cool_down"`  // between two jumps of a template that are told
}

// DefaultConfig tells new errors and jumps that a person would call one.
func DefaultConfig() Config {
	return Config{Similarity: 0.6, MaxApps: 1000, MaxTemplates: 1000, MaxBytes: 64 << 20, MaxLine: 1024, MaxWords: 64, Expire: 7 * 24 * time.Hour,
		Learn: 10 * time.Minute, LearnLines: 1000, NewSeverity: schema.SeverityError, ToldPerApp: 10,
		Window: time.Minute, RateCount: 100, RateRatio: 5, RateAfter: 10, CoolDown: 30 * time.Minute}
}

// Validate joins what is wrong, each with its key.
func (c Config) Validate() error {
	var errs []error
	bad := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(!(c.Similarity >= 0.3 && c.Similarity <= 1), "similarity: must be from 0.3 to 1")
	bad(c.MaxApps < 1, "max_apps: must be at least 1")
	bad(c.MaxTemplates < 10 || c.MaxTemplates > 100_000, "max_templates: must be from 10 to 100000")
	bad(c.MaxBytes < 1<<20, "max_bytes: must be at least 1 MiB")
	bad(c.MaxLine < 64 || c.MaxLine > 64<<10, "max_line: must be from 64 to 65536")
	bad(c.MaxWords < 8 || c.MaxWords > 1000, "max_words: must be from 8 to 1000")
	bad(c.Learn < 0, "learn: must not be negative")
	bad(c.LearnLines < 0, "learn_lines: must not be negative")
	bad(c.NewSeverity < 0 || c.NewSeverity > 24, "new_severity: must be from 0 to 24")
	bad(c.ToldPerApp < 1, "told_per_app: must be at least 1")
	bad(c.Window < time.Second, "window: must be at least 1s")
	bad(c.Expire < c.Window*history, "expire: must be at least %d windows", history)
	bad(c.RateCount < 1, "rate_count: must be at least 1")
	bad(!(c.RateRatio > 1), "rate_ratio: must be above 1")
	bad(c.RateAfter < 2 || c.RateAfter > history, "rate_after: must be from 2 to %d", history)
	bad(c.CoolDown < 0, "cool_down: must not be negative")
	return errors.Join(errs...)
}
