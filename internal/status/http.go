package status

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

//go:embed page
var files embed.FS

const (
	maxQuery      = 4096 // bytes of a search
	maxHits       = 100
	searchTimeout = 15 * time.Second
	maxShown      = 200 // containers or nodes in one answer
)

// Loopback tells whether a listener's address can be reached from this host alone.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Handler serves the page and what it asks for. The page itself says nothing, so it needs no token.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	sub, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the folder is embedded
	}
	mux.Handle("GET /", http.FileServerFS(sub))
	view := func(name string, answer func(r *http.Request, now time.Time) any) {
		mux.HandleFunc("GET /api/v1/"+name, func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			v := answer(r, time.Now())
			p.mu.Unlock()
			write(w, http.StatusOK, v)
		})
	}
	view("path", func(_ *http.Request, now time.Time) any { return p.path(now) })
	view("nodes", func(_ *http.Request, now time.Time) any { return p.nodeViews(now) })
	view("containers", func(r *http.Request, now time.Time) any { return p.containerViews(r.FormValue("filter"), now) })
	for _, name := range listNames {
		view(name, func(*http.Request, time.Time) any {
			entries := p.lists[name].newest()
			slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(b.Time, a.Time) })
			return entries
		})
	}
	mux.HandleFunc("GET /api/v1/search", p.search)
	return p.guard(mux)
}

// guard sets what keeps a browser from doing anything else with the page, and lets in who may look.
func (p *Page) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if strings.HasPrefix(r.URL.Path, "/api/") {
			if status, why := p.admit(r); status != 0 {
				if status == http.StatusUnauthorized {
					h.Set("WWW-Authenticate", `Bearer realm="weir"`)
				}
				write(w, status, map[string]string{"error": why})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// admit gives a status and a reason to turn a request away with, or 0.
func (p *Page) admit(r *http.Request) (status int, why string) {
	if p.token != "" {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(p.token))
		if !ok || subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
			return http.StatusUnauthorized, "a token is needed"
		}
		return 0, ""
	}
	if !p.deps.Local {
		return http.StatusForbidden, "weir listens beyond loopback and has no token: set status.token_file or status.token_env"
	}
	// A name that somebody else's DNS points to loopback must not let their page read this one.
	if host := r.Host; host != "localhost" && !Loopback(host) && !Loopback(net.JoinHostPort(strings.Trim(host, "[]"), "0")) {
		if name, _, err := net.SplitHostPort(host); err != nil || name != "localhost" {
			return http.StatusForbidden, "ask for it as 127.0.0.1 or localhost"
		}
	}
	return 0, ""
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the reader may have gone
}

// NodeView is a node as the page shows it.
type NodeView struct {
	Name       string          `json:"name"`
	Site       string          `json:"site"`
	Containers int             `json:"containers"`
	PerSecond  float64         `json:"perSecond"`
	Last       int64           `json:"last"`  // Unix ms
	Delay      int64           `json:"delay"` // ms
	Lines      [minutes]uint32 `json:"lines"`
	Errors     [minutes]uint32 `json:"errors"`
}

func (p *Page) nodeViews(now time.Time) []NodeView {
	on := map[string]int{}
	for _, c := range p.containers {
		if c.state != "removed" {
			on[c.node]++
		}
	}
	views := make([]NodeView, 0, len(p.nodes))
	for _, n := range p.nodes {
		rate := n.hour.rate(p.began, now)
		views = append(views, NodeView{n.name, n.site, on[n.name], rate, n.last / 1e6, n.delay / 1e6, n.hour.lines, n.hour.errors})
	}
	slices.SortFunc(views, func(a, b NodeView) int { return cmp.Compare(a.Name, b.Name) })
	return views[:min(len(views), maxShown)]
}

// ContainerView is a container as the page shows it.
type ContainerView struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	App       string          `json:"app"`
	Node      string          `json:"node"`
	Image     string          `json:"image"`
	State     string          `json:"state"`
	PerSecond float64         `json:"perSecond"`
	Last      int64           `json:"last"` // Unix ms
	Lines     [minutes]uint32 `json:"lines"`
	Errors    [minutes]uint32 `json:"errors"`
	total     uint64
}

// containersView has how many there are besides those that are shown.
type containersView struct {
	Of    int             `json:"of"`
	Shown []ContainerView `json:"shown"`
}

func (p *Page) containerViews(filter string, now time.Time) containersView {
	filter = strings.ToLower(filter)
	views := []ContainerView{}
	for _, c := range p.containers {
		if filter != "" && !slices.ContainsFunc([]string{c.name, c.app, c.node, c.image, c.id}, func(s string) bool { return strings.Contains(strings.ToLower(s), filter) }) {
			continue
		}
		v := ContainerView{ID: c.id, Name: c.name, App: c.app, Node: c.node, Image: c.image, State: c.state, PerSecond: c.hour.rate(p.began, now), Last: c.last / 1e6, Lines: c.hour.lines, Errors: c.hour.errors}
		for i := range v.Lines {
			v.total += uint64(v.Lines[i])
		}
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b ContainerView) int {
		return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return containersView{len(views), views[:min(len(views), maxShown)]}
}

// search asks Elasticsearch, for at most two readers at once.
func (p *Page) search(w http.ResponseWriter, r *http.Request) {
	kql, since := r.FormValue("q"), cmp.Or(r.FormValue("since"), "15m")
	switch {
	case p.deps.Search == nil:
		write(w, http.StatusNotImplemented, map[string]string{"error": "there is no search: indexer.addresses is not set"})
		return
	case len(kql) > maxQuery || len(since) > 64:
		write(w, http.StatusRequestEntityTooLarge, map[string]string{"error": "the query is too long"})
		return
	}
	select {
	case p.busy <- struct{}{}:
		defer func() { <-p.busy }()
	default:
		write(w, http.StatusTooManyRequests, map[string]string{"error": "two searches are under way; try again"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), searchTimeout)
	defer cancel()
	hits, notes, err := p.deps.Search(ctx, kql, since, maxHits)
	if errors.Is(err, context.DeadlineExceeded) {
		write(w, http.StatusGatewayTimeout, map[string]string{"error": "no answer within " + searchTimeout.String()})
		return
	}
	if err != nil {
		write(w, http.StatusBadGateway, map[string]string{"error": text(err.Error(), maxBody)})
		return
	}
	for i := range hits {
		hits[i].Body = text(hits[i].Body, maxBody)
	}
	write(w, http.StatusOK, map[string]any{"hits": hits, "notes": notes})
}
