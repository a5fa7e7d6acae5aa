package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"weir/agent/multiline"
	"weir/ingest"
	"weir/schema"
)

// sender is the part of the producer that the agent uses.
type sender interface {
	// Room says whether values of n bytes for a topic can be sent without waiting; Freed is signalled when to ask again.
	Room(topic string, n int64) bool
	Freed() <-chan struct{}
	Send(ctx context.Context, m ingest.Message) error
	Flush(ctx context.Context) error
}

// turnBytes is what one source may read before the next has its turn, so that a flood delays nobody for long. What it reads
// beyond, since it reads by the buffer, is taken from its next turn (Shreedhar and Varghese, "Efficient fair queuing using
// deficit round robin").
const turnBytes = 256 << 10

// turnRoom is what the batches of one turn may need: what was read, grown by the encoding, and the batch begun before.
const turnRoom = 3 * turnBytes

// mark is a source's checkpoint: where reading goes on after a crash, and what is needed to cut there.
type mark struct {
	At    schema.Position    `json:"at"`    // the first line not yet given away
	Prev  schema.Position    `json:"prev"`  // end of the last batch
	Known bool               `json:"known"` // Prev is set
	Skip  [3]schema.Position `json:"skip"`  // per stream: pieces before it belong to records given away
	Lines int64              `json:"lines"`
	Bytes int64              `json:"bytes"`
	Entry *cursor            `json:"entry,omitempty"` // read through the engine: the last entry before At
	Trace *trace             `json:"trace,omitempty"` // of At, in a plain file
}

// source follows one container's log, or a plain file's. All fields but the acknowledged mark belong to the agent's reading goroutine.
//
// Records are released in the order of their first lines: a record that is complete waits for an earlier one that is
// not, so that a batch is contiguous and the place to go on from is a single position.
type source struct {
	a        *Agent
	name     string // docker/<node>/<container id>
	path     string
	kind     *format
	resource []schema.Attr
	app      string // of resource, for the status

	engine    *engineLog // nil: the agent reads files
	plain     *plainFile // nil: the log of a container
	file      *os.File
	inc       schema.Incarnation
	firstLine schema.Incarnation // of file, from its first line alone
	packed    bool               // file is the unpacked content of one that was compressed
	damage    error              // why file, unpacked, is shorter than it was
	goneTo    int64              // file was given up: its length
	offset    int64              // next byte to read
	ahead     []logFile          // open files of the log that come after file, oldest first
	queue     []*piece
	joins     string            // the key of joiner
	joiner    *multiline.Joiner // nil: every message is a record
	joining   [len(streams)]multiline.State
	maxGap    time.Duration // of joiner
	skip      [3]schema.Position

	quota   *quota // of its app; nil: none
	lost    loss   // dropped and not told yet
	counted int64  // what of agent.held is this source's

	enc       schema.Encoder
	encInc    schema.Incarnation
	busy      bool            // the last batch was large: the next takes memory for a full one at once
	first     schema.Position // of the batch being built
	opened    time.Time       // when its first record came
	prev      schema.Position
	known     bool
	ends      map[schema.Incarnation]int64 // length of the files left behind that records may still start in
	lines     int64
	bytes     int64
	deficit   int // bytes that may be read in this turn
	idle      time.Duration
	next      time.Time // not looked at before
	holdAt    time.Time // while reading waits for Kafka: when to look for new files
	holdPause time.Duration
	newest    int64 // length of the log's newest file when it was looked at last
	added     time.Time
	since     time.Time // when this process took it up
	waitTo    time.Time // the first line is not read before, unless all that the Kubernetes API says is there
	armed     bool      // the watcher tells when the log is written to
	removed   bool      // the container is gone: read to the end, then close
	started   bool      // the engine said that it ran
	doubt     bool      // it may have been read before the agent's state was lost
	told      bool      // closed or loss record sent
	failed    string    // told: why the last turn failed
	resumeAt  *mark     // from the checkpoint, until the file is open

	lastStart int64 // offset of the last record put into a batch
	lastTime  int64 // its time

	mu        sync.Mutex
	shown     shown
	acked     mark
	ackedTime int64 // of the last record that Kafka has; 0: none since the agent began
	unacked   int   // batches that Kafka does not have yet
	dirty     bool
	done      bool // everything is acknowledged and the source is to be forgotten
}

// turn reads for at most turnBytes. It reports whether there may be more at once.
func (s *source) turn(ctx context.Context, now time.Time) (more bool, err error) {
	if s.told {
		return false, nil
	}
	if s.engine != nil {
		return s.engineTurn(ctx, now)
	}
	if more, err = s.fileTurn(ctx, now); errors.Is(err, errReplaced) {
		return s.replaced(ctx, now)
	}
	return more, err
}

func (s *source) fileTurn(ctx context.Context, now time.Time) (more bool, err error) {
	if s.file == nil && s.goneTo == 0 {
		if err := s.open(ctx); err != nil || s.file == nil && s.goneTo == 0 {
			return false, err
		}
	}
	if s.goneTo > 0 {
		return s.passGone(ctx, now)
	}
	for s.deficit += turnBytes; s.deficit > 0; {
		n, err := s.read(ctx, now)
		if err != nil {
			return false, err
		}
		if n == 0 {
			s.deficit = 0
			moved, err := s.atEnd(ctx, now)
			return moved, err
		}
		if s.deficit -= n; s.quota.blocks() {
			break
		}
	}
	return true, s.lookAhead()
}

// open finds the file to go on with. No file at all is an error only for a source that is to be closed.
func (s *source) open(ctx context.Context) error {
	if s.plain != nil {
		return s.openPlain(ctx)
	}
	if err := s.lookAhead(); err != nil {
		return fmt.Errorf("open the log of %s: %w (the agent needs to read %s)", s.name, err, s.path)
	}
	files := s.ahead
	if len(files) == 0 {
		if s.removed {
			return s.vanished(ctx)
		}
		return nil
	}
	at := 0
	if m := s.resumeAt; m != nil {
		s.prev, s.known, s.skip, s.lines, s.bytes = m.Prev, m.Known, m.Skip, m.Lines, m.Bytes
		at = slices.IndexFunc(files, func(f logFile) bool { return f.inc == m.At.Incarnation })
		if at >= 0 {
			s.offset = m.At.Offset
		} else {
			at = max(0, slices.IndexFunc(files, func(f logFile) bool { return f.inc.Start > m.At.Start }))
			if err := s.lose(ctx, m.At, schema.Position{Incarnation: files[at].inc}, "rotated_away", "a rotated file was deleted before it was read to its end"); err != nil {
				return err
			}
		}
		s.resumeAt = nil
	}
	closeAll(files[:at])
	s.ahead = files[at:]
	return s.enter(s.offset)
}

// enter goes on with the first of the files ahead, at an offset.
func (s *source) enter(offset int64) error {
	next := s.ahead[0]
	if next.packed && next.f != nil {
		plain, damage, err := unpack(next.f, s.a.cfg.StateDir)
		if err != nil {
			return fmt.Errorf("unpack a rotated file of %s into agent.state_dir: %w", s.name, err)
		}
		next.f.Close()
		next.f, s.damage = plain, damage
	}
	if s.file != nil {
		s.file.Close()
	}
	s.ahead = s.ahead[1:]
	s.file, s.packed, s.inc, s.firstLine, s.offset, s.goneTo = next.f, next.packed, next.inc, next.first, offset, next.gone
	if s.plain != nil {
		if err := s.entered(next); err != nil {
			return err
		}
	}
	s.show(time.Now())
	return nil
}

// read takes one buffer of whole lines.
func (s *source) read(ctx context.Context, now time.Time) (int, error) {
	if s.plain != nil {
		return s.readPlain(ctx, now)
	}
	buf := s.a.buf
	n, err := s.file.ReadAt(buf, s.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read %s at %d: %w", s.path, s.offset, err)
	}
	used := 0
	s.a.text = s.a.text[:0]
	for used < n {
		end := bytes.IndexByte(buf[used:n], '\n')
		if end < 0 {
			break
		}
		if err := s.line(ctx, buf[used:used+end], s.offset+int64(used), int64(end+1), now); err != nil {
			return 0, err
		}
		if used += end + 1; s.quota.blocks() {
			break
		}
	}
	if used == 0 && n == len(buf) {
		if n < maxLineBytes {
			s.a.buf = make([]byte, min(2*n, maxLineBytes))
			return s.read(ctx, now)
		}
		// No line is that long: what is here is damaged, and is told as it is.
		if err := s.line(ctx, buf, s.offset, int64(n), now); err != nil {
			return 0, err
		}
		used = n
	}
	s.offset += int64(used)
	s.bytes += int64(used)
	s.a.m.read.Add(float64(used))
	return used, nil
}
