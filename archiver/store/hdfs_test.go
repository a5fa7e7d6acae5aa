//go:build e2e

package store

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestHDFSStore(t *testing.T) {
	namenode := os.Getenv("WEIR_HDFS_NAMENODE")
	if namenode == "" {
		t.Fatal("WEIR_HDFS_NAMENODE is not set: run `make e2e`")
	}
	cfg := DefaultConfig()
	cfg.Root, cfg.Deadline = fmt.Sprintf("hdfs://%s/store-test/%d", namenode, time.Now().UnixNano()), 10*time.Second
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	storeSuite(t, s)
}
