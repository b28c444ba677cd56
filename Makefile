# Thin wrappers: each target is one command that works without make too.

.DEFAULT_GOAL := help
.PHONY: help run build install test soak bench bench-storm bench-recipe bench-brokers ci conformance e2e lint

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## build the broker and start it; without a configuration it serves loopback for development (ARGS="--config FILE")
	@scripts/preflight build
	@echo "building shangmq; the first build compiles Tongsuo too and takes some minutes"
	cargo build --locked --release --bin shangmq
	@exec "$$(scripts/target-dir)/release/shangmq" start $(ARGS)

build: ## build the program, target/release/shangmq
	@scripts/preflight build
	cargo build --locked --release --bin shangmq

PREFIX ?= /usr/local
PROGRAM ?= target/release/shangmq

# Builds nothing, so that root needs no Rust: `make build` first.
install: ## copy the built program to PREFIX/bin, /usr/local/bin by default (DESTDIR= for packages)
	@[ -x "$(PROGRAM)" ] || { echo "install: $(PROGRAM) is not there; run \`make build\` first, as yourself" >&2; exit 1; }
	install -D -m 0755 "$(PROGRAM)" "$(DESTDIR)$(PREFIX)/bin/shangmq"

test: ## run every check and every test, third-party clients included
	@scripts/test

e2e: ## run the tests with third-party clients only
	@scripts/preflight build e2e
	cargo build --locked --bin shangmq
	@scripts/e2e

lint: ## formatting, lints and banned packages only
	@scripts/preflight build
	cargo fmt --all --check
	scripts/check-bans
	cargo clippy --locked --workspace --all-targets -- -D warnings

soak: ## kill the broker 500 times and take its power 500 times under load, start on large stores, run for 20 minutes, and try the ciphers for long
	@scripts/preflight build
	CRASH_KILLS=500 START_SESSIONS=100000 START_RETAINED=1000000 cargo test --locked --release --test crash -- --nocapture --test-threads 1
	START_SESSIONS=1000000 START_QUEUED=10 START_RETAINED=100000 START_SECONDS=60 cargo test --locked --release --test crash -- --nocapture large_store
	SIEGE_READERS=9000 cargo test --locked --release --test siege -- --nocapture many_subscribers
	cargo build --locked --release --bin shangmq
	scripts/soak-steady 20
	SM_ACCEL_TIMING=100 cargo test --locked --release --package sm-accel --lib timing -- --nocapture --test-threads 1
	SM_ACCEL_ROUNDS=100000 cargo test --locked --release --package sm-accel --lib -- --nocapture
	SM_ACCEL_TIMING=1 cargo test --locked --release --package sm-accel --test timing -- --nocapture --test-threads 1
	SM_ACCEL_ROUNDS=long cargo test --locked --release --package sm-accel --test symmetric
	GM_TLS_TIMING=1 cargo test --locked --release --package gm-tls --test timing --test timing_tongsuo -- --nocapture --test-threads 1
	GM_TLS_RECORDS=1048576 cargo test --locked --release --package gm-tls --test tls nonce

bench: ## run the benchmarks and print the handshake table
	@scripts/preflight build
	cargo bench --locked --bench codec --bench router --bench handshake
	cargo bench --locked --package gm-tls --bench sm2

bench-brokers: ## compare with an installed mosquitto and write benches/results (ARGS="--rounds 5")
	@scripts/preflight build brokers
	cargo build --locked --release --bin shangmq
	@scripts/bench-brokers $(ARGS)

bench-storm: ## measure established and new clients under 5,000 abusive handshakes at once (ARGS="--seconds 30")
	@scripts/preflight build
	cargo bench --locked --bench storm -- $(ARGS)

bench-recipe: ## compare TLCP handshakes with those over Tongsuo as its published recipe builds it (ROUNDS=15)
	@scripts/preflight build
	@scripts/bench-recipe

ci: ## what CI runs
	.ci/run

conformance: ## write docs/conformance.md anew from the citations in code and tests
	CONFORMANCE_WRITE=1 cargo test --locked --test conformance
