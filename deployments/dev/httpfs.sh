# shellcheck shell=bash
# HttpFS: the gateway to HDFS that speaks WebHDFS and moves the bytes itself.

httpfs_version() { echo "$HTTPFS_VERSION"; }
httpfs_ports() { echo HTTPFS; }
httpfs_address() { echo "http://$HOST:${PORT[HTTPFS]:-?}"; }

httpfs_fetch() { fetch_dist httpfs "httpfs-$HTTPFS_VERSION" need_maven httpfs_build; }

httpfs_build() {
  maven "$2" "$DEV_DIR/httpfs/pom.xml" dependency:copy-dependencies \
    -Dhttpfs.version="$HTTPFS_VERSION" -DincludeScope=runtime -DoutputDirectory="$1/lib"
}

httpfs_launch() {
  local conf=$RUN_DIR/conf/httpfs tmp=$RUN_DIR/httpfs
  need_java httpfs || return
  rm -rf "$tmp"
  mkdir -p "$tmp"
  hdfs_conf "$conf" || return
  render "$DEV_DIR/httpfs/httpfs-site.xml" "$conf/httpfs-site.xml" HOST="$HOST" PORT="${PORT[HTTPFS]}" || return
  head -c 32 /dev/urandom | base64 >"$conf/httpfs-signature.secret"
  # Its old JAXB makes classes in java.lang's loader.
  launch httpfs "$JAVA" "-Xmx${HTTPFS_HEAP}m" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -XX:TieredStopAtLevel=1 \
    --add-opens java.base/java.lang=ALL-UNNAMED -Djava.io.tmpdir="$tmp" \
    -Dhttpfs.home.dir="$tmp" -Dhttpfs.temp.dir="$tmp" -Dhttpfs.log.dir="$tmp" -Dhttpfs.config.dir="$conf" \
    -cp "$conf:$DIST_DIR/httpfs-$HTTPFS_VERSION/lib/*" org.apache.hadoop.fs.http.server.HttpFSServerWebServer
}

# httpfs_ready asks what it answers without the NameNode.
httpfs_ready() {
  curl -sf --noproxy '*' --max-time 3 -o /dev/null "http://$HOST:${PORT[HTTPFS]:-0}/webhdfs/v1/?op=GETHOMEDIRECTORY&user.name=root" 2>/dev/null
}
