# What developers type. Each target sets the machine up first where it needs to (scripts/setup.sh, fast when done).

SHELL := /bin/bash
CARGO ?= cargo
LAB := tests/lab/lab.sh
# where rustup puts cargo, for shells that have not read its profile
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: ## packages, the lab's libvirt and QEMU, the guest's image
	scripts/setup.sh

.PHONY: build
build: ## the program, target/debug/drover
	scripts/setup.sh --build
	$(CARGO) build

.PHONY: check
check: ## formatting and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) check --lib --no-default-features

.PHONY: test
test: setup ## everything: unit tests, integration tests, the lab
	$(CARGO) test

.PHONY: test-core
test-core: ## the ground floor's unit tests: no async, no libvirt, no lab
	$(CARGO) test --lib --no-default-features

.PHONY: demo
demo: setup ## push a commit, watch a virtual machine move (about a minute)
	scripts/demo.sh

.PHONY: bench
bench: setup ## the performance goals, measured (docs/performance.md)
	$(CARGO) bench --bench goals

.PHONY: schemas
schemas: ## schemas/ from the Rust types
	$(CARGO) run --quiet -- schema --write schemas

.PHONY: lab-up
lab-up: setup ## two libvirt hosts and a client on this machine
	$(LAB) up
	$(LAB) status

.PHONY: lab-down
lab-down: ## ends them
	$(LAB) down --purge

.PHONY: clean-lab
clean-lab: lab-down ## ends them, and deletes the unpacked packages and the guest's image
	rm -rf "$${DROVER_LAB_CACHE:-/var/cache/drover-lab}"
