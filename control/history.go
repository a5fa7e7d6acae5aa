package control

import (
	"encoding/json"
	"fmt"
)

// Verify reads decisions in the order of their numbers and tells what is wrong with them: a link that is missing, was changed, or is there
// twice in two forms, and, where keys are given, one that none of them signed. The first may have any number: what was before it, Kafka may have deleted.
func Verify(chain []Sealed, keys Keys) (links []*Decision, problems []string) {
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
		if keys != nil && !keys.Signed(*s) {
			bad("decision %d is not signed by a trusted key", d.Seq)
		}
		if last != nil {
			before := links[len(links)-1]
			switch {
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
