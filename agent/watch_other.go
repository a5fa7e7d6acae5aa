//go:build !linux

package agent

import "errors"

// watcher needs inotify; elsewhere logs are polled.
type watcher struct{ woken chan int }

func newWatcher() (*watcher, error) { return nil, errors.New("there is no inotify on this system") }

func (*watcher) add(string) (int, error) { return 0, errors.ErrUnsupported }
func (*watcher) run()                    {}
func (*watcher) close()                  {}
