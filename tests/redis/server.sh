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

stop() {
  printf 'server.sh: %s\n' "$@" >&2
  exit 1
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  while :; do
    # Below the range of ports that the system gives to clients.
    port=$((20000 + RANDOM % 12000))
    is_free "$port" && break
  done
  echo "$port"
}

is_running() { [[ -f $1/pid ]] && kill -0 "$(<"$1/pid")" 2>/dev/null; }

start() {
  local folder=$1 owner=${2:-} waited=0 port
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
  port=$(cut -d : -f 2 "$folder/address")
  until [[ $(REDISCLI_AUTH=s3cret redis-cli -p "$port" ping 2>/dev/null) == PONG ]]; do
    is_running "$folder" || stop "the server ended at once: $(tail -n 3 "$folder/server.log")"
    ((waited++ < seconds_max * 10)) || {
      kill -9 "$(<"$folder/pid")"
      stop "the server does not serve after $seconds_max s: see $folder/server.log"
    }
    sleep 0.1
  done
  if [[ -n $owner ]]; then
    (
      while kill -0 "$owner" 2>/dev/null; do sleep 0.5; done
      end "$folder" -9
      rm -rf "$folder"
    ) >/dev/null 2>&1 </dev/null &
  fi
  cat "$folder/address"
}

# Ends the server by a signal, and waits until it is gone.
end() {
  local folder=$1 signal=$2
  is_running "$folder" && kill "$signal" "$(<"$folder/pid")"
  while is_running "$folder"; do sleep 0.05; done
  rm -f "$folder/pid"
}

case "${1:-}" in
  start) start "$2" "${3:-}" ;;
  stop) end "$2" -15 ;;
  kill) end "$2" -9 ;;
  again) start "$2" ;;
  *) stop "what to do? start DIR, stop DIR, kill DIR or again DIR" ;;
esac
