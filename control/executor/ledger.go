package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"weir/control"
	"weir/ingest"
)

// ledger is what the executor must not forget, in one file that is replaced whole: written aside, synced, renamed.
type ledger struct {
	dir  string
	lock *os.File

	Version int               `json:"version"`
	Born    int64             `json:"born"`  // Unix ns; begins the positions of outcomes
	Seq     int64             `json:"seq"`   // of the next outcome
	Chain   int64             `json:"chain"` // of the newest decider, and its epoch
	Epoch   int64             `json:"epoch"`
	Offsets map[string]int64  `json:"offsets"` // to read on at, by partition
	Orders  map[string]*entry `json:"orders"`  // until nobody could take them for good any more
	Acted   []int64           `json:"acted"`   // when, for the executor's own limit
}

// entry is one order. Where it has no outcome, the executor ended while it was being carried out.
type entry struct {
	Place    place             `json:"place"`
	Decision *control.Decision `json:"decision"`
	Began    int64             `json:"began"`
	Before   *live             `json:"before,omitempty"`
	Outcome  *control.Outcome  `json:"outcome,omitempty"`
}

// place is where an order was read. The same order at another place was sent again, or replayed.
type place struct {
	Partition string `json:"partition"`
	Offset    int64  `json:"offset"`
	Record    int    `json:"record"`
}

const (
	ledgerFile    = "ledger.json"
	ledgerVersion = 1
)

// Prepare makes the folder of the ledger for the user that the executor runs as. Whoever calls it may give files away.
func Prepare(dir string, uid, gid int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("executor.state_dir: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("executor.state_dir: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) == uid && int(owner.Gid) == gid {
		return nil // only the owner may change the mode, and this is another
	}
	if err := errors.Join(os.Chmod(dir, 0o700), os.Lchown(dir, uid, gid)); err != nil {
		return fmt.Errorf("executor.state_dir: %w", err)
	}
	return nil
}

// openLedger reads the file. A second executor with the same folder is refused, since it would do every order once more.
func openLedger(dir string, now time.Time) (*ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("executor.state_dir: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("executor.state_dir: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("executor.state_dir: another executor works with %s: %w", dir, err), lock.Close())
	}
	l := &ledger{dir: dir, lock: lock, Version: ledgerVersion, Born: now.UnixNano(), Offsets: map[string]int64{}, Orders: map[string]*entry{}}
	b, err := os.ReadFile(filepath.Join(dir, ledgerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(b, l)
	}
	if err == nil && l.Version > ledgerVersion {
		err = fmt.Errorf("version %d is not known here (this build reads %d)", l.Version, ledgerVersion)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("executor.state_dir: %s: %w (move it away to begin anew; what was ordered before is not looked at then)", filepath.Join(dir, ledgerFile), err), lock.Close())
	}
	return l, nil
}

func (l *ledger) save() error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	path := filepath.Join(l.dir, ledgerFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	d, err := os.Open(l.dir)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func (l *ledger) close() error { return l.lock.Close() }

// prune forgets orders that would be refused as expired if they came again, and actions that no limit looks at.
func (l *ledger) prune(now time.Time, limit time.Duration) {
	maps.DeleteFunc(l.Orders, func(_ string, e *entry) bool {
		return e.Outcome != nil && now.UnixNano()-e.Decision.Order.Expires > int64(time.Hour)
	})
	for len(l.Acted) > 0 && now.UnixNano()-l.Acted[0] >= int64(limit) {
		l.Acted = l.Acted[1:]
	}
}

// known tells whether a decision is of the newest decider that was heard of, and remembers a newer one.
func (l *ledger) known(d *control.Decision) bool {
	if d.Chain < l.Chain || d.Chain == l.Chain && d.Epoch < l.Epoch {
		return false
	}
	l.Chain, l.Epoch = d.Chain, d.Epoch
	return true
}

func (l *ledger) from() map[ingest.TopicPartition]int64 {
	from := map[ingest.TopicPartition]int64{}
	for name, offset := range l.Offsets {
		var tp ingest.TopicPartition
		if _, err := fmt.Sscanf(filepath.Base(name), "%d", &tp.Partition); err == nil {
			tp.Topic = filepath.Dir(name)
			from[tp] = offset
		}
	}
	return from
}
