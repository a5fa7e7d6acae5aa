package ingest

import (
	"testing"
	"time"
)

type pacer struct {
	PartitionSink
	due bool
}

func (p pacer) CommitDue() bool { return p.due }

func TestCommitIsDue(t *testing.T) {
	for _, c := range []struct {
		name               string
		age                time.Duration
		moved, behind, own bool
		sink               PartitionSink
		want               bool
	}{
		{"young", time.Minute, true, false, false, nil, false},
		{"old", 11 * time.Minute, true, false, false, nil, true},
		{"old, nothing read", 11 * time.Minute, false, false, false, nil, false},
		{"old, behind", 11 * time.Minute, true, true, false, nil, false},
		{"very old, behind", 101 * time.Minute, true, true, false, nil, true},
		{"old, behind, own commit", 11 * time.Minute, true, true, true, nil, true},
		{"the sink asks", time.Minute, true, false, true, pacer{due: true}, true},
		{"the sink asks, nothing read", time.Minute, false, false, true, pacer{due: true}, false},
		{"the sink does not ask", time.Minute, true, false, true, pacer{}, false},
		{"the sink does not ask, old", 11 * time.Minute, true, false, true, pacer{}, true},
	} {
		p := &partition{c: &Consumer{cfg: ConsumerConfig{CommitInterval: 10 * time.Minute, OwnCommit: c.own}}, sink: c.sink, moved: c.moved, behind: c.behind, written: time.Now().Add(-c.age)}
		if got := p.due(); got != c.want {
			t.Errorf("%s: due %v", c.name, got)
		}
	}
}
