package control

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"
)

// State is all that the decider must not forget. It is written as one entry of the journal before anything that follows from it
// leaves the process, so it is never behind what was ordered.
type State struct {
	Version  int                 `json:"version"`
	Epoch    int64               `json:"epoch"`
	Chain    int64               `json:"chain"` // when the chain began, Unix ns
	Seq      int64               `json:"seq"`   // of the next decision
	Head     string              `json:"head"`  // hash of the last
	Frozen   *Freezing           `json:"frozen,omitempty"`
	Breakers map[string]*Opening `json:"breakers"` // those that are open
	Entries  map[string]*Entry   `json:"entries"`
	Spent    map[string][]int64  `json:"spent"`    // when actions of each budget were ordered, oldest first
	Ended    map[string]int64    `json:"ended"`    // containers that somebody ended on purpose, and when
	Handled  map[string]hashes   `json:"handled"`  // by partition: the newest triggers, of which Kafka's offset may not tell yet
	Commands map[string]int64    `json:"commands"` // that were carried out, so that none is twice
	Outbox   []Sealed            `json:"outbox"`   // decisions of this entry, to be sent after it was written
}

// stateVersion is of the form of a state. One of a newer version is refused: a decider that does not understand it would forget what it was told.
const stateVersion = 1

// Freezing says who froze everything.
type Freezing struct {
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
	At     int64  `json:"at"`
}

// Opening says why a breaker is open.
type Opening struct {
	Why string `json:"why"`
	At  int64  `json:"at"`
}

// totalBreaker is the breaker of everything; the others bear the names of policies.
const totalBreaker = "total"

// Entry is what is remembered of one policy and subject.
type Entry struct {
	Policy    string   `json:"policy"`
	Subject   string   `json:"subject"`
	Fired     []int64  `json:"fired,omitempty"` // triggers, newest last
	Cites     []string `json:"cites,omitempty"` // their ids
	Last      int64    `json:"last"`            // trigger, as the clock stood
	Called    int64    `json:"called,omitempty"`
	Step      int      `json:"step,omitempty"`  // index of the next
	Times     int      `json:"times,omitempty"` // that it was done already
	Acts      int      `json:"acts,omitempty"`  // since the last reset
	NotBefore int64    `json:"not_before,omitempty"`
	Order     string   `json:"order,omitempty"` // the last, until the next call has looked what became of it
	Expires   int64    `json:"expires,omitempty"`
	Outcome   string   `json:"outcome,omitempty"`
	Unhelped  bool     `json:"unhelped,omitempty"`
	Waiting   *Trigger `json:"waiting,omitempty"` // looked at again at Due, if nothing says before that the trouble is over
	Due       int64    `json:"due,omitempty"`
	Refused   string   `json:"refused,omitempty"` // reason of the last refusal that was recorded
	RefusedAt int64    `json:"refused_at,omitempty"`
	Repeats   int      `json:"repeats,omitempty"`
}

// Bounds of the state, so that it stays one message of Kafka.
const (
	maxEntries  = 2000
	maxEnded    = 2000
	maxCommands = 200
	maxCites    = 5
	endedFor    = 2 * time.Minute // how long after it was told to end a container's death is no crash
	commandLife = 5 * time.Minute // an older command is refused
	repeatEvery = time.Minute     // the same refusal of the same subject is recorded once in so long
)

func newState() *State {
	return &State{Version: stateVersion, Breakers: map[string]*Opening{}, Entries: map[string]*Entry{}, Spent: map[string][]int64{}, Ended: map[string]int64{}, Handled: map[string]hashes{}, Commands: map[string]int64{}}
}

// spent counts the actions of a budget within the time before now. Those that a clock set back puts ahead of now count.
func (s *State) spent(name string, now time.Time, per time.Duration) int {
	return len(s.Spent[name]) - within(s.Spent[name], now, per)
}

// within is the index of the first time that is not past.
func within(times []int64, now time.Time, per time.Duration) int {
	i, _ := slices.BinarySearch(times, now.Add(-per).UnixNano()+1)
	return i
}

// spend notes an action. What is older than the budget looks is forgotten.
func (s *State) spend(name string, now time.Time, per time.Duration) {
	times := append(s.Spent[name], now.UnixNano())
	slices.Sort(times)
	s.Spent[name] = slices.Clone(times[within(times, now, per):])
}

// prune forgets what no decision depends on any more, by the policies' times.
func (s *State) prune(now time.Time, policies map[string]*Policy) {
	for key, e := range s.Entries {
		p := policies[e.Policy]
		if p == nil || now.UnixNano()-e.Last > int64(max(p.Reset, p.longest())) {
			delete(s.Entries, key)
		}
	}
	maps.DeleteFunc(s.Ended, func(_ string, at int64) bool { return now.UnixNano()-at > int64(endedFor) })
	maps.DeleteFunc(s.Commands, func(_ string, at int64) bool { return now.UnixNano()-at > int64(2*commandLife) })
	maps.DeleteFunc(s.Spent, func(name string, times []int64) bool { return s.spent(name, now, 24*time.Hour) == 0 })
}

// longest is the longest time over which triggers are counted.
func (p *Policy) longest() (d time.Duration) {
	for _, o := range p.On {
		d = max(d, o.Within)
	}
	return d
}

// entry finds or makes the entry of a subject. Where there is no room, the one goes that was quiet for the longest and was never acted on; nil
// where there is none such.
func (s *State) entry(p *Policy, subject *Subject) *Entry {
	key := p.Name + "/" + subject.Key()
	if e := s.Entries[key]; e != nil {
		return e
	}
	if len(s.Entries) >= maxEntries {
		var oldest string
		for k, e := range s.Entries {
			if e.Acts == 0 && (oldest == "" || cmp.Or(cmp.Compare(e.Last, s.Entries[oldest].Last), cmp.Compare(k, oldest)) < 0) {
				oldest = k
			}
		}
		if oldest == "" {
			return nil
		}
		delete(s.Entries, oldest)
	}
	e := &Entry{Policy: p.Name, Subject: subject.Key()}
	s.Entries[key] = e
	return e
}

// hashes are 64 bits each of records' ids, packed in JSON.
type hashes []uint64

// keptHashes is how many are kept beyond those of the commit under way. Only those of the last commit are needed after a crash; the others are for a
// process that stood still, and begins where Kafka's offset was long ago.
const keptHashes = 200

// add makes these the newest.
func (h hashes) add(fresh ...uint64) hashes {
	h = slices.DeleteFunc(h, func(x uint64) bool { return slices.Contains(fresh, x) })
	return append(h, fresh...)
}

// MarshalText is base64 of big-endian numbers.
func (h hashes) MarshalText() ([]byte, error) {
	var b []byte
	for _, x := range h {
		b = binary.BigEndian.AppendUint64(b, x)
	}
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText reads what MarshalText writes.
func (h *hashes) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil || len(b)%8 != 0 {
		return errors.New("damaged list of what was handled")
	}
	for ; len(b) > 0; b = b[8:] {
		*h = append(*h, binary.BigEndian.Uint64(b))
	}
	return nil
}
