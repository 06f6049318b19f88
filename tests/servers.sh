# What the scripts share that start a server for tests, each with all its files in one folder:
# `pid`, `address`, a log. They source this.

stop() {
  printf '%s: %s\n' "${0##*/}" "$@" >&2
  exit 1
}

# Fetches what is at Maven's into a folder, unless it is there: what it is called, the folder,
# the file that says what is needed, and the goal with its options.
fetch_by_maven() {
  local what=$1 target=$2 pom=$3
  shift 3
  [[ -d $target ]] && return 0
  command -v java >/dev/null || stop "java is missing: apt-get install default-jre-headless"
  command -v mvn >/dev/null || stop "mvn is missing: apt-get install maven"
  mkdir -p "${target%/*}"
  local staged
  staged=$(mktemp -d "$target.XXXXXX")
  if ! timeout 600 mvn -q -B -f "$pom" "$@" -Dstyle.color=never -DoutputDirectory="$staged" \
    -DmarkersDirectory="$staged/markers" >"$staged.log" 2>&1; then
    rm -rf "$staged"
    stop "Maven cannot fetch $what: $(grep -m 1 ERROR "$staged.log" || tail -n 1 "$staged.log")"
  fi
  rm -f "$staged.log"
  # Another test program may have been faster.
  mv -T "$staged" "$target" 2>/dev/null || rm -rf "$staged"
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

port_of() { cut -d : -f 2 "$1/address"; }

is_running() { [[ -f $1/pid ]] && kill -0 "$(<"$1/pid")" 2>/dev/null; }

# Waits until a command says that the server of the folder serves, which writes this log.
await() {
  local folder=$1 log=$2 waited=0
  shift 2
  until "$@"; do
    is_running "$folder" || stop "the server ended at once: $(tail -n 3 "$log")"
    ((waited++ < seconds_max * 10)) || {
      kill -9 "$(<"$folder/pid")"
      stop "the server does not serve after $seconds_max s: see $log"
    }
    sleep 0.1
  done
}

# Ends the server by a signal, and waits until it is gone.
end() {
  local folder=$1 signal=$2
  is_running "$folder" && kill "$signal" "$(<"$folder/pid")"
  while is_running "$folder"; do sleep 0.05; done
  rm -f "$folder/pid"
}

# Ends it by this signal, and removes its folder, when its owner ends, if it has one.
end_with() {
  local owner=$1 folder=$2 signal=$3
  [[ -n $owner ]] || return 0
  (
    while kill -0 "$owner" 2>/dev/null; do sleep 0.5; done
    end "$folder" "$signal"
    rm -rf "$folder"
  ) >/dev/null 2>&1 </dev/null &
}
