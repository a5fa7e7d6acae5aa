# shellcheck shell=bash
# The commands of the development stack. Their servers are in NAMES.

# check_host refuses surroundings in which the stack cannot work.
check_host() {
  if [[ ! -e /proc/self/stat ]]; then
    fail stack "the stack needs Linux with /proc"
    return 1
  fi
  if ((BASH_VERSINFO[0] < 5)); then
    fail stack "bash 5 or later is needed, this is $BASH_VERSION"
    return 1
  fi
  # Java class paths, Kafka's log.dirs and the templates give a meaning to other characters.
  if [[ ! $STACK_DIR =~ ^[A-Za-z0-9._/+-]+$ ]]; then
    fail stack "the folder '$STACK_DIR' holds characters other than letters, digits and . _ / + -; set WEIR_STACK_DIR to another"
    return 1
  fi
  need_basics
}

# in_parallel FUNCTION NAME... runs FUNCTION for each name at the same time, and fails
# when one fails. Job control gives each job a process group of its own, so that an
# interrupt ends a download with everything it started; servers have left for sessions
# of their own by then.
in_parallel() {
  local function=$1 name failed=0 pid
  local -a jobs=()
  shift
  PROGRESS_DIR=$(mktemp -d)
  set -m
  progress_ticker </dev/null &
  TICKER=$!
  for name in "$@"; do
    "$function" "$name" </dev/null &
    jobs+=("$!")
  done
  trap 'interrupted "${jobs[@]}"' INT TERM HUP
  for pid in "${jobs[@]}"; do
    wait "$pid" || failed=1
  done
  trap - INT TERM HUP
  end_ticker
  set +m
  return "$failed"
}

end_ticker() {
  disown "$TICKER" 2>/dev/null || true
  kill -TERM -- "-$TICKER" 2>/dev/null || true
  rm -rf "$PROGRESS_DIR"
  if ((IS_TERMINAL)); then printf '\r\033[K'; fi
}

interrupted() {
  local pid
  trap - INT TERM HUP
  # bash would announce the end of each job.
  disown -a
  for pid in "$@"; do
    kill -TERM -- "-$pid" 2>/dev/null || true
  done
  end_ticker
  fail stack "interrupted; run the command again to go on" || exit 130
}

fetch_one() { "${1}_fetch"; }

bring_up() {
  "${1}_fetch" || return
  if [[ $1 != spark ]]; then start_server "$1"; fi
}

command_fetch() { in_parallel fetch_one "${NAMES[@]}"; }

# settle_ports MAY_MOVE chooses and stores the ports of the servers in NAMES. Those of
# HDFS go together: each one's configuration names the others' ports.
settle_ports() {
  local name lock
  local -a wanted=()
  mkdir -p "$RUN_DIR"
  exec {lock}>"$RUN_DIR/ports.lock"
  flock "$lock"
  load_ports
  for name in "${NAMES[@]}"; do
    case $name in
      namenode | datanode) wanted+=(namenode datanode) ;;
      httpfs) wanted+=(namenode datanode httpfs) ;;
      spark) ;;
      *) wanted+=("$name") ;;
    esac
  done
  for name in $(printf '%s\n' "${wanted[@]}" | sort -u); do
    if [[ -n $(pid_of "$name") ]]; then
      keep_ports "$name"
    elif [[ $name == namenode && -n $(pid_of datanode) ]]; then
      # The DataNode that runs looks for the NameNode where it was.
      choose_ports 0 "$name" || return
    else
      choose_ports "$1" "$name" || return
    fi
  done
  save_ports
  exec {lock}>&-
}

# keep_ports SERVER tells when a running server is asked to be elsewhere.
keep_ports() {
  local key var
  for key in $("${1}_ports"); do
    var=WEIR_${key}_PORT
    if [[ -n ${!var:-} && ${!var} != "${PORT[$key]:-}" ]]; then
      say "$1" "it runs on port ${PORT[$key]:-?}; stop it before it can move to $var=${!var}"
    fi
  done
}

# command_up COUNT starts the servers. Without names (COUNT 0), a host that cannot run a
# Docker engine is told so, and gets the rest.
command_up() {
  local name started
  local -a kept=()
  started=$(now_ms)
  for name in "${NAMES[@]}"; do
    if (($1 == 0)) && [[ $name == docker && $(state_of docker) == @(stopped|dead) ]] &&
      ! docker_possible 2>/dev/null; then
      say docker "skipped: $(docker_possible 2>&1 | sed 's/^docker: error: //')"
    else
      kept+=("$name")
    fi
  done
  NAMES=("${kept[@]}")
  settle_ports 1 || return
  in_parallel bring_up "${NAMES[@]}" || {
    fail stack "not everything is up"
    return 1
  }
  say stack "up in $(seconds_since "$started")"
}

command_down() { in_parallel stop_server "${NAMES[@]}"; }

# start_one SERVER starts a server whose files are there already: a fault test must not
# turn into a download.
start_one() {
  case $1 in
    kafka) [[ -e $DIST_DIR/kafka-$KAFKA_VERSION/.complete ]] ;;
    elasticsearch) [[ -e $(elasticsearch_home)/.complete ]] ;;
    namenode | datanode) [[ -e $DIST_DIR/hadoop-$HADOOP_VERSION/.complete ]] ;;
    httpfs) [[ -e $DIST_DIR/httpfs-$HTTPFS_VERSION/.complete ]] ;;
  esac || {
    fail "$1" "not installed yet; run: stack fetch $1"
    return 1
  }
  start_server "$1"
}

command_one() {
  local name
  case $1 in
    start) settle_ports 0 && in_parallel start_one "${NAMES[@]}" ;;
    stop) in_parallel stop_server "${NAMES[@]}" ;;
    kill) for name in "${NAMES[@]}"; do signal_server "$name" KILL killed || return; done ;;
    pause) for name in "${NAMES[@]}"; do signal_server "$name" STOP paused || return; done ;;
    resume) for name in "${NAMES[@]}"; do signal_server "$name" CONT resumed || return; done ;;
  esac
}

# status_of SERVER prints state, pid, address, memory in bytes, version and log, a line each.
status_of() {
  local pid rss=0
  state_of "$1"
  pid=$(pid_of "$1") || pid=
  if [[ -n $pid ]]; then
    rss=$(awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$pid/status" 2>/dev/null) || rss=0
  fi
  printf '%s\n' "$pid" "$("${1}_address")" "${rss:-0}" "$("${1}_version")" "$LOG_DIR/$1.log"
}

command_status() {
  local name scratch json=0 comma='' state pid address rss version log
  case "$#:${1:-}" in
    0:) ;;
    1:--json) json=1 ;;
    *)
      fail stack "status takes only --json"
      return 2
      ;;
  esac
  # A paused server answers nobody until the time limit: ask all at the same time.
  scratch=$(mktemp -d)
  for name in "${SERVERS[@]}"; do
    status_of "$name" >"$scratch/$name" &
  done
  wait
  if ((json)); then
    printf '['
  else
    printf '%-14s %-9s %8s %8s  %-17s %-46s %s\n' SERVER STATE PID RSS VERSION ADDRESS LOG
  fi
  for name in "${SERVERS[@]}"; do
    { read -r state && read -r pid && read -r address && read -r rss && read -r version && read -r log; } <"$scratch/$name"
    if ((json)); then
      printf '%s\n  {"server":"%s","state":"%s","pid":%s,"address":"%s","rss_bytes":%d,"version":"%s","log":"%s"}' \
        "$comma" "$name" "$state" "${pid:-null}" "$address" "$rss" "$version" "$log"
      comma=,
    else
      printf '%-14s %-9s %8s %8s  %-17s %-46s %s\n' "$name" "$state" "${pid:--}" \
        "$(((rss + 524288) / 1048576)) MB" "$version" "$address" "$log"
    fi
  done
  if ((json)); then printf '\n]\n'; fi
  rm -rf "$scratch"
}

# export_line NAME VALUE prints a shell export that eval takes back literally.
export_line() { printf 'export %s=%q\n' "$1" "$2"; }

# command_env prints the addresses of the servers that run, so that a test which asks for
# an absent one sees an unset variable.
command_env() {
  local name
  for name in "${SERVERS[@]}"; do
    if [[ -z $(pid_of "$name") ]]; then
      if [[ $name == docker ]] && docker_external; then
        echo "# docker: an engine that is not ours answers at $(docker_other)"
      else
        echo "# $name does not run"
      fi
      continue
    fi
    case $name in
      kafka)
        export_line WEIR_KAFKA_BROKERS "$(kafka_address)"
        export_line WEIR_KAFKA_LIB "$DIST_DIR/kafka-$KAFKA_VERSION/lib"
        ;;
      elasticsearch)
        export_line WEIR_ELASTICSEARCH_URL "$(elasticsearch_address)"
        export_line WEIR_ELASTICSEARCH_HOME "$(elasticsearch_home)"
        ;;
      namenode)
        export_line WEIR_HDFS_NAMENODE "$HOST:${PORT[NAMENODE]}"
        export_line WEIR_HADOOP_LIB "$DIST_DIR/hadoop-$HADOOP_VERSION/lib"
        export_line WEIR_WEBHDFS_URL "http://$HOST:${PORT[NAMENODE_HTTP]}"
        export_line WEIR_ARCHIVE_ROOT "hdfs://$HOST:${PORT[NAMENODE]}/weir"
        export_line HADOOP_USER_NAME "$(id -un)"
        ;;
      httpfs) export_line WEIR_HTTPFS_URL "$(httpfs_address)" ;;
      docker) export_line DOCKER_HOST "unix://$(docker_socket)" ;;
    esac
  done
  if spark_installed; then export_line WEIR_SPARK_SUBMIT "$DEV_DIR/spark-submit"; fi
  if [[ -n ${WEIR_STACK_DIR:-} ]]; then export_line WEIR_STACK_DIR "$STACK_DIR"; fi
}

command_logs() {
  local log
  if (($# < 1 || $# > 2)); then
    fail stack "usage: stack logs SERVER [-f|-p]"
    return 2
  fi
  expand 0 "$1" || return
  log=$LOG_DIR/${NAMES[0]}.log
  case ${2:-} in
    -p) echo "$log" ;;
    -f) tail -n 50 -F "$log" ;;
    '')
      echo "==> $log"
      tail -n 50 "$log"
      ;;
    *)
      fail stack "unknown option '$2'"
      return 2
      ;;
  esac
}

command_clean() {
  local name
  for name in "${SERVERS[@]}"; do
    if [[ -n $(pid_of "$name") ]]; then
      fail "$name" "it still runs; stop everything first: stack down"
      return 1
    fi
  done
  docker_after_stop
  rm -rf "$DATA_DIR" "$LOG_DIR" "$RUN_DIR" "$DIST_DIR/.partial"
  say stack "deleted data, logs and ports in $STACK_DIR, kept the downloads"
}
