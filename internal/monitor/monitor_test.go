package monitor

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files that are made from code: make generate")

func read(t *testing.T) *source {
	t.Helper()
	s, err := readSource()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGenerated holds the files to dashboards.yaml.
func TestGenerated(t *testing.T) {
	const folder = "../../deployments/grafana"
	all, err := Dashboards()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for id, b := range all {
		path := filepath.Join(folder, id+".json")
		want[path] = true
		have, err := os.ReadFile(path)
		if err != nil && !(*update && os.IsNotExist(err)) {
			t.Fatal(err)
		}
		if bytes.Equal(have, b) {
			continue
		}
		if !*update {
			t.Errorf("%s is not what dashboards.yaml says: run `make generate`", path)
		} else if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(folder + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !want[f] {
			t.Errorf("%s is of no dashboard", f)
		}
	}
}

var idForm = regexp.MustCompile(`^weir-[a-z]{1,30}$`)

func TestDashboards(t *testing.T) {
	s := read(t)
	names, seen := known(t), map[string]bool{}
	units := []string{"short", "s", "bytes", "Bps", "percentunit"}
	for i := range s.Dashboards {
		d := &s.Dashboards[i]
		if !idForm.MatchString(d.ID) || seen[d.ID] || d.Title == "" || d.About == "" || !strings.HasPrefix(d.From, "now-") {
			t.Errorf("%s: id, title, about or from", d.ID)
		}
		seen[d.ID] = true
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				where := fmt.Sprintf("%s: %s: %s", d.ID, r.Title, p.Title)
				if p.Title == "" || p.Show != "number" && p.Show != "time" || !slices.Contains(units, p.Unit) || len(p.Lines) == 0 || len(p.Lines) > 26 || p.Width < 0 || p.Width > columns {
					t.Errorf("%s: title, show, unit, width or lines", where)
				}
				if p.Show == "number" && len(p.Lines) != 1 || p.Show == "time" && p.Bad != 0 {
					t.Errorf("%s: a number has one line, and it alone may be bad", where)
				}
				for _, l := range p.Lines {
					checkExpr(t, where, l.Expr, names)
					if d.ChooseInstance != strings.Contains(l.Expr, "$instance") {
						t.Errorf("%s: $instance in %q, choose_instance is %v", where, l.Expr, d.ChooseInstance)
					}
					if p.Show == "time" && l.Legend == "" {
						t.Errorf("%s: a line without a legend", where)
					}
				}
			}
		}
	}
}

// TestLayout reads a dashboard as Grafana does: panels with numbers of their own that do not lie on each other.
func TestLayout(t *testing.T) {
	all, err := Dashboards()
	if err != nil {
		t.Fatal(err)
	}
	for id, b := range all {
		var d struct {
			UID        string
			Templating struct{ List []struct{ Name, Type string } }
			Panels     []struct {
				ID         int
				Type       string
				GridPos    struct{ X, Y, W, H int }
				Datasource struct{ Type, UID string }
				Targets    []struct{ RefID, Expr string }
			}
		}
		if err := json.Unmarshal(b, &d); err != nil || d.UID != id || len(d.Panels) < 5 || d.Templating.List[0].Name != "datasource" {
			t.Fatalf("%v: %+v", err, d)
		}
		taken, ids := map[[2]int]int{}, map[int]bool{}
		for _, p := range d.Panels {
			if ids[p.ID] || p.GridPos.X < 0 || p.GridPos.X+p.GridPos.W > columns || p.GridPos.W < 1 || p.GridPos.H < 1 {
				t.Errorf("%s: panel %d at %+v", d.UID, p.ID, p.GridPos)
			}
			ids[p.ID] = true
			if p.Type != "row" && (p.Datasource.UID != "${datasource}" || len(p.Targets) == 0) {
				t.Errorf("%s: panel %d: %+v", d.UID, p.ID, p)
			}
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					if other := taken[at]; other != 0 {
						t.Fatalf("%s: panels %d and %d lie on each other", d.UID, other, p.ID)
					}
					taken[at] = p.ID
				}
			}
		}
	}
}
