#!/usr/bin/env bash
# A real single-node Kafka broker for tests, on free loopback ports, with all its
# files in one folder. A second port (secure-address in the folder) requires TLS
# (trusted.pem) and a password (PLAIN, shop, s3cret).
#
#   broker.sh fetch              download the jars, and print their folder
#   broker.sh start DIR [OWNER]  start a broker on DIR, wait until it serves, print
#                                its address; if OWNER, a process, ends before it
#                                is stopped, it is stopped and DIR removed
#   broker.sh stop DIR           shut it down
#   broker.sh kill DIR           kill it, as a power cut would (SIGKILL)
#   broker.sh restart DIR        kill it, and start it on the same data and ports
#
# With AUTO_TOPICS=true, it makes topics that are asked for, of two partitions.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The folder of the jars depends on the pom.
jars=${XDG_CACHE_HOME:-$HOME/.cache}/sluicebox/kafka-$(cksum <"$here/pom.xml" | cut -d ' ' -f 1)
seconds_max=90

# shellcheck source=../servers.sh
source "$here/../servers.sh"

fetch() {
  fetch_by_maven "the broker's jars" "$jars" "$here/pom.xml" \
    dependency:copy-dependencies -DincludeScope=runtime
}

# Called in a subshell, which becomes the process itself.
java_run() {
  local main=$1
  shift
  exec java -Xms256m -Xmx512m -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.showDateTime=true \
    -cp "$jars/*" "$main" "$@"
}

prepare() {
  local folder=$1 port=$2 controller=$3 secure=$4
  mkdir -p "$folder/data"
  # A self-signed certificate, which clients have to trust.
  local keys=(-alias broker -storetype PKCS12 -keystore "$folder/keys.p12" -storepass sluicebox)
  keytool -genkeypair "${keys[@]}" -keyalg EC -dname CN=127.0.0.1 -ext SAN=ip:127.0.0.1 \
    -validity 30 >"$folder/keys.log" 2>&1 &&
    keytool -exportcert -rfc "${keys[@]}" >"$folder/trusted.pem" 2>>"$folder/keys.log" ||
    stop "the broker's certificate cannot be made: see $folder/keys.log"
  cat >"$folder/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,SECURE://127.0.0.1:$secure,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,SECURE://127.0.0.1:$secure
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
ssl.keystore.type=PKCS12
ssl.keystore.location=$folder/keys.p12
ssl.keystore.password=sluicebox
ssl.key.password=sluicebox
sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_shop="s3cret";
log.dirs=$folder/data
auto.create.topics.enable=${AUTO_TOPICS:-false}
num.partitions=2
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.max.timeout.ms=900000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.enable=false
PROPERTIES
  (java_run kafka.tools.StorageTool format -t c2x1aWNlYm94LXRlc3QtMQ \
    -c "$folder/server.properties") >"$folder/format.log" 2>&1 ||
    stop "the broker's folder cannot be prepared: see $folder/format.log"
  echo "127.0.0.1:$secure" >"$folder/secure-address"
  echo "127.0.0.1:$port" >"$folder/address"
}

start() {
  local folder=$1 owner=${2:-}
  fetch
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  is_running "$folder" && stop "a broker runs on $folder already"
  [[ -f $folder/address ]] || prepare "$folder" "$(free_port)" "$(free_port)" "$(free_port)"
  # Only the log of this start says whether it serves.
  [[ -f $folder/broker.log ]] && cat "$folder/broker.log" >>"$folder/earlier.log"
  : >"$folder/broker.log"
  java_run kafka.Kafka "$folder/server.properties" >"$folder/broker.log" 2>&1 </dev/null &
  echo $! >"$folder/pid"
  await "$folder" "$folder/broker.log" grep -q "Kafka Server started" "$folder/broker.log"
  end_with "$owner" "$folder" -9
  cat "$folder/address"
}

case "${1:-}" in
  fetch) fetch && echo "$jars" ;;
  start) start "$2" "${3:-}" ;;
  stop) end "$2" -15 ;;
  kill) end "$2" -9 ;;
  restart) end "$2" -9 && start "$2" ;;
  *) stop "what to do? fetch, start DIR, stop DIR, kill DIR or restart DIR" ;;
esac
