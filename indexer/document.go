package indexer

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"weir/schema"
)

// datasets are the middle parts of the data streams' names, by topic.
var datasets = map[string]string{
	schema.TopicLogs: "weir.container", schema.TopicEvents: "weir.event", schema.TopicSignals: "weir.signal", schema.TopicActions: "weir.action",
}

// fields says which attributes have a field of their own in Elasticsearch (ECS 8 where it has one). All others go to
// weir.attributes, which is of type flattened, so that no value can conflict with a mapping.
var fields = map[string]struct{ object, key string }{
	schema.AttrContainerID: {"container", "id"}, schema.AttrContainerName: {"container", "name"}, schema.AttrHostName: {"host", "name"},
	schema.AttrSite: {"weir", "site"}, schema.AttrCell: {"weir", "cell"}, schema.AttrApp: {"weir", "app"}, schema.AttrTenant: {"weir", "tenant"},
	schema.AttrIncarnation: {"weir", "incarnation"},
}

// document appends one record as JSON, by appending alone. shared is what shareOf made of the batch's resource.
func document(b []byte, r *schema.Record, shared *share) []byte {
	at := r.Time
	if at == 0 {
		at = r.Observed
	}
	b = append(b, `{"@timestamp":"`...)
	b = time.Unix(0, at).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z")
	b = append(b, `","message":`...)
	b = appendJSON(b, r.Body)
	b = append(b, `,"log":{"offset":`...)
	b = strconv.AppendInt(b, r.Offset, 10)
	if r.SeverityText != "" {
		b = append(b, `,"level":`...)
		b = appendJSON(b, strings.ToLower(r.SeverityText))
	}
	if a, ok := r.Attr(schema.AttrStream); ok {
		b = append(b, `,"iostream":`...)
		b = appendJSON(b, a.Str)
	}
	if shared.path != "" {
		b = append(b, `,"file":{"path":`...)
		b = appendJSON(b, shared.path)
		b = append(b, '}')
	}
	b = append(b, `},"event":{"dataset":"`...)
	b = append(b, shared.dataset...)
	b = append(b, '"')
	if r.EventName != "" {
		b = append(b, `,"action":`...)
		b = appendJSON(b, r.EventName)
	}
	if r.Observed != 0 {
		b = append(b, `,"created":"`...)
		b = time.Unix(0, r.Observed).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z")
		b = append(b, '"')
	}
	b = append(b, '}')
	if a, ok := r.Attr(schema.AttrExitCode); ok {
		b = append(b, `,"process":{"exit_code":`...)
		b = strconv.AppendInt(b, a.Num, 10)
		b = append(b, '}')
	}
	if r.TraceID != ([16]byte{}) {
		b = append(b, `,"trace":{"id":"`...)
		b = hex.AppendEncode(b, r.TraceID[:])
		b = append(b, `"}`...)
	}
	if r.SpanID != ([8]byte{}) {
		b = append(b, `,"span":{"id":"`...)
		b = hex.AppendEncode(b, r.SpanID[:])
		b = append(b, `"}`...)
	}
	b = append(b, shared.objects...)
	b = append(b, `,"weir":{`...)
	b = append(b, shared.weir...)
	open := false
	for i := range r.Attrs {
		a := &r.Attrs[i]
		if a.Key == schema.AttrStream || a.Key == schema.AttrExitCode {
			continue
		}
		if !open {
			b, open = append(b, `,"attributes":{`...), true
		} else {
			b = append(b, ',')
		}
		b = appendAttr(b, a)
	}
	if len(shared.rest) > 0 {
		if !open {
			b, open = append(b, `,"attributes":{`...), true
		} else {
			b = append(b, ',')
		}
		b = append(b, shared.rest...)
	}
	if open {
		b = append(b, '}')
	}
	return append(b, `}}`...)
}

// share is the JSON that all documents of a batch have in common.
type share struct {
	dataset string
	path    string
	objects []byte // ,"container":{…},"host":{…},"data_stream":{…}
	weir    []byte // fields of weir, without a trailing comma; never empty
	rest    []byte // entries of weir.attributes
}

func shareOf(s *share, b *schema.Batch, dataset, namespace string) {
	s.dataset, s.path = dataset, ""
	var container, host, labels []byte
	s.weir, s.rest = s.weir[:0], s.rest[:0]
	entry := func(dst []byte, key, value string) []byte {
		if len(dst) > 0 {
			dst = append(dst, ',')
		}
		return appendJSON(append(appendJSON(dst, key), ':'), value)
	}
	s.weir = entry(s.weir, "source", b.Source)
	for i := range b.Resource {
		a := &b.Resource[i]
		if a.Key == schema.AttrSource {
			continue
		}
		if f, ok := fields[a.Key]; ok {
			switch f.object {
			case "container":
				container = entry(container, f.key, a.Str)
			case "host":
				host = entry(host, f.key, a.Str)
			default:
				s.weir = entry(s.weir, f.key, a.Str)
			}
			continue
		}
		switch label, isLabel := strings.CutPrefix(a.Key, schema.LabelPrefix); {
		case isLabel && label != "":
			labels = entry(labels, label, a.Str)
		case a.Key == schema.AttrFilePath:
			s.path = a.Str
		case a.Key == schema.AttrImageName:
			if len(container) > 0 {
				container = append(container, ',')
			}
			container = append(container, `"image":{"name":`...)
			container = append(appendJSON(container, a.Str), '}')
		default:
			if len(s.rest) > 0 {
				s.rest = append(s.rest, ',')
			}
			s.rest = appendAttr(s.rest, a)
		}
	}
	if len(labels) > 0 {
		if len(container) > 0 {
			container = append(container, ',')
		}
		container = append(append(append(container, `"labels":{`...), labels...), '}')
	}
	s.objects = s.objects[:0]
	for _, o := range []struct {
		name string
		json []byte
	}{{"container", container}, {"host", host}} {
		if len(o.json) > 0 {
			s.objects = append(append(append(append(s.objects, `,"`...), o.name...), `":{`...), o.json...)
			s.objects = append(s.objects, '}')
		}
	}
	s.objects = append(s.objects, `,"data_stream":{"type":"logs","dataset":"`...)
	s.objects = append(append(append(s.objects, dataset...), `","namespace":"`...), namespace...)
	s.objects = append(s.objects, `"}`...)
}

// appendAttr appends "key":value; flattened fields take any scalar.
func appendAttr(b []byte, a *schema.Attr) []byte {
	key := a.Key
	if key == "" {
		key = "_" // Elasticsearch refuses empty names
	}
	b = append(appendJSON(b, key), ':')
	switch a.Kind {
	case schema.KindInt:
		return strconv.AppendInt(b, a.Num, 10)
	case schema.KindBool:
		return strconv.AppendBool(b, a.Num != 0)
	case schema.KindDouble:
		f := math.Float64frombits(uint64(a.Num))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return appendJSON(b, strconv.FormatFloat(f, 'g', -1, 64))
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	}
	return appendJSON(b, a.Str)
}

// appendJSON appends a string as JSON (RFC 8259). Bytes that are not UTF-8 become U+FFFD.
func appendJSON(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, n := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			b = append(append(b, s[from:i]...), "\ufffd"...)
		} else {
			b = append(b, s[from:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			}
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}
