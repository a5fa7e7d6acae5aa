package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHeader(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	t.Setenv("SECRET_TEST", "from env")
	for _, c := range []struct {
		name string
		from Credentials
		want string
	}{
		{"nothing", Credentials{}, ""},
		{"a file before the environment, without its newline, with its blanks", Credentials{APIKeyFile: file("k", " key \r\n"), APIKeyEnv: "SECRET_TEST"}, "ApiKey  key "},
		{"environment", Credentials{APIKeyEnv: "SECRET_TEST"}, "ApiKey from env"},
		{"a password", Credentials{Username: "u", PasswordFile: file("p", "p:w\n")}, "Basic dTpwOnc="},
		{"a key before a password", Credentials{Username: "u", PasswordEnv: "SECRET_TEST", APIKeyEnv: "SECRET_TEST"}, "ApiKey from env"},
	} {
		if got, err := c.from.Header(); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	for key, c := range map[string]Credentials{"password_file: ": {PasswordFile: dir + "/none"}, "api_key_file: ": {APIKeyFile: dir + "/none"}} {
		if _, err := c.Header(); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("%v, want %s", err, key)
		}
	}
	if _, err := TLS(file("ca", "nothing")); err == nil || !strings.HasPrefix(err.Error(), "ca_file: ") {
		t.Errorf("%v, want ca_file", err)
	}
}
