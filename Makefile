GO ?= go
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)
STACK = deployments/dev/stack

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/weir
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X weir/internal/cli.version=$(VERSION)' -o bin/weir ./cmd/weir

image: build ## bin/weir-image.tar for `docker load` or `ctr images import`, and the list of its parts; the same commit gives the same bytes
	$(GO) run ./internal/image -tag weir:$(VERSION)

run: build ## weir on this machine alone: an embedded broker, this host's containers or pretended ones; Ctrl-C stops it
	bin/weir up

run-stack: build stack-up ## the same on the real Kafka, Elasticsearch and HDFS
	eval "$$($(STACK) env)" && exec bin/weir up

test: lint ## lint, and the fast suite under the race detector; needs Go alone
	$(GO) test -race ./...

lint: ## format check, vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "run gofmt -w on: $$unformatted"; exit 1; }
	$(GO) vet ./... ./testdata/e2e/writer
	$(GO) vet -tags e2e,k8s ./internal/e2e
	$(GO) vet -tags e2e ./internal/e2e ./internal/cli ./ingest ./archiver/... ./indexer/... ./agent/kube ./internal/search ./internal/kibana ./internal/status ./internal/monitor
	$(GO) tool staticcheck ./...

e2e: stack-up ## ten real containers through the real servers, with kills on the way; counts every line at every end
	@eval "$$($(STACK) env)"; status=0; \
	$(GO) test -tags e2e -count=1 -timeout 30m -v ./ingest ./archiver/... ./indexer ./agent/kube ./internal/cli ./internal/search ./internal/kibana ./internal/status ./internal/monitor ./internal/e2e 2>&1 | tee .stack/log/e2e.log || status=1; \
	grep '^RESULT e2e ' .stack/log/e2e.log || { echo "RESULT e2e finished=0"; status=1; }; exit $$status

manifests: ## reads deployments/kubernetes strictly with Kubernetes' own types
	cd deployments/dev/kubernetes && $(GO) test -count=1 .

KUBERNETES = $(abspath .stack/dist/kubernetes)

e2e-k8s: ## a one-node Kubernetes, built here (five minutes, once), that runs weir by its manifests; counts what pods write through an update and an eviction
	@deployments/dev/kubernetes/build $(KUBERNETES); $(STACK) up kafka elasticsearch hdfs docker && eval "$$($(STACK) env)"; export WEIR_KUBERNETES=$(KUBERNETES) WEIR_KUBE_APISERVER=$(KUBERNETES)/kube-apiserver; status=0; \
	$(GO) test -tags e2e,k8s -count=1 -timeout 20m -v -p 1 -run 'TestKubernetes|TestRealAPI' ./agent/kube ./internal/e2e 2>&1 | tee .stack/log/e2e-k8s.log || status=1; \
	grep '^RESULT e2e-k8s ' .stack/log/e2e-k8s.log || { echo "RESULT e2e-k8s finished=0"; status=1; }; exit $$status

soak: stack-up ## a storm of containers, kills of the agent and a restart of Kafka, for SOAK=5m; wants every line or its loss record
	@eval "$$($(STACK) env)"; export WEIR_SOAK=$${SOAK:-5m}; status=0; \
	$(GO) test -tags e2e -count=1 -timeout 60m -v -run TestSoak ./internal/e2e 2>&1 | tee .stack/log/soak.log || status=1; \
	grep '^RESULT soak ' .stack/log/soak.log || { echo "RESULT soak finished=0"; status=1; }; exit $$status

# The promise is for 200-byte records: 150 ns each way between a record and its OTLP bytes.
bench: ## benchmarks of the hot path; compare two outputs with `go tool benchstat`
	@$(GO) test -run '^$$' -bench . -benchmem ./schema ./agent ./indexer ./archiver | tee bench.txt | grep -v '^\(PASS\|goos\|goarch\)'; \
	awk '/^BenchmarkEncode/ {e = $$5} /^BenchmarkDecode/ {d = $$5} /^BenchmarkLineToRecord/ {l = $$3} /^BenchmarkDocument/ {j = $$3} \
	END {ok = e > 0 && d > 0 && e <= 150 && d <= 150; \
	printf "RESULT bench encode_ns=%s decode_ns=%s line_to_record_ns=%s document_ns=%s aim_ns=150 ok=%d\n", e, d, l, j, ok; exit !ok}' bench.txt

bench-agent: build ## the agent against a real Kafka: a gigabyte beside kcat, idling, latency; docs/performance.md has the figures
	@$(STACK) up kafka && eval "$$($(STACK) env)" && $(GO) run ./internal/bench

bench-search: ## `weir search --archive` on a gigabyte of lines in a folder; docs/performance.md has the figures
	@$(GO) run ./internal/bench -only search

bench-indexer: build ## the indexer from a filled topic into a real Elasticsearch, beside a bare loop; search latency; docs/performance.md has the figures
	@$(STACK) up kafka elasticsearch docker && eval "$$($(STACK) env)" && $(GO) run ./internal/bench -only indexer -elasticsearch-pid "$$(cut -d' ' -f1 "$${WEIR_STACK_DIR:-.stack}/run/elasticsearch.pid")"

bench-archiver: build ## the archiver from a filled topic into HDFS, beside gzip and zstd; Spark and searches on what it wrote; docs/performance.md has the figures
	@$(STACK) up kafka namenode datanode && eval "$$($(STACK) env)" && $(GO) run ./internal/bench -only archiver

bench-processor: build ## counting alone, with rules and with patterns; restoring a million groups; latency from Kafka to signal
	@$(STACK) up kafka && eval "$$($(STACK) env)" && $(GO) run ./internal/bench -only processor

generate: ## Kibana's objects and the table of fields in docs/search.md, which are made from code; docs/metrics.md; Grafana's dashboards
	$(GO) test ./internal/kibana -run TestGenerated -update
	$(GO) test ./internal/cli -run TestMetrics -update
	$(GO) test ./internal/monitor -run TestGenerated -update

fuzz: ## each fuzz target for a minute
	$(GO) test -fuzz FuzzDecode -fuzztime 1m ./schema
	$(GO) test -fuzz FuzzAppend -fuzztime 1m -fuzzminimizetime 20x ./internal/zstdfast
	$(GO) test -fuzz FuzzSeenBinary -fuzztime 1m ./ingest
	$(GO) test -fuzz FuzzParseLine -fuzztime 1m ./agent
	$(GO) test -fuzz FuzzParseCRI -fuzztime 1m ./agent
	$(GO) test -fuzz FuzzDecoder -fuzztime 1m ./agent
	$(GO) test -fuzz FuzzTimestamp -fuzztime 1m ./agent
	$(GO) test -fuzz FuzzEvents -fuzztime 1m ./agent/kube
	$(GO) test -fuzz FuzzLine -fuzztime 1m -fuzzminimizetime 5x ./agent/parse
	$(GO) test -fuzz FuzzContinues -fuzztime 1m ./agent/multiline
	$(GO) test -fuzz FuzzRedact -fuzztime 1m -fuzzminimizetime 200x ./agent/redact
	$(GO) test -fuzz FuzzAppendJSON -fuzztime 1m ./indexer
	$(GO) test -fuzz FuzzAppendObject -fuzztime 1m -fuzzminimizetime 200x ./indexer
	$(GO) test -fuzz FuzzDocument -fuzztime 1m -fuzzminimizetime 200x ./indexer
	$(GO) test -fuzz FuzzParseKQL -fuzztime 1m ./archiver/read
	$(GO) test -fuzz FuzzWrite -fuzztime 1m ./processor/patterns
	$(GO) test -fuzz FuzzRestore -fuzztime 1m ./processor/patterns
	$(GO) test -fuzz FuzzTracker -fuzztime 1m ./processor/lives

stack-up: ## start the real Kafka, Elasticsearch, HDFS, Spark and Docker engine on loopback
	$(STACK) up
stack-down: ## stop them
	$(STACK) down
stack-status: ## show them
	$(STACK) status

clean: ## delete what make built; the stack's downloads and data stay in .stack
	rm -rf bin

.PHONY: bench-search manifests e2e-k8s image bench-indexer bench-archiver bench-processor help build run run-stack test lint e2e soak bench fuzz bench-agent stack-up stack-down stack-status clean generate
