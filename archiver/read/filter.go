package read

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"weir/schema"
)

// filter finds rows. Filters read columns as far as they need to, the cheap ones first.
type filter interface {
	// none tells from statistics and bloom filters that no row of the group matches. False says nothing.
	none(g *group) bool
	// apply takes those that do not match out of rows.
	apply(g *group, rows rowSet) error
	// cost is smaller for what is cheaper to find out.
	cost() int
}

type all []filter

func (f all) none(g *group) bool {
	return slices.ContainsFunc(f, func(f filter) bool { return f.none(g) })
}

func (f all) apply(g *group, rows rowSet) error {
	for _, one := range f {
		if rows.empty() {
			return nil
		}
		if err := one.apply(g, rows); err != nil {
			return err
		}
	}
	return nil
}

func (f all) cost() int { return dearest(f) }

type either []filter

func (f either) none(g *group) bool {
	return !slices.ContainsFunc(f, func(f filter) bool { return !f.none(g) })
}

func (f either) apply(g *group, rows rowSet) error {
	left := rows.clone()
	for _, one := range f {
		if left.empty() {
			return nil
		}
		found := left.clone()
		if err := one.apply(g, found); err != nil {
			return err
		}
		left.minus(found)
	}
	rows.minus(left)
	return nil
}

func (f either) cost() int { return dearest(f) }

type not struct{ filter }

func (f not) none(*group) bool { return false }

func (f not) apply(g *group, rows rowSet) error {
	found := rows.clone()
	if err := f.filter.apply(g, found); err != nil {
		return err
	}
	rows.minus(found)
	return nil
}

func dearest(all []filter) (most int) {
	for _, f := range all {
		most = max(most, f.cost())
	}
	return most
}

// cheapFirst orders the parts of an and, or of an or.
func cheapFirst(all []filter) []filter {
	slices.SortStableFunc(all, func(a, b filter) int { return a.cost() - b.cost() })
	return all
}

// byTopic is for what all records of a topic share.
type byTopic func(topic string) bool

func (f byTopic) none(g *group) bool { return !f(g.topic()) }
func (f byTopic) cost() int          { return 0 }
func (f byTopic) apply(g *group, rows rowSet) error {
	if !f(g.topic()) {
		clear(rows)
	}
	return nil
}

// byString tests a text column.
type byString struct {
	column string
	test   func(string) bool
	exact  string // the one value that the test is true for; empty: others may be
}

func (f *byString) cost() int { return 2 }

func (f *byString) none(g *group) bool {
	if f.exact == "" {
		return false
	}
	chunk := g.chunk(f.column)
	if chunk == nil {
		return true
	}
	// Writers may cut bounds, so that the upper one is a prefix of the greatest value.
	if low, high, ok := chunk.Bounds(); ok {
		if l, h := low.ByteArray(), high.ByteArray(); f.exact < string(l) || f.exact > string(h) && !strings.HasPrefix(f.exact, string(h)) {
			return true
		}
	}
	if bloom := chunk.BloomFilter(); bloom != nil {
		if found, err := bloom.Check(parquet.ValueOf(f.exact)); err == nil && !found {
			return true
		}
	}
	return false
}

func (f *byString) apply(g *group, rows rowSet) error {
	c, err := g.column(f.column)
	if err != nil {
		return err
	}
	if c == nil {
		if !f.test("") {
			clear(rows)
		}
		return nil
	}
	return c.each(rows, func(p *page) (bool, error) {
		any := false
		if p.dict != nil {
			match := p.dict.test(f, f.test)
			for row := rows.from(p.first); row >= 0 && row < p.end; row = rows.from(row + 1) {
				if match[p.index[row-p.first]] {
					any = true
				} else {
					rows[row>>6] &^= 1 << (row & 63)
				}
			}
			return any, nil
		}
		for row := rows.from(p.first); row >= 0 && row < p.end; row = rows.from(row + 1) {
			if f.test(p.string(row - p.first)) {
				any = true
			} else {
				rows[row>>6] &^= 1 << (row & 63)
			}
		}
		return any, nil
	})
}

// byInt tests a column of numbers.
type byInt struct {
	column string
	test   func(int64) bool
}

func (f *byInt) cost() int        { return 1 }
func (f *byInt) none(*group) bool { return false }

func (f *byInt) apply(g *group, rows rowSet) error {
	c, err := g.column(f.column)
	if err != nil {
		return err
	}
	if c == nil {
		if !f.test(0) {
			clear(rows)
		}
		return nil
	}
	return c.each(rows, func(p *page) (bool, error) {
		any := false
		for row := rows.from(p.first); row >= 0 && row < p.end; row = rows.from(row + 1) {
			if f.test(p.int(row - p.first)) {
				any = true
			} else {
				rows[row>>6] &^= 1 << (row & 63)
			}
		}
		return any, nil
	})
}

func (p *page) int(i int) int64 {
	if p.int64s != nil {
		return p.int64s[i]
	}
	return int64(p.int32s[i])
}

// byTime is for the time that a record is filed under, from (included) to (excluded), ns.
type byTime struct{ from, to int64 }

func (f *byTime) cost() int { return 1 }

func (f *byTime) none(g *group) bool {
	from, to := g.span()
	return to < f.from || from >= f.to
}

func (f *byTime) apply(g *group, rows rowSet) error {
	if from, to := g.span(); from >= f.from && to < f.to {
		return nil
	}
	times, err := g.times(rows)
	if err != nil {
		return err
	}
	for row := rows.from(0); row >= 0; row = rows.from(row + 1) {
		if at := times[row]; at < f.from || at >= f.to {
			rows[row>>6] &^= 1 << (row & 63)
		}
	}
	return nil
}

// span is the first and the last time of the group's rows, or wider: statistics are of microseconds.
func (g *group) span() (from, to int64) {
	from, to = g.file.place.MinTime.UnixNano(), g.file.place.MaxTime.UnixNano()
	if c := g.chunk("timestamp"); c != nil {
		if low, high, ok := c.Bounds(); ok {
			from, to = max(from, low.Int64()*1000), min(to, high.Int64()*1000+999)
		}
	}
	return from, to
}

// times are the times that rows are filed under (archive.EventTime), by row.
func (g *group) times(rows rowSet) ([]int64, error) {
	times := make([]int64, g.rows)
	var unknown rowSet
	fill := func(name string, rows rowSet) error {
		c, err := g.column(name)
		if err != nil || c == nil {
			return err
		}
		return c.each(rows, func(p *page) (bool, error) {
			for row := rows.from(p.first); row >= 0 && row < p.end; row = rows.from(row + 1) {
				times[row] = max(p.int64s[row-p.first], 0)
			}
			return true, nil
		})
	}
	if err := fill("timestamp_ns", rows); err != nil {
		return nil, err
	}
	for row := rows.from(0); row >= 0; row = rows.from(row + 1) {
		if times[row] == 0 {
			if unknown == nil {
				unknown = newRowSet(g.rows)
			}
			unknown.add(row)
		}
	}
	if unknown == nil {
		return times, nil
	}
	return times, fill("observed_ns", unknown)
}

// byText looks for words in the body.
type byText struct{ *text }

func (f byText) cost() int        { return 4 }
func (f byText) none(*group) bool { return false }

func (f byText) apply(g *group, rows rowSet) error {
	c, err := g.column("body")
	if err != nil {
		return err
	}
	if c == nil {
		clear(rows)
		return nil
	}
	found := newRowSet(g.rows)
	if err := c.each(rows, func(p *page) (bool, error) {
		any := false
		if p.dict != nil {
			for row := rows.from(p.first); row >= 0 && row < p.end; row = rows.from(row + 1) {
				if f.match([]byte(p.string(row - p.first))) {
					found.add(row)
					any = true
				}
			}
			return any, nil
		}
		f.each(p.data, p.offsets, func(i int) {
			if rows.has(p.first + i) {
				found.add(p.first + i)
				any = true
			}
		})
		return any, nil
	}); err != nil {
		return err
	}
	for i := range rows {
		rows[i] &= found[i]
	}
	return nil
}

// byMap tests the values of a map, of one key or of any but some.
type byMap struct {
	column string // labels or attributes
	key    string
	any    func(key string) bool // instead of key, where that is empty
	test   func([]byte) bool
}

func (f *byMap) cost() int        { return 3 }
func (f *byMap) none(*group) bool { return false }

func (f *byMap) apply(g *group, rows rowSet) error {
	found := newRowSet(g.rows)
	err := g.eachEntry(f.column, rows, func(row int, key string, value []byte) {
		if (key == f.key || f.key == "" && f.any(key)) && f.test(value) {
			found.add(row)
		}
	})
	for i := range rows {
		rows[i] &= found[i]
	}
	return err
}

// eachEntry visits the entries of a map column, row after row.
func (g *group) eachEntry(name string, rows rowSet, visit func(row int, key string, value []byte)) error {
	keys, err := g.column(name, "key_value", "key")
	if err != nil || keys == nil {
		return err
	}
	values, err := g.column(name, "key_value", "value")
	if err != nil || values == nil {
		return err
	}
	hold := func(*page) (bool, error) { return true, nil }
	if err := values.each(rows, hold); err != nil {
		return err
	}
	at := 0
	return keys.each(rows, func(p *page) (bool, error) {
		for row := rows.from(p.first); row >= 0 && row < p.end; row = rows.from(row + 1) {
			for values.first[at+1] <= row {
				at++
			}
			v := values.held[at]
			value := v.start[row-v.first]
			for i := p.start[row-p.first]; i < p.start[row-p.first+1]; i, value = i+1, value+1 {
				if v.dict != nil {
					visit(row, p.string(int(i)), []byte(v.string(int(value))))
				} else {
					visit(row, p.string(int(i)), v.bytes(int(value)))
				}
			}
		}
		return true, nil
	})
}

// byJSON tests fields of bodies that are JSON objects.
type byJSON struct {
	path string // of names with dots between them; empty: any
	test func([]byte) bool
}

func (f *byJSON) cost() int        { return 5 }
func (f *byJSON) none(*group) bool { return false }

func (f *byJSON) apply(g *group, rows rowSet) error {
	c, err := g.column("body")
	if err != nil {
		return err
	}
	if c == nil {
		clear(rows)
		return nil
	}
	return c.each(rows, func(p *page) (bool, error) {
		any := false
		for row := rows.from(p.first); row >= 0 && row < p.end; row = rows.from(row + 1) {
			var body []byte
			if p.dict != nil {
				body = []byte(p.string(row - p.first))
			} else {
				body = p.bytes(row - p.first)
			}
			if len(body) > 1 && body[0] == '{' && f.body(body) {
				any = true
			} else {
				rows[row>>6] &^= 1 << (row & 63)
			}
		}
		return any, nil
	})
}

func (f *byJSON) body(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var object map[string]any
	return d.Decode(&object) == nil && f.in(object, "")
}

// in looks for a leaf below v, whose own path is at.
func (f *byJSON) in(v any, at string) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			path := name
			if at != "" {
				path = at + "." + name
			}
			if (f.path == "" || path == f.path || strings.HasPrefix(f.path, path+".")) && f.in(inner, path) {
				return true
			}
		}
		return false
	case []any:
		return slices.ContainsFunc(v, func(inner any) bool { return f.in(inner, at) })
	case nil:
		return false
	}
	if f.path != "" && at != f.path {
		return false
	}
	switch v := v.(type) {
	case string:
		return f.test([]byte(v))
	case json.Number:
		return f.test([]byte(v))
	case bool:
		return f.test(strconv.AppendBool(nil, v))
	}
	return false
}

// beside is a column that some topics have among their attributes: lines share what they are of, other records name it themselves.
type beside struct {
	column filter
	attr   *byMap
}

func (f *beside) cost() int { return f.column.cost() }

func (f *beside) none(g *group) bool { return g.topic() == schema.TopicLogs && f.column.none(g) }

func (f *beside) apply(g *group, rows rowSet) error {
	if g.topic() == schema.TopicLogs {
		return f.column.apply(g, rows)
	}
	return either{f.column, f.attr}.apply(g, rows)
}
