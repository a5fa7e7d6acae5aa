package kibana

import (
	"bytes"
	_ "embed"
	"fmt"

	"go.yaml.in/yaml/v3"
)

//go:embed objects.yaml
var objects []byte

// source is objects.yaml, which says what the keys mean.
type source struct {
	Version    int         `yaml:"version"`
	DataViews  []dataView  `yaml:"data_views"`
	Searches   []search    `yaml:"searches"`
	Panels     []panel     `yaml:"panels"`
	Dashboards []dashboard `yaml:"dashboards"`
}

type dataView struct {
	ID    string `yaml:"id"`
	Name  string `yaml:"name"`
	Title string `yaml:"title"` // index pattern
}

type search struct {
	ID          string   `yaml:"id"`
	Title       string   `yaml:"title"`
	About       string   `yaml:"about"`
	Query       string   `yaml:"query"`
	Columns     []string `yaml:"columns"`
	OldestFirst bool     `yaml:"oldest_first"`
}

type panel struct {
	ID       string    `yaml:"id"`
	Title    string    `yaml:"title"`
	Show     string    `yaml:"show"`
	Query    string    `yaml:"query"`
	By       []terms   `yaml:"by"`
	Measures []measure `yaml:"measures"`
}

type terms struct {
	Field string `yaml:"field"`
	Label string `yaml:"label"`
	Size  int    `yaml:"size"`
}

type measure struct {
	Label  string `yaml:"label"`
	Sum    string `yaml:"sum"`
	Unique string `yaml:"unique"`
	Where  string `yaml:"where"`
}

type dashboard struct {
	ID       string  `yaml:"id"`
	Title    string  `yaml:"title"`
	About    string  `yaml:"about"`
	From     string  `yaml:"from"`
	Controls []terms `yaml:"controls"`
	Rows     []row   `yaml:"rows"`
}

type row struct {
	Height int      `yaml:"height"`
	Panels []string `yaml:"panels"` // ids of panels and searches
}

func readSource(b []byte) (*source, error) {
	var s source
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("objects.yaml: %w", err)
	}
	return &s, nil
}
