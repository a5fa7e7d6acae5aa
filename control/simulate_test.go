package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weir/schema"
)

func TestSimulate(t *testing.T) {
	die := func(name string, after time.Duration) *schema.Batch {
		return &schema.Batch{Source: "docker-events/n1", Resource: []schema.Attr{schema.String(schema.AttrHostName, "n1"), schema.String(schema.AttrContainerID, "id-"+name), schema.String(schema.AttrContainerName, name), schema.String(schema.AttrApp, "shop")},
			Records: []schema.Record{{Offset: int64(after), Time: noon.Add(after).UnixNano(), EventName: "docker.container.die", Attrs: []schema.Attr{schema.Int(schema.AttrExitCode, 1)}}, {Offset: int64(after) + 1, EventName: "weir.loss"}}}
	}
	var said []string
	s := Simulate(parse(t, restartOnDeath), func(d *Decision) {
		said = append(said, fmt.Sprintf("%v %s %s%s", time.Unix(0, d.At).Sub(noon), d.Verdict, d.Subject.Name, strings.TrimSuffix(" "+d.Reason, " ")))
	})
	var all []Input
	for _, b := range []*schema.Batch{die("a", 20*time.Second), die("a", 0), die("b", 2*time.Minute), die("c", time.Hour), die("c", -1)} {
		all = append(all, Inputs(b, noon, noon.Add(time.Hour))...)
	}
	SortInputs(all)
	for i := range all {
		if err := s.Take(&all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Until(noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(said, "; "), "0s act a; 20s refused a backoff; 30s act a; 2m0s act b"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
