# What `../../edges.sh` starts for this example, and shows of it.
servers=(redis)
posts=2
export INBOX_TOKEN=t0ken HOOK_TOKEN="Bearer t0ken"

# Listens to what is published.
prepare() {
  begin listener redis-cli -u "$redis" --no-auth-warning PSUBSCRIBE 'notify:*'
  results "a listener" grep -q psubscribe "$folder/listener/log"
}

# The actions of the test, and a later one: a notification comes when no earlier action can.
fill() {
  post actions <"$example/tests/small/input/actions.jsonl"
  act zoe follow ann "" 2024-01-02T10:00:00Z | post actions
}

# An action with its checksum.
act() {
  local checksum
  # gzip has the CRC-32 of what it compresses at its end.
  checksum=$(printf '%s\n%s\n%s\n%s\n%s' "$@" | gzip -c | tail -c 8 | head -c 4 | od -An -tx4 --endian=little)
  printf '{"actor":"%s","kind":"%s","author":"%s","post_id":"%s","ts":"%s","checksum":"%s"}\n' "$@" "${checksum// /}"
}

show() {
  results "notifications in the inboxes" has_key inbox:gus
  run redis-cli -u "$redis" --no-auth-warning LRANGE inbox:ann 0 -1
  results "messages to gus" grep -q notify:gus "$folder/listener/log"
  printf '\nOf what was published, a listener (PSUBSCRIBE notify:*) has heard:\n'
  grep -A 1 notify:gus "$folder/listener/log"
}
