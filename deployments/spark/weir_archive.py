"""Reads a weir archive the way weir's own readers do: through manifests, compaction records and expiry records.

Each record is there once, at any moment, whatever the archiver and `weir archive compact` do meanwhile. Who only
lists the folders may see a record twice for a moment while an hour is being compacted. What `weir archive expire`
has recorded as expired is passed over.

    import weir_archive
    spark = weir_archive.session("my-job")
    records = weir_archive.read(spark, "hdfs://namenode:8020/weir", "weir.logs", since="2026-11-25T10", until="2026-11-25T12")
"""

import argparse
from datetime import datetime, timedelta, timezone

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

LOGS, EVENTS = "weir.logs", "weir.events"

# How far event times may be ahead of the archiver's clock: manifests that are older than this before `since` are not read.
AHEAD = timedelta(days=1)

_MAP = T.MapType(T.StringType(), T.StringType())
SCHEMA = T.StructType(
    [T.StructField("timestamp", T.TimestampType())]
    + [T.StructField(name, T.LongType()) for name in ("timestamp_ns", "observed_ns")]
    + [T.StructField(name, T.StringType()) for name in ("id", "source", "incarnation")]
    + [T.StructField("offset", T.LongType()), T.StructField("topic", T.StringType())]
    + [T.StructField("kafka_partition", T.IntegerType()), T.StructField("kafka_offset", T.LongType())]
    + [
        T.StructField(name, T.StringType())
        for name in ("app", "tenant", "site", "cell", "container_id", "container_name", "image", "host", "stream", "level")
    ]
    + [T.StructField("severity", T.IntegerType())]
    + [T.StructField(name, T.StringType()) for name in ("event_name", "trace_id", "span_id", "body")]
    + [T.StructField("labels", _MAP), T.StructField("attributes", _MAP)]
)

_FILES = "array<struct<path:string,tmp:string,rows:bigint,bytes:bigint,sha256:string,min_time:string,max_time:string>>"
_MANIFEST = f"version int, created string, first_offset bigint, next_offset bigint, files {_FILES}, sources map<string,struct<records:bigint>>"
_COMPACTION = f"version int, files {_FILES}, replaces array<struct<path:string,rows:bigint>>"
_EXPIRY = "version int, files array<struct<path:string,sha256:string>>"


def session(name):
    """A session in UTC, as the archive's folders are."""
    spark = SparkSession.builder.appName(name).config("spark.sql.session.timeZone", "UTC").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def arguments(doc, topic=None):
    """The arguments that all jobs take; a job adds its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the archive's root, such as hdfs://namenode:8020/weir")
    parser.add_argument("--since", type=time, help="from when, such as 2026-11-25 or 2026-11-25T10:30, in UTC; without it all")
    parser.add_argument("--until", type=time, help="until when, excluded")
    if topic:
        parser.add_argument("--topic", default=topic)
    return parser


def time(text):
    """A time in UTC from ISO text."""
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def manifests(spark, root, topic, since=None):
    """The manifests of a topic, one row each, without those that are too old to hold what is not before since."""
    fs = _FileSystem(spark, root)
    base = f"_weir/manifests/{topic}"
    days = [
        f"{base}/{partition}/{day}"
        for partition in fs.folders(base)
        for day in fs.folders(f"{base}/{partition}")
        if since is None or time(day) + timedelta(days=1) > since - AHEAD
    ]
    rows = _json(spark, root, days, _MANIFEST)
    return rows.withColumn("partition", F.split("name", "/").getItem(F.size(F.split("name", "/")) - 3).cast("int"))


def files(spark, root, topic, since=None, until=None):
    """The files that hold a topic's records of a range of event time, each as a row with where it is in `at`.

    Manifests come first, compaction records second and expiry records third: what is replaced or expires in between is then known to.
    """
    since, until = _time(since), _time(until)
    listed = manifests(spark, root, topic, since).select(F.explode("files").alias("f")).select("f.*").collect()
    fs = _FileSystem(spark, root)
    replaced = set()
    for record in compactions(spark, root, topic, since, until):
        replaced.update(r.path for r in record.replaces)
        listed += record.files
    gone = expired(spark, root, topic, since, until)
    wanted = [f for f in listed if f.path not in replaced and (f.path, f.sha256) not in gone and _overlaps(_ns(f.min_time), _ns(f.max_time), since, until)]
    there = {}
    found = []
    for f in wanted:
        folder = f.path.rpartition("/")[0]
        if folder not in there:
            there[folder] = set(fs.names(folder))
        # A file that was committed and not yet settled is still where it was written.
        at = f.path if f.path.rpartition("/")[2] in there[folder] else f.tmp
        if at == f.tmp and not fs.exists(f.tmp):
            at = f.path
            if not fs.exists(f.path):
                raise FileNotFoundError(f"{root}/{f.path} is listed, and neither there nor at {f.tmp}: run again if an hour was just compacted; else `weir audit` tells more")
        found.append(T.Row(at=at, **f.asDict()))
    return found


def compactions(spark, root, topic, since=None, until=None):
    """The compaction records of a topic's hours, each after those of its hour that it follows on."""
    fs = _FileSystem(spark, root)
    base = f"_weir/compactions/{topic}"
    hours = [
        f"{base}/{day}/{hour}"
        for day in fs.folders(base)
        for hour in fs.folders(f"{base}/{day}")
        if _overlaps(_hour(day, hour), _hour(day, hour) + timedelta(hours=1) - timedelta(microseconds=1), since, until)
    ]
    return sorted(_records(spark, root, hours, _COMPACTION), key=lambda record: record.name)


def expired(spark, root, topic, since=None, until=None):
    """Path and sha256 of the files of a topic that expiry records name."""
    base = f"_weir/expiries/{topic}"
    days = [
        f"{base}/{day}"
        for day in _FileSystem(spark, root).folders(base)
        if _overlaps(time(day.removeprefix("dt=")), time(day.removeprefix("dt=")) + timedelta(days=1) - timedelta(microseconds=1), since, until)
    ]
    return {(f.path, f.sha256) for record in _records(spark, root, days, _EXPIRY) for f in record.files}


def read(spark, root, topic=LOGS, since=None, until=None):
    """The records of a topic in a range of event time, as a DataFrame with `dt` and `hour` beside the archive's columns."""
    since, until = _time(since), _time(until)
    places = [f"{root}/{f.at}" for f in files(spark, root, topic, since, until)]
    records = spark.read.schema(SCHEMA).parquet(*places) if places else spark.createDataFrame([], SCHEMA)
    if since is not None:
        records = records.where(F.col("timestamp") >= F.lit(since))
    if until is not None:
        records = records.where(F.col("timestamp") < F.lit(until))
    return records.withColumn("dt", F.to_date("timestamp")).withColumn("hour", F.hour("timestamp"))


def own(column, attribute):
    """What a record is of: shared by a container's lines in a column, and named by other records among their attributes."""
    return F.coalesce(F.when(F.col(column) != "", F.col(column)), F.col("attributes")[attribute], F.lit(""))


def _json(spark, root, folders, schema):
    if not folders:
        return spark.createDataFrame([], schema + ", name string")
    # One file is one JSON object over many lines.
    texts = spark.read.text([f"{root}/{f}" for f in folders], wholetext=True, pathGlobFilter="*.json").withColumn("name", F.input_file_name())
    return texts.select(F.from_json("value", schema, {"mode": "FAILFAST"}).alias("m"), "name").select("m.*", "name")


def _records(spark, root, folders, schema):
    return _json(spark, root, folders, schema).collect() if folders else []


def _time(value):
    return time(value) if isinstance(value, str) else value


def _ns(text):
    """A manifest's time, which has nanoseconds, down to the microsecond that Python has."""
    whole, _, rest = text.rstrip("Z").partition(".")
    return time(whole) + timedelta(microseconds=int((rest + "000000")[:6]))


def _hour(day, hour):
    return time(day.removeprefix("dt=")) + timedelta(hours=int(hour.removeprefix("hour=")))


def _overlaps(first, last, since, until):
    return (since is None or last >= since) and (until is None or first < until)


class _FileSystem:
    """The little of Hadoop's file system that is needed on the driver."""

    def __init__(self, spark, root):
        self.jvm, self.root = spark._jvm, root
        self.fs = self._path("").getFileSystem(spark._jsc.hadoopConfiguration())

    def _path(self, name):
        return self.jvm.org.apache.hadoop.fs.Path(f"{self.root}/{name}" if name else self.root)

    def exists(self, name):
        return self.fs.exists(self._path(name))

    def _list(self, name):
        return self.fs.listStatus(self._path(name)) if self.exists(name) else []

    def folders(self, name):
        return sorted(s.getPath().getName() for s in self._list(name) if s.isDirectory())

    def names(self, name):
        return [s.getPath().getName() for s in self._list(name)]
