package cli

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"weir/internal/broker"
	"weir/internal/certtest"
)

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func healthy(address string, client *http.Client) bool {
	req, _ := http.NewRequest(http.MethodGet, address+"/healthz", nil)
	req.Close = true
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// TestReload changes the configuration of a running component: a good change is taken, a bad one, or one that names a bad file, changes nothing.
func TestReload(t *testing.T) {
	t.Setenv("WEIR_KAFKA_BROKERS", "") // of the development stack, which would go before the file
	b, err := broker.Start(t.TempDir(), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	first, second := freeAddress(t), freeAddress(t)
	text := func(listen, more string) string {
		return fmt.Sprintf("kafka:\n  brokers: [%s]\nhttp:\n  listen: %s\n%s", b.Addrs()[0], listen, more)
	}
	config := writeConfig(t, text(first, ""))
	ca := certtest.New(t, t.TempDir(), "ca")
	cert, key := ca.Issue("weir")
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: ca.Client("", "")}}
	if exit, _, stderr := weir("topics", "apply", "--config", config); exit != 0 {
		t.Fatal(stderr)
	}
	var stderr output
	done := make(chan int, 1)
	go func() { done <- Main([]string{"control", "--config", config}, &output{}, &stderr) }()
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s did not come:\n%s", what, stderr.String())
			}
		}
	}
	reload := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	clear := func(addr string) bool { return healthy("http://"+addr, http.DefaultClient) }
	await("the first address", func() bool { return clear(first) })
	reload(text(second, ""))
	await("the second address", func() bool { return clear(second) && !clear(first) })
	reload("kafka:\n  broker: [x]\n")
	await("the error", func() bool { return strings.Contains(stderr.String(), "there is no key \\\"broker\\\" here") })
	reload(text(first, fmt.Sprintf("  tls: {cert_file: %s, key_file: %s}\n", cert, cert)))
	await("the error", func() bool { return strings.Contains(stderr.String(), "http.tls.key_file: "+cert+" does not serve") })
	if !clear(second) {
		t.Error("a bad configuration stopped the component")
	}
	reload(text(first, fmt.Sprintf("  tls: {cert_file: %s, key_file: %s}\n", cert, key)))
	await("the first address with TLS", func() bool { return healthy("https://"+first, secure) && !clear(first) })
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := <-done; exit != 0 {
		t.Errorf("exit %d:\n%s", exit, stderr.String())
	}
}
