package agent

import (
	"context"
	"time"

	"weir/schema"
)

// safetyNet is how often a log that is watched is looked at all the same.
const safetyNet = 10 * time.Second

// read is the reading loop. It returns when ctx ends.
func (a *Agent) read(ctx, sending context.Context) {
	woken := a.watch(ctx)
	saveAt := time.Now().Add(time.Second)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		wake := saveAt
		busy := a.turns(sending, ctx, now, &wake)
		if err := a.sealAll(sending, now, false, &wake); err != nil {
			return
		}
		if !now.Before(saveAt) {
			if err := a.checkpoint(); err != nil {
				a.m.checkpointErrors.Inc()
				a.log.Error("cannot write the checkpoint; a crash now would cost repeats, not records", "dir", a.cfg.StateDir, "err", err)
			}
			a.limitDisk()
			saveAt = now.Add(time.Second)
		}
		wait := time.Duration(0)
		if !busy {
			// A source that is due at once still waits a little: each look then finds more to read.
			wait = max(a.cfg.Poll/10, time.Until(wake))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case c := <-a.commands:
			a.obey(c)
			for len(a.commands) > 0 {
				a.obey(<-a.commands)
			}
		case s := <-a.ready:
			s.idle, s.next = 0, time.Time{}
		case wd, ok := <-woken:
			if !ok { // the watcher has failed: logs are polled from now on
				a.watcher, woken = nil, nil
				wd = -1
			}
			a.woke(wd)
			for len(woken) > 0 {
				a.woke(<-woken)
			}
		case <-a.out.Freed():
		case <-timer.C:
		}
	}
}

// watch starts the watcher; without one, logs are polled. The channel is drained until the watcher has ended.
func (a *Agent) watch(ctx context.Context) <-chan int {
	w, err := newWatcher()
	if err != nil {
		a.log.Warn("quiet logs are polled", "err", err)
		return nil
	}
	a.watcher = w
	go func() {
		w.run()
		close(w.woken)
	}()
	context.AfterFunc(ctx, func() {
		w.close()
		for range w.woken {
		}
	})
	return w.woken
}

// woke makes a watched source due.
func (a *Agent) woke(wd int) {
	if wd < 0 {
		for _, s := range a.watched {
			s.armed, s.next = false, time.Time{}
		}
		clear(a.watched)
		return
	}
	if s := a.watched[wd]; s != nil {
		s.armed, s.idle, s.next = false, 0, time.Time{}
		delete(a.watched, wd)
	}
}

// turns lets each source that is due read once, in order, and moves wake to when the next one is. Where Kafka takes no more, the
// others wait for it at their place in the order, and only hold on to their files.
func (a *Agent) turns(sending, ctx context.Context, now time.Time, wake *time.Time) (busy bool) {
	a.blocked.Store(false)
	first := a.at
	for i := range a.ring {
		if ctx.Err() != nil {
			return false
		}
		at := (first + i) % len(a.ring)
		s := a.ring[at]
		switch {
		case now.Before(s.next):
			*wake = earlier(*wake, s.next)
			continue
		case a.blocked.Load() || !a.out.Room(schema.TopicLogs, turnRoom):
			if !a.blocked.Swap(true) {
				a.at = at
			}
			s.hold(now)
			*wake = earlier(*wake, s.holdAt)
			continue
		}
		busy = a.turn(sending, s, now) || busy
		*wake = earlier(*wake, s.next)
	}
	return busy
}

// turn lets a source read, and says when it is due again.
func (a *Agent) turn(sending context.Context, s *source, now time.Time) (more bool) {
	if wait := s.quota.wait(now); wait > 0 {
		s.next = now.Add(wait)
		s.hold(now)
		return false
	}
	if now.Before(s.waitTo) && !s.removed {
		s.next = earlier(s.waitTo, now.Add(a.cfg.Poll))
		s.hold(now)
		return false
	}
	before := s.bytes
	more, err := s.turn(sending, now)
	if err == nil {
		err = s.limitHeld(sending, now)
	}
	if err != nil && sending.Err() == nil {
		if s.failed != err.Error() {
			a.log.Error("cannot read a log; trying again", "source", s.name, "err", err)
		}
		more = false
	}
	if s.failed = ""; err != nil {
		s.failed = err.Error()
	}
	switch {
	case more:
		s.idle = 0
	case s.bytes > before:
		s.idle = 0
		s.next = now.Add(a.cfg.Poll)
	case s.armed:
		s.next = now.Add(safetyNet).Truncate(time.Second) // at the same moment as others, so that they cost one look round
	case s.idle >= 10*a.cfg.Poll && a.arm(s):
		s.next = now // what was written before the watch was set is not told by it
	default:
		s.idle = min(s.idle+a.cfg.Poll, 40*a.cfg.Poll)
		s.next = now.Add(s.idle)
	}
	s.show(now)
	return more
}

// arm watches a quiet source's log, if it is the file that is being read, or one that has no line yet, and nothing waits for a time to
// pass.
func (a *Agent) arm(s *source) bool {
	if a.watcher == nil || s.removed || len(s.queue) > 0 || len(s.ahead) > 0 || s.goneTo > 0 || s.file != nil && !s.current() {
		return false
	}
	wd, err := a.watcher.add(s.path)
	if err != nil {
		return false // no room for more watches, or the file is gone: it is polled
	}
	s.armed = true
	a.watched[wd] = s
	return true
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
