package archiver

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"weir/archiver/store"
)

// Config says where the archive lies and how its files are cut.
type Config struct {
	store.Config `yaml:",inline"`
	// RowGroupRows and RowGroupBytes are the most rows of one Parquet row group, and the most bytes of them before they are packed.
	RowGroupRows  int   `yaml:"row_group_rows"`
	RowGroupBytes int64 `yaml:"row_group_bytes"`
	// BufferBytes is the most memory that row groups of all partitions take until they are written. Beyond it the largest is written
	// before it is full.
	BufferBytes int64 `yaml:"buffer_bytes"`
	// OpenHours is how many hours of event time one partition writes at once. A record of one more hour closes the
	// file that was longest without a row; it waits for the commit on disk.
	OpenHours int `yaml:"open_hours"`
	// HourClose is how long after an hour has ended its files are committed, although the consumer's interval is not over: so that the hour is
	// whole soon, but for late records.
	HourClose time.Duration `yaml:"hour_close"`
	// SignKeyFile has an Ed25519 private key (PEM, PKCS#8) that every manifest is signed with. Empty: they are not signed.
	SignKeyFile string `yaml:"sign_key_file"`
	// RetentionDays is what weir archive expire deletes by without --before: days that ended longer ago. 0: it must be told. Nothing is deleted
	// without the command.
	RetentionDays int `yaml:"retention_days"`
	// Compact is for weir archive compact.
	Compact CompactConfig `yaml:"compact"`
}

// DefaultConfig returns the values of keys that the configuration does not set. Root has none.
func DefaultConfig() Config {
	return Config{Config: store.DefaultConfig(), RowGroupRows: 128 << 10, RowGroupBytes: 32 << 20, BufferBytes: 64 << 20, OpenHours: 24, HourClose: 2 * time.Minute, Compact: DefaultCompactConfig()}
}

// Validate joins all that is wrong, each as "key: what is wrong".
func (c Config) Validate() error {
	var errs []error
	if err := c.Config.Validate(); err != nil {
		errs = append(errs, err)
	}
	// Row groups of fewer rows cost more in footers than they save in memory.
	if c.RowGroupRows < 128 || c.RowGroupRows > 1<<20 {
		errs = append(errs, fmt.Errorf("row_group_rows: %d is not within 128 and 1048576", c.RowGroupRows))
	}
	if c.RowGroupBytes < 1<<20 || c.RowGroupBytes > 512<<20 {
		errs = append(errs, fmt.Errorf("row_group_bytes: %d is not within 1 MiB and 512 MiB", c.RowGroupBytes))
	}
	if c.BufferBytes < 1<<20 {
		errs = append(errs, fmt.Errorf("buffer_bytes: %d is below 1 MiB", c.BufferBytes))
	}
	if c.OpenHours < 1 || c.OpenHours > 256 {
		errs = append(errs, fmt.Errorf("open_hours: %d is not within 1 and 256", c.OpenHours))
	}
	if c.HourClose < 0 || c.HourClose > time.Hour {
		errs = append(errs, fmt.Errorf("hour_close: %s is not within 0 and 1h", c.HourClose))
	}
	if c.RetentionDays < 0 || c.RetentionDays > 36500 {
		errs = append(errs, fmt.Errorf("retention_days: %d is not within 0 and 36500", c.RetentionDays))
	}
	if err := c.Compact.Validate(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			errs = append(errs, fmt.Errorf("compact.%s", line))
		}
	}
	return errors.Join(errs...)
}
