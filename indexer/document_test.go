package indexer

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir/schema"
)

// encode makes the documents of a batch.
func encode(b *schema.Batch) []string {
	s := share{json: true, stream: streamOf(datasets[b.Topic], "default")}
	s.begin(b)
	var all []string
	for i := range b.Records {
		all = append(all, string(s.document(nil, &b.Records[i])))
	}
	return all
}

var container = []schema.Attr{schema.String(schema.AttrSource, "docker/n1/c0ffee"), schema.String(schema.AttrIncarnation, "1764054000000000000-00c0ffee"), schema.String(schema.AttrContainerID, "c0ffee"), schema.String(schema.AttrContainerName, "web"),
	schema.String(schema.AttrImageName, "shop/web:1"), schema.String(schema.AttrHostName, "n1"), schema.String(schema.AttrApp, "shop"), schema.String(schema.AttrTenant, "retail"), schema.String(schema.AttrSite, "east"), schema.String(schema.AttrCell, "e1"),
	schema.String(schema.AttrFilePath, "/l/c.log"), schema.String(schema.AttrRedaction, "card,token"), schema.String(schema.LabelPrefix+"app", "x"), schema.String(schema.LabelPrefix+"app.kubernetes.io/name", "y")}

// kinds are a batch of each kind of record.
var kinds = []struct {
	name  string
	batch schema.Batch
}{
	{"log", schema.Batch{Topic: schema.TopicLogs, Source: "docker/n1/c0ffee", Resource: container, Records: []schema.Record{
		{Offset: 1, Time: 1764054000123456789, Observed: 1764054000200000000, Body: "plain", Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}},
		{Offset: 2, Time: 1764054000000000001, Body: "quote \" back \\ tab \t nul \x00 bad \xff\xfe é 😀 \u2028", Severity: 17, SeverityText: "ERROR", TraceID: [16]byte{1, 2, 15: 3}, SpanID: [8]byte{4, 7: 5}},
		{Offset: 3, Time: -5, Observed: 1764054000000000000, Body: `{"app":"x","n":{"a":[1,true,null]}}`, Attrs: []schema.Attr{schema.Bool(schema.AttrTruncated, true), schema.Int(schema.AttrRedacted, 2)}},
		{Offset: 4, Body: "10.0.0.1 - GET /pay", Attrs: []schema.Attr{schema.String("http.request.method", "GET"), schema.Int("http.response.status_code", 200), schema.String("url.path", "/pay"), schema.String("client.address", "10.0.0.1")}},
		{Offset: 5, Body: "odd", Attrs: []schema.Attr{schema.String("http.response.status_code", "teapot"), schema.Double("ratio", 0.5), schema.Double("nan", math.NaN()), schema.String("", "no name"), schema.String("twice", "1"), schema.Int("twice", 2), {Key: "raw", Kind: schema.KindBytes, Str: "\x00\xff"}}},
	}}},
	{"pod", schema.Batch{Topic: schema.TopicLogs, Source: "cri/n1/pay_web-1_u/web/0", Resource: []schema.Attr{schema.String(schema.AttrK8sNamespace, "pay"), schema.String(schema.AttrK8sPod, "web-1"), schema.String(schema.AttrK8sPodUID, "u"), schema.String(schema.AttrK8sContainer, "web"), schema.String(schema.AttrK8sRestarts, "0"), schema.String(schema.AttrContainerName, "web")},
		Records: []schema.Record{{Offset: 9, Time: 1764054000000000000, Body: "line", Attrs: []schema.Attr{schema.String(schema.AttrK8sRestarts, "7")}}}}},
	{"event", schema.Batch{Topic: schema.TopicEvents, Source: "docker-events/n1", Resource: append(slices.Clone(container[2:5]), schema.String(schema.AttrHostName, "n1")), Records: []schema.Record{
		{Offset: 1764054000000000000, Time: 1764054000000000000, Observed: 1764054000000000001, EventName: "docker.container.die", Body: "container web died, exit code 137", Severity: 17, SeverityText: "ERROR", Attrs: []schema.Attr{schema.Int(schema.AttrExitCode, 137), schema.Bool(schema.AttrOOM, true)}}}}},
	{"signal", schema.Batch{Topic: schema.TopicSignals, Source: "weir/processor/0", Records: []schema.Record{
		{Offset: 1000, Time: 1764054000000000000, EventName: schema.EventSignal, Body: "web: 10 lines, 200 bytes in 1m0s", Attrs: []schema.Attr{schema.String(schema.AttrSignalKind, "window"), schema.String(schema.AttrSignalGroup, "container_id=c0ffee"), schema.Int(schema.AttrSignalRevision, 1), schema.Double(schema.AttrSignalValue, 10), schema.String(schema.AttrContainerID, "c0ffee"), schema.String(schema.AttrContainerName, "web"), schema.String(schema.AttrApp, "shop"), schema.Int("weir.window.seconds", 60), schema.Int("weir.window.lines", 10), schema.Int("weir.window.bytes", 200)}}}}},
	{"loss", schema.Batch{Topic: schema.TopicLogs, Source: "docker/n1/c0ffee", Resource: container, Records: []schema.Record{
		{Offset: 100, Observed: 1764054000000000000, EventName: schema.EventLoss, Body: "the file was removed unread", Severity: 17, SeverityText: "ERROR", Attrs: []schema.Attr{schema.String(schema.AttrLossReason, "removed_unread"), schema.String(schema.AttrLossFrom, "1-00000001:100"), schema.String(schema.AttrLossTo, "unknown")}}}}},
	{"gap", schema.Batch{Topic: schema.TopicEvents, Source: "weir/ingest/indexer/weir.logs/0", Records: []schema.Record{
		{Offset: 7, Observed: 1764054000000000000, EventName: schema.EventGapOpened, Body: "records are missing or late", Severity: 13, SeverityText: "WARN", Attrs: []schema.Attr{schema.String("weir.gap.source", "docker/n1/c0ffee"), schema.String("weir.gap.from", "1-00000001:100"), schema.String("weir.gap.to", "1-00000001:200")}}}}},
	{"closed", schema.Batch{Topic: schema.TopicLogs, Source: "docker/n1/c0ffee", Resource: container, Records: []schema.Record{
		{Offset: 300, Observed: 1764054000000000000, EventName: schema.EventSourceClosed, Body: "source complete: 3 lines, 300 bytes", Attrs: []schema.Attr{schema.Int(schema.AttrLines, 3), schema.Int(schema.AttrBytes, 300), schema.String(schema.AttrFinal, "1-00000001:300")}}}}},
	{"action", schema.Batch{Topic: schema.TopicActions, Source: "weir/control/n1", Records: []schema.Record{
		{Offset: 1, Time: 1764054000000000000, EventName: "weir.action.restart", Body: "would restart web", Severity: 9, SeverityText: "INFO", Attrs: []schema.Attr{schema.String(schema.AttrContainerID, "c0ffee"), schema.String(schema.AttrApp, "shop"), schema.String("weir.action.cause", "oom")}}}}},
	{"deadletter", schema.Batch{Topic: schema.TopicDeadLetter, Source: "weir/indexer/weir.logs/0", Records: []schema.Record{
		{Offset: 1, Observed: 1764054000000000000, EventName: schema.EventDeadLetter, Body: `{"message":"x"}`, Severity: 17, SeverityText: "ERROR", Attrs: []schema.Attr{schema.String(attrLetterReason, "document_parsing_exception: bad"), schema.String(attrLetterID, "a-1.2-3"), schema.String(attrLetterIndex, "logs-weir.container-default"), schema.String(attrLetterSource, "docker/n1/c0ffee"), schema.String(attrLetterTopic, schema.TopicLogs), schema.Int(attrLetterPartition, 0), schema.Int(attrLetterOffset, 42), schema.Int(attrLetterBytes, 15)}}}}},
}

// TestGoldenDocuments compares the documents of each kind of record with testdata/<kind>.ndjson; WEIR_REWRITE=1 writes them anew.
func TestGoldenDocuments(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			got := encode(&k.batch)
			golden := "testdata/" + k.name + ".ndjson"
			if os.Getenv("WEIR_REWRITE") != "" {
				if err := os.WriteFile(golden, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
			if len(got) != len(want) {
				t.Fatalf("%d documents, want %d", len(got), len(want))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("document %d:\n%s\nwant\n%s", i, got[i], want[i])
				}
			}
		})
	}
}

// TestDocumentsFollowFields reads the documents of all kinds back: each value stands in a field of Fields and has its type, and every
// field is filled by some kind.
func TestDocumentsFollowFields(t *testing.T) {
	types := map[string]Type{}
	missing := map[string]bool{}
	for _, f := range Fields {
		if _, twice := types[f.Name]; twice || f.Doc == "" {
			t.Errorf("field %s is there twice, or has no text", f.Name)
		}
		types[f.Name], missing[f.Name] = f.Type, true
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		typ, known := types[path]
		m, isObject := v.(map[string]any)
		if isObject && (!known || typ != Flattened) {
			for k, e := range m {
				walk(strings.TrimPrefix(path+"."+k, "."), e)
			}
			return
		}
		if !known {
			t.Errorf("%s is not in Fields", path)
			return
		}
		delete(missing, path)
		_, isText := v.(string)
		_, isNumber := v.(json.Number)
		_, isBool := v.(bool)
		good := map[Type]bool{Keyword: isText, Constant: isText, Wildcard: isText, Text: isText, Long: isNumber, Boolean: isBool, Flattened: isObject}[typ]
		if typ == Time {
			_, err := time.Parse(time.RFC3339Nano, fmt.Sprint(v))
			good = err == nil
		}
		if !good {
			t.Errorf("%s is %v, which is not of type %d", path, v, typ)
		}
	}
	all := slices.Clone(kinds)
	rest := schema.Batch{Topic: schema.TopicLogs, Records: []schema.Record{{}}}
	for _, f := range Fields { // what no kind has yet is filled by its attribute
		if f.Attr != "" {
			a := schema.String(f.Attr, "x")
			switch f.Type {
			case Long:
				a = schema.Int(f.Attr, 5)
			case Boolean:
				a = schema.Bool(f.Attr, true)
			}
			rest.Records[0].Attrs = append(rest.Records[0].Attrs, a)
		}
	}
	all = append(all, kinds[0])
	all[len(all)-1].batch = rest
	for _, k := range all {
		for _, doc := range encode(&k.batch) {
			d := json.NewDecoder(strings.NewReader(doc))
			d.UseNumber()
			var m map[string]any
			if err := d.Decode(&m); err != nil {
				t.Fatalf("%s: %v: %s", k.name, err, doc)
			}
			walk("", m)
		}
	}
	for name := range missing {
		t.Errorf("no document has %s", name)
	}
}

// TestManyLabels is about labels and attributes without end: none is twice, and none makes a field.
func TestManyLabels(t *testing.T) {
	b := schema.Batch{Topic: schema.TopicLogs, Source: "s"}
	for i := range 10_000 {
		b.Resource = append(b.Resource, schema.String(fmt.Sprint(schema.LabelPrefix, "key", i), "v"), schema.String(schema.LabelPrefix+"again", "v"))
	}
	long := strings.Repeat("k", 2*maxKey)
	b.Resource = append(b.Resource, schema.String(schema.LabelPrefix+long+"1", "v"), schema.String(schema.LabelPrefix+long+"2", "v"), schema.String(schema.LabelPrefix+"nul\x00", "v"))
	r := schema.Record{Body: "x"}
	for i := range 300 {
		r.Attrs = append(r.Attrs, schema.Int(fmt.Sprint("a", i%200), 1))
	}
	b.Records = []schema.Record{r}
	doc := encode(&b)[0]
	var m struct {
		Container struct{ Labels map[string]string }
		Weir      struct{ Attributes map[string]int }
	}
	if err := json.Unmarshal([]byte(doc), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Container.Labels) != 10_003 || len(m.Weir.Attributes) != 200 || strings.Count(doc, `"again"`) != 1 || strings.Count(doc, `"a7"`) != 1 || m.Container.Labels["nul\ufffd"] != "v" {
		t.Errorf("%d labels, %d attributes", len(m.Container.Labels), len(m.Weir.Attributes))
	}
}

func TestClock(t *testing.T) {
	var c clock
	for _, ns := range []int64{0, 1, 59_999_999_999, 60_000_000_000, 1764054000123456789, 1764054000123456790, 951782400e9, math.MaxInt64, 1} {
		want := strconv.Quote(time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000000000Z"))
		if got := string(c.append(nil, ns)); got != want {
			t.Errorf("%d: %s, want %s", ns, got, want)
		}
	}
}

func TestObjects(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for body, taken := range map[string]bool{
		`{}`: true, `{"a":1}`: true, ` {"a":1}`: false, "{\"a\" : [ 1 , -0.5e+3 ] , \"b\":{\"a\":\"\\u00e9\\n\"}}\n": true, `{"a":{"x":1},"b":{"x":1}}`: true,
		`{"a":1,"a":2}`: false, `{"":1}`: false, `{"\u0061":1}`: false, `{"a":"\ud83d\ude00"}`: false, `{"a":"😀"}`: true, `{"a":01}`: false, `{"a":1.}`: false, `{"a":+1}`: false,
		`{"a":"` + "\t" + `"}`: false, `{"a":1} x`: false, `{"a":1}{}`: false, `[1]`: false, `"x"`: false, `{"a"}`: false, `{"a":}`: false, `{"a":tru}`: false, `{"a":1,}`: false, `{`: false,
		"{\"a\":\"\xff\"}": false, deep(maxObjectDepth): true, deep(maxObjectDepth + 2): false, `{"n":` + strings.Repeat("1", maxNumber+1) + `}`: false,
		`{"a":"` + strings.Repeat("x", maxObject) + `"}`: false, `{"` + strings.Repeat("k", maxObjectKey+1) + `":1}`: false, `{"a":[]}`: true, `{"a":[[],{}]}`: true,
	} {
		if got := appendObject(nil, body); (len(got) > 0) != taken || taken && string(got) != strings.TrimRight(body, " \n") {
			t.Errorf("%.80q: %.80q, taken should be %v", body, got, taken)
		}
	}
}

func FuzzAppendObject(f *testing.F) {
	f.Add(`{"a":[1,true,null,"x\u00e9"],"b":{"a":-0.5e3}}`)
	f.Add(`{"a":1,"a":2}`)
	f.Fuzz(func(t *testing.T, body string) {
		got := appendObject(nil, body)
		if len(got) == 0 {
			return
		}
		var a, b any
		if err := json.Unmarshal(got, &a); err != nil {
			t.Fatalf("%q became %q: %v", body, got, err)
		}
		if err := json.Unmarshal([]byte(body), &b); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%q became %q (%v)", body, got, err)
		}
	})
}

// FuzzDocument wants of any record what encoding/json reads: the body and the attributes as they were.
func FuzzDocument(f *testing.F) {
	f.Add("plain", "key", "value", int64(1764054000123456789), int64(5))
	f.Add(`{"a":1}`, "http.response.status_code", "\x00\xff", int64(-1), int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, body, key, value string, at, n int64) {
		b := schema.Batch{Topic: schema.TopicLogs, Source: value, Resource: []schema.Attr{schema.String(schema.LabelPrefix+key, value), schema.String(key, value)},
			Records: []schema.Record{{Body: body, Time: at, Offset: n, SeverityText: key, Attrs: []schema.Attr{schema.String("own."+key, value), schema.Int("own."+key, n), schema.Int(key, n)}}}}
		doc := encode(&b)[0]
		var m struct {
			Time    time.Time `json:"@timestamp"`
			Message string
			Log     struct{ Offset int64 }
			Weir    struct {
				Source     string
				Attributes map[string]any
			}
			Container struct{ Labels map[string]string }
		}
		if err := json.Unmarshal([]byte(doc), &m); err != nil {
			t.Fatalf("%v: %s", err, doc)
		}
		clean := func(s string) string { // as encoding/json reads it back: each bad byte is one U+FFFD
			text, _ := json.Marshal(s)
			_ = json.Unmarshal(text, &s)
			return s
		}
		if m.Message != clean(body) || m.Log.Offset != n || m.Weir.Source != clean(value) {
			t.Fatalf("%+v: %s", m, doc)
		}
		if label := m.Container.Labels[cleanKey(key)]; key != "" && label != clean(value) {
			t.Fatalf("label %q: %s", label, doc)
		}
		if got := m.Weir.Attributes[cleanKey("own."+key)]; got != clean(value) && fields.byAttr["own."+key] == 0 {
			t.Fatalf("attribute %v: %s", got, doc)
		}
		if at > 0 && m.Time.UnixNano() != at {
			t.Fatalf("time %s: %s", m.Time, doc)
		}
	})
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\x1f\x7f\"\\/\n\r\t\u2028<&>\xff\xc3\xa9\xed\xa0\x80😀")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(appendJSON(nil, s), &got); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var want string
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("%q became %q, want %q", s, got, want)
		}
	})
}

func BenchmarkDocument(b *testing.B) {
	r := &schema.Record{Offset: 5, Time: 1764054000123456789, Observed: 1764054000200000000, Severity: 9, SeverityText: "INFO", Body: strings.Repeat("a log line of two hundred bytes ", 6), Attrs: []schema.Attr{schema.String(schema.AttrStream, "stdout")}}
	batch := schema.Batch{Topic: schema.TopicLogs, Source: "docker/n1/c0ffee", Resource: container}
	s := share{json: true, stream: streamOf(datasets[schema.TopicLogs], "default")}
	s.begin(&batch)
	buf := slices.Grow([]byte(nil), 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = s.document(buf[:0], r)
	}
	b.SetBytes(int64(len(buf)))
}
