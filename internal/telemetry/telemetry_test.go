package telemetry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(b)
}

func TestHandler(t *testing.T) {
	kafka := errors.New("no broker answers")
	h := Handler(Registry(), Check{"kafka", func(context.Context) error { return kafka }}, Check{"disk", func(context.Context) error { return nil }})
	for _, c := range []struct {
		path   string
		status int
		want   string
	}{
		{"/healthz", 200, "ok"},
		{"/readyz", 503, "kafka: no broker answers\ndisk: ok\n"},
		{"/metrics", 200, "go_goroutines"},
		{"/debug/pprof/", 404, ""}, // profiles are for loopback alone
	} {
		if status, body := get(t, h, c.path); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %q, want %d %q", c.path, status, body, c.status, c.want)
		}
	}
	kafka = nil
	if status, body := get(t, h, "/readyz"); status != 200 {
		t.Errorf("/readyz: %d %q", status, body)
	}
	if status, _ := get(t, Profiles(), "/debug/pprof/heap"); status != 200 {
		t.Errorf("heap profile: %d", status)
	}
}

func TestServe(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	serve := func(ctx context.Context, addr string) error {
		return Listener{Addr: addr, Key: "http.listen", Log: slog.New(slog.DiscardHandler)}.Serve(ctx, http.NotFoundHandler())
	}
	err := serve(t.Context(), strings.TrimPrefix(s.URL, "http://"))
	if err == nil || !strings.HasPrefix(err.Error(), "http.listen: ") {
		t.Errorf("a taken address: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, addr := range []string{"", "127.0.0.1:0"} {
		if err := serve(ctx, addr); err != nil {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func TestLogger(t *testing.T) {
	for format, want := range map[string]string{"text": `level=WARN msg=b`, "json": `"msg":"b"`} {
		var b bytes.Buffer
		l := Logger(&b, format, "warn")
		l.Info("a")
		l.Warn("b")
		if got := b.String(); !strings.Contains(got, want) || strings.Contains(got, "msg=a") {
			t.Errorf("%s: %s", format, got)
		}
	}
}
