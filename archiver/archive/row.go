package archive

import (
	"encoding/base64"
	"encoding/hex"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"weir/schema"
)

// Row is one record as a row of the archive. deployments/spark/README.md describes the columns.
//
// The time unit is always given: the default of nanoseconds is refused by Spark. Values of maps are never optional: the
// writer would store nulls. The codec is set on the writer, because a codec on a map field panics.
type Row struct {
	Timestamp      int64             `parquet:"timestamp,timestamp(microsecond),delta"`
	TimestampNS    int64             `parquet:"timestamp_ns,delta"`
	ObservedNS     int64             `parquet:"observed_ns,delta"`
	ID             string            `parquet:"id"`
	Source         string            `parquet:"source,dict"`
	Incarnation    string            `parquet:"incarnation,dict"`
	Offset         int64             `parquet:"offset,delta"`
	Topic          string            `parquet:"topic,dict"`
	KafkaPartition int32             `parquet:"kafka_partition"`
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
	Severity       int32             `parquet:"severity"`
	EventName      string            `parquet:"event_name,dict"`
	TraceID        string            `parquet:"trace_id"`
	SpanID         string            `parquet:"span_id"`
	Body           string            `parquet:"body"`
	Labels         map[string]string `parquet:"labels"`
	Attributes     map[string]string `parquet:"attributes"`
}

// NewWriter makes the writer of one file. Reset is not used to save its buffers: parquet-go 0.32.0 then writes empty column
// names into the footer of the next file that has several row groups, which Spark refuses.
func NewWriter(w io.Writer, rowGroupRows int) *parquet.GenericWriter[Row] {
	return parquet.NewGenericWriter[Row](w,
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedDefault}),
		parquet.MaxRowsPerRowGroup(int64(rowGroupRows)),
		parquet.PageBufferSize(256<<10),
		// A dictionary that does not pay is given up instead of growing with the data.
		parquet.DictionaryMaxBytes(1<<20),
		parquet.DataPageStatistics(true),
		// Bounds of log lines help no reader and would copy whole lines into the footer.
		parquet.SkipPageBounds("body"),
		parquet.CreatedBy("weir", "1", ""),
	)
}

// EventTime is the time that a record is filed under: its own, or when it has none the time it was observed at.
func EventTime(r *schema.Record) int64 {
	if r.Time > 0 {
		return r.Time
	}
	return max(r.Observed, 0)
}

// Resource is what the rows of one batch share. The strings belong to the batch.
type Resource struct {
	row   Row
	attrs map[string]string
}

// NewResource sorts a batch's resource attributes into columns, labels and the rest.
func NewResource(b *schema.Batch) Resource {
	res := Resource{attrs: map[string]string{}}
	res.row = Row{
		Source: b.Source, Incarnation: b.Begin.Incarnation.String(), Topic: b.Topic,
		KafkaPartition: int32(b.Partition), KafkaOffset: b.KafkaOffset, Labels: map[string]string{},
	}
	columns := map[string]*string{
		schema.AttrApp: &res.row.App, schema.AttrTenant: &res.row.Tenant,
		schema.AttrSite: &res.row.Site, schema.AttrCell: &res.row.Cell,
		schema.AttrContainerID: &res.row.ContainerID, schema.AttrContainerName: &res.row.ContainerName,
		schema.AttrImageName: &res.row.Image, schema.AttrHostName: &res.row.Host,
	}
	for _, a := range b.Resource {
		if column := columns[a.Key]; column != nil {
			*column = attrText(a)
		} else if label, ok := strings.CutPrefix(a.Key, schema.LabelPrefix); ok {
			res.row.Labels[label] = attrText(a)
		} else if a.Key != schema.AttrSource && a.Key != schema.AttrIncarnation {
			res.attrs[a.Key] = attrText(a)
		}
	}
	return res
}

// Row makes a record's row. Its memory is the batch's: the Parquet writer copies it.
func (res *Resource) Row(b *schema.Batch, r *schema.Record) Row {
	out := res.row
	at := EventTime(r)
	out.Timestamp, out.TimestampNS, out.ObservedNS = at/1000, r.Time, r.Observed
	out.ID, out.Offset = b.ID(r), r.Offset
	out.Severity, out.Level = r.Severity, r.SeverityText
	if out.Level == "" {
		out.Level = severityName(r.Severity)
	}
	out.EventName, out.Body = r.EventName, r.Body
	if r.TraceID != [16]byte{} {
		out.TraceID = hex.EncodeToString(r.TraceID[:])
	}
	if r.SpanID != [8]byte{} {
		out.SpanID = hex.EncodeToString(r.SpanID[:])
	}
	out.Attributes = res.attrs
	shared := true
	for _, a := range r.Attrs {
		if a.Key == schema.AttrStream {
			out.Stream = attrText(a)
			continue
		}
		if shared {
			out.Attributes, shared = make(map[string]string, len(res.attrs)+len(r.Attrs)), false
			for k, v := range res.attrs {
				out.Attributes[k] = v
			}
		}
		out.Attributes[a.Key] = attrText(a)
	}
	return out
}

// severityName gives the short name of an OpenTelemetry severity number; four numbers share a name.
func severityName(n int32) string {
	if n < 1 || n > 24 {
		return ""
	}
	return [...]string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"}[(n-1)/4]
}

// attrText is an attribute's value as text. Bytes become base64, because a Parquet string is UTF-8.
func attrText(a schema.Attr) string {
	switch a.Kind {
	case schema.KindInt:
		return strconv.FormatInt(a.Num, 10)
	case schema.KindBool:
		return strconv.FormatBool(a.Num != 0)
	case schema.KindDouble:
		return strconv.FormatFloat(math.Float64frombits(uint64(a.Num)), 'g', -1, 64)
	case schema.KindBytes:
		return base64.StdEncoding.EncodeToString([]byte(a.Str))
	default:
		return a.Str
	}
}

// Size estimates the memory that a row takes in a row group that is not compressed yet.
func (r *Row) Size() int {
	n := 200 + len(r.Body) + len(r.ID)
	for k, v := range r.Attributes {
		n += len(k) + len(v)
	}
	for k, v := range r.Labels {
		n += len(k) + len(v)
	}
	return n
}
