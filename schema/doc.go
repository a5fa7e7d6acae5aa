// Package schema defines what weir puts into Kafka: the record, its position and id, the batch that
// carries records, and the names of topics, attributes and events.
//
// One Kafka message is one batch: a contiguous run of records of one source, encoded as OTLP LogsData
// (opentelemetry-proto logs v1) with one ResourceLogs and one ScopeLogs. Headers repeat what a tool
// needs to audit a topic without decoding values. docs/design.md explains the choices.
package schema
