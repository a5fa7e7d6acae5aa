package kibana

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"weir/internal/config"
	"weir/internal/secret"
)

// Client speaks to one space of one Kibana.
type Client struct {
	cfg  config.Kibana
	http *http.Client
	auth string
}

// timeout is of one request; an import of weir's objects takes Kibana about a second.
const timeout = time.Minute

// Connect prepares a client; nothing is sent yet.
func Connect(cfg config.Kibana) (*Client, error) {
	if cfg.URL == "" {
		return nil, errors.New("kibana.url: is empty; set it, or WEIR_KIBANA_URL")
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("kibana.%w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	var err error
	if transport.TLSClientConfig, err = secret.TLS(cfg.CAFile); err != nil {
		return nil, fmt.Errorf("kibana.%w", err)
	}
	c := &Client{cfg: cfg, http: &http.Client{Transport: transport, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}} // to a login page, of which nothing is to be had
	if c.auth, err = (secret.Credentials{Username: cfg.Username, PasswordEnv: cfg.PasswordEnv, PasswordFile: cfg.PasswordFile, APIKeyEnv: cfg.APIKeyEnv, APIKeyFile: cfg.APIKeyFile}).Header(); err != nil {
		return nil, fmt.Errorf("kibana.%w", err)
	}
	return c, nil
}

// Close ends the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// maxAnswer bounds what is read of an answer; the longest is all tags of a space.
const maxAnswer = 64 << 20

// call sends one request and returns what a Kibana answered with 2xx.
func (c *Client) call(ctx context.Context, method, url, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("kbn-xsrf", "weir") // Kibana takes no change without it
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.auth != "" {
		req.Header.Set("Authorization", c.auth)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("kibana: %w", err) // names method and URL
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("kibana: %s %s: %w", method, url, err)
	}
	switch {
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("kibana: %s %s: the answer is longer than %d bytes", method, url, maxAnswer)
	case res.StatusCode/100 == 2:
		return answer, nil
	case res.StatusCode/100 == 3:
		return nil, fmt.Errorf("kibana: %s %s: status %d leads to %q: kibana.url is not where Kibana answers, or something before it asks for a login", method, url, res.StatusCode, res.Header.Get("Location"))
	case res.StatusCode == http.StatusUnauthorized && c.auth == "":
		return nil, fmt.Errorf("kibana: %s %s: status 401: credentials are needed: set kibana.api_key_file, or kibana.username and password_file", method, url)
	case res.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("kibana: %s %s: status 401: the credentials are refused: %s", method, url, said(answer))
	case res.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("kibana: %s %s: status 403: the role needs all privileges on Saved Objects Management in this space: %s", method, url, said(answer))
	}
	return nil, fmt.Errorf("kibana: %s %s: status %d: %s", method, url, res.StatusCode, said(answer))
}

// said is the message of an answer, or the beginning of what is none.
func said(answer []byte) string {
	var e struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &e) == nil && e.Message != "" {
		return e.Message
	}
	return fmt.Sprintf("%.200q", answer)
}

// Installed is what a space has of weir's.
type Installed struct {
	Kibana  string // its version; empty where it does not tell
	Found   bool
	Version int // of weir's objects; 0 where Found and somebody changed the tag that tells
}

// oldest is the first version of Kibana that takes the objects.
const oldestMajor, oldestMinor = 8, 9

// Look asks what is there.
func (c *Client) Look(ctx context.Context) (Installed, error) {
	var in Installed
	status, err := c.call(ctx, http.MethodGet, strings.TrimRight(c.cfg.URL, "/")+"/api/status", "", nil)
	if err != nil {
		return in, err
	}
	var s struct {
		Version struct {
			Number string `json:"number"`
		} `json:"version"`
		Status struct {
			Overall struct {
				Level string `json:"level"`
			} `json:"overall"`
		} `json:"status"`
	}
	if err := json.Unmarshal(status, &s); err != nil || s.Status.Overall.Level == "" {
		return in, fmt.Errorf("kibana.url: %s is not a Kibana: /api/status answers %.100q", c.cfg.URL, status)
	}
	in.Kibana = s.Version.Number
	var major, minor int
	if n, _ := fmt.Sscanf(in.Kibana, "%d.%d", &major, &minor); n == 2 && (major < oldestMajor || major == oldestMajor && minor < oldestMinor) {
		return in, fmt.Errorf("kibana: version %s is older than %d.%d, the first that takes weir's objects", in.Kibana, oldestMajor, oldestMinor)
	}
	// All tags, because to ask for one that is not there is an error like any other.
	tags, err := c.call(ctx, http.MethodPost, address(c.cfg)+"/api/saved_objects/_export", "application/json", []byte(`{"type":["tag"],"excludeExportDetails":true}`))
	if err != nil {
		return in, err
	}
	lines := bufio.NewScanner(bytes.NewReader(tags))
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		var o Object
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return in, fmt.Errorf("kibana: the export of tags has a line that is no object: %w: %.100q", err, lines.Bytes())
		}
		if o.Type == "tag" && o.ID == ID(c.cfg.Space, "tag") {
			in.Found = true
			about, _ := o.Attributes["description"].(string)
			if m := versionForm.FindStringSubmatch(about); m != nil {
				in.Version, _ = strconv.Atoi(m[1])
			}
		}
	}
	return in, lines.Err()
}

var versionForm = regexp.MustCompile(`version (\d{1,9})\b`)

// Refused says why an import would write over what it does not know; it is nil where it would not.
func (in *Installed) Refused() error {
	switch {
	case in.Version > Version():
		return fmt.Errorf("kibana has version %d of weir's objects, newer than this build's %d: use the newer build, or overwrite with --force", in.Version, Version())
	case in.Found && in.Version == 0:
		return errors.New("kibana has weir's objects, and the description of the tag weir, which tells their version, was changed: overwrite with --force")
	}
	return nil
}

// answer is what an import says.
type answer struct {
	Success      *bool `json:"success"`
	SuccessCount int   `json:"successCount"`
	Results      []struct {
		Type          string `json:"type"`
		ID            string `json:"id"`
		DestinationID string `json:"destinationId"`
	} `json:"successResults"`
	Errors []failure `json:"errors"`
}

type failure struct {
	Type  string `json:"type"`
	ID    string `json:"id"`
	Error struct {
		Type       string `json:"type"`
		Message    string `json:"message"`
		Reason     string `json:"reason"`
		Status     int    `json:"statusCode"`
		References []struct {
			Type string `json:"type"`
			ID   string `json:"id"`
		} `json:"references"`
	} `json:"error"`
}

// Import writes the objects over those that are there. The error joins what Kibana says of each object that it did not take.
func (c *Client) Import(ctx context.Context, all []Object) error {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "weir.ndjson") // Kibana wants the ending
	if err != nil {
		return err
	}
	_, _ = file.Write(NDJSON(all)) // to memory
	if err := form.Close(); err != nil {
		return err
	}
	path := address(c.cfg) + "/api/saved_objects/_import?overwrite=true"
	b, err := c.call(ctx, http.MethodPost, path, form.FormDataContentType(), body.Bytes())
	if err != nil {
		return err
	}
	var a answer
	if err := json.Unmarshal(b, &a); err != nil || a.Success == nil {
		return fmt.Errorf("kibana: %s answers what is not the result of an import: %.200q", path, b)
	}
	var errs []error
	named := map[[2]string]*Object{}
	for i := range all {
		named[[2]string{all[i].Type, all[i].ID}] = &all[i]
	}
	for i := range a.Errors {
		errs = append(errs, a.Errors[i].explain(named))
	}
	for _, r := range a.Results {
		if r.DestinationID != "" && r.DestinationID != r.ID {
			errs = append(errs, fmt.Errorf("%s %s: Kibana gave it the id %s, because another space has an object of this id; weir's links do not find it", r.Type, r.ID, r.DestinationID))
		}
	}
	if len(errs) == 0 && (!*a.Success || a.SuccessCount != len(all)) {
		errs = append(errs, errors.New("and Kibana does not say which"))
	}
	if len(errs) > 0 {
		return fmt.Errorf("kibana: %d of %d objects were imported: %w", a.SuccessCount, len(all), errors.Join(errs...))
	}
	return nil
}

func (f *failure) explain(named map[[2]string]*Object) error {
	name := f.Type + " " + f.ID
	if o := named[[2]string{f.Type, f.ID}]; o != nil {
		name += fmt.Sprintf(" (%s)", o.Title())
	}
	switch f.Error.Type {
	case "conflict", "ambiguous_conflict":
		return fmt.Errorf("%s: %s: several objects could be meant, or it belongs to another space; delete them, or import into another space", name, f.Error.Type)
	case "missing_references":
		var missing []string
		for _, r := range f.Error.References {
			missing = append(missing, r.Type+" "+r.ID)
		}
		return fmt.Errorf("%s: refers to what is not there: %s", name, strings.Join(missing, ", "))
	case "unsupported_type":
		return fmt.Errorf("%s: this Kibana has no objects of type %s", name, f.Type)
	}
	return fmt.Errorf("%s: %s: %s", name, f.Error.Type, strings.TrimSpace(strings.Join([]string{f.Error.Message, f.Error.Reason}, " ")))
}
