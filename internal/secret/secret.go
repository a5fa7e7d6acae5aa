// Package secret reads what is never written into a configuration: passwords, keys, and the certificates of those that are trusted.
package secret

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
)

// Read returns the content of a file without the newline at its end, or, where no file is named, that of an environment variable. Both
// names may be empty: then so is the secret.
func Read(env, file string) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		return strings.TrimRight(string(b), "\r\n"), err
	}
	if env == "" {
		return "", nil
	}
	return os.Getenv(env), nil
}

// Credentials names an API key, or a user and a password, as Elasticsearch and Kibana take them.
type Credentials struct {
	Username, PasswordEnv, PasswordFile, APIKeyEnv, APIKeyFile string
}

// Header reads the secrets and returns the value of the Authorization header, empty where nothing is named. An error begins with the key
// that named the file.
func (c Credentials) Header() (string, error) {
	password, err := Read(c.PasswordEnv, c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	key, err := Read(c.APIKeyEnv, c.APIKeyFile)
	if err != nil {
		return "", fmt.Errorf("api_key_file: %w", err)
	}
	switch {
	case key != "":
		return "ApiKey " + key, nil
	case c.Username != "":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+password)), nil
	}
	return "", nil
}

// TLS trusts the certificates in caFile alone, or those of the system where none is named. An error begins with "ca_file: ".
func TLS(caFile string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: %s holds no PEM certificate", caFile)
	}
	return t, nil
}
