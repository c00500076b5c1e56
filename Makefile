# Everything here needs Go, make and git, nothing else: the tools are pinned in
# tools/go.mod and run by `go tool`, so they add nothing to what the product
# depends on.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
GO          ?= go
TOOL        := $(GO) tool -modfile=tools/go.mod
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Say what can be made.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/edgewalk.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X github.com/edgewalk/edgewalk/internal/buildinfo.version=$(VERSION)' -o bin/edgewalk ./cmd/edgewalk

.PHONY: run
run: build ## Build, then run a control plane and an edge on this machine.
	bin/edgewalk dev

.PHONY: test
test: ## Run the tests a change needs: all but the slow ones.
	$(GO) test -short -race ./...
	$(GO) test -run '^TestHitAllocatesNothing$$' ./edgeagent/internal/edgehttp

.PHONY: test-long
test-long: ## Run every test, the slow ones too.
	$(GO) test -race -timeout 60m ./...
	$(GO) test -run '^$$' -fuzz '^FuzzHead$$' -fuzztime 1m ./edgeagent/internal/front
	$(GO) test -run '^$$' -fuzz '^FuzzH2$$' -fuzztime 1m ./edgeagent/internal/front
	$(GO) test -run '^$$' -fuzz '^FuzzHPACK$$' -fuzztime 1m ./edgeagent/internal/front
	$(GO) test -run '^$$' -fuzz '^FuzzReply$$' -fuzztime 1m ./edgeagent/internal/origin/http1
	$(GO) test -run '^$$' -fuzz '^FuzzOpen$$' -fuzztime 1m ./internal/seal
	$(GO) test -run '^$$' -fuzz '^FuzzText$$' -fuzztime 1m ./internal/apitoken
	$(GO) test -run '^$$' -fuzz '^FuzzParse$$' -fuzztime 1m ./internal/jointoken
	cd release && $(GO) test -timeout 30m ./...
	cd deploy/check && $(GO) test -timeout 30m ./...

SOAK ?= 30m

.PHONY: soak
soak: ## Kill, stop and restart everything at random for SOAK (30m), and hold all promises against it.
	$(GO) test -count=1 -timeout $$(( $(patsubst %m,%,$(SOAK)) + 10 ))m -v -run TestSoak ./e2e -soak $(SOAK)

.PHONY: pictures
pictures: ## Take pictures of every page of the dashboard in bin/pictures, and of the usual ones in docs/pictures.
	$(GO) test -count=1 -run '^TestDashboard$$/^pages$$' ./e2e -pictures $(CURDIR)/bin/pictures -pictures.docs $(CURDIR)/docs/pictures

.PHONY: bench
bench: ## Run the Go benchmarks; `go run ./bench --help` measures the binary beside nginx and Varnish.
	$(GO) test -run '^$$' -bench . -benchmem ./...
	@echo 'The binary beside nginx and Varnish: go run ./bench --help'

.PHONY: performance
performance: ## Measure, and write docs/performance.md and README's summary: 20 minutes on a machine that does nothing else.
	$(GO) run ./bench report

.PHONY: lint
lint: ## Check format, vet, staticcheck and the protos.
	@unformatted=$$(git ls-files -co --exclude-standard -z '*.go' | xargs -0 gofmt -l); \
	if [[ -n $$unformatted ]]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	cd release && $(GO) vet ./...
	$(TOOL) staticcheck ./...
	tools/generate.sh --deps-only
	$(TOOL) buf lint
	$(TOOL) buf format --diff --exit-code --path proto/edgewalk

.PHONY: vulncheck
vulncheck: ## Report known vulnerabilities that the code can reach; asks vuln.go.dev.
	$(TOOL) govulncheck ./...

.PHONY: generate
generate: ## Generate the Go beside each .proto, api/openapi.yaml, the dashboards and docs/reference.md.
	tools/generate.sh
	cd release && $(GO) run ./dashboards ../deploy/grafana
	reference=$$($(GO) run ./cmd/edgewalk reference) && cat <<<"$$reference" >docs/reference.md

.PHONY: checkgenerate
checkgenerate: ## Fail if the generated Go or api/openapi.yaml is stale; changes nothing.
	tools/generate.sh --check

.PHONY: release
release: ## Make archives, packages, an image and checksums of this commit in dist/ (VERSION=v1.2.3).
	cd release && $(GO) run . -root .. -out ../dist -version '$(VERSION)'

.PHONY: clean
clean: ## Remove what was built.
	rm -rf bin dist .buf
