package control

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"weir/schema"
)

// severities of verdicts; what is not named is INFO.
var severities = map[string]int32{VerdictAct: schema.SeverityWarn, VerdictNotify: schema.SeverityError, VerdictOpened: schema.SeverityError, VerdictFrozen: schema.SeverityWarn,
	VerdictUnfrozen: schema.SeverityWarn, VerdictClosed: schema.SeverityWarn, VerdictCommandFailed: schema.SeverityError, OutcomeFailed: schema.SeverityError, OutcomeUnknown: schema.SeverityError}

func severity(verdict string) (int32, string) {
	n := cmp.Or(severities[verdict], schema.SeverityInfo)
	return n, schema.SeverityName(n)
}

// DecisionRecord makes the record of a decision, at its place in the chain.
func DecisionRecord(s *Sealed) (schema.Record, *Decision, error) {
	d := new(Decision)
	if err := json.Unmarshal([]byte(s.Payload), d); err != nil {
		return schema.Record{}, nil, fmt.Errorf("decision: %w", err)
	}
	r := schema.Record{Time: d.At, Observed: d.At, Offset: d.Seq, EventName: schema.EventDecision, Body: d.Sentence(), Attrs: s.attrs()}
	r.Severity, r.SeverityText = severity(d.Verdict)
	r.Attrs = append(r.Attrs, schema.String(schema.AttrActionVerdict, d.Verdict))
	add := func(key, value string) {
		if value != "" {
			r.Attrs = append(r.Attrs, schema.String(key, value))
		}
	}
	add(schema.AttrActionReason, d.Reason)
	add(schema.AttrActionPolicy, d.Policy)
	add(schema.AttrActionMode, d.Mode)
	add(schema.AttrActionKind, d.Action)
	add(schema.AttrActionSignals, strings.Join(d.Signals, ","))
	if d.Step > 0 {
		r.Attrs = append(r.Attrs, schema.Int(schema.AttrActionStep, int64(d.Step)))
	}
	if d.Order != nil {
		add(schema.AttrActionID, d.Order.ID)
	}
	if sub := d.Subject; sub != nil {
		add(schema.AttrHostName, sub.Node)
		add(schema.AttrContainerID, sub.Container)
		add(schema.AttrContainerName, sub.Name)
		add(schema.AttrImageName, sub.Image)
		add(schema.AttrApp, sub.App)
		add(schema.AttrK8sNamespace, sub.Namespace)
		add(schema.AttrK8sPod, sub.Pod)
	}
	return r, d, nil
}

// Sentence says the decision to people.
func (d *Decision) Sentence() string {
	about := ""
	if s := d.Subject; s != nil {
		about = strings.TrimSpace(s.Pod + " " + s.Name)
		if about == "" {
			about = cmp.Or(s.Container[:min(12, len(s.Container))], "node")
		}
		about += " on " + s.Node
	}
	switch d.Verdict {
	case VerdictAct:
		return fmt.Sprintf("%s %s, step %d of %s, after %s", d.Action, about, d.Step, d.Policy, d.Trigger)
	case VerdictWouldAct:
		return fmt.Sprintf("would %s %s, step %d of %s, after %s", d.Action, about, d.Step, d.Policy, d.Trigger)
	case VerdictNotify:
		return fmt.Sprintf("%s: somebody should look, says %s, after %s", about, d.Policy, d.Trigger)
	case VerdictRefused:
		return fmt.Sprintf("no %s of %s by %s, after %s: %s", cmp.Or(d.Action, "action"), about, d.Policy, d.Trigger, d.Reason)
	case VerdictEpoch:
		return fmt.Sprintf("a decider took over with epoch %d, %s", d.Epoch, d.Reason)
	}
	return fmt.Sprintf("%s: %s", d.Verdict, d.Reason)
}

// OutcomeRecord makes the record of an outcome. Its position is the executor's to choose.
func OutcomeRecord(s *Sealed, o *Outcome) schema.Record {
	r := schema.Record{Time: o.At, Observed: o.At, Offset: o.Seq, EventName: schema.EventOutcome, Attrs: append(s.attrs(),
		schema.String(schema.AttrActionVerdict, o.Verdict), schema.String(schema.AttrActionID, o.ID), schema.String(schema.AttrHostName, o.Executor))}
	r.Body = fmt.Sprintf("%s of order %s by %s: %s", cmp.Or(o.Action, "action"), o.ID, o.Executor, o.Verdict)
	r.Severity, r.SeverityText = severity(o.Verdict)
	for _, a := range []schema.Attr{schema.String(schema.AttrActionReason, o.Reason), schema.String(schema.AttrActionKind, o.Action), schema.String(schema.AttrContainerID, cmp.Or(o.After, o.Before))} {
		if a.Str != "" {
			r.Attrs = append(r.Attrs, a)
		}
	}
	if o.Reason != "" {
		r.Body += ", " + o.Reason
	}
	return r
}

// CommandRecord makes the record of a command.
func CommandRecord(s *Sealed, c *Command) schema.Record {
	return schema.Record{Time: c.At, Observed: c.At, EventName: schema.EventCommand, Severity: schema.SeverityWarn, SeverityText: "WARN", Body: fmt.Sprintf("%s asks: %s %s: %s", c.By, c.What, c.Name, c.Reason), Attrs: s.attrs()}
}
