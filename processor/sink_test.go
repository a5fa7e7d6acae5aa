package processor

import (
	"strings"
	"testing"

	"weir/ingest"
	"weir/ingest/sinktest"
	"weir/processor/window"
	"weir/schema"
)

// TestSink runs the conformance suite on the first stage: what it sent to weir.partials, repeats dropped, must count every committed record once.
func TestSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		d := newDouble(3)
		cfg := DefaultConfig()
		cfg.Windows = cfg.Windows[:1]
		return sinktest.Harness{
			New: func(t *testing.T) ingest.Sink { return d.processor(t, cfg) },
			Total: func(t *testing.T) (lines int) {
				d.records(t, schema.TopicPartials, func(_ *schema.Batch, r *schema.Record) {
					_, deltas, _, err := partial(r)
					if err != nil {
						t.Fatal(err)
					}
					for _, delta := range deltas {
						for _, p := range delta.Panes {
							lines += int(p.Counts[window.Count])
						}
					}
				})
				return lines
			},
			Break: func(broken bool) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.fail = func() bool { return broken }
			},
		}
	})
}

// TestWhatIsNoPartialIsPoison: it goes to the dead letters, and the rest goes on.
func TestWhatIsNoPartialIsPoison(t *testing.T) {
	d := newDouble(1)
	p := d.processor(t, DefaultConfig())
	sink, _, err := p.Open(t.Context(), ingest.TopicPartition{Topic: schema.TopicPartials})
	if err != nil {
		t.Fatal(err)
	}
	head := "\x01d\x00\x00\x00\x00\x00\x00\x00\x00"
	for name, r := range map[string]schema.Record{
		"no event": {Body: head}, "short": {EventName: schema.EventPartial, Body: "\x01"}, "version": {EventName: schema.EventPartial, Body: "\x02" + head[1:]}, "kind": {EventName: schema.EventPartial, Body: "\x01x" + head[2:]},
		"cut": {EventName: schema.EventPartial, Body: head, Attrs: []schema.Attr{schema.Bool(schema.AttrTruncated, true)}}, "garbage": {EventName: schema.EventPartial, Body: head + "garbage"}, "batches": {EventName: schema.EventPartial, Body: "\x01b" + head[2:] + "garbage"},
	} {
		b := schema.Batch{Source: "weir/partials/weir.logs/0/0", Records: []schema.Record{r}, KafkaOffset: d.next()}
		if err := sink.Write(t.Context(), &b); err == nil || !strings.Contains(err.Error(), "is no partial of the processor") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := sink.Write(t.Context(), &schema.Batch{Source: "weir/partials/weir.logs/0/0", Records: []schema.Record{{EventName: schema.EventPartial, Body: head}}, KafkaOffset: d.next()}); err != nil {
		t.Error(err)
	}
}
