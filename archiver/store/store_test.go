package store_test

import (
	"strings"
	"testing"

	"weir/archiver/store"
	"weir/archiver/store/storetest"
)

func config(root string) store.Config {
	cfg := store.DefaultConfig()
	cfg.Root = root
	return cfg
}

func open(t *testing.T, cfg store.Config) store.Store {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLocalStore(t *testing.T) { storetest.Run(t, open(t, config("file://"+t.TempDir()))) }

func TestBadConfigs(t *testing.T) {
	for _, c := range []struct {
		change func(*store.Config)
		want   string
	}{
		{func(c *store.Config) { c.Root = "" }, "neither file:///path nor hdfs"},
		{func(c *store.Config) { c.Root = "/data" }, "neither"},
		{func(c *store.Config) { c.Root = "s3://b/x" }, "scheme"},
		{func(c *store.Config) { c.Root = "file://host/x" }, "three slashes"},
		{func(c *store.Config) { c.Root = "hdfs://nn/x" }, "host:port"},
		{func(c *store.Config) { c.Root = "webhdfs://nn:1,nn/x" }, `"nn" is not host:port`},
		{func(c *store.Config) { c.Root = "hdfs://nn:8020" }, "names no folder"},
		{func(c *store.Config) { c.Root = "file:///" }, "names no folder"},
		{func(c *store.Config) { c.HDFSUser = "" }, "hdfs_user: must be set"},
		{func(c *store.Config) { c.Deadline = 0 }, "deadline: 0s is not within"},
		{func(c *store.Config) { c.WebHDFS = "nn:9870" }, "webhdfs: \"nn:9870\" is neither http://"},
		{func(c *store.Config) { c.Root, c.WebHDFS = "webhdfs://nn:9870/x", "http://nn:9870" }, "is WebHDFS already"},
		{func(c *store.Config) { c.SpoolBytes = 5 }, "spool_bytes: 5 is not within"},
		{func(c *store.Config) { c.Kerberos.Keytab = "k" }, "kerberos.principal: must be set with a keytab"},
		{func(c *store.Config) { c.Kerberos.Keytab = "k" }, "kerberos.service_principal: must be set for an hdfs root"},
		{func(c *store.Config) { c.Kerberos.Keytab, c.Kerberos.CCache = "k", "c" }, "one of them is enough"},
		{func(c *store.Config) { c.Kerberos.CCache, c.Kerberos.ServicePrincipal = "c", "nn/_HOST@R" }, "has a realm"},
		{func(c *store.Config) { c.Kerberos.CCache, c.Kerberos.DataTransferProtection = "c", "secret" }, "is none of authentication"},
		{func(c *store.Config) { c.Kerberos.Principal = "weir" }, "kerberos.keytab: set it"},
	} {
		cfg := config("hdfs://nn:8020/archive")
		c.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", cfg, err, c.want)
		}
	}
}
