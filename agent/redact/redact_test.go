package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func allKinds() Config {
	return Config{Cards: true, ResidentIDs: true, Phones: true, Tokens: true, URLPasswords: true}
}

func newRedactor(t testing.TB, cfg Config) *Redactor {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func redacted(r *Redactor, body string) string {
	out, _ := r.Redact(nil, []byte(body), nil)
	return string(out)
}

// expect checks every body alone and in surroundings that must not matter, and
// that redacting the result changes nothing more.
func expect(t *testing.T, r *Redactor, cases map[string]string) {
	t.Helper()
	for body, want := range cases {
		got := redacted(r, body)
		if got != want {
			t.Errorf("%q:\n got %q\nwant %q", body, got, want)
		}
		if again := redacted(r, got); again != got {
			t.Errorf("%q: redacted twice is %q", body, again)
		}
		if framed := redacted(r, "支付 "+body+" 完成"); framed != "支付 "+want+" 完成" {
			t.Errorf("%q within a line: %q", body, framed)
		}
	}
}

func expectUnchanged(t *testing.T, r *Redactor, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		in := []byte(body)
		out, changed := r.Redact(nil, in, nil)
		if changed || string(out) != body {
			t.Errorf("%q became %q", body, out)
		}
		if len(in) > 0 && &out[0] != &in[0] {
			t.Errorf("%q: not the same slice", body)
		}
	}
}

func TestAdjacentAndOverlappingSecrets(t *testing.T) {
	expect(t, newRedactor(t, allKinds()), map[string]string{
		"4111111111111111 5500000000000004":       "[redacted:card:1111] [redacted:card:0004]",
		"4111111111111111,5500000000000004":       "[redacted:card:1111],[redacted:card:0004]",
		"4111 1111 1111 1111 5500 0000 0000 0004": "[redacted:card:1111] [redacted:card:0004]",
		"4111111111111111 123":                    "[redacted:card:1111] 123",
		"password=4111111111111111":               "password=[redacted:token]",
		"token=eyJhbGciOiJub25lIn0.eyJhIjoxfQ.x":  "token=[redacted:token]",
		"http://u:4111111111111111@h/":            "http://u:[redacted:url_password]@h/",
		"http://u:pwd=a@h/":                       "http://u:[redacted:url_password]",
		"13812345678 11010519491231002X":          "[redacted:phone] [redacted:resident_id]",
		"password=a&token=b&secret=c":             "password=[redacted:token]&token=[redacted:token]&secret=[redacted:token]",
		"password=a://b,u:p@h":                    "password=[redacted:token],u:[redacted:url_password]@h",
	})
}

func TestManySecretsAreCounted(t *testing.T) {
	r := newRedactor(t, allKinds())
	line := "4111111111111111 13812345678 11010519491231002X password=x redis://:p@h "
	counts := make([]int, len(r.Kinds()))
	out, changed := r.Redact(make([]byte, 3, 10), []byte(strings.Repeat(line, 100)), counts)
	if !changed || fmt.Sprint(counts) != "[100 100 100 100 100]" {
		t.Errorf("changed %v, counts %v", changed, counts)
	}
	want := "[redacted:card:1111] [redacted:phone] [redacted:resident_id] password=[redacted:token] redis://:[redacted:url_password]@h "
	if string(out) != strings.Repeat(want, 100) {
		t.Errorf("got %.300q", out)
	}
	r.Redact(nil, []byte(line), counts)
	if counts[kindCard] != 101 {
		t.Errorf("counts are not added to: %v", counts)
	}
}

func TestJSONStaysValid(t *testing.T) {
	r := newRedactor(t, allKinds())
	for body, want := range map[string]string{
		`{"pan":4111111111111111,"n":1}`:                          `{"pan":"[redacted:card:1111]","n":1}`,
		`{"pan":-4111111111111111}`:                               `{"pan":"[redacted:card:1111]"}`,
		`[4111111111111111, 13812345678]`:                         `["[redacted:card:1111]", "[redacted:phone]"]`,
		`{"n":1e+12345678}`:                                       `{"n":"[redacted:phone]"}`,
		`{"m":"pan:4111111111111111,"}`:                           `{"m":"pan:[redacted:card:1111],"}`,
		`{"m":"\n4111111111111111\n"}`:                            `{"m":"\n[redacted:card:1111]\n"}`,
		`{"m":"\u003cpan\u003e4111111111111111\u003c/pan\u003e"}`: `{"m":"\u003cpan\u003e[redacted:card:1111]\u003c/pan\u003e"}`,
		`{"m":"\u53774111111111111111"}`:                          `{"m":"\u5377[redacted:card:1111]"}`,
		`{"m":"password=","y":"z"}`:                               `{"m":"password=","y":"z"}`,
		`{"m":"password=abc\"d"}`:                                 `{"m":"password=[redacted:token]\"d"}`,
		`{"m":"password=abc\\"}`:                                  `{"m":"password=[redacted:token]"}`,
		`{"m":"password=abc\nnext"}`:                              `{"m":"password=[redacted:token]\nnext"}`,
		`{"m":"password='abc","y":1}`:                             `{"m":"password='[redacted:token]","y":1}`,
		`{"m":"password='","y":1}`:                                `{"m":"password='","y":1}`,
		`{"m":"x password\":","y":"z"}`:                           `{"m":"x password\":","y":"z"}`,
		`{"m":"{\"password\":\"a b\"}"}`:                          `{"m":"{\"password\":\"[redacted:token]\"}"}`,
		`{"m":"{\"password\":\"a\\\"b\\\\\",\"c\":1}"}`:           `{"m":"{\"password\":\"[redacted:token]\",\"c\":1}"}`,
		`{"m":"password=\"a b\" x"}`:                              `{"m":"password=\"[redacted:token]\" x"}`,
		`{"password":"a\"b\\","c":"d"}`:                           `{"password":"[redacted:token]","c":"d"}`,
		`{"password":null,"token":{"a":1}}`:                       `{"password":null,"token":{"a":1}}`,
		`{"token":4111111111111111}`:                              `{"token":"[redacted:card:1111]"}`,
	} {
		got := redacted(r, body)
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", body, got, want)
		}
		if !json.Valid([]byte(body)) || !json.Valid([]byte(got)) {
			t.Errorf("%s: not valid before or after", body)
		}
		if again := redacted(r, got); again != got {
			t.Errorf("%s: redacted twice is %s", body, again)
		}
	}
}

func TestNothingFoundAllocatesNothing(t *testing.T) {
	cfg := allKinds()
	cfg.Patterns = []Pattern{{Name: "account", Regexp: `acct-(\d+)`}}
	r := newRedactor(t, cfg)
	counts := make([]int, len(r.Kinds()))
	for _, body := range [][]byte{[]byte(plainLine), []byte(jsonLine)} {
		// The least of many: under the race detector a sync.Pool, as regexp has one, loses what it is given now and then.
		least := 1.0
		for range 100 {
			least = min(least, testing.AllocsPerRun(1, func() { r.Redact(nil, body, counts) }))
		}
		if least != 0 {
			t.Errorf("%.40q: allocates every time", body)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	r := newRedactor(t, allKinds())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				expect(t, r, map[string]string{"pan 4111111111111111 password=x": "pan [redacted:card:1111] password=[redacted:token]"})
			}
		})
	}
	wg.Wait()
}

// TestTimeIsLinear compares the fastest of a few runs on 256 KiB and 1 MiB. A
// quadratic scan would take sixteen times as long on the longer body, and that
// would be minutes, so the slack for a busy machine can be wide.
func TestTimeIsLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	r := newRedactor(t, allKinds())
	for _, unit := range []string{
		"1", "4", "1 ", "4111 ", "4111 1111 1111 1111 1", "622202 1234567890123 ", "4-", "%41", `\u00`,
		"eyJ", "eyJ-", "-eyJ.", "eyJ..", "AKIA", "://", "://a:b", "://a:@", "password=", "password='", `password="`,
		`password":`, `"password":"`, `\"password\":\"`, `\`, `password=\`, `"authorization":`, "authorization: bearer ",
		" :", " =", "password =", "+", "+1", "[redacted:", "token=[redacted:token]", "{\"a\":", "[",
	} {
		fastest := func(size int) time.Duration {
			body, best := bytes.Repeat([]byte(unit), size/len(unit)), time.Hour
			out := make([]byte, 0, 4*size)
			for range 3 {
				start := time.Now()
				r.Redact(out, body, nil)
				best = min(best, time.Since(start))
			}
			return best
		}
		short, long := fastest(256<<10), fastest(1<<20)
		if long > 9*short+200*time.Millisecond {
			t.Errorf("%q repeated: %v for 256 KiB, %v for 1 MiB", unit, short, long)
		}
		t.Logf("%q repeated: %v for 1 MiB", unit, long)
	}
}
