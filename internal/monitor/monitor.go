// Package monitor makes weir's dashboards for Grafana from dashboards.yaml, and holds them and the rules of deployments/prometheus to the metrics that there are.
package monitor

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
)

//go:embed dashboards.yaml
var dashboards []byte

// source is dashboards.yaml, which says what the keys mean.
type source struct {
	Version    int         `yaml:"version"`
	Dashboards []dashboard `yaml:"dashboards"`
}

type dashboard struct {
	ID             string `yaml:"id"`
	Title          string `yaml:"title"`
	About          string `yaml:"about"`
	From           string `yaml:"from"`
	ChooseInstance bool   `yaml:"choose_instance"`
	Rows           []row  `yaml:"rows"`
}

type row struct {
	Title  string  `yaml:"title"`
	Panels []panel `yaml:"panels"`
}

type panel struct {
	Title string  `yaml:"title"`
	About string  `yaml:"about"`
	Show  string  `yaml:"show"`
	Unit  string  `yaml:"unit"`
	Width int     `yaml:"width"`
	Bad   float64 `yaml:"bad"`
	Stack bool    `yaml:"stack"`
	Lines []line  `yaml:"lines"`
}

type line struct {
	Expr   string `yaml:"expr"`
	Legend string `yaml:"legend"`
}

func readSource() (*source, error) {
	var s source
	d := yaml.NewDecoder(bytes.NewReader(dashboards))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("dashboards.yaml: %w", err)
	}
	return &s, nil
}

// Dashboards are the dashboards as Grafana imports them, by id.
func Dashboards() (map[string][]byte, error) {
	s, err := readSource()
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	for i := range s.Dashboards {
		d := &s.Dashboards[i]
		if all[d.ID], err = d.grafana(s.Version); err != nil {
			return nil, fmt.Errorf("dashboards.yaml: %s: %w", d.ID, err)
		}
	}
	return all, nil
}

type object = map[string]any

// dataSource is the Prometheus that is chosen above the dashboard.
var dataSource = object{"type": "prometheus", "uid": "${datasource}"}

const columns, numberWidth, numberHeight, timeWidth, timeHeight = 24, 4, 4, 12, 8

// grafana is a dashboard as Grafana imports it.
func (d *dashboard) grafana(version int) ([]byte, error) {
	variables := []object{{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}}
	if d.ChooseInstance {
		variables = append(variables, object{"name": "instance", "label": "Instance", "type": "query", "datasource": dataSource, "query": `label_values(up{job="weir"}, instance)`,
			"includeAll": true, "multi": true, "allValue": ".*", "current": object{"text": "All", "value": "$__all"}, "refresh": 2, "sort": 1})
	}
	var panels []object
	x, y, high := 0, 0, 0
	place := func(w, h int) object {
		if x+w > columns {
			x, y, high = 0, y+high, 0
		}
		at := object{"x": x, "y": y, "w": w, "h": h}
		x, high = x+w, max(high, h)
		return at
	}
	add := func(p object, at object) {
		p["id"], p["gridPos"] = len(panels)+1, at
		panels = append(panels, p)
	}
	for _, r := range d.Rows {
		x, y, high = 0, y+high, 0
		add(object{"type": "row", "title": r.Title, "collapsed": false, "panels": []object{}}, place(columns, 1))
		for i := range r.Panels {
			p, w, h := &r.Panels[i], timeWidth, timeHeight
			if p.Show == "number" {
				w, h = numberWidth, numberHeight
			}
			if p.Width > 0 {
				w = p.Width
			}
			add(p.grafana(), place(w, h))
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(object{
		"uid": d.ID, "title": d.Title, "description": d.About, "tags": []string{"weir"}, "schemaVersion": 39, "version": version, "editable": true, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
		"time": object{"from": d.From, "to": "now"}, "templating": object{"list": variables}, "annotations": object{"list": []object{}}, "panels": panels,
		"links": []object{{"type": "dashboards", "tags": []string{"weir"}, "title": "weir", "asDropdown": true, "includeVars": true, "keepTime": true}},
	})
	return b.Bytes(), err
}

func (p *panel) grafana() object {
	steps := []object{{"color": "green", "value": nil}}
	if p.Bad > 0 {
		steps = append(steps, object{"color": "red", "value": p.Bad})
	}
	var targets []object
	for i, l := range p.Lines {
		targets = append(targets, object{"refId": string(rune('A' + i)), "datasource": dataSource, "expr": l.Expr, "legendFormat": l.Legend})
	}
	defaults := object{"unit": p.Unit, "min": 0, "thresholds": object{"mode": "absolute", "steps": steps}}
	o := object{"title": p.Title, "description": p.About, "datasource": dataSource, "targets": targets}
	if p.Show == "number" {
		o["type"] = "stat"
		o["options"] = object{"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}, "colorMode": "value", "graphMode": "area", "textMode": "value"}
	} else {
		o["type"] = "timeseries"
		custom := object{"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false}
		if p.Stack {
			custom["fillOpacity"], custom["stacking"] = 40, object{"mode": "normal", "group": "A"}
		}
		defaults["custom"] = custom
		o["options"] = object{"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	}
	o["fieldConfig"] = object{"defaults": defaults, "overrides": []object{}}
	return o
}
