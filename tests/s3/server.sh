#!/usr/bin/env bash
# A real server of S3's protocol for tests (moto), on a free loopback port, with what it needs
# in one folder. It checks signatures: `key` in the folder has an access key and its secret.
# What it has is in its memory, and gone when it ends.
#
#   server.sh start DIR [OWNER]  start a server, wait until it serves, print its address; if
#                                OWNER, a process, ends before it is stopped, it is stopped
#                                and DIR removed
#   server.sh stop DIR           stop it
#   server.sh freeze DIR         have it answer nothing
#   server.sh thaw DIR           have it answer again
#   server.sh client DIR ...     what client.py does
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${XDG_CACHE_HOME:-$HOME/.cache}/sluicebox/tools/moto
seconds_max=60

# shellcheck source=../servers.sh
source "$here/../servers.sh"

# The first requests need no key: they make one.
requests_without_key=3

serves() { ! is_free "$(port_of "$1")"; }

start() {
  local folder=$1 owner=${2:-} port
  [[ -x $tools/bin/moto_server ]] || stop "moto is missing: scripts/setup.sh installs it"
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  is_running "$folder" && stop "a server runs on $folder already"
  port=$(free_port)
  echo "127.0.0.1:$port" >"$folder/address"
  INITIAL_NO_AUTH_ACTION_COUNT=$requests_without_key \
    "$tools/bin/python" "$here/moto_server.py" -H 127.0.0.1 -p "$port" >"$folder/server.log" 2>&1 </dev/null &
  echo $! >"$folder/pid"
  await "$folder" "$folder/server.log" serves "$folder"
  "$tools/bin/python" "$here/client.py" "$folder" key
  end_with "$owner" "$folder" -9
  cat "$folder/address"
}

case "${1:-}" in
  start) start "$2" "${3:-}" ;;
  stop) end "$2" -15 ;;
  freeze) kill -STOP "$(<"$2/pid")" ;;
  thaw) kill -CONT "$(<"$2/pid")" ;;
  client) exec "$tools/bin/python" "$here/client.py" "${@:2}" ;;
  *) stop "what to do? start DIR, stop DIR, freeze DIR, thaw DIR or client DIR ..." ;;
esac
