package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

var (
	errTooBig  = fmt.Errorf("an object of the Kubernetes API has more than %d MiB", maxObject>>20)
	errTooMany = fmt.Errorf("the Kubernetes API has more than %d pods of this node; is agent.kubernetes.node a node's name?", maxPods)
	errNoUID   = errors.New("a pod of the Kubernetes API has no uid")
)

// limited gives up when more is read than left; the reader of each object sets it anew.
type limited struct {
	r    io.Reader
	left int
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooBig
	}
	n, err := l.r.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// readList reads one page of a PodList, pod by pod. more is the token of the next page, empty after the last.
func readList(r io.Reader, f func(*object) error) (version, more string, err error) {
	in := &limited{r, maxObject}
	d := json.NewDecoder(in)
	if err := expect(d, json.Delim('{')); err != nil {
		return "", "", err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return "", "", err
		}
		switch key {
		case "metadata":
			var m struct {
				ResourceVersion string `json:"resourceVersion"`
				Continue        string `json:"continue"`
			}
			if err := d.Decode(&m); err != nil {
				return "", "", err
			}
			version, more = m.ResourceVersion, m.Continue
		case "items":
			start, err := d.Token()
			if err != nil {
				return "", "", err
			}
			if start == nil { // null: none
				continue
			}
			if start != json.Delim('[') {
				return "", "", fmt.Errorf("the Kubernetes API's list of pods has %v for items", start)
			}
			for d.More() {
				in.left = maxObject
				var o object
				if err := d.Decode(&o); err != nil {
					return "", "", err
				}
				if o.Metadata.UID == "" {
					return "", "", errNoUID
				}
				if err := f(&o); err != nil {
					return "", "", err
				}
			}
			if err := expect(d, json.Delim(']')); err != nil {
				return "", "", err
			}
		default:
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return "", "", err
			}
		}
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return "", "", err
	}
	if version == "" {
		return "", "", errors.New("the Kubernetes API's list of pods has no resourceVersion")
	}
	return version, more, nil
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && got != want {
		err = fmt.Errorf("the Kubernetes API's answer has %v where %v belongs", got, want)
	}
	return err
}

// The kinds of events of a watch.
const (
	added    = "ADDED"
	modified = "MODIFIED"
	deleted  = "DELETED"
	bookmark = "BOOKMARK" // tells a newer resourceVersion and nothing else
	failed   = "ERROR"
)

// readEvents reads a watch until it ends; nil when that is between two events. An ERROR event is returned as a *statusError.
func readEvents(r io.Reader, f func(kind string, o *object) error) error {
	in := &limited{r: r}
	d := json.NewDecoder(in)
	for {
		in.left = maxObject
		var e struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"` // a pod, or what went wrong
		}
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch e.Type {
		case added, modified, deleted, bookmark:
			var o object
			if err := json.Unmarshal(e.Object, &o); err != nil {
				return fmt.Errorf("a %s event of the Kubernetes API: %w", e.Type, err)
			}
			if o.Metadata.UID == "" && e.Type != bookmark {
				return errNoUID
			}
			if err := f(e.Type, &o); err != nil {
				return err
			}
		case failed:
			s := &statusError{event: true}
			if err := json.Unmarshal(e.Object, s); err != nil {
				return fmt.Errorf("an ERROR event of the Kubernetes API: %w", err)
			}
			return s
		default:
			return fmt.Errorf("the Kubernetes API sends an event of the unknown type %.40q", e.Type)
		}
	}
}
