package archiver

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"weir/archiver/archive"
	"weir/ingest"
)

// table reads the rows of the table in docs/archive.md whose heading begins so, split into cells.
func table(t *testing.T, heading string) (rows [][]string) {
	t.Helper()
	data, err := os.ReadFile("../docs/archive.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "\n| "+heading)
	if !ok {
		t.Fatalf("no table %q", heading)
	}
	for line := range strings.Lines(rest) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "| `") {
			var cells []string
			for c := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
				cells = append(cells, strings.TrimSpace(c))
			}
			rows = append(rows, cells)
		} else if line == "" {
			break
		}
	}
	return rows
}

// members are the names that the first column of a table gives.
func members(t *testing.T, heading string) (names []string) {
	for _, row := range table(t, heading) {
		for name := range strings.SplitSeq(row[0], ", ") {
			names = append(names, strings.Trim(name, "`"))
		}
	}
	return names
}

func written(t *testing.T) (dir string, manifest []byte, file *parquet.File) {
	t.Helper()
	dir = t.TempDir()
	a := testArchiver(t, "file://"+dir)
	s, _, err := a.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Write(t.Context(), batch(0)), s.Commit(t.Context(), ingest.Checkpoint{NextOffset: 1}), s.Close()); err != nil {
		t.Fatal(err)
	}
	m := manifests(t, a.store)[0]
	name := path.Join(archive.PartitionDir(archive.ManifestDir, tp), archive.ManifestDay(m.Created), m.Span().Manifest())
	if manifest, err = a.store.ReadFile(name); err != nil {
		t.Fatal(err)
	}
	data, err := a.store.ReadFile(m.Files[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	if file, err = parquet.OpenFile(bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	return dir, manifest, file
}

// TestSpecification compares docs/archive.md with a file and a manifest.
func TestSpecification(t *testing.T) {
	dir, manifest, file := written(t)
	var columns [][2]string
	for _, f := range file.Schema().Fields() {
		kind := ""
		switch text := f.String(); {
		case !f.Leaf():
			kind = "MAP<STRING, STRING>"
		case strings.Contains(text, "STRING"):
			kind = "STRING"
		case strings.Contains(text, "TIMESTAMP(isAdjustedToUTC=true,unit=MICROS)"):
			kind = "INT64 TIMESTAMP(MICROS, UTC)"
		default:
			kind = f.Type().Kind().String()
		}
		if !f.Required() {
			t.Errorf("column %s is not required", f.Name())
		}
		columns = append(columns, [2]string{f.Name(), kind})
	}
	var documented [][2]string
	for _, row := range table(t, "column | Parquet type") {
		documented = append(documented, [2]string{strings.Trim(row[0], "`"), row[1]})
	}
	if !slices.Equal(columns, documented) {
		t.Errorf("columns\n%v, documented\n%v", columns, documented)
	}
	if v, _ := file.Lookup(archive.SchemaKey); v != archive.SchemaVersion {
		t.Errorf("schema version %q", v)
	}

	var m struct {
		Files   []map[string]any
		Sources map[string]map[string]any
	}
	var all map[string]any
	if err := errors.Join(json.Unmarshal(manifest, &all), json.Unmarshal(manifest, &m)); err != nil {
		t.Fatal(err)
	}
	same := func(heading string, got map[string]any) {
		t.Helper()
		want := slices.DeleteFunc(members(t, heading), func(s string) bool { return s == "signature" })
		if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: there are %v, documented %v", heading, slices.Sorted(maps.Keys(got)), want)
		}
	}
	same("member | meaning", all)
	same("member of `files[]`", m.Files[0])
	same("member of `sources{}`", m.Sources["docker/n/c"])
	for _, pattern := range []string{"weir.logs/dt=2025-11-25/hour=07/p2-0-0-1.parquet", "_weir/manifests/weir.logs/2/????-??-??/00000000000000000000-00000000000000000001.json",
		"_weir/manifests/weir.logs/2/00000000000000000000-00000000000000000001.*.seen", "_weir/manifests/weir.logs/2/00000000000000000000-00000000000000000001.done"} {
		if found, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(found) != 1 {
			t.Errorf("%s: %v, %v", pattern, found, err)
		}
	}
	if _, _, err := expireAll(t, testExpirer(t, "file://"+dir)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "_weir/expiries/weir.logs/dt=2025-11-25/000001.json"))
	expiry := map[string]any{}
	if err = errors.Join(err, json.Unmarshal(data, &expiry)); err != nil {
		t.Fatal(err)
	}
	same("member of an expiry record", expiry)
}
