package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"weir/schema"
)

// engine is what the agent needs of the container engine.
type engine interface {
	list(ctx context.Context) ([]container, error)
	inspect(ctx context.Context, id string) (container, error)
	// follow calls f with each event from since (Unix ns) on, until the stream ends with an error. f must not block.
	follow(ctx context.Context, since int64, ready func(), f func(events.Message)) error
	// logs opens a container's log. Without follow it ends where the log does at the call.
	logs(ctx context.Context, id string, w window, follow bool) (io.ReadCloser, error)
}

type container struct {
	id, name, image string
	labels          map[string]string
	path            string // of the json-file log; empty when another driver keeps it
	driver          string
	running         bool
	ran             bool // it was started at least once
	tty             bool
	pod             []schema.Attr // of a container that the kubelet runs
	unknown         bool          // the Kubernetes API is asked, and has not said whose pod this is
	wait            bool          // what the API says is not all there yet
	app             string        // of a plain file: set, it goes before the labels
	named           bool          // a plain file that the configuration names without wildcards
	derived         bool          // a plain file that has the name of a rotated one, of a log that the configuration would find
}

// callTimeout bounds list and inspect; the event stream has no bound.
const callTimeout = 30 * time.Second

type docker struct {
	c    *client.Client
	root atomic.Pointer[string] // the engine's data folder, once it has said where it is
}

func newDocker(host string) (*docker, error) {
	opts := []client.Opt{client.FromEnv}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	c, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("docker_host: %w", err)
	}
	return &docker{c: c}, nil
}

// Engine asks whether this host's containers can be read: whether a Docker engine answers at host (empty: DOCKER_HOST or the
// client's default) and its log folder can be opened. It returns a
// description of the engine, and how many containers it has.
func Engine(ctx context.Context, host string) (description string, containers int, err error) {
	d, err := newDocker(host)
	if err != nil {
		return "", 0, err
	}
	defer d.c.Close()
	res, err := d.c.Info(ctx, client.InfoOptions{})
	if err != nil {
		for cause := errors.Unwrap(err); cause != nil; cause = errors.Unwrap(err) {
			err = cause // the client's own words repeat the address
		}
		return "", 0, fmt.Errorf("no Docker engine answers at %s: %w", d.c.DaemonHost(), err)
	}
	logs := filepath.Join(res.Info.DockerRootDir, "containers")
	f, err := os.Open(logs)
	if err != nil {
		return "", 0, fmt.Errorf("the Docker engine at %s keeps its logs where this process cannot read them: %w", d.c.DaemonHost(), err)
	}
	return fmt.Sprintf("Docker %s at %s", res.Info.ServerVersion, d.c.DaemonHost()), res.Info.Containers, f.Close()
}

func (d *docker) list(ctx context.Context) ([]container, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := d.c.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var all []container
	for _, item := range res.Items {
		c, err := d.inspect(ctx, item.ID)
		if err != nil {
			continue // removed meanwhile: its destroy event follows
		}
		all = append(all, c)
	}
	return all, nil
}

func (d *docker) inspect(ctx context.Context, id string) (container, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := d.c.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return container{}, fmt.Errorf("inspect %s: %w", id, err)
	}
	r := res.Container
	c := container{id: r.ID, name: strings.TrimPrefix(r.Name, "/"), image: r.Image}
	if r.Config != nil {
		c.labels, c.image, c.tty = r.Config.Labels, r.Config.Image, r.Config.Tty
	}
	if r.State != nil {
		started, err := time.Parse(time.RFC3339Nano, r.State.StartedAt)
		c.running, c.ran = r.State.Running, r.State.Running || err == nil && !started.IsZero()
	}
	if r.HostConfig != nil {
		c.driver = r.HostConfig.LogConfig.Type
	}
	if c.driver == "json-file" {
		// The engine names the log only when the container is started. It is this one, and to know it before helps to
		// open the log of a container that lives for an instant.
		if c.path = r.LogPath; c.path == "" {
			c.path = d.logPath(ctx, id)
		}
	}
	return c, nil
}

// logPath is where moby's json-file driver keeps a container's log (daemon/logs.go); empty when the engine does not say
// where its data are.
func (d *docker) logPath(ctx context.Context, id string) string {
	root := d.root.Load()
	if root == nil {
		res, err := d.c.Info(ctx, client.InfoOptions{})
		if err != nil || res.Info.DockerRootDir == "" {
			return ""
		}
		root = &res.Info.DockerRootDir
		d.root.Store(root)
	}
	return filepath.Join(*root, "containers", id, id+"-json.log")
}

func (d *docker) follow(ctx context.Context, since int64, ready func(), f func(events.Message)) error {
	opts := client.EventsListOptions{}
	if since > 0 {
		opts.Since = engineTime(since)
	}
	res := d.c.Events(ctx, opts)
	ready()
	for {
		select {
		case m := <-res.Messages:
			f(m)
		case err := <-res.Err:
			return err
		}
	}
}

// engineTime writes Unix ns as the engine reads them.
func engineTime(ns int64) string { return fmt.Sprintf("%d.%09d", ns/1e9, ns%1e9) }
