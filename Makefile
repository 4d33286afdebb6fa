# Roundhouse: everything a developer does. `make help` lists the targets; there are ten, and ten is the most.
# What is built goes to bin/, what is downloaded or cached to .cache/; git ignores both.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two Go builds at once only fight for the same cores, and tests that measure time must not share them.
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN   := $(CURDIR)/bin
CACHE := $(CURDIR)/.cache
TOOLS := $(CACHE)/tools
# go test, whose closing lines also name the tests that were skipped, and why.
GOTESTSUM := $(TOOLS)/gotestsum

# A machine without HOME (a bare container) still has somewhere to put Go's caches.
ifeq ($(strip $(HOME)),)
export HOME := $(CACHE)/home
endif
export GOLANGCI_LINT_CACHE := $(CACHE)/golangci-lint
# Tests find what they start here, wherever they run from.
export ROUNDHOUSE_BIN := $(BIN)
export HELM := $(TOOLS)/helm

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# ARGS goes to what demo and bench start, TESTFLAGS to go test: make unit TESTFLAGS='-run TestFence -v'.
ARGS ?=
TESTFLAGS ?=

ROOT_BINARIES := roundhouse-agent roundhouse-cel roundhouse-podresources roundhouse-controller kubectl-roundhouse

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: $(ROOT_BINARIES:%=$(BIN)/%) $(BIN)/roundhouse-nvml $(BIN)/roundhouse-controlplane $(BIN)/roundhouse-sandbox ## Build the binaries into bin/ (the control plane takes six minutes, once).

.PHONY: generate
generate: $(TOOLS)/controller-gen ## Regenerate deep copies, CRDs and the tables of docs/api.md from api/.
	$(TOOLS)/controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...
	$(TOOLS)/controller-gen crd paths=./api/... output:crd:artifacts:config=config/crd
	ROUNDHOUSE_UPDATE_DOCS=1 go test -count=1 ./config >/dev/null

.PHONY: lint
lint: $(TOOLS)/golangci-lint $(TOOLS)/helm ## Lint both Go modules, the chart and the tree; what lint says is an error.
	hack/check-tree.sh
	$(TOOLS)/golangci-lint run ./...
	cd sandbox && $(TOOLS)/golangci-lint run --config ../.golangci.yml ./...
	$(TOOLS)/helm lint --strict charts/roundhouse

.PHONY: unit
unit: $(GOTESTSUM) ## Test the root module under the race detector; no cluster, seconds once built.
	$(GOTESTSUM) --format pkgname --format-hide-empty-pkg -- -race -timeout 10m $(TESTFLAGS) ./...

.PHONY: test
test: unit build lint test-parts ## Everything: unit, lint, then the sandbox: real API server, end to end, VM.
	cd sandbox && $(GOTESTSUM) --format testname --format-hide-empty-pkg -- -p 1 -timeout 40m $(TESTFLAGS) ./...

.PHONY: demo
demo: build ## Play the demo on a real control plane; ARGS=--once ends by itself and fails if anything was not seen.
	$(BIN)/roundhouse-sandbox demo $(ARGS)

.PHONY: bench
bench: build ## Measure, and print each figure beside its baseline.
	$(BIN)/roundhouse-sandbox bench $(ARGS)

.PHONY: verify
verify: generate ## Regenerate, and fail if that, or anything else, left the tree dirty or a go.mod untidy.
	hack/verify-clean.sh
	go mod tidy -diff
	cd sandbox && go mod tidy -diff

.PHONY: clean
clean: ## Remove what was built and cached here; Go's own caches stay.
	chmod -R u+w $(BIN) $(CACHE) 2>/dev/null || true
	rm -rf $(BIN) $(CACHE)

# Not for typing: what the targets above need.

.PHONY: require
require:
	@hack/require.sh

.PHONY: test-parts
test-parts: require
	hack/test-setup.sh

# go build does nothing when nothing changed, and knows that better than make. What runs on nodes and in containers is
# static; the sandbox is built as a plain `go test` builds it, or Go would compile Kubernetes once for each.
.PHONY: FORCE
$(ROOT_BINARIES:%=$(BIN)/%): $(BIN)/%: FORCE | require
	CGO_ENABLED=0 go build -buildvcs=false -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

# The one program with C in it: NVIDIA's bindings. It needs the C library that it was built with, or a newer one, at run
# time. The library's functions are bound when they are called, not when the program starts, or none with a function
# missing would start; and the compiler would tell at length which of them NVIDIA has deprecated.
$(BIN)/roundhouse-nvml: FORCE | require
	CGO_ENABLED=1 CGO_CFLAGS='-O2 -g -Wno-deprecated-declarations' go build -buildvcs=false \
		-ldflags '$(LDFLAGS) -extldflags=-Wl,-z,lazy' -o $@ ./cmd/roundhouse-nvml

$(BIN)/roundhouse-sandbox: FORCE | require
	cd sandbox && go build -buildvcs=false -ldflags '$(LDFLAGS)' -o $@ ./cmd/roundhouse-sandbox

$(BIN)/roundhouse-controlplane: FORCE | require
	hack/build-controlplane.sh

# Pinned in go.tools.mod, built once; apart from go.mod so that a linter's dependencies never move ours.
$(TOOLS)/golangci-lint: TOOL := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TOOLS)/controller-gen: TOOL := sigs.k8s.io/controller-tools/cmd/controller-gen
$(TOOLS)/gotestsum: TOOL := gotest.tools/gotestsum
$(TOOLS)/helm: TOOL := helm.sh/helm/v4/cmd/helm
$(TOOLS)/%: go.tools.mod go.tools.sum | require
	@echo "building $(@F) (once)"
	@mkdir -p $(TOOLS)
	go build -buildvcs=false -modfile=go.tools.mod -o $@ $(TOOL)
