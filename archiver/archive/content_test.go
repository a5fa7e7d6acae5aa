package archive

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"
)

func contentOf(rows []Row) Content {
	var s Summer
	for i := range rows {
		s.Add(&rows[i])
	}
	return s.Sum
}

func someRows() []Row {
	var rows []Row
	for i := range int64(300) {
		rows = append(rows, Row{Timestamp: i, TimestampNS: i * 1000, ID: string(rune('a' + i)), Source: "docker/n/c", Incarnation: "5-00000001", Offset: i, Body: "line\x00\xff",
			Labels: map[string]string{"a": "1", "b": "2"}, Attributes: map[string]string{"n": string(rune('a' + i))}})
	}
	return rows
}

// TestContent wants a content that files keep when they are divided, ordered anew, and read back, and that any change shows in.
func TestContent(t *testing.T) {
	rows := someRows()
	want := contentOf(rows)
	var back Content
	if err := back.UnmarshalText([]byte(want.String())); err != nil || back != want {
		t.Fatalf("%s as text is %s, %v", want, back, err)
	}
	if back.UnmarshalText([]byte("00")) == nil || back.UnmarshalText(bytes.Repeat([]byte("x"), 64)) == nil {
		t.Error("what is no content is taken for one")
	}
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	parts := contentOf(rows[:100])
	parts.Add(contentOf(rows[100:]))
	if parts != want {
		t.Error("the content depends on order or division")
	}
	for name, change := range map[string]func(){
		"body":                  func() { rows[7].Body += "x" },
		"time":                  func() { rows[7].TimestampNS++ },
		"moved between columns": func() { rows[7].EventName, rows[7].Body = "l", rows[7].Body[1:] },
		"row twice":             func() { rows[7] = rows[8] },
		"row gone":              func() { rows = rows[1:] },
	} {
		rows = someRows()
		if change(); contentOf(rows) == want {
			t.Errorf("%s: the content is the same", name)
		}
	}
}

// TestWholeContent wants any change of any column to show.
func TestWholeContent(t *testing.T) {
	whole := func(r Row) Content {
		var s Summer
		s.AddWhole(&r)
		return s.Sum
	}
	row := someRows()[1]
	want := whole(row)
	for i := range reflect.TypeFor[Row]().NumField() {
		changed := row
		switch f := reflect.ValueOf(&changed).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "x")
		case reflect.Int32, reflect.Int64:
			f.SetInt(f.Int() + 1)
		case reflect.Map:
			f.Set(reflect.ValueOf(map[string]string{"a": "2", "b": "1"}))
		}
		if whole(changed) == want {
			t.Errorf("column %s may be changed", reflect.TypeFor[Row]().Field(i).Name)
		}
	}
}

func BenchmarkContent(b *testing.B) {
	rows := someRows()
	var s Summer
	for b.Loop() {
		s.Add(&rows[0])
	}
}
