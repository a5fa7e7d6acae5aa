"""One trace across containers, in the order of time.

    spark-submit --py-files weir_archive.py one_trace.py ROOT TRACE_ID [--since TIME] [--until TIME]

Give a range: without one every file's bloom filter is asked. The last line of output is "TRACE " and one JSON object: the containers in the order of
their first record with their number of records, and the number of spans.
"""

import json

from pyspark.sql import functions as F

import weir_archive


def run(spark, root, trace_id, since=None, until=None, show=False):
    records = weir_archive.read(spark, root, weir_archive.LOGS, since, until).where(F.col("trace_id") == trace_id.lower())
    columns = ("timestamp", "app", "container_name", "container_id", "span_id", "level", F.col("body").cast("string").alias("body"))
    rows = records.orderBy("timestamp_ns", "source", "incarnation", "offset").select(*columns).collect()
    containers = {}
    for r in rows:
        if show:
            # Control characters of a line do not reach the terminal.
            print(r.timestamp.isoformat(), r.container_name, r.level or "-", r.body.encode("unicode_escape").decode())
        c = containers.setdefault(r.container_id, {"container": r.container_name, "app": r.app, "records": 0})
        c["records"] += 1
    return {"containers": list(containers.values()), "records": len(rows), "spans": len({r.span_id for r in rows if r.span_id})}


if __name__ == "__main__":
    parser = weir_archive.arguments(__doc__)
    parser.add_argument("trace_id")
    args = parser.parse_args()
    print("TRACE " + json.dumps(run(weir_archive.session("weir-trace"), args.root, args.trace_id, args.since, args.until, show=True)))
