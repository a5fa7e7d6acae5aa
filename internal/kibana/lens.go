package kibana

import (
	"fmt"

	"weir/indexer"
)

// layer is the name of the one layer that each panel has.
const layer = "layer"

// lens makes a panel. Its columns are what it asks Elasticsearch: first what divides the records, in order, then the measures.
func (g *generator) lens(p *panel) Object {
	columns, order := map[string]any{}, []string{}
	add := func(id string, column map[string]any) {
		columns[id] = column
		order = append(order, id)
	}
	var by, measures []string
	for i, t := range p.By {
		id := fmt.Sprint("by-", i+1)
		by = append(by, id)
		add(id, t.column(p.Show == "time"))
	}
	if p.Show == "time" { // within the values, so that these are the commonest of all the time and not of each interval
		add("time", map[string]any{"label": "@timestamp", "dataType": "date", "operationType": "date_histogram", "sourceField": "@timestamp", "isBucketed": true, "scale": "interval",
			"params": map[string]any{"interval": "auto", "includeEmptyRows": true, "dropPartials": false}})
	}
	for i, m := range p.Measures {
		id := fmt.Sprint("measure-", i+1)
		measures = append(measures, id)
		add(id, m.column())
	}
	kind, visualization := p.visualization(by, measures)
	visualization["layerId"], visualization["layerType"] = layer, "data"
	if kind == "lnsXY" {
		visualization = xy(visualization)
	}
	return g.object("lens", p.ID, []Reference{g.everything("indexpattern-datasource-layer-" + layer), g.tagged()}, map[string]any{
		"title": prefix + p.Title, "description": "", "visualizationType": kind,
		"state": map[string]any{
			"query": kql(p.Query), "filters": []any{}, "visualization": visualization, "internalReferences": []any{}, "adHocDataViews": map[string]any{},
			"datasourceStates": map[string]any{"formBased": map[string]any{"layers": map[string]any{
				layer: map[string]any{"columns": columns, "columnOrder": order, "incompleteColumns": map[string]any{}}}}}}})
}

// visualization says where the columns go.
func (p *panel) visualization(by, measures []string) (kind string, v map[string]any) {
	switch p.Show {
	case "number":
		return "lnsMetric", map[string]any{"metricAccessor": measures[0]}
	case "time":
		return "lnsXY", map[string]any{"seriesType": "bar_stacked", "xAccessor": "time", "splitAccessor": by[0], "accessors": measures}
	case "top":
		return "lnsXY", map[string]any{"seriesType": "bar_horizontal", "xAccessor": by[0], "accessors": measures}
	}
	var columns []any
	for _, id := range append(by, measures...) {
		columns = append(columns, map[string]any{"columnId": id})
	}
	return "lnsDatatable", map[string]any{"columns": columns}
}

// xy wraps the layer of a chart that has axes.
func xy(layer map[string]any) map[string]any {
	plain := map[string]any{"x": true, "yLeft": true, "yRight": true}
	return map[string]any{"layers": []any{layer}, "preferredSeriesType": layer["seriesType"], "fittingFunction": "None", "valueLabels": "hide",
		"legend": map[string]any{"isVisible": true, "position": "right"}, "axisTitlesVisibilitySettings": map[string]any{"x": false, "yLeft": true, "yRight": true},
		"tickLabelsVisibilitySettings": plain, "gridlinesVisibilitySettings": plain}
}

// column divides by the values of a field. In a chart over time nothing is left out: what has other values, or none, is shown as such.
func (t *terms) column(all bool) map[string]any {
	kind := "string"
	for i := range indexer.Fields {
		if f := &indexer.Fields[i]; f.Name == t.Field && f.Type == indexer.Long {
			kind = "number"
		}
	}
	return map[string]any{"label": t.Label, "customLabel": true, "dataType": kind, "operationType": "terms", "sourceField": t.Field, "isBucketed": true, "scale": "ordinal",
		"params": map[string]any{"size": t.Size, "orderBy": map[string]any{"type": "column", "columnId": "measure-1"}, "orderDirection": "desc",
			"otherBucket": all, "missingBucket": all && kind == "string", "parentFormat": map[string]any{"id": "terms"}}}
}

func (m *measure) column() map[string]any {
	column := map[string]any{"label": m.Label, "customLabel": true, "dataType": "number", "isBucketed": false, "scale": "ratio", "params": map[string]any{"emptyAsNull": false}}
	switch {
	case m.Sum != "":
		column["operationType"], column["sourceField"] = "sum", m.Sum
	case m.Unique != "":
		column["operationType"], column["sourceField"] = "unique_count", m.Unique
	default:
		column["operationType"], column["sourceField"] = "count", "___records___"
	}
	if m.Where != "" {
		column["filter"] = kql(m.Where)
	}
	return column
}
