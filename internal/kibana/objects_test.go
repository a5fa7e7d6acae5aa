package kibana

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weir/indexer"
)

// committed reads the file that people import, as Kibana does: nothing here knows how it was made.
func committed(t *testing.T) []Object {
	t.Helper()
	b, err := os.ReadFile("../../deployments/kibana/weir.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	var all []Object
	for line := range bytes.Lines(b) {
		var o Object
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&o); err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// parsed reads JSON that is kept in a string.
func parsed(t *testing.T, o *Object, from map[string]any, key string) any {
	t.Helper()
	s, _ := from[key].(string)
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%s: %s: %v", o.ID, key, err)
	}
	return v
}

// dig goes down a path of maps.
func dig(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

// refNames lists all names of references that an object's attributes use.
func refNames(t *testing.T, o *Object) []string {
	t.Helper()
	var names []string
	switch o.Type {
	case "search":
		names = append(names, dig(parsed(t, o, dig(o.Attributes, "kibanaSavedObjectMeta").(map[string]any), "searchSourceJSON"), "indexRefName").(string))
	case "lens":
		for id := range dig(o.Attributes, "state", "datasourceStates", "formBased", "layers").(map[string]any) {
			names = append(names, "indexpattern-datasource-layer-"+id)
		}
	case "dashboard":
		for _, p := range parsed(t, o, o.Attributes, "panelsJSON").([]any) {
			names = append(names, dig(p, "panelIndex").(string)+":"+dig(p, "panelRefName").(string))
		}
		if group, ok := o.Attributes["controlGroupInput"].(map[string]any); ok {
			for id := range parsed(t, o, group, "panelsJSON").(map[string]any) {
				names = append(names, "controlGroup_"+id+":optionsListDataView")
			}
		}
	}
	return names
}

// TestReferences wants each reference to lead to an object of the same file, and each name that an object uses to be a reference.
func TestReferences(t *testing.T) {
	for _, all := range [][]Object{committed(t), Objects("team-a")} {
		there, used := map[string]bool{}, map[string]bool{}
		for i := range all {
			key := all[i].Type + " " + all[i].ID
			if there[key] {
				t.Errorf("%s is there twice", key)
			}
			there[key] = true
		}
		for i := range all {
			o := &all[i]
			want := refNames(t, o)
			if o.Type == "search" || o.Type == "lens" || o.Type == "dashboard" {
				want = append(want, "tag-ref-"+all[0].ID)
			}
			var got []string
			for _, r := range o.References {
				got = append(got, r.Name)
				used[r.Type+" "+r.ID] = true
				if !there[r.Type+" "+r.ID] {
					t.Errorf("%s refers to %s %s, which is not there", o.ID, r.Type, r.ID)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s has the references %q and uses %q", o.ID, got, want)
			}
		}
		for i := range all {
			if o := &all[i]; o.Type == "lens" && !used["lens "+o.ID] {
				t.Errorf("no dashboard shows %s", o.ID)
			}
		}
	}
}

// TestSpaces wants no id of one space in another: Kibana would choose ids of its own.
func TestSpaces(t *testing.T) {
	seen := map[string]string{}
	for _, space := range []string{"", "app", "app-errors", "team-a"} {
		for _, o := range Objects(space) {
			if in, ok := seen[o.ID]; ok {
				t.Errorf("%s is in the spaces %q and %q", o.ID, in, space)
			}
			seen[o.ID] = space
		}
	}
	if !bytes.Equal(NDJSON(Objects("")), NDJSON(Objects("default"))) {
		t.Error("the default space has two names for its objects")
	}
}

// TestAttributes holds objects to the attributes that Kibana's own checks know; an unknown one fails the import of searches and dashboards.
func TestAttributes(t *testing.T) {
	known := map[string]string{
		"tag":           "name description color",
		"index-pattern": "title name timeFieldName allowNoIndex fields fieldAttrs fieldFormatMap runtimeFieldMap sourceFilters typeMeta",
		"search":        "title description columns sort grid hideChart isTextBasedQuery timeRestore kibanaSavedObjectMeta",
		"lens":          "title description visualizationType state",
		"dashboard":     "title description version timeRestore timeFrom timeTo refreshInterval kibanaSavedObjectMeta optionsJSON panelsJSON controlGroupInput",
	}
	titles := map[string]bool{}
	for _, o := range committed(t) {
		for key := range o.Attributes {
			if !slices.Contains(strings.Fields(known[o.Type]), key) {
				t.Errorf("%s %s has the attribute %s", o.Type, o.ID, key)
			}
		}
		if o.CoreMigrationVersion != "8.8.0" || o.TypeMigrationVersion == "" {
			t.Errorf("%s has the versions %q and %q", o.ID, o.CoreMigrationVersion, o.TypeMigrationVersion)
		}
		if key := o.Type + " " + o.Title(); titles[key] || !strings.HasPrefix(o.Title(), "weir") {
			t.Errorf("the title of %s is another's too, or does not say that it is weir's: %s", o.ID, o.Title())
		} else {
			titles[key] = true
		}
		if o.Type == "tag" && versionForm.FindStringSubmatch(o.Attributes["description"].(string))[1] != fmt.Sprint(Version()) {
			t.Error("the tag does not tell the version")
		}
	}
}

// TestLayout wants panels within the grid, none over another, and none empty.
func TestLayout(t *testing.T) {
	for _, o := range committed(t) {
		if o.Type != "dashboard" {
			continue
		}
		taken := map[[2]int]string{}
		for _, p := range parsed(t, &o, o.Attributes, "panelsJSON").([]any) {
			n := func(key string) int { return int(dig(p, "gridData", key).(float64)) }
			name := dig(p, "panelIndex").(string)
			if n("w") < 1 || n("h") < 1 || n("x") < 0 || n("x")+n("w") > gridWidth || dig(p, "gridData", "i") != name {
				t.Errorf("%s: panel %s lies at %v", o.ID, name, dig(p, "gridData"))
			}
			for x := n("x"); x < n("x")+n("w"); x++ {
				for y := n("y"); y < n("y")+n("h"); y++ {
					if other := taken[[2]int{x, y}]; other != "" {
						t.Fatalf("%s: panel %s lies over %s", o.ID, name, other)
					}
					taken[[2]int{x, y}] = name
				}
			}
		}
		if len(taken)%gridWidth != 0 {
			t.Errorf("%s has holes: %d cells", o.ID, len(taken))
		}
	}
}

var queryField = regexp.MustCompile(`([a-z@][a-z0-9_.@]*)\s*(?::|>=?|<=?)`)

// queries lists the KQL of an object, by where it stands.
func queries(t *testing.T, o *Object) map[string]string {
	t.Helper()
	q := map[string]string{}
	switch o.Type {
	case "search":
		q["query"] = dig(parsed(t, o, dig(o.Attributes, "kibanaSavedObjectMeta").(map[string]any), "searchSourceJSON"), "query", "query").(string)
	case "lens":
		q["query"] = dig(o.Attributes, "state", "query", "query").(string)
		for _, id := range columnOrder(o) {
			if where, ok := dig(column(o, id), "filter", "query").(string); ok {
				q[id] = where
			}
		}
	}
	for at, text := range q {
		if text == "" {
			delete(q, at)
		}
	}
	return q
}

func columnOrder(o *Object) []string {
	var ids []string
	for _, id := range dig(o.Attributes, "state", "datasourceStates", "formBased", "layers", layer, "columnOrder").([]any) {
		ids = append(ids, id.(string))
	}
	return ids
}

func column(o *Object, id string) map[string]any {
	return dig(o.Attributes, "state", "datasourceStates", "formBased", "layers", layer, "columns", id).(map[string]any)
}

// uses is a field and what is done with it.
type uses struct{ field, operation, where string }

// fieldUses lists every field that an object names.
func fieldUses(t *testing.T, o *Object) []uses {
	t.Helper()
	var all []uses
	for at, q := range queries(t, o) {
		for _, m := range queryField.FindAllStringSubmatch(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(q, `""`), -1) {
			all = append(all, uses{m[1], "query", at})
		}
	}
	switch o.Type {
	case "index-pattern":
		all = append(all, uses{o.Attributes["timeFieldName"].(string), "date_histogram", "time"})
	case "search":
		for _, c := range o.Attributes["columns"].([]any) {
			all = append(all, uses{c.(string), "show", "column"})
		}
		all = append(all, uses{o.Attributes["sort"].([]any)[0].([]any)[0].(string), "sort", "sort"})
	case "lens":
		for _, id := range columnOrder(o) {
			if c := column(o, id); c["sourceField"] != "___records___" {
				all = append(all, uses{c["sourceField"].(string), c["operationType"].(string), id})
			}
		}
	case "dashboard":
		if group, ok := o.Attributes["controlGroupInput"].(map[string]any); ok {
			for id, c := range parsed(t, o, group, "panelsJSON").(map[string]any) {
				all = append(all, uses{dig(c, "explicitInput", "fieldName").(string), "terms", id})
			}
		}
	}
	return all
}

// TestFields wants every field to be one of the index design, of a type that takes what is done with it.
func TestFields(t *testing.T) {
	types := map[string]indexer.Type{}
	for i := range indexer.Fields {
		types[indexer.Fields[i].Name] = indexer.Fields[i].Type
	}
	n := 0
	for _, o := range committed(t) {
		for _, u := range fieldUses(t, &o) {
			n++
			kind, ok := types[u.field]
			takes := ok
			switch u.operation {
			case "terms", "unique_count":
				takes = ok && kind != indexer.Text && kind != indexer.Flattened
			case "sum":
				takes = ok && kind == indexer.Long
			case "date_histogram":
				takes = ok && kind == indexer.Time
			}
			if !takes {
				t.Errorf("%s: %s: %s of %s (there is such a field: %v)", o.ID, u.where, u.operation, u.field, ok)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d uses of fields were found", n)
	}
}

// TestColumns wants each panel to show all of its columns, and to be sorted by one that Elasticsearch can sort by.
func TestColumns(t *testing.T) {
	for _, o := range committed(t) {
		if o.Type != "lens" {
			continue
		}
		b, err := json.Marshal(dig(o.Attributes, "state", "visualization"))
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range columnOrder(&o) {
			if !bytes.Contains(b, []byte(`"`+id+`"`)) {
				t.Errorf("%s asks for %s and does not show it", o.ID, id)
			}
			if by, ok := dig(column(&o, id), "params", "orderBy", "columnId").(string); ok && (!slices.Contains(columnOrder(&o), by) || column(&o, by)["filter"] != nil) {
				t.Errorf("%s is sorted by %s", o.ID, by)
			}
		}
	}
}
