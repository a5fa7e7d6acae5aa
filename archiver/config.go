package archiver

import (
	"errors"
	"fmt"

	"weir/archiver/store"
)

// Config says where the archive lies and how its files are cut.
type Config struct {
	store.Config `yaml:",inline"`
	// RowGroupRows is the most rows of one Parquet row group. A row group is held in memory until it is full.
	RowGroupRows int `yaml:"row_group_rows"`
	// OpenHours is how many hours of event time one partition writes at once. A record of one more hour closes the
	// file that was longest without a row; it waits for the commit on disk.
	OpenHours int `yaml:"open_hours"`
	// SignKeyFile has an Ed25519 private key (PEM, PKCS#8) that every manifest is signed with. Empty: they are not signed.
	SignKeyFile string `yaml:"sign_key_file"`
}

// DefaultConfig returns the values of keys that the configuration does not set. Root has none.
func DefaultConfig() Config {
	return Config{Config: store.DefaultConfig(), RowGroupRows: 64 << 10, OpenHours: 8}
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
	if c.OpenHours < 1 || c.OpenHours > 256 {
		errs = append(errs, fmt.Errorf("open_hours: %d is not within 1 and 256", c.OpenHours))
	}
	return errors.Join(errs...)
}
