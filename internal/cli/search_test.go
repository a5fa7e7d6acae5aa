package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// endless answers a search with hits that never end, as long as somebody asks.
func endless(t *testing.T, source string) (url string, open *atomic.Int32) {
	open = &atomic.Int32{}
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Method == http.MethodDelete:
			open.Add(-1)
			fmt.Fprint(w, `{}`)
		case strings.HasSuffix(r.URL.Path, "/_field_caps"):
			fmt.Fprint(w, `{"indices":["i"],"fields":{"message":{"text":{"type":"text"}}}}`)
		case strings.HasSuffix(r.URL.Path, "/_pit"):
			open.Add(1)
			fmt.Fprint(w, `{"id":"p","_shards":{"total":1}}`)
		case bytes.Contains(body, []byte(`broken`)):
			fmt.Fprint(w, `{"_shards":{"total":2,"failed":1,"failures":[{"index":"i","reason":{"reason":"disk"}}]},"hits":{"hits":[]}}`)
		default:
			var hits []string
			for range 100 {
				n++
				hits = append(hits, fmt.Sprintf(`{"_index":"i","_id":"%d","sort":["%09d",0,%[1]d],"_source":%[3]s}`, n, 1_000_000-n, source))
			}
			fmt.Fprintf(w, `{"_shards":{"total":1},"hits":{"hits":[%s]}}`, strings.Join(hits, ","))
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("WEIR_ELASTICSEARCH_URL", server.URL)
	t.Setenv("WEIR_CONFIG", "")
	return server.URL, open
}

const evil = `{"@timestamp":"2026-11-25T12:00:00.5Z","message":"\u001b[2Jhello\u0007","log":{"level":"error"},"container":{"name":"web\u001b]0;x"}}`

func TestSearch(t *testing.T) {
	endless(t, evil)
	config := writeConfig(t, "kibana:\n  url: https://kibana.example.com/base/\n  space: ops\n  data_view: v1\n")
	for _, c := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{"-n", "2"}, 0, `ERROR web\x1b]0;x      \x1b[2Jhello\x07` + "\n"},
		{[]string{"-n", "1", "--json"}, 0, `{"_index":"i","_id":"`},
		{[]string{"-n", "1", "--fields", "message,_index,none"}, 0, `\x1b[2Jhello\x07` + "\ti\t-\nweir: warning: no index has a field none\n"},
		{[]string{"-n", "1", "mesage: x"}, 0, "near to it: message"},
		{[]string{"message: broken"}, 1, "1 of 2 shards failed: i: disk\nweir: the answer is not complete"},
		{[]string{"--since", "soon"}, 1, `--since: "soon" is neither`},
		{[]string{"--since", "1h", "--until", "2h"}, 1, "is not before --until"},
		{[]string{"--follow", "--until", "now"}, 1, "leave out --until"},
		{[]string{"--follow", "--histogram"}, 2, "can't be used together"},
		{[]string{"--oldest", "--newest"}, 2, "can't be used together"},
		{[]string{"--around", "x", "a: b"}, 1, "leave out the query"},
		{[]string{"--histogram", "--json"}, 1, "leave out --json"},
		{[]string{"--limit=-1"}, 1, "below zero"},
		{[]string{"--link"}, 1, "kibana.url: is not set"},
		{[]string{"--link", "a: 'b!' or c: \"d\"", "--app", "web", "--since", "2026-11-25T12:00:00Z", "--until", "2026-11-25T13:00:00Z", "--config", config}, 0,
			"https://kibana.example.com/base/s/ops/app/discover#/?_g=(filters:!(),time:(from:'2026-11-25T12%3A00%3A00.000Z',to:'2026-11-25T13%3A00%3A00.000Z'))&_a=("},
		{[]string{"--link", "a: 'b!'", "--config", config}, 0, "query:(language:kuery,query:'a%3A%20%21%27b%21%21%21%27')"},
		{[]string{"-n", "1", "--config", config}, 0, "in Kibana: https://kibana.example.com"},
	} {
		exit, stdout, stderr := weir(append([]string{"search"}, c.args...)...)
		if all := stdout + stderr; exit != c.exit || !strings.Contains(all, c.want) || strings.ContainsAny(all, "\x1b\x07") {
			t.Errorf("weir search %q: exit %d, want %d and %q:\n%q", c.args, exit, c.exit, c.want, all)
		}
	}
}

// pipe is closed by its reader after some bytes.
type pipe struct{ left int }

func (p *pipe) Write(b []byte) (int, error) {
	if p.left -= len(b); p.left < 0 {
		return 0, &writeError{}
	}
	return len(b), nil
}

type writeError struct{}

func (*writeError) Error() string { return "write |1: broken pipe" }
func (*writeError) Unwrap() error { return syscall.EPIPE }

// TestClosedPipe reads hits without end into a pipe whose reader leaves: nothing is said, and nothing is left in the cluster.
func TestClosedPipe(t *testing.T) {
	_, open := endless(t, evil)
	for _, args := range [][]string{{"search"}, {"search", "--json"}} {
		var stderr output
		if exit := Main(args, &pipe{200_000}, &stderr); exit != 0 || stderr.String() != "" || open.Load() != 0 {
			t.Errorf("%v: exit %d, %d points in time open: %s", args, exit, open.Load(), stderr.String())
		}
	}
}
