package archive

import (
	"encoding/base64"

	"weir/schema"
)

// SchemaVersion says which columns a file has, in its footer under SchemaKey. A version may add columns; what one has stays as it is.
const (
	SchemaVersion = "1"
	SchemaKey     = "weir.archive.schema"
)

// Row is one record as a row of the archive; it gives the files their schema. docs/archive.md describes the columns.
//
// The time unit is always given: the default of nanoseconds is refused by Spark. Values of maps are never optional: the
// writer would store nulls. The codec is set on the writer, because a codec on a map field panics. A column with a bloom filter needs
// a dictionary, from which the filter is made.
type Row struct {
	Timestamp      int64             `parquet:"timestamp,timestamp(microsecond),delta"`
	TimestampNS    int64             `parquet:"timestamp_ns,delta"`
	ObservedNS     int64             `parquet:"observed_ns,delta"`
	ID             string            `parquet:"id,delta"`
	Source         string            `parquet:"source,dict"`
	Incarnation    string            `parquet:"incarnation,dict"`
	Offset         int64             `parquet:"offset,delta"`
	Topic          string            `parquet:"topic,dict"`
	KafkaPartition int32             `parquet:"kafka_partition,delta"`
	KafkaOffset    int64             `parquet:"kafka_offset,delta"`
	App            string            `parquet:"app,dict"`
	Tenant         string            `parquet:"tenant,dict"`
	Site           string            `parquet:"site,dict"`
	Cell           string            `parquet:"cell,dict"`
	ContainerID    string            `parquet:"container_id,dict"`
	ContainerName  string            `parquet:"container_name,dict"`
	Image          string            `parquet:"image,dict"`
	Host           string            `parquet:"host,dict"`
	Stream         string            `parquet:"stream,dict"`
	Level          string            `parquet:"level,dict"`
	Severity       int32             `parquet:"severity,delta"`
	EventName      string            `parquet:"event_name,dict"`
	TraceID        string            `parquet:"trace_id,dict"`
	SpanID         string            `parquet:"span_id,delta"`
	Body           string            `parquet:"body,delta"`
	Labels         map[string]string `parquet:"labels" parquet-key:",dict" parquet-value:",dict"`
	Attributes     map[string]string `parquet:"attributes" parquet-key:",dict" parquet-value:",dict"`
}

// EventTime is the time that a record is filed under: its own, or when it has none the time it was observed at.
func EventTime(r *schema.Record) int64 {
	if r.Time > 0 {
		return r.Time
	}
	return max(r.Observed, 0)
}

// EventTime is the time, in ns, that the row is filed under.
func (r *Row) EventTime() int64 {
	return EventTime(&schema.Record{Time: r.TimestampNS, Observed: r.ObservedNS})
}

// Memory estimates what a row takes on its own, with all of its strings.
func (r *Row) Memory() int {
	n := 700 + len(r.ID) + len(r.Body) + 64*(len(r.Labels)+len(r.Attributes))
	for _, s := range [...]string{r.Source, r.Incarnation, r.Topic, r.App, r.Tenant, r.Site, r.Cell, r.ContainerID, r.ContainerName, r.Image, r.Host, r.Stream, r.Level, r.EventName, r.TraceID, r.SpanID} {
		n += len(s)
	}
	for _, m := range [...]map[string]string{r.Labels, r.Attributes} {
		for k, v := range m {
			n += len(k) + len(v)
		}
	}
	return n
}

// Level is the level as recognised, or the short name of the severity number.
func Level(r *schema.Record) string {
	if r.SeverityText != "" {
		return r.SeverityText
	}
	return schema.SeverityName(r.Severity)
}

// attrText is an attribute's value as text. Bytes become base64, because a Parquet string is UTF-8.
func attrText(a schema.Attr) string {
	if a.Kind == schema.KindBytes {
		return base64.StdEncoding.EncodeToString([]byte(a.Str))
	}
	return a.Text()
}
