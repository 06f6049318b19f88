# Everything there is to do with this repository, set-up included:
#
#   make demo    the cart example on generated shop events, for half a minute
#   make test    every test, then the example's rows against the expected ones
#   make test-kill  a host between topics of Kafka, killed N=1000 times
#   make check   what CI checks: format, lints, tests, docs, dependencies
#   make bench   the benchmarks; results in target/bench/results.json
#   make clean   forget what was built
#
# Always the whole workspace and always one profile: another selection of
# crates or another profile would compile the dependencies a second time.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

cargo := cargo
flags := --release --workspace --locked
built := $(or $(CARGO_TARGET_DIR),target)
sluicebox := $(built)/release/sluicebox

# rustup may have been installed by this very shell's parent.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: help setup host plugins demo test test-kill check format lint unit example docs deny bench clean

help:
	@sed -n 's/^#   make/make/p' $(firstword $(MAKEFILE_LIST))

setup:
	@scripts/setup.sh

host: setup
	@echo "building the host"
	@$(cargo) build $(flags)

# The tests load these as Wasm.
plugins: setup
	@echo "building the plugins for wasm32-wasip2"
	@$(cargo) build --release --locked --target wasm32-wasip2 -p cart -p basics -p hostile -p lawless

demo: host
	@$(sluicebox) build plugins/cart
	@$(sluicebox) run examples/cart/pipeline.toml
	@for file in visits added_per_minute dead_letters; do \
	  printf '\n%s, the last of %s rows:\n' "$$file" "$$(wc -l < examples/cart/out/$$file.jsonl)"; \
	  tail -n 2 "examples/cart/out/$$file.jsonl" | cut -c 1-160; \
	done
	@printf '\nall results: examples/cart/out\n'

test: unit example

# The tests do a few; SEED repeats a campaign.
N := 1000
test-kill: plugins
	@echo "killing a host $(N) times"
	@SLUICEBOX_KILLS=$(N) $(if $(SEED),SLUICEBOX_SEED=$(SEED)) $(cargo) test $(flags) --test kill -- --nocapture

unit: plugins
	@echo "running the tests"
	@$(cargo) test $(flags)

example: host plugins
	@$(sluicebox) build plugins/cart
	@$(sluicebox) test examples/cart

check: setup format lint test docs deny
	@echo "all checks passed"

format: setup
	@$(cargo) fmt --all --check

lint: setup
	@$(cargo) clippy $(flags) --all-targets -- -D warnings

docs: setup
	@RUSTDOCFLAGS="-D warnings" $(cargo) doc $(flags) --no-deps

deny: setup
	@scripts/deny.sh

bench: host plugins
	@$(sluicebox) build plugins/cart
	@$(cargo) build $(flags) --example bench
	@$(built)/release/examples/bench --plugin plugins/cart/cart.wasm

clean:
	@$(cargo) clean
	@rm -f plugins/*/*.wasm
