package search

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"weir/internal/show"
)

// Hit is a record that was found.
type Hit struct {
	Index  string            `json:"_index"`
	ID     string            `json:"_id"`
	Seq    int64             `json:"_seq_no"` // where it was asked for
	Sort   []json.RawMessage `json:"sort"`
	Source json.RawMessage   `json:"_source"`
}

func (h *Hit) key() string { return h.Index + "/" + h.ID }

// Document is the record's fields, for Get.
func (h *Hit) Document() (Document, error) {
	d := json.NewDecoder(bytes.NewReader(h.Source))
	d.UseNumber() // nothing of a long is lost
	var doc Document
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("the document %s of %s: %w", h.ID, h.Index, err)
	}
	return doc, nil
}

// Document is a document as Elasticsearch keeps it: objects within objects, or names with dots, or both.
type Document map[string]any

// Get finds a field by its full name; nil where there is none.
func (d Document) Get(name string) any {
	if v, ok := d[name]; ok {
		return v
	}
	for i := range len(name) {
		if name[i] != '.' {
			continue
		}
		if inner, ok := d[name[:i]].(map[string]any); ok {
			if v := Document(inner).Get(name[i+1:]); v != nil {
				return v
			}
		}
	}
	return nil
}

// Text is a field as people read it, "" where there is none.
func (d Document) Text(name string) string {
	switch v := d.Get(name).(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	default:
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		_ = e.Encode(v) // it came from JSON
		return strings.TrimSpace(b.String())
	}
}

// Line is the record for people.
func (d Document) Line() show.Line {
	l := show.Line{Level: strings.ToUpper(d.Text("log.level")), What: d.Text("container.name"), Body: d.Text("message")}
	l.At, _ = time.Parse(time.RFC3339Nano, d.Text("@timestamp"))
	if l.What == "" {
		l.What = d.Text("weir.source")
	}
	if action := d.Text("event.action"); action != "" {
		l.Body = action + ": " + l.Body
	}
	return l
}

// AppendJSON appends the hit as one line of JSON: all of its document, with _index and _id before it; or the fields that are named.
func (h *Hit) AppendJSON(b *bytes.Buffer, fields []string) error {
	from := b.Len()
	if err := h.appendJSON(b, fields); err != nil {
		return err
	}
	// The one line may be read in a terminal, too.
	safe := show.JSON(b.Bytes()[from:])
	b.Truncate(from)
	b.Write(safe)
	return nil
}

func (h *Hit) appendJSON(b *bytes.Buffer, fields []string) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if len(fields) > 0 {
		doc, err := h.Document()
		if err != nil {
			return err
		}
		chosen := map[string]any{"_index": h.Index, "_id": h.ID}
		for _, f := range fields {
			if v := doc.Get(f); v != nil {
				chosen[f] = v
			}
		}
		return e.Encode(chosen)
	}
	if err := e.Encode(struct {
		Index string `json:"_index"`
		ID    string `json:"_id"`
	}{h.Index, h.ID}); err != nil {
		return err
	}
	b.Truncate(b.Len() - len("}\n"))
	at := b.Len()
	if err := json.Compact(b, h.Source); err != nil {
		return fmt.Errorf("the document %s of %s: %w", h.ID, h.Index, err)
	}
	if text := b.Bytes(); len(text) > at+2 {
		text[at] = ','
	} else { // an empty document
		b.Truncate(at)
		b.WriteByte('}')
	}
	b.WriteByte('\n')
	return nil
}
