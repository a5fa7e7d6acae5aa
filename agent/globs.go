package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
)

// FileConfig names plain log files of the host.
type FileConfig struct {
	Paths   []string          `yaml:"paths"`   // absolute patterns; ** stands for any folders
	Exclude []string          `yaml:"exclude"` // of what the paths find
	App     string            `yaml:"app"`     // of all these files; the label of agent.app_labels or else the file's name, up to its last dot, when empty
	Labels  map[string]string `yaml:"labels"`  // as a container's
}

// validateFiles says what is wrong with agent.files.
func validateFiles(files []FileConfig) (errs []error) {
	for i, f := range files {
		if len(f.Paths) == 0 {
			errs = append(errs, fmt.Errorf("files[%d].paths: is empty", i))
		}
		for _, list := range []struct {
			key      string
			patterns []string
		}{{"paths", f.Paths}, {"exclude", f.Exclude}} {
			for j, p := range list.patterns {
				switch {
				case !filepath.IsAbs(p):
					errs = append(errs, fmt.Errorf("files[%d].%s[%d]: %q is not an absolute path", i, list.key, j, p))
				case !doublestar.ValidatePathPattern(p):
					errs = append(errs, fmt.Errorf("files[%d].%s[%d]: %q is not a pattern: a bracket or brace is not closed", i, list.key, j, p))
				}
			}
		}
		for k := range f.Labels {
			if k == "" {
				errs = append(errs, fmt.Errorf("files[%d].labels: has an empty key", i))
			}
		}
	}
	return errs
}

// literals are the paths that agent.files names without a wildcard. Such a file is a log of its own, whatever its name.
func literals(files []FileConfig) map[string]bool {
	all := map[string]bool{}
	for _, f := range files {
		for _, p := range f.Paths {
			if !strings.ContainsAny(p, `*?[{\`) {
				all[filepath.Clean(p)] = true
			}
		}
	}
	return all
}

// compressed are the endings of files that no process writes a log to.
var compressed = []string{packedSuffix, ".bz2", ".xz", ".zst", ".zip", ".Z"}

// rotatedFrom lists the names of the logs that a file may be a rotated file of, by its name: digits, and what stands between the
// digits of a date, follow the log's name (app.log.1, app.log-20260101) or stand before its ending (app.1.log, app-2026-01-01.log).
// "old" counts as a number. What gzip packed is taken for what it was.
func rotatedFrom(name string) (logs []string) {
	name = strings.TrimSuffix(name, packedSuffix)
	ending := filepath.Ext(name)
	if isTag(strings.TrimPrefix(ending, ".")) {
		ending = ""
	}
	stem := strings.TrimSuffix(name, ending)
	for _, whole := range []struct{ name, ending string }{{stem, ending}, {name, ""}} {
		for i := len(whole.name) - 1; i > 0; i-- {
			if strings.IndexByte(".-_", whole.name[i]) >= 0 && isTag(whole.name[i+1:]) {
				logs = append(logs, whole.name[:i]+whole.ending)
			}
		}
	}
	return logs
}

func isTag(s string) bool {
	return s == "old" || s != "" && isDigit(s[0]) && strings.Trim(s, "0123456789.:_-TZ") == ""
}

// siblings lists the rotated files of the log at path, oldest first: by when they were written to last, which a renaming or gzip does not change.
// While one is packed, both it and the packed one are there; the packed one may not be whole, and is left out. own says which files
// are logs of their own.
func siblings(path string, own func(path string) bool) ([]string, error) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	type dated struct {
		name    string
		changed time.Time
		count   int
	}
	start := strings.TrimSuffix(base, filepath.Ext(base))
	var found []dated
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, start) || name == base || !e.Type().IsRegular() || !slices.Contains(rotatedFrom(name), base) || own(dir+name) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, dated{dir + name, info.ModTime(), countOf(name, base)})
	}
	slices.SortFunc(found, func(a, b dated) int {
		return cmp.Or(a.changed.Compare(b.changed), cmp.Compare(b.count, a.count), cmp.Compare(a.name, b.name))
	})
	plain := map[string]bool{}
	for _, f := range found {
		plain[f.name] = true
	}
	var names []string
	for _, f := range found {
		if bare, packed := strings.CutSuffix(f.name, packedSuffix); !packed || !plain[bare] {
			names = append(names, f.name)
		}
	}
	return names, nil
}

// countOf is the number of a rotated file that is counted, not dated; the youngest has the lowest. It orders files of the same moment.
func countOf(name, base string) int {
	name = strings.TrimSuffix(name, packedSuffix)
	if len(name)-len(base) > len("-9999") {
		return 0
	}
	end := strings.LastIndexFunc(name, unicode.IsDigit) + 1
	n, _ := strconv.Atoi(name[strings.LastIndexFunc(name[:end], func(r rune) bool { return !unicode.IsDigit(r) })+1 : end])
	return n
}

// finder looks for plain logs. A log that was found stays one, and its rotated files are not taken for logs, until all its files are gone.
type finder struct {
	a    *Agent
	kept map[string]time.Time // by path: since when it is not found; the zero time while it is
	wait map[string]time.Time // by path: since when a file is found that seems to be a rotated one, of a log that is not there

	passed recently[string] // told: rotated files that the patterns find
	full   bool             // told: there are more files than agent.max_files
}

// pace is how often logs are looked for. A log that is gone is waited for ten times as long, and one that is only not found any more, until
// it is quiet for sixty or has not been found for six hundred.
func (a *Agent) pace() time.Duration { return min(time.Second, 40*a.cfg.Poll) }

// files looks for logs until ctx ends. known are the paths that the checkpoint has.
func (a *Agent) files(ctx context.Context, known []string) {
	f := &finder{a: a, kept: map[string]time.Time{}, wait: map[string]time.Time{}, passed: newRecently[string](4096)}
	for _, path := range known {
		f.kept[path] = time.Now()
	}
	tick := time.NewTicker(a.pace())
	defer tick.Stop()
	for {
		asOf := time.Now()
		c := command{prefix: filePrefix + a.cfg.Node + "/", all: map[string]bool{}, asOf: asOf, files: f.look(asOf)}
		for path := range f.kept {
			c.all[idOf(path)] = true
		}
		a.command(ctx, c)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// idOf is what a file's path is in the name of its source.
func idOf(path string) string { return strings.TrimPrefix(filepath.ToSlash(path), "/") }

// look finds the logs that there are.
func (f *finder) look(now time.Time) (logs []container) {
	found := f.match()
	for path := range found {
		if base := f.baseOf(path, found); base != "" {
			if f.passed.add(path) {
				f.a.log.Info("a file is taken for a rotated one of a log, and read as its part; name it without wildcards to follow it by itself", "file", path, "log", base)
			}
			delete(found, path)
		}
	}
	for path, since := range f.kept {
		switch _, ok := found[path]; {
		case ok:
			f.kept[path] = time.Time{}
		case since.IsZero():
			f.kept[path] = now
		case f.over(path, now.Sub(since), now):
			delete(f.kept, path)
		}
	}
	maps.DeleteFunc(f.wait, func(path string, _ time.Time) bool { _, ok := found[path]; return !ok })
	left := 0
	for _, path := range slices.Sorted(maps.Keys(found)) {
		_, known := f.kept[path]
		if c := found[path]; !known && c.derived && !c.named { // in the middle of a rotation the log is not there
			if _, ok := f.wait[path]; !ok {
				f.wait[path] = now
			}
			if now.Sub(f.wait[path]) < 10*f.a.pace() {
				continue
			}
		}
		if !known && len(f.kept) >= f.a.cfg.MaxFiles {
			left++
			continue
		}
		f.kept[path] = time.Time{}
		logs = append(logs, found[path])
	}
	f.a.m.filesLeft.Set(float64(left))
	if left > 0 && !f.full {
		f.a.log.Error("there are more files than agent.max_files; some are not followed", "agent.max_files", f.a.cfg.MaxFiles, "not_followed", left)
	}
	f.full = left > 0
	return logs
}

// match gives the regular files that the patterns find, by their paths without symbolic links. The first entry that finds one has it.
func (f *finder) match() map[string]container {
	found := map[string]container{}
	folders := map[string]string{}
	for _, entry := range f.a.cfg.Files {
		for _, pattern := range entry.Paths {
			matches, _ := doublestar.FilepathGlob(pattern) // the pattern is valid; what cannot be looked into has no files
			for _, match := range matches {
				path := resolve(match, folders)
				if path == "" || excluded(entry.Exclude, match) || excluded(entry.Exclude, path) {
					continue
				}
				if _, ok := found[path]; ok {
					continue
				}
				info, err := os.Stat(path)
				if err != nil || !info.Mode().IsRegular() {
					continue
				}
				if slices.Contains(compressed, filepath.Ext(path)) {
					continue
				}
				if !utf8.ValidString(path) || strings.ContainsFunc(path, unicode.IsControl) {
					if f.passed.add(path) {
						f.a.log.Error("a file is not followed: its name is not UTF-8 text", "file", strconv.Quote(path))
					}
					continue
				}
				base := filepath.Base(path)
				name := strings.TrimSuffix(base, filepath.Ext(base))
				found[path] = container{id: idOf(path), name: cmp.Or(name, base), app: entry.App, path: path, driver: fileDriver, running: info.Size() > 0, labels: entry.Labels, named: f.a.literal[match], derived: derived(pattern, match)}
			}
		}
	}
	return found
}

// resolve follows symbolic links, those of a folder once in each look. It returns "" where there is no file.
func resolve(path string, folders map[string]string) string {
	dir, base := filepath.Split(path)
	real, ok := folders[dir]
	if !ok {
		real, _ = filepath.EvalSymlinks(dir)
		folders[dir] = real
	}
	if real == "" {
		return ""
	}
	path = filepath.Join(real, base)
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return path
	}
	path, _ = filepath.EvalSymlinks(path)
	return path
}

func excluded(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return doublestar.PathMatchUnvalidated(p, path) })
}

// derived says whether a file has the name of a rotated one of a log that the pattern would find.
func derived(pattern, match string) bool {
	dir, name := filepath.Split(match)
	return slices.ContainsFunc(rotatedFrom(name), func(base string) bool { return doublestar.PathMatchUnvalidated(pattern, dir+base) })
}

// baseOf returns the log that a file is a rotated one of; "" when it is a log of its own: when it is named without wildcards, or was a
// log before, or when there is no log with a name that it could come from.
func (f *finder) baseOf(path string, found map[string]container) string {
	if _, ok := f.kept[path]; ok || found[path].named {
		return ""
	}
	dir, name := filepath.Split(path)
	for _, base := range rotatedFrom(name) {
		_, isFound := found[dir+base]
		if _, isKept := f.kept[dir+base]; isFound || isKept {
			return dir + base
		}
	}
	return ""
}

// over says whether a log that is not found any more is to be read to its end and closed.
func (f *finder) over(path string, missing time.Duration, now time.Time) bool {
	pace := f.a.pace()
	info, err := os.Stat(path)
	switch {
	case err == nil: // no pattern or symbolic link leads to it
		return missing > 60*pace && now.Sub(info.ModTime()) > 60*pace || missing > 600*pace
	case !errors.Is(err, fs.ErrNotExist):
		return false
	}
	rest, err := siblings(path, func(p string) bool { _, ok := f.kept[p]; return ok || f.a.literal[p] })
	return err == nil && len(rest) == 0 && missing > 10*pace
}
