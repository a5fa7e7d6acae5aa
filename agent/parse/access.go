package parse

import "bytes"

// request is what an access line says of a request; what it does not say is empty.
type request struct {
	method, path, client []byte
	status               int64
}

// set fills the fields. The query of a URL is left out of url.path, by OpenTelemetry's definition of it.
func (r *request) set(f *Fields) {
	f.Format = Access
	f.setSeverity(statusSeverity(r.status))
	if len(r.method) > 0 {
		f.attr(AttrMethod, r.method)
	}
	if r.status >= 100 {
		f.attrInt(AttrStatus, r.status)
	}
	if len(r.path) > 0 {
		f.attr(AttrPath, r.path)
	}
	if len(r.client) > 0 {
		f.attr(AttrClient, r.client)
	}
}

// access reads Apache's common log format, client ident user [time] "request" status bytes, and nginx's combined
// format, which adds the referer and the agent. Of ident only "-" is accepted, which is all that servers write today.
func access(b []byte, f *Fields) bool {
	var r request
	client, rest, ok := until(b, ' ', 64)
	if !ok || len(rest) < 2 || rest[0] != '-' || rest[1] != ' ' {
		return false
	}
	if len(client) != 1 || client[0] != '-' {
		r.client = client
	}
	_, rest, ok = until(rest[2:], '[', 256)
	if !ok || len(rest) < 28 || rest[2] != '/' || rest[6] != '/' || rest[11] != ':' || rest[26] != ']' {
		return false
	}
	if _, ok = r.line(rest[27:]); !ok {
		return false
	}
	r.set(f)
	return true
}

// envoy reads Envoy's default format, [time] "method path protocol" status flags received sent duration upstream-time
// "forwarded-for" "agent" "request-id" "authority" "upstream", and Istio's, which has one more quoted field before
// these. The client is the first address of forwarded-for.
func envoy(b []byte, f *Fields) bool {
	if !shaped(b, "[0000-00-00T00:00:00") {
		return false
	}
	_, rest, ok := until(b, ']', 40)
	if !ok {
		return false
	}
	var r request
	rest, ok = r.line(rest)
	if !ok {
		return false
	}
	for range 2 {
		quoted, after, ok := quotedField(rest)
		if !ok {
			break
		}
		rest = after
		if c := bytes.IndexByte(quoted, ','); c >= 0 {
			quoted = quoted[:c]
		}
		if address(quoted) {
			r.client = quoted
			break
		}
	}
	r.set(f)
	return true
}

// line reads ` "method path protocol" status`. Servers log what they were sent, so the part in quotes may be anything;
// the status must be a number.
func (r *request) line(b []byte) (rest []byte, ok bool) {
	if len(b) < 2 || b[0] != ' ' || b[1] != '"' {
		return nil, false
	}
	end := valueEnd(b, 2)
	if end < 0 {
		return nil, false
	}
	line, rest := b[2:end], b[end+1:]
	if len(rest) < 2 || rest[0] != ' ' {
		return nil, false
	}
	rest = rest[1:]
	n := 0
	for n < len(rest) && n < 4 && digit(rest[n]) {
		n++
	}
	if n == 0 || n > 3 || n < len(rest) && rest[n] != ' ' {
		return nil, false
	}
	r.status, _ = decimal(rest[:n])
	r.target(line)
	return rest[n:], true
}

func (r *request) target(line []byte) {
	n := 0
	for n < len(line) && upper(line[n]) {
		n++
	}
	if n < 3 || n > 16 || n >= len(line) || line[n] != ' ' {
		return
	}
	r.method = line[:n]
	path := line[n+1:]
	if len(path) == 0 || path[0] != '/' {
		return
	}
	for i, c := range path {
		if c == ' ' || c == '?' || c == '#' {
			path = path[:i]
			break
		}
	}
	r.path = path
}

// quotedField gives the next field in quotes and what follows it.
func quotedField(b []byte) (quoted, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '"')
	if i < 0 {
		return nil, nil, false
	}
	end := valueEnd(b, i+1)
	if end < 0 {
		return nil, nil, false
	}
	return b[i+1 : end], b[end+1:], true
}

// address says whether b looks like an IP address: it consists of nothing else and has the separators of one.
func address(b []byte) bool {
	if len(b) < 2 || len(b) > 45 {
		return false
	}
	separators := 0
	for _, c := range b {
		if c == '.' || c == ':' {
			separators++
		} else if hexDigits[c] > 15 {
			return false
		}
	}
	return separators >= 2
}
