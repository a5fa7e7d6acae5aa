package archive

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"weir/ingest"
	"weir/schema"
)

var (
	early = schema.Incarnation{Start: 5, Print: 1}
	late  = schema.Incarnation{Start: 9, Print: 2}
)

// TestRanges merges ranges as they may come: in order, late into a gap, over each other.
func TestRanges(t *testing.T) {
	for _, c := range []struct {
		name      string
		add, want []Range
	}{
		{"in order", []Range{{early, 0, 10}, {early, 10, 20}, {early, 20, 30}}, []Range{{early, 0, 30}}},
		{"gap", []Range{{early, 0, 10}, {early, 20, 30}}, []Range{{early, 0, 10}, {early, 20, 30}}},
		{"gap filled", []Range{{early, 0, 10}, {early, 20, 30}, {early, 10, 20}}, []Range{{early, 0, 30}}},
		{"gap filled in part", []Range{{early, 0, 10}, {early, 20, 30}, {early, 12, 15}}, []Range{{early, 0, 10}, {early, 12, 15}, {early, 20, 30}}},
		{"before", []Range{{early, 20, 30}, {early, 0, 10}}, []Range{{early, 0, 10}, {early, 20, 30}}},
		{"over several", []Range{{early, 0, 10}, {early, 20, 30}, {early, 40, 50}, {early, 5, 45}}, []Range{{early, 0, 50}}},
		{"within", []Range{{early, 0, 50}, {early, 10, 20}}, []Range{{early, 0, 50}}},
		{"rotated", []Range{{early, 0, 50}, {late, 0, 20}, {late, 20, 40}}, []Range{{early, 0, 50}, {late, 0, 40}}},
		{"older file late", []Range{{late, 50, 60}, {early, 0, 50}}, []Range{{early, 0, 50}, {late, 50, 60}}},
	} {
		var s Source
		for _, r := range c.add {
			s.Add(2, r)
		}
		if !reflect.DeepEqual(s.Ranges, c.want) || s.Records != int64(2*len(c.add)) {
			t.Errorf("%s: %v, %d records; want %v", c.name, s.Ranges, s.Records, c.want)
		}
	}
}

func sample() *Manifest {
	return &Manifest{
		Version: ManifestVersion, Topic: "weir.logs", Partition: 3, First: 7, Next: 9, Created: time.Unix(1764054000, 0).UTC(), Prev: Digest(nil),
		Seen:    Seen{Path: "_weir/manifests/weir.logs/3/x.seen", Bytes: 1, SHA256: Digest([]byte("1"))},
		Files:   []File{{Tmp: "_weir/tmp/a.parquet", Path: "weir.logs/a.parquet", Rows: 1, Bytes: 2, SHA256: Digest([]byte("2"))}},
		Sources: map[string]Source{"docker/n/\"signature\"": {Records: 1, Ranges: []Range{{early, 0, 10}}}},
	}
}

func TestManifest(t *testing.T) {
	m := sample()
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	tp := ingest.TopicPartition{Topic: "weir.logs", Partition: 3}
	back, err := ParseManifest(data, tp, Span{7, 9})
	if err != nil || !reflect.DeepEqual(m, back) {
		t.Errorf("read back: %+v, %v", back, err)
	}
	for old, fresh := range map[string]string{
		`"version": 2`: `"version": 1`, `"partition": 3`: `"partition": 4`, `"next_offset": 9`: `"next_offset": 8`, `weir.logs/a.parquet`: `../a.parquet`, `5-00000001`: `5`,
	} {
		if _, err := ParseManifest(bytes.Replace(data, []byte(old), []byte(fresh), 1), tp, Span{7, 9}); err == nil {
			t.Errorf("a manifest with %s is taken", fresh)
		}
	}
}

func TestSignature(t *testing.T) {
	public, private, _ := ed25519.GenerateKey(nil)
	other, _, _ := ed25519.GenerateKey(nil)
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	keyFile, publicFile := filepath.Join(dir, "key.pem"), filepath.Join(dir, "public.pem")
	privatePEM := write("key.pem", "PRIVATE KEY", der, err)
	der1, err1 := x509.MarshalPKIXPublicKey(other)
	der2, err2 := x509.MarshalPKIXPublicKey(public)
	publicPEM := append(write("", "PUBLIC KEY", der1, err1), write("", "PUBLIC KEY", der2, err2)...)
	if err := errors.Join(os.WriteFile(keyFile, privatePEM, 0o600), os.WriteFile(publicFile, publicPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	key, err := ReadSignKey(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ReadVerifyKeys(publicFile)
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	for _, file := range []string{publicFile, filepath.Join(dir, "none")} {
		if _, err := ReadSignKey(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s as a private key: %v", file, err)
		}
	}
	if _, err := ReadVerifyKeys(keyFile); err == nil {
		t.Error("a private key is taken for a public one")
	}

	plain, _ := sample().Encode()
	if same, err := Sign(plain, nil); err != nil || !bytes.Equal(same, plain) {
		t.Errorf("without a key: %v", err)
	}
	if err := Verify(plain, keys); !errors.Is(err, ErrUnsigned) {
		t.Errorf("unsigned: %v", err)
	}
	signed, err := Sign(plain, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(signed, keys); err != nil {
		t.Errorf("signed: %v", err)
	}
	if err := Verify(signed, keys[:1]); err == nil {
		t.Error("another key's signature is taken")
	}
	var doc struct{ Signature string }
	if err := json.Unmarshal(signed, &doc); err != nil || len(doc.Signature) != 88 {
		t.Errorf("signature %q, %v", doc.Signature, err)
	}
	for i := range signed {
		changed := bytes.Clone(signed)
		changed[i] ^= 1
		if Verify(changed, keys) == nil {
			t.Fatalf("a change of byte %d of %d is not seen: %q", i, len(signed), signed[max(0, i-9):i+1])
		}
	}
}
