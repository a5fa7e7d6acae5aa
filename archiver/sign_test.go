package archiver

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"weir/archiver/archive"
	"weir/ingest"
)

// TestSigned commits twice with a key: both manifests are signed, and the chain is over the signed bytes.
func TestSigned(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Root, cfg.SignKeyFile = "file://"+t.TempDir(), filepath.Join(t.TempDir(), "key.pem")
	if _, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), "sign_key_file") {
		t.Errorf("a key file that is not there: %v", err)
	}
	if err := os.WriteFile(cfg.SignKeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := a.Open(t.Context(), tp)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(2) {
		if err := errors.Join(s.Write(t.Context(), batch(i)), s.Commit(t.Context(), ingest.Checkpoint{NextOffset: i + 1})); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all := manifests(t, a.store)
	if len(all) != 2 {
		t.Fatalf("%d manifests", len(all))
	}
	for _, m := range all {
		data, err := a.store.ReadFile(path.Join(archive.PartitionDir(archive.ManifestDir, tp), archive.ManifestDay(m.Created), m.Span().Manifest()))
		if err == nil {
			err = archive.Verify(data, []ed25519.PublicKey{public})
		}
		if err != nil {
			t.Errorf("manifest of %d: %v", m.First, err)
		}
	}
}
