package kibana

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Object is a saved object of Kibana, as its import takes it.
type Object struct {
	Attributes           map[string]any `json:"attributes"`
	CoreMigrationVersion string         `json:"coreMigrationVersion"`
	ID                   string         `json:"id"`
	References           []Reference    `json:"references"`
	Type                 string         `json:"type"`
	TypeMigrationVersion string         `json:"typeMigrationVersion"`
}

// Reference is how an object names another.
type Reference struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
}

// Title is what people call it.
func (o *Object) Title() string {
	for _, key := range []string{"name", "title"} {
		if s, ok := o.Attributes[key].(string); ok {
			return s
		}
	}
	return o.ID
}

// Kibana takes objects of its own form or older ones, which it brings up to date. The attributes here are those of the versions
// below, so that 8.9 and all that follow take them.
const coreVersion = "8.8.0"

var typeVersions = map[string]string{"tag": "8.0.0", "index-pattern": "8.0.0", "search": "8.0.0", "lens": "8.9.0", "dashboard": "8.9.0"}

// ID makes an object's id. Kibana gives an object another id where one of another space has it, so the space is in it. Neither names nor
// spaces have a dot.
func ID(space, name string) string {
	if space == "" || space == "default" {
		return "weir-" + name
	}
	return "weir." + space + "." + name
}

// Version is that of the objects of this build.
func Version() int { return embedded().Version }

// embedded is objects.yaml; a test reads it first.
func embedded() *source {
	s, err := readSource(objects)
	if err != nil {
		panic(err)
	}
	return s
}

// Objects makes all saved objects for a space, what is referred to before what refers to it.
func Objects(space string) []Object {
	s := embedded()
	g := generator{space: space, kinds: map[string]string{}, titles: map[string]string{}}
	all := []Object{g.object("tag", "tag", nil, map[string]any{
		"name": "weir", "color": "#54B399",
		"description": fmt.Sprintf("weir's objects, version %d. `weir kibana apply` writes over them: copy one before you change it.", s.Version)})}
	for i := range s.DataViews {
		all = append(all, g.dataView(&s.DataViews[i]))
	}
	for i := range s.Searches {
		g.kinds[s.Searches[i].ID], g.titles[s.Searches[i].ID] = "search", strings.TrimPrefix(s.Searches[i].Title, prefix)
		all = append(all, g.search(&s.Searches[i]))
	}
	for i := range s.Panels {
		g.kinds[s.Panels[i].ID], g.titles[s.Panels[i].ID] = "lens", s.Panels[i].Title
		all = append(all, g.lens(&s.Panels[i]))
	}
	for i := range s.Dashboards {
		all = append(all, g.dashboard(&s.Dashboards[i]))
	}
	return all
}

// NDJSON is what the import takes: an object a line.
func NDJSON(all []Object) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for i := range all {
		_ = e.Encode(&all[i]) // maps, strings and numbers
	}
	return b.Bytes()
}

type generator struct {
	space         string
	kinds, titles map[string]string // by name, of what dashboards show
}

func (g *generator) object(kind, name string, refs []Reference, attributes map[string]any) Object {
	if refs == nil {
		refs = []Reference{}
	}
	return Object{Attributes: attributes, CoreMigrationVersion: coreVersion, ID: ID(g.space, name), References: refs, Type: kind, TypeMigrationVersion: typeVersions[kind]}
}

// tagged is the reference by which an object carries weir's tag.
func (g *generator) tagged() Reference {
	id := ID(g.space, "tag")
	return Reference{ID: id, Name: "tag-ref-" + id, Type: "tag"}
}

// everything is the reference to the data view that has all fields.
func (g *generator) everything(name string) Reference {
	return Reference{ID: ID(g.space, "all"), Name: name, Type: "index-pattern"}
}

// text is JSON within a string, as Kibana keeps what it does not search.
func text(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // maps, strings and numbers
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

func kql(query string) map[string]any { return map[string]any{"language": "kuery", "query": query} }

func (g *generator) dataView(v *dataView) Object {
	return g.object("index-pattern", v.ID, nil, map[string]any{
		"name": v.Name, "title": v.Title, "timeFieldName": "@timestamp",
		"allowNoIndex": true, // it is no error that there was no action yet
		"fields":       "[]", "fieldAttrs": "{}", "fieldFormatMap": "{}", "runtimeFieldMap": "{}", "sourceFilters": "[]", "typeMeta": "{}"})
}

func (g *generator) search(s *search) Object {
	const index = "kibanaSavedObjectMeta.searchSourceJSON.index"
	order := "desc"
	if s.OldestFirst {
		order = "asc"
	}
	return g.object("search", s.ID, []Reference{g.everything(index), g.tagged()}, map[string]any{
		"title": s.Title, "description": s.About, "columns": s.Columns, "sort": [][2]string{{"@timestamp", order}},
		"grid": map[string]any{}, "hideChart": false, "isTextBasedQuery": false, "timeRestore": false,
		"kibanaSavedObjectMeta": map[string]any{"searchSourceJSON": text(map[string]any{"query": kql(s.Query), "filter": []any{}, "indexRefName": index})}})
}

// prefix tells weir's from others' in Kibana's lists. On a dashboard it is left out.
const prefix = "weir: "

// gridWidth is how many columns a dashboard has.
const gridWidth = 48

func (g *generator) dashboard(d *dashboard) Object {
	var refs []Reference
	panels := []any{}
	y := 0
	for _, r := range d.Rows {
		width := gridWidth / len(r.Panels)
		for i, name := range r.Panels {
			at := fmt.Sprint(len(panels) + 1)
			panels = append(panels, map[string]any{"type": g.kinds[name], "version": typeVersions["dashboard"], "title": g.titles[name], "panelIndex": at, "panelRefName": "panel_" + at,
				"embeddableConfig": map[string]any{"enhancements": map[string]any{}}, "gridData": map[string]any{"x": i * width, "y": y, "w": width, "h": r.Height, "i": at}})
			refs = append(refs, Reference{ID: ID(g.space, name), Name: at + ":panel_" + at, Type: g.kinds[name]})
		}
		y += r.Height
	}
	attributes := map[string]any{
		"title": d.Title, "description": d.About, "version": 1,
		"timeRestore": true, "timeFrom": d.From, "timeTo": "now", "refreshInterval": map[string]any{"pause": true, "value": 60_000},
		"kibanaSavedObjectMeta": map[string]any{"searchSourceJSON": text(map[string]any{"query": kql(""), "filter": []any{}})},
		"optionsJSON":           text(map[string]any{"useMargins": true, "syncColors": true, "syncCursor": true, "syncTooltips": false, "hidePanelTitles": false}),
		"panelsJSON":            text(panels)}
	if len(d.Controls) > 0 {
		controls := map[string]any{}
		for i, c := range d.Controls {
			id := fmt.Sprint("control-", i+1)
			controls[id] = map[string]any{"type": "optionsListControl", "order": i, "width": "medium", "grow": true,
				"explicitInput": map[string]any{"id": id, "title": c.Label, "fieldName": c.Field, "enhancements": map[string]any{}}}
			refs = append(refs, g.everything("controlGroup_"+id+":optionsListDataView"))
		}
		attributes["controlGroupInput"] = map[string]any{"chainingSystem": "HIERARCHICAL", "controlStyle": "oneLine", "panelsJSON": text(controls),
			"ignoreParentSettingsJSON": text(map[string]any{"ignoreFilters": false, "ignoreQuery": false, "ignoreTimerange": false, "ignoreValidations": false})}
	}
	return g.object("dashboard", d.ID, append(refs, g.tagged()), attributes)
}
