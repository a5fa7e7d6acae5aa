package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"weir/ingest"
)

// Verify reads decisions in the order of their numbers and tells what is wrong with them: a link that is missing, was changed, or is there
// twice in two forms. The first may have any number: what was before it, Kafka may have deleted.
func Verify(chain []Sealed) (links []*Decision, problems []string) {
	var last *Sealed
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for i := range chain {
		s := &chain[i]
		d := new(Decision)
		if err := json.Unmarshal([]byte(s.Payload), d); err != nil {
			bad("decision %d cannot be read: %v", i, err)
			continue
		}
		if s.Hash != Hash(s.Payload) {
			bad("decision %d is not what its hash says", d.Seq)
		}
		if last != nil {
			before := links[len(links)-1]
			switch {
			case d.Chain != before.Chain:
				bad("another chain begins after decision %d: the decider's state was lost", before.Seq)
			case d.Seq == before.Seq && s.Hash == last.Hash:
				continue // sent again
			case d.Seq == before.Seq:
				bad("there are two decisions %d", d.Seq)
			case d.Seq != before.Seq+1:
				bad("decisions %d to %d are missing", before.Seq+1, d.Seq-1)
			case d.Prev != last.Hash:
				bad("decision %d does not follow decision %d: one of them was changed", d.Seq, before.Seq)
			}
			if d.Epoch < before.Epoch {
				bad("decision %d is of epoch %d, after one of epoch %d", d.Seq, d.Epoch, before.Epoch)
			}
		} else if d.Seq == 0 && d.Prev != "" {
			bad("decision 0 names one before it")
		}
		links, last = append(links, d), s
	}
	return links, problems
}

// LastWritten reads from the journal up to where the chain was written.
func LastWritten(ctx context.Context, j *ingest.Journal) (*State, error) {
	state := newState()
	err := j.Read(ctx, func(key string, value []byte) error { return state.replace(key, value) })
	return state, err
}

// replace takes an entry of the journal, if it is a state of this epoch or a later one.
func (s *State) replace(key string, value []byte) error {
	if !strings.HasPrefix(key, stateKey) || len(value) == 0 {
		return nil
	}
	fresh := newState()
	if err := json.Unmarshal(value, fresh); err != nil {
		return fmt.Errorf("state of the decider: %w", err)
	}
	if fresh.Version > stateVersion {
		return fmt.Errorf("state of the decider: version %d is not known here (this build reads %d)", fresh.Version, stateVersion)
	}
	if fresh.Epoch >= s.Epoch {
		*s = *fresh
	}
	return nil
}
