# What `../../edges.sh` starts for this example, and shows of it.
servers=(postgres redis)

prepare() { make_tables cart; }

show() {
  results "visits in PostgreSQL" has_rows "visits HAVING count(*) > 1000"
  results "the top item in Redis" has_key top:1
  run psql "$shop" -c "SELECT user_id, window_start AS began, adds, removes, checkouts FROM visits ORDER BY events DESC, user_id LIMIT 3"
  run psql "$shop" -c "SELECT item_id, sum(quantity) AS in_carts FROM carts GROUP BY item_id ORDER BY in_carts DESC, item_id LIMIT 3"
  run redis-cli -u "$redis" --no-auth-warning ZREVRANGE cart:user-000007 0 2 WITHSCORES
  run redis-cli -u "$redis" --no-auth-warning HGETALL top:1
}
