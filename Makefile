# All tasks of this repository, set-up included:
#
#   make demo    serves the cart example with its page for 30 s, on a terminal until Ctrl-C
#   make -C examples/cart up  starts an example with PostgreSQL and Redis; down ends it
#   make test    runs every test, then compares the examples' results with the expected rows
#   make test-kill  kills a host with each connector, N=1000 times each, and the server that it
#                   reads from or writes to, a fifth as often
#   make check   checks what CI checks: format, lints, tests, docs, dependencies
#   make bench   runs the benchmarks; results go to target/bench/results.json
#   make movielens RATINGS=u.data   measures recommendations on your copy of MovieLens 100k
#   make clean   deletes what was built
#
# Cargo always builds the whole workspace with one profile: another selection
# of crates or another profile would compile the dependencies a second time.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

cargo := cargo
flags := --release --workspace --locked
built := $(or $(CARGO_TARGET_DIR),target)
sluicebox := $(built)/release/sluicebox
plugins := behaviour campaign cart inventory monitoring notify recommend words
examples := behaviour campaign cart inventory monitoring notify orders recommend sums warehouse words

# A shell that is older than the installation of rustup lacks this path.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: help setup host plugins demo test test-kill check format lint unit example docs deny bench movielens clean

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
	@$(cargo) build --release --locked --target wasm32-wasip2 \
	  $(addprefix -p ,$(plugins) basics hostile lawless)

demo: host
	@$(sluicebox) build plugins/cart
	@scripts/demo.sh $(sluicebox) plugins/cart/cart.wasm

test: unit example

# `make test` kills a few times; SEED repeats a series.
N := 1000
killed := kill postgres postgres_source redis redis_source http folders follow s3 schemas lines
test-kill: plugins
	@echo "killing a host $(N) times"
	@SLUICEBOX_KILLS=$(N) SLUICEBOX_SERVER_KILLS=$$(($(N) / 5)) $(if $(SEED),SLUICEBOX_SEED=$(SEED)) \
	  $(cargo) test $(flags) $(addprefix --test ,$(killed)) -- nothing_is_lost --nocapture

unit: plugins
	@echo "running the tests"
	@$(cargo) test $(flags)

example: host plugins
	@for plugin in $(plugins); do $(sluicebox) build plugins/$$plugin; done
	@for example in $(examples); do $(sluicebox) test examples/$$example; done

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
	@$(sluicebox) build plugins/recommend
	@$(sluicebox) build plugins/notify
	@$(cargo) build $(flags) --example bench
	@$(built)/release/examples/bench --plugin plugins/cart/cart.wasm

movielens: host
	@$(sluicebox) build plugins/recommend
	@python3 examples/recommend/movielens/movielens.py prepare $(RATINGS)
	@$(sluicebox) run --quiet examples/recommend/movielens/pipeline.toml
	@python3 examples/recommend/movielens/movielens.py evaluate

clean:
	@$(cargo) clean
	@rm -f plugins/*/*.wasm
