# shellcheck shell=bash
# Processes of the development stack: pid files, start, stop and faults.

# start_time PID prints when a process started, in clock ticks since boot; it fails for
# a process that is gone or only waits to be reaped. A dying JVM looks like a zombie while
# its other threads still end and hold its ports: as long as they are there, it is alive.
start_time() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  # The command name, in parentheses, may hold spaces: fields are counted after it.
  stat=${stat##*) }
  # shellcheck disable=SC2086 # splitting into fields is the purpose
  set -- $stat
  if [[ $1 == X || ($1 == Z && ${18} -le 1) ]]; then return 1; fi
  printf '%s' "${20}"
}

# record_pid SERVER PID writes the pid file. Pid, start time and boot id together name
# one process for good: a pid alone is reused, and then we would signal a stranger.
record_pid() {
  local ticks boot
  ticks=$(start_time "$2") || return
  boot=$(</proc/sys/kernel/random/boot_id)
  printf '%s %s %s\n' "$2" "$ticks" "$boot" >"$RUN_DIR/$1.pid.new"
  mv "$RUN_DIR/$1.pid.new" "$RUN_DIR/$1.pid"
}

# pid_of SERVER prints the pid when the recorded process still runs.
pid_of() {
  local pid ticks boot
  if declare -F "$1_adopt" >/dev/null; then "$1_adopt"; fi
  read -r pid ticks boot 2>/dev/null <"$RUN_DIR/$1.pid" || return 1
  [[ $boot == "$(</proc/sys/kernel/random/boot_id)" && $ticks == "$(start_time "$pid")" ]] || return 1
  printf '%s' "$pid"
}

is_paused() { grep -qs '^State:[[:space:]]*[Tt]' "/proc/$1/status"; }

# state_of SERVER prints external, stopped, dead (it ran and vanished without stop),
# paused, starting (it runs and does not answer as ready) or ready.
state_of() {
  local pid
  if pid=$(pid_of "$1"); then
    if is_paused "$pid"; then
      echo paused
    elif "$1_ready"; then
      echo ready
    else
      echo starting
    fi
  elif declare -F "$1_external" >/dev/null && "$1_external"; then
    echo external
  elif [[ -e $RUN_DIR/$1.pid ]]; then
    echo dead
  else
    echo stopped
  fi
}

# launch SERVER COMMAND... starts a daemon in a session of its own, with its output in
# the log. The child writes the pid file before it becomes the server, so no moment
# exists at which the server runs unrecorded.
launch() {
  local server=$1
  shift
  rotate_log "$server"
  # shellcheck disable=SC2016 # expanded by the inner shell
  RUN_DIR=$RUN_DIR setsid bash -c 'source "$1"; record_pid "$2" $$; shift 2; exec "$@"' \
    _ "$DEV_DIR/process.sh" "$server" "$@" \
    </dev/null >>"$LOG_DIR/$server.log" 2>&1 {SERVER_LOCK}>&- &
  LAUNCHED=$!
}

# rotate_log SERVER keeps the log of the run before: after a crash it tells the story.
rotate_log() {
  if [[ -s $LOG_DIR/$1.log ]]; then mv "$LOG_DIR/$1.log" "$LOG_DIR/$1.log.1"; fi
}

# lock_server SERVER makes start and stop of one server wait for each other.
lock_server() {
  mkdir -p "$RUN_DIR" "$LOG_DIR"
  exec {SERVER_LOCK}>"$RUN_DIR/$1.lock"
  flock -w "$((START_SECONDS + STOP_SECONDS))" "$SERVER_LOCK" ||
    fail "$1" "another process holds $RUN_DIR/$1.lock"
}

# await_ready SERVER waits until the server answers as ready; it gives up as soon as the
# process has ended, and shows why.
await_ready() {
  local server=$1 started deadline
  started=$(now_ms)
  deadline=$((started + START_SECONDS * 1000))
  progress_begin "$server" starting
  until "${server}_ready"; do
    if [[ -z $(pid_of "$server") ]] && { ((!LAUNCHED)) || ! kill -0 "$LAUNCHED" 2>/dev/null; }; then
      progress_end "$server"
      tail -n 15 "$LOG_DIR/$server.log" >&2
      fail "$server" "it ended before it was ready, see $LOG_DIR/$server.log"
      return 1
    fi
    if (($(now_ms) > deadline)); then
      progress_end "$server"
      fail "$server" "not ready after $START_SECONDS s, see $LOG_DIR/$server.log"
      return 1
    fi
    sleep 0.2
  done
  progress_end "$server"
}

# start_server SERVER starts a server unless it runs, and waits until it is ready. Its
# ports are settled already.
start_server() {
  local server=$1 pid started word="already ready"
  LAUNCHED=0
  if declare -F "${server}_external" >/dev/null && "${server}_external"; then
    say "$server" "an engine that is not ours answers, using it: $("${server}_address")"
    return 0
  fi
  lock_server "$server" || return
  started=$(now_ms)
  if pid=$(pid_of "$server"); then
    if is_paused "$pid"; then
      fail "$server" "it is paused (pid $pid); resume it with: stack resume $server"
      return 1
    fi
  else
    "${server}_launch" || return
    word="ready in"
  fi
  await_ready "$server" || return
  if [[ $word == "ready in" ]]; then word+=" $(seconds_since "$started")"; fi
  say "$server" "$word, $("${server}_address")"
  exec {SERVER_LOCK}>&-
}

# stop_server SERVER ends a server: SIGTERM, and SIGKILL after STOP_SECONDS.
stop_server() {
  local server=$1 pid started
  lock_server "$server" || return
  started=$(now_ms)
  LAUNCHED=0
  if declare -F "${server}_before_stop" >/dev/null; then "${server}_before_stop" || return; fi
  if pid=$(pid_of "$server"); then
    kill -TERM "$pid" 2>/dev/null || true
    # A paused process takes the signal only once it continues.
    kill -CONT "$pid" 2>/dev/null || true
    if ! await_end "$server" "$STOP_SECONDS"; then
      say "$server" "did not end within $STOP_SECONDS s, killing it"
      kill -KILL "$pid" 2>/dev/null || true
      await_end "$server" 10 || {
        fail "$server" "pid $pid survives SIGKILL"
        return 1
      }
    fi
    say "$server" "stopped in $(seconds_since "$started")"
  else
    say "$server" "not running"
  fi
  if declare -F "${server}_after_stop" >/dev/null; then "${server}_after_stop"; fi
  rm -f "$RUN_DIR/$server.pid"
  exec {SERVER_LOCK}>&-
}

# await_end SERVER SECONDS waits until the recorded process is gone.
await_end() {
  local deadline=$(($(now_ms) + $2 * 1000))
  while [[ -n $(pid_of "$1") ]]; do
    if (($(now_ms) > deadline)); then return 1; fi
    sleep 0.1
  done
}

# signal_server SERVER SIGNAL WORD sends a fault to a server that runs.
signal_server() {
  local pid
  pid=$(pid_of "$1") || {
    fail "$1" "not running, or not started by this stack"
    return 1
  }
  kill -"$2" "$pid" || return
  # Tests go on at once: the fault must have happened by the time we return.
  if [[ $2 == KILL ]]; then await_end "$1" 10; fi
  say "$1" "$3 (pid $pid)"
}
