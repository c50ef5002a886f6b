# Everything that this project can do is a target here; .ci/run and the workflow call nothing else.

GO       ?= go
VERSION  ?= $(shell git describe --tags --long --always --dirty 2>/dev/null || echo unknown)
TELEGRAF := $(shell sed -n 's/^.*influxdata\/telegraf \(v[0-9.]*\).*/\1/p' go.mod)
MODULES  := . netstat internal/testnet bench dashboards test/kafka
SOURCES  := go.work go.mod go.sum netstat/go.mod netstat/go.sum $(shell find cmd netstat plugins -name '*.go' -not -name '*_test.go' -o -name '*.conf' -not -path '*/testcases/*')
LDFLAGS  := -s -w -X main.version=$(VERSION) -X github.com/influxdata/telegraf/internal.Version=$(TELEGRAF:v%=%)
PACKAGES := ./... ./netstat/... ./internal/testnet/... # of the modules that are the product and its tests
GOBUILD  := $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
LICENSES := github.com/google/go-licenses@v1.6.0
VULN     := golang.org/x/vuln/cmd/govulncheck@v1.9.0
NFPM     := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
READMES  := github.com/influxdata/telegraf/tools/readme_linter@$(TELEGRAF)

# What the tests use, as command:Debian package.
TEST_DEPENDENCIES := ss:iproute2 netstat:net-tools influxd:influxdb gcc:gcc /usr/include/stdlib.h:libc6-dev setpriv:util-linux \
	nft:nftables prometheus:prometheus victoria-metrics:victoria-metrics setcap:libcap2-bin rpm:rpm runc:runc

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

DIST   ?= dist
ARCHES ?= amd64 arm64

.PHONY: packages
packages: ## Build the .deb and .rpm of the program for inputs.execd, for amd64 and arm64, into DIST=dist
	@$(call release,packages)

.PHONY: release
release: ## Build the packages, tarballs with the custom Telegraf, and checksums, into DIST=dist
	@$(call release,release)

release = rm -rf '$(DIST)' && GO='$(GO)' NFPM='$(GO) run $(NFPM)' LDFLAGS='$(LDFLAGS)' DIST='$(DIST)' ARCHES='$(ARCHES)' packaging/build.sh $(1)

PAGE ?= 9095

.PHONY: graph
graph: bin/telegraf ## Show this host's sockets as graphs in the browser, by a Prometheus at port PAGE=9095, until Ctrl-C
	@$(call install,prometheus:prometheus)
	@exec examples/prometheus/run.sh bin/telegraf $(PAGE)

.PHONY: build
build: bin/telegraf bin/procnetstat ## Build bin/telegraf and bin/procnetstat

bin/%: $(SOURCES)
	CGO_ENABLED=0 $(GOBUILD) -o $@ ./cmd/$*

.PHONY: test
test: test-dependencies build ## Run all tests, with the race detector, against the kernel and real servers
	$(GO) vet $(PACKAGES)
	E2E_BIN=$(CURDIR)/bin $(GO) test -race -timeout 20m $(PACKAGES)
	$(GO) test -run '^TestSoak$$' -timeout 10m ./plugins/inputs/procnetstat
	cd bench && $(GO) vet ./... && $(GO) test -race -timeout 10m ./...

.PHONY: test-slow
test-slow: ## Run the tests that are too slow for make test: the decoders on s390x, which is big-endian, and on 386
	@$(call install,qemu-s390x-static:qemu-user-static)
	@$(call test-decoders,386,$(if $(filter amd64,$(shell $(GO) env GOARCH)),,qemu-i386-static))
	@$(call test-decoders,s390x,qemu-s390x-static)

# test-decoders runs the tests of the library that read no live kernel, on an architecture and by its emulator, if it needs one. They
# are those in files that compile for another system than Linux: testnet has no sockets, processes and namespaces there.
define test-decoders
emulator='$(2)'; [ -z "$$emulator" ] || command -v "$$emulator" >/dev/null || { \
	echo "no $$emulator: the decoders are not tested on $(1)"; [ "$$CI" != true ]; exit; }; \
set -e; mkdir -p bin; binary='$(CURDIR)/bin/netstat-$(1).test'; \
format='{{.ImportPath}} {{.Dir}} {{join .TestGoFiles " "}} {{join .XTestGoFiles " "}}'; \
packages=$$(GOOS=darwin CGO_ENABLED=0 $(GO) list -f "$$format" ./netstat/...); \
echo "$$packages" | while read -r package dir files; do \
	tests=$$([ -z "$$files" ] || { cd "$$dir" && sed -nE 's/^func ((Test|Fuzz)[A-Za-z0-9]*)\([tf] .*/\1/p' $$files; }); \
	[ -n "$$tests" ] || continue; \
	GOARCH=$(1) CGO_ENABLED=0 $(GO) test -c -o "$$binary" $$package; \
	echo "$(1): $$(echo "$$tests" | wc -l) tests of $$package"; \
	(cd "$$dir" && $(2) "$$binary" -test.timeout 10m -test.run "^($$(echo "$$tests" | paste -sd '|'))\$$" </dev/null); \
done
endef

.PHONY: test-dependencies
test-dependencies: # Install what the tests use and is not there
	@$(call install,$(TEST_DEPENDENCIES))

# install installs the packages of a list like TEST_DEPENDENCIES of which the command is not there. A path is a file.
define install
missing=; for d in $(1); do \
	PATH="$$PATH:/usr/sbin:/sbin" command -v $${d%%:*} >/dev/null || [ -e $${d%%:*} ] || missing="$$missing $${d##*:}"; \
done; \
[ -z "$$missing" ] && exit 0; \
if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	echo "not installed, and not root on Debian: what needs one is skipped:$$missing"; exit 0; \
fi; \
apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing
endef

.PHONY: pictures
pictures: build ## Take the pictures in docs/pictures anew, of Prometheus's page in Chromium
	@$(call install,$(TEST_DEPENDENCIES) chromium:chromium /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf:fonts-dejavu-core)
	mkdir -p docs/pictures
	PICTURES=$(CURDIR)/docs/pictures E2E_BIN=$(CURDIR)/bin $(GO) test -tags pictures -run '^TestPictures$$' -count 1 -v ./test/e2e

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
bench: bin/procnetstat test-dependencies ## Measure side by side with others: SOCKETS=120000 PROCESSES=50 RUNS=5, results in RESULTS
	cd bench && $(GO) build -o ../bin/bench .
	mkdir -p $(RESULTS)
	bin/bench -sockets $(SOCKETS) -processes $(PROCESSES) -runs $(RUNS) -execd bin/procnetstat \
		-text $(RESULTS)/performance.txt -json $(RESULTS)/performance.json -chart $(RESULTS)/performance.svg

.PHONY: dashboards
dashboards: ## Make the dashboards in the repository anew
	cd dashboards && $(GO) run . .

.PHONY: dashboards-check
dashboards-check: # Compare the dashboards with what their source makes
	@made=$$(mktemp -d) && trap 'rm -r "$$made"' EXIT && cd dashboards && $(GO) vet ./... && $(GO) run . "$$made" && \
	for language in influxql flux promql; do \
		diff -r $$language "$$made"/$$language || { echo "make dashboards was not run after their source was changed"; exit 1; }; \
	done

.PHONY: lint
lint: generate-check dashboards-check ## Check format, code, READMEs and generated files
	GOOS=darwin CGO_ENABLED=0 $(GO) vet ./netstat/... ./plugins/... ./cmd/...
	for arch in 386 arm arm64 s390x riscv64; do \
		GOARCH=$$arch CGO_ENABLED=0 $(GO) vet ./netstat/... ./internal/testnet/... || exit 1; \
	done
	GOARCH=386 CGO_ENABLED=0 $(GO) vet ./plugins/... ./cmd/procnetstat # the rest compiles all of Telegraf for each
	for module in $(MODULES); do (cd $$module && $(GO) run $(GOLANGCI) run --config $(CURDIR)/.golangci.yml) || exit 1; done
	$(GO) vet -tags pictures ./test/e2e
	$(GO) run $(READMES) plugins/inputs/procnetstat/README.md
	$(GO) mod verify
	$(call check-licenses,./netstat/... ./plugins/... ./cmd/procnetstat ./examples/...,$(PERMISSIVE))
	$(call check-licenses,./cmd/telegraf,$(PERMISSIVE)$(comma)$(WEAK_COPYLEFT))

# The licences that a dependency may have: what is under these can be part of a program under the MIT licence. Those of the
# second list bind changes of the files that are under them; only Telegraf's own plugins bring such dependencies.
PERMISSIVE    := MIT,Apache-2.0,BSD-2-Clause,BSD-2-Clause-FreeBSD,BSD-3-Clause,ISC
WEAK_COPYLEFT := MPL-2.0,EPL-2.0
comma         := ,
check-licenses = $(GO) run $(LICENSES) check --logtostderr=false --stderrthreshold=FATAL $(1) --allowed_licenses=$(2)

.PHONY: licenses
licenses: ## Print the licence of every dependency
	@printf '{{range .}}{{.Name}} {{.Version}}\t{{.LicenseName}}\n{{end}}' > bin/licenses.tpl
	@$(GO) run $(LICENSES) report --logtostderr=false --stderrthreshold=FATAL --template bin/licenses.tpl \
		./netstat/... ./plugins/... ./cmd/... ./examples/... 2>/dev/null | sort -u | expand -t 80

.PHONY: vuln
vuln: ## Look for known vulnerabilities of the dependencies, in the database of the Go project
	$(GO) run $(VULN) $(PACKAGES)

# The version of clang that makes the BPF objects: another one would make others.
CLANG  := 19
BPF2GO := $(GO) run github.com/cilium/ebpf/cmd/bpf2go -cc clang-$(CLANG) -strip llvm-strip-$(CLANG) -target amd64,arm64

.PHONY: generate
generate: generate-dependencies ## Make the BPF objects in the repository anew, with clang
	@$(call bpf-objects,.)

.PHONY: generate-check
generate-check: generate-dependencies # Compare the BPF objects with what their source makes
	@command -v clang-$(CLANG) >/dev/null && command -v llvm-strip-$(CLANG) >/dev/null || { \
		echo "no clang-$(CLANG): the BPF objects are not compared with their source"; [ "$$CI" != true ]; exit; }; \
	made=$$(mktemp -d) && trap 'rm -r "$$made"' EXIT && $(call bpf-objects,"$$made") && \
	for f in "$$made"/*; do \
		cmp "$$f" "$${f##*/}" || { echo "make generate was not run after $(BPF) was changed"; exit 1; }; \
	done

BPF := netstat/internal/bpf

# bpf-objects makes the objects, the Go types of their structs and what loads them in a directory.
bpf-objects = cd $(BPF) && $(call bpf-object,$(1),owners,process) && $(call bpf-object,$(1),connects,connect)
bpf-object = $(BPF2GO) -go-package bpf -output-dir $(1) -type $(3) $(2) $(2).c -- -O2 -Wall -Wextra -Werror

.PHONY: generate-dependencies
generate-dependencies:
	@$(call install,clang-$(CLANG):clang-$(CLANG) llvm-strip-$(CLANG):llvm-$(CLANG))

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin .cache
