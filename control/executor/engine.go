package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"weir/control"
)

// live is what the engine says of a container now.
type live struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Image      string            `json:"image"`
	Labels     map[string]string `json:"labels,omitempty"`
	Running    bool              `json:"running"`
	Restarting bool              `json:"restarting"`
	Paused     bool              `json:"paused"`
	ExitCode   int               `json:"exit_code"`
	Health     string            `json:"health,omitempty"`
	Started    int64             `json:"started"` // Unix ns
	Restarts   int               `json:"restarts"`
	AutoRemove bool              `json:"auto_remove,omitempty"`
}

// engine is what the executor needs of the container engine.
type engine interface {
	// look is errGone where there is no such container.
	look(ctx context.Context, ref string) (*live, error)
	start(ctx context.Context, id string) error
	stop(ctx context.Context, id string, timeout *int) error
	restart(ctx context.Context, id string, timeout *int) error
	// recreate puts a new container in the place of one; aside is what the old one is called meanwhile. Where it fails, the old one is
	// brought back.
	recreate(ctx context.Context, id, aside string, timeout *int) (fresh string, err error)
	// mend ends a recreation that was interrupted: forwards where the new container runs, else back. done tells which.
	mend(ctx context.Context, was *live, aside string) (fresh string, done bool, err error)
}

var errGone = errors.New("there is no such container on this node")

type docker struct{ c *client.Client }

func newDocker(host string) (*docker, error) {
	opts := []client.Opt{client.FromEnv}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	c, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("executor.docker_host: %w", err)
	}
	return &docker{c}, nil
}

func (d *docker) look(ctx context.Context, ref string) (*live, error) {
	r, err := d.inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	l := &live{ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), Image: r.Config.Image, Labels: r.Config.Labels, Running: r.State.Running, Restarting: r.State.Restarting,
		Paused: r.State.Paused, ExitCode: r.State.ExitCode, Restarts: r.RestartCount, AutoRemove: r.HostConfig.AutoRemove}
	if r.State.Health != nil {
		l.Health = string(r.State.Health.Status)
	}
	if t, err := time.Parse(time.RFC3339Nano, r.State.StartedAt); err == nil && !t.IsZero() {
		l.Started = t.UnixNano()
	}
	return l, nil
}

func (d *docker) inspect(ctx context.Context, ref string) (*container.InspectResponse, error) {
	res, err := d.c.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", ref, err)
	}
	r := &res.Container
	if r.Config == nil || r.State == nil || r.HostConfig == nil {
		return nil, fmt.Errorf("inspect %s: the engine's answer is not whole", ref)
	}
	return r, nil
}

func (d *docker) start(ctx context.Context, id string) error {
	_, err := d.c.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return err
}

func (d *docker) stop(ctx context.Context, id string, timeout *int) error {
	_, err := d.c.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: timeout})
	return err
}

func (d *docker) restart(ctx context.Context, id string, timeout *int) error {
	_, err := d.c.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: timeout})
	return err
}

func (d *docker) recreate(ctx context.Context, id, aside string, timeout *int) (string, error) {
	old, err := d.inspect(ctx, id)
	if err != nil {
		return "", err
	}
	name := strings.TrimPrefix(old.Name, "/")
	was := &live{ID: old.ID, Name: name, Running: old.State.Running || old.State.Restarting}
	if err := d.stop(ctx, old.ID, timeout); err != nil {
		return "", fmt.Errorf("stop the old container: %w", err)
	}
	fresh, err := d.replace(ctx, old, name, aside)
	if err != nil {
		// The caller's time may be what ran out.
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if _, _, mendErr := d.mend(back, was, aside); mendErr != nil {
			return "", errors.Join(err, fmt.Errorf("and the old container could not be brought back: %w", mendErr))
		}
		return "", fmt.Errorf("%w; the old container was brought back", err)
	}
	if err := d.remove(ctx, old.ID); err != nil {
		return fresh, fmt.Errorf("the new container runs, but the old one, %s, is still there: %w", aside, err)
	}
	return fresh, nil
}

// replace makes and starts the new container, after the old one was stopped.
func (d *docker) replace(ctx context.Context, old *container.InspectResponse, name, aside string) (string, error) {
	opts, later := likeness(old)
	opts.Name = name
	// A tag may name another image by now. A recreation is no upgrade.
	if img, err := d.c.ImageInspect(ctx, opts.Config.Image); err != nil || img.ID != old.Image {
		opts.Config.Image = old.Image
	}
	if _, err := d.c.ContainerRename(ctx, old.ID, client.ContainerRenameOptions{NewName: aside}); err != nil {
		return "", fmt.Errorf("rename the old container: %w", err)
	}
	res, err := d.c.ContainerCreate(ctx, opts)
	if err != nil {
		return "", fmt.Errorf("create the new container: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(later)) {
		if _, err := d.c.NetworkConnect(ctx, name, client.NetworkConnectOptions{Container: res.ID, EndpointConfig: later[name]}); err != nil {
			return "", fmt.Errorf("connect the new container to the network %s: %w", name, err)
		}
	}
	if err := d.start(ctx, res.ID); err != nil {
		return "", fmt.Errorf("start the new container: %w", err)
	}
	return res.ID, nil
}

func (d *docker) remove(ctx context.Context, id string) error {
	_, err := d.c.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true}) // its volumes stay
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// likeness is how to create a container like an old one: settings, labels, mounts and networks are the same. Engines before 25 connect a new
// container to one network; the others are connected afterwards.
func likeness(old *container.InspectResponse) (opts client.ContainerCreateOptions, later map[string]*network.EndpointSettings) {
	cfg, host := *old.Config, *old.HostConfig
	short := old.ID[:min(12, len(old.ID))]
	if cfg.Hostname == short {
		cfg.Hostname = "" // the engine made it of the id
	}
	// Volumes without a name that the engine made for the old container are mounted by the name that it gave them.
	named := map[string]bool{}
	for _, b := range host.Binds {
		if parts := strings.Split(b, ":"); len(parts) > 1 {
			named[parts[1]] = true
		}
	}
	host.Mounts = slices.Clone(host.Mounts)
	for i, m := range host.Mounts {
		if m.Source != "" || m.Type != mount.TypeVolume {
			named[m.Target] = true
		} else if at := slices.IndexFunc(old.Mounts, func(o container.MountPoint) bool { return o.Destination == m.Target }); at >= 0 {
			host.Mounts[i].Source, named[m.Target] = old.Mounts[at].Name, true
		}
	}
	for _, m := range old.Mounts {
		if m.Type == mount.TypeVolume && !named[m.Destination] {
			host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: m.Name, Target: m.Destination, ReadOnly: !m.RW})
			cfg.Volumes = maps.Clone(cfg.Volumes)
			delete(cfg.Volumes, m.Destination)
		}
	}
	opts = client.ContainerCreateOptions{Config: &cfg, HostConfig: &host}
	if old.NetworkSettings == nil || host.NetworkMode.IsContainer() || host.NetworkMode.IsHost() || host.NetworkMode.IsNone() {
		return opts, nil
	}
	endpoints := map[string]*network.EndpointSettings{}
	for name, e := range old.NetworkSettings.Networks {
		endpoints[name] = &network.EndpointSettings{IPAMConfig: e.IPAMConfig, Links: e.Links, DriverOpts: e.DriverOpts, GwPriority: e.GwPriority,
			Aliases: slices.DeleteFunc(slices.Clone(e.Aliases), func(a string) bool { return a == short })}
	}
	first := string(host.NetworkMode)
	if _, ok := endpoints[first]; !ok {
		first = "bridge"
	}
	if e, ok := endpoints[first]; ok {
		opts.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{first: e}}
		delete(endpoints, first)
	}
	return opts, endpoints
}

func (d *docker) mend(ctx context.Context, was *live, aside string) (string, bool, error) {
	old, err := d.look(ctx, was.ID)
	if errors.Is(err, errGone) {
		fresh, err := d.look(ctx, was.Name)
		if err != nil {
			return "", false, fmt.Errorf("the old container is gone, and there is none named %s: %w", was.Name, err)
		}
		return fresh.ID, true, nil
	}
	if err != nil {
		return "", false, err
	}
	if old.Name == aside {
		switch fresh, err := d.look(ctx, was.Name); {
		case err == nil && fresh.Running:
			return fresh.ID, true, d.remove(ctx, old.ID)
		case err == nil:
			if err := d.remove(ctx, fresh.ID); err != nil {
				return "", false, err
			}
		case !errors.Is(err, errGone):
			return "", false, err
		}
		if _, err := d.c.ContainerRename(ctx, old.ID, client.ContainerRenameOptions{NewName: was.Name}); err != nil {
			return "", false, err
		}
	}
	if was.Running && !old.Running {
		return "", false, d.start(ctx, old.ID)
	}
	return "", false, nil
}

// over tells whether the trouble has passed, or the engine deals with it; both are empty where neither is so.
func over(action string, o *control.Order, l *live, now time.Time) (verdict, reason string) {
	starts := action == control.Restart || action == control.Start
	switch {
	case starts && l.Restarting:
		return control.OutcomeAlready, "the engine restarts it already"
	case starts && o.Trouble == control.Down && l.Running && l.Started > o.Since:
		return control.OutcomeAlready, "it was started again since"
	}
	if reason = passed(action, o, l, now); reason != "" {
		verdict = control.OutcomePassed
	}
	return verdict, reason
}

func passed(action string, o *control.Order, l *live, now time.Time) string {
	up := l.Running && !l.Restarting
	ran := time.Duration(now.UnixNano() - l.Started)
	switch {
	case l.Paused:
		return "it is paused"
	case action == control.Start && up:
		return "it runs"
	case action == control.Stop && !l.Running && !l.Restarting:
		return "it does not run"
	case o.Trouble == control.Down && up && ran >= time.Duration(o.Settled):
		return fmt.Sprintf("it has run for %v", ran.Round(time.Second))
	case o.Trouble == control.Down && !l.Running && !l.Restarting && l.ExitCode == 0:
		return "it ended without an error"
	case o.Trouble == control.Sick && up && l.Health != string(container.Unhealthy):
		return "its health check says " + cmp.Or(l.Health, "nothing")
	case o.Trouble != control.Down && up && l.Started > o.Since:
		return "it was started again since"
	}
	return ""
}
