// Package redact hides secrets in log bodies before they leave the node: bank
// card numbers, Chinese resident ids, phone numbers, tokens and passwords, and
// what the operator's own patterns find. It is built for bodies that nearly
// always hold no secret, so that case costs a few passes of a vectorised byte
// search and no allocation.
package redact

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// Config says what is redacted.
type Config struct {
	// Cards hides bank card numbers (ISO/IEC 7812) but for the last four digits.
	Cards bool `yaml:"cards"`
	// ResidentIDs hides Chinese resident identity numbers (GB 11643-1999).
	ResidentIDs bool `yaml:"resident_ids"`
	// Phones hides Chinese mobile numbers and international numbers (ITU-T E.164).
	Phones bool `yaml:"phones"`
	// Tokens hides credentials of the Authorization header (RFC 6750, RFC 7617),
	// JSON Web Tokens (RFC 7519), AWS access key ids, and values of keys that
	// end in password, passwd, pwd, secret, token or api_key.
	Tokens bool `yaml:"tokens"`
	// URLPasswords hides the password of scheme://user:password@host (RFC 3986).
	URLPasswords bool `yaml:"url_passwords"`
	// Patterns are the operator's own, tried on every body in their order.
	Patterns []Pattern `yaml:"patterns"`
}

// Pattern is one of the operator's own kinds of secret.
type Pattern struct {
	// Name is the kind in the replacement text: lower-case letters, digits and
	// underscores, at most 40 bytes.
	Name string `yaml:"name"`
	// Regexp has the syntax of Go's regexp package. If it has a group 1, only
	// what that group matched is replaced.
	Regexp string `yaml:"regexp"`
}

// The built-in kinds have fixed places in Kinds and in counts.
const (
	kindCard = iota
	kindResidentID
	kindPhone
	kindToken
	kindURLPassword
)

var builtinKinds = []string{"card", "resident_id", "phone", "token", "url_password"}

// Enabled names the kinds that are looked for, in the order of Kinds.
func (c Config) Enabled() []string {
	var names []string
	for kind, on := range []bool{kindCard: c.Cards, kindResidentID: c.ResidentIDs, kindPhone: c.Phones, kindToken: c.Tokens, kindURLPassword: c.URLPasswords} {
		if on {
			names = append(names, builtinKinds[kind])
		}
	}
	for _, p := range c.Patterns {
		names = append(names, p.Name)
	}
	return names
}

// maxKindLen is the length in bytes of the longest name of a kind.
const maxKindLen = 40

// patternName keeps names free of what has a meaning around replacement text.
var patternName = regexp.MustCompile(`^[a-z0-9_]{1,40}$`)

// DefaultConfig hides cards, tokens and URL passwords. Resident ids and phones
// are off because many applications search their logs by them.
func DefaultConfig() Config {
	return Config{Cards: true, Tokens: true, URLPasswords: true}
}

// Validate joins everything that is wrong, each as "key: what is wrong".
func (c Config) Validate() error {
	_, err := c.compile()
	return err
}

// compile checks the patterns and returns them ready to run.
func (c Config) compile() ([]*regexp.Regexp, error) {
	var problems []error
	compiled := make([]*regexp.Regexp, 0, len(c.Patterns))
	names := slices.Clone(builtinKinds)
	for i, p := range c.Patterns {
		switch {
		case !patternName.MatchString(p.Name):
			problems = append(problems, fmt.Errorf("patterns[%d].name: %q is not 1 to 40 of a-z, 0-9 and _", i, p.Name))
		case slices.Contains(names, p.Name):
			problems = append(problems, fmt.Errorf("patterns[%d].name: %q is already the name of a kind", i, p.Name))
		}
		names = append(names, p.Name)
		re, err := regexp.Compile(p.Regexp)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("patterns[%d].regexp: %w", i, err))
		case re.MatchString(""):
			problems = append(problems, fmt.Errorf("patterns[%d].regexp: matches the empty text, so it would match everywhere", i))
		}
		compiled = append(compiled, re)
	}
	return compiled, errors.Join(problems...)
}
