"""Reconciles the archive with its manifests: what the commits say, against what Spark reads.

    spark-submit --py-files weir_archive.py reconcile.py ROOT [--topic weir.logs]

Counts the rows of every file, the rows of every source and the ids that are there more than once. Commits of which a file has expired on the record are
left out of the rows by source. The last line of output is "RECONCILE " and one JSON object; the exit status is 1 where anything differs. Chains, signatures and
positions are `weir audit`'s.
"""

import json
import sys

from pyspark.sql import functions as F

import weir_archive


def run(spark, root, topic=weir_archive.LOGS):
    # Manifests are taken before the files: what is committed in between is in the files alone.
    manifests = weir_archive.manifests(spark, root, topic).cache()
    said = manifests.agg(F.count("*").alias("manifests"), F.max(F.col("version")).alias("version")).first()
    expired = {path for path, _ in weir_archive.expired(spark, root, topic)}
    touched = _touched(spark, root, topic, manifests, expired)
    sources = manifests
    for partition, first, end in touched:
        sources = sources.where(f"not (partition = {partition} and first_offset >= {first} and first_offset < {end})")
    sources = sources.select(F.explode("sources").alias("source", "of")).groupBy("source").agg(F.sum("of.records").alias("said"))
    through = {r.partition: r.next for r in manifests.groupBy("partition").agg(F.max("next_offset").alias("next")).collect()}
    files = weir_archive.files(spark, root, topic)
    rows = spark.read.schema(weir_archive.SCHEMA).parquet(*[f"{root}/{f.at}" for f in files]) if files else spark.createDataFrame([], weir_archive.SCHEMA)

    rows = rows.withColumn("file", F.input_file_name())
    have = {_end(r.file): r["count"] for r in rows.groupBy("file").count().collect()}
    wrong = [{"file": f.path, "said": f.rows, "read": have.get(_end(f.at), 0)} for f in files if have.get(_end(f.at), 0) != f.rows]

    known = spark.createDataFrame([(p, n) for p, n in through.items()], "kafka_partition int, next bigint")
    read = rows.join(F.broadcast(known), "kafka_partition").where("kafka_offset < next")
    for partition, first, end in touched:
        read = read.where(f"not (kafka_partition = {partition} and kafka_offset >= {first} and kafka_offset < {end})")
    read = read.groupBy("source").agg(F.count("*").alias("read"))
    differ = sources.join(read, "source", "full").fillna(0, ["said", "read"]).where("said != read").orderBy("source")
    repeated = rows.groupBy("id").count().where("count > 1")
    total = rows.agg(F.count("*").alias("rows"), F.countDistinct("source").alias("sources")).first()
    result = {
        "manifests": said.manifests,
        "files": len(files),
        "rows": total.rows,
        "sources": total.sources,
        "expired_files": len(expired),
        "wrong_files": wrong[:100],
        "wrong_sources": [r.asDict() for r in differ.limit(100).collect()],
        "repeated_ids": repeated.count(),
    }
    manifests.unpersist()
    result["agrees"] = not wrong and not result["wrong_sources"] and result["repeated_ids"] == 0
    return result


def _touched(spark, root, topic, manifests, gone):
    """The offsets of commits of which a file has expired, itself or merged with others, as ranges of a partition."""
    if not gone:
        return []
    gone = set(gone)
    for record in reversed(weir_archive.compactions(spark, root, topic)):
        if any(f.path in gone for f in record.files):
            gone.update(r.path for r in record.replaces)
    ranges = []
    for m in manifests.select("partition", "first_offset", "next_offset", "files.path").orderBy("partition", "first_offset").collect():
        if not gone.intersection(m.path):
            continue
        if ranges and ranges[-1][0] == m.partition and ranges[-1][2] == m.first_offset:
            ranges[-1][2] = m.next_offset
        else:
            ranges.append([m.partition, m.first_offset, m.next_offset])
    return ranges


def _end(path):
    """What tells a file of the archive apart: topic, day, hour and name, or where it waits to be settled."""
    return "/".join(path.split("/")[-4:])


if __name__ == "__main__":
    args = weir_archive.arguments(__doc__, weir_archive.LOGS).parse_args()
    result = run(weir_archive.session("weir-reconcile"), args.root, args.topic)
    print("RECONCILE " + json.dumps(result))
    sys.exit(0 if result["agrees"] else 1)
