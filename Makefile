GO ?= go

.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: ## format check, vet, and the fast suite under the race detector; needs Go alone
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "run gofmt -w on: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) test -race ./...

bench: ## benchmarks of the hot path
	$(GO) test -run '^$$' -bench . -benchmem ./schema ./agent

fuzz: ## each fuzz target for a minute
	$(GO) test -fuzz FuzzDecode -fuzztime 1m ./schema
	$(GO) test -fuzz FuzzSeenBinary -fuzztime 1m ./ingest

stack-up: ## start the real Kafka, Elasticsearch, HDFS, Spark and Docker engine
	deployments/dev/stack up
stack-down: ## stop them
	deployments/dev/stack down
stack-status: ## show them
	deployments/dev/stack status

.PHONY: help test bench fuzz stack-up stack-down stack-status
