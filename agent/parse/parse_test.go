package parse

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"weir/schema"
)

// show writes fields in one line: format, level, ids and attributes, each only when there is one.
func show(f *Fields) string {
	var s []string
	add := func(k, v string) { s = append(s, k+v) }
	if f.Format != "" {
		add("", f.Format)
	}
	if f.Severity != 0 {
		add("", fmt.Sprintf("%s/%d", f.SeverityText, f.Severity))
	}
	if f.TraceID != [16]byte{} {
		add("trace=", hex.EncodeToString(f.TraceID[:]))
	}
	if f.SpanID != [8]byte{} {
		add("span=", hex.EncodeToString(f.SpanID[:]))
	}
	if f.Flags != 0 {
		add("flags=", fmt.Sprint(f.Flags))
	}
	for _, a := range f.Attrs {
		if a.Kind == schema.KindInt {
			add(a.Key, fmt.Sprintf("=%d", a.Num))
		} else {
			add(a.Key, "="+a.Str)
		}
	}
	return strings.Join(s, " ")
}

// parsed recognises a line and fails when that changes it.
func parsed(t *testing.T, line string) string {
	t.Helper()
	body := []byte(line)
	f := Fields{Format: "left", Severity: 3, Flags: 7, Attrs: []schema.Attr{schema.String("left", "over")}}
	Line(body, &f)
	if string(body) != line {
		t.Fatalf("the body changed: %q", body)
	}
	return show(&f)
}

type lineTest struct{ line, want string }

func check(t *testing.T, tests []lineTest) {
	t.Helper()
	for _, tt := range tests {
		tt.want = strings.NewReplacer("TRACE32", trace32, "SPAN16", span16).Replace(tt.want)
		tt.line = strings.NewReplacer("TRACE32", trace32, "SPAN16", span16).Replace(tt.line)
		if got := parsed(t, tt.line); got != tt.want {
			t.Errorf("%.300s\n got %s\nwant %s", tt.line, got, tt.want)
		}
	}
}

func TestSamples(t *testing.T) {
	want := map[string]string{
		"plain": "INFO/9", "prose": "",
		"json":     "json INFO/9 trace=" + trace32 + " span=" + span16,
		"jsonlast": "json WARN/13",
		"logfmt":   "logfmt INFO/9 trace=" + trace32 + " span=" + span16,
		"klog":     "klog INFO/9 code.file.path=reconciler.go code.line.number=77",
		"nginx": "access INFO/9 http.request.method=POST http.response.status_code=201 url.path=/api/v1/transfers " +
			"client.address=10.1.2.3",
		"envoy": "access ERROR/17 http.request.method=GET http.response.status_code=503 url.path=/api/v1/accounts " +
			"client.address=10.0.35.28",
		"mosn":     "access INFO/9 http.response.status_code=200 client.address=10.1.2.3",
		"sofajson": "sofatracer INFO/9 sofa.trace_id=0a0fe8b3154034912878910015081 sofa.span_id=0.1 sofa.result_code=00",
		"sofacomma": "sofatracer INFO/9 sofa.trace_id=0a0fe8b3154034912878910015081 sofa.span_id=0.1 " +
			"sofa.result_code=00",
		"oceanbase": "oceanbase WARN/13 oceanbase.module=SQL.EXE oceanbase.trace_id=YB42AC1E87E6-0005F1-0-0 " +
			"thread.id=119171",
		"traceparent": "trace=" + trace32 + " span=" + span16 + " flags=1",
	}
	for _, s := range samples {
		if got := parsed(t, s.line); got != want[s.name] {
			t.Errorf("%s: got %s\nwant %s", s.name, got, want[s.name])
		}
	}
}

// No sample allocates once the attributes have room.
func TestNoAllocation(t *testing.T) {
	f := Fields{Attrs: make([]schema.Attr, 0, 8)}
	for _, s := range samples {
		body := []byte(s.line)
		if n := testing.AllocsPerRun(100, func() { Line(body, &f) }); n != 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
	}
}

// Every line that is cut anywhere is handled, and its level is that of the whole or one that the shorter text shows.
func TestTruncated(t *testing.T) {
	for _, s := range samples {
		for n := range len(s.line) {
			if s.name == "json" || s.name == "jsonlast" || s.name == "sofajson" {
				if got := parsed(t, s.line[:n]); strings.Contains(got, "json") || strings.Contains(got, "sofa") {
					t.Errorf("cut JSON %q is recognised: %s", s.line[:n], got)
				}
				continue
			}
			parsed(t, s.line[:n])
		}
	}
}

// Bytes past the limit are not looked at, but do not make a JSON object broken.
func TestLimit(t *testing.T) {
	far := strings.Repeat("x", limit)
	check(t, []lineTest{
		{`{"level":"error","msg":"` + far + `","trace_id":"TRACE32"}`, "json ERROR/17"},
		{`{"level":"error",msg:"` + far + `"}`, "ERROR/17"},
		{`{"level":"error","a":[` + strings.Repeat("[", limit), "json ERROR/17"},
		{`{broken ` + far, ""},
		{far + ` traceparent=00-TRACE32-SPAN16-01`, ""},
		{`level=warn msg="` + far + `" trace_id=TRACE32`, "logfmt WARN/13"},
	})
}

func TestReset(t *testing.T) {
	f := Fields{Format: JSON, Severity: 9, Attrs: make([]schema.Attr, 3, 8)}
	f.Reset()
	if show(&f) != "" || cap(f.Attrs) != 8 {
		t.Errorf("reset left %s, capacity %d", show(&f), cap(f.Attrs))
	}
	Line(nil, &f)
	Line([]byte("\xEF\xBB\xBF  "), &f)
	if show(&f) != "" {
		t.Errorf("an empty line shows %s", show(&f))
	}
}

// The strings of attributes are the body's own bytes.
func TestAttrsPointIntoBody(t *testing.T) {
	body := []byte(samples[5].line)
	var f Fields
	Line(body, &f)
	copy(body[bytes.Index(body, []byte("reconciler")):], "RECONCILER")
	if f.Attrs[0].Str != "RECONCILER.go" {
		t.Errorf("the attribute is a copy: %q", f.Attrs[0].Str)
	}
}
