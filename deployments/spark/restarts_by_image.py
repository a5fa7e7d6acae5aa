"""Restarts and kills for want of memory by image.

    spark-submit --py-files weir_archive.py restarts_by_image.py ROOT [--since TIME] [--until TIME]

From the engine's events. A restart is a container's start after another one of the same container within the range; a failure is a death
with an exit code other than 0; ooms counts deaths that the engine says were for want of memory. The last line of output is "RESTARTS " and
one JSON object: rows of image, containers, starts, restarts, deaths, failures and ooms.
"""

import json

from pyspark.sql import functions as F

import weir_archive


def run(spark, root, since=None, until=None):
    events = weir_archive.read(spark, root, weir_archive.EVENTS, since, until).select(
        weir_archive.own("image", "container.image.name").alias("image"),
        weir_archive.own("container_id", "container.id").alias("container"),
        "event_name",
        F.col("attributes")["container.exit_code"].alias("exit_code"),
        F.col("attributes")["container.oom"].alias("oom"),
    )
    start, die = F.col("event_name") == "docker.container.start", F.col("event_name") == "docker.container.die"
    by = events.where(start | die).groupBy("image", "container").agg(
        F.count(F.when(start, 1)).alias("starts"),
        F.count(F.when(die, 1)).alias("deaths"),
        F.count(F.when(die & (F.coalesce("exit_code", F.lit("0")) != "0"), 1)).alias("failures"),
        F.count(F.when(die & (F.col("oom") == "true"), 1)).alias("ooms"),
    )
    rows = (
        by.groupBy("image")
        .agg(
            F.count("*").alias("containers"),
            F.sum("starts").alias("starts"),
            F.sum(F.greatest(F.col("starts") - 1, F.lit(0))).alias("restarts"),
            F.sum("deaths").alias("deaths"),
            F.sum("failures").alias("failures"),
            F.sum("ooms").alias("ooms"),
        )
        .orderBy(F.desc("restarts"), "image")
        .collect()
    )
    return {"rows": [r.asDict() for r in rows]}


if __name__ == "__main__":
    args = weir_archive.arguments(__doc__).parse_args()
    print("RESTARTS " + json.dumps(run(weir_archive.session("weir-restarts-by-image"), args.root, args.since, args.until)))
