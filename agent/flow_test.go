package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/schema"
)

// losses sums what the distinct loss records of a reason say.
func (k *kafka) losses(reason string) (n int, records, bytes int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.lost {
		if l.reason == reason {
			n++
			records += l.records
			bytes += l.bytes
		}
	}
	return n, records, bytes
}

// add gives the engine another container, and returns its log.
func (f *fixture) add(id, app string) *dockerLog {
	path := filepath.Join(filepath.Dir(f.log.path), id, id+"-json.log") // in a folder of its own, as Docker has them
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	f.engine.containers[id] = container{id: id, name: id, image: "app:1", driver: "json-file", path: path, running: true, labels: map[string]string{"weir.app": app}}
	return &dockerLog{t: f.t, path: path, now: f.log.now, keep: 9}
}

// TestQuotas has an app write more than it may, all at once, with a crash on the way.
func TestQuotas(t *testing.T) {
	const lines = 3000
	for _, c := range []struct {
		name   string
		config map[string]Quota
		label  string
		lossy  bool
		atMost int // records that come through at once
	}{
		{"drop by config", map[string]Quota{"shop": {Lines: 100, Over: "drop"}}, "", true, 300},
		{"drop by bytes", map[string]Quota{"*": {Bytes: 1000, Over: "drop"}}, "", true, 400},
		{"drop by label", nil, "lines=100,over=drop", true, 300},
		{"sample", map[string]Quota{"shop": {Lines: 100, Over: "sample", Keep: 10}}, "", true, 900},
		{"a label cannot ask for more", map[string]Quota{"*": {Lines: 100, Over: "block"}}, "lines=1000000,over=drop", true, 300},
		{"block", map[string]Quota{"*": {Lines: 3000}}, "", false, lines},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.cfg.Quotas = c.config
			if c.label != "" {
				f.engine.containers["c1"].labels[quotaLabel] = c.label
			}
			for i := range lines {
				f.log.write("stdout", fmt.Sprintf("line %d\n", i))
			}
			defer f.start()()
			sum := func() int64 {
				_, lost, _ := f.out.losses("quota")
				return lost + int64(len(f.out.bodies()))
			}
			f.await("each line or its loss", func() bool { return sum() >= lines })
			got := len(f.out.bodies())
			_, lost, _ := f.out.losses("quota")
			if (lost > 0) != c.lossy || got > c.atMost || got == 0 || sum() != lines {
				t.Errorf("%d lines came, %d were dropped", got, lost)
			}
		})
	}
}

// TestBlockingQuotaHoldsItsRate wants no burst beyond a second's worth, and nothing lost.
func TestBlockingQuotaHoldsItsRate(t *testing.T) {
	f := setup(t)
	f.cfg.Quotas = map[string]Quota{"shop": {Lines: 500}}
	other := f.add("c2", "other")
	for i := range 700 {
		f.log.write("stdout", fmt.Sprintf("line %d\n", i))
	}
	other.write("stdout", "free\n")
	began := time.Now()
	defer f.start()()
	f.await("the first second's worth", func() bool { return len(f.out.bodies()) >= 501 })
	if n := len(f.out.bodies()); n > 690 {
		t.Errorf("%d records came at once", n)
	}
	f.await("all", func() bool { return len(f.out.bodies()) == 701 })
	if took := time.Since(began); took < 350*time.Millisecond {
		t.Errorf("200 records over the first 500 took only %v at 500 a second", took)
	}
}

func TestQuotaConfig(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Quotas = map[string]Quota{"shop": {Lines: -1, Over: "explode"}, "web": {Keep: 3, Bytes: 1}}
	err := cfg.Validate()
	for _, want := range []string{"quotas.shop.lines_per_second: is below zero", `quotas.shop.over: "explode" is not block, sample or drop`, "quotas.web.keep:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	for _, label := range []string{"", "lines", "lines=x", "cpu=3", "over=drop", "lines=1,over=explode", "lines=-1"} {
		if _, err := parseQuota(label); err == nil {
			t.Errorf("%q is accepted", label)
		}
	}
}

// TestQuietBesideFloods gives Kafka room for one batch at a time: the quiet container's line must not wait for more than one turn of
// each flood.
func TestQuietBesideFloods(t *testing.T) {
	f := setup(t)
	const floods = 12
	for i := range floods {
		log := f.add(fmt.Sprintf("flood%d", i), "flood")
		line := strings.Repeat("x", 10_000) + "\n"
		for range 400 {
			log.write("stdout", line)
		}
	}
	f.log.write("stdout", "quiet\n")
	turns := 0
	f.out.onSend = func() { turns++ }
	f.out.scarce = true
	defer f.start()()
	f.await("the quiet line", func() bool { return f.out.bodies()["stdout: quiet"] == 1 })
	f.out.mu.Lock()
	defer f.out.mu.Unlock()
	for at, source := range f.out.sent {
		if source == "docker/n1/c1" {
			if at > 4*floods {
				t.Errorf("the quiet line came after %d batches of others", at)
			}
			return
		}
	}
}

// TestRotationsWhileKafkaIsAway deletes each rotated file while nothing can be sent, and at last the container with its log.
func TestRotationsWhileKafkaIsAway(t *testing.T) {
	f := setup(t)
	f.log.keep = 1
	f.out.away.Store(true)
	stop := f.start()
	defer func() { stop() }()
	var want []string
	written := int64(0)
	for i := range 20 {
		for j := range 30 {
			line := fmt.Sprintf("%d-%d", i, j)
			f.log.write("stdout", line+"\n")
			want = append(want, "stdout: "+line)
		}
		info, err := os.Stat(f.log.path)
		if err != nil {
			t.Fatal(err)
		}
		written += info.Size()
		f.await("the file to be held", func() bool { all := f.agent.Status(); return len(all) == 1 && all[0].UnreadBytes == written })
		f.log.rotate()
	}
	for _, name := range []string{f.log.path, f.log.path + ".1"} {
		_ = os.Remove(name)
	}
	f.engine.emit("destroy", "c1", time.Now().UnixNano(), nil)
	if n := len(f.out.bodies()); n != 0 {
		t.Fatalf("%d records were sent", n)
	}
	f.out.back()
	f.expect(want...)
	f.await("the closed record", func() bool { return strings.Contains(fmt.Sprint(f.out.eventNames()), schema.EventSourceClosed) })
	if n, _, _ := f.out.losses("disk_budget"); n > 0 {
		t.Errorf("%d loss records", n)
	}
}

// TestDiskBudget has one log that writes much and one that writes little while Kafka is away: the oldest of the first is given up, and
// told to the byte.
func TestDiskBudget(t *testing.T) {
	f := setup(t)
	f.cfg.DiskBytes = 40 << 10
	noisy := f.add("noisy", "noisy")
	noisy.keep, f.log.keep = 1, 1
	f.out.away.Store(true)
	stop := f.start()
	defer func() { stop() }()
	size := map[string]int64{} // of the line in the log
	unread := func(source string) int64 {
		for _, s := range f.agent.Status() {
			if s.Source == source {
				return s.UnreadBytes
			}
		}
		return -1
	}
	written := map[*dockerLog]int64{}
	fill := func(log *dockerLog, source string, round, lines int) {
		before := int64(0)
		for j := range lines {
			body := fmt.Sprintf("%s-%d-%d", filepath.Base(log.path), round, j)
			log.write("stdout", body+strings.Repeat("x", 100)+"\n")
			info, err := os.Stat(log.path)
			if err != nil {
				t.Fatal(err)
			}
			size["stdout: "+body+strings.Repeat("x", 100)] = info.Size() - before
			before = info.Size()
		}
		written[log] += before
		f.await("the file to be held", func() bool { return unread(source) == written[log] })
		log.rotate()
	}
	for i := range 3 {
		fill(f.log, "docker/n1/c1", i, 3)
	}
	for i := range 20 {
		fill(noisy, "docker/n1/noisy", i, 40)
	}
	f.log.write("stdout", "the end\n")
	noisy.write("stdout", "the end\n")
	f.await("files to be given up", func() bool { return f.agent.givenUp.Load() > 5 })
	time.Sleep(10 * time.Millisecond)
	f.out.back()
	f.await("the ends", func() bool { return f.out.bodies()["stdout: the end"] == 2 })
	n, _, lost := f.out.losses("disk_budget")
	got := f.out.bodies()
	missing := int64(0)
	for body, bytes := range size {
		if got[body] == 0 {
			missing += bytes
			if !strings.Contains(body, "noisy") {
				t.Errorf("%.40s of the quiet log is missing", body)
			}
		} else if got[body] != 1 {
			t.Errorf("%.40s is there %d times", body, got[body])
		}
	}
	if n == 0 || missing == 0 || missing != lost {
		t.Errorf("%d bytes are missing, %d loss records tell of %d", missing, n, lost)
	}
	if missing > 20*40*260-40<<10+20<<10 {
		t.Errorf("%d bytes were given up although there was room for %d", missing, f.cfg.DiskBytes)
	}
}

// TestHeldMemory has many messages without an end, and others behind them.
func TestHeldMemory(t *testing.T) {
	f := setup(t)
	f.cfg.HeldBytes, f.cfg.Linger = 1<<20, time.Second
	const containers, pieces = 40, 20
	logs := map[string]*dockerLog{}
	for i := range containers {
		id := fmt.Sprintf("big%d", i)
		logs[id] = f.add(id, id)
		for range pieces {
			logs[id].write("stdout", strings.Repeat("x", 8<<10)) // one message of 160 KiB, 6.5 MB in all
			logs[id].write("stderr", "behind "+id+"\n")
		}
	}
	most := int64(0)
	f.out.onSend = func() { most = max(most, f.agent.held) }
	stop := f.start()
	count := func() (bytes, behind int) {
		for body, n := range f.out.bodies() {
			bytes += strings.Count(body, "x") * n
			if strings.Contains(body, "behind") {
				behind += n
			}
		}
		return bytes, behind
	}
	f.await("what was held to be cut", func() bool { _, behind := count(); return behind > containers*pieces/2 })
	for _, log := range logs {
		log.write("stdout", "end\n")
	}
	f.await("all", func() bool {
		bytes, behind := count()
		return bytes == containers*pieces*8<<10 && behind == containers*pieces
	})
	stop()
	if limit := f.cfg.HeldBytes + turnRoom; most > limit || most == 0 {
		t.Errorf("%d bytes were held, more than %d", most, limit)
	}
}

// TestOddLines says what becomes of what is no plain line.
func TestOddLines(t *testing.T) {
	f := setup(t)
	const bom = "\ufeff"
	f.log.write("stdout", bom+"with a byte order mark\n")
	f.log.raw("{\"log\":\"bad \xff\xfe bytes\\n\",\"stream\":\"stdout\",\"time\":\"2025-11-25T07:00:00.000000001Z\"}\n")
	f.log.raw("{\"log\":\"half a li")       // the node crashed here,
	f.log.raw(strings.Repeat("\x00", 5000)) // and the file had a length without content
	f.log.write("stdout", "after the crash\n")
	f.log.raw("not JSON at all\n")
	f.log.raw("\n")
	f.log.raw("{\"log\":\"no time\\n\",\"stream\":\"stdout\"}\n")
	f.log.raw(bom + "{\"log\":\"a mark before the line\\n\",\"stream\":\"stdout\",\"time\":\"2025-11-25T07:00:00.000000001Z\"}\n")
	f.log.write("stdout", "nul \x00 inside\n")
	f.log.write("stdout", "\n") // an empty line is a record
	f.log.write("stderr", "no end")
	f.log.raw("{\"log\":\"half a line at the e")
	stop := f.start()
	f.await("the last whole line", func() bool { return f.out.bodies()["stdout: "] == 1 })
	_ = os.Remove(f.log.path)
	f.engine.emit("destroy", "c1", time.Now().UnixNano(), nil)
	f.expect("stdout: "+bom+"with a byte order mark", "stdout: bad \ufffd\ufffd bytes", " weir.damaged: {\"log\":\"half a li", "stdout: after the crash", " weir.damaged: not JSON at all", " weir.damaged: ",
		" weir.damaged: {\"log\":\"no time\\n\",\"stream\":\"stdout\"}", " weir.damaged: "+bom+"{\"log\":\"a mark before the line\\n\",\"stream\":\"stdout\",\"time\":\"2025-11-25T07:00:00.000000001Z\"}",
		"stdout: nul \x00 inside", "stdout: ", "stderr weir.partial: no end", " weir.damaged: {\"log\":\"half a line at the e")
	stop()
	if n, _, bytes := f.out.losses("zeros"); n != 1 || bytes != 5000 {
		t.Errorf("%d loss records tell of %d zeros", n, bytes)
	}
}
