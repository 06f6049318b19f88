#!/usr/bin/env bash
# Starts an example with its real edges: servers on free loopback ports, and a service
# (`sluicebox serve`) with the pipelines of the example's folder `edges`, each of which has the
# plugins and operators of the pipeline beside that folder. All files are in one temporary
# folder, to which examples/NAME/out/edges leads.
#
#   edges.sh up NAME      start it, wait for results, and show them, and where there are more
#   edges.sh down NAME    end it, and remove the folder
#
# SLUICEBOX and PLUGINS are the paths of a binary and of a folder of plugins that are built.
# NAME/edges/scenario.sh says what is started: `servers`, some of kafka, postgres and redis;
# `posts`, how many sources take posted rows; and `prepare`, `fill` and `show`, what is done
# before the service starts, when it is ready, and at last.
set -euo pipefail

seconds_max=120
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

# shellcheck source=../tests/servers.sh
source "$root/tests/servers.sh"

name=${2:-}
example=$here/$name
[[ -n $name && -f $example/edges/scenario.sh ]] || stop "which example? one of those with a folder \`edges\`"
link=$example/out/edges

posts=0
prepare() { :; }
fill() { :; }
# shellcheck source=cart/edges/scenario.sh
source "$example/edges/scenario.sh"

script_of() {
  case $1 in
    kafka) echo "$root/tests/kafka/broker.sh" ;;
    *) echo "$root/tests/$1/server.sh" ;;
  esac
}

# Starts a process with its log in a folder of its own, where `down` finds its id.
begin() {
  local of=$folder/$1
  shift
  mkdir -p "$of"
  setsid "$@" >"$of/log" 2>&1 </dev/null &
  echo $! >"$of/pid"
}

build() {
  local plugin
  if [[ -z ${SLUICEBOX:-} ]]; then
    make --no-print-directory -C "$root" host
    SLUICEBOX=${CARGO_TARGET_DIR:-$root/target}/release/sluicebox
  fi
  for plugin in $(sed -n 's|^path = "../../plugins/.*/\(.*\).wasm"|\1|p' "$example"/*.toml | sort -u); do
    if [[ -z ${PLUGINS:-} ]]; then "$SLUICEBOX" build "$root/plugins/$plugin"; fi
    cp "${PLUGINS:-$root/plugins/$plugin}/$plugin.wasm" "$folder/plugins/"
  done
}

# A pipeline of the folder `edges`, and behind it the plugins and operators of the pipeline of
# that name; with the addresses of what was started.
compose() {
  local edges=$1 called plain=$example/${1##*/}
  called=$(sed -n 's/^name = "\(.*\)"/\1/p' "$edges")
  {
    cat "$edges"
    if [[ -f $plain ]]; then
      echo
      awk '/^\[/ { wanted = /^\[(plugins|operators)\./ } wanted && !/^#/' "$plain"
    fi
  } | sed -e "s|127.0.0.1:5432|${postgres:-}|" -e "s|127.0.0.1:6379|${redis_address:-}|" \
    -e "s|127.0.0.1:9092|${brokers:-}|" -e "s|127.0.0.1:8088|${posted:-}|" \
    -e "s|127.0.0.1:8089|${hooked:-}|" -e 's|"../../plugins/.*/|"../plugins/|' \
    >"$folder/pipelines/$called.toml"
}

make_tables() {
  "$SLUICEBOX" check --ddl "$folder/pipelines/$1.toml" | psql -q -v ON_ERROR_STOP=1 "$shop" >/dev/null
}

# Posts lines of JSON, which are answered when they are in a checkpoint.
post() {
  results "source that listens" is_taken "${posted#*:}"
  curl -sS --fail-with-body -H "Content-Type: application/x-ndjson" --data-binary @- \
    "http://$posted/$1" >>"$folder/posted.log"
}

is_taken() { ! is_free "$1"; }
has_rows() { [[ $(psql -XAtq "$shop" -c "SELECT EXISTS (SELECT FROM $1)") == t ]]; }
has_key() { [[ $(redis-cli -u "$redis" --no-auth-warning EXISTS "$1") == 1 ]]; }

# Waits until a command says that there are some.
results() {
  local what=$1 waited=0
  shift
  until "$@" 2>/dev/null; do
    [[ ! -f $folder/host/pid ]] || is_running "$folder/host" ||
      stop "the service ended: $(tail -n 3 "$folder/host/log")"
    ((waited++ < seconds_max * 5)) ||
      stop "no $what after $seconds_max s: $(tail -n 3 "$folder/host/log" 2>/dev/null)"
    sleep 0.2
  done
}

# Shows a command, so that it can be repeated, and what it prints.
run() {
  local word
  printf '\n$'
  for word in "$@"; do
    case $word in
      *\'*) printf ' "%s"' "$word" ;;
      *[^A-Za-z0-9_:/.@=-]*) printf " '%s'" "$word" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
  echo
  "$@"
}

up() {
  local server starting=() listen=127.0.0.1:7878
  if [[ -L $link && -d $link ]]; then stop "it is up already: make -C examples/$name down"; fi
  # The server of PostgreSQL runs as a user of its own, who has to come to its files.
  folder=$(mktemp -d "${TMPDIR:-/tmp}/sluicebox-$name.XXXXXX")
  chmod 755 "$folder"
  mkdir -p "$folder/pipelines" "$folder/plugins" "$example/out"
  ln -sfn "$folder" "$link"
  trap 'echo "it does not come up: ending what was started" >&2; down' EXIT
  build
  for server in "${servers[@]}"; do
    AUTO_TOPICS=true "$(script_of "$server")" start "$folder/$server" >/dev/null &
    starting+=($!)
  done
  for server in "${starting[@]}"; do wait "$server"; done
  if [[ -f $folder/postgres/address ]]; then
    postgres=$(<"$folder/postgres/address")
    shop=postgresql://shop:s3cret@$postgres/shop
  fi
  if [[ -f $folder/redis/address ]]; then
    redis_address=$(<"$folder/redis/address")
    redis=redis://default:s3cret@$redis_address
  fi
  if [[ -f $folder/kafka/address ]]; then brokers=$(<"$folder/kafka/address"); fi
  if ((posts > 0)); then posted=127.0.0.1:$(free_port); fi
  if ((posts > 1)); then hooked=127.0.0.1:$(free_port); fi
  export SHOP_PASSWORD=s3cret PAGER=cat
  for server in "$example"/edges/*.toml; do compose "$server"; done
  prepare
  is_free 7878 || listen=127.0.0.1:$(free_port)
  service=http://$listen
  SLUICEBOX_LOG=info begin host "$SLUICEBOX" serve "$folder" --listen "$listen"
  results "service that is ready" curl -sf -o /dev/null "$service/readyz"
  fill
  printf '\nThe example %s runs: its page is %s/\n' "$name" "$service"
  printf 'its pipelines are in %s/pipelines, and take changes when they are saved\n' "$folder"
  show
  trap - EXIT
  printf '\nmake -C examples/%s down ends it.\n' "$name"
}

down() {
  local server process
  [[ -L $link ]] || return 0
  folder=$(readlink "$link")
  # First those that use the servers.
  for process in host listener; do
    if [[ -f $folder/$process/pid ]]; then end "$folder/$process" -TERM; fi
  done
  for server in "${servers[@]}"; do
    if [[ -d $folder/$server ]]; then "$(script_of "$server")" stop "$folder/$server"; fi
  done
  rm -rf "$folder"
  rm -f "$link"
}

case ${1:-} in
  up) up ;;
  down) down ;;
  *) stop "what to do? up NAME or down NAME" ;;
esac
