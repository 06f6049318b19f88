#!/usr/bin/env bash
# A real Redis server for tests, on a free loopback port, with all its files in one folder.
# Its default user has the password s3cret. What it has answered is on the disk.
#
#   server.sh start DIR [OWNER]  start a server on DIR, wait until it serves, print its
#                                address; if OWNER, a process, ends before it is stopped, it
#                                is stopped and DIR removed
#   server.sh stop DIR           shut it down
#   server.sh kill DIR           kill it, as a power cut would (SIGKILL)
#   server.sh again DIR          start it again on the same data and port
set -euo pipefail

seconds_max=60

# shellcheck source=../servers.sh
source "$(dirname "${BASH_SOURCE[0]}")/../servers.sh"

serves() { [[ $(REDISCLI_AUTH=s3cret redis-cli -p "$(port_of "$1")" ping 2>/dev/null) == PONG ]]; }

start() {
  local folder=$1 owner=${2:-} port
  command -v redis-server >/dev/null || stop "redis-server is missing: apt-get install redis-server"
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  is_running "$folder" && stop "a server runs on $folder already"
  if [[ ! -f $folder/address ]]; then
    port=$(free_port)
    cat >"$folder/redis.conf" <<CONFIG
bind 127.0.0.1
port $port
dir $folder
requirepass s3cret
appendonly yes
appendfsync always
save ""
CONFIG
    echo "127.0.0.1:$port" >"$folder/address"
  fi
  redis-server "$folder/redis.conf" >>"$folder/server.log" 2>&1 </dev/null &
  echo $! >"$folder/pid"
  await "$folder" "$folder/server.log" serves "$folder"
  end_with "$owner" "$folder" -9
  cat "$folder/address"
}

case "${1:-}" in
  start) start "$2" "${3:-}" ;;
  stop) end "$2" -15 ;;
  kill) end "$2" -9 ;;
  again) start "$2" ;;
  *) stop "what to do? start DIR, stop DIR, kill DIR or again DIR" ;;
esac
