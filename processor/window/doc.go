// Package window adds up what the partitions of the input counted, closes windows by watermark, and says what rules make of them.
//
// A window is a run of panes, each as long as the window's slide. Counts arrive as deltas: what one input partition counted of one group
// since its last commit. Everything here is plain computation: time comes in as the watermark, and what is to be said goes out as signals, so that the same
// deltas and marks make the same signals.
package window
