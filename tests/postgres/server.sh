#!/usr/bin/env bash
# A real PostgreSQL server for tests, on a free loopback port, with all its files in one
# folder. It takes connections with TLS too (trusted.pem, for the name 127.0.0.1). Its users,
# all with the password s3cret: postgres, who may do all; shop, who owns the database shop, and
# may read its log.
#
#   server.sh start DIR [OWNER]  start a server on DIR, wait until it serves, print its
#                                address; if OWNER, a process, ends before it is stopped, it
#                                is stopped and DIR removed
#   server.sh stop DIR           shut it down
#   server.sh kill DIR           kill it, as a power cut would (SIGKILL)
#   server.sh again DIR          start it again on the same data and port
#   server.sh restart DIR        kill it, and start it on the same data and port
set -euo pipefail

seconds_max=60

# shellcheck source=../servers.sh
source "$(dirname "${BASH_SOURCE[0]}")/../servers.sh"

# Debian has a folder for each version, which is not in PATH.
find_programs() {
  local folder
  for folder in /usr/lib/postgresql/*/bin; do
    [[ -x $folder/initdb ]] && programs=$folder
  done
  [[ -n ${programs:-} ]] || programs=$(dirname "$(command -v initdb || true)")
  [[ -x $programs/initdb ]] || stop "initdb is missing: apt-get install postgresql"
}

# Runs a program as a user who is not root, whom the server refuses.
as_user() {
  if ((EUID == 0)); then
    exec setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
  fi
  exec "$@"
}

prepare() {
  local folder=$1 port
  port=$(free_port)
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
    -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$folder/key.pem" -out "$folder/trusted.pem" 2>"$folder/openssl.log" ||
    stop "the server's certificate cannot be made: see $folder/openssl.log"
  chmod 600 "$folder/key.pem"
  echo s3cret >"$folder/password"
  chmod 755 "$folder"
  if ((EUID == 0)); then chown -R postgres: "$folder"; fi
  (as_user "$programs/initdb" -D "$folder/data" -U postgres -A scram-sha-256 \
    --pwfile="$folder/password" -E UTF8 --no-locale --no-sync) >"$folder/initdb.log" 2>&1 ||
    stop "the server's folder cannot be prepared: $(tail -n 3 "$folder/initdb.log")"
  cat >>"$folder/data/postgresql.conf" <<CONFIG
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$folder'
ssl = on
ssl_cert_file = '$folder/trusted.pem'
ssl_key_file = '$folder/key.pem'
shared_buffers = 64MB
max_wal_size = 4GB
checkpoint_timeout = 10min
log_min_messages = warning
wal_level = logical
max_replication_slots = 40
CONFIG
  echo "127.0.0.1:$port" >"$folder/address"
}

serve() {
  local folder=$1 waited=0
  # Of a server that was killed, some processes may live a little longer, and keep its memory.
  if [[ -f $folder/data/postmaster.pid ]]; then
    while [[ -n $(children_of "$(head -n 1 "$folder/data/postmaster.pid")" "$folder") ]]; do
      ((waited++ < seconds_max * 10)) || stop "the server that was killed does not end"
      sleep 0.1
    done
  fi
  # The parent of the servers for connections; they end with it.
  (as_user "$programs/postgres" -D "$folder/data") >>"$folder/server.log" 2>&1 </dev/null &
  echo $! >"$folder/pid"
  await "$folder" "$folder/server.log" \
    "$programs/pg_isready" -q -h 127.0.0.1 -p "$(port_of "$folder")"
}

# Processes that work in the server's data, its own excepted.
children_of() {
  local process
  for process in /proc/[0-9]*; do
    if [[ ${process#/proc/} != "$1" && $(readlink "$process/cwd" 2>/dev/null) == "$2/data" ]]; then
      echo "${process#/proc/}"
    fi
  done
}

start() {
  local folder=$1 owner=${2:-}
  find_programs
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  is_running "$folder" && stop "a server runs on $folder already"
  if [[ ! -f $folder/address ]]; then
    prepare "$folder"
    serve "$folder"
    PGPASSWORD=s3cret psql -q -h 127.0.0.1 -p "$(port_of "$folder")" -U postgres \
      -v ON_ERROR_STOP=1 >"$folder/psql.log" 2>&1 <<SQL || stop "$(tail -n 3 "$folder/psql.log")"
CREATE ROLE shop LOGIN REPLICATION PASSWORD 's3cret';
CREATE DATABASE shop OWNER shop;
SQL
  else
    serve "$folder"
  fi
  end_with "$owner" "$folder" -QUIT
  cat "$folder/address"
}

case "${1:-}" in
  start) start "$2" "${3:-}" ;;
  stop) end "$2" -INT ;;
  kill) end "$2" -9 ;;
  again) start "$2" ;;
  restart) end "$2" -9 && start "$2" ;;
  *) stop "what to do? start DIR, stop DIR, kill DIR, again DIR or restart DIR" ;;
esac
