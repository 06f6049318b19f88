#!/usr/bin/env bash
# Prepares a Debian or Ubuntu machine that has rustup for building Sluicebox,
# and says what it does. Does nothing if everything is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# wasmtime and zstd need a C compiler; the rest is for RocksDB (its bindings need
# libclang) and librdkafka (built by cmake with ssl, sasl, zlib, curl).
packages=(
  build-essential pkg-config cmake libclang-dev
  libssl-dev libsasl2-dev zlib1g-dev libcurl4-openssl-dev
)
# Only tests need these: Maven fetches a Kafka broker, which runs on Java; kcat and
# DuckDB, which Python installs, read independently what Sluicebox writes; so does boto3, by a
# server of S3's protocol, moto; Chromium shows the live page; servers of PostgreSQL and Redis
# take rows.
test_packages=(default-jre-headless maven kcat python3-venv chromium postgresql redis-server)
duckdb=1.5.6
moto=5.2.5
target=wasm32-wasip2

say() { printf 'setup: %s\n' "$*"; }
stop() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

# Prints the given packages that are not installed.
missing_packages() {
  local package
  for package in "$@"; do
    # `|| true`: dpkg-query fails for an unknown package.
    [[ "$(dpkg-query -W -f='${db:Status-Status} ' "$package" 2>/dev/null || true)" == *installed* ]] ||
      printf '%s\n' "$package"
  done
}

install_packages() {
  local -a missing missing_for_tests as_root
  mapfile -t missing < <(missing_packages "${packages[@]}")
  mapfile -t missing_for_tests < <(missing_packages "${test_packages[@]}")
  ((${#missing[@]} + ${#missing_for_tests[@]})) || return 0
  if ((EUID == 0)); then
    as_root=(env)
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo env)
  elif ((${#missing[@]})); then
    stop "these system packages are missing: ${missing[*]}" \
      "install them with: sudo apt-get install ${missing[*]}"
  else
    say "some tests are ignored without: sudo apt-get install ${missing_for_tests[*]}"
    return 0
  fi
  missing+=("${missing_for_tests[@]}")
  say "installing system packages: ${missing[*]}"
  "${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get update -qq
  "${as_root[@]}" DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# Other distributions use other package names, so only the tools are checked.
check_tools() {
  local tool
  for tool in cc c++ make cmake pkg-config; do
    command -v "$tool" >/dev/null ||
      stop "\`$tool\` is missing: install what your system calls ${packages[*]}"
  done
}

check_rust() {
  local wanted found
  command -v rustc >/dev/null ||
    stop "rustc is missing: install Rust with rustup (https://rustup.rs), then run this again"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  found=$(rustc --version | cut -d ' ' -f 2)
  [[ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" == "$wanted" ]] ||
    stop "rustc $found is too old: Sluicebox needs $wanted or newer" \
      "update it with: rustup update stable"
}

add_target() {
  [[ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]] && return 0
  command -v rustup >/dev/null ||
    stop "this Rust cannot build for $target, and there is no rustup to add it" \
      "install your system's Rust standard library for $target, or Rust with rustup (https://rustup.rs)"
  say "adding the Rust target $target, which plugins are built for"
  rustup target add "$target"
}

# In a folder of its own, which outlives the target folder.
install_duckdb() {
  local folder="${XDG_CACHE_HOME:-$HOME/.cache}/sluicebox/tools/duckdb"
  [[ -x "$folder/bin/duckdb" ]] && return 0
  say "installing duckdb $duckdb into $folder"
  { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet "duckdb-cli==$duckdb"; } ||
    say "duckdb cannot be installed, so the test that needs it will be ignored"
}

install_moto() {
  local folder="${XDG_CACHE_HOME:-$HOME/.cache}/sluicebox/tools/moto"
  [[ -x "$folder/bin/moto_server" ]] && return 0
  say "installing moto $moto into $folder"
  { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet "moto[s3]==$moto" flask flask-cors; } ||
    say "moto cannot be installed, so the tests that need it will be ignored"
}

# The shell may be older than the installation of rustup.
if ! command -v cargo >/dev/null && [[ -f "${CARGO_HOME:-$HOME/.cargo}/env" ]]; then
  # shellcheck source=/dev/null
  source "${CARGO_HOME:-$HOME/.cargo}/env"
fi

if command -v dpkg-query >/dev/null; then install_packages; else check_tools; fi
check_rust
add_target
install_duckdb
install_moto
say "ready ($(rustc --version | cut -d ' ' -f 1,2), $target)"
