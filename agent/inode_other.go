//go:build !linux

package agent

import "os"

// Elsewhere a file is recognised by its content alone.
func inode(os.FileInfo) (dev, ino uint64) { return 0, 0 }

func birth(*os.File) int64 { return 0 }

func nextData(_ *os.File, from int64) (int64, error) { return from, nil }
