// Package elastictest starts real Elasticsearch nodes for tests that need settings of their own, or a node to kill.
package elastictest
