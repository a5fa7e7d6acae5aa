package agent

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"weir/agent/multiline"
	"weir/schema"
)

// hostLog writes a plain file and rotates it as logrotate does.
type hostLog struct {
	t    *testing.T
	path string
	head string   // the first line of every file
	want []string // all records that were written
}

func (h *hostLog) raw(s string) {
	h.t.Helper()
	f, err := os.OpenFile(h.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(s)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hostLog) write(lines ...string) {
	h.t.Helper()
	head := ""
	if h.head != "" && h.size() == 0 {
		head = h.head + "\n"
	}
	for _, l := range lines {
		h.raw(head + l + "\n")
		head = ""
		h.want = append(h.want, ": "+l)
	}
}

// shift makes room for a new first rotated file, and packs those after it.
func (h *hostLog) shift(pack bool) {
	h.t.Helper()
	for n := 99; n > 0; n-- {
		for _, end := range []string{"", packedSuffix} {
			from, to := fmt.Sprintf("%s.%d%s", h.path, n, end), fmt.Sprintf("%s.%d%s", h.path, n+1, end)
			if err := os.Rename(from, to); err == nil && pack && end == "" {
				h.pack(to)
			}
		}
	}
}

// pack does what gzip does: the packed file has the time of the other.
func (h *hostLog) pack(name string) {
	h.t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		h.t.Fatal(err)
	}
	info, _ := os.Stat(name)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(data)
	_ = z.Close()
	if err := errors.Join(os.WriteFile(name+packedSuffix, b.Bytes(), 0o600), os.Chtimes(name+packedSuffix, info.ModTime(), info.ModTime()), os.Remove(name)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hostLog) rename(pack bool) {
	h.t.Helper()
	h.shift(pack)
	if err := os.Rename(h.path, h.path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
}

func (h *hostLog) copytruncate(pack bool) {
	h.t.Helper()
	data, err := os.ReadFile(h.path)
	if errors.Is(err, fs.ErrNotExist) || len(data) == 0 {
		return
	}
	h.shift(pack)
	if err := errors.Join(err, os.WriteFile(h.path+".1", data, 0o600), os.Truncate(h.path, 0)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hostLog) size() int64 {
	info, err := os.Stat(h.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// drop deletes the rotated files.
func (h *hostLog) drop() {
	h.t.Helper()
	names, _ := filepath.Glob(h.path + ".*")
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			h.t.Fatal(err)
		}
	}
}

func setupPlain(t *testing.T) (*fixture, *hostLog) {
	f := setup(t)
	delete(f.engine.containers, "c1")
	dir := t.TempDir()
	f.cfg.Files = []FileConfig{{Paths: []string{filepath.Join(dir, "*.log*")}, App: "ledger", Labels: map[string]string{"team": "core"}}}
	return f, &hostLog{t: t, path: filepath.Join(dir, "app.log")}
}

// kill ends an agent whose last acknowledgements reach nobody.
func (f *fixture) kill(stop func()) {
	f.hold(true)
	stop()
	f.hold(false)
}

func (f *fixture) hold(yes bool) {
	f.out.mu.Lock()
	defer f.out.mu.Unlock()
	f.out.hold = yes
}

func (f *fixture) reasons() (reasons []string) {
	f.out.mu.Lock()
	defer f.out.mu.Unlock()
	for _, r := range f.out.evs {
		if a, ok := r.Attr(schema.AttrLossReason); ok {
			reasons = append(reasons, a.Str)
		}
	}
	return reasons
}

func (f *fixture) noLoss() {
	f.t.Helper()
	if r := f.reasons(); len(r) > 0 {
		f.t.Errorf("loss records: %v", r)
	}
}

func TestPlainLines(t *testing.T) {
	for name, c := range map[string]struct {
		raw  string
		want []string
	}{
		"lines":                 {"one\ntwo\n\n2026-11-25 12:00:00 three\n", []string{": one", ": two", ": ", ": 2026-11-25 12:00:00 three"}},
		"carriage returns":      {"one\r\ntwo\r\r\n", []string{": one", ": two\r"}},
		"byte order mark":       {"\ufeffone\n\ufefftwo\n", []string{": one", ": \ufefftwo"}},
		"zeros at the start":    {strings.Repeat("\x00", 300<<10) + "one\ntwo\n", []string{": one", ": two"}},
		"zeros between":         {"one\n" + strings.Repeat("\x00", 5000) + "two\n\x00three\n", []string{": one", ": two", ": three"}},
		"zeros within":          {"one\x00\x00more\ntwo\n", []string{": one\x00\x00more", ": two"}},
		"not UTF-8":             {"one\xff\xfe\ntwo\n", []string{": one\xff\xfe", ": two"}},
		"exactly the limit":     {strings.Repeat("x", 16<<10) + "\nend\n", []string{": " + strings.Repeat("x", 16<<10), ": end"}},
		"one above the limit":   {strings.Repeat("x", 16<<10+1) + "\nend\n", []string{" weir.truncated: " + strings.Repeat("x", 16<<10), ": x", ": end"}},
		"longer than a buffer":  {strings.Repeat("y", 16<<10) + strings.Repeat("z", 16<<10) + "tail\n", []string{" weir.truncated: " + strings.Repeat("y", 16<<10), " weir.truncated: " + strings.Repeat("z", 16<<10), ": tail"}},
		"no cut in a character": {strings.Repeat("x", 16<<10-1) + "é and more\n", []string{" weir.truncated: " + strings.Repeat("x", 16<<10-1), ": é and more"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, h := setupPlain(t)
			f.cfg.MaxRecordBytes = 16 << 10
			h.raw(c.raw)
			stop := f.start()
			f.expect(c.want...)
			f.kill(stop) // and read anew, with the same ids and bodies
			if err := os.RemoveAll(f.cfg.StateDir); err != nil {
				t.Fatal(err)
			}
			stop = f.start()
			h.raw("behind\n")
			f.expect(append(c.want, ": behind")...)
			stop()
			f.noLoss()
		})
	}
}

func TestPlainRecord(t *testing.T) {
	f, h := setupPlain(t)
	h.raw("2026-11-25T12:00:00.5Z ERROR paid with 4111 1111 1111 1111\nno time here\n")
	defer f.start()()
	f.expect(": 2026-11-25T12:00:00.5Z ERROR paid with [redacted:card:1111]", ": no time here")
	s := f.agent.Status()
	if len(s) != 1 || s[0].Source != "file/n1"+h.path || s[0].App != "ledger" {
		t.Errorf("status: %+v", s)
	}
	f.out.mu.Lock()
	defer f.out.mu.Unlock()
	got := maps.Clone(f.out.said["no time here"])
	for _, key := range []string{schema.AttrRedaction, schema.AttrSource, schema.AttrIncarnation} {
		delete(got, key)
	}
	if want := map[string]string{schema.AttrHostName: "n1", schema.AttrFilePath: h.path, schema.AttrApp: "ledger", schema.LabelPrefix + "team": "core"}; !reflect.DeepEqual(got, want) {
		t.Errorf("resource %v, want %v", got, want)
	}
	if want := time.Date(2026, 11, 25, 12, 0, 0, 5e8, time.UTC).UnixNano(); f.out.times[": no time here"] != 0 || f.out.times[": 2026-11-25T12:00:00.5Z ERROR paid with [redacted:card:1111]"] != want {
		t.Errorf("times %v", f.out.times)
	}
}

// TestPlainSparse has a writer that keeps its place while its file is truncated: most of the file is a hole.
func TestPlainSparse(t *testing.T) {
	f, h := setupPlain(t)
	w, err := os.Create(h.path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fmt.Fprintln(w, "one")
	defer f.start()()
	f.expect(": one")
	const hole = 64 << 30
	h.copytruncate(false)
	if _, err := w.WriteAt([]byte("two\nthree\n"), hole); err != nil {
		t.Skipf("no file of %d bytes can be made here: %v", int64(hole), err)
	}
	f.expect(": one", ": two", ": three")
	f.noLoss()
}

func TestPlainUTF16(t *testing.T) {
	f, h := setupPlain(t)
	h.raw("\xff\xfeo\x00n\x00e\x00\n\x00")
	other := &hostLog{t: t, path: filepath.Join(filepath.Dir(h.path), "other.log")}
	other.write("text")
	defer f.start()()
	f.expect(": text")
}

// TestPlainGrowing has a first line that comes in halves, and a file that is never as long as a fingerprint of others.
func TestPlainGrowing(t *testing.T) {
	f, h := setupPlain(t)
	h.raw("fi")
	defer f.start()()
	h.raw("rst\n")
	f.expect(": first")
	h.raw("sec")
	h.raw("ond\n")
	f.expect(": first", ": second")
	f.noLoss()
}

func TestPlainRename(t *testing.T) {
	for _, head := range []string{"", "#Fields: date time s-ip"} {
		for _, pack := range []bool{false, true} {
			t.Run(fmt.Sprintf("%q packed %v", head, pack), func(t *testing.T) {
				f, h := setupPlain(t)
				f.out.ignore = ": " + head
				h.head = head
				h.write("one", "two")
				stop := f.start()
				f.expect(h.want...)
				h.write("three")
				h.rename(pack)
				h.write("four")
				f.expect(h.want...)
				stop()
				for i := range 4 { // down
					h.write(fmt.Sprint("down ", i))
					h.rename(pack)
				}
				h.write("five")
				stop = f.start()
				f.expect(h.want...)
				f.kill(stop)
				_ = os.Remove(filepath.Join(f.cfg.StateDir, checkpointName))
				if !pack { // a packed file was made when it was packed, and these lines have no time
					stop = f.start()
					h.write("six")
					f.expect(h.want...)
					stop()
				}
				f.noLoss()
			})
		}
	}
}

// TestPlainLostState has lines with their time: packed or copied, read anew they have the same ids.
func TestPlainLostState(t *testing.T) {
	f, h := setupPlain(t)
	n := 0
	write := func() {
		for range 5 {
			n++
			h.write(time.Date(2026, 11, 25, 12, 0, n, 0, time.UTC).Format(time.RFC3339) + " line")
		}
	}
	write()
	stop := f.start()
	for i := range 6 {
		f.expect(h.want...)
		if i%2 == 0 {
			h.rename(true)
		} else {
			h.copytruncate(true)
		}
		write()
	}
	f.expect(h.want...)
	f.kill(stop)
	_ = os.Remove(filepath.Join(f.cfg.StateDir, checkpointName))
	stop = f.start()
	write()
	f.expect(h.want...)
	stop()
	f.noLoss()
}

func TestPlainCopytruncate(t *testing.T) {
	for _, head := range []string{"", "#Fields: date time s-ip"} {
		for _, pack := range []bool{false, true} {
			t.Run(fmt.Sprintf("%q packed %v", head, pack), func(t *testing.T) {
				f, h := setupPlain(t)
				f.out.ignore = ": " + head
				h.head = head
				h.write("one", "two")
				stop := f.start()
				f.expect(h.want...)
				h.write("three") // may be read from the copy
				h.copytruncate(pack)
				h.write("four")
				f.expect(h.want...)
				h.write("five")
				h.copytruncate(pack)
				for i := range 50 { // longer at once than it was
					h.write(fmt.Sprint("regrown ", i))
				}
				f.expect(h.want...)
				stop()
				h.write("down")
				h.copytruncate(pack)
				h.write("down too")
				h.copytruncate(pack)
				for i := range 100 {
					h.write(fmt.Sprint("down and regrown ", i))
				}
				stop = f.start()
				f.expect(h.want...)
				stop()
				f.noLoss()
			})
		}
	}
}

// TestPlainTruncated has a file that is emptied without a copy.
func TestPlainTruncated(t *testing.T) {
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprint("down ", down), func(t *testing.T) {
			f, h := setupPlain(t)
			h.write("one", "two")
			stop := f.start()
			f.expect(h.want...)
			if down {
				stop()
			}
			if err := os.Truncate(h.path, 0); err != nil {
				t.Fatal(err)
			}
			h.write("three")
			if down {
				stop = f.start()
			}
			f.expect(h.want...)
			f.await("a loss record", func() bool { return fmt.Sprint(f.reasons()) == "[truncated_unread]" })
			h.write("four")
			f.expect(h.want...)
			stop()
			if len(f.reasons()) != 1 {
				t.Errorf("loss records: %v", f.reasons())
			}
		})
	}
}

func TestPlainSymlink(t *testing.T) {
	f, h := setupPlain(t)
	dir := t.TempDir()
	link := filepath.Join(dir, "current.log")
	f.cfg.Files = []FileConfig{{Paths: []string{link}}}
	point := func(name string) {
		h.path = filepath.Join(filepath.Dir(h.path), name)
		h.write("first of " + name)
		if err := errors.Join(os.Symlink(h.path, link+".new"), os.Rename(link+".new", link)); err != nil {
			t.Fatal(err)
		}
	}
	point("app-1.log")
	old := *h
	defer f.start()()
	f.expect(h.want...)
	point("app-2.log")
	f.expect(h.want...)
	old.write("late")
	f.expect(append(h.want, ": late")...)
	f.await("the closed record", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), schema.EventSourceClosed) })
	if s := f.agent.Status(); len(s) != 1 || s[0].Source != "file/n1"+h.path {
		t.Errorf("status: %+v", s)
	}
	f.noLoss()
}

// TestPlainDeleted deletes a file, which ends its source, and makes it anew.
func TestPlainDeleted(t *testing.T) {
	f, h := setupPlain(t)
	h.write("one")
	stop := f.start()
	f.expect(h.want...)
	h.write("two")
	h.raw("unfinished")
	if err := os.Remove(h.path); err != nil {
		t.Fatal(err)
	}
	f.await("the closed record", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), schema.EventSourceClosed) })
	f.expect(append(h.want, " weir.partial: unfinished")...)
	h.write("three")
	f.expect(append(h.want, " weir.partial: unfinished")...)
	stop()
	f.noLoss()
	if err := os.Remove(h.path); err != nil { // while the agent is down nobody knows what was written
		t.Fatal(err)
	}
	defer f.start()()
	f.await("the loss record", func() bool { return fmt.Sprint(f.reasons()) == "[removed_unread]" })
}

// TestPlainReplacedWhileDown deletes the file that was read, and leaves one that was read before it.
func TestPlainReplacedWhileDown(t *testing.T) {
	f, h := setupPlain(t)
	h.write("one")
	stop := f.start()
	f.expect(h.want...)
	h.rename(false)
	time.Sleep(10 * time.Millisecond) // the times of files must differ
	h.write("two")
	f.expect(h.want...)
	stop()
	if err := os.Remove(h.path); err != nil {
		t.Fatal(err)
	}
	stop = f.start()
	time.Sleep(5 * f.agent.pace())
	f.expect(h.want...)
	h.write("three")
	f.expect(h.want...)
	stop()
	if fmt.Sprint(f.reasons()) != "[rotated_away]" {
		t.Errorf("loss records: %v", f.reasons())
	}
}

// TestPlainLateWriter has a process that goes on for a moment in the renamed file after another began the new one.
func TestPlainLateWriter(t *testing.T) {
	f, h := setupPlain(t)
	h.write("one")
	defer f.start()()
	f.expect(h.want...)
	h.rename(false)
	late := *h
	late.path += ".1"
	late.write("late 1")
	h.write("two")
	late.write("late 2")
	f.expect(append(h.want, ": late 1", ": late 2")...)
	f.noLoss()
}

// TestPlainMidCopy has the agent come between the copy and the truncation of a copytruncate, also where the truncation waits for a slow disk.
func TestPlainMidCopy(t *testing.T) {
	for _, age := range []time.Duration{0, 20 * time.Second} {
		t.Run(age.String(), func(t *testing.T) {
			f, h := setupPlain(t)
			f.cfg.Poll = 25 * time.Millisecond // logs are looked for once a second
			h.write("one", "two")
			data, err := os.ReadFile(h.path)
			if err == nil {
				err = os.WriteFile(h.path+".1", data, 0o600)
			}
			if err == nil {
				err = os.Chtimes(h.path+".1", time.Time{}, time.Now().Add(-age))
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.start()()
			f.await("the source", func() bool { return len(f.agent.Status()) == 1 })
			if err := os.Truncate(h.path, 0); err != nil {
				t.Fatal(err)
			}
			h.write("three")
			f.expect(h.want...)
			f.noLoss()
		})
	}
}

// TestPlainSeen looks at a file, changes it, and looks again.
func TestPlainSeen(t *testing.T) {
	const head = "#Fields: date time\n"
	long := strings.Repeat("a line of the log\n", 50)
	for name, c := range map[string]struct {
		first, second, third string
		whole                bool
	}{
		"grown":                        {head, head + long, head + long + "more\n", true},
		"the same":                     {head, head, head, true},
		"a line without end rewritten": {head, head + "one\nprogress 10%", head + "one\nprogress 20%\n", true},
		"zeros filled in":              {head, head + "one\n" + strings.Repeat("\x00", 4096), head + "one\ntwo\n" + strings.Repeat("\x00", 4092), true},
		"emptied":                      {head, head + long, "", false},
		"shorter, begins alike":        {head, head + long, head, false},
		"as long, begins alike":        {head, head + long + "one\n", head + long + "two\n", false},
		"longer, begins alike":         {head, head + "one\n", head + "two\n" + long, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "app.log")
			write := func(content string) {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(c.first)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			v := seen{int64(len(head)), []byte(head)}
			write(c.second)
			if !v.look(f) {
				t.Error("at the second look it is another file")
			}
			write(c.third)
			if got := v.look(f); got != c.whole {
				t.Errorf("at the third look: %v, want %v", got, c.whole)
			}
		})
	}
}

// unread is what the agent says that it holds and has not read.
func (f *fixture) unread() int64 {
	if all := f.agent.Status(); len(all) == 1 {
		return all[0].UnreadBytes
	}
	return -1
}

// TestPlainWhileKafkaIsAway rotates, and deletes the rotated files as soon as the agent has looked, while nothing can be sent.
func TestPlainWhileKafkaIsAway(t *testing.T) {
	for _, mode := range []string{"renamed", "copied", "both", "copied, begins alike"} {
		for _, before := range []string{"new", "running", "restarted"} {
			t.Run(mode+" "+before, func(t *testing.T) {
				f, h := setupPlain(t)
				if mode == "copied, begins alike" {
					h.head = "#Fields: date time s-ip"
					f.out.ignore = ": " + h.head
				}
				stop := func() {}
				if before != "new" {
					h.write("read before")
					stop = f.start()
					f.expect(h.want...)
				}
				if before == "restarted" {
					stop()
				}
				f.out.away.Store(true)
				if before != "running" {
					stop = f.start()
				}
				written := int64(0)
				write := func(line string) {
					was := h.size()
					h.write(line)
					written += h.size() - was
				}
				for i := range 8 {
					for range 1 + i%3 { // rotations between two looks
						for j := range 20 {
							write(fmt.Sprintf("%d-%d-%d", i, j, written))
						}
						if mode == "renamed" || mode == "both" && i%2 == 0 {
							h.rename(false)
						} else {
							h.copytruncate(false)
						}
					}
					write(fmt.Sprint("first ", written)) // until it has a line the new file is not one
					f.await("the files to be held", func() bool { return f.unread() == written })
					h.drop()
				}
				if n := len(f.out.bodies()); before == "new" && n != 0 || before != "new" && n != 1 {
					t.Fatalf("%d records were sent", n)
				}
				f.out.back()
				got := map[string]int{}
				for _, w := range h.want {
					got[w]++
				}
				f.await("all lines", func() bool { return reflect.DeepEqual(f.out.bodies(), got) })
				h.write("the end")
				got[": the end"]++
				f.await("the end", func() bool { return reflect.DeepEqual(f.out.bodies(), got) })
				stop()
				f.noLoss()
			})
		}
	}
}

// TestPlainDiskBudget has Kafka away for longer than the disk budget lasts. What was given up is told to the byte.
func TestPlainDiskBudget(t *testing.T) {
	for _, mode := range []string{"renamed", "copied"} {
		t.Run(mode, func(t *testing.T) {
			f, h := setupPlain(t)
			f.cfg.DiskBytes = 20 << 10
			f.out.away.Store(true)
			stop := f.start()
			unread := int64(0)
			for i := range 20 {
				for j := range 20 {
					line := fmt.Sprintf("%d-%d %s", i, j, strings.Repeat("x", 100))
					h.write(line)
					unread += int64(len(line) + 1)
				}
				f.await("the file to be held", func() bool { return f.unread() == unread })
				if mode == "renamed" {
					h.rename(false)
				} else {
					h.copytruncate(false)
				}
				h.write("x")
				unread += 2
				f.await("the files to be held", func() bool { return f.unread() == unread })
				h.drop()
			}
			f.await("files to be given up", func() bool { return f.agent.givenUp.Load() > 5 })
			h.write("the end")
			f.out.back()
			f.await("the end", func() bool { return f.out.bodies()[": the end"] == 1 })
			stop()
			n, _, told := f.out.losses("disk_budget")
			got, missing := f.out.bodies(), int64(0)
			for _, w := range h.want {
				if got[w]--; got[w] < 0 {
					missing += int64(len(w) - len(": ") + 1)
				}
			}
			if n == 0 || missing == 0 || missing != told || len(f.reasons()) != n {
				t.Errorf("%d bytes are missing, %d loss records of %d tell of %d", missing, n, len(f.reasons()), told)
			}
			h.write("after")
			defer f.start()()
			f.await("what came after", func() bool { return f.out.bodies()[": after"] == 1 })
			if len(f.reasons()) != n {
				t.Errorf("loss records: %v", f.reasons())
			}
		})
	}
}

func TestPlainSecondEntryAndLimit(t *testing.T) {
	f, h := setupPlain(t)
	dir := filepath.Dir(h.path)
	f.cfg.Files = append(f.cfg.Files, FileConfig{Paths: []string{filepath.Join(dir, "**", "*.log")}, Exclude: []string{filepath.Join(dir, "**", "debug*")}, App: "second"})
	f.cfg.MaxFiles = 2
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.write("one")
	for _, name := range []string{"sub/debug.log", "sub/b.log", "sub/c.log"} {
		(&hostLog{t: t, path: filepath.Join(dir, name)}).write(name)
	}
	defer f.start()()
	f.expect(": one", ": sub/b.log")
	time.Sleep(3 * f.agent.pace())
	f.expect(": one", ": sub/b.log")
	apps := map[string]string{}
	for _, s := range f.agent.Status() {
		apps[filepath.Base(s.Source)] = s.App
	}
	if want := map[string]string{"app.log": "ledger", "b.log": "second"}; !reflect.DeepEqual(apps, want) {
		t.Errorf("apps %v, want %v", apps, want)
	}
}

func TestRotatedFrom(t *testing.T) {
	for name, want := range map[string]string{
		"app.log": "", "app": "", "app.log.1": "app.log", "app.log.12.gz": "app.log", "app.log-20260101": "app.log", "app.log.2026-01-01": "app.log", "app.log-20260101-1764000000.gz": "app.log",
		"app.1.log": "app.log", "app-2026-01-01.log": "app.log", "app-2026-01-01T10.log.gz": "app.log", "app_20260101.log": "app.log", "app.log.old": "app.log", "syslog.1": "syslog",
		"app-audit.log": "", "app.log.err": "", "app2.log": "", ".1": "", "app.log.1.txt": "app.log.txt",
	} {
		if got := rotatedFrom(name); want == "" && len(got) > 0 || want != "" && !strings.Contains(" "+strings.Join(got, " ")+" ", " "+want+" ") {
			t.Errorf("%s: %v, want %q", name, got, want)
		}
	}
}

// TestPlainOwnLogs has names that look like rotated files. Those are followed whose log is not there, and those that are named without wildcards.
func TestPlainOwnLogs(t *testing.T) {
	f, h := setupPlain(t)
	dir := filepath.Dir(h.path)
	f.cfg.Files = append([]FileConfig{{Paths: []string{filepath.Join(dir, "pay-2.log")}}}, f.cfg.Files...)
	all := map[string]*hostLog{}
	for _, name := range []string{"worker-1.log", "worker-2.log", "pay.log", "pay-1.log", "pay-2.log"} {
		all[name] = &hostLog{t: t, path: filepath.Join(dir, name)}
		all[name].write("one of " + name)
	}
	defer f.start()()
	f.expect(": one of worker-1.log", ": one of worker-2.log", ": one of pay.log", ": one of pay-1.log", ": one of pay-2.log")
	if n := len(f.agent.Status()); n != 4 { // pay-1.log is read as a part of pay.log
		t.Errorf("%d sources, want 4", n)
	}
	all["worker.log"] = &hostLog{t: t, path: filepath.Join(dir, "worker.log")} // comes later, and takes none of the others
	for _, name := range []string{"worker.log", "worker-2.log", "pay-2.log", "pay.log"} {
		all[name].write("two of " + name)
	}
	f.expect(": one of worker-1.log", ": one of worker-2.log", ": one of pay.log", ": one of pay-1.log", ": one of pay-2.log", ": two of worker.log", ": two of worker-2.log", ": two of pay-2.log", ": two of pay.log")
	f.noLoss()
}

// TestPlainTraces joins lines of which only the first has a time.
func TestPlainTraces(t *testing.T) {
	f, h := setupPlain(t)
	cfg := multiline.DefaultConfig()
	cfg.MaxGap = 300 * time.Millisecond
	f.cfg.Multiline = map[string]multiline.Config{"ledger": cfg}
	h.raw("2026-11-25 12:00:00 ERROR failed\njava.lang.IllegalStateException: no\n\tat com.bank.A.b(A.java:1)\n")
	defer f.start()()
	f.await("the open file", func() bool { s := f.agent.Status(); return len(s) == 1 && s[0].Held > 0 })
	h.raw("\tat com.bank.A.c(A.java:2)\n")
	f.expect(": 2026-11-25 12:00:00 ERROR failed\njava.lang.IllegalStateException: no\n\tat com.bank.A.b(A.java:1)\n\tat com.bank.A.c(A.java:2)")
}

func TestFilesConfig(t *testing.T) {
	for want, files := range map[string][]FileConfig{
		"": {{Paths: []string{"/var/log/**/*.{log,out}"}, Exclude: []string{"/var/log/x"}}},
		`files[1].paths[1]: "log/*" is not an absolute path`:                              {{Paths: []string{"/a"}}, {Paths: []string{"/b", "log/*"}}},
		`files[0].exclude[0]: "/a/[b" is not a pattern: a bracket or brace is not closed`: {{Paths: []string{"/a"}, Exclude: []string{"/a/[b"}}},
		`files[0].paths: is empty`:                                                        {{App: "x"}},
	} {
		cfg := DefaultConfig()
		cfg.Node, cfg.DockerHost, cfg.Files = "n1", NoDocker, files
		got := ""
		if err := cfg.Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%v: %q, want %q", files, got, want)
		}
	}
}

// TestPlainRandom writes, rotates both ways, packs, and restarts or kills the agent at random, and wants every line once. Where lines do not
// begin with their time, a file that is packed or copied has another name than before. So the agent's state is not lost then, and
// a kill is got over before the next rotation.
func TestPlainRandom(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 21))
			f, h := setupPlain(t)
			f.cfg.BatchBytes = 2 << 10
			timed := seed%2 == 0
			if !timed {
				h.head = "#Software: the same in every file"
				f.out.ignore = ": " + h.head
			}
			at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
			stop, up := f.start(), true
			for range 60 {
				for range r.IntN(30) {
					at = at.Add(time.Millisecond)
					line := fmt.Sprintf("line %d %s", len(h.want), strings.Repeat("x", r.IntN(300)))
					if timed {
						line = at.Format(time.RFC3339Nano) + " " + line
					}
					h.write(line)
				}
				switch r.IntN(9) {
				case 0:
					h.rename(r.IntN(2) == 0)
				case 1:
					h.copytruncate(r.IntN(2) == 0)
				case 2:
					if up {
						stop()
						up = false
					}
				case 3:
					switch {
					case up && timed:
						f.kill(stop)
						up = false
					case up:
						f.expect(h.want...)
						h.write(fmt.Sprint("unacknowledged ", len(h.want)))
						f.kill(stop)
						stop = f.start()
						f.expect(h.want...)
					}
					if timed && r.IntN(2) == 0 {
						_ = os.Remove(filepath.Join(f.cfg.StateDir, checkpointName))
					}
				case 4, 5:
					if !up {
						stop, up = f.start(), true
					}
				case 6:
					f.hold(timed)
				case 7:
					f.hold(false)
				case 8:
					f.out.away.Store(timed && r.IntN(2) == 0)
				}
				time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
			}
			f.hold(false)
			f.out.away.Store(false)
			if !up {
				stop = f.start()
			}
			h.write("the end")
			f.expect(h.want...)
			stop()
			f.noLoss()
		})
	}
}
