package store

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strings"
	"time"
)

// Config says where an archive lies.
type Config struct {
	// Root is the folder of the archive: file:///path, or hdfs://host:port/path. With a standby namenode,
	// both are given: hdfs://a:8020,b:8020/path.
	Root string `yaml:"root"`
	// HDFSUser is the user that writes to HDFS; unused for file roots.
	HDFSUser string `yaml:"hdfs_user"`
	// Deadline is the longest that one call to the store may take.
	Deadline time.Duration `yaml:"deadline"`
}

// DefaultConfig returns the values of keys that the configuration does not set. Root has none. The HDFS user is that of
// HADOOP_USER_NAME, as for all Hadoop clients.
func DefaultConfig() Config {
	user := os.Getenv("HADOOP_USER_NAME")
	if user == "" {
		user = "weir"
	}
	return Config{HDFSUser: user, Deadline: 30 * time.Second}
}

// Validate joins all that is wrong, each as "key: what is wrong".
func (c Config) Validate() error {
	var errs []error
	if _, err := parseRoot(c.Root); err != nil {
		errs = append(errs, fmt.Errorf("root: %w", err))
	}
	if strings.HasPrefix(c.Root, "hdfs:") && c.HDFSUser == "" {
		errs = append(errs, errors.New("hdfs_user: must be set for an hdfs root"))
	}
	if c.Deadline < 100*time.Millisecond || c.Deadline > 10*time.Minute {
		errs = append(errs, fmt.Errorf("deadline: %s is not within 100ms and 10m", c.Deadline))
	}
	return errors.Join(errs...)
}

// root is a parsed Config.Root. Hosts is empty for a local folder.
type root struct {
	hosts []string
	dir   string
}

func parseRoot(s string) (root, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return root{}, fmt.Errorf("%q is neither file:///path nor hdfs://host:port/path", s)
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 || path.Clean(rest[slash:]) == "/" {
		return root{}, fmt.Errorf("%q names no folder", s)
	}
	r := root{dir: path.Clean(rest[slash:])}
	authority := rest[:slash]
	switch scheme {
	case "file":
		if authority != "" {
			return root{}, fmt.Errorf("%q: a file root has three slashes and no host", s)
		}
	case "hdfs":
		for host := range strings.SplitSeq(authority, ",") {
			name, port, err := net.SplitHostPort(host)
			if err != nil || name == "" || port == "" {
				return root{}, fmt.Errorf("%q: %q is not host:port of a namenode", s, host)
			}
			r.hosts = append(r.hosts, host)
		}
	default:
		return root{}, fmt.Errorf("%q: scheme %q is neither file nor hdfs", s, scheme)
	}
	return r, nil
}
