package redact

import (
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	jwt := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
	expect(t, newRedactor(t, Config{Tokens: true}), map[string]string{
		"Authorization: Bearer mF_9.B5f-4.1JqM":  "Authorization: Bearer [redacted:token]",
		"authorization:basic QWxhZGRpbjpvcGVu==": "authorization:basic [redacted:token]",
		"PROXY-AUTHORIZATION: BEARER x":          "PROXY-AUTHORIZATION: BEARER [redacted:token]",
		"authorization=Bearer abc, x":            "authorization=Bearer [redacted:token], x",
		`{"authorization":"Bearer xxx"}`:         `{"authorization":"Bearer [redacted:token]"}`,
		`{"Authorization":["Basic xxx"]}`:        `{"Authorization":["Basic [redacted:token]"]}`,
		`map[Authorization:[Bearer xxx] A:[b]]`:  `map[Authorization:[Bearer [redacted:token]] A:[b]]`,
		jwt:                                      "[redacted:token]",
		"jwt " + jwt + ";":                       "jwt [redacted:token];",
		`\n` + jwt:                               `\n[redacted:token]`,
		"eyJhbGciOiJub25lIn0.eyJhIjoxfQ.":        "[redacted:token]",
		"key AKIAIOSFODNN7EXAMPLE,":              "key [redacted:token],",
		"AKIAIOSFODNN7EXAMPLE":                   "[redacted:token]",
		"password=hunter2 user=x":                "password=[redacted:token] user=x",
		"PASSWD=hunter2;":                        "PASSWD=[redacted:token];",
		"?pwd=a%20b&x=y":                         "?pwd=[redacted:token]&x=y",
		`?pwd=a\u0026x=y`:                        `?pwd=[redacted:token]\u0026x=y`,
		"client_secret=s/+==":                    "client_secret=[redacted:token]",
		"accessToken=abc":                        "accessToken=[redacted:token]",
		"token=Bearer abc":                       "token=Bearer [redacted:token]",
		"api_key=1 apikey=2 API-KEY=3":           "api_key=[redacted:token] apikey=[redacted:token] API-KEY=[redacted:token]",
		"password = a b":                         "password = [redacted:token] b",
		"password= user=x":                       "password= user=x",
		`password="a b" c`:                       `password="[redacted:token]" c`,
		`password='a b' c`:                       `password='[redacted:token]' c`,
		`[2026-10-01] password="a b" c`:          `[2026-10-01] password="[redacted:token]" c`,
		`{"password":"a b"}`:                     `{"password":"[redacted:token]"}`,
		`{"password" : "a","secret":"b"}`:        `{"password" : "[redacted:token]","secret":"[redacted:token]"}`,
		`{"api_key":"a","dbPwd":""}`:             `{"api_key":"[redacted:token]","dbPwd":""}`,
		`{'password': 'a b'}`:                    `{'password': '[redacted:token]'}`,
		`pwd='a\'b'`:                             `pwd='[redacted:token]'`,
		"pwd='a\\\nb'":                           "pwd='[redacted:token]\nb'",
		`pwd=a\nb`:                               `pwd=[redacted:token]`,
		"token=[redacted:token] x":               "token=[redacted:token] x",
	})
	// Lines that were cut off within a value.
	r := newRedactor(t, Config{Tokens: true})
	for body, want := range map[string]string{
		`{"a":1,"password":"a b`: `{"a":1,"password":"[redacted:token]`,
		`password=`:              `password=`,
		`password="`:             `password="`,
		`password=\`:             `password=[redacted:token]`,
		`Authorization: Bearer `: `Authorization: Bearer `,
		"{\"password\":\"a\nb c": "{\"password\":\"[redacted:token]\nb c",
		`password='` + "a\\\"x":  `password='[redacted:token]\"x`,
	} {
		if got := redacted(r, body); got != want {
			t.Errorf("%q: got %q, want %q", body, got, want)
		}
	}
}

func TestNotTokens(t *testing.T) {
	expectUnchanged(t, newRedactor(t, Config{Tokens: true}),
		"password", "password reset", "tokens=5", "secretary=x", "monkey=1", "key=1", "pass=1",
		`{"tokens":"x","keyboard":"y","end":"z"}`, `{"token":5}`, `"password":true`,
		"Authorization: none", "authorization", "Bearer", "eyJ", "eyJabc", "eyJabc.def", "eyJabc..def", "xeyJa.b.c",
		"AKIA", "AKIAIOSFODNN7EXAMPL", "AKIAIOSFODNN7EXAMPLEX", "XAKIAIOSFODNN7EXAMPLE", "AKIAiosfodnn7example",
		":", "=", "::", "==", `":`, `\":\"`, "a:b=c", "12:30:45")
}

func TestURLPasswords(t *testing.T) {
	r := newRedactor(t, Config{URLPasswords: true})
	expect(t, r, map[string]string{
		"postgres://user:hunter2@db:5432/x": "postgres://user:[redacted:url_password]@db:5432/x",
		"redis://:p@h":                      "redis://:[redacted:url_password]@h",
		"https://u:p@ss:w@h?x=a@b":          "https://u:[redacted:url_password]@h?x=a@b",
		"mongodb://u:p@h1,h2:1/":            "mongodb://u:[redacted:url_password]@h1,h2:1/",
		`{"dsn":"amqp://u:p@h"}`:            `{"dsn":"amqp://u:[redacted:url_password]@h"}`,
		`{"dsn":"amqp://u:a\u0026b@h"}`:     `{"dsn":"amqp://u:[redacted:url_password]@h"}`,
		"a://u:p@h b://u:p@h":               "a://u:[redacted:url_password]@h b://u:[redacted:url_password]@h",
	})
	expectUnchanged(t, r, "http://host:8080/a@b", "http://user@host", "http://user:@host", "http://h:80 a@b", "://",
		"http://h:1?x=a@b", "mailto:a:b@c", `"http://h:80","a@b"`, "://://://", `http://h:1\`, `http://h:1\u`)
}

func TestOwnPatterns(t *testing.T) {
	r := newRedactor(t, Config{Tokens: true, Patterns: []Pattern{
		{Name: "account", Regexp: `acct=(\d+)`},
		{Name: "word", Regexp: `[a-z]*redacted|hush`},
		{Name: "number", Regexp: `77\d`},
	}})
	expect(t, r, map[string]string{
		"acct=12 acct=34":      "acct=[redacted:account] acct=[redacted:account]",
		"hush password=hush":   "[redacted:word] password=[redacted:word]",
		"[redacted:card:1111]": "[redacted:card:1111]",
		"redacted [redacted:x": "[redacted:word] [[redacted:word]:x",
	})
	if got := redacted(r, `{"n":177817781,"s":"771"}`); got != `{"n":"[redacted:number]","s":"[redacted:number]"}` {
		t.Error(got)
	}
	if got := strings.Join(r.Kinds(), " "); got != "card resident_id phone token url_password account word number" {
		t.Error(got)
	}
}

func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	cfg := Config{Patterns: []Pattern{
		{Name: "a", Regexp: "("}, {Name: "a", Regexp: "x*"}, {Name: "card", Regexp: "x"}, {Name: "A b", Regexp: "x"},
	}}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"patterns[0].regexp: ", "patterns[1].name: ", "patterns[1].regexp: ", "patterns[2].name: ", "patterns[3].name: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if r, err := New(cfg); err == nil || r != nil {
		t.Error("New accepts it")
	}
}
