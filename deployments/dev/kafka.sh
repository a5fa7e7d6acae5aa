# shellcheck shell=bash
# Apache Kafka: one KRaft node, broker and controller in a single process.

kafka_version() { echo "$KAFKA_VERSION"; }
kafka_ports() { echo KAFKA KAFKA_CONTROLLER; }
kafka_address() { echo "$HOST:${PORT[KAFKA]:-?}"; }

kafka_fetch() { fetch_dist kafka "kafka-$KAFKA_VERSION" need_maven kafka_build; }

kafka_build() {
  maven "$2" "$DEV_DIR/kafka/pom.xml" dependency:copy-dependencies \
    -Dkafka.version="$KAFKA_VERSION" -DincludeScope=runtime -DoutputDirectory="$1/lib"
}

kafka_java() {
  "$JAVA" -Xmx128m -XX:+UseSerialGC -cp "$DIST_DIR/kafka-$KAFKA_VERSION/lib/*" "$@"
}

# kafka_conf OUT DATA_DIR renders the broker's configuration.
kafka_conf() {
  render "$DEV_DIR/kafka/server.properties" "$1" HOST="$HOST" DATA_DIR="$2" \
    PORT="${PORT[KAFKA]}" CONTROLLER_PORT="${PORT[KAFKA_CONTROLLER]}"
}

# kafka_format prepares the data folder aside and renames it, so that a format cut short
# is done again.
kafka_format() {
  local fresh=$DATA_DIR/kafka.new id
  rm -rf "$fresh"
  mkdir -p "$fresh"
  # A cluster id is 16 random bytes in URL-safe base64 that do not begin with a dash,
  # which the tool would read as an option.
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')
  kafka_conf "$RUN_DIR/conf/kafka-format.properties" "$fresh" || return
  if ! kafka_java kafka.tools.StorageTool format -t "k${id:1}" \
    -c "$RUN_DIR/conf/kafka-format.properties" >"$LOG_DIR/kafka-format.log" 2>&1; then
    tail -n 5 "$LOG_DIR/kafka-format.log" >&2
    fail kafka "cannot prepare $DATA_DIR/kafka, see $LOG_DIR/kafka-format.log"
    return 1
  fi
  mv -T "$fresh" "$DATA_DIR/kafka"
}

kafka_launch() {
  need_java kafka || return
  mkdir -p "$RUN_DIR/conf" "$DATA_DIR"
  if [[ ! -d $DATA_DIR/kafka ]]; then kafka_format || return; fi
  kafka_conf "$RUN_DIR/conf/kafka.properties" "$DATA_DIR/kafka" || return
  # shellcheck disable=SC2086 # options are split on purpose
  launch kafka "$JAVA" "-Xms${KAFKA_HEAP}m" "-Xmx${KAFKA_HEAP}m" -XX:+UseSerialGC \
    -XX:+ExitOnOutOfMemoryError \
    -Dorg.slf4j.simpleLogger.showDateTime=true \
    -Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd\'T\'HH:mm:ss.SSSXXX \
    ${WEIR_KAFKA_JAVA_OPTS:-} \
    -cp "$DIST_DIR/kafka-$KAFKA_VERSION/lib/*" kafka.Kafka "$RUN_DIR/conf/kafka.properties"
}

# kafka_ready asks the broker for its cluster's metadata, in Kafka's own protocol, and
# wants to see one broker: the port opens earlier, while the controller still fences the
# broker. The request is: length 14, api key 3 (Metadata), version 1, correlation id 7,
# no client id, no topics. The answer begins with its length, the correlation id and the
# number of brokers, four bytes each.
kafka_ready() {
  local answer
  # shellcheck disable=SC2016 # expanded by the inner shell
  answer=$(timeout 3 bash -c '
    exec 3<>"/dev/tcp/$1/$2" || exit 1
    printf "\0\0\0\x0e\0\x03\0\x01\0\0\0\x07\xff\xff\0\0\0\0" >&3
    head -c 12 <&3 | od -An -v -tx1' _ "$HOST" "${PORT[KAFKA]:-0}" 2>/dev/null) || return 1
  [[ ${answer//[[:space:]]/} =~ ^.{8}00000007(.{8})$ && ${BASH_REMATCH[1]} != 00000000 ]]
}
