package indexer

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"weir/agent/parse"
	"weir/schema"
)

// Type is what a field is for. The cluster decides which of its field types serves it best (features.mapping).
type Type uint8

// The types of fields.
const (
	Keyword Type = iota
	Constant
	Wildcard
	Text
	Long
	Boolean
	Time
	Flattened
)

// Field is one field of the data streams. Mappings, encoder and the documentation's table are all made from Fields.
type Field struct {
	Name string // of ECS 8, where it has one
	Type Type
	Attr string // the attribute that fills it; put does where it is empty
	Doc  string

	// put appends the record's value as JSON, or nothing where it has none.
	put func(b []byte, s *share, r *schema.Record) []byte
}

// Fields in the order of the documents. Fields of one object stand together.
var Fields = []Field{
	{Name: "@timestamp", Type: Time, Doc: "when it was written, to the nanosecond", put: func(b []byte, s *share, r *schema.Record) []byte {
		return s.clock.append(b, when(r))
	}},
	{Name: "message", Type: Text, Doc: "the line, or lines of a joined record, as written", put: func(b []byte, _ *share, r *schema.Record) []byte {
		return appendJSON(b, r.Body)
	}},
	{Name: "log.level", Type: Keyword, Doc: "trace, debug, info, warn, error or fatal", put: func(b []byte, _ *share, r *schema.Record) []byte {
		if r.SeverityText == "" {
			return b
		}
		from := len(b)
		b = appendJSON(b, r.SeverityText)
		for i, c := range b[from:] {
			if c >= 'A' && c <= 'Z' {
				b[from+i] = c + 'a' - 'A'
			}
		}
		return b
	}},
	{Name: "log.offset", Type: Long, Doc: "byte of its first line in its file", put: func(b []byte, _ *share, r *schema.Record) []byte {
		return strconv.AppendInt(b, r.Offset, 10)
	}},
	{Name: "log.iostream", Type: Keyword, Attr: schema.AttrStream, Doc: "stdout or stderr"},
	{Name: "log.file.path", Type: Keyword, Attr: schema.AttrFilePath, Doc: "the log file on the node"},
	{Name: "log.origin.file.name", Type: Keyword, Attr: parse.AttrFile, Doc: "source file that the line names"},
	{Name: "log.origin.file.line", Type: Long, Attr: parse.AttrLine, Doc: "line in it"},
	{Name: "event.action", Type: Keyword, Doc: "name of an event, such as docker.container.die or weir.loss; none for lines", put: func(b []byte, _ *share, r *schema.Record) []byte {
		if r.EventName == "" {
			return b
		}
		return appendJSON(b, r.EventName)
	}},
	{Name: "event.created", Type: Time, Doc: "when weir read it", put: func(b []byte, s *share, r *schema.Record) []byte {
		if r.Observed <= 0 {
			return b
		}
		return s.clock.append(b, r.Observed)
	}},
	{Name: "event.dataset", Type: Constant, Doc: "as data_stream.dataset", put: func(b []byte, s *share, _ *schema.Record) []byte {
		return append(b, s.stream.datasetJSON...)
	}},
	{Name: "event.severity", Type: Long, Doc: "OpenTelemetry's severity number, 1 to 24", put: func(b []byte, _ *share, r *schema.Record) []byte {
		if r.Severity == 0 {
			return b
		}
		return strconv.AppendInt(b, int64(r.Severity), 10)
	}},
	{Name: "error.type", Type: Keyword, Attr: "exception.type", Doc: "class of an exception"},
	{Name: "error.message", Type: Text, Attr: "error.message", Doc: "what went wrong; of a dead letter, why it was refused"},
	{Name: "error.stack_trace", Type: Text, Attr: "exception.stacktrace", Doc: "trace of an exception"},
	{Name: "trace.id", Type: Keyword, Doc: "W3C trace id", put: func(b []byte, _ *share, r *schema.Record) []byte {
		if r.TraceID == [16]byte{} {
			return b
		}
		return append(hex.AppendEncode(append(b, '"'), r.TraceID[:]), '"')
	}},
	{Name: "span.id", Type: Keyword, Doc: "W3C span id", put: func(b []byte, _ *share, r *schema.Record) []byte {
		if r.SpanID == [8]byte{} {
			return b
		}
		return append(hex.AppendEncode(append(b, '"'), r.SpanID[:]), '"')
	}},
	{Name: "container.id", Type: Keyword, Attr: schema.AttrContainerID, Doc: "the engine's id"},
	{Name: "container.name", Type: Keyword, Attr: schema.AttrContainerName, Doc: "the engine's or the pod's name for it"},
	{Name: "container.image.name", Type: Keyword, Attr: schema.AttrImageName, Doc: "image and tag"},
	{Name: "container.labels", Type: Flattened, Doc: "labels; container.labels.<key>"},
	{Name: "host.name", Type: Keyword, Attr: schema.AttrHostName, Doc: "the node"},
	{Name: "orchestrator.namespace", Type: Keyword, Attr: schema.AttrK8sNamespace, Doc: "Kubernetes namespace"},
	{Name: "orchestrator.resource.id", Type: Keyword, Attr: schema.AttrK8sPodUID, Doc: "the pod's uid"},
	{Name: "orchestrator.resource.name", Type: Keyword, Attr: schema.AttrK8sPod, Doc: "the pod"},
	{Name: "orchestrator.cluster.name", Type: Keyword, Attr: "k8s.cluster.name", Doc: "Kubernetes cluster"},
	{Name: "process.exit_code", Type: Long, Attr: schema.AttrExitCode, Doc: "of a container that died"},
	{Name: "process.thread.id", Type: Long, Attr: parse.AttrThread, Doc: "thread that the line names"},
	{Name: "http.request.method", Type: Keyword, Attr: parse.AttrMethod, Doc: "of an access log's line"},
	{Name: "http.response.status_code", Type: Long, Attr: parse.AttrStatus, Doc: "of an access log's line"},
	{Name: "url.path", Type: Wildcard, Attr: parse.AttrPath, Doc: "of an access log's line"},
	{Name: "client.address", Type: Keyword, Attr: parse.AttrClient, Doc: "of an access log's line"},
	{Name: "data_stream.type", Type: Constant, Doc: "logs", put: func(b []byte, _ *share, _ *schema.Record) []byte {
		return append(b, `"logs"`...)
	}},
	{Name: "data_stream.dataset", Type: Constant, Doc: "weir.container, weir.event, weir.signal, weir.action, weir.deadletter, or what a routing rule says", put: func(b []byte, s *share, _ *schema.Record) []byte {
		return append(b, s.stream.datasetJSON...)
	}},
	{Name: "data_stream.namespace", Type: Constant, Doc: "indexer.namespace, or what a routing rule says", put: func(b []byte, s *share, _ *schema.Record) []byte {
		return append(b, s.stream.namespaceJSON...)
	}},
	{Name: "weir.app", Type: Keyword, Attr: schema.AttrApp, Doc: "the app, from agent.app_labels"},
	{Name: "weir.tenant", Type: Keyword, Attr: schema.AttrTenant, Doc: "the tenant, from agent.tenant_labels"},
	{Name: "weir.site", Type: Keyword, Attr: schema.AttrSite, Doc: "agent.site"},
	{Name: "weir.cell", Type: Keyword, Attr: schema.AttrCell, Doc: "agent.cell"},
	{Name: "weir.source", Type: Keyword, Doc: "the stream that it is a record of, such as docker/<node>/<id>"},
	{Name: "weir.incarnation", Type: Keyword, Attr: schema.AttrIncarnation, Doc: "the file of the source"},
	{Name: "weir.oom", Type: Boolean, Attr: schema.AttrOOM, Doc: "the container that died was out of memory"},
	{Name: "weir.actor.id", Type: Keyword, Attr: schema.AttrActorID, Doc: "what an engine event is about, where that is no container"},
	{Name: "weir.truncated", Type: Boolean, Attr: schema.AttrTruncated, Doc: "cut at the size limit"},
	{Name: "weir.partial", Type: Boolean, Attr: schema.AttrPartial, Doc: "the stream ended before the line did"},
	{Name: "weir.damaged", Type: Boolean, Attr: schema.AttrDamaged, Doc: "not what the log driver writes; the raw bytes"},
	{Name: "weir.redacted", Type: Long, Attr: schema.AttrRedacted, Doc: "secrets replaced in the message"},
	{Name: "weir.redaction", Type: Keyword, Attr: schema.AttrRedaction, Doc: "kinds of secrets that were looked for"},
	{Name: "weir.loss.reason", Type: Keyword, Attr: schema.AttrLossReason, Doc: "why a range of a source is missing"},
	{Name: "weir.loss.from", Type: Keyword, Attr: schema.AttrLossFrom, Doc: "position at which the missing range begins"},
	{Name: "weir.loss.to", Type: Keyword, Attr: schema.AttrLossTo, Doc: "position at which it ends, or unknown"},
	{Name: "weir.loss.records", Type: Long, Attr: schema.AttrLossRecords, Doc: "records that are missing, where it is known"},
	{Name: "weir.loss.bytes", Type: Long, Attr: schema.AttrLossBytes, Doc: "bytes that are missing, where it is known"},
	{Name: "weir.sampled", Type: Long, Attr: schema.AttrSampled, Doc: "of an app over its quota: one in so many records was kept, and this is one"},
	{Name: "weir.gap.source", Type: Keyword, Attr: "weir.gap.source", Doc: "source of which positions were jumped over"},
	{Name: "weir.gap.from", Type: Keyword, Attr: "weir.gap.from", Doc: "where the gap begins"},
	{Name: "weir.gap.to", Type: Keyword, Attr: "weir.gap.to", Doc: "where it ends"},
	{Name: "weir.final", Type: Keyword, Attr: schema.AttrFinal, Doc: "position at which a closed source ends"},
	{Name: "weir.lines", Type: Long, Attr: schema.AttrLines, Doc: "lines of a closed source"},
	{Name: "weir.bytes", Type: Long, Attr: schema.AttrBytes, Doc: "bytes of a closed source"},
	{Name: "weir.signal.id", Type: Keyword, Attr: schema.AttrSignalID, Doc: "made of rule, group, window and revision"},
	{Name: "weir.signal.kind", Type: Keyword, Attr: schema.AttrSignalKind, Doc: "crash_loop, oom, window, rule …"},
	{Name: "weir.signal.rule", Type: Keyword, Attr: schema.AttrSignalRule, Doc: "name of the rule or window"},
	{Name: "weir.signal.group", Type: Keyword, Attr: schema.AttrSignalGroup, Doc: "what it is of: key=value,key=value"},
	{Name: "weir.signal.state", Type: Keyword, Attr: schema.AttrSignalState, Doc: "firing, resolved, or point for a single happening"},
	{Name: "weir.signal.revision", Type: Long, Attr: schema.AttrSignalRevision, Doc: "0 first; a higher one corrects it"},
	{Name: "weir.signal.late", Type: Boolean, Attr: schema.AttrSignalLate, Doc: "counts only what came after its window was forgotten"},
	{Name: "weir.signal.records", Type: Keyword, Attr: schema.AttrSignalRecords, Doc: "ids of up to five records behind it"},
	{Name: "weir.window.lines_added", Type: Long, Attr: "weir.window.lines_added", Doc: "lines that no earlier signal of the window counted: these add up"},
	{Name: "weir.window.seconds", Type: Long, Attr: "weir.window.seconds", Doc: "length of a signal's window"},
	{Name: "weir.window.lines", Type: Long, Attr: "weir.window.lines", Doc: "lines in it, as this revision counts them"},
	{Name: "weir.window.bytes", Type: Long, Attr: "weir.window.bytes", Doc: "bytes in it"},
	{Name: "weir.action.id", Type: Keyword, Attr: schema.AttrActionID, Doc: "of an order: the same in its decision and its outcomes"},
	{Name: "weir.action.policy", Type: Keyword, Attr: schema.AttrActionPolicy, Doc: "the policy that decided"},
	{Name: "weir.action.mode", Type: Keyword, Attr: schema.AttrActionMode, Doc: "act or observe"},
	{Name: "weir.action.kind", Type: Keyword, Attr: schema.AttrActionKind, Doc: "restart, recreate, notify …"},
	{Name: "weir.action.verdict", Type: Keyword, Attr: schema.AttrActionVerdict, Doc: "of a decision: act, would_act, notify, refused, breaker_opened …; of an outcome: done, passed, already, refused, failed, unknown"},
	{Name: "weir.action.reason", Type: Keyword, Attr: schema.AttrActionReason, Doc: "why it was refused, or failed"},
	{Name: "weir.action.step", Type: Long, Attr: schema.AttrActionStep, Doc: "step of the policy, from 1"},
	{Name: "weir.action.signals", Type: Keyword, Attr: schema.AttrActionSignals, Doc: "ids of the signals and records behind it"},
	{Name: "weir.deadletter.id", Type: Keyword, Attr: attrLetterID, Doc: "_id of the refused document"},
	{Name: "weir.deadletter.index", Type: Keyword, Attr: attrLetterIndex, Doc: "the data stream that refused it"},
	{Name: "weir.deadletter.source", Type: Keyword, Attr: attrLetterSource, Doc: "source of the refused record"},
	{Name: "weir.deadletter.topic", Type: Keyword, Attr: attrLetterTopic, Doc: "where Kafka has the original"},
	{Name: "weir.deadletter.partition", Type: Long, Attr: attrLetterPartition, Doc: "its partition"},
	{Name: "weir.deadletter.offset", Type: Long, Attr: attrLetterOffset, Doc: "its offset"},
	{Name: "weir.deadletter.bytes", Type: Long, Attr: attrLetterBytes, Doc: "size of the refused document"},
	{Name: "weir.json", Type: Flattened, Doc: "the message's fields where it is a JSON object; weir.json.<path>"},
	{Name: "weir.attributes", Type: Flattened, Doc: "every attribute that has no field; weir.attributes.<key>"},
}

// layout is what the encoder knows of Fields.
type layout struct {
	byAttr map[string]uint8
	own    set        // fields with put
	depth  []int      // names in the path
	open   [][]string // by field and by how much of the path is open already: `"image":{"name":`
	shared [][]uint8  // by two fields: how much of their paths is the same
}

// set is a set of fields.
type set [2]uint64

func (s *set) add(i uint8)      { s[i>>6] |= 1 << (i & 63) }
func (s *set) has(i uint8) bool { return s[i>>6]&(1<<(i&63)) != 0 }

var (
	fields       = lay(Fields)
	fieldLabels  = fieldOf("container.labels")
	fieldSource  = fieldOf("weir.source")
	fieldJSON    = fieldOf("weir.json")
	fieldAnyAttr = fieldOf("weir.attributes")
)

func fieldOf(name string) uint8 {
	return uint8(slices.IndexFunc(Fields, func(f Field) bool { return f.Name == name }))
}

func lay(all []Field) *layout {
	l := &layout{byAttr: map[string]uint8{}}
	var paths [][]string
	for i, f := range all {
		path := strings.Split(f.Name, ".")
		paths = append(paths, path)
		l.depth = append(l.depth, len(path))
		var open []string
		for from := range path {
			open = append(open, `"`+strings.Join(path[from:], `":{"`)+`":`)
		}
		l.open = append(l.open, open)
		if f.Attr != "" {
			l.byAttr[f.Attr] = uint8(i)
		}
		if f.put != nil {
			l.own.add(uint8(i))
		}
	}
	for _, a := range paths {
		var row []uint8
		for _, b := range paths {
			same := 0
			for same < len(a)-1 && same < len(b)-1 && a[same] == b[same] {
				same++
			}
			row = append(row, uint8(same))
		}
		l.shared = append(l.shared, row)
	}
	return l
}

// fits tells whether a field takes an attribute's value. What does not fit goes to weir.attributes, which takes anything.
func (f *Field) fits(a *schema.Attr) bool {
	switch f.Type {
	case Long:
		return a.Kind == schema.KindInt
	case Boolean:
		return a.Kind == schema.KindBool
	}
	return true
}
