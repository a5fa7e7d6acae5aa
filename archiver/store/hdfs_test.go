//go:build e2e

package store_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"weir/archiver/store/storetest"
)

func address(t *testing.T, key string) string {
	t.Helper()
	a := os.Getenv(key)
	if a == "" {
		t.Fatalf("%s is not set: run `make e2e`", key)
	}
	return a
}

// TestStores runs the suite on a real HDFS, natively, through its REST API and through a real HttpFS, with a local spool and without.
func TestStores(t *testing.T) {
	native := "hdfs://" + address(t, "WEIR_HDFS_NAMENODE")
	web := "webhdfs://" + strings.TrimPrefix(address(t, "WEIR_WEBHDFS_URL"), "http://")
	gateway := "webhdfs://" + strings.TrimPrefix(address(t, "WEIR_HTTPFS_URL"), "http://")
	for _, c := range []struct{ name, root, spool string }{{"native", native, t.TempDir()}, {"native-direct", native, ""}, {"web", web, t.TempDir()}, {"web-direct", web, ""},
		{"httpfs", gateway, t.TempDir()}, {"httpfs-direct", gateway, ""}} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(fmt.Sprintf("%s/store-test/%d", c.root, time.Now().UnixNano()))
			cfg.Deadline, cfg.SpoolDir = 10*time.Second, c.spool
			storetest.Run(t, open(t, cfg))
		})
	}
}
