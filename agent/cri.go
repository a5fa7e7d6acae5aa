package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/schema"
)

// format is how one kind of log is laid out.
type format struct {
	// parse reads a line without its newline; see parseLine.
	parse func(b, buf []byte) (l line, rest []byte, err error)
	// rank orders the rotated files of a log, oldest first, by what follows "<path>." in their names.
	rank func(tail string) (rank int, ok bool)
	// rotated, where it is set, lists the rotated files itself, oldest first; parse and rank are not used then.
	rotated func(path string) ([]string, error)
	// name tells a file's incarnation where that takes more than its first line.
	name func(f *os.File, packed bool) (schema.Incarnation, error)
}

// jsonFile is Docker's json-file driver: path.1 is the youngest rotated file.
var jsonFile = &format{parse: parseLine, rank: func(tail string) (int, bool) {
	n, err := strconv.Atoi(tail)
	return -n, err == nil && n > 0
}}

// criFile is the log of a container of a Kubernetes node (kubernetes/community, "CRI: Log Management for Container Stdout/Stderr
// Streams"). The kubelet rotates it to path.<YYYYMMDD-HHMMSS>.
var criFile = &format{parse: parseCRI, rank: func(tail string) (int, bool) {
	day, second, ok := strings.Cut(tail, "-")
	n, err := strconv.Atoi(day + second)
	return n, ok && err == nil && len(day) == 8 && len(second) == 6
}}

const (
	criPrefix = "cri/"
	criDriver = "cri"
)

// formatOf tells a source's format by its name.
func formatOf(source string) *format {
	if strings.HasPrefix(source, criPrefix) {
		return criFile
	}
	return jsonFile
}

var errNotCRI = errors.New("not a line of the container runtime interface")

// parseCRI reads "<RFC 3339 time> <stream> <tags> <content>", where the first of the tags, divided by colons, is F for a
// whole line or the last piece of one, and P for a piece that is continued. The log is appended to buf.
func parseCRI(b, buf []byte) (l line, rest []byte, err error) {
	at, b, ok1 := bytes.Cut(b, []byte{' '})
	stream, b, ok2 := bytes.Cut(b, []byte{' '})
	tags, content, ok3 := bytes.Cut(b, []byte{' '})
	if !ok1 || !ok2 || !ok3 && len(tags) == 0 {
		return l, buf, errNotCRI
	}
	switch string(stream) {
	case "stdout":
		l.stream = "stdout"
	case "stderr":
		l.stream = "stderr"
	default:
		return line{}, buf, errNotCRI
	}
	var ok bool
	if l.time, ok = parseTime(at); !ok {
		t, err := time.Parse(time.RFC3339Nano, string(at)) // with an offset from UTC
		if err != nil || t.Year() < minYear || t.Year() > maxYear {
			return line{}, buf, errNotCRI
		}
		l.time = t.UnixNano()
	}
	from := len(buf)
	buf = append(buf, content...)
	switch tag, _, _ := bytes.Cut(tags, []byte{':'}); string(tag) {
	case "F":
		buf = append(buf, '\n')
	case "P":
	default:
		return line{}, buf[:from], errNotCRI
	}
	l.log = buf[from:]
	return l, buf, nil
}

// pods finds the logs below agent.pods_dir until ctx ends:
// <namespace>_<pod>_<uid>/<container>/<restarts>.log, as the kubelet lays them out.
func (a *Agent) pods(ctx context.Context) {
	const interval = time.Second
	tick := time.NewTicker(interval)
	defer tick.Stop()
	known := map[string]container{}
	var changed <-chan struct{}
	if a.kube != nil {
		changed = a.kube.Changed()
	}
	for told := false; ; {
		asOf := time.Now()
		all, err := findPods(a.cfg.PodsDir)
		if err != nil && !told {
			a.log.Error("cannot look for the logs of pods; trying again", "agent.pods_dir", a.cfg.PodsDir, "err", err)
		}
		if told = err != nil; !told {
			prefix := criPrefix + a.cfg.Node + "/"
			ids, found := map[string]bool{}, map[string]container{}
			for _, c := range all {
				ids[c.id] = true
				before, ok := known[c.id]
				if a.kube != nil {
					a.describe(&c)
					if ok && c.unknown { // forgotten since its pod was removed
						c = before
					}
				}
				if found[c.id] = c; !ok || !reflect.DeepEqual(c, before) {
					a.command(ctx, command{prefix: prefix, container: c, started: true})
				}
			}
			known = found
			a.command(ctx, command{prefix: prefix, all: ids, asOf: asOf})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
		}
	}
}

// describe adds what the Kubernetes API says of a container.
func (a *Agent) describe(c *container) {
	attr := func(key string) string {
		return c.pod[slices.IndexFunc(c.pod, func(a schema.Attr) bool { return a.Key == key })].Str
	}
	pod := a.kube.Pod(attr(schema.AttrK8sPodUID))
	if pod == nil {
		c.unknown, c.wait = true, true
		return
	}
	c.labels = pod.Labels
	of := pod.Containers[c.name]
	restarts, _ := strconv.Atoi(attr(schema.AttrK8sRestarts))
	id, settled := of.ID(restarts)
	c.wait = !settled
	add := func(key, value string) {
		if value != "" {
			c.pod = append(c.pod, schema.String(key, value))
		}
	}
	add(schema.AttrContainerID, id)
	add(schema.AttrImageName, of.Image)
	add(schema.AttrK8sNode, pod.Node)
	switch pod.Owner.Kind {
	case "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job":
		add(fmt.Sprintf(schema.AttrK8sOwner, strings.ToLower(pod.Owner.Kind)), pod.Owner.Name)
	}
}

func findPods(dir string) (all []container, err error) {
	pods, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		parts := strings.Split(pod.Name(), "_")
		if len(parts) != 3 || !pod.IsDir() {
			continue
		}
		containers, err := os.ReadDir(filepath.Join(dir, pod.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, c := range containers {
			logs, err := os.ReadDir(filepath.Join(dir, pod.Name(), c.Name()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && c.IsDir() {
				return nil, err
			}
			for _, log := range logs {
				restarts, ok := strings.CutSuffix(log.Name(), ".log")
				if _, err := strconv.Atoi(restarts); !ok || err != nil {
					continue
				}
				id := pod.Name() + "/" + c.Name() + "/" + restarts
				all = append(all, container{id: id, name: c.Name(), path: filepath.Join(dir, id+".log"), driver: criDriver, running: true, pod: []schema.Attr{
					schema.String(schema.AttrK8sNamespace, parts[0]), schema.String(schema.AttrK8sPod, parts[1]), schema.String(schema.AttrK8sPodUID, parts[2]),
					schema.String(schema.AttrK8sContainer, c.Name()), schema.String(schema.AttrK8sRestarts, restarts)}})
			}
		}
	}
	return all, nil
}
