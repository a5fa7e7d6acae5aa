package schema

// Topics. Every consumer reads them under the contract of docs/delivery.md.
const (
	TopicLogs       = "weir.logs"
	TopicEvents     = "weir.events"
	TopicSignals    = "weir.signals"
	TopicActions    = "weir.actions"
	TopicDeadLetter = "weir.deadletter"
	// TopicPartials carries what the processor's first stage counted to its second.
	TopicPartials = "weir.partials"
	// ChangelogPrefix and the name of an input topic make the compacted topic that keeps the processor's state.
	ChangelogPrefix = "weir.changelog."
	// StateTopicPrefix and a consumer group's name make the compacted topic that keeps the group's interval state.
	StateTopicPrefix = "weir.state."
	// TopicControl keeps the decider's state: compacted, one partition, one writer.
	TopicControl = "weir.control"
)

// Attribute names. Those without the prefix weir. are from the OpenTelemetry semantic conventions.
const (
	AttrContainerID   = "container.id"
	AttrContainerName = "container.name"
	AttrImageName     = "container.image.name"
	LabelPrefix       = "container.label."
	AttrHostName      = "host.name"
	AttrStream        = "log.iostream"
	AttrFilePath      = "log.file.path"

	AttrK8sNamespace = "k8s.namespace.name"
	AttrK8sPod       = "k8s.pod.name"
	AttrK8sPodUID    = "k8s.pod.uid"
	AttrK8sContainer = "k8s.container.name"
	AttrK8sRestarts  = "k8s.container.restart_count"
	AttrK8sNode      = "k8s.node.name"
	AttrK8sOwner     = "k8s.%s.name" // of the pod, by the kind of its owner: deployment, replicaset, statefulset, daemonset or job

	AttrSite        = "weir.site"
	AttrCell        = "weir.cell"
	AttrApp         = "weir.app"
	AttrTenant      = "weir.tenant"
	AttrSource      = "weir.source"
	AttrIncarnation = "weir.incarnation"
	AttrOffset      = "weir.offset"

	AttrTruncated   = "weir.truncated"    // bool: the record was cut at the size limit
	AttrCutBytes    = "weir.cut.bytes"    // int: bytes of the body that were cut off because the topic did not take the record
	AttrPartial     = "weir.partial"      // bool: the stream ended before the line did
	AttrDamaged     = "weir.damaged"      // bool: the line was not what the driver writes; the body is its raw bytes
	AttrRedacted    = "weir.redacted"     // int: how many secrets were replaced in the body
	AttrRedaction   = "weir.redaction"    // resource: the kinds of secrets that were looked for
	AttrLossReason  = "weir.loss.reason"  // why the range is gone
	AttrLossFrom    = "weir.loss.from"    // position
	AttrLossTo      = "weir.loss.to"      // position, or "unknown"
	AttrLossRecords = "weir.loss.records" // int: how many records are gone, where it is known
	AttrLossBytes   = "weir.loss.bytes"   // int: how many bytes are gone, where it is known
	AttrSampled     = "weir.sampled"      // int: of an app over its quota: one in so many records was kept, and this is one
	AttrFinal       = "weir.final"        // position at which a closed source ends
	AttrLines       = "weir.lines"
	AttrBytes       = "weir.bytes"

	// Of decisions, orders, their outcomes and commands; package control has the types.
	AttrActionPayload   = "weir.action.payload"   // JSON: what is signed and chained; the other attributes repeat it for searches
	AttrActionHash      = "weir.action.hash"      // SHA-256 of the payload, in hex
	AttrActionSignature = "weir.action.signature" // Ed25519 over the payload, in base64
	AttrActionID        = "weir.action.id"        // of the order
	AttrActionPolicy    = "weir.action.policy"
	AttrActionMode      = "weir.action.mode"    // act or observe
	AttrActionKind      = "weir.action.kind"    // restart, recreate …
	AttrActionVerdict   = "weir.action.verdict" // act, would_act, refused … of an outcome: done, passed, refused, failed, unknown
	AttrActionReason    = "weir.action.reason"
	AttrActionStep      = "weir.action.step"    // int, from 1
	AttrActionSignals   = "weir.action.signals" // ids of the signals and records behind it, comma separated

	AttrExitCode = "container.exit_code" // int, of docker.container.die
	AttrOOM      = "container.oom"       // bool, of docker.container.die
	AttrActorID  = "weir.actor.id"

	// Of signals; package processor/signal has the type.
	AttrSignalID       = "weir.signal.id"       // made of rule, group, window and revision alone
	AttrSignalKind     = "weir.signal.kind"     // crash_loop, window, rule …
	AttrSignalRule     = "weir.signal.rule"     // name of the rule; of what is built in, the kind
	AttrSignalGroup    = "weir.signal.group"    // "key=value,key=value"
	AttrSignalValue    = "weir.signal.value"    // double
	AttrSignalState    = "weir.signal.state"    // firing, resolved, or point for a single happening
	AttrSignalRevision = "weir.signal.revision" // int: 0 first, higher corrects the earlier
	AttrSignalRecords  = "weir.signal.records"  // ids of up to five records behind it, comma separated
	AttrSignalLate     = "weir.signal.late"     // bool: counts only what came after its window was forgotten; to be added to what was said before
	AttrWindowStart    = "weir.window.start"    // Unix ns
	AttrWindowEnd      = "weir.window.end"      // Unix ns
)

// Event names of records that weir itself writes. Engine events are named docker.<type>.<action>.
const (
	EventLoss         = "weir.loss"
	EventSourceClosed = "weir.source.closed"
	EventGapOpened    = "weir.gap.opened"
	EventSignal       = "weir.signal"
	EventWindow       = "weir.window" // of versions in which signals had no kinds
	EventPartial      = "weir.partial.counts"
	EventDeadLetter   = "weir.deadletter"
	EventReplayed     = "weir.deadletter.replayed"
	EventDecision     = "weir.action.decision" // of the decider; one with an order is for an executor
	EventOutcome      = "weir.action.outcome"  // of an executor
	EventCommand      = "weir.action.command"  // of a person
)
