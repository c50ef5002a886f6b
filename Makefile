# .ci/run and the workflow call only targets of this file.

GO       ?= go
VERSION  ?= $(shell git describe --tags --match 'v[0-9]*' --long --always --dirty 2>/dev/null || echo unknown)
TELEGRAF := $(shell sed -n 's/^.*influxdata\/telegraf \(v[0-9.]*\).*/\1/p' go.mod)
TESTNET  := github.com/procnetstat/procnetstat/internal/testnet
MODULES  := . netstat internal/testnet bench dashboards test/kafka
SOURCES  := go.work go.mod go.sum netstat/go.mod netstat/go.sum $(shell find cmd netstat plugins -name '*.go' -not -name '*_test.go' -o -name '*.conf' -not -path '*/testcases/*')
LDFLAGS  := -s -w -X main.version=$(VERSION) -X github.com/influxdata/telegraf/internal.Version=$(TELEGRAF:v%=%)
PACKAGES := ./... ./netstat/... ./internal/testnet/... # without the modules that are tools
GOBUILD  := $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
LICENSES := github.com/google/go-licenses@v1.6.0
VULN     := golang.org/x/vuln/cmd/govulncheck@v1.9.0
NFPM     := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
READMES  := github.com/influxdata/telegraf/tools/readme_linter@$(TELEGRAF)

# Programs and files that the tests use, as name:Debian package.
TEST_DEPENDENCIES := ss:iproute2 netstat:net-tools influxd:influxdb gcc:gcc /usr/include/stdlib.h:libc6-dev setpriv:util-linux \
	nft:nftables prometheus:prometheus victoria-metrics:victoria-metrics setcap:libcap2-bin rpm:rpm runc:runc nginx:nginx sysctl:procps

# Users without a writable home directory, such as nobody, need other caches.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export GOPATH     ?= $(CURDIR)/.cache/go
export GOCACHE    ?= $(CURDIR)/.cache/build
export GOLANGCI_LINT_CACHE ?= $(CURDIR)/.cache/golangci-lint
endif

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 16

.PHONY: run
run: bin/telegraf ## Build the custom Telegraf and print this host's socket metrics every 10 seconds, until Ctrl-C
	@exec bin/telegraf --config sample.conf

DIST   ?= dist
ARCHES ?= amd64 arm64

.PHONY: packages
packages: ## Build the .deb and .rpm of the execd program for amd64 and arm64 into DIST=dist
	@$(call release,packages)

.PHONY: release
release: ## Build the packages, tarballs (also of the custom Telegraf) and checksums into DIST=dist
	@$(call release,release)

release = rm -rf '$(DIST)' && GO='$(GO)' NFPM='$(GO) run $(NFPM)' LDFLAGS='$(LDFLAGS)' DIST='$(DIST)' ARCHES='$(ARCHES)' packaging/build.sh $(1)

.PHONY: release-check
release-check: ## Check the Go modules of a release VERSION=v1.2.3 of the last commit as their users get them
	@packaging/modules.sh check '$(if $(filter file,$(origin VERSION)),,$(VERSION))'

PAGE ?= 9095

.PHONY: graph
graph: bin/telegraf ## Show this host's sockets as graphs in the browser, with Prometheus at port PAGE=9095, until Ctrl-C
	@$(call install,prometheus:prometheus)
	@exec examples/prometheus/run.sh bin/telegraf $(PAGE)

.PHONY: build
build: bin/telegraf bin/procnetstat ## Build bin/telegraf and bin/procnetstat

bin/%: $(SOURCES)
	CGO_ENABLED=0 $(GOBUILD) -o $@ ./cmd/$*

.PHONY: test
test: test-dependencies build ## Run all tests with the race detector, against the kernel and real servers
	$(GO) vet $(PACKAGES)
	E2E_BIN=$(CURDIR)/bin $(GO) test -race -timeout 20m $(PACKAGES)
	cd bench && $(GO) vet ./... && $(GO) test -race -timeout 10m ./...

.PHONY: test-slow
test-slow: test-dependencies ## Run the slow tests, SOAK=1m, and the decoders on 386 and on s390x, which is big-endian
	SLOW_TESTS=1 $(GO) test -race -run '^TestSlow' -timeout 30m ./netstat/... ./plugins/...
	@# Only without the race detector does the soak check its memory.
	SLOW_TESTS=1 $(GO) test -run '^TestSlowSoak$$' -timeout 30m ./plugins/inputs/procnetstat
	@$(call install,qemu-s390x-static:qemu-user-static)
	@$(call test-decoders,386,$(if $(filter amd64,$(shell $(GO) env GOARCH)),,qemu-i386-static))
	@$(call test-decoders,s390x,qemu-s390x-static)

# test-decoders runs the tests of the library that need no kernel, on an architecture and with its emulator, if it needs one. These
# are the tests in files that compile on other systems than Linux.
define test-decoders
emulator='$(2)'; [ -z "$$emulator" ] || command -v "$$emulator" >/dev/null || { \
	echo "no $$emulator: skipping the decoders on $(1)"; [ "$$CI" != true ]; exit; }; \
set -e; mkdir -p bin; binary='$(CURDIR)/bin/netstat-$(1).test'; \
format='{{.ImportPath}} {{.Dir}} {{join .TestGoFiles " "}} {{join .XTestGoFiles " "}}'; \
packages=$$(GOOS=darwin CGO_ENABLED=0 $(GO) list -f "$$format" ./netstat/...); \
echo "$$packages" | while read -r package dir files; do \
	tests=$$([ -z "$$files" ] || { cd "$$dir" && sed -nE 's/^func ((Test|Fuzz)[A-Za-z0-9]*)\([tf] .*/\1/p' $$files; }); \
	[ -n "$$tests" ] || continue; \
	GOARCH=$(1) CGO_ENABLED=0 $(GO) test -c -o "$$binary" $$package; \
	tests="^($$(echo "$$tests" | paste -sd '|'))\$$"; \
	echo "$(1): $$($(2) "$$binary" -test.list "$$tests" </dev/null | grep -c '^[TF]') tests of $$package"; \
	(cd "$$dir" && $(2) "$$binary" -test.timeout 10m -test.run "$$tests" </dev/null); \
done
endef

KERNELS ?= 6.1 6.12

.PHONY: test-kernels
test-kernels: ## Run the tests that read the kernel in virtual machines, with Debian's cloud kernels: KERNELS="6.1 6.12"
	@$(call install,qemu-system-x86_64:qemu-system-x86 busybox:busybox-static xz:xz-utils ip:iproute2 nft:nftables \
		setpriv:util-linux nsenter:util-linux mount:mount)
	CGO_ENABLED=0 $(GO) build -o bin/kernels ./test/kernels
	bin/kernels $(KERNELS)

.PHONY: test-dependencies
test-dependencies: # Install the missing programs that the tests use
	@$(call install,$(TEST_DEPENDENCIES))

# install installs the packages of a list like TEST_DEPENDENCIES whose command, or file, is missing.
define install
missing=; for d in $(1); do \
	PATH="$$PATH:/usr/sbin:/sbin" command -v $${d%%:*} >/dev/null || [ -e $${d%%:*} ] || missing="$$missing $${d##*:}"; \
done; \
[ -z "$$missing" ] && exit 0; \
if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	echo "not root on Debian: cannot install$$missing; tests that need them are skipped"; exit 0; \
fi; \
apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing
endef

.PHONY: pictures
pictures: build ## Regenerate the pictures in docs/pictures, of Prometheus's page in Chromium
	@$(call install,$(TEST_DEPENDENCIES) chromium:chromium /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf:fonts-dejavu-core)
	mkdir -p docs/pictures
	PICTURES=$(CURDIR)/docs/pictures E2E_BIN=$(CURDIR)/bin $(GO) test -tags pictures -run '^TestPictures$$' -count 1 -v ./test/e2e

GREMLINS := github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0
MUTATED  := internal/sockdiag internal/procfs internal/bpf cgroup
EFFICACY ?= 85

.PHONY: mutate
mutate: ## Change the decoders in many small ways; EFFICACY=85 percent of the changes must fail a test
	@mkdir -p bin; cp netstat/go.mod bin/mutate.mod; cp netstat/go.sum bin/mutate.sum
	@# The tests run in a copy of the module, outside the workspace.
	@$(GO) mod edit -replace=$(TESTNET)=$(CURDIR)/internal/testnet bin/mutate.mod
	GOBIN=$(CURDIR)/bin $(GO) install $(GREMLINS)
	cd netstat && for package in $(MUTATED); do \
		GOWORK=off GOFLAGS='-modfile=$(CURDIR)/bin/mutate.mod -short' $(CURDIR)/bin/gremlins unleash -S l \
			-E '_linux\.go$$' -E 'others\.go$$' -E 'bpfel\.go$$' --threshold-efficacy $(EFFICACY) ./$$package || exit 1; \
	done

FUZZTIME ?= 10m

.PHONY: fuzz
fuzz: ## Fuzz every decoder and the configuration, FUZZTIME=10m each
	@for package in $$($(GO) list ./netstat/... ./plugins/... ./cmd/...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package || exit 1; \
		done; \
	done

SOCKETS   ?= 120000
PROCESSES ?= 50
RUNS      ?= 5
RESULTS   ?= bench/results

.PHONY: bench
bench: bin/procnetstat test-dependencies ## Compare the cost with other programs: SOCKETS=120000 PROCESSES=50 RUNS=5 RESULTS=bench/results
	cd bench && $(GO) build -o ../bin/bench .
	mkdir -p $(RESULTS)
	bin/bench -sockets $(SOCKETS) -processes $(PROCESSES) -runs $(RUNS) -execd bin/procnetstat \
		-text $(RESULTS)/performance.txt -json $(RESULTS)/performance.json -chart $(RESULTS)/performance.svg

.PHONY: schema
schema: ## Regenerate docs/developers/SCHEMA.md and the tables in the plugin's README
	$(GO) test -run '^TestSchemaDocuments$$' ./plugins/inputs/procnetstat -update

.PHONY: dashboards
dashboards: ## Regenerate the dashboards
	cd dashboards && $(GO) run . .

.PHONY: dashboards-check
dashboards-check: # Check that the dashboards are up to date
	@made=$$(mktemp -d) && trap 'rm -r "$$made"' EXIT && cd dashboards && $(GO) vet ./... && $(GO) run . "$$made" && \
	for language in influxql flux promql; do \
		diff -r $$language "$$made"/$$language || { echo "the dashboards are out of date; run make dashboards"; exit 1; }; \
	done

.PHONY: lint
lint: generate-check dashboards-check ## Check formatting, code, READMEs, licences and generated files
	GOOS=darwin CGO_ENABLED=0 $(GO) vet ./netstat/... ./plugins/... ./cmd/...
	for arch in 386 arm arm64 s390x riscv64; do \
		GOARCH=$$arch CGO_ENABLED=0 $(GO) vet ./netstat/... ./internal/testnet/... || exit 1; \
	done
	GOARCH=386 CGO_ENABLED=0 $(GO) vet ./plugins/... ./cmd/procnetstat # cmd/telegraf would compile all of Telegraf
	for module in $(MODULES); do (cd $$module && $(GO) run $(GOLANGCI) run --config $(CURDIR)/.golangci.yml) || exit 1; done
	$(GO) vet -tags pictures ./test/e2e
	cd test/flux && GOWORK=off $(GO) vet . # its old dependencies are not for the workspace
	$(GO) run $(READMES) plugins/inputs/procnetstat/README.md
	$(GO) mod verify
	$(call check-licenses,./netstat/... ./plugins/... ./cmd/procnetstat ./examples/...,$(PERMISSIVE))
	$(call check-licenses,./cmd/telegraf,$(PERMISSIVE)$(comma)$(WEAK_COPYLEFT))

# The licences that dependencies may have. Those of the second list apply to changes of the licensed files; only dependencies of
# Telegraf's own plugins have them.
PERMISSIVE    := MIT,Apache-2.0,BSD-2-Clause,BSD-2-Clause-FreeBSD,BSD-3-Clause,ISC
WEAK_COPYLEFT := MPL-2.0,EPL-2.0
comma         := ,
check-licenses = $(GO) run $(LICENSES) check $(LICENSES_FLAGS) $(1) --allowed_licenses=$(2)

# Our modules are under the one LICENSE of the repository, which go-licenses does not look for above the root of a module.
LICENSES_FLAGS := --logtostderr=false --stderrthreshold=FATAL --ignore github.com/procnetstat/procnetstat

.PHONY: licenses
licenses: ## Print the licence of every dependency
	@printf '{{range .}}{{.Name}} {{.Version}}\t{{.LicenseName}}\n{{end}}' > bin/licenses.tpl
	@$(GO) run $(LICENSES) report $(LICENSES_FLAGS) --template bin/licenses.tpl \
		./netstat/... ./plugins/... ./cmd/... ./examples/... 2>/dev/null | sort -u | expand -t 80

.PHONY: vuln
vuln: ## Check the dependencies for known vulnerabilities, with the database of the Go project
	$(GO) run $(VULN) $(PACKAGES)

# The version of clang for the BPF objects: another version generates other bytes.
CLANG  := 19
BPF2GO := $(GO) run github.com/cilium/ebpf/cmd/bpf2go -cc clang-$(CLANG) -strip llvm-strip-$(CLANG) -target amd64,arm64

.PHONY: generate
generate: generate-dependencies ## Regenerate the BPF objects with clang
	@$(call bpf-objects,.)

.PHONY: generate-check
generate-check: generate-dependencies # Check that the BPF objects are up to date
	@command -v clang-$(CLANG) >/dev/null && command -v llvm-strip-$(CLANG) >/dev/null || { \
		echo "no clang-$(CLANG): skipping the check of the BPF objects"; [ "$$CI" != true ]; exit; }; \
	made=$$(mktemp -d) && trap 'rm -r "$$made"' EXIT && $(call bpf-objects,"$$made") && \
	for f in "$$made"/*; do \
		cmp "$$f" "$${f##*/}" || { echo "the BPF objects are out of date; run make generate"; exit 1; }; \
	done

BPF := netstat/internal/bpf

# bpf-objects generates the objects, their Go loaders and the Go types of their structs in a directory.
bpf-objects = cd $(BPF) && $(call bpf-object,$(1),owners,-type process) && \
	$(call bpf-object,$(1),connects,-type connect -type initiator -type end)
bpf-object = $(BPF2GO) -go-package bpf -output-dir $(1) $(3) $(2) $(2).c -- -O2 -Wall -Wextra -Werror

.PHONY: generate-dependencies
generate-dependencies:
	@$(call install,clang-$(CLANG):clang-$(CLANG) llvm-strip-$(CLANG):llvm-$(CLANG))

.PHONY: clean
clean: ## Remove built files and caches
	rm -rf bin .cache
