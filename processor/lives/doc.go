// Package lives derives states of containers and nodes from their logs and engine events: crash loop, flapping health, unhealthy, OOM,
// silent and noisy container, engine restart, quiet node. docs/signals.md says what each means.
//
//	t, err := lives.New(cfg)
//	out = t.Write(batch, out)           // a batch of weir.logs or weir.events; appends signals; the batch's memory is not kept
//	t.Note(batch)                       // a batch of weir.events that another tracker writes: its facts only, no signals
//	t.Alive(node, at)                   // something of the node was seen elsewhere, at Unix ns of event time
//	out = t.Advance(watermark, out)     // Unix ns; what follows from time passing
//	for _, key := range t.Changed() {   // sorted; since the last call
//		state := t.AppendState(nil, key) // nil: the key is forgotten
//	}
//	err = t.Restore(key, state)         // before the first Write, in any order of keys
//
// There is no clock: time is the records' own and the watermark. What a tracker does follows from its configuration, its state and its
// input alone. A tracker is for one goroutine. States are fired once and resolved once; between two firings of one state of one
// container lies at least its cool-down.
//
// State is per container and per node. A container is a name on a node (docker) or a pod's container (CRI), not an id, so that one that is made anew
// under its name goes on. What lies together is assumed so, since topics are keyed by source:
//
//   - All engine events of a node are in one partition of weir.events. crash_loop, flapping_health, unhealthy, oom and engine_restart of Docker need
//     nothing else, and are given by the tracker to which that partition is written.
//   - A container's log is in one partition of weir.logs. noisy_container needs nothing else. silent_container needs the node's events too, to
//     tell a container that stopped from one that hangs: where log and events go to different trackers, give the one of the log the events by Note. It
//     is not judged on a node of which no event was seen.
//   - A pod's container has a source, and so perhaps a partition, for each attempt. A crash loop is seen from the attempts' numbers, also when some
//     are missing, and may be told by several trackers, with the same group.
//   - node_quiet is judged where the node's records or events are written. What goes to other trackers of the process is told by Alive.
package lives
