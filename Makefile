# Each target says on one line what it shows, and exits non-zero when that does not hold.
# `.ci/run` calls `make test`. A build cache outside the checkout is used where CARGO_TARGET_DIR names one.

CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR
BIN := $(abspath $(CARGO_TARGET_DIR))/release/holdpoint

# Tests may panic, index and be long tables.
TEST_LINTS := $(addprefix -A clippy::,expect_used indexing_slicing panic string_slice too_many_lines type_complexity \
	unreachable unwrap_used disallowed_methods)

.PHONY: help build demo test lint unit integration differentials console conformance sdk-matrix agentdojo fuzz gate chaos patience \
	pending holds-gate bench bench-growth

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST)

build: ## the release binary
	cargo build --release --locked

demo: build ## everything embedded: CA, sample tools, gateway, a scripted agent
	$(BIN) demo

test: lint unit build integration conformance sdk-matrix agentdojo fuzz gate chaos ## everything CI runs
	$(BIN) demo --once
	@tail -n 1 $(CARGO_TARGET_DIR)/integration.txt

lint: ## formatting and lints
	cargo fmt --check
	rustfmt --check --edition 2024 fuzz/fuzz_targets/*.rs integration/differentials/rust/src/*.rs
	cargo fmt --check --manifest-path integration/reference/Cargo.toml
	cargo clippy --lib --bins --locked -- -D warnings
	cargo clippy --tests --locked -- -D warnings $(TEST_LINTS)

unit: ## unit and crate tests
	cargo test --locked

integration: build ## real SDKs, servers, nginx, curl and the OpenTelemetry Collector around the gateway, short form
	integration/setup.sh
	@mkdir -p $(CARGO_TARGET_DIR)
	set -o pipefail; HOLDPOINT_BIN=$(BIN) integration/run.sh quick 2>&1 | tee $(CARGO_TARGET_DIR)/integration.txt

differentials: build ## JSONTestSuite and requests of our own: nothing is judged otherwise than Go, Node, Python and Rust read it
	HOLDPOINT_BIN=$(BIN) integration/run.sh quick -s test_differentials.py

console: build ## the console in real Chromium, by keyboard and on a phone; says where the screenshots are
	HOLDPOINT_BIN=$(BIN) integration/run.sh quick test_console.py test_inbox.py test_emergency.py

fuzz: ## decoding and flow control under coverage-guided fuzzing: each target for FUZZ_SECONDS (30), two at a time
	fuzz/run.sh

conformance: build ## the official MCP conformance suite, direct and through Holdpoint, check by check, both revisions
	HOLDPOINT_BIN=$(BIN) integration/conformance.sh

sdk-matrix: build ## what real SDKs see: six clients, eight outcomes, both eras
	HOLDPOINT_BIN=$(BIN) integration/sdk-matrix.sh

agentdojo: build ## exfiltration stopped and honest work untouched, and ways around, short form; `integration/run.sh full agentdojo` is all of it
	HOLDPOINT_BIN=$(BIN) integration/agentdojo.sh quick

gate: build ## instructions a call, counted by valgrind, against the accepted figures
	HOLDPOINT_BIN=$(BIN) integration/bench/gate.sh

chaos: build ## kill -9 at random moments over calls that wait for people: none lost, none twice, none unapproved; N= holds
	HOLDPOINT_BIN=$(BIN) python3 integration/chaos.py $(N)

patience: build ## real SDKs in front of a call that is held for 330 s, all at once; not part of `test`, which has it for 12 s
	HOLDPOINT_BIN=$(BIN) integration/patience.sh $(SECONDS_HELD)

pending: build ## 10,000 calls that wait at once: memory, latency of an approval, how each ends; not part of `test`. N= calls
	HOLDPOINT_BIN=$(BIN) integration/pending.sh $(N)

holds-gate: build ## what hold rules cost a call that none of them matches, in instructions; not part of `test`
	HOLDPOINT_BIN=$(BIN) integration/bench/holds.sh

bench: build ## beside Envoy and nginx: CPU, latency, memory, overload; not part of `test`. BENCH=--quick is short
	HOLDPOINT_BIN=$(BIN) integration/bench/run.sh $(BENCH)

bench-growth: build ## how cost grows with policies, agents, connections, records: docs/plots and the sizing table
	HOLDPOINT_BIN=$(BIN) integration/bench/run.sh --growth $(BENCH)

integration: SHELL := /bin/bash
