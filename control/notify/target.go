package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"weir/internal/secret"
)

const (
	requestTimeout = 10 * time.Second
	perRequest     = 200 // alerts
	longestPause   = time.Minute
	sayEvery       = time.Minute
)

// target is one Alertmanager or webhook, with the goroutine that tells it.
type target struct {
	n            *Notifier
	name         string // its place in the configuration: the address may be a secret
	id           string // of what it is, so that a changed one is told anew
	cfg          *Target
	alertmanager bool
	client       *http.Client

	sent map[string]time.Time // by alert (Alertmanager) or group (webhook): the last telling
	said time.Time            // under the notifier's mu
}

func newTarget(n *Notifier, name string, cfg *Target, alertmanager bool) (*target, error) {
	t := &target{n: n, name: name, cfg: cfg, alertmanager: alertmanager, sent: map[string]time.Time{}}
	address, err := t.address()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(address))
	t.id = hex.EncodeToString(sum[:6])
	tls, err := secret.TLS(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	t.client = &http.Client{Timeout: requestTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: tls, MaxIdleConns: 2, IdleConnTimeout: 2 * time.Minute, ForceAttemptHTTP2: true}}
	for _, result := range []string{"taken", "failed", "refused"} {
		n.m.requests.WithLabelValues(name, result)
	}
	n.m.givenUp.WithLabelValues(name)
	return t, nil
}

// address is read each time, as files of secrets change.
func (t *target) address() (string, error) {
	address := t.cfg.URL
	if address == "" {
		var err error
		if address, err = secret.Read(t.cfg.URLEnv, t.cfg.URLFile); err != nil {
			return "", fmt.Errorf("url_file: %w", err)
		}
		if err := validURL(strings.TrimSpace(address)); err != nil {
			return "", fmt.Errorf("url_env, url_file: %w", err)
		}
	}
	address = strings.TrimSpace(address)
	if t.alertmanager {
		address = strings.TrimRight(address, "/") + "/api/v2/alerts"
	}
	return address, nil
}

// say logs a warning, at most once in a while. The notifier's mu is held.
func (t *target) say(what string, args ...any) {
	if now := time.Now(); now.Sub(t.said) > sayEvery {
		t.said = now
		t.n.log.Warn(what, append([]any{"target", t.name}, args...)...)
	}
}

func (t *target) run(ctx context.Context) {
	defer t.client.CloseIdleConnections()
	for pause := tick; sleep(ctx, pause); {
		if err := t.tell(ctx, time.Now()); err == nil {
			pause = tick
		} else if ctx.Err() == nil {
			pause = min(2*pause, longestPause)
			t.n.mu.Lock()
			t.say("a target does not take alerts; they are told again", "err", err)
			t.n.mu.Unlock()
		}
	}
}

// told is an alert as it is told, and what is noted when it was taken.
type told struct {
	Status       string            `json:"status,omitempty"` // webhooks alone
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint,omitempty"`

	p     *partition
	key   string
	state int64
	news  bool
	since time.Time
}

// all is a copy of what this target may be told of: what fires, and what it does not know of yet.
func (t *target) all(now time.Time) (all []told) {
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	for _, p := range t.n.partitions {
		for k, a := range p.alerts {
			if a.over(now) && now.Sub(a.Ends) > t.n.cfg.GiveUp {
				continue // clean gives it up
			}
			d := told{Labels: a.Labels, Annotations: a.Annotations, StartsAt: a.Starts, EndsAt: a.Ends, Fingerprint: k, p: p, key: k, state: a.state(now), since: a.changed}
			if d.news = a.Told[t.id] != d.state; d.news || !a.over(now) {
				all = append(all, d)
			}
		}
	}
	slices.SortFunc(all, func(a, b told) int { return cmp.Or(a.StartsAt.Compare(b.StartsAt), cmp.Compare(a.key, b.key)) })
	return all
}

// tell sends what is due.
func (t *target) tell(ctx context.Context, now time.Time) error {
	all := t.all(now)
	if t.alertmanager {
		return t.tellAlertmanager(ctx, all, now)
	}
	return t.tellWebhook(ctx, all, now)
}

func (t *target) tellAlertmanager(ctx context.Context, all []told, now time.Time) error {
	var due []told
	sent := map[string]time.Time{}
	for _, d := range all {
		sent[d.key] = t.sent[d.key]
		if d.news || now.Sub(sent[d.key]) >= t.n.cfg.Resend {
			if d.EndsAt.IsZero() { // it forgets what is not told again
				d.EndsAt = now.Add(4 * t.n.cfg.Resend)
			}
			d.Fingerprint = ""
			due = append(due, d)
		}
	}
	t.sent = sent
	return t.inPieces(ctx, due, func(piece []told) any { return piece }, func(piece []told) {
		for i := range piece {
			t.sent[piece[i].key] = now
		}
	})
}

// message is what Alertmanager's webhooks send.
type message struct {
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Status            string            `json:"status"`
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Alerts            []told            `json:"alerts"`
}

func (t *target) tellWebhook(ctx context.Context, all []told, now time.Time) error {
	groups := map[string][]told{}
	for _, d := range all {
		d.Status = "firing"
		if !d.EndsAt.IsZero() && !d.EndsAt.After(now) {
			d.Status = "resolved"
		}
		k, _ := json.Marshal(t.groupLabels(&d)) // of texts alone, in order
		groups[string(k)] = append(groups[string(k)], d)
	}
	sent := map[string]time.Time{}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		group := groups[k]
		var first time.Time // of the news
		for _, d := range group {
			if d.news && (first.IsZero() || d.since.Before(first)) {
				first = d.since
			}
		}
		last, ok := t.sent[k]
		if !ok {
			last = now
		}
		sent[k] = last
		if (first.IsZero() || now.Sub(first) < t.n.cfg.Wait) && now.Sub(last) < t.n.cfg.Repeat {
			continue
		}
		err := t.inPieces(ctx, group, func(piece []told) any { return t.message(k, piece) }, func([]told) { sent[k] = now })
		errs = append(errs, err)
	}
	t.sent = sent
	return errors.Join(errs...)
}

func (t *target) groupLabels(d *told) map[string]string {
	group := map[string]string{}
	for _, l := range t.n.cfg.GroupBy {
		if v := d.Labels[l]; v != "" {
			group[l] = v
		}
	}
	return group
}

func (t *target) message(groupKey string, alerts []told) message {
	m := message{Version: "4", GroupKey: groupKey, Status: "resolved", Receiver: "weir", GroupLabels: t.groupLabels(&alerts[0]), CommonLabels: maps.Clone(alerts[0].Labels), CommonAnnotations: maps.Clone(alerts[0].Annotations), Alerts: alerts}
	for i := range alerts {
		if alerts[i].Status == "firing" {
			m.Status = "firing"
		}
		common(m.CommonLabels, alerts[i].Labels)
		common(m.CommonAnnotations, alerts[i].Annotations)
	}
	return m
}

// common keeps of a what b has too.
func common(a, b map[string]string) {
	maps.DeleteFunc(a, func(k, v string) bool { w, ok := b[k]; return !ok || w != v })
}

// inPieces sends alerts in requests of bounded size, and notes who was taken. What is refused for good is sent one by one, so that one alert that a target
// will never take does not keep it from the others.
func (t *target) inPieces(ctx context.Context, due []told, body func([]told) any, done func([]told)) error {
	for piece := range slices.Chunk(due, perRequest) {
		err := t.post(ctx, body(piece))
		var no *refusal
		if errors.As(err, &no) && len(piece) > 1 {
			for one := range slices.Chunk(piece, 1) {
				if err := t.inPieces(ctx, one, body, done); err != nil {
					return err
				}
			}
			continue
		}
		if err != nil && no == nil {
			return err
		}
		t.n.mu.Lock()
		if no != nil {
			t.say("a target refuses an alert for good", "alert", piece[0].Labels["alertname"], "group", piece[0].Annotations["group"], "err", err)
		}
		for i := range piece {
			// It may have changed meanwhile: then the new state is news.
			if a := piece[i].p.alerts[piece[i].key]; a != nil && a.Told[t.id] != piece[i].state {
				a.tell(t.id, piece[i].state)
			}
		}
		t.n.mu.Unlock()
		done(piece)
	}
	return nil
}

// refusal is an answer that will be the same however often it is asked for.
type refusal struct{ error }

// post sends one request. Errors do not name the address.
func (t *target) post(ctx context.Context, v any) error {
	result := "failed"
	defer func() { t.n.m.requests.WithLabelValues(t.name, result).Inc() }()
	address, err := t.address()
	if err != nil {
		return err
	}
	token, err := secret.Read(t.cfg.TokenEnv, t.cfg.TokenFile)
	if err != nil {
		return fmt.Errorf("token_file: %w", err)
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("the address is not an http or https URL")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "weir")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := t.client.Do(r)
	if err != nil {
		var named *url.Error
		if errors.As(err, &named) {
			err = named.Err
		}
		return err
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	switch {
	case res.StatusCode/100 == 2:
		result = "taken"
		return nil
	case res.StatusCode == http.StatusBadRequest || res.StatusCode == http.StatusRequestEntityTooLarge || res.StatusCode == http.StatusUnprocessableEntity:
		result = "refused"
		return &refusal{fmt.Errorf("answers %s: %q", res.Status, said)}
	}
	return fmt.Errorf("answers %s: %q", res.Status, said)
}
