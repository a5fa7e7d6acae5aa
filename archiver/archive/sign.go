package archive

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// A signature is the last member of a JSON object, on a line of its own. What is signed are the bytes of the object without it, so
// that a reader need not know how JSON was written.
var (
	unsignedEnd = []byte("\n}\n")
	signBegin   = []byte(",\n \"signature\": \"")
	signEnd     = []byte("\"\n}\n")
)

// ErrUnsigned is what Verify says of a document that has no signature.
var ErrUnsigned = errors.New("has no signature")

// Sign adds an Ed25519 signature to an encoded manifest or compaction record. Without a key it stays as it is.
func Sign(doc []byte, key ed25519.PrivateKey) ([]byte, error) {
	if key == nil {
		return doc, nil
	}
	body, ok := bytes.CutSuffix(doc, unsignedEnd)
	if !ok {
		return nil, errors.New("sign: not a JSON object with a member a line")
	}
	sum := base64.StdEncoding.EncodeToString(ed25519.Sign(key, doc))
	return bytes.Join([][]byte{body, signBegin, []byte(sum), signEnd}, nil), nil
}

// Verify checks that one of the keys signed the document.
func Verify(doc []byte, keys []ed25519.PublicKey) error {
	body, ok := bytes.CutSuffix(doc, signEnd)
	at := bytes.LastIndex(body, signBegin)
	if !ok || at < 0 {
		return ErrUnsigned
	}
	sum, err := base64.StdEncoding.DecodeString(string(body[at+len(signBegin):]))
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	signed := bytes.Join([][]byte{body[:at], unsignedEnd}, nil)
	for _, key := range keys {
		if ed25519.Verify(key, signed, sum) {
			return nil
		}
	}
	return errors.New("the signature is not of these bytes by a known key: the document was changed, or another key signed it")
}

// ReadSignKey reads an Ed25519 private key (PEM, PKCS#8, as `openssl genpkey -algorithm ed25519` writes).
func ReadSignKey(file string) (ed25519.PrivateKey, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s: is not PEM", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: not a PKCS#8 key", file) // the parser's error could quote the key
	}
	k, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: the key is not of Ed25519", file)
	}
	return k, nil
}

// ReadVerifyKeys reads the Ed25519 public keys of a file (PEM, as `openssl pkey -pubout` writes). There may be several: of before a
// key was changed, and of after.
func ReadVerifyKeys(file string) ([]ed25519.PublicKey, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var keys []ed25519.PublicKey
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: key %d: %w", file, len(keys)+1, err)
		}
		k, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("%s: key %d is not of Ed25519", file, len(keys)+1)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: holds no public key in PEM", file)
	}
	return keys, nil
}
