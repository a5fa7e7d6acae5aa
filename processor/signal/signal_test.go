package signal

import (
	"reflect"
	"strings"
	"testing"

	"weir/schema"
)

func sample() Signal {
	return Signal{Kind: Rule, Rule: "errors", State: Firing, Group: Group("app", "pay,ments"), Start: 60e9, End: 120e9, Revision: 2, Severity: Error, Value: 12.5,
		Body: "pay,ments wrote 12.5 errors a second", Records: []string{"a-1.0-1", "a-1.0-2"},
		Subject: []schema.Attr{schema.String(schema.AttrApp, "pay,ments"), schema.String(schema.LabelPrefix+"team", "core"), schema.Int("weir.window.lines", 750)}}
}

func TestRoundTrip(t *testing.T) {
	late := sample()
	late.Late, late.Records, late.Group = true, nil, ""
	for _, want := range []Signal{sample(), late, {Kind: OOM, Rule: OOM, State: Point, End: 5}} {
		r := want.Record()
		if r.Time != want.End || r.EventName != schema.EventSignal {
			t.Errorf("record %+v", r)
		}
		var e schema.Encoder
		e.Reset("s", schema.Incarnation{}, nil)
		e.Append(&r)
		var b schema.Batch
		if err := new(schema.Decoder).Decode(e.Bytes(), &schema.Info{Source: "s", End: schema.Position{Offset: 1}, Count: 1}, &b); err != nil {
			t.Fatal(err)
		}
		got, err := FromRecord(&b.Records[0])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
		}
	}
}

func TestID(t *testing.T) {
	s := sample()
	id := s.ID()
	if len(id) != 32 {
		t.Errorf("id %q", id)
	}
	same := s
	same.Body, same.Value, same.State, same.Severity, same.Records, same.Subject = "", 1, Resolved, Info, nil, nil
	if same.ID() != id {
		t.Error("the id changes with what it does not name")
	}
	for name, change := range map[string]func(*Signal){
		"kind": func(s *Signal) { s.Kind = Window }, "rule": func(s *Signal) { s.Rule += "x" }, "group": func(s *Signal) { s.Group += "x" }, "start": func(s *Signal) { s.Start++ },
		"end": func(s *Signal) { s.End++ }, "revision": func(s *Signal) { s.Revision++ }, "late": func(s *Signal) { s.Late = true },
		"border": func(s *Signal) { s.Rule, s.Group = s.Rule+s.Group[:1], s.Group[1:] }} {
		other := s
		if change(&other); other.ID() == id {
			t.Errorf("the id does not change with the %s", name)
		}
	}
}

func TestFromRecordRefuses(t *testing.T) {
	for want, change := range map[string]func(*schema.Record){
		"is not weir.signal":  func(r *schema.Record) { r.EventName = "x" },
		"no attribute weir":   func(r *schema.Record) { r.Attrs = r.Attrs[2:] },
		"wrong type":          func(r *schema.Record) { r.Attrs = append(r.Attrs, schema.String(schema.AttrSignalRevision, "1")) },
		`"x" is not one of f`: func(r *schema.Record) { r.Attrs = append(r.Attrs, schema.String(schema.AttrSignalState, "x")) },
	} {
		s := sample()
		r := s.Record()
		change(&r)
		if _, err := FromRecord(&r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

func TestGroup(t *testing.T) {
	if got, want := Group("app", `a=b,c\`, "node", "n1"), `app=a\=b\,c\\,node=n1`; got != want {
		t.Errorf("group %s, want %s", got, want)
	}
	if a, b := Group("k", "a,k=b"), Group("k", "a", "k", "b"); a == b {
		t.Error("two groups share a name")
	}
}
