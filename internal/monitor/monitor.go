// Package monitor makes weir's dashboards for Grafana from dashboards.yaml, and holds them and the rules of deployments/prometheus to the metrics that there are.
package monitor
