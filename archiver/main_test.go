package archiver

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the process that kill_test.go kills.
func TestMain(m *testing.M) {
	if os.Getenv(victimRoot) != "" {
		os.Exit(victim())
	}
	goleak.VerifyTestMain(m)
}
