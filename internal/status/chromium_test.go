//go:build e2e

package status

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/prometheus/client_golang/prometheus"

	"weir/schema"
)

var update = flag.Bool("update", false, "take the screenshot of the README anew")

// browser is a real Chromium. What it asks for and what goes wrong in it is written down.
type browser struct {
	t        *testing.T
	ctx      context.Context
	mu       sync.Mutex
	requests []string
	faults   []string
}

func open(t *testing.T) *browser {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute))
	allocated, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocated)
	t.Cleanup(cancel)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) }) // waits until the browser has ended
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.EmulateViewport(1200, 800))
	return b
}

func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, fmt.Sprintf("%s at %s:%d", e.ExceptionDetails.Text, e.ExceptionDetails.URL, e.ExceptionDetails.LineNumber+1))
	case *log.EventEntryAdded:
		if !strings.Contains(e.Entry.Text, "status of 401") { // the token is asked for after one
			b.faults = append(b.faults, e.Entry.Text+" "+e.Entry.URL)
		}
	case *page.EventJavascriptDialogOpening:
		b.faults = append(b.faults, "a dialog: "+e.Message)
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// is waits until an expression is true.
func (b *browser) is(expression string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(20*time.Second))); err != nil {
		now, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
		b.t.Fatalf("%s is not so: %v\n%.1000s", expression, err, now)
	}
}

// prefers sets the colours that the reader prefers.
func (b *browser) prefers(scheme string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		b.t.Fatal(err)
	}
}

func shows(view string) string {
	return fmt.Sprintf(`document.getElementById("view").dataset.shows === %q && location.hash.startsWith(%q)`, view, "#"+view)
}

func says(text string) string {
	return fmt.Sprintf(`document.getElementById("view").innerText.includes(%q)`, text)
}

func TestChromium(t *testing.T) {
	p := filled(t, nil)
	server := httptest.NewServer(p.Handler())
	defer server.Close()
	b := open(t)
	b.do(chromedp.Navigate(server.URL))
	all := map[string]string{"path": "archiver", "nodes": "node-1", "containers": "web-2", "signals": "web-1 died five times", "actions": "would restart web-1", "losses": "<img src=x onerror=", "deadletters": "<script>", "search": "Type a query"}
	order := []string{"path", "nodes", "containers", "signals", "actions", "losses", "deadletters", "search"}

	for i, view := range order { // each by its key
		b.do(chromedp.KeyEvent(fmt.Sprint(i + 1)))
		b.is(shows(view))
		b.is(says(all[view]))
		b.is(fmt.Sprintf(`document.querySelector("nav [aria-current]").getAttribute("href") === %q`, "#"+view))
	}

	b.do(chromedp.KeyEvent("4"))
	b.is(shows("signals"))
	b.is(says("web-1, firing"))

	// A row is reached and opened by the keyboard, and stays open when the view is drawn anew.
	b.do(chromedp.KeyEvent("6"))
	b.is(shows("losses"))
	b.do(chromedp.KeyEvent("j"), chromedp.KeyEvent(kb.Enter))
	b.is(`document.querySelector("details").open && document.activeElement.tagName === "SUMMARY"`)
	b.is(says("rotated_away"))
	p.mu.Lock()
	p.lists["losses"].add(Entry{ID: "another", Time: 1, Body: "another loss"})
	p.mu.Unlock()
	b.is(says("another loss"))
	b.is(`document.querySelector("details").open && document.activeElement.tagName === "SUMMARY"`)

	b.do(chromedp.KeyEvent("3"))
	b.is(shows("containers"))
	b.is(`document.querySelectorAll("svg.hour").length === 2 && document.querySelectorAll("svg.hour rect.err").length > 10`)
	b.do(chromedp.SendKeys(chromedp.CSS("#filter"), "web-2"))
	b.is(`document.querySelectorAll("tbody tr").length === 1 && document.activeElement.id === "filter" && document.activeElement.value === "web-2"`)
	b.do(chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent("?"))
	b.is(`document.getElementById("keys").open`)
	b.do(chromedp.KeyEvent(kb.Escape))
	b.is(`!document.getElementById("keys").open`)

	b.do(chromedp.KeyEvent("/"))
	b.is(`document.activeElement.id === "q"`)
	b.do(chromedp.KeyEvent(`a: "<b>'&` + kb.Enter))
	b.is(shows("search"))
	b.is(says(`a: "<b>'& <img src=x`))
	b.is(says("one shard did not answer"))
	b.do(chromedp.Navigate(server.URL + "/#search?q=" + "((" + "&since=1h"))
	b.is(`document.getElementById("fault").innerText.includes("not understood at character 2") && document.getElementById("since").value === "1h"`)
	b.mu.Lock() // of the answer with the fault, which the console tells
	b.faults = nil
	b.mu.Unlock()

	// What containers write stays text.
	b.is(`document.title.startsWith("weir: ") && document.querySelectorAll("main img, main script, main b").length === 0`)

	for _, width := range []int64{360, 1200} {
		for _, scheme := range []string{"light", "dark"} {
			b.do(chromedp.EmulateViewport(width, 740))
			b.prefers(scheme)
			b.is(fmt.Sprintf(`getComputedStyle(document.body).backgroundColor === %q`, map[string]string{"light": "rgb(246, 247, 248)", "dark": "rgb(18, 23, 27)"}[scheme]))
			b.is(contrast)
			for i, view := range order[:7] {
				b.do(chromedp.KeyEvent(fmt.Sprint(i + 1)))
				b.is(shows(view))
				b.is(says(strings.ReplaceAll(all[view], "web-2", "web-")))
				b.is(fmt.Sprintf("document.documentElement.scrollWidth <= %d", width))
			}
		}
	}
	b.do(chromedp.Navigate(server.URL+"/#search?q=long"), chromedp.EmulateViewport(360, 740))
	b.is(says("long <img"))
	b.is("document.documentElement.scrollWidth <= 360")

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.requests {
		if !strings.HasPrefix(url, server.URL+"/") {
			t.Errorf("the page asked for %s", url)
		}
	}
	if len(b.requests) < 20 {
		t.Errorf("only %d requests were seen", len(b.requests))
	}
	for _, f := range b.faults {
		t.Errorf("the browser says: %s", f)
	}
}

// contrast wants what WCAG 2 asks of small text, 4.5 to 1, of each colour of text on each background.
const contrast = `(() => {
	const s = getComputedStyle(document.documentElement), light = name => {
		const hex = s.getPropertyValue(name).trim().replace(/^#(.)(.)(.)$/, "#$1$1$2$2$3$3");
		const c = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
		return .2126 * c[0] + .7152 * c[1] + .0722 * c[2];
	};
	return ["--ink", "--soft", "--mark", "--bad", "--warn"].every(ink => ["--back", "--card", "--hover"].every(back => {
		const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
		return (a + .05) / (b + .05) >= 4.5;
	}));
})()`

// TestChromiumToken looks at a page that asks for a token.
func TestChromiumToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := filled(t, func(c *Config, d *Deps) { c.TokenFile, d.Local = file, false })
	server := httptest.NewServer(p.Handler())
	defer server.Close()
	b := open(t)
	b.do(chromedp.Navigate(server.URL + "/#nodes"))
	b.is(`document.getElementById("ask").open && !document.body.innerText.includes("node-1")`)
	b.do(chromedp.SendKeys(chromedp.CSS("#token"), "wrong"+kb.Enter))
	b.is(`document.getElementById("ask").open && document.getElementById("token").value === ""`)
	b.do(chromedp.SendKeys(chromedp.CSS("#token"), "0123456789abcdef"+kb.Enter))
	b.is(says("node-1"))
	b.is(`!document.getElementById("ask").open && !location.href.includes("0123")`)
	for _, f := range b.faults {
		t.Errorf("the browser says: %s", f)
	}
}

// TestScreenshot draws the picture of the README.
func TestScreenshot(t *testing.T) {
	if !*update {
		t.Skip("for -update")
	}
	p, err := New(DefaultConfig(), Deps{Kafka: &broker{}, Metrics: prometheus.NewRegistry(), Local: true, Log: slog.New(slog.DiscardHandler), Version: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	p.began = now.Add(-3 * time.Hour)
	for i, c := range []struct{ name, app, image, state string }{
		{"gateway-1", "gateway", "shop/gateway:2.4", "running"}, {"checkout-1", "checkout", "shop/checkout:1.9.1", "running"}, {"checkout-2", "checkout", "shop/checkout:1.9.1", "running"},
		{"ledger-1", "ledger", "bank/ledger:7.0", "healthy"}, {"cache-1", "cache", "shop/cache:5", "running"}, {"report-1", "report", "bank/report:3", "exited 1"},
	} {
		b := schema.Batch{Topic: schema.TopicLogs, Source: c.name, Resource: []schema.Attr{schema.String(schema.AttrContainerID, c.name), schema.String(schema.AttrContainerName, c.name), schema.String(schema.AttrApp, c.app),
			schema.String(schema.AttrHostName, fmt.Sprintf("node-%d", 1+i%2)), schema.String(schema.AttrImageName, c.image)}}
		for m := range 60 {
			if c.app == "report" && m%9 > 2 {
				continue
			}
			n := (600 / (i + 1)) * (20 + (m*m*(i+3))%17 - (m*3)%11) / 20
			for k := range n {
				r := schema.Record{Time: now.Add(-time.Duration(m) * time.Minute).UnixNano(), Severity: 9}
				if k < n/30 || c.app == "checkout" && m > 12 && m < 17 && k < n/2 {
					r.Severity = 17
				}
				b.Records = append(b.Records, r)
			}
		}
		p.take(&b)
		p.containers[c.name].state = c.state
	}
	server := httptest.NewServer(p.Handler())
	defer server.Close()
	b := open(t)
	b.do(chromedp.EmulateViewport(1100, 625), chromedp.Navigate(server.URL+"/#containers"))
	b.is(says("report-1"))
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if len(png) >= 200<<10 {
		t.Errorf("the screenshot has %d bytes", len(png))
	}
	if err := os.WriteFile("../../docs/status.png", png, 0o644); err != nil {
		t.Fatal(err)
	}
}
