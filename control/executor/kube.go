package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"weir/control"
	"weir/internal/secret"
)

// cluster asks the Kubernetes API, for pods and nodes, over net/http (docs/decisions/0006).
type cluster struct{ cfg Kubernetes }

func newCluster(cfg Kubernetes) *cluster { return &cluster{cfg} }

var errNotThere = errors.New("the Kubernetes API has no such object")

// object is the part of a pod or a node that is used.
type object struct {
	Metadata struct {
		UID               string            `json:"uid"`
		ResourceVersion   string            `json:"resourceVersion"`
		DeletionTimestamp string            `json:"deletionTimestamp"`
		Labels            map[string]string `json:"labels"`
		Annotations       map[string]string `json:"annotations"`
		OwnerReferences   []struct {
			Kind string `json:"kind"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		Unschedulable bool    `json:"unschedulable"`
		Taints        []taint `json:"taints"`
	} `json:"spec"`
}

type taint struct {
	Key       string `json:"key"`
	Value     string `json:"value,omitempty"`
	Effect    string `json:"effect"`
	TimeAdded string `json:"timeAdded,omitempty"`
}

func podPath(s *control.Subject) string {
	return "/api/v1/namespaces/" + url.PathEscape(s.Namespace) + "/pods/" + url.PathEscape(s.Pod)
}

func nodePath(s *control.Subject) string { return "/api/v1/nodes/" + url.PathEscape(s.Node) }

func target(d *control.Decision) string {
	if d.Action == control.DeletePod || d.Action == control.Annotate && d.Subject.Pod != "" {
		return podPath(d.Subject)
	}
	return nodePath(d.Subject)
}

// look tells whether there is nothing to do, or it must not be done.
func (c *cluster) look(ctx context.Context, d *control.Decision) (verdict, reason string) {
	o, err := c.get(ctx, target(d))
	s := d.Subject
	switch {
	case errors.Is(err, errNotThere):
		return control.OutcomePassed, "it is gone"
	case err != nil:
		return control.OutcomeRefused, err.Error()
	case o.Metadata.Labels[control.OptOutLabel] == control.OptOut || o.Metadata.Annotations[control.OptOutLabel] == control.OptOut:
		return control.OutcomeRefused, "its label or annotation " + control.OptOutLabel + " is " + control.OptOut
	case d.Action == control.DeletePod && s.Namespace == "kube-system":
		return control.OutcomeRefused, "pods of kube-system are not deleted"
	case d.Action == control.DeletePod && o.Metadata.UID != s.PodUID:
		return control.OutcomePassed, "another pod has its name now"
	case d.Action == control.DeletePod && o.Metadata.DeletionTimestamp != "":
		return control.OutcomePassed, "it is being deleted"
	case d.Action == control.DeletePod && len(o.Metadata.OwnerReferences) == 0:
		return control.OutcomeRefused, "nothing would make the pod anew"
	case d.Action == control.Cordon && o.Spec.Unschedulable:
		return control.OutcomePassed, "it is cordoned"
	case d.Action == control.Taint && slices.ContainsFunc(o.Spec.Taints, func(t taint) bool { return t.Key == d.Order.Args["key"] && t.Effect == d.Order.Args["effect"] }):
		return control.OutcomePassed, "it has the taint"
	}
	return "", ""
}

// act changes the object. A deletion names the pod's uid, a taint the version of the node that was looked at.
func (c *cluster) act(ctx context.Context, d *control.Decision) error {
	args := d.Order.Args
	patch := func(v any) error { return c.do(ctx, http.MethodPatch, target(d), v, nil) }
	type m = map[string]any
	switch d.Action {
	case control.DeletePod:
		return c.do(ctx, http.MethodDelete, target(d), m{"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": m{"uid": d.Subject.PodUID}}, nil)
	case control.Cordon:
		return patch(m{"spec": m{"unschedulable": true}})
	case control.Annotate:
		return patch(m{"metadata": m{"annotations": m{args["key"]: args["value"]}}})
	case control.Taint:
		o, err := c.get(ctx, target(d))
		if err != nil {
			return err
		}
		taints := append(o.Spec.Taints, taint{Key: args["key"], Value: args["value"], Effect: args["effect"]})
		return patch(m{"metadata": m{"resourceVersion": o.Metadata.ResourceVersion}, "spec": m{"taints": taints}})
	}
	return fmt.Errorf("action %q is not known here", d.Action)
}

func (c *cluster) get(ctx context.Context, path string) (*object, error) {
	o := new(object)
	return o, c.do(ctx, http.MethodGet, path, nil, o)
}

// The most that is read of an answer, and the time of one request.
const (
	kubeAnswer  = 4 << 20
	kubeTimeout = 15 * time.Second
)

func (c *cluster) do(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, kubeTimeout)
	defer cancel()
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.cfg.API, "/")+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "weir")
	switch method {
	case http.MethodPatch:
		req.Header.Set("Content-Type", "application/merge-patch+json")
	case http.MethodDelete:
		req.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.TokenFile != "" {
		token, err := secret.Read("", c.cfg.TokenFile)
		if err != nil {
			return fmt.Errorf("executor.kubernetes.token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the Kubernetes API: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, kubeAnswer))
	switch {
	case res.StatusCode == http.StatusNotFound:
		return errNotThere
	case res.StatusCode/100 != 2:
		var s struct {
			Reason  string `json:"reason"`
			Message string `json:"message"`
		}
		_ = json.Unmarshal(b, &s) // a proxy's answer is not the API's
		return fmt.Errorf("the Kubernetes API answers %d %.60s: %.500s", res.StatusCode, s.Reason, s.Message)
	case err != nil:
		return fmt.Errorf("answer of the Kubernetes API: %w", err)
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("answer of the Kubernetes API: %w", err)
	}
	return nil
}

// client is made for each request: they are few, and the authorities' file may change.
func (c *cluster) client() (*http.Client, error) {
	t, err := secret.TLS(c.cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("executor.kubernetes.%w", err)
	}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil // the token is for this server
}
