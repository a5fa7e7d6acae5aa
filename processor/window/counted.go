package window

import (
	"fmt"
	"strings"
	"time"

	"weir/processor/signal"
	"weir/schema"
)

// counted is the signal of a window's counts. added are the lines that no earlier signal of the window counted.
func (m *Machine) counted(g *group, end int64, p *Pane, revision, added int64) signal.Signal {
	r := g.rule.rule
	s := m.signal(g, r, signal.Point, end-int64(r.Window), end, revision)
	s.Value = float64(p.at(Count))
	s.Subject = append(s.Subject, schema.Int("weir.window.seconds", int64(r.Window/time.Second)), schema.Int("weir.window.lines_added", added))
	for i, name := range countAttrs {
		if v := p.at(i); name != "" && (v != 0 || i == Count || i == Bytes) {
			s.Subject = append(s.Subject, schema.Int(name, v))
		}
	}
	if len(p.Set) > 0 {
		s.Subject = append(s.Subject, schema.Int("weir.window.error_patterns", int64(len(p.Set))))
	}
	if p.More {
		s.Subject = append(s.Subject, schema.Bool("weir.window.error_patterns_more", true))
	}
	if n := p.at(Ready); n > 0 {
		s.Subject = append(s.Subject, schema.Double("weir.window.ready_seconds", time.Duration(p.at(ReadyNanos)/n).Seconds()))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d lines, %d bytes", m.title(g, s), p.at(Count), p.at(Bytes))
	for _, part := range [...]struct {
		count int64
		what  string
	}{{p.at(Error) + p.at(Fatal), "errors"}, {p.at(Starts), "starts"}, {p.at(Exits), "exits"}, {p.at(OOMKills), "OOM kills"}} {
		if part.count > 0 {
			fmt.Fprintf(&b, ", %d %s", part.count, part.what)
		}
	}
	fmt.Fprintf(&b, " in %s", r.Window)
	s.Body = b.String()
	return s
}

// title names a group for people.
func (m *Machine) title(g *group, s signal.Signal) string {
	if vs := values(g.key); len(vs) == 1 && vs[0] != "" {
		if name := s.Attr(schema.AttrContainerName); name != "" && g.rule.rule.By[0].Name == "container_id" {
			return name
		}
		return vs[0]
	}
	if s.Group == "" {
		return "all"
	}
	return s.Group
}
