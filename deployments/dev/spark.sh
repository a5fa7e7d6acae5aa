# shellcheck shell=bash
# Apache Spark: not a server, but a Python environment whose jobs run in one local process.

spark_home() { echo "$DIST_DIR/pyspark-$PYSPARK_VERSION"; }
spark_installed() { [[ -e $(spark_home)/.complete ]]; }

spark_fetch() { fetch_dist spark "pyspark-$PYSPARK_VERSION" need_python spark_build; }

# need_python NAME wants a Python that Spark runs on and that makes virtual environments.
need_python() {
  need python3 python3 "$1" || return
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    fail "$1" "Python 3.10 or later is needed, this is $(python3 --version)"
  elif ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    fail "$1" "python3 cannot make virtual environments; on Debian: apt-get install python3-venv"
  fi
}

spark_build() {
  local out=$1 final
  final=$(spark_home)
  # pip's own temporary files count for the progress, and go with the scratch folder.
  mkdir -p "$2/tmp"
  progress_begin spark installing "$2"
  TMPDIR=$2/tmp python3 -m venv "$out" &&
    TMPDIR=$2/tmp "$out/bin/python" -m pip install --no-input --disable-pip-version-check \
      "pyspark==$PYSPARK_VERSION" || return
  # The environment moves to its final place: its scripts must name that one.
  grep -rlIF "$out" "$out/bin" "$out/pyvenv.cfg" | xargs -r sed -i "s|$out|$final|g"
}

# spark_submit JOB ARGS... runs a job on two threads of one process, on loopback, in UTC
# and without the web page.
spark_submit() {
  local venv home
  venv=$(spark_home)
  spark_installed || {
    fail spark "not installed yet; run: stack fetch spark"
    return 1
  }
  need_java spark || return
  home=$(echo "$venv"/lib/python3*/site-packages/pyspark)
  export JAVA_HOME=$JAVA_DIR SPARK_HOME=$home PYSPARK_PYTHON=$venv/bin/python
  export SPARK_LOCAL_IP=$HOST TZ=UTC PATH=$venv/bin:$PATH
  # shellcheck disable=SC2086 # options are split on purpose
  exec "$home/bin/spark-submit" --master 'local[2]' --driver-memory "${WEIR_SPARK_MEMORY:-512m}" \
    --conf spark.ui.enabled=false \
    --conf spark.driver.host="$HOST" --conf spark.driver.bindAddress="$HOST" \
    --conf spark.sql.session.timeZone=UTC \
    --conf spark.driver.extraJavaOptions=-Duser.timezone=UTC \
    --conf spark.sql.shuffle.partitions=2 \
    ${WEIR_SPARK_OPTS:-} "$@"
}
