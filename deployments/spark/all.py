"""Runs all jobs in one session, since a start of Spark takes longer than most of them.

    spark-submit --py-files weir_archive.py,errors_by_app.py,restarts_by_image.py,one_trace.py,reconcile.py all.py ROOT [--since TIME] [--until TIME] [--trace ID]

The last line of output is "ALL " and one JSON object with the jobs' own.
"""

import json

import errors_by_app
import one_trace
import reconcile
import restarts_by_image
import weir_archive

if __name__ == "__main__":
    parser = weir_archive.arguments(__doc__)
    parser.add_argument("--trace", help="also this trace")
    args = parser.parse_args()
    spark = weir_archive.session("weir-all")
    result = {
        "errors": errors_by_app.run(spark, args.root, args.since, args.until),
        "restarts": restarts_by_image.run(spark, args.root, args.since, args.until),
        "reconcile": {topic: reconcile.run(spark, args.root, topic) for topic in (weir_archive.LOGS, weir_archive.EVENTS)},
    }
    if args.trace:
        result["trace"] = one_trace.run(spark, args.root, args.trace, args.since, args.until)
    print("ALL " + json.dumps(result))
