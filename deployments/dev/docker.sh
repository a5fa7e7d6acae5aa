# shellcheck shell=bash
# A Docker engine, where none answers and we are root. It needs no network of its own:
# containers run with --network none or host.

docker_ports() { :; }
docker_socket() { echo "$RUN_DIR/docker.sock"; }
docker_daemon() { PATH=$PATH:/usr/sbin:/sbin command -v dockerd; }
docker_fetch() { :; }

docker_version() {
  local daemon
  if daemon=$(docker_daemon); then "$daemon" --version | sed 's/.*version \([^,]*\).*/\1/'; else echo -; fi
}

docker_address() {
  if docker_external; then docker_other; else echo "unix://$(docker_socket)"; fi
}

# docker_other prints the address where an engine that is not ours would answer.
docker_other() {
  local address=${DOCKER_HOST:-unix:///var/run/docker.sock}
  # After `eval "$(stack env)"` DOCKER_HOST may be our own.
  if [[ $address == "unix://$(docker_socket)" ]]; then address=unix:///var/run/docker.sock; fi
  echo "$address"
}

# docker_ping ADDRESS asks an engine for a sign of life.
docker_ping() {
  case $1 in
    unix://*) curl -sf --max-time 3 --unix-socket "${1#unix://}" http://localhost/_ping ;;
    tcp://*) curl -sf --max-time 3 --noproxy '*' "http://${1#tcp://}/_ping" ;;
    *) return 1 ;;
  esac 2>/dev/null | grep -q '^OK'
}

docker_ready() { docker_ping "unix://$(docker_socket)"; }

# docker_external tells whether an engine of somebody else answers and ours does not run.
docker_external() {
  [[ -z $(pid_of docker) ]] && docker_ping "$(docker_other)"
}

# docker_possible says why an engine cannot be started here, if so.
docker_possible() {
  if ((EUID != 0)); then
    fail docker "no engine answers at $(docker_other), and starting one needs root"
  elif [[ -z $(docker_daemon) ]]; then
    fail docker "no engine answers at $(docker_other), and dockerd is missing; on Debian: apt-get install docker.io"
  elif ((${#RUN_DIR} > 80)); then
    # The kernel takes 107 bytes, and containerd's sockets lie deeper than ours.
    fail docker "the path $RUN_DIR is too long for the engine's sockets; set WEIR_STACK_DIR to a shorter one"
  fi
}

docker_launch() {
  docker_possible || return
  # The pid files of a dead engine may by now hold the pids of strangers, for which the
  # next engine would wait.
  rm -f "$RUN_DIR/dockerd.pid" "$RUN_DIR/docker/containerd/containerd.pid"
  mkdir -p "$DATA_DIR/docker" "$RUN_DIR/docker" "$RUN_DIR/conf"
  # The machine's /etc/docker/daemon.json must not have a say.
  echo '{}' >"$RUN_DIR/conf/docker.json"
  # dockerd looks for containerd and runc in the administrator's folders too.
  launch docker env PATH="$PATH:/usr/sbin:/sbin" "$(docker_daemon)" \
    --config-file "$RUN_DIR/conf/docker.json" -H "unix://$(docker_socket)" \
    --data-root "$DATA_DIR/docker" --exec-root "$RUN_DIR/docker" -p "$RUN_DIR/dockerd.pid" \
    --bridge=none --iptables=false --ip-forward=false
}

# docker_leftovers tells whether parts of an engine that was killed live on. Its containerd
# dies with it, but each container has a shim whose command line names our folder. The
# pattern comes from a file, for grep must not find its own command line.
docker_leftovers() {
  grep -qsaF -f <(echo "$RUN_DIR/docker/containerd/") /proc/[0-9]*/cmdline
}

# docker_before_stop deals with an engine that was killed: its containers run on, and
# nobody but an engine ends them properly. So start one again.
docker_before_stop() {
  if [[ -n $(pid_of docker) ]] || ! docker_leftovers; then return 0; fi
  say docker "the engine was killed, starting it once more to end its containers"
  docker_launch && await_ready docker
}

# docker_after_stop removes the mounts that an engine leaves which failed at its start.
docker_after_stop() {
  local folder
  while read -r folder; do
    umount "$folder" 2>/dev/null || true
  done < <(awk -v a="$DATA_DIR/docker" -v b="$RUN_DIR/docker" \
    'index($2 "/", a "/") == 1 || index($2 "/", b "/") == 1 { print $2 }' /proc/self/mounts | sort -r)
  rm -f "$RUN_DIR/dockerd.pid" "$(docker_socket)"
}
