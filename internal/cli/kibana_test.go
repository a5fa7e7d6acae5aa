package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"weir/internal/kibana"
)

// TestKibana goes through the commands; what Kibana may answer is tested where its client is.
func TestKibana(t *testing.T) {
	for _, name := range []string{"WEIR_CONFIG", "WEIR_KIBANA_URL"} {
		t.Setenv(name, "")
	}
	imports, tags := 0, ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/status":
			_, _ = io.WriteString(w, `{"version":{"number":"8.19.13"},"status":{"overall":{"level":"available"}}}`)
		case "/s/ops/api/saved_objects/_export":
			_, _ = io.WriteString(w, tags)
		case "/s/ops/api/saved_objects/_import":
			imports++
			fmt.Fprintf(w, `{"success":true,"successCount":%d}`, len(kibana.Objects("ops")))
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	config := writeConfig(t, "kibana:\n  url: "+s.URL+"\n")

	exit, out, stderr := weir("kibana", "apply", "--dry-run", "--space", "ops", "-c", config)
	if exit != 0 || imports != 0 || !strings.Contains(out, "Kibana 8.19.13 at "+s.URL+" has nothing of weir's") || !strings.Contains(out, "weir.ops.fleet") || !strings.Contains(out, "nothing was changed") {
		t.Fatalf("%d %s %s", exit, out, stderr)
	}
	exit, out, stderr = weir("kibana", "apply", "--space", "ops", "-c", config)
	if exit != 0 || imports != 1 || !strings.Contains(out, s.URL+"/s/ops/app/dashboards#/view/weir.ops.fleet") {
		t.Fatalf("%d %s %s", exit, out, stderr)
	}
	tags = `{"type":"tag","id":"weir.ops.tag","attributes":{"description":"weir's objects, version 99."}}` + "\n"
	if exit, _, stderr = weir("kibana", "apply", "--space", "ops", "-c", config); exit != 1 || imports != 1 || !strings.Contains(stderr, "--force") {
		t.Fatalf("a newer version: %d %s", exit, stderr)
	}
	if exit, _, stderr = weir("kibana", "apply", "--space", "ops", "--force", "-c", config); exit != 0 || imports != 2 {
		t.Fatalf("--force: %d %s", exit, stderr)
	}
	if exit, _, stderr = weir("kibana", "apply", "--space", "No Space", "-c", config); exit != 1 || !strings.Contains(stderr, "kibana.space") {
		t.Fatalf("a bad space: %d %s", exit, stderr)
	}

	want, err := os.ReadFile("../../deployments/kibana/weir.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	if exit, out, stderr = weir("kibana", "print"); exit != 0 || !bytes.Equal([]byte(out), want) {
		t.Fatalf("print: %d %s", exit, stderr)
	}
}
