package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"weir/archiver/archive"
	"weir/archiver/store"
	"weir/ingest"
)

// What a victim process is told: the archive, how far to go, and the step at whose nth time it is to die.
const (
	victimRoot = "WEIR_TEST_ARCHIVE_ROOT"
	victimTo   = "WEIR_TEST_ARCHIVE_TO"
	victimStep = "WEIR_TEST_ARCHIVE_KILL_AT"
)

// victim goes on where the archive ends, as an archiver does after its start, and prints the steps that it took.
func victim() int {
	to, err := strconv.ParseInt(os.Getenv(victimTo), 10, 64)
	if err != nil {
		panic(err)
	}
	taken := map[string]int{}
	a, err := newTestArchiver(os.Getenv(victimRoot), 128, 2)
	if err != nil {
		panic(err)
	}
	a.hook = func(step string) error {
		if point := fmt.Sprintf("%s-%d", step, taken[step]); point == os.Getenv(victimStep) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		taken[step]++
		return nil
	}
	if err := errors.Join(archiveUpTo(a, to), a.Close()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for step, times := range taken {
		for nth := range times {
			fmt.Printf("%s-%d\n", step, nth)
		}
	}
	return 0
}

// archiveUpTo makes one commit of the batches from the last commit up to an offset.
func archiveUpTo(a *Archiver, to int64) error {
	ctx := context.Background()
	s, cp, err := a.Open(ctx, tp)
	if err != nil {
		return err
	}
	from := int64(0)
	if cp != nil {
		if from = cp.NextOffset; string(cp.Seen) != fmt.Sprintf("seen %d", from) {
			return fmt.Errorf("the interval state of offset %d is %q", from, cp.Seen)
		}
	}
	for o := from; o < to; o++ {
		if err := s.Write(ctx, batch(o)); err != nil {
			return err
		}
	}
	return errors.Join(s.Commit(ctx, ingest.Checkpoint{NextOffset: to, Seen: fmt.Appendf(nil, "seen %d", to)}), s.Close())
}

func newTestArchiver(root string, rows, hours int) (*Archiver, error) {
	cfg := DefaultConfig()
	cfg.Root, cfg.RowGroupRows, cfg.OpenHours = root, rows, hours
	return New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// runVictim returns the steps that the process took, or that it was killed.
func runVictim(t *testing.T, root string, to int, at string) (steps []string, killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimRoot+"="+root, victimTo+"="+strconv.Itoa(to), victimStep+"="+at)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil, true
	}
	if err != nil {
		t.Fatalf("up to %d, to be killed at %q: %v: %s", to, at, err, stderr.String())
	}
	return strings.Fields(string(out)), false
}

// killedAtEachStep kills the archiver's process before each step of a commit, kills the next one at the same step while it mends that, and lets a third go on. Whether
// the commit had happened or not: every record is there once, the manifests are a chain, and nothing else is left.
func killedAtEachStep(t *testing.T, root func(t *testing.T) string) {
	first := root(t)
	runVictim(t, first, 2, "")
	steps, _ := runVictim(t, first, 4, "")
	names := map[string]bool{}
	for _, s := range steps {
		name, _, _ := strings.Cut(s, "-")
		names[name] = true
	}
	if want := []string{"close", "commit", "day", "done", "flush", "manifest", "prune", "seen", "settle", "verify"}; !slices.Equal(slices.Sorted(maps.Keys(names)), want) {
		t.Fatalf("steps: %v", steps)
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			root := root(t)
			if _, killed := runVictim(t, root, 2, ""); killed {
				t.Fatal("killed without being asked")
			}
			if _, killed := runVictim(t, root, 4, step); !killed {
				t.Fatal("not killed")
			}
			runVictim(t, root, 4, step) // after the commit it has nothing to do but to mend, and may live
			runVictim(t, root, 6, "")
			wholeAndClean(t, root, 6)
		})
	}
}

func wholeAndClean(t *testing.T, root string, batches int) {
	t.Helper()
	a, err := newTestArchiver(root, 128, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ids := readIDs(t, a.store)
	for i := range batches {
		b := batch(int64(i))
		for j := range b.Records {
			if id := b.ID(&b.Records[j]); ids[id] != 1 {
				t.Fatalf("record %d of batch %d is there %d times", j, i, ids[id])
			}
		}
	}
	if len(ids) != batches*300 {
		t.Errorf("%d records of %d", len(ids), batches*300)
	}
	var inManifests, inPlace int
	for _, m := range manifests(t, a.store) {
		inManifests += len(m.Files)
		for _, f := range m.Files {
			if data, err := a.store.ReadFile(f.Path); err == nil && archive.Digest(data) == f.SHA256 && int64(len(data)) == f.Bytes {
				inPlace++
			}
		}
	}
	if inPlace != inManifests {
		t.Errorf("%d files in their places of %d", inPlace, inManifests)
	}
	if n := countFiles(t, a.store, tp.Topic); n != inManifests {
		t.Errorf("%d files, %d in manifests", n, inManifests)
	}
	if n := countFiles(t, a.store, archive.TmpDir); n != 0 {
		t.Errorf("%d files of dead writers are left", n)
	}
}

func countFiles(t *testing.T, s store.Store, dir string) (n int) {
	t.Helper()
	entries, err := s.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Dir {
			n += countFiles(t, s, dir+"/"+e.Name)
		} else {
			n++
		}
	}
	return n
}

func TestKilledAtEachStep(t *testing.T) {
	killedAtEachStep(t, func(t *testing.T) string { return "file://" + t.TempDir() })
}
