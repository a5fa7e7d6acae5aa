# shellcheck shell=bash
# Elasticsearch: a single node without security.

elasticsearch_version() { echo "$ELASTICSEARCH_VERSION"; }
elasticsearch_ports() { echo ELASTICSEARCH ELASTICSEARCH_TRANSPORT; }
elasticsearch_address() { echo "http://$HOST:${PORT[ELASTICSEARCH]:-?}"; }

elasticsearch_home() { echo "$DIST_DIR/elasticsearch-$ELASTICSEARCH_VERSION"; }

elasticsearch_fetch() {
  fetch_dist elasticsearch "elasticsearch-$ELASTICSEARCH_VERSION" need_maven elasticsearch_build
}

# elasticsearch_build keeps the server and what it needs. The archive is 0.9 GB and only
# an eighth of it is Elasticsearch; it is deleted with the scratch folder.
elasticsearch_build() {
  local out=$1 home module
  maven "$2" "$DEV_DIR/elasticsearch/pom.xml" package \
    -Dsonar.version="$SONAR_VERSION" -Dout.dir="$out/archive" || return
  home=$(echo "$out"/archive/*/elasticsearch)
  if [[ ! -e $home/lib/elasticsearch-$ELASTICSEARCH_VERSION.jar ]]; then
    echo "the archive does not hold Elasticsearch $ELASTICSEARCH_VERSION: $(echo "$home"/lib/elasticsearch-[0-9]*.jar)"
    return 1
  fi
  mv "$home"/* "$out" || return
  rm -rf "$out/archive" "$out"/bin/*.bat "$out"/bin/*.exe
  # Modules nothing here uses; without them the node starts sooner and is smaller.
  for module in ingest-otel old-lucene-versions rank-vectors streams x-pack-apm-data \
    x-pack-geoip-enterprise-downloader x-pack-inference x-pack-migrate x-pack-otel-data; do
    rm -rf "$out/modules/$module"
  done
  chmod -R a+rX "$out"
}

# elasticsearch_as_user prints the command prefix that drops root, nothing otherwise.
elasticsearch_as_user() {
  if ((EUID == 0)); then
    echo "setpriv --reuid=$ELASTICSEARCH_USER --regid=$(id -g "$ELASTICSEARCH_USER") --clear-groups"
  fi
}

# elasticsearch_check_user makes sure that the other user exists and reaches our folder.
elasticsearch_check_user() {
  local folder as_user
  if ((EUID != 0)); then return 0; fi
  need setpriv util-linux elasticsearch || return
  if ! id -u "$ELASTICSEARCH_USER" >/dev/null 2>&1; then
    fail elasticsearch "it does not run as root, and the user $ELASTICSEARCH_USER does not exist; name one with WEIR_STACK_USER"
    return 1
  fi
  as_user=$(elasticsearch_as_user)
  # shellcheck disable=SC2086 # a command prefix
  if $as_user test -r "$(elasticsearch_home)/config/jvm.options"; then return 0; fi
  # Name the uppermost folder that shuts the user out.
  folder=$STACK_DIR
  while [[ $folder != / ]]; do
    # shellcheck disable=SC2086 # a command prefix
    if $as_user test -x "$(dirname "$folder")"; then break; fi
    folder=$(dirname "$folder")
  done
  fail elasticsearch "it runs as the user $ELASTICSEARCH_USER, who may not enter $folder; set WEIR_STACK_DIR to a folder that everybody may reach, such as /var/tmp/weir-stack"
}

elasticsearch_launch() {
  local home conf=$RUN_DIR/conf/elasticsearch work=$RUN_DIR/elasticsearch as_user
  home=$(elasticsearch_home)
  need_java elasticsearch && elasticsearch_check_user || return
  mkdir -p "$conf" "$work" "$DATA_DIR/elasticsearch" "$LOG_DIR/elasticsearch"
  rm -f "$work/server.pid"
  cp "$home/config/jvm.options" "$conf/" || return
  render "$DEV_DIR/elasticsearch/elasticsearch.yml" "$conf/elasticsearch.yml" HOST="$HOST" \
    PORT="${PORT[ELASTICSEARCH]}" TRANSPORT_PORT="${PORT[ELASTICSEARCH_TRANSPORT]}" \
    DATA_DIR="$DATA_DIR/elasticsearch" LOG_DIR="$LOG_DIR/elasticsearch" || return
  render "$DEV_DIR/elasticsearch/log4j2.properties" "$conf/log4j2.properties" \
    LOG_FILE="$LOG_DIR/elasticsearch.log" || return
  rotate_log elasticsearch
  : >>"$LOG_DIR/elasticsearch.log"
  as_user=$(elasticsearch_as_user)
  if [[ -n $as_user ]]; then
    chown -R "$ELASTICSEARCH_USER" "$conf" "$work" "$DATA_DIR/elasticsearch" \
      "$LOG_DIR/elasticsearch" "$LOG_DIR/elasticsearch.log" || return
  fi
  # The launcher starts the server, waits until it is ready and ends (-d). The last
  # options take back what jvm.options turns on: two gigabytes of GC logs, heap dumps.
  # shellcheck disable=SC2086 # a command prefix
  launch elasticsearch $as_user env -u JAVA_HOME ES_JAVA_HOME="$JAVA_DIR" ES_PATH_CONF="$conf" \
    ES_TMPDIR="$work" HOSTNAME=localhost CLI_NAME=server CLI_LIBS=lib/tools/server-cli \
    ES_JAVA_OPTS="-Xms${ELASTICSEARCH_HEAP}m -Xmx${ELASTICSEARCH_HEAP}m -XX:-AlwaysPreTouch -XX:-HeapDumpOnOutOfMemoryError -Xlog:disable ${WEIR_ELASTICSEARCH_JAVA_OPTS:-}" \
    bash "$home/bin/elasticsearch-cli" -d -p "$work/server.pid"
}

# elasticsearch_adopt replaces the launcher's pid by the server's own as soon as the
# server has written it. Its working folder, which is ours alone, tells it from a
# process that reuses the number.
elasticsearch_adopt() {
  local pid recorded=
  pid=$(cat "$RUN_DIR/elasticsearch/server.pid" 2>/dev/null) || return 0
  if [[ -z $pid ]]; then return 0; fi
  read -r recorded _ 2>/dev/null <"$RUN_DIR/elasticsearch.pid" || true
  if [[ $pid != "$recorded" && $(readlink "/proc/$pid/cwd") == "$LOG_DIR/elasticsearch" ]]; then
    record_pid elasticsearch "$pid" || true
  fi
}

elasticsearch_ready() {
  local health
  health=$(curl -sf --noproxy '*' --max-time 3 "http://$HOST:${PORT[ELASTICSEARCH]:-0}/_cluster/health" 2>/dev/null) || return 1
  # Yellow is as good as it gets for an index with replicas on a single node.
  [[ $health =~ \"cluster_name\":\"weir-dev\".*\"status\":\"(yellow|green)\" ]]
}
