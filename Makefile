# Everything that this project can do is a target here; .ci/run and the workflow call nothing else.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TELEGRAF := $(shell sed -n 's/^.*influxdata\/telegraf \(v[0-9.]*\).*/\1/p' go.mod)
SOURCES  := go.mod go.sum $(shell find cmd netstat plugins -name '*.go' -not -name '*_test.go' -o -name '*.conf' -not -path '*/testcases/*')
LDFLAGS  := -s -w -X main.version=$(VERSION) -X github.com/influxdata/telegraf/internal.Version=$(TELEGRAF:v%=%)
GOBUILD  := $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
READMES  := github.com/influxdata/telegraf/tools/readme_linter@$(TELEGRAF)

# What the tests use, as command:Debian package.
TEST_DEPENDENCIES := ss:iproute2 netstat:net-tools influxd:influxdb gcc:gcc setpriv:util-linux nft:nftables prometheus:prometheus

# A user without a home, such as nobody, can build too.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export GOPATH     ?= $(CURDIR)/.cache/go
export GOCACHE    ?= $(CURDIR)/.cache/build
export GOLANGCI_LINT_CACHE ?= $(CURDIR)/.cache/golangci-lint
endif

.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 16

.PHONY: run
run: bin/telegraf ## Build the custom Telegraf and print this host's socket metrics every 10 seconds, until Ctrl-C
	@exec bin/telegraf --config sample.conf

.PHONY: build
build: bin/telegraf bin/procnetstat ## Build bin/telegraf and bin/procnetstat

bin/%: $(SOURCES)
	CGO_ENABLED=0 $(GOBUILD) -o $@ ./cmd/$*

.PHONY: test
test: test-dependencies build ## Run all tests, with the race detector, against the kernel and real servers
	$(GO) vet ./...
	E2E_BIN=$(CURDIR)/bin $(GO) test -race -timeout 20m ./...

.PHONY: test-dependencies
test-dependencies: # Install what the tests use and is not there
	@missing=; for d in $(TEST_DEPENDENCIES); do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v $${d%%:*} >/dev/null || missing="$$missing $${d##*:}"; \
	done; \
	[ -e /usr/include/stdlib.h ] || missing="$$missing libc6-dev"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "not installed, and not root on Debian: tests that need one are skipped:$$missing"; exit 0; \
	fi; \
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing

.PHONY: lint
lint: ## Check format, code and READMEs
	GOOS=darwin CGO_ENABLED=0 $(GO) vet ./netstat/... ./plugins/... ./cmd/...
	$(GO) run $(GOLANGCI) run
	$(GO) run $(READMES) plugins/inputs/procnetstat/README.md

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin .cache
