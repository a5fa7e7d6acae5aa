package read

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"weir/indexer"
	"weir/schema"
)

// Filter is a query that the archive's records are tested with. The zero value takes all.
type Filter struct{ f filter }

// ParseFilter reads a query in KQL over the fields that Elasticsearch has (docs/search.md). Free text is looked for in the message.
func ParseFilter(kql string, now time.Time) (Filter, error) {
	n, err := parseKQL(kql)
	if err != nil || n == nil {
		return Filter{}, err
	}
	c := compiler{now: now}
	f, err := c.compile(n)
	return Filter{f}, err
}

// And adds the condition that a field has exactly a value.
func (f Filter) And(field, exactly string) (Filter, error) {
	one, err := (&compiler{}).compile(test{fieldName{pattern{field}, 1}, ":", value{pattern{exactly}, true, 1}})
	if err != nil {
		return f, err
	}
	if f.f != nil {
		one = all(cheapFirst([]filter{f.f, one}))
	}
	return Filter{one}, nil
}

type compiler struct{ now time.Time }

func (c *compiler) compile(n node) (filter, error) {
	switch n := n.(type) {
	case andNode:
		parts, err := c.parts(n)
		return all(parts), err
	case orNode:
		parts, err := c.parts(n)
		return either(parts), err
	case notNode:
		f, err := c.compile(n.of)
		return not{f}, err
	}
	t := n.(test)
	name := t.field.pattern
	switch {
	case len(name) == 0:
		return byText{newText(t.value)}, nil
	case name.wild():
		return c.many(t)
	}
	f, err := c.test(name[0], t)
	if err != nil {
		return nil, fmt.Errorf("column %d: %w", t.value.at, err)
	}
	if f == nil {
		return nil, unknown(name[0], t.field.at)
	}
	return f, nil
}

func (c *compiler) parts(nodes []node) ([]filter, error) {
	var parts []filter
	for _, n := range nodes {
		f, err := c.compile(n)
		if err != nil {
			return nil, err
		}
		parts = append(parts, f)
	}
	return cheapFirst(parts), nil
}

// many tests every field whose name matches. As in Elasticsearch, those pass that the value cannot be of.
func (c *compiler) many(t test) (filter, error) {
	var any []filter
	for i := range indexer.Fields {
		name := indexer.Fields[i].Name
		if !t.field.match(name) {
			continue
		}
		if f, err := c.test(name, t); err == nil {
			any = append(any, f)
		}
	}
	if len(any) == 0 {
		return nil, unknown(t.field.String(), t.field.at)
	}
	return either(cheapFirst(any)), nil
}

func unknown(name string, at int) error {
	err := fmt.Sprintf("column %d: there is no field %q", at, name)
	var near []string
	for i := range indexer.Fields {
		if f := indexer.Fields[i].Name; strings.HasSuffix(f, "."+name) || name != "" && strings.HasPrefix(f, name) {
			near = append(near, f)
		}
	}
	if len(near) > 0 {
		err += "; near to it: " + strings.Join(near[:min(3, len(near))], ", ")
	}
	return errors.New(err)
}

// Known tells whether records may have a field.
func Known(name string) bool {
	return name == "_id" || name == "_index" || slices.ContainsFunc(indexer.Fields, func(f indexer.Field) bool {
		return f.Name == name || f.Type == indexer.Flattened && strings.HasPrefix(name, f.Name+".")
	})
}

// columns are the columns of attributes that have one.
var columns = map[string]string{
	schema.AttrStream: "stream", schema.AttrContainerID: "container_id", schema.AttrContainerName: "container_name", schema.AttrImageName: "image",
	schema.AttrHostName: "host", schema.AttrApp: "app", schema.AttrTenant: "tenant", schema.AttrSite: "site", schema.AttrCell: "cell",
}

// fieldAttrs are the attributes that have a field of their own, and so are none of weir.attributes.
var fieldAttrs = func() map[string]*indexer.Field {
	m := map[string]*indexer.Field{}
	for i := range indexer.Fields {
		if f := &indexer.Fields[i]; f.Attr != "" {
			m[f.Attr] = f
		}
	}
	return m
}()

// test makes the filter of one field; nil where there is no such field.
func (c *compiler) test(name string, t test) (filter, error) {
	switch name {
	case "@timestamp":
		return c.time(t, func(from, to int64) filter { return &byTime{from, to} })
	case "event.created":
		return c.time(t, func(from, to int64) filter {
			return &byInt{"observed_ns", func(n int64) bool { return n > 0 && n >= from && n < to }}
		})
	case "message":
		if t.op != ":" {
			return nil, fmt.Errorf("message is text, which %s does not compare", t.op)
		}
		return byText{newText(t.value)}, nil
	case "log.level":
		return str("level", t, strings.ToLower), nil
	case "log.offset":
		return number(t, func(test func(int64) bool) filter { return &byInt{"offset", test} })
	case "event.severity":
		return number(t, func(test func(int64) bool) filter {
			return &byInt{"severity", func(n int64) bool { return n != 0 && test(n) }}
		})
	case "event.action":
		return str("event_name", t, nil), nil
	case "trace.id":
		return str("trace_id", t, nil), nil
	case "span.id":
		return str("span_id", t, nil), nil
	case "weir.source":
		return str("source", t, nil), nil
	case "weir.incarnation":
		return str("incarnation", t, nil), nil
	case "_id":
		return id(t), nil
	case "data_stream.dataset", "event.dataset":
		test := compare(t)
		return byTopic(func(topic string) bool { return test(indexer.Dataset(topic)) }), nil
	case "data_stream.type":
		test := compare(t)
		return byTopic(func(string) bool { return test("logs") }), nil
	case "data_stream.namespace", "_index":
		return nil, fmt.Errorf("%s is a matter of Elasticsearch: the archive has topics, which data_stream.dataset stands for", name)
	case "container.labels":
		return inMap("labels", "", func(string) bool { return true }, compare(t)), nil
	case "weir.attributes":
		return inMap("attributes", "", func(key string) bool { return fieldAttrs[key] == nil }, compare(t)), nil
	case "weir.json":
		return inJSON("", t), nil
	}
	if label, ok := strings.CutPrefix(name, "container.labels."); ok {
		return inMap("labels", label, nil, compare(t)), nil
	}
	if key, ok := strings.CutPrefix(name, "weir.attributes."); ok {
		return inMap("attributes", key, nil, compare(t)), nil
	}
	if path, ok := strings.CutPrefix(name, "weir.json."); ok {
		return inJSON(path, t), nil
	}
	at := slices.IndexFunc(indexer.Fields, func(f indexer.Field) bool { return f.Name == name })
	if at < 0 {
		return nil, nil
	}
	return c.attribute(&indexer.Fields[at], t)
}

// attribute is for fields that an attribute fills.
func (c *compiler) attribute(f *indexer.Field, t test) (filter, error) {
	if column := columns[f.Attr]; column != "" {
		attr := inMap("attributes", f.Attr, nil, compare(t))
		return &beside{str(column, t, nil), attr}, nil
	}
	switch f.Type {
	case indexer.Long:
		return number(t, func(test func(int64) bool) filter {
			return inMap("attributes", f.Attr, nil, func(s string) bool {
				n, err := strconv.ParseInt(s, 10, 64)
				return err == nil && test(n)
			})
		})
	case indexer.Boolean:
		if v := t.value.String(); t.op != ":" || v != "true" && v != "false" && !t.value.any() {
			return nil, fmt.Errorf("%s is true or false, not %q", f.Name, v)
		}
	case indexer.Text:
		if t.op != ":" {
			return nil, fmt.Errorf("%s is text, which %s does not compare", f.Name, t.op)
		}
		text := newText(t.value)
		return &byMap{column: "attributes", key: f.Attr, test: text.match}, nil
	}
	return inMap("attributes", f.Attr, nil, compare(t)), nil
}

func inMap(column, key string, any func(string) bool, test func(string) bool) *byMap {
	return &byMap{column: column, key: key, any: any, test: func(b []byte) bool { return test(string(b)) }}
}

func inJSON(path string, t test) filter {
	test := compare(t)
	return &byJSON{path, func(b []byte) bool { return test(string(b)) }}
}

// str tests a text column. Empty is what a record has that lacks the field.
func str(column string, t test, change func(string) string) filter {
	test := compare(t)
	f := &byString{column: column, test: func(s string) bool { return s != "" && test(s) }}
	if change != nil {
		f.test = func(s string) bool { return s != "" && test(change(s)) }
	} else if t.op == ":" && (t.value.quoted || !t.value.wild()) {
		f.exact = t.value.String()
	}
	return f
}

// compare makes the comparison of a keyword.
func compare(t test) func(string) bool {
	p := t.value.pattern
	switch text := p.String(); t.op {
	case "<":
		return func(s string) bool { return s < text }
	case "<=":
		return func(s string) bool { return s <= text }
	case ">":
		return func(s string) bool { return s > text }
	case ">=":
		return func(s string) bool { return s >= text }
	}
	return p.match
}

func number(t test, make func(test func(int64) bool) filter) (filter, error) {
	if t.value.any() {
		return make(func(int64) bool { return true }), nil
	}
	want, err := strconv.ParseInt(t.value.String(), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s is a whole number, not %q", t.field, t.value)
	}
	return make(func(n int64) bool { return holds(t.op, cmp.Compare(n, want)) }), nil
}

func holds(op string, c int) bool {
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	case ">=":
		return c >= 0
	}
	return c == 0
}

// time makes the test of a time from the range [from, to) that a value stands for: a day, a minute, a nanosecond.
func (c *compiler) time(t test, make func(from, to int64) filter) (filter, error) {
	if t.value.any() {
		return make(0, math.MaxInt64), nil
	}
	from, to, ok := timeRange(t.value.String(), c.now)
	if !ok {
		return nil, fmt.Errorf("%s is a time, such as \"2006-01-02T15:04:05Z\", 2006-01-02 or now-1h, not %q", t.field, t.value)
	}
	switch t.op {
	case "<":
		return make(0, from), nil
	case "<=":
		return make(0, to), nil
	case ">":
		return make(to, math.MaxInt64), nil
	case ">=":
		return make(from, math.MaxInt64), nil
	}
	return make(from, to), nil
}

var (
	nowForm   = regexp.MustCompile(`^now(?:([+-][0-9]{1,9})([smhdw]))?$`)
	timeUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	timeForms = []struct {
		layout string
		long   time.Duration
	}{
		{time.RFC3339Nano, 1}, {"2006-01-02T15:04:05.999999999", 1}, {"2006-01-02T15:04Z07:00", time.Minute}, {"2006-01-02T15:04", time.Minute}, {"2006-01-02", 24 * time.Hour},
	}
)

// timeRange reads a time as Elasticsearch does: without a zone it is UTC, and what is left out is a whole range.
func timeRange(s string, now time.Time) (from, to int64, ok bool) {
	if m := nowForm.FindStringSubmatch(s); m != nil {
		if m[1] != "" {
			n, _ := strconv.Atoi(m[1])
			if n != 0 && math.Abs(float64(n))*float64(timeUnits[m[2]]) > math.MaxInt64/2 {
				return 0, 0, false
			}
			now = now.Add(time.Duration(n) * timeUnits[m[2]])
		}
		return now.UnixNano(), now.UnixNano() + 1, true
	}
	for _, f := range timeForms {
		if t, err := time.Parse(f.layout, s); err == nil {
			long := f.long
			if long == 1 && !strings.Contains(s, ".") {
				long = time.Second
			}
			return t.UnixNano(), t.Add(long).UnixNano(), true
		}
	}
	return 0, 0, false
}

var idForm = regexp.MustCompile(`^([0-9a-f]{20})-(-?[0-9a-f]{1,16})\.([0-9a-f]{1,8})-([0-9a-f]{1,16})$`)

// id finds a record by the position that its id is made of: the columns of positions are small, and that of ids is not.
func id(t test) filter {
	m := idForm.FindStringSubmatch(t.value.String())
	if m == nil || t.op != ":" {
		return str("id", t, nil)
	}
	start, err1 := strconv.ParseInt(m[2], 16, 64)
	print, err2 := strconv.ParseUint(m[3], 16, 32)
	offset, err3 := strconv.ParseInt(m[4], 16, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return str("id", t, nil)
	}
	incarnation := schema.Incarnation{Start: start, Print: uint32(print)}.String()
	return all{
		&byInt{"offset", func(n int64) bool { return n == offset }},
		&byString{column: "incarnation", exact: incarnation, test: func(s string) bool { return s == incarnation }},
		&byString{column: "source", test: func(s string) bool { return schema.SourceHash(s) == m[1] }},
	}
}
