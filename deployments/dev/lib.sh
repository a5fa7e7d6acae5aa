# shellcheck shell=bash
# Shared parts of the development stack: messages, prerequisites, downloads,
# ports. Processes are in process.sh.

IS_TERMINAL=0
if [[ -t 1 ]]; then IS_TERMINAL=1; fi

# say NAME TEXT prints one line; on a terminal it first wipes the progress line.
say() {
  if ((IS_TERMINAL)); then printf '\r\033[K'; fi
  printf '%s: %s\n' "$1" "$2"
}

# fail NAME TEXT reports an error and returns 1, so that callers write `|| return`.
fail() {
  if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
  printf '%s: error: %s\n' "$1" "$2" >&2
  return 1
}

# now_ms prints the milliseconds since the epoch.
now_ms() { printf '%s' "$((${EPOCHREALTIME/[.,]/} / 1000))"; }

# seconds_since MS prints the time elapsed since now_ms gave MS, such as "4.2 s".
seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# need COMMAND PACKAGE NAME fails when a command is missing and says what to install.
need() {
  command -v "$1" >/dev/null ||
    fail "$3" "the command '$1' is missing; on Debian: apt-get install $2"
}

# need_java NAME sets JAVA and JAVA_DIR (the Java home) to a Java of version 17 or later.
need_java() {
  local version
  if [[ -n ${JAVA_HOME:-} && -x $JAVA_HOME/bin/java ]]; then
    JAVA=$JAVA_HOME/bin/java
  else
    JAVA=$(command -v java) || {
      fail "$1" "no java found; on Debian: apt-get install openjdk-17-jre-headless"
      return 1
    }
  fi
  # Debian's java is a chain of links; the Java home is where the chain ends.
  JAVA=$(readlink -f "$JAVA")
  # shellcheck disable=SC2034 # Elasticsearch and Spark use it
  JAVA_DIR=${JAVA%/bin/java}
  version=$("$JAVA" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p;T;q') || version=
  if [[ -z $version ]] || ((version < 17)); then
    fail "$1" "Java 17 or later is needed, $JAVA is version ${version:-unknown}; on Debian: apt-get install openjdk-17-jre-headless (or set JAVA_HOME)"
  fi
}

# need_basics checks what every server needs.
need_basics() {
  need curl curl stack && need flock util-linux stack && need setsid util-linux stack &&
    need timeout coreutils stack && need sed sed stack
}

# render TEMPLATE OUT KEY=VALUE... replaces each @KEY@ and writes OUT. A placeholder
# without a value is an error: a half-filled configuration must not reach a server.
render() {
  local text pair left out=$2
  text=$(<"$1") || return
  for pair in "${@:3}"; do
    text=${text//"@${pair%%=*}@"/"${pair#*=}"}
  done
  if [[ $text =~ @[A-Z_]+@ ]]; then
    left=${BASH_REMATCH[0]}
    fail stack "no value for $left in $1"
    return 1
  fi
  printf '%s\n' "$text" >"$out"
}

# --- downloads -------------------------------------------------------------

# fetch_dist NAME DIR CHECK BUILDER installs DIST_DIR/DIR once. CHECK NAME looks for the
# tools that are needed, BUILDER OUT SCRATCH fills OUT and may write to the log.
# The work happens aside under .partial and is renamed when complete, so a download
# killed at any point never looks installed; what Maven already stored is reused then.
fetch_dist() {
  local name=$1 final=$DIST_DIR/$2 scratch=$DIST_DIR/.partial/$2 started lock
  local log=$LOG_DIR/fetch-$name.log
  if [[ -e $final/.complete ]]; then return 0; fi
  "$3" "$name" || return
  mkdir -p "$scratch" "$LOG_DIR"
  exec {lock}>"$DIST_DIR/.$name.lock"
  if ! flock -w 1 "$lock"; then
    # NameNode and DataNode share a download: only somebody else's is worth a word.
    if [[ ! -e ${PROGRESS_DIR:-}/$name ]]; then
      say "$name" "waiting for the download that another process runs"
    fi
    flock "$lock"
  fi
  if [[ ! -e $final/.complete ]]; then
    started=$(now_ms)
    mkdir -p "$scratch"
    rm -rf "$scratch/out"
    say "$name" "downloading"
    progress_begin "$name" downloading "$scratch"
    if ! "$4" "$scratch/out" "$scratch" >"$log" 2>&1; then
      progress_end "$name"
      tail -n 15 "$log" >&2
      fail "$name" "the download failed, see $log; run the command again to resume"
      return 1
    fi
    : >"$scratch/out/.complete"
    rm -rf "$final"
    mv -T "$scratch/out" "$final"
    rm -rf "$scratch"
    progress_end "$name"
    say "$name" "installed $(du -sm "$final" | cut -f1) MB in $(seconds_since "$started")"
  fi
  exec {lock}>&-
}

# maven SCRATCH POM ARGS... runs Maven on a copy of POM with a local repository of its
# own: two Maven processes must not share one, and nothing stays behind in ~/.m2.
maven() {
  local scratch=$1 pom=$2
  shift 2
  cp "$pom" "$scratch/pom.xml" || return
  mvn -B -C -f "$scratch/pom.xml" -Dmaven.repo.local="$scratch/m2" "$@"
}

# need_maven NAME checks the tools of a Maven download.
need_maven() { need_java "$1" && need mvn maven "$1"; }

# progress_begin NAME VERB [FOLDER] and progress_end NAME tell the ticker what NAME is
# doing now; with FOLDER it also reports that folder's size.
progress_begin() {
  if [[ -d ${PROGRESS_DIR:-} ]]; then
    printf '%s|%s|%s\n' "$2" "$(now_ms)" "${3:-}" >"$PROGRESS_DIR/$1"
  fi
}
progress_end() { rm -f "${PROGRESS_DIR:+$PROGRESS_DIR/$1}"; }

# progress_of NAME prints what NAME does now, such as "kafka: downloading 34 MB, 6 s".
progress_of() {
  local verb since folder size=
  IFS='|' read -r verb since folder 2>/dev/null <"$PROGRESS_DIR/$1" || return 1
  if [[ -n $folder ]]; then
    size=" $(du -sm "$folder" 2>/dev/null | cut -f1) MB"
    # Maven creates the folder of the result when the last archive has arrived.
    if [[ $verb == downloading && -d $folder/out ]]; then verb=unpacking; fi
  fi
  printf '%s: %s%s, %d s' "$1" "$verb" "$size" $((($(now_ms) - since) / 1000))
}

# progress_ticker reports until it is killed, or the stack is: on a terminal one line rewritten every
# second, elsewhere (a CI log) a line per server every five seconds.
progress_ticker() {
  local file line text
  while sleep $((IS_TERMINAL ? 1 : 5)) && kill -0 $$ 2>/dev/null; do
    line=
    for file in "$PROGRESS_DIR"/*; do
      text=$(progress_of "${file##*/}") || continue
      if ((IS_TERMINAL)); then line+="${line:+ | }$text"; else printf '%s\n' "$text"; fi
    done
    if [[ -n $line ]]; then printf '\r\033[K%s' "$line"; fi
  done
  rm -rf "$PROGRESS_DIR"
}

# --- ports -----------------------------------------------------------------

declare -A PORT=()

# load_ports reads the ports chosen at an earlier start.
load_ports() {
  local key value
  PORT=()
  if [[ ! -e $RUN_DIR/ports.env ]]; then return 0; fi
  while IFS='=' read -r key value; do
    key=${key#WEIR_}
    if [[ $value =~ ^[0-9]+$ ]]; then PORT[${key%_PORT}]=$value; fi
  done <"$RUN_DIR/ports.env"
}

save_ports() {
  local key
  for key in "${!PORT[@]}"; do
    printf 'WEIR_%s_PORT=%s\n' "$key" "${PORT[$key]}"
  done | sort >"$RUN_DIR/ports.env.new"
  mv "$RUN_DIR/ports.env.new" "$RUN_DIR/ports.env"
}

# port_taken PORT tells whether a listener would stop us from binding HOST:PORT. It
# reads the kernel's table: connecting would disturb whoever listens there.
port_taken() {
  local hex
  hex=$(printf '%04X' "$1")
  # 0A is LISTEN; the addresses are 127.0.0.1, 0.0.0.0, :: and ::ffff:127.0.0.1.
  grep -qsE "^ *[0-9]+: (0100007F|0{8}|0{32}|0{16}FFFF00000100007F):$hex [0-9A-F]+:[0-9A-F]+ 0A " \
    /proc/net/tcp /proc/net/tcp6
}

# port_owner PORT names the process that listens there, as far as we may know.
port_owner() {
  local found=
  if command -v ss >/dev/null; then
    found=$(ss -Hltnp "sport = :$1" 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1, pid \2/p;T;q')
  fi
  printf '%s' "${found:-another process}"
}

# next_port PORT prints the first port above PORT that is neither in use nor meant for
# another listener of this stack.
next_port() {
  local port=$1 other
  while ((++port < 32768)); do
    if port_taken "$port"; then continue; fi
    for other in "${PORT[@]}" "${DEFAULT_PORT[@]}"; do
      if ((other == port)); then continue 2; fi
    done
    printf '%s' "$port"
    return 0
  done
  fail stack "no free port above $1"
}

# choose_ports MAY_MOVE SERVER settles the ports of a server that does not run. A port
# once used is kept; with MAY_MOVE=1 it gives way when another process has taken it.
choose_ports() {
  local may_move=$1 server=$2 key var wanted port
  for key in $("${server}_ports"); do
    var=WEIR_${key}_PORT
    wanted=${!var:-}
    port=${wanted:-${PORT[$key]:-${DEFAULT_PORT[$key]}}}
    if [[ ! $port =~ ^[0-9]+$ ]] || ((port < 1 || port > 65535)); then
      fail "$server" "$var=$port is not a port number"
      return 1
    fi
    if port_taken "$port"; then
      if [[ -n $wanted ]] || ((!may_move)); then
        fail "$server" "port $port is taken ($(port_owner "$port")); free it, or choose another with $var"
        return 1
      fi
      wanted=$(next_port "$port") || return
      say "$server" "port $port is taken ($(port_owner "$port")), using $wanted"
      port=$wanted
    fi
    PORT[$key]=$port
  done
}
