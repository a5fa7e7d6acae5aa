// Package strict decodes YAML that people write: what is wrong is told with the file's name and line.
package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Decode reads one document. An unknown key, a repeated one or a wrong type is an error; an empty document is none.
func Decode(name string, b []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return Place(name, 0, err)
	}
	return nil
}

var (
	unknownField = regexp.MustCompile(`line (\d+): field (\S+) not found in type (\S+)`)
	otherFault   = regexp.MustCompile(`line (\d+): (.*)`)
)

// Place puts the file's name and the line before each fault that the YAML library tells; line stands in where that gives none, and 0 is
// none.
func Place(name string, line int, err error) error {
	lines := []string{err.Error()}
	var typed *yaml.TypeError
	if errors.As(err, &typed) {
		lines = typed.Errors
	}
	var errs []error
	for _, l := range lines {
		l = strings.TrimPrefix(l, "yaml: ")
		switch m, o := unknownField.FindStringSubmatch(l), otherFault.FindStringSubmatch(l); {
		case m != nil:
			errs = append(errs, fmt.Errorf("%s:%s: there is no key %q here", name, m[1], m[2]))
		case o != nil:
			errs = append(errs, fmt.Errorf("%s:%s: %s", name, o[1], o[2]))
		case line > 0:
			errs = append(errs, fmt.Errorf("%s:%d: %s", name, line, l))
		default:
			errs = append(errs, fmt.Errorf("%s: %s", name, l))
		}
	}
	return errors.Join(errs...)
}
