// Package config reads weir's one configuration file: defaults, then the file, strictly, then the environment.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"weir/agent"
	"weir/archiver"
	"weir/control"
	"weir/control/executor"
	"weir/control/notify"
	"weir/indexer"
	"weir/ingest"
	"weir/internal/status"
	"weir/internal/strict"
	"weir/internal/telemetry"
	"weir/processor"
)

// Config is the whole configuration; each component reads its section.
type Config struct {
	Kafka     ingest.KafkaConfig    `yaml:"kafka"`
	Topics    Topics                `yaml:"topics"`
	Producer  ingest.ProducerConfig `yaml:"producer"`
	Consumer  Consumer              `yaml:"consumer"`
	Agent     agent.Config          `yaml:"agent"`
	Indexer   indexer.Config        `yaml:"indexer"`
	Archiver  archiver.Config       `yaml:"archiver"`
	Processor processor.Config      `yaml:"processor"`
	Control   Control               `yaml:"control"`
	Executor  executor.Config       `yaml:"executor"`
	Kibana    Kibana                `yaml:"kibana"`
	HTTP      HTTP                  `yaml:"http"`
	Status    status.Config         `yaml:"status"`
	Embedded  Embedded              `yaml:"embedded"`
	Log       Log                   `yaml:"log"`

	NoKafka bool `yaml:"-"` // no broker is named anywhere: Kafka.Brokers is the default
}

// Topics says how `weir topics apply` makes topics.
type Topics struct {
	Partitions  int `yaml:"partitions"`
	Replication int `yaml:"replication"`
}

// Consumer holds what all consumer groups share. The archiver commits by its own interval and bytes, since each commit makes files.
type Consumer struct {
	CommitInterval        time.Duration `yaml:"commit_interval"`
	ArchiveCommitInterval time.Duration `yaml:"archive_commit_interval"`
	CommitBytes           int64         `yaml:"commit_bytes"`
	ArchiveCommitBytes    int64         `yaml:"archive_commit_bytes"`
	FetchBytes            int64         `yaml:"fetch_bytes"`
	SessionTimeout        time.Duration `yaml:"session_timeout"`
}

// For makes the configuration of one group.
func (c Consumer) For(group string, topics ...string) ingest.ConsumerConfig {
	return ingest.ConsumerConfig{Group: group, Topics: topics, CommitInterval: c.CommitInterval, CommitBytes: c.CommitBytes, FetchBytes: c.FetchBytes, SessionTimeout: c.SessionTimeout}
}

// Control is what acts on events and signals, and whom it tells.
type Control struct {
	control.Config `yaml:",inline"`
	Notify         notify.Config `yaml:"notify"`
}

// Kibana is where people look at what the indexer wrote. Credentials come from the environment or from files, as the indexer's do.
type Kibana struct {
	URL          string `yaml:"url"`       // as a browser opens it, with its base path; empty: none
	Space        string `yaml:"space"`     // empty: the default space
	DataView     string `yaml:"data_view"` // id of the one that links open; empty: weir's own
	Username     string `yaml:"username"`
	PasswordEnv  string `yaml:"password_env"`
	PasswordFile string `yaml:"password_file"`
	APIKeyEnv    string `yaml:"api_key_env"`
	APIKeyFile   string `yaml:"api_key_file"`
	CAFile       string `yaml:"ca_file"`
}

var spaceForm = regexp.MustCompile(`^[a-z0-9_-]{0,100}$`)

// Validate joins what is wrong, each with its key.
func (c *Kibana) Validate() error {
	var errs []error
	bad := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		wrong := err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https"
		bad(wrong, "url: not an http or https URL")
		bad(!wrong && u.User != nil, "url: credentials do not belong into the URL: use username and password_env or password_file")
		bad(!wrong && (u.RawQuery != "" || u.Fragment != ""), "url: %q is a page; give the address that Kibana's pages begin with", c.URL)
	}
	bad(!spaceForm.MatchString(c.Space), "space: %q is not the id of a space: a-z 0-9 _ - alone", c.Space)
	bad(c.Username == "" && (c.PasswordEnv != "" || c.PasswordFile != ""), "username: is empty, and there is a password")
	return errors.Join(errs...)
}

// HTTP is where a process shows itself.
type HTTP struct {
	Listen string         `yaml:"listen"` // /metrics, /healthz, /readyz, and the status page of control and up; empty: none
	TLS    *telemetry.TLS `yaml:"tls"`    // of listen; clear text where it is not set
	Pprof  string         `yaml:"pprof"`  // a loopback address for profiles; empty: none
}

// Embedded is the single-node broker of `weir up`.
type Embedded struct {
	Dir            string `yaml:"dir"`
	Port           int    `yaml:"port"`            // 0: any
	RetentionBytes int64  `yaml:"retention_bytes"` // of each partition
}

// Log is the process's own log.
type Log struct {
	Format string `yaml:"format"` // text or json
	Level  string `yaml:"level"`  // debug, info, warn or error
}

// Default works on one host.
func Default() Config {
	d := ingest.DefaultConsumerConfig("", "")
	return Config{
		Kafka: ingest.DefaultKafkaConfig(), Topics: Topics{Partitions: 6, Replication: 1}, Producer: ingest.DefaultProducerConfig(),
		Consumer: Consumer{CommitInterval: d.CommitInterval, ArchiveCommitInterval: 10 * time.Minute, CommitBytes: d.CommitBytes, ArchiveCommitBytes: 256 << 20, FetchBytes: d.FetchBytes, SessionTimeout: d.SessionTimeout},
		Agent:    agent.DefaultConfig(), Indexer: indexer.DefaultConfig(), Archiver: archiver.DefaultConfig(), Processor: processor.DefaultConfig(), Executor: executor.DefaultConfig(),
		HTTP: HTTP{Listen: "127.0.0.1:9464"}, Embedded: Embedded{Dir: ".weir", Port: 9092, RetentionBytes: 256 << 20}, Log: Log{Format: "text", Level: "info"},
		Control: Control{Notify: notify.DefaultConfig()}, Status: status.DefaultConfig(),
	}
}

// Load reads path (none when empty) over the defaults, and the environment over both.
func Load(path string, env func(string) string) (Config, error) {
	c := Default()
	c.Kafka.Brokers = nil
	var file yaml.Node
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("configuration: %w", err)
		}
		if err := strict.Decode(path, b, &c); err != nil {
			return c, err
		}
		_ = yaml.Unmarshal(b, &file) // decode has accepted it
	}
	if v := env("WEIR_KAFKA_BROKERS"); v != "" {
		c.Kafka.Brokers = strings.Split(v, ",")
	}
	if v := env("WEIR_ELASTICSEARCH_URL"); v != "" {
		c.Indexer.Addresses = strings.Split(v, ",")
	}
	if v := env("WEIR_NODE"); v != "" {
		c.Agent.Node = v
	}
	if v := env("WEIR_EXECUTOR_NAME"); v != "" {
		c.Executor.Name = v
	}
	if v := env("WEIR_CONTROL_POLICIES"); v != "" {
		c.Control.Policies = v
	}
	if v := env("WEIR_CONTROL_SIGN_KEY_FILE"); v != "" {
		c.Control.SignKeyFile = v
	}
	if v := env("WEIR_CONTROL_COMMAND_KEYS"); v != "" {
		c.Control.CommandKeys = strings.Split(v, ",")
	}
	if v := env("WEIR_HTTP_LISTEN"); v != "" {
		c.HTTP.Listen = v
	}
	cert, key := env("WEIR_HTTP_CERT_FILE"), env("WEIR_HTTP_KEY_FILE")
	if (cert != "" || key != "") && c.HTTP.TLS == nil {
		c.HTTP.TLS = &telemetry.TLS{}
	}
	if cert != "" {
		c.HTTP.TLS.CertFile = cert
	}
	if key != "" {
		c.HTTP.TLS.KeyFile = key
	}
	if v := env("WEIR_KIBANA_URL"); v != "" {
		c.Kibana.URL = v
	}
	if v := env("WEIR_ARCHIVE_ROOT"); v != "" {
		c.Archiver.Root = v
	}
	if c.Kafka.Brokers == nil {
		c.Kafka.Brokers, c.NoKafka = ingest.DefaultKafkaConfig().Brokers, true
	}
	return c, placed(path, &file, c.validate())
}

// placed puts file and line before each message that begins with a key of the file.
func placed(path string, file *yaml.Node, all []error) error {
	var errs []error
	for _, err := range all {
		if line := lineOf(file, err.Error()); line > 0 {
			err = fmt.Errorf("%s:%d: %w", path, line, err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// maxPolicyFile bounds what is read of a policy file.
const maxPolicyFile = 1 << 20

// LoadPolicies reads control's policy file, strictly; the built-in policies where path is empty.
func LoadPolicies(path string) (control.Policies, error) {
	if path == "" {
		p := control.BuiltIn()
		return p, p.Complete()
	}
	p := control.DefaultPolicies()
	b, err := os.ReadFile(path)
	if err != nil {
		return p, fmt.Errorf("control.policies: %w", err)
	}
	if len(b) > maxPolicyFile {
		return p, fmt.Errorf("control.policies: %s has more than %d bytes", path, maxPolicyFile)
	}
	if err := strict.Decode(path, b, &p); err != nil {
		return p, err
	}
	var file yaml.Node
	_ = yaml.Unmarshal(b, &file) // decode has accepted it
	var all []error
	if err := p.Complete(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			all = append(all, errors.New(line))
		}
	}
	return p, placed(path, &file, all)
}

var step = regexp.MustCompile(`^\.?([a-z_]+)|^\[(\d+)\]`)

// lineOf finds where the file sets the key that a message begins with, such as "kafka.brokers[0]: ..."; 0 when it does not.
func lineOf(n *yaml.Node, message string) (line int) {
	if n.Kind != yaml.DocumentNode || len(n.Content) == 0 {
		return 0
	}
	n = n.Content[0]
	for {
		m := step.FindStringSubmatch(message)
		if m == nil {
			return line
		}
		message = message[len(m[0]):]
		var next *yaml.Node
		if i, err := strconv.Atoi(m[2]); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			next, line = n.Content[i], n.Content[i].Line
		} else if n.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == m[1] {
					next, line = n.Content[i+1], n.Content[i].Line
				}
			}
		}
		if next == nil {
			return 0
		}
		n = next
	}
}

// validate checks what every command needs; sections of components are checked by those that use them.
func (c *Config) validate() (errs []error) {
	section := func(name string, err error) {
		if err == nil {
			return
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			errs = append(errs, fmt.Errorf("%s.%s", name, line))
		}
	}
	section("kafka", c.Kafka.Validate())
	section("agent", c.Agent.Validate())
	section("processor", c.Processor.Validate())
	section("control.notify", c.Control.Notify.Validate())
	section("kibana", c.Kibana.Validate())
	section("status", c.Status.Validate())
	section("http.tls", c.HTTP.TLS.Validate())
	if c.HTTP.TLS == nil && c.HTTP.Listen != "" && !status.Loopback(c.HTTP.Listen) {
		section("status", c.Status.ValidateClear(c.HTTP.Listen))
	}
	probe := c.Consumer.For("any", "any")
	section("consumer", probe.Validate())
	if c.Consumer.ArchiveCommitInterval <= 0 || c.Consumer.ArchiveCommitBytes <= 0 {
		errs = append(errs, errors.New("consumer.archive_commit_interval, archive_commit_bytes: must be above zero"))
	}
	if len(c.Indexer.Addresses) > 0 {
		section("indexer", c.Indexer.Validate())
	}
	if c.Archiver.Root != "" {
		section("archiver", c.Archiver.Validate())
	}
	if c.Topics.Partitions < 1 || c.Topics.Replication < 1 {
		errs = append(errs, errors.New("topics: partitions and replication must be at least 1"))
	}
	if c.HTTP.Pprof != "" {
		host, _, err := net.SplitHostPort(c.HTTP.Pprof)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			errs = append(errs, fmt.Errorf("http.pprof: %q is not a loopback host:port", c.HTTP.Pprof))
		}
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		errs = append(errs, fmt.Errorf("log.format: %q is neither text nor json", c.Log.Format))
	}
	switch c.Log.Level {
	case "debug", "info", "warn", "error":
	default:
		errs = append(errs, fmt.Errorf("log.level: %q is not one of debug, info, warn, error", c.Log.Level))
	}
	return errs
}
