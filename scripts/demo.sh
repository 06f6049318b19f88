#!/usr/bin/env bash
# Serves the cart example on generated shop events, with its page, and shows a few of its
# results at the end: after 30 s, or on a terminal after Ctrl-C (10 minutes at most).
#
#   scripts/demo.sh BINARY PLUGIN [SECONDS [FOLDER]]
set -euo pipefail
sluicebox=$(realpath "$1")
plugin=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
on_terminal=
if [[ -t 0 && -t 1 ]]; then on_terminal=yes; fi
seconds=${3:-$([[ $on_terminal ]] && echo 600 || echo 30)}
folder=${4:-examples/cart/out/service}

# A demo that runs elsewhere keeps its folder.
if [[ -e $folder/data/lock ]] && ! flock --nonblock "$folder/data/lock" true; then
  echo "a demo runs already, in $folder: end it first" >&2
  exit 1
fi
rm -rf "$folder"
mkdir -p "$folder/pipelines" "$folder/plugins"
cp "$plugin" "$folder/plugins/cart.wasm"

# The example as a service has it: its events do not end, it makes checkpoints, and begins
# new files of results again and again. Twenty seconds of events come in each second, so
# that they catch up with the clock at the end.
start=$(date -u -d "@$(($(date +%s) - 20 * seconds))" +%Y-%m-%dT%H:%M:%SZ)
sed -e 's|^path = ".*/cart.wasm"|path = "../plugins/cart.wasm"|' \
    -e 's|"out/|"../results/|' \
    -e '/^count = /d' \
    -e "s|^start = .*|start = \"$start\"|" \
    -e 's|^format = "json"|&\nroll = { every = "5s" }|' \
    -e '/^\[sinks.top_items\]/,/^$/d' \
    -e '/^\[sinks.top_items_file\]/,/^$/s|^format = .*|&\nroll = { every = "5s" }|' \
    examples/cart/pipeline.toml >"$folder/pipelines/cart.toml"
printf '\n[checkpoints]\ninterval = "2s"\n' >>"$folder/pipelines/cart.toml"

# The usual address, unless something else listens there.
listen=127.0.0.1:7878
if (: <"/dev/tcp/127.0.0.1/7878") 2>/dev/null; then listen=127.0.0.1:0; fi

# In a process group of its own: Ctrl-C ends it after the results were shown.
set -m
SLUICEBOX_LOG=info "$sluicebox" serve "$folder" --listen "$listen" \
  </dev/null >/dev/null 2>"$folder/log.txt" &
host=$!
set +m
end() {
  if kill -TERM "$host" 2>/dev/null; then wait "$host" || true; fi
}
trap end EXIT
asked=
trap 'asked=yes' INT TERM HUP

failed() {
  cat "$folder/log.txt" >&2
  exit 1
}
until grep -q 'ready: ' "$folder/log.txt"; do
  if [[ $asked ]]; then exit; fi
  kill -0 "$host" 2>/dev/null || failed
  sleep 0.1
done
address=$(sed -n 's|.*listening on ||p' "$folder/log.txt" | head -n 1)
export SLUICEBOX_HOST=$address

cat <<TEXT

The cart example is served: its page is $address/
  a change of $folder/pipelines/cart.toml takes effect when it is saved
  what is kept of the visits of a user:
    curl -G $address/api/v1/pipelines/cart/operators/sessions/state --data-urlencode 'key={"user_id":"user-000001"}'
TEXT
if [[ $on_terminal ]]; then echo "Ctrl-C ends it."; else echo "It ends in $seconds s."; fi

for ((tenths = 0; tenths < seconds * 10; tenths++)); do
  if [[ $asked ]]; then break; fi
  kill -0 "$host" 2>/dev/null || failed
  sleep 0.1 || true
done

run() {
  printf '\n$ sluicebox %s\n' "$*"
  "$sluicebox" "$@"
}
run pipelines show cart
run state cart carts --limit 3
run tail cart top --count 2
run letters list cart --limit 3
end
for file in visits added_per_minute; do
  files=("$folder/results/$file"*.jsonl)
  printf '\n%s, the last of %s rows:\n' "$file" "$(cat "${files[@]}" | wc -l)"
  cat "${files[@]}" | tail -n 2 | cut -c 1-160
done
printf '\nall results: %s/results\n' "$folder"
