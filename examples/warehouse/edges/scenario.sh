# What `../../edges.sh` starts for this example, and shows of it.
servers=(kafka postgres)

prepare() {
  # Asked about a topic, the broker makes it.
  results "the topic" make_topic
  make_tables compute
}

make_topic() { kcat -b "$brokers" -L -t clean-actions | grep -q 'clean-actions" with 2 partitions'; }

show() {
  # The first of several hours is whole.
  results "hours in PostgreSQL" has_rows "hourly HAVING count(DISTINCT window_start) > 1"
  run kcat -C -q -e -b "$brokers" -t clean-actions -p 0 -o beginning -c 2
  run psql "$shop" -c "SELECT item_id, sum(units) AS units FROM hourly WHERE action = 'checkout' GROUP BY item_id ORDER BY units DESC, item_id LIMIT 5"
}
