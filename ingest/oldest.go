package ingest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"time"

	"github.com/segmentio/kafka-go"
)

// oldest gives all partitions to the member whose process is the oldest, so that one that joins takes nothing from it. It has its
// own name: members with another balancer cannot be in such a group.
type oldest struct{ began time.Time }

func (oldest) ProtocolName() string { return "weir-oldest" }

func (o oldest) UserData() ([]byte, error) {
	return binary.BigEndian.AppendUint64(nil, uint64(o.began.UnixNano())), nil
}

// AssignGroups gives every member an assignment; that of those that stand by is empty.
func (oldest) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	all := kafka.GroupMemberAssignments{}
	first := members[0]
	for _, m := range members {
		all[m.ID] = map[string][]int{}
		if cmp.Or(bytes.Compare(m.UserData, first.UserData), cmp.Compare(m.ID, first.ID)) < 0 {
			first = m
		}
	}
	for _, p := range partitions {
		all[first.ID][p.Topic] = append(all[first.ID][p.Topic], p.ID)
	}
	return all
}
