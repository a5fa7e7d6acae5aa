package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"weir/control"
	"weir/internal/secret"
)

// hooks calls webhooks. A redirect is not followed: the token is for the address that the configuration names.
type hooks struct {
	byName map[string]Webhook
	http   *http.Client
}

func newHooks(byName map[string]Webhook) *hooks {
	return &hooks{byName, &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// call posts the decision, once. The order's id is in the header Idempotency-Key.
func (h *hooks) call(ctx context.Context, d *control.Decision) error {
	hook, ok := h.byName[d.Order.Args["hook"]]
	if !ok {
		return fmt.Errorf("there is no webhook %q in executor.webhooks", d.Order.Args["hook"])
	}
	body, err := json.Marshal(struct {
		Text string `json:"text"`
		*control.Decision
	}{d.Sentence(), d})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", d.Order.ID)
	if hook.TokenFile != "" {
		token, err := secret.Read("", hook.TokenFile)
		if err != nil {
			return fmt.Errorf("token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := h.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the webhook answers %s", res.Status)
	}
	return nil
}
