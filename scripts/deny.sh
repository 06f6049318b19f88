#!/usr/bin/env bash
# Checks the dependencies: licences, bans and sources always; known
# vulnerabilities if their database can be downloaded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Kept outside the target folder, so that `make clean` does not cost a build.
tools="${XDG_CACHE_HOME:-$HOME/.cache}/sluicebox/tools"
export PATH="$tools/bin:$PATH"
say() { printf 'deny: %s\n' "$*"; }

if ! command -v cargo-deny >/dev/null; then
  say "installing cargo-deny into $tools (once, some minutes)"
  cargo install cargo-deny --locked --version '^0.20' --root "$tools" --quiet
fi

cargo deny --locked check bans licenses sources

if timeout 120 cargo deny --locked fetch db >/dev/null 2>&1; then
  cargo deny --locked check --disable-fetch advisories
else
  say "advisories not checked: their database cannot be reached from here"
fi
