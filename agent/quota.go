package agent

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"weir/schema"
)

// Quota bounds what an app's containers on this node may write, all together. An app may write a second's worth at once.
type Quota struct {
	Bytes int64  `yaml:"bytes_per_second"` // of record bodies; 0: any
	Lines int64  `yaml:"lines_per_second"` // records; 0: any
	Over  string `yaml:"over"`             // what becomes of the rest: block (it stays in the log until there is room), sample or drop; block when empty
	Keep  int64  `yaml:"keep"`             // of sample: one in so many is kept; 10 when 0
}

const (
	overBlock  = "block"
	overSample = "sample"
	overDrop   = "drop"

	sampleOneIn = 10
)

// quotaLabel on a container is its app's quota, such as "bytes=1048576,lines=1000,over=sample,keep=10".
const quotaLabel = "weir.quota"

// Validate joins what is wrong, each with its key.
func (q Quota) Validate() error {
	var errs []error
	if q.Bytes < 0 {
		errs = append(errs, errors.New("bytes_per_second: is below zero"))
	}
	if q.Lines < 0 {
		errs = append(errs, errors.New("lines_per_second: is below zero"))
	}
	if q.Bytes == 0 && q.Lines == 0 {
		errs = append(errs, errors.New("bytes_per_second: neither it nor lines_per_second is set"))
	}
	switch q.Over {
	case "", overBlock, overSample, overDrop:
	default:
		errs = append(errs, fmt.Errorf("over: %q is not block, sample or drop", q.Over))
	}
	if q.Keep < 0 || q.Keep > 0 && q.Over != overSample {
		errs = append(errs, errors.New("keep: is for over: sample, and above zero"))
	}
	return errors.Join(errs...)
}

// parseQuota reads the label.
func parseQuota(label string) (q Quota, err error) {
	for part := range strings.SplitSeq(label, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "bytes":
			q.Bytes, err = strconv.ParseInt(value, 10, 64)
		case "lines":
			q.Lines, err = strconv.ParseInt(value, 10, 64)
		case "keep":
			q.Keep, err = strconv.ParseInt(value, 10, 64)
		case "over":
			q.Over = value
		default:
			err = errors.New("it is not bytes, lines, over or keep")
		}
		if err != nil {
			return q, fmt.Errorf("%q: %w", key, err)
		}
	}
	return q, q.Validate()
}

// within bounds what a label asks for by the quota of the apps that are not named.
func (q Quota) within(most Quota) Quota {
	least := func(a, b int64) int64 {
		if a == 0 || b == 0 {
			return max(a, b)
		}
		return min(a, b)
	}
	q.Bytes, q.Lines = least(q.Bytes, most.Bytes), least(q.Lines, most.Lines)
	return q
}

// quota is one app's on this node; its sources share it.
type quota struct {
	Quota
	bytes, lines float64 // what may be written now; below zero after a burst that was let through as a whole
	at           time.Time
}

func newQuota(q Quota) *quota {
	if q.Keep == 0 {
		q.Keep = sampleOneIn
	}
	return &quota{Quota: q, bytes: float64(q.Bytes), lines: float64(q.Lines)}
}

// fill adds what time has brought.
func (q *quota) fill(now time.Time) {
	if d := now.Sub(q.at).Seconds(); d > 0 {
		if !q.at.IsZero() {
			q.bytes = min(q.bytes+d*float64(q.Bytes), float64(q.Bytes))
			q.lines = min(q.lines+d*float64(q.Lines), float64(q.Lines))
		}
		q.at = now
	}
}

// short is how long it takes until there is room again.
func (q *quota) short() (wait float64) {
	if q.Bytes > 0 && q.bytes <= 0 {
		wait = max(wait, (1-q.bytes)/float64(q.Bytes))
	}
	if q.Lines > 0 && q.lines <= 0 {
		wait = max(wait, (1-q.lines)/float64(q.Lines))
	}
	return wait
}

// blocks says whether reading must stop, after what was taken since the last call of wait.
func (q *quota) blocks() bool {
	return q != nil && (q.Over == "" || q.Over == overBlock) && q.short() > 0
}

// wait is how long reading has to wait; above zero only where the quota blocks.
func (q *quota) wait(now time.Time) time.Duration {
	if q == nil {
		return 0
	}
	q.fill(now)
	if !q.blocks() {
		return 0
	}
	return time.Duration(q.short() * float64(time.Second))
}

// take says whether a record is kept, and when only a sample is, of how many it is one.
func (q *quota) take(at schema.Position, size int, now time.Time) (sampled int64, keep bool) {
	if q == nil {
		return 0, true
	}
	q.fill(now)
	if over := q.short() > 0; over && q.Over == overDrop {
		return 0, false
	} else if over && q.Over == overSample {
		// By its place, so that the choice is the same when it is read again.
		h := crc32.Checksum(strconv.AppendInt(nil, at.Offset, 10), castagnoli)
		return q.Keep, int64(h)%q.Keep == 0
	}
	q.bytes -= float64(size)
	q.lines--
	return 0, true
}
