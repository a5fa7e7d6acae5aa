"""Counts records of a weir archive by app, level and hour, and checks that none is there twice.

    spark-submit --py-files weir_archive.py counts.py ROOT [--topic weir.logs] [--prefix NAME] [--numbers]

ROOT is the archive's root, such as hdfs://namenode:8020/weir. --prefix takes only containers whose name
begins so. --numbers reads bodies of the form "n=<number> ..." and tells, for each container, how many
there are, how many differ, and the largest. The last line of output is "COUNTS " and one JSON object.
"""

import argparse
import json

from pyspark.sql import functions as F

import weir_archive


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--topic", default="weir.logs")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--numbers", action="store_true")
    args = parser.parse_args()

    spark = weir_archive.session("weir-counts")
    records = weir_archive.read(spark, args.root, args.topic)
    if args.prefix:
        records = records.where(F.col("container_name").startswith(args.prefix))
    records = records.where(F.col("event_name").isNull() | (F.col("event_name") == ""))

    by = records.groupBy("app", "level", "dt", "hour").count().orderBy("dt", "hour", "app", "level")
    by.show(50, truncate=False)

    total = records.agg(F.count("*").alias("rows"), F.countDistinct("id").alias("ids")).first()
    result = {"rows": total["rows"], "ids": total["ids"], "repeated": total["rows"] - total["ids"]}
    if args.numbers:
        numbered = records.select(
            "container_name", F.regexp_extract(F.col("body").cast("string"), r"^n=(\d+) ", 1).cast("int").alias("n")
        ).where(F.col("n").isNotNull())
        rows = numbered.groupBy("container_name").agg(
            F.count("*").alias("rows"), F.countDistinct("n").alias("distinct"), F.max("n").alias("max")
        )
        result["containers"] = {r["container_name"]: {"rows": r["rows"], "distinct": r["distinct"], "max": r["max"]} for r in rows.collect()}
    print("COUNTS " + json.dumps(result))
    spark.stop()


if __name__ == "__main__":
    main()
