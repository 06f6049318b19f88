#!/usr/bin/env bash
# A real registry of schemas for tests, Apicurio's, on a free loopback port, with all its
# files in one folder. It keeps schemas in memory, and speaks Confluent's REST API below the
# address that it prints.
#
#   registry.sh fetch              download the program, and print its folder
#   registry.sh start DIR [OWNER]  start a registry on DIR, wait until it serves, print
#                                  its address; if OWNER, a process, ends before it
#                                  is stopped, it is stopped and DIR removed
#   registry.sh stop DIR           shut it down
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The folder of the program depends on the pom.
program=${XDG_CACHE_HOME:-$HOME/.cache}/sluicebox/registry-$(cksum <"$here/pom.xml" | cut -d ' ' -f 1)
seconds_max=120

# shellcheck source=../servers.sh
source "$here/../servers.sh"

fetch() {
  fetch_by_maven "the registry" "$program" "$here/pom.xml" \
    dependency:unpack-dependencies -Dmdep.unpack.excludes=META-INF/
}

start() {
  local folder=$1 owner=${2:-}
  fetch
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  is_running "$folder" && stop "a registry runs on $folder already"
  local port
  port=$(free_port)
  echo "127.0.0.1:$port/apis/ccompat/v7" >"$folder/address"
  java -Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$port" \
    -jar "$program"/apicurio-registry-app-*-runner.jar >"$folder/registry.log" 2>&1 </dev/null &
  echo $! >"$folder/pid"
  await "$folder" "$folder/registry.log" grep -q "Listening on" "$folder/registry.log"
  end_with "$owner" "$folder" -9
  cat "$folder/address"
}

case "${1:-}" in
  fetch) fetch && echo "$program" ;;
  start) start "$2" "${3:-}" ;;
  stop) end "$2" -15 ;;
  *) stop "what to do? fetch, start DIR [OWNER] or stop DIR" ;;
esac
