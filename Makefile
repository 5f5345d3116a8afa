# `make help` lists every target.
SHELL := bash
.PHONY: help
help:
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A throwaway Kubernetes (e2e/cluster). CLUSTER=name for a second one, NODE=1 for real pods (root).
CLUSTER ?= default
.PHONY: cluster-up cluster-down image
cluster-up: ## start a throwaway Kubernetes and print how to use it (NODE=1: with real pods, root)
	@e2e/cluster/up.sh --name $(CLUSTER) $(if $(NODE),--node)
	@echo '# To use it in this shell:  eval "$$(e2e/cluster/env.sh --name $(CLUSTER))"; kubectl get all -A' >&2

cluster-down: ## end it, with everything in it
	@e2e/cluster/down.sh --name $(CLUSTER)

image: ## build the container image, and load it into the node if one runs (Docker is not needed)
	@e2e/cluster/image.sh $(if $(filter-out default,$(CLUSTER)),--name $(CLUSTER))

.PHONY: demo
demo: ## the main job on real input: 1.3 million rows, the Friday delete, the guard, the backup; leaves nothing behind
	@demo/demo.sh

.PHONY: test test-all test-regress test-faults test-e2e test-cloudnative-pg check test-release test-lint test-process test-engines test-controllers test-page test-node test-chart test-book generate
test: ## every test, stage by stage; installs what it needs and reports it (half an hour the first time)
	@e2e/test.sh

test-all: ## every version of PostgreSQL and Kubernetes that the README names; writes docs/src/tested.md (hours)
	@e2e/test-all.sh

test-regress: ## PostgreSQL's own regression tests in a database with guards (not part of `make test`; ten minutes)
	@e2e/test.sh regress

test-faults: ## faults on a real node, seen with kubectl and psql; writes docs/src/faults.md (root; not part of `make test`; half an hour)
	@e2e/test.sh faults

test-release: ## build a release, and check its files, checksums and signature (not part of `make test`; 15 minutes)
	@e2e/test.sh release

test-e2e: ## the way of a user on a real node, from helm install to disaster recovery and uninstallation; writes docs/src/end-to-end.md (root; not part of `make test`; a quarter of an hour)
	@e2e/test.sh e2e

test-cloudnative-pg: ## pgrail beside a real CloudNativePG on a real node; writes docs/src/cloudnative-pg.md (root; not part of `make test`; a quarter of an hour)
	@e2e/test.sh cloudnative-pg

test-lint test-process test-engines test-controllers test-page test-node test-chart test-book: test-%: ## one stage of `make test`
	@e2e/test.sh $*

.PHONY: test-stores
test-stores: ## dumps and restores through az:// with Azurite, an emulator (not part of `make test`; a few minutes)
	@e2e/stores/test.sh

# The plugin of kubectl, and what completes its arguments: the same program under other names.
PREFIX ?= $(HOME)/.local
.PHONY: install-plugin
install-plugin: ## build and install `pgrail` and `kubectl pgrail` into PREFIX/bin (default: ~/.local)
	cargo build --locked --release --package pgrail
	install -D -t $(DESTDIR)$(PREFIX)/bin $${CARGO_TARGET_DIR:-target}/release/pgrail
	ln -sf pgrail $(DESTDIR)$(PREFIX)/bin/kubectl-pgrail
	ln -sf pgrail $(DESTDIR)$(PREFIX)/bin/kubectl_complete-pgrail

.PHONY: release
release: ## build the files of a release into target/release-VERSION: program, image, chart, SBOM, checksums (release/release.sh)
	@release/release.sh

.PHONY: bench
bench: ## measure the guard, dumps and the operator, write docs/src/benchmarks.md and its pages (ROWS="block single", ROWS=dump for some)
	@e2e/bench.sh $(ROWS)

check: ## the quick inner loop: format, lints, tests that need no server
	@e2e/lint.sh
	@source e2e/build.sh; cargo test --workspace --exclude pgrail-e2e --lib --bins -- --skip on_real_servers

generate: ## write what is generated from the types: CRDs, the chart's copy of them, the reference
	PGRAIL_WRITE=1 cargo test --quiet -p pgrail-crds --test yaml
	charts/sync.sh
	docs/reference.sh
