// Package patterns finds the templates of log lines and says when a new one appears or one gets much more frequent.
//
// It is online template mining after Drain (He, Zhu, Zheng, Lyu: "Drain: An Online Log Parsing Approach with Fixed Depth Tree",
// ICWS 2017), with bounded memory and without a clock: time is the records' own and the watermark that the caller gives.
//
//	m, err := patterns.New(cfg)
//	out = m.Write(batch, out)           // appends signals new_pattern; the batch's memory is not kept
//	out = m.Advance(watermark, out)     // Unix ns; closes windows, appends signals pattern_rate, forgets what is old
//	for _, app := range m.Changed() {   // sorted; since the last call
//		state := m.AppendDelta(nil, app) // nil: the app is forgotten; AppendState gives the whole of it, for a snapshot
//	}
//	err = m.Restore(app, state)         // before the first Write: of each app a whole state, then the deltas since, in their order
//
// State is per app (weir.app), and what a miner does follows from its configuration, its state and its input alone: cut anywhere,
// saved and restored, it gives the same signals. A miner is for one goroutine.
//
// The topics are keyed by source, so the containers of one app are in several partitions of weir.logs, and each has a miner that knows what
// it read. A pattern that is new in two partitions is told by both; the signals differ in nothing but the record and have the same group as
// long as the first line of the pattern was the same.
//
// A template's id is a hash of its text when it was born and stays when the template becomes more general.
package patterns
