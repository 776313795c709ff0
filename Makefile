# podwire: what to type. Plain `make` prints the list. Nothing here asks questions or reads standard input.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

# rustup's own folder is looked into as well, since a fresh shell may not have it in its PATH.
CARGO := $(or $(shell PATH="$$PATH:$${CARGO_HOME:-$$HOME/.cargo}/bin" command -v cargo 2>/dev/null),cargo)
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
PROFILE ?= release
BIN := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

# Debian packages: a linker and its libc, and what the tests and the demo run.
# clang to pkg-config are for libxdp and libbpf, which xsk-rs builds. systemd checks the unit: without systemd-sysv, which is
# not asked for, it does not become the machine's init.
PACKAGES := ca-certificates gcc libc6-dev clang llvm m4 libelf-dev zlib1g-dev pkg-config \
  util-linux iproute2 nftables iputils-ping iperf3 ethtool jq strace \
  containernetworking-plugins containerd runc busybox-static systemd

SUDO := $(if $(filter 0,$(shell id -u)),,sudo -n)
# Tests are built by you and run by root: cargo starts each test program through this.
TRIPLE := $(shell uname -m | tr a-z A-Z)_UNKNOWN_LINUX_GNU
AS_ROOT := $(if $(SUDO),CARGO_TARGET_$(TRIPLE)_RUNNER="$(SUDO) --preserve-env env PATH=$$PATH HOME=$$HOME",)

# Where the steering program and its committed object are.
BPF := vswitch/bpf
BENCH := $(TARGET)/bench
BASELINE := docs/perf/baseline.json

# Where `make install` puts things; the configuration's place is podwired's default.
PREFIX ?= /usr/local
DESTDIR ?=
PROGRAMS := podwired podwire podwire-cni
UNIT_DIR := $(PREFIX)/lib/systemd/system
DOC_DIR := $(PREFIX)/share/doc/podwire
CONFIG := /etc/podwire/podwired.toml

.PHONY: help cargo deps root build cni-static install uninstall deb bpf demo check lint lint-unit test test-demo test-zerocopy test-systemd bench bench-gate bench-pipeline

help: ## Print this list
	@echo "podwire, a userspace virtual switch for Kubernetes nodes. Targets:"
	@sed -n 's/^\([a-z-]*\):[^#]*## /  \1 \t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
	@echo "Variables: PROFILE=release|dev (build, demo), KEEP=1 (demo), CARGO_TARGET_DIR."

cargo:
	@"$(CARGO)" --version >/dev/null 2>&1 || { \
	  echo "cargo is missing: install Rust with rustup (https://rustup.rs), then run make again" >&2; exit 1; }

deps: cargo ## Install the Debian packages that are missing (root, or sudo without a password)
	@missing=""; \
	command -v dpkg-query >/dev/null || { \
	  echo "this is no Debian: install what these packages hold, and run the cargo commands of the Makefile: $(PACKAGES)" >&2; exit 1; }; \
	for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "installing:$$missing"; \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null; \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove $$missing </dev/null

# Network namespaces need root; the sentence comes before anything is built.
root:
	@[ -z "$(SUDO)" ] || $(SUDO) true 2>/dev/null || { \
	  echo "this makes network namespaces, which needs root: run it as root, or allow sudo without a password" >&2; exit 1; }

# The plugin is built by itself, so that it has no feature but its own, and for size.
CNI_PROFILE := $(if $(filter release,$(PROFILE)),cni,$(PROFILE))
build: deps ## Build podwired, podwire and podwire-cni
	@"$(CARGO)" build --locked --profile $(PROFILE) --bins \
	  -p podwire-vswitch -p podwire-control --features podwire-control/cli
	@"$(CARGO)" build --locked --profile $(CNI_PROFILE) -p podwire-cni
	@$(if $(filter cni,$(CNI_PROFILE)),install -m 755 "$(TARGET)/cni/podwire-cni" "$(BIN)/podwire-cni",:)

STATIC_TRIPLE := x86_64-unknown-linux-musl
cni-static: deps ## Build podwire-cni without a libc of its node (needs rustup target add x86_64-unknown-linux-musl)
	@"$(CARGO)" build --locked --profile cni -p podwire-cni --target $(STATIC_TRIPLE)
	@echo "$(TARGET)/$(STATIC_TRIPLE)/cni/podwire-cni"

install: ## Install what `make build` built, with the unit and a configuration; DESTDIR, PREFIX (/usr/local)
	@for program in $(PROGRAMS); do install -D -m 755 "$(BIN)/$$program" "$(DESTDIR)$(PREFIX)/bin/$$program"; done
	@install -d "$(DESTDIR)$(UNIT_DIR)" "$(DESTDIR)$(DOC_DIR)/decisions"
	@sed 's|/usr/bin/podwired|$(PREFIX)/bin/podwired|; s|/usr/share/doc|$(PREFIX)/share/doc|' packaging/podwired.service \
	  > "$(DESTDIR)$(UNIT_DIR)/podwired.service"
	@install -m 644 docs/*.md "$(DESTDIR)$(DOC_DIR)"
	@install -m 644 docs/decisions/*.md "$(DESTDIR)$(DOC_DIR)/decisions"
	@[ -e "$(DESTDIR)$(CONFIG)" ] || install -D -m 644 packaging/podwired.toml "$(DESTDIR)$(CONFIG)"
	@echo "installed below $(DESTDIR)$(PREFIX); $(CONFIG) says what is true of this node, then: systemctl daemon-reload"

uninstall: ## Remove what `make install` installed; configuration and store stay
	@for program in $(PROGRAMS); do rm -f "$(DESTDIR)$(PREFIX)/bin/$$program"; done
	@rm -f "$(DESTDIR)$(UNIT_DIR)/podwired.service"
	@rm -rf "$(DESTDIR)$(DOC_DIR)"

# cargo-deb is built once below target, where it is not installed. dpkg-dev says what the programs depend on.
DEB_PATH := $(TARGET)/tools/bin
deb: PACKAGES += dpkg-dev
deb: build ## A Debian package in target/debian, of what `make build` built
	@PATH="$$PATH:$(DEB_PATH)" "$(CARGO)" deb --version >/dev/null 2>&1 || \
	  "$(CARGO)" install cargo-deb --locked --root "$(TARGET)/tools"
	@PATH="$$PATH:$(DEB_PATH)" "$(CARGO)" deb -p podwire-vswitch --no-build --profile $(PROFILE)

bpf: deps ## Compile the XDP programs anew; their objects are committed
	@cd $(BPF) && for program in steer redirect take; do \
	  sum=$$(cat xdp.h $$program.bpf.c | sha256sum | cut -d' ' -f1) && \
	  clang -O2 -g -Wall -Werror -target bpf -mcpu=v2 -fdebug-prefix-map="$$PWD"=. -DSOURCE_SHA256="\"$$sum\"" \
	    -c $$program.bpf.c -o $$program.bpf.o && llvm-strip -g $$program.bpf.o || exit 1; done

demo: root build ## Two namespaced nodes, live traffic, every claim checked (root); KEEP=1 leaves it running
	@$(SUDO) env PODWIRE_BIN_DIR="$(BIN)" KEEP="$(KEEP)" tests/demo.sh </dev/null

check: cargo ## Fast: format, types and unit tests of the library crates (no root)
	@"$(CARGO)" fmt --all -- --check
	@"$(CARGO)" check --locked --workspace --all-features --all-targets
	@"$(CARGO)" test --locked -p podwire-control -p podwire-vswitch --all-features --lib

lint: deps lint-unit
	@"$(CARGO)" fmt --all -- --check
	@"$(CARGO)" clippy --locked --workspace --all-features --all-targets -- -D warnings
	@bash -n tests/demo.sh && bash -n tests/zerocopy.sh && sh -n tests/zerocopy/guest.sh
	@bash -n tests/systemd.sh && bash -n tests/systemd/guest.sh

# podwired need not be installed here, so another program stands in for it.
lint-unit: deps
	@mkdir -p "$(TARGET)/unit"
	@sed 's|/usr/bin/podwired|/bin/true|' packaging/podwired.service > "$(TARGET)/unit/podwired.service"
	@systemd-analyze verify --man=no "$(TARGET)/unit/podwired.service"
	@systemd-analyze security --offline=yes --threshold=49 packaging/podwired.service >/dev/null

test: root lint ## Everything: format, clippy, all tests, the demo (root: rings run in network namespaces)
	@"$(CARGO)" build --locked --workspace --all-features --bins
	@$(AS_ROOT) PODWIRE_BIN_DIR="$(TARGET)/debug" "$(CARGO)" test --locked --workspace --all-features </dev/null
	@PODWIRE_FLOW_CACHE=off "$(CARGO)" test --locked --workspace --all-features --test pipeline --test property </dev/null
	@$(MAKE) test-demo

test-demo: root
	@$(SUDO) env PODWIRE_BIN_DIR="$(TARGET)/debug" IPERF_SECONDS=1 tests/demo.sh </dev/null

# The packages come only for this; apt asks for the guest's kernel itself.
ZEROCOPY_PACKAGES := qemu-system-x86 busybox-static cpio xz-utils
test-zerocopy: PACKAGES += $(ZEROCOPY_PACKAGES)
test-zerocopy: root build ## Zero-copy AF_XDP, in an emulated guest with a virtio NIC (root; not part of `make test`)
	@$(SUDO) env PODWIRE_BIN_DIR="$(BIN)" ZEROCOPY_CACHE="$(TARGET)/zerocopy" tests/zerocopy.sh </dev/null

SYSTEMD_PACKAGES := debootstrap systemd-container
INSTALLED := $(TARGET)/systemd/installed
test-systemd: PACKAGES += $(SYSTEMD_PACKAGES)
test-systemd: root deb ## The package, the unit and the CNI plugin on a Debian run by systemd (root; not part of `make test`)
	@rm -rf "$(INSTALLED)" && $(MAKE) install DESTDIR="$(INSTALLED)" >/dev/null
	@$(SUDO) env PODWIRE_DEB="$$(ls -t "$(TARGET)"/debian/podwire_*.deb | head -n 1)" PODWIRE_INSTALLED="$(INSTALLED)" \
	  SYSTEMD_CACHE="$(TARGET)/systemd" tests/systemd.sh </dev/null

# Always a release build: figures of another one mean nothing. Open vSwitch is measured where it is installed.
bench: root deps ## Podwire beside its peers, the standard set, under 10 minutes (root); JSON and HTML in target/bench
	@"$(CARGO)" build --locked --release --bins -p podwire-vswitch -p podwire-perf
	@mkdir -p "$(BENCH)"
	@$(SUDO) "$(TARGET)/release/podwire-perf" run --json "$(BENCH)/bench.json" --html "$(BENCH)/bench.html" </dev/null
	@echo "report: $(BENCH)/bench.html"

bench-gate: root deps ## make bench, and fail where a ratio fell by more than 10 % below docs/perf/baseline.json
	@[ -f "$(BASELINE)" ] || { \
	  echo "$(BASELINE) is missing: on a quiet machine, make bench && cp $(BENCH)/bench.json $(BASELINE)" >&2; exit 1; }
	@$(MAKE) bench
	@"$(TARGET)/release/podwire-perf" compare "$(BASELINE)" "$(BENCH)/bench.json" --gate 10

bench-pipeline: deps ## Mpps and allocations a frame of the pipeline, in memory (no root)
	@"$(CARGO)" run --locked --release -p podwire-perf -- pipeline
