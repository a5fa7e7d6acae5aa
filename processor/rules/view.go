package rules

import (
	"math"
	"strconv"
	"strings"

	"weir/schema"
)

// The fields of a batch's resource, in the order of their place in View.
const (
	fieldApp = iota
	fieldNode
	fieldSite
	fieldTenant
	fieldCell
	fieldImage
	fieldContainer
	fieldContainerID
	fieldNamespace
	fieldPod
	resourceFields
)

// resourceNames are the names of those fields in conditions, and the attributes they come from.
var resourceNames = [resourceFields]struct{ name, attr string }{
	{"app", schema.AttrApp}, {"node", schema.AttrHostName}, {"site", schema.AttrSite}, {"tenant", schema.AttrTenant}, {"cell", schema.AttrCell},
	{"image", schema.AttrImageName}, {"container", schema.AttrContainerName}, {"container_id", schema.AttrContainerID},
	{"namespace", schema.AttrK8sNamespace}, {"pod", schema.AttrK8sPod},
}

// View shows one record to conditions. One is kept for many records; SetBatch and then SetRecord say of which it speaks.
type View struct {
	Batch  *schema.Batch
	Record *schema.Record

	resource [resourceFields]string
	env      *env // for conditions that the virtual machine runs
}

// SetBatch takes a batch up.
func (v *View) SetBatch(b *schema.Batch) {
	v.Batch, v.Record = b, nil
	v.resource = [resourceFields]string{}
	for i := range b.Resource {
		a := &b.Resource[i]
		if a.Kind != schema.KindString {
			continue
		}
		switch a.Key {
		case schema.AttrApp:
			v.resource[fieldApp] = a.Str
		case schema.AttrHostName:
			v.resource[fieldNode] = a.Str
		case schema.AttrSite:
			v.resource[fieldSite] = a.Str
		case schema.AttrTenant:
			v.resource[fieldTenant] = a.Str
		case schema.AttrCell:
			v.resource[fieldCell] = a.Str
		case schema.AttrImageName:
			v.resource[fieldImage] = a.Str
		case schema.AttrContainerName:
			v.resource[fieldContainer] = a.Str
		case schema.AttrContainerID:
			v.resource[fieldContainerID] = a.Str
		case schema.AttrK8sNamespace:
			v.resource[fieldNamespace] = a.Str
		case schema.AttrK8sPod:
			v.resource[fieldPod] = a.Str
		}
	}
}

// SetRecord takes a record of the batch up.
func (v *View) SetRecord(r *schema.Record) { v.Record = r }

func (v *View) label(name string) string {
	for i := range v.Batch.Resource {
		if key := v.Batch.Resource[i].Key; len(key) == len(schema.LabelPrefix)+len(name) && strings.HasPrefix(key, schema.LabelPrefix) && key[len(schema.LabelPrefix):] == name {
			return v.Batch.Resource[i].Str
		}
	}
	return ""
}

func (v *View) find(key string) (schema.Attr, bool) {
	if v.Record != nil {
		if a, ok := v.Record.Attr(key); ok {
			return a, true
		}
	}
	return v.Batch.ResourceAttr(key)
}

// attr is an attribute of the record, or else of its resource, as text.
func (v *View) attr(key string) string {
	a, ok := v.find(key)
	if !ok {
		return ""
	}
	return a.Text()
}

// number is an attribute as a number; NaN, to which nothing compares, where there is none or it is no number.
func (v *View) number(key string) float64 {
	a, ok := v.find(key)
	if !ok {
		return math.NaN()
	}
	switch a.Kind {
	case schema.KindInt, schema.KindBool:
		return float64(a.Num)
	case schema.KindDouble:
		return math.Float64frombits(uint64(a.Num))
	default:
		f, err := strconv.ParseFloat(a.Str, 64)
		if err != nil {
			return math.NaN()
		}
		return f
	}
}

// Field is one of those that make groups.
type Field struct {
	Name     string
	Attr     string // under which a signal carries its value
	Resource bool   // the same for all records of a batch
	Get      func(*View) string
}

// Unbounded says that nothing bounds the field's values but what apps write.
func (f *Field) Unbounded() bool {
	return !f.Resource && f.Name != "severity" && f.Name != "stream" && f.Name != "event"
}

// field finds a field by its name in `by`.
func field(name string) (Field, bool) {
	for i, f := range resourceNames {
		if f.name == name {
			return Field{Name: name, Attr: f.attr, Resource: true, Get: func(v *View) string { return v.resource[i] }}, true
		}
	}
	if label, ok := strings.CutPrefix(name, "label."); ok && label != "" {
		return Field{Name: name, Attr: schema.LabelPrefix + label, Resource: true, Get: func(v *View) string { return v.label(label) }}, true
	}
	if key, ok := strings.CutPrefix(name, "attr."); ok && key != "" {
		return Field{Name: name, Attr: key, Get: func(v *View) string { return v.attr(key) }}, true
	}
	switch name {
	case "event":
		return Field{Name: name, Attr: "weir.signal.event", Get: func(v *View) string { return v.Record.EventName }}, true
	case "severity":
		return Field{Name: name, Attr: "weir.signal.severity", Get: func(v *View) string { return v.Record.SeverityText }}, true
	case "stream":
		return Field{Name: name, Attr: schema.AttrStream, Get: func(v *View) string { return v.attr(schema.AttrStream) }}, true
	}
	return Field{}, false
}
