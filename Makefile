GO ?= go
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)
STACK = deployments/dev/stack

.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/weir
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X weir/internal/cli.version=$(VERSION)' -o bin/weir ./cmd/weir

run: build ## weir on this machine alone: an embedded broker, this host's containers or pretended ones; Ctrl-C stops it
	bin/weir up

run-stack: build stack-up ## the same on the real Kafka, Elasticsearch and HDFS
	eval "$$($(STACK) env)" && exec bin/weir up

test: lint ## lint, and the fast suite under the race detector; needs Go alone
	$(GO) test -race ./...

lint: ## format check, vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "run gofmt -w on: $$unformatted"; exit 1; }
	$(GO) vet ./... ./testdata/e2e/writer
	$(GO) vet -tags e2e ./internal/e2e ./archiver ./indexer
	$(GO) tool staticcheck ./...

e2e: stack-up ## ten real containers through the real servers, with kills on the way; counts every line at every end
	eval "$$($(STACK) env)" && $(GO) test -tags e2e -count=1 -timeout 20m -v ./archiver ./indexer ./internal/e2e

bench: ## benchmarks of the hot path; compare two outputs with `go tool benchstat`
	$(GO) test -run '^$$' -bench . -benchmem ./schema ./agent ./ingest ./indexer

fuzz: ## each fuzz target for a minute
	$(GO) test -fuzz FuzzDecode -fuzztime 1m ./schema
	$(GO) test -fuzz FuzzSeenBinary -fuzztime 1m ./ingest
	$(GO) test -fuzz FuzzParseLine -fuzztime 1m ./agent
	$(GO) test -fuzz FuzzAppendJSON -fuzztime 1m ./indexer

stack-up: ## start the real Kafka, Elasticsearch, HDFS, Spark and Docker engine on loopback
	$(STACK) up
stack-down: ## stop them
	$(STACK) down
stack-status: ## show them
	$(STACK) status

clean: ## delete what make built; the stack's downloads and data stay in .stack
	rm -rf bin

.PHONY: help build run run-stack test lint e2e bench fuzz stack-up stack-down stack-status clean
