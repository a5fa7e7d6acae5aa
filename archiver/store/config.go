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
	// Root is the folder of the archive: file:///path; hdfs://host:port/path; or, over the REST API of the namenode or
	// of HttpFS, webhdfs://host:port/path, with TLS swebhdfs://. With a standby namenode, both are given:
	// hdfs://a:8020,b:8020/path.
	Root string `yaml:"root"`
	// WebHDFS is the same cluster's REST API, for an hdfs root: http://a:9870,b:9870, or https://. A file whose datanode
	// fails is written through it, since the native protocol cannot go on with another one.
	WebHDFS string `yaml:"webhdfs"`
	// WebHDFSCAFile holds the certificates (PEM) that sign those of the REST API; the system's when empty.
	WebHDFSCAFile string `yaml:"webhdfs_ca_file"`
	// HDFSUser is the user that writes to HDFS; unused for file roots and with Kerberos.
	HDFSUser string   `yaml:"hdfs_user"`
	Kerberos Kerberos `yaml:"kerberos"`
	// Deadline is the longest that one call to the store may take.
	Deadline time.Duration `yaml:"deadline"`
	// SpoolDir is a local folder where files for HDFS are kept until they are complete. Empty: they are written to HDFS
	// as they grow.
	SpoolDir string `yaml:"spool_dir"`
	// SpoolBytes is the most that lies there; beyond it files are written as they grow.
	SpoolBytes int64 `yaml:"spool_bytes"`
}

// DefaultConfig returns the values of keys that the configuration does not set. Root has none. The HDFS user is that of
// HADOOP_USER_NAME, as for all Hadoop clients.
func DefaultConfig() Config {
	user := os.Getenv("HADOOP_USER_NAME")
	if user == "" {
		user = "weir"
	}
	return Config{HDFSUser: user, Deadline: 30 * time.Second, SpoolDir: "/var/tmp", SpoolBytes: 1 << 30, Kerberos: Kerberos{Krb5Conf: "/etc/krb5.conf"}}
}

// Validate joins all that is wrong, each as "key: what is wrong".
func (c Config) Validate() error {
	var errs []error
	bad := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	r, err := parseRoot(c.Root)
	bad(err != nil, "root: %w", err)
	remote := err == nil && len(r.hosts) > 0
	bad(remote && c.HDFSUser == "" && !c.Kerberos.enabled(), "hdfs_user: must be set for an hdfs root")
	bad(c.Deadline < 100*time.Millisecond || c.Deadline > 10*time.Minute, "deadline: %s is not within 100ms and 10m", c.Deadline)
	if c.WebHDFS != "" {
		_, _, err := parseWeb(c.WebHDFS)
		bad(err != nil, "webhdfs: %w", err)
		bad(remote && r.scheme != "hdfs", "webhdfs: is for an hdfs root; this one is WebHDFS already")
	}
	bad(c.SpoolDir != "" && (c.SpoolBytes < 1<<20 || c.SpoolBytes > 1<<50), "spool_bytes: %d is not within 1 MiB and 1 PiB; for no spool, set spool_dir to \"\"", c.SpoolBytes)
	if err := c.Kerberos.validate(r.scheme == "hdfs"); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// root is a parsed Config.Root. Hosts is empty for a local folder.
type root struct {
	scheme string
	hosts  []string
	dir    string
}

func parseRoot(s string) (root, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return root{}, fmt.Errorf("%q is neither file:///path nor hdfs://host:port/path nor webhdfs://host:port/path", s)
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 || path.Clean(rest[slash:]) == "/" {
		return root{}, fmt.Errorf("%q names no folder", s)
	}
	r := root{scheme: scheme, dir: path.Clean(rest[slash:])}
	authority := rest[:slash]
	switch scheme {
	case "file":
		if authority != "" {
			return root{}, fmt.Errorf("%q: a file root has three slashes and no host", s)
		}
	case "hdfs", "webhdfs", "swebhdfs":
		var err error
		if r.hosts, err = parseHosts(authority); err != nil {
			return root{}, fmt.Errorf("%q: %w", s, err)
		}
	default:
		return root{}, fmt.Errorf("%q: scheme %q is none of file, hdfs, webhdfs, swebhdfs", s, scheme)
	}
	return r, nil
}

func parseHosts(authority string) (hosts []string, err error) {
	for host := range strings.SplitSeq(authority, ",") {
		name, port, err := net.SplitHostPort(host)
		if err != nil || name == "" || port == "" {
			return nil, fmt.Errorf("%q is not host:port of a namenode", host)
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

func parseWeb(s string) (scheme string, hosts []string, err error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return "", nil, fmt.Errorf("%q is neither http://host:port nor https://host:port", s)
	}
	hosts, err = parseHosts(rest)
	return scheme, hosts, err
}
