# What `../../edges.sh` starts for this example, and shows of it.
servers=(redis)
posts=1

# The events of the test, and a later one: an answer comes when no earlier event can.
fill() {
  post events <"$example/tests/small/input/events.jsonl"
  post events <<<'{"user_id":"zoe","item_id":"tea","action":"view","category":"kitchen","ts":"2024-03-01T12:00:00Z"}'
}

show() {
  results "recommendations in Redis" has_key suggested:dia
  results "recommendations beside an item" has_key together:dia:pot
  run redis-cli -u "$redis" --no-auth-warning HGET suggested:dia recommended
  run redis-cli -u "$redis" --no-auth-warning GET together:dia:pot
  run curl -sG "$service/api/v1/pipelines/recommend/operators/latest/state" --data-urlencode 'key={"user":"dia"}'
  cat <<TEXT


Events of your own, of which the second is 5 s later:
  printf '%s\n' '{"user_id":"kim","item_id":"tea","action":"view","category":"kitchen","ts":"2024-03-01T12:01:00Z"}' \\
    '{"user_id":"kim","item_id":"cup","action":"view","category":"kitchen","ts":"2024-03-01T12:02:00Z"}' |
    curl -s -H 'Content-Type: application/x-ndjson' --data-binary @- http://$posted/events
  redis-cli -u $redis --no-auth-warning HGETALL suggested:kim
TEXT
}
