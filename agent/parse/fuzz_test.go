package parse

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// member is a key of an object with its value, in the object's order.
type member struct {
	key   string
	value json.RawMessage
}

// members gives the members of an object that encoding/json accepts, and a map of them; ok is false when it accepts
// none or when keys are not unique.
func members(body []byte) (list []member, ok bool) {
	all := map[string]json.RawMessage{}
	if json.Unmarshal(body, &all) != nil || all == nil {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, false
		}
		m := member{key: t.(string)}
		if err := dec.Decode(&m.value); err != nil {
			return nil, false
		}
		list = append(list, m)
	}
	if _, err := dec.Token(); err != nil && err != io.EOF {
		return nil, false
	}
	return list, len(list) == len(all)
}

var levelNames = map[string]int32{
	"trace": 1, "verbose": 1, "debug": 5, "info": 9, "information": 9, "notice": 9, "warn": 13, "warning": 13,
	"error": 17, "err": 17, "severe": 17, "critical": 21, "crit": 21, "fatal": 21, "panic": 21, "dpanic": 21,
	"alert": 21, "emerg": 21, "emergency": 21,
}

const (
	levelKeys = " level severity lvl log.level loglevel @l "
	traceKeys = " trace_id traceId traceid trace.id dd.trace_id "
	objects   = " log trace span context "
)

func in(keys, key string) bool {
	return !strings.Contains(key, " ") && key != "" && strings.Contains(keys, " "+key+" ")
}

// asciiLower leaves other letters alone: strings.ToLower makes a k of the Kelvin sign.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 0x20
		}
		return r
	}, s)
}

var twoDigits = regexp.MustCompile(`^[0-9]{1,2}$`)

// wantLevel is the level that the first member with a valid one gives.
func wantLevel(list []member, parent string) int32 {
	for _, m := range list {
		if parent == "" && m.key == "log" {
			if inner := innerMembers(m.value); inner != nil {
				if n := wantLevel(inner, m.key); n != 0 {
					return n
				}
			}
		}
		var s string
		var n int32
		switch isString := json.Unmarshal(m.value, &s) == nil && m.value[0] == '"'; {
		case in(levelKeys, m.key) && isString:
			n = levelNames[asciiLower(s)]
		case in(levelKeys, m.key) && twoDigits.Match(m.value):
			if json.Unmarshal(m.value, &n); n < 10 || n > 60 {
				n = 0
			} else {
				n = (n/10-1)*4 + 1
			}
		case m.key == "severity_number" && twoDigits.Match(m.value):
			if json.Unmarshal(m.value, &n); n > 24 {
				n = 0
			}
		}
		if n != 0 {
			return n
		}
	}
	return 0
}

// innerMembers is members without the demand that keys are unique, which only those at the top must be.
func innerMembers(body []byte) []member {
	if body[0] != '{' {
		return nil
	}
	list, _ := members(body)
	return list
}

func wantTrace(list []member, parent string) (id [16]byte) {
	for _, m := range list {
		if parent == "" && in(objects, m.key) {
			if id = wantTrace(innerMembers(m.value), m.key); id != [16]byte{} {
				return id
			}
		}
		var s string
		key := in(traceKeys, m.key) || parent == "trace" && m.key == "id" || parent == "" && m.key == "tracerId"
		if !key || m.value[0] != '"' || json.Unmarshal(m.value, &s) != nil || len(s) != 32 {
			continue
		}
		if b, err := hex.DecodeString(s); err == nil && !bytes.Equal(b, make([]byte, 16)) {
			return [16]byte(b)
		}
	}
	return id
}

var parent = regexp.MustCompile(`(?i:traceparent)["': =\\>\[({\t]{1,8}00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}`)

// wantParent is the trace id of the first valid traceparent that ends where its digits do.
func wantParent(body []byte) (id [16]byte) {
	for _, m := range parent.FindAllSubmatchIndex(body, -1) {
		if m[1] < len(body) && parentBytes[body[m[1]]] {
			continue
		}
		span, _ := hex.DecodeString(string(body[m[4]:m[5]]))
		trace, _ := hex.DecodeString(string(body[m[2]:m[3]]))
		if [16]byte(trace) != id && [8]byte(span) != [8]byte{} {
			return [16]byte(trace)
		}
	}
	return id
}

func FuzzLine(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s.line))
	}
	for _, s := range []string{
		`{"log":{"level":"error"},"trace":{"id":"` + trace32 + `"},"x":[{"a":"\\\""}]}`,
		`{"\u006cevel":"\u0065rror","trace\u005fid":"` + trace32 + `"}`,
		`{"severity_number":18,"context":{"traceId":"` + trace32 + `"}}`,
		`{"level":35,"lvl":"warn","headers":{"traceparent":"00-` + trace32 + `-` + span16 + `-01"}}`,
		"\xEF\xBB\xBF{\"level\":\"\xff\"}", "\x1b[31mERROR\x1b[0m x",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(compare)
}

// compare recognises a body, and when encoding/json accepts it as an object, demands what the same rules for keys find
// in the members that encoding/json gives.
func compare(t *testing.T, body []byte) {
	before := bytes.Clone(body)
	var got Fields
	Line(body, &got)
	if !bytes.Equal(before, body) {
		t.Fatalf("the body changed from %q", before)
	}
	if (got.Severity == 0) != (got.SeverityText == "") {
		t.Fatalf("severity %d is called %q", got.Severity, got.SeverityText)
	}
	list, ok := members(body)
	if !ok || len(body) > limit {
		return
	}
	if got.Format != JSON && got.Format != SOFATracer {
		t.Fatalf("%s\nformat %q of an object", body, got.Format)
	}
	if want := wantLevel(list, ""); want != got.Severity && (want != 0 || got.Format == JSON) {
		t.Fatalf("%s\nseverity %d, want %d", body, got.Severity, want)
	}
	want := wantTrace(list, "")
	if want == [16]byte{} {
		want = wantParent(body)
	}
	if want != got.TraceID {
		t.Fatalf("%s\ntrace %x, want %x", body, got.TraceID, want)
	}
}

// Objects that are put together of the keys and values that matter reach more of the rules than changed bytes do.
func TestObjects(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	keys := strings.Fields(levelKeys + traceKeys + objects +
		`severity_number span_id spanId span.id trace_flags local.app tracerId resultCode id msg Level a\"b \u006cevel trace\u005fid`)
	values := append(strings.Fields(`"info" "WARN" "err\u006fr" "high" "" "0.1" "01" 1 10 30 35 60 61 9 24 25 0 -30 3e1 null true [] {} `+
		`[1,{"level":"error"}] "\\" "x\"" "traceparent=00-`+trace32+`-`+span16+`-01"`),
		`"`+trace32+`"`, `"`+strings.ToUpper(trace32)+`"`, `"`+span16+`"`, `"00000000000000000000000000000000"`,
		`"a0000000000000000000000000000001"`, `"0a0fe8b3154034912878910015081"`, `"it said \"level\": \"error\", twice"`)
	blanks := []string{"", "", "", " ", "\t ", "\r\n"}
	blank := func() string { return blanks[r.IntN(len(blanks))] }
	var object func(depth int) string
	object = func(depth int) string {
		var b strings.Builder
		used := map[string]bool{}
		for range r.IntN(9) {
			k := keys[r.IntN(len(keys))]
			if used[k] {
				continue
			}
			if len(used) > 0 {
				b.WriteString(blank() + ",")
			}
			used[k] = true
			v := values[r.IntN(len(values))]
			if depth < 2 && r.IntN(4) == 0 {
				v = object(depth + 1)
			}
			b.WriteString(blank() + `"` + k + `"` + blank() + ":" + blank() + v)
		}
		return "{" + b.String() + blank() + "}"
	}
	accepted := 0
	for range 10000 {
		body := []byte(blank() + object(0) + blank())
		if _, ok := members(body); ok {
			accepted++
		}
		compare(t, body)
	}
	if accepted < 4000 {
		t.Errorf("encoding/json accepts only %d of 10000 objects", accepted)
	}
}
