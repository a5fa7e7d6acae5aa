# shellcheck shell=bash
# HDFS: NameNode and DataNode as two processes, so that each can fail alone.

namenode_version() { echo "$HADOOP_VERSION"; }
datanode_version() { echo "$HADOOP_VERSION"; }
namenode_ports() { echo NAMENODE NAMENODE_HTTP; }
datanode_ports() { echo DATANODE DATANODE_HTTP DATANODE_IPC; }
namenode_address() { echo "hdfs://$HOST:${PORT[NAMENODE]:-?} http://$HOST:${PORT[NAMENODE_HTTP]:-?}"; }
datanode_address() { echo "$HOST:${PORT[DATANODE]:-?} http://$HOST:${PORT[DATANODE_HTTP]:-?}"; }

namenode_fetch() { hdfs_fetch; }
datanode_fetch() { hdfs_fetch; }
hdfs_fetch() { fetch_dist hdfs "hadoop-$HADOOP_VERSION" need_maven hdfs_build; }

hdfs_build() {
  maven "$2" "$DEV_DIR/hdfs/pom.xml" package -Dhadoop.version="$HADOOP_VERSION" -Dout.dir="$1"
}

# hdfs_conf FOLDER renders the configuration of one server into FOLDER.
hdfs_conf() {
  local file
  mkdir -p "$1" || return
  for file in core-site.xml hdfs-site.xml log4j.properties; do
    render "$DEV_DIR/hdfs/$file" "$1/$file" HOST="$HOST" USER="$(id -un)" DATA_DIR="$DATA_DIR/hdfs" \
      NAMENODE_PORT="${PORT[NAMENODE]}" NAMENODE_HTTP_PORT="${PORT[NAMENODE_HTTP]}" \
      DATANODE_PORT="${PORT[DATANODE]}" DATANODE_HTTP_PORT="${PORT[DATANODE_HTTP]}" \
      DATANODE_IPC_PORT="${PORT[DATANODE_IPC]}" || return
  done
}

# hdfs_format prepares the NameNode's folder aside and renames it, so that a format cut
# short is done again.
hdfs_format() {
  local fresh=$DATA_DIR/hdfs/name.new
  rm -rf "$fresh"
  if ! "$JAVA" -Xmx128m -XX:+UseSerialGC -cp "$RUN_DIR/conf/namenode:$DIST_DIR/hadoop-$HADOOP_VERSION/lib/*" \
    org.apache.hadoop.hdfs.server.namenode.NameNode -Ddfs.namenode.name.dir="file://$fresh" \
    -format -nonInteractive >"$LOG_DIR/namenode-format.log" 2>&1; then
    tail -n 5 "$LOG_DIR/namenode-format.log" >&2
    fail namenode "cannot prepare $DATA_DIR/hdfs/name, see $LOG_DIR/namenode-format.log"
    return 1
  fi
  mv -T "$fresh" "$DATA_DIR/hdfs/name"
}

# hdfs_launch SERVER HEAP CLASS starts one of the two servers.
hdfs_launch() {
  local dist=$DIST_DIR/hadoop-$HADOOP_VERSION tmp=$RUN_DIR/$1
  need_java "$1" || return
  # A server that is killed leaves the copy of its web pages behind.
  rm -rf "$tmp"
  mkdir -p "$DATA_DIR/hdfs" "$tmp"
  hdfs_conf "$RUN_DIR/conf/$1" || return
  if [[ $1 == namenode && ! -d $DATA_DIR/hdfs/name ]]; then hdfs_format || return; fi
  # Without the optimising compiler the two start in half the time, and moving bytes
  # between disk and socket needs it least of all our servers.
  # shellcheck disable=SC2086 # options are split on purpose
  launch "$1" "$JAVA" "-Xmx${2}m" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError \
    -XX:TieredStopAtLevel=1 -Djava.io.tmpdir="$tmp" ${WEIR_HDFS_JAVA_OPTS:-} \
    -cp "$RUN_DIR/conf/$1:$dist/web:$dist/lib/*" "org.apache.hadoop.hdfs.server.$1.$3"
}

namenode_launch() { hdfs_launch namenode "$NAMENODE_HEAP" NameNode; }
datanode_launch() { hdfs_launch datanode "$DATANODE_HEAP" DataNode; }

# hdfs_jmx qry PORT BEAN prints a bean of a server's /jmx page without white space;
# hdfs_jmx get PORT BEAN::ATTRIBUTE prints one attribute and touches no other.
hdfs_jmx() {
  curl -sf --noproxy '*' --max-time 3 "http://$HOST:${2:-0}/jmx?$1=Hadoop:service=$3" 2>/dev/null |
    tr -d ' \n'
}

# namenode_ready wants safe mode to be over. With blocks on disk it only ends when the
# DataNode has reported them; so while the DataNode does not run, an answer is enough.
namenode_ready() {
  local beans pid
  beans=$(hdfs_jmx qry "${PORT[NAMENODE_HTTP]:-}" NameNode,name=FSNamesystemState) || return 1
  if [[ $beans == *'"FSState":"Operational"'* ]]; then return 0; fi
  if pid=$(pid_of datanode) && ! is_paused "$pid"; then return 1; fi
  [[ $beans == *'"FSState":"safeMode"'* ]]
}

# datanode_ready asks both sides: the NameNode goes on counting a killed DataNode as live
# for a while, so the new process itself must say that it has registered.
datanode_ready() {
  local beans
  beans=$(hdfs_jmx qry "${PORT[NAMENODE_HTTP]:-}" NameNode,name=FSNamesystemState) || return 1
  [[ $beans == *'"FSState":"Operational"'* && $beans == *'"NumLiveDataNodes":1'* ]] || return 1
  beans=$(hdfs_jmx get "${PORT[DATANODE_HTTP]:-}" DataNode,name=DataNodeInfo::BPServiceActorInfo) || return 1
  [[ $beans == *RUNNING* ]]
}
