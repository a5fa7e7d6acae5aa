package kibana

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/internal/config"
)

// double answers as Kibana's API does, and notes what it does not like.
type double struct {
	t           *testing.T
	space, auth string
	tags        string // NDJSON
	status      string
	answer      func() (int, string) // to an import; nil takes all

	mu       sync.Mutex
	imported [][]byte
}

func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := func(status int, body string) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
	if r.Header.Get("Authorization") != d.auth {
		reply(401, `{"statusCode":401,"error":"Unauthorized","message":"[security_exception]: unable to authenticate user"}`)
		return
	}
	if r.Method != http.MethodGet && r.Header.Get("kbn-xsrf") == "" {
		reply(400, `{"statusCode":400,"error":"Bad Request","message":"Request must contain a kbn-xsrf header."}`)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /base/api/status":
		reply(200, d.status)
	case "POST /base" + d.space + "/api/saved_objects/_export":
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Content-Type") != "application/json" || string(body) != `{"type":["tag"],"excludeExportDetails":true}` {
			reply(400, `{"statusCode":400,"message":"[request body]: types that failed validation"}`)
			return
		}
		reply(200, d.tags)
	case "POST /base" + d.space + "/api/saved_objects/_import":
		if r.URL.RawQuery != "overwrite=true" {
			d.t.Errorf("import with the query %q", r.URL.RawQuery)
		}
		file, header, err := r.FormFile("file")
		if err != nil || filepath.Ext(header.Filename) != ".ndjson" || len(r.MultipartForm.File) != 1 || len(r.MultipartForm.Value) != 0 {
			reply(415, fmt.Sprintf(`{"statusCode":415,"message":"not a form with an .ndjson file: %v"}`, err))
			return
		}
		b, _ := io.ReadAll(file)
		d.mu.Lock()
		d.imported = append(d.imported, b)
		d.mu.Unlock()
		if d.answer != nil {
			reply(d.answer())
			return
		}
		n := bytes.Count(b, []byte("\n"))
		reply(200, fmt.Sprintf(`{"success":true,"successCount":%d,"successResults":[{"type":"tag","id":"weir-tag","overwrite":true}],"warnings":[]}`, n))
	default:
		reply(404, `{"statusCode":404,"error":"Not Found","message":"Not Found"}`)
	}
}

const healthy = `{"name":"k","version":{"number":"8.19.13","build_snapshot":false},"status":{"overall":{"level":"available"}}}`

func start(t *testing.T, d *double) config.Kibana {
	t.Helper()
	d.t = t
	if d.status == "" {
		d.status = healthy
	}
	s := httptest.NewServer(d)
	t.Cleanup(s.Close)
	return config.Kibana{URL: s.URL + "/base/"}
}

func connect(t *testing.T, cfg config.Kibana) *Client {
	t.Helper()
	c, err := Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func tag(id, about string) string {
	return fmt.Sprintf(`{"attributes":{"color":"#fff","description":%q,"name":"weir"},"id":%q,"references":[],"type":"tag","namespaces":["default"],"created_at":"2026-11-25T00:00:00Z","managed":false}`+"\n", about, id)
}

func TestImport(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("abc=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KIBANA_PASSWORD", "pass:word")
	for _, c := range []struct {
		name, space, path, auth string
		set                     func(*config.Kibana)
	}{
		{"without credentials", "", "", "", func(*config.Kibana) {}},
		{"default space", "default", "", "", func(*config.Kibana) {}},
		{"API key of a file", "team-a", "/s/team-a", "ApiKey abc=", func(k *config.Kibana) { k.APIKeyFile, k.Username = key, "ignored" }},
		{"password", "", "", "Basic ZWxhc3RpYzpwYXNzOndvcmQ=", func(k *config.Kibana) { k.Username, k.PasswordEnv = "elastic", "KIBANA_PASSWORD" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &double{space: c.path, auth: c.auth}
			cfg := start(t, d)
			cfg.Space = c.space
			c.set(&cfg)
			k := connect(t, cfg)
			in, err := k.Look(t.Context())
			if err != nil || in != (Installed{Kibana: "8.19.13"}) || in.Refused() != nil {
				t.Fatalf("%+v %v", in, err)
			}
			all := Objects(c.space)
			if err := k.Import(t.Context(), all); err != nil {
				t.Fatal(err)
			}
			if len(d.imported) != 1 || !bytes.Equal(d.imported[0], NDJSON(all)) {
				t.Error("what arrived is not what was sent")
			}
		})
	}
}

func TestVersions(t *testing.T) {
	now := fmt.Sprint(Version())
	for _, c := range []struct {
		name, tags string
		want       Installed
		refused    string
	}{
		{"nothing", "", Installed{}, ""},
		{"tags of others", tag("x", "version 99") + tag("weir.other.tag", "version 99"), Installed{}, ""},
		{"the same", tag("x", "") + tag("weir-tag", "weir's objects, version "+now+". Copy"), Installed{Found: true, Version: Version()}, ""},
		{"newer", tag("weir-tag", "weir's objects, version 99."), Installed{Found: true, Version: 99}, "version 99 of weir's objects, newer than this build's " + now},
		{"changed", tag("weir-tag", "our tag"), Installed{Found: true}, "was changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := connect(t, start(t, &double{tags: c.tags})).Look(t.Context())
			c.want.Kibana = "8.19.13"
			if err != nil || in != c.want {
				t.Fatalf("%+v %v", in, err)
			}
			if err := in.Refused(); (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestImportErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   []string
	}{
		{"some refused", 200, `{"success":false,"successCount":42,"errors":[
			{"type":"search","id":"weir-losses","title":"x","meta":{},"error":{"type":"missing_references","references":[{"type":"index-pattern","id":"weir-all"}]}},
			{"type":"dashboard","id":"weir-fleet","error":{"type":"ambiguous_conflict","destinations":[]}},
			{"type":"lens","id":"weir-oom","error":{"type":"unknown","message":"[attributes.x]: definition for this key is missing","statusCode":400}},
			{"type":"tag","id":"weir-tag","error":{"type":"unsupported_type"}}]}`,
			[]string{"42 of 45 objects", "search weir-losses (weir: loss records): refers to what is not there: index-pattern weir-all", "dashboard weir-fleet (weir: fleet): ambiguous_conflict",
				"lens weir-oom (weir: Out of memory): unknown: [attributes.x]", "tag weir-tag (weir): this Kibana has no objects of type tag"}},
		{"other ids", 200, `{"success":true,"successCount":45,"successResults":[{"type":"index-pattern","id":"weir-all","destinationId":"3e0c"}]}`, []string{"index-pattern weir-all: Kibana gave it the id 3e0c"}},
		{"too few", 200, `{"success":true,"successCount":44}`, []string{"44 of 45", "does not say which"}},
		{"failed without a reason", 200, `{"success":false,"successCount":0}`, []string{"0 of 45", "does not say which"}},
		{"not a result", 200, `{"ok":1}`, []string{"not the result of an import"}},
		{"not JSON", 200, `<html>`, []string{"not the result of an import", "<html>"}},
		{"bad request", 400, `{"statusCode":400,"error":"Bad Request","message":"Unique import objects required"}`, []string{"status 400: Unique import objects required"}},
		{"forbidden", 403, `{"statusCode":403,"error":"Forbidden","message":"Unable to bulk_create dashboard"}`, []string{"status 403", "Saved Objects Management", "Unable to bulk_create dashboard"}},
		{"too large", 413, `{"statusCode":413,"message":"Payload content length greater than maximum allowed"}`, []string{"status 413: Payload"}},
		{"a proxy's page", 502, "<html>bad gateway</html>", []string{"status 502", "bad gateway"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := connect(t, start(t, &double{answer: func() (int, string) { return c.status, c.body }}))
			err := k.Import(t.Context(), Objects(""))
			if err == nil {
				t.Fatal("taken for a success")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestNotKibana(t *testing.T) {
	for _, c := range []struct {
		name   string
		handle http.HandlerFunc
		want   string
	}{
		{"a page", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>hello") }, "is not a Kibana"},
		{"Elasticsearch", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":{"reason":"no handler"},"status":400}`)
		}, "status 400"},
		{"other JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"ok"}`) }, "is not a Kibana"},
		{"a login", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login?next=/", http.StatusFound) }, `leads to "/login?next=/"`},
		{"old", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":{"number":"8.6.2"},"status":{"overall":{"level":"available"}}}`)
		}, "8.6.2 is older than 8.9"},
		{"starting", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			_, _ = io.WriteString(w, "Kibana server is not ready yet")
		}, "not ready yet"},
		{"credentials", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "credentials are needed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.handle)
			defer s.Close()
			_, err := connect(t, config.Kibana{URL: s.URL}).Look(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("refused credentials", func(t *testing.T) {
		t.Setenv("KIBANA_KEY", "top-secret")
		cfg := start(t, &double{auth: "ApiKey other"})
		cfg.APIKeyEnv = "KIBANA_KEY"
		_, err := connect(t, cfg).Look(t.Context())
		if err == nil || !strings.Contains(err.Error(), "credentials are refused: [security_exception]") || strings.Contains(err.Error(), "top-secret") {
			t.Errorf("%v", err)
		}
	})
	t.Run("another space", func(t *testing.T) {
		cfg := start(t, &double{})
		cfg.Space = "nowhere"
		if _, err := connect(t, cfg).Look(t.Context()); err == nil || !strings.Contains(err.Error(), "/base/s/nowhere/api/saved_objects/_export: status 404") {
			t.Errorf("%v", err)
		}
	})
	t.Run("redacted status", func(t *testing.T) { // what Kibana tells those who may not see more
		if in, err := connect(t, start(t, &double{status: `{"status":{"overall":{"level":"available"}}}`})).Look(t.Context()); err != nil || in.Kibana != "" {
			t.Errorf("%+v %v", in, err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, err := connect(t, config.Kibana{URL: "http://" + l.Addr().String()}).Look(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a hang", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		}))
		defer s.Close()
		if _, err := connect(t, config.Kibana{URL: s.URL}).Look(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		k := connect(t, config.Kibana{URL: s.URL})
		k.http.Timeout = 10 * time.Millisecond
		if _, err := k.Look(t.Context()); err == nil || !strings.Contains(err.Error(), "Timeout") && !strings.Contains(err.Error(), "deadline") {
			t.Errorf("%v", err)
		}
	})
}

func TestCertificates(t *testing.T) {
	d := &double{t: t, status: healthy}
	s := httptest.NewUnstartedServer(d)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, config.Kibana{URL: s.URL + "/base", CAFile: ca}).Look(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := connect(t, config.Kibana{URL: s.URL + "/base"}).Look(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
	for _, c := range []struct {
		cfg  config.Kibana
		want string
	}{
		{config.Kibana{}, "kibana.url: is empty"},
		{config.Kibana{URL: "http://k", Space: "A B"}, "kibana.space"},
		{config.Kibana{URL: "http://k", CAFile: "/nowhere"}, "kibana.ca_file: open /nowhere"},
		{config.Kibana{URL: "http://k", CAFile: "client_test.go"}, "holds no PEM certificate"},
		{config.Kibana{URL: "http://k", APIKeyFile: "/nowhere"}, "kibana.api_key_file: open /nowhere"},
	} {
		if _, err := Connect(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}
