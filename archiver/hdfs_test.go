//go:build e2e

package archiver

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"weir/ingest/sinktest"
)

// realRoot is a new folder in the real HDFS of the development stack.
func realRoot(t *testing.T, scheme, key string) string {
	t.Helper()
	namenode := strings.TrimPrefix(os.Getenv(key), "http://")
	if namenode == "" {
		t.Fatalf("%s is not set: run `make e2e`", key)
	}
	return fmt.Sprintf("%s://%s/archiver-test/%d", scheme, namenode, time.Now().UnixNano())
}

func TestHDFSSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness { return harness(realRoot(t, "hdfs", "WEIR_HDFS_NAMENODE")) })
}

func TestWebHDFSSink(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness { return harness(realRoot(t, "webhdfs", "WEIR_WEBHDFS_URL")) })
}
