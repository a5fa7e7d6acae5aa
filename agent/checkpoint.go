package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// checkpoint is the agent's whole state on disk. Losing it costs repeats, which consumers drop, never records.
type checkpoint struct {
	Version int              `json:"version"`
	Sources map[string]saved `json:"sources"`
	Events  eventMark        `json:"events"`

	lost bool // there was a checkpoint, and it could not be read
}

type saved struct {
	mark
	Path    string            `json:"path"`
	Started bool              `json:"started"` // the container ran, so that there was a log
	Tags    map[string]string `json:"resource"`
	Joins   string            `json:"joins,omitempty"` // how lines are joined, once one was read; see Agent.configure
}

// eventMark says which engine events are acknowledged.
type eventMark struct {
	Last   int64      `json:"last"`             // position of the last one
	Recent []eventKey `json:"recent,omitempty"` // the last ones, oldest first
}

const checkpointName = "checkpoint.json"

// loadCheckpoint reads the state; a damaged file is kept aside and reading starts from what is on disk.
func loadCheckpoint(dir string, log *slog.Logger) (checkpoint, error) {
	c := checkpoint{Version: 1, Sources: map[string]saved{}}
	path := filepath.Join(dir, checkpointName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the checkpoint: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil || c.Version != 1 {
		bad := path + ".bad"
		log.Error("the checkpoint is damaged; every log is read again from its oldest file, and consumers drop the repeats", "file", path, "kept_as", bad, "err", err)
		if err := os.Rename(path, bad); err != nil {
			return c, fmt.Errorf("set the damaged checkpoint aside: %w", err)
		}
		return checkpoint{Version: 1, Sources: map[string]saved{}, lost: true}, nil
	}
	if c.Sources == nil {
		c.Sources = map[string]saved{}
	}
	return c, nil
}

// save replaces the file: written aside, synced, renamed, and the folder synced.
func (c *checkpoint) save(dir string) error {
	b, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, checkpointName)
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	if _, err = f.Write(append(b, '\n')); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
