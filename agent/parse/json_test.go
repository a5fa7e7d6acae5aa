package parse

import (
	"strings"
	"testing"
)

func TestJSON(t *testing.T) {
	check(t, []lineTest{
		{`{"level":"error","msg":"x"}`, "json ERROR/17"},
		{"\xEF\xBB\xBF \t{ \"level\" : \"warn\" } \r", "json WARN/13"},
		{`{"severity":"CRITICAL"}`, "json FATAL/21"},
		{`{"lvl":"dbg","log.level":"Debug"}`, "json DEBUG/5"},
		{`{"loglevel":"notice"}`, "json INFO/9"},
		{`{"@t":"x","@l":"Verbose","@m":"y"}`, "json TRACE/1"},
		{`{"level":10}`, "json TRACE/1"}, {`{"level":20}`, "json DEBUG/5"}, {`{"level":30}`, "json INFO/9"},
		{`{"level":40}`, "json WARN/13"}, {`{"level":50}`, "json ERROR/17"}, {`{"level":60}`, "json FATAL/21"},
		{`{"level":35}`, "json INFO/9"}, {`{"level":65}`, "json"}, {`{"level":3}`, "json"}, {`{"level":-30}`, "json"},
		{`{"severity_number":18}`, "json ERROR/18"}, {`{"severity_number":24}`, "json FATAL/24"},
		{`{"severity_number":25}`, "json"}, {`{"severity_number":0,"level":"info"}`, "json INFO/9"},
		{`{"level":"high","severity":"error"}`, "json ERROR/17"},
		{`{"level":null,"a":true,"b":false,"c":-1.5e+3}`, "json"},
		{`{"msg":"\"level\":\"error\"","level":"info"}`, "json INFO/9"},
		{`{"msg":"\\","level":"info"}`, "json INFO/9"},
		{`{"msg":"\\\"","level":"info"}`, "json INFO/9"},
		{`{"\u006cevel":"\u0065rror"}`, "json ERROR/17"},
		{`{"level":"err\u00f6r","a\"b":1}`, "json"},
		{`{"a":{"level":"error"},"b":[{"level":"error"},"]"],"level":"info"}`, "json INFO/9"},
		{`{"log":{"level":"error","logger":"x"},"trace":{"id":"TRACE32"},"span":{"id":"SPAN16"}}`, "json ERROR/17 trace=TRACE32 span=SPAN16"},
		{`{"context":{"trace_id":"TRACE32","span_id":"SPAN16","trace_flags":1,"level":"error"}}`, "json trace=TRACE32 span=SPAN16 flags=1"},
		{`{"log":{"log":{"level":"error"}},"span":"x"}`, "json"},
		{`{"trace_id":"TRACE32","spanId":"SPAN16","trace_flags":"01","level":"info","rest":broken`, "json INFO/9 trace=TRACE32 span=SPAN16 flags=1"},
		{`{"traceid":"4BF92F3577B34DA6A3CE929D0E0E4736"}`, "json trace=TRACE32"},
		{`{"trace.id":"TRACE32","span.id":"SPAN16"}`, "json trace=TRACE32 span=SPAN16"},
		{`{"dd.trace_id":"1234567890","dd.span_id":"1"}`, "json"},
		{`{"dd.trace_id":"TRACE32"}`, "json trace=TRACE32"},
		{`{"trace_id":"00000000000000000000000000000000","span_id":"0000000000000000"}`, "json"},
		{`{"trace_id":"TRACE3200","span_id":"zzf067aa0ba902b7","trace_flags":256}`, "json"},
		{`{}`, "json"}, {`{ }`, "json"},
	})
}

func TestBrokenJSON(t *testing.T) {
	check(t, []lineTest{
		{`{"level":"error"`, "ERROR/17"},
		{`{"msg":"x","trace_id":"TRACE32",`, ""},
		{`{"level":"error",}`, "ERROR/17"},
		{`{"level":"error"} and text`, "ERROR/17"},
		{`{"a" "level":"error"}`, "ERROR/17"},
		{`{"a":,"b":1}`, ""}, {`{"a":}`, ""}, {`{"a":1 "b":2}`, ""}, {`{"a":1,2}`, ""},
		{`{a:1}`, ""}, {`{"a":'b'}`, ""}, {`{"a":[1,{"b":2}`, ""}, {`{"a":["x}`, ""},
		{`{"a`, ""}, {`{"a\`, ""}, {`{"a"`, ""}, {`{"a":`, ""}, {`{"a":"`, ""}, {`{"a":"\`, ""}, {`{"a":1`, ""}, {`{"a":1,`, ""},
		{`{"\u00`, ""}, {`{"\u00":1}`, "json"}, {`{"\`, ""},
	})
}

// Depth costs nothing, and neither do quotes that are all escaped.
func TestJSONDeep(t *testing.T) {
	n := 20000
	check(t, []lineTest{
		{`{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `,"level":"info"}`, "json INFO/9"},
		{`{"a":"` + strings.Repeat(`\\\"`, n/2) + `","level":"info"}`, "json INFO/9"},
	})
}
