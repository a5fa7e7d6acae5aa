package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func none(string) string { return "" }

func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Load(f, none)
		if err == nil {
			t.Errorf("%s was taken", f)
			continue
		}
		for line := range strings.Lines(string(b)) {
			if want, ok := strings.CutPrefix(strings.TrimSpace(line), "# want: "); ok && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the error does not say %q:\n%v", f, want, err)
			}
		}
	}
}

func TestDefaultsAndEnvironment(t *testing.T) {
	if _, err := Load("", none); err != nil {
		t.Fatalf("the defaults are refused: %v", err)
	}
	f := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(f, []byte("agent:\n  linger: 50ms\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(f, func(k string) string {
		return map[string]string{"WEIR_KAFKA_BROKERS": "a:1,b:2", "WEIR_ARCHIVE_ROOT": "file:///tmp/x"}[k]
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Kafka.Brokers) != 2 || c.Archiver.Root != "file:///tmp/x" || c.Agent.Linger != 50*time.Millisecond || c.Agent.Poll == 0 {
		t.Errorf("%+v", c)
	}
}

// TestTokenOnTheNetwork takes a token beyond loopback only where something encrypts.
func TestTokenOnTheNetwork(t *testing.T) {
	for _, c := range []struct {
		listen, more string
		env          map[string]string
		taken        bool
	}{
		{":9464", "", nil, false},
		{":9464", "  tls: {cert_file: a, key_file: b}\n", nil, true},
		{":9464", "", map[string]string{"WEIR_HTTP_CERT_FILE": "a", "WEIR_HTTP_KEY_FILE": "b"}, true},
		{"127.0.0.1:9464", "", nil, true},
		{"127.0.0.1:9464", "", map[string]string{"WEIR_HTTP_LISTEN": "10.0.0.1:9464"}, false},
		{"", "", nil, true},
		{":9464", "status: {token_env: A, clear_text: true}\n", nil, true},
		{":9464", "status: {token_env: A}\n", nil, false},
		{":9464", "status: {logs_bytes_per_second: 0}\n", nil, true}, // no token, so nothing is shown
	} {
		if !strings.Contains(c.more, "status:") {
			c.more += "status: {token_file: /etc/weir/token}\n"
		}
		f := filepath.Join(t.TempDir(), "weir.yaml")
		if err := os.WriteFile(f, []byte("http:\n  listen: \""+c.listen+"\"\n"+c.more), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(f, func(k string) string { return c.env[k] }); (err == nil) != c.taken {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestBadPolicies(t *testing.T) {
	files, err := filepath.Glob("testdata/policies/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		_, err = LoadPolicies(f)
		if err == nil {
			t.Errorf("%s was taken", f)
			continue
		}
		for line := range strings.Lines(string(b)) {
			if want, ok := strings.CutPrefix(strings.TrimSpace(line), "# want: "); ok && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the error does not say %q:\n%v", f, want, err)
			}
		}
	}
	if _, err := LoadPolicies("testdata/policies/none.yaml"); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestDocumentedPolicies takes the example of the documentation.
func TestDocumentedPolicies(t *testing.T) {
	doc, err := os.ReadFile("../../docs/control.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/control.md has no example")
	}
	f := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(f, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := LoadPolicies(f); err != nil || len(p.Policies) < 3 || !p.Acting() {
		t.Errorf("%d policies, %v", len(p.Policies), err)
	}
}

// TestShipped reads the configurations and policies of deployments/kubernetes.
func TestShipped(t *testing.T) {
	configs, err := filepath.Glob("../../deployments/kubernetes/*/*/*.config.yaml")
	if err != nil || len(configs) < 4 {
		t.Fatal(configs, err)
	}
	for _, f := range configs {
		c, err := Load(f, none)
		if err == nil && strings.HasPrefix(filepath.Base(f), "executor") {
			err = c.Executor.Validate()
		}
		if err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	policies, err := filepath.Glob("../../deployments/kubernetes/*/*/policies.yaml")
	if err != nil || len(policies) == 0 {
		t.Fatal(policies, err)
	}
	for _, f := range policies {
		if p, err := LoadPolicies(f); err != nil || !p.Acting() {
			t.Errorf("%s: %v", f, err)
		}
	}
}
