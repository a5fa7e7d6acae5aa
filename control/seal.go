package control

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"weir/schema"
)

// signedAs keeps a signature from being taken for one over anything else.
const signedAs = "weir action 1\n"

// maxPayload bounds what is read of a record of weir.actions.
const maxPayload = 64 << 10

// MaxOrderLife is the longest that an order may be good for: executors refuse one that claims more.
const MaxOrderLife = 10 * time.Minute

// Subject is what a signal speaks of and an action is about: a container, a pod, or a node where there is neither.
type Subject struct {
	Node      string            `json:"node,omitempty"`
	Container string            `json:"container,omitempty"` // the engine's id
	Name      string            `json:"name,omitempty"`
	App       string            `json:"app,omitempty"`
	Image     string            `json:"image,omitempty"`
	Namespace string            `json:"namespace,omitempty"`
	Pod       string            `json:"pod,omitempty"`
	PodUID    string            `json:"pod_uid,omitempty"`
	Labels    map[string]string `json:"-"`
}

// Key names the subject over its recreation, when its id changes.
func (s *Subject) Key() string {
	return s.Node + "/" + s.Namespace + "/" + s.Pod + "/" + s.Name
}

// Decision is one link of the chain: what was decided, why, and what for. One with an order is the order.
type Decision struct {
	Chain   int64    `json:"chain"` // when it began, Unix ns
	Seq     int64    `json:"seq"`
	Prev    string   `json:"prev"`  // hash of the payload before; empty in the first
	Epoch   int64    `json:"epoch"` // of the decider; rises with each that takes over
	At      int64    `json:"at"`    // Unix ns
	Verdict string   `json:"verdict"`
	Reason  string   `json:"reason,omitempty"`
	Policy  string   `json:"policy,omitempty"`
	Mode    string   `json:"mode,omitempty"`
	Action  string   `json:"action,omitempty"`
	Step    int      `json:"step,omitempty"` // from 1
	Subject *Subject `json:"subject,omitempty"`
	Trigger string   `json:"trigger,omitempty"` // what called for it
	Signals []string `json:"signals,omitempty"` // ids of the signals and records behind it
	Repeats int      `json:"repeats,omitempty"` // refusals for the same reason that have no record of their own, since the last
	Order   *Order   `json:"order,omitempty"`
}

// Verdicts of decisions.
const (
	VerdictAct           = "act"
	VerdictWouldAct      = "would_act"
	VerdictNotify        = "notify"
	VerdictRefused       = "refused"
	VerdictEpoch         = "epoch" // a decider took over
	VerdictOpened        = "breaker_opened"
	VerdictClosed        = "breaker_closed"
	VerdictFrozen        = "frozen"
	VerdictUnfrozen      = "unfrozen"
	VerdictCommandFailed = "command_refused"
)

// Order tells an executor to do one thing once.
type Order struct {
	ID       string            `json:"id"` // made of policy, subject, signal and step alone
	Executor string            `json:"executor"`
	Nonce    string            `json:"nonce"`
	Expires  int64             `json:"expires"`           // Unix ns
	Trouble  string            `json:"trouble,omitempty"` // what the executor looks for before it acts
	Since    int64             `json:"since,omitempty"`   // when the trouble was seen, Unix ns
	Settled  int64             `json:"settled,omitempty"` // ns; see Policy
	Stop     int64             `json:"stop,omitempty"`    // ns; see Step
	Args     map[string]string `json:"args,omitempty"`
}

// Kinds of trouble, by what a live container shows of them.
const (
	Down   = "down"      // it crashed, or crashes over and over
	Sick   = "unhealthy" // its health check fails
	Beyond = "other"     // nothing that the engine could show, such as silence
)

// Outcome is what became of an order.
type Outcome struct {
	Seq      int64  `json:"seq"`
	ID       string `json:"id"` // of the order
	Executor string `json:"executor"`
	At       int64  `json:"at"`
	Verdict  string `json:"verdict"`
	Reason   string `json:"reason,omitempty"`
	Action   string `json:"action,omitempty"`
	Before   string `json:"before,omitempty"` // the container's id
	After    string `json:"after,omitempty"`  // where that is another
}

// Verdicts of outcomes.
const (
	OutcomeDone    = "done"
	OutcomePassed  = "passed"  // the trouble was over, so nothing was done
	OutcomeAlready = "already" // the engine itself restarts it, so nothing was done
	OutcomeRefused = "refused"
	OutcomeFailed  = "failed"
	OutcomeUnknown = "unknown" // the executor ended between doing and noting it; it is not done again
)

// Command is what a person tells the decider.
type Command struct {
	ID     string `json:"id"`
	What   string `json:"what"`
	Name   string `json:"name,omitempty"` // of the breaker
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
	At     int64  `json:"at"`
}

// Commands.
const (
	Freeze       = "freeze"
	Unfreeze     = "unfreeze"
	CloseBreaker = "close_breaker"
)

// Sealed is a payload with its hash, and its signature where there was a key.
type Sealed struct {
	Payload   string
	Hash      string
	Signature string
}

// Key signs. A nil Key signs nothing.
type Key struct{ private ed25519.PrivateKey }

// Keys are those whose signatures count.
type Keys []ed25519.PublicKey

// Seal encodes v and signs it.
func (k *Key) Seal(v any) Sealed {
	payload, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types above can all be encoded
	}
	s := Sealed{Payload: string(payload), Hash: Hash(string(payload))}
	if k != nil {
		s.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(k.private, append([]byte(signedAs), payload...)))
	}
	return s
}

// Public is the half that checks; none of a nil Key.
func (k *Key) Public() Keys {
	if k == nil {
		return nil
	}
	return Keys{k.private.Public().(ed25519.PublicKey)}
}

// Hash names a payload in the chain.
func Hash(payload string) string {
	sum := sha256.Sum256([]byte(payload))
	return hex.EncodeToString(sum[:])
}

// Signed tells whether one of the keys signed the payload.
func (keys Keys) Signed(s Sealed) bool {
	sig, err := base64.StdEncoding.DecodeString(s.Signature)
	if err != nil || len(sig) != ed25519.SignatureSize {
		return false
	}
	message := append([]byte(signedAs), s.Payload...)
	for _, k := range keys {
		if ed25519.Verify(k, message, sig) {
			return true
		}
	}
	return false
}

// attrs are the seal's own attributes.
func (s *Sealed) attrs() []schema.Attr {
	a := []schema.Attr{schema.String(schema.AttrActionPayload, s.Payload), schema.String(schema.AttrActionHash, s.Hash)}
	if s.Signature != "" {
		a = append(a, schema.String(schema.AttrActionSignature, s.Signature))
	}
	return a
}

// Unseal reads a record of weir.actions; its memory is its own. The hash is made anew, so a wrong one in the record does not count.
func Unseal(r *schema.Record, into any) (Sealed, error) {
	payload, ok := r.Attr(schema.AttrActionPayload)
	if !ok || payload.Kind != schema.KindString || len(payload.Str) > maxPayload {
		return Sealed{}, fmt.Errorf("%s: no %s of at most %d bytes", r.EventName, schema.AttrActionPayload, maxPayload)
	}
	signature, _ := r.Attr(schema.AttrActionSignature)
	s := Sealed{Payload: strings.Clone(payload.Str), Signature: strings.Clone(signature.Str)}
	s.Hash = Hash(s.Payload)
	d := json.NewDecoder(strings.NewReader(s.Payload))
	if err := d.Decode(into); err != nil {
		return Sealed{}, fmt.Errorf("%s: payload: %w", r.EventName, err)
	}
	return s, nil
}

// ReadKey reads a private key: Ed25519, PKCS#8, PEM.
func ReadKey(path string) (*Key, error) {
	parsed, err := readPEM(path, "PRIVATE KEY", x509.ParsePKCS8PrivateKey)
	if err != nil {
		return nil, err
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: is not an Ed25519 key", path)
	}
	return &Key{private}, nil
}

// ReadKeys reads public keys: Ed25519, PKIX, PEM.
func ReadKeys(paths []string) (Keys, error) {
	var keys Keys
	for _, path := range paths {
		parsed, err := readPEM(path, "PUBLIC KEY", x509.ParsePKIXPublicKey)
		if err != nil {
			return nil, err
		}
		public, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("%s: is not an Ed25519 key", path)
		}
		keys = append(keys, public)
	}
	return keys, nil
}

func readPEM(path, kind string, parse func([]byte) (any, error)) (any, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s: is not one PEM block %q; make keys with `weir control keygen`", path, kind)
	}
	parsed, err := parse(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return parsed, nil
}

// NewKey makes a key.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return &Key{private}, err
}

// Write puts the key into a file that only its owner can read, and its public half beside it as .pub. Neither may be there.
func (k *Key) Write(path string) error {
	private, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		return err
	}
	put := func(path string, mode os.FileMode, kind string, der []byte) error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		return errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Sync(), f.Close())
	}
	if err := put(path, 0o600, "PRIVATE KEY", private); err != nil {
		return err
	}
	return put(PublicPath(path), 0o644, "PUBLIC KEY", public)
}

// PublicPath is where Write puts the public half.
func PublicPath(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) + ".pub" }

// nonce is 128 random bits in hex.
func nonce() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}
