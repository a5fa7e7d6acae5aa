//go:build e2e

package archiver

import (
	"fmt"
	"os"
	"testing"
	"time"

	"weir/ingest/sinktest"
)

// realRoot is a new folder in the real HDFS of the development stack.
func realRoot(t *testing.T) string {
	t.Helper()
	namenode := os.Getenv("WEIR_HDFS_NAMENODE")
	if namenode == "" {
		t.Fatal("WEIR_HDFS_NAMENODE is not set: run `make e2e`")
	}
	return fmt.Sprintf("hdfs://%s/archiver-test/%d", namenode, time.Now().UnixNano())
}

func TestHDFSSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness { return harness(realRoot(t)) })
}

func TestHDFSKilledAtEachStep(t *testing.T) {
	killedAtEachStep(t, realRoot)
}
