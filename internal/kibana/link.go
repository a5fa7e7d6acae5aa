// Package kibana makes weir's data views, searches and dashboards, brings them into Kibana, and knows the addresses of its pages.
package kibana

import (
	"net/url"
	"strings"

	"weir/internal/config"
)

// DiscoverURL is the address of a search in Discover. from and to are what Kibana's time picker takes: times in RFC 3339, or such as
// now-1h. It is empty where no Kibana is configured.
func DiscoverURL(cfg config.Kibana, kql, from, to string) string {
	if cfg.URL == "" {
		return ""
	}
	view := cfg.DataView
	if view == "" {
		view = ID(cfg.Space, "all")
	}
	return address(cfg) + "/app/discover#/?_g=(filters:!(),time:(from:" + rison(from) + ",to:" + rison(to) + "))" +
		"&_a=(dataSource:(dataViewId:" + rison(view) + ",type:dataView),filters:!(),index:" + rison(view) + // index is what Kibana before 8.14 reads
		",query:(language:kuery,query:" + rison(kql) + "),sort:!(!('@timestamp',desc)))"
}

// DashboardURL is the address of one of weir's dashboards.
func DashboardURL(cfg config.Kibana, name string) string {
	return address(cfg) + "/app/dashboards#/view/" + ID(cfg.Space, name)
}

// address is what the addresses of a space begin with.
func address(cfg config.Kibana) string {
	base := strings.TrimRight(cfg.URL, "/")
	if cfg.Space != "" && cfg.Space != "default" {
		base += "/s/" + url.PathEscape(cfg.Space)
	}
	return base
}

// rison writes a string in the notation of Kibana's addresses: in single quotes, with ! before a quote and before itself.
func rison(s string) string {
	s = strings.NewReplacer("!", "!!", "'", "!'").Replace(strings.ToValidUTF8(s, "\ufffd"))
	return "'" + strings.ReplaceAll(url.QueryEscape(s), "+", "%20") + "'"
}
