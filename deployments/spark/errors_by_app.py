"""Errors by app and hour.

    spark-submit --py-files weir_archive.py errors_by_app.py ROOT [--since TIME] [--until TIME]

A record is an error from OpenTelemetry's severity 17 on, or by its level where it has no severity. The last line of output is
"ERRORS " and one JSON object: rows of app, hour, errors and records.
"""

import json

from pyspark.sql import functions as F

import weir_archive


def run(spark, root, since=None, until=None):
    records = weir_archive.read(spark, root, weir_archive.LOGS, since, until).where(F.col("event_name") == "")
    error = (F.col("severity") >= 17) | ((F.col("severity") == 0) & F.upper("level").isin("ERROR", "FATAL"))
    by = records.groupBy("app", F.date_trunc("hour", "timestamp").alias("at")).agg(
        F.count(F.when(error, 1)).alias("errors"), F.count("*").alias("records")
    )
    rows = by.where("errors > 0").orderBy("at", "app").collect()
    return {"rows": [{"app": r.app, "hour": r["at"].strftime("%Y-%m-%dT%H"), "errors": r.errors, "records": r.records} for r in rows]}


if __name__ == "__main__":
    args = weir_archive.arguments(__doc__).parse_args()
    print("ERRORS " + json.dumps(run(weir_archive.session("weir-errors-by-app"), args.root, args.since, args.until)))
