package sinktest

import "unsafe"

// lent views bytes as a string, as the decoder does with a fetch's memory.
func lent(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
