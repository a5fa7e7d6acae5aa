package control

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/schema"
)

// chainOf makes a chain of so many decisions.
func chainOf(key *Key, n int) (all []Sealed) {
	s := newState()
	s.Chain, s.Epoch = 1, 1
	d := &decider{key: key, state: s}
	for range n {
		d.append(noon, &Decision{Verdict: VerdictRefused, Policy: "heal", Reason: refusedBackoff, Subject: &Subject{Name: "web"}})
	}
	return s.Outbox
}

func TestVerify(t *testing.T) {
	key := newTestKey(t)
	reseal := func(s Sealed, change func(*Decision)) Sealed {
		d := new(Decision)
		if err := json.Unmarshal([]byte(s.Payload), d); err != nil {
			t.Fatal(err)
		}
		change(d)
		return key.Seal(d)
	}
	for name, c := range map[string]struct {
		change func(all []Sealed) []Sealed
		want   string
	}{
		"whole":               {func(all []Sealed) []Sealed { return all }, ""},
		"the oldest are gone": {func(all []Sealed) []Sealed { return all[2:] }, ""},
		"sent again":          {func(all []Sealed) []Sealed { return append(append(append([]Sealed{}, all[:2]...), all[1]), all[2:]...) }, ""},
		"one is missing":      {func(all []Sealed) []Sealed { return append(all[:2], all[3:]...) }, "decisions 2 to 2 are missing"},
		"changed": {func(all []Sealed) []Sealed {
			all[2].Payload = strings.Replace(all[2].Payload, "web", "wob", 1)
			return all
		}, "decision 2 is not what its hash says"},
		"changed and signed": {func(all []Sealed) []Sealed { all[2] = reseal(all[2], func(d *Decision) { d.Reason = "x" }); return all }, "decision 3 does not follow decision 2"},
		"forked":             {func(all []Sealed) []Sealed { return append(all, reseal(all[4], func(d *Decision) { d.Reason = "x" })) }, "there are two decisions 4"},
		"older epoch":        {func(all []Sealed) []Sealed { all[4] = reseal(all[4], func(d *Decision) { d.Epoch = 0 }); return all }, "decision 4 is of epoch 0"},
		"another chain":      {func(all []Sealed) []Sealed { return append(all, reseal(all[0], func(d *Decision) { d.Chain = 2 })) }, "another chain begins"},
		"not a decision":     {func(all []Sealed) []Sealed { all[4].Payload = "{"; return all }, "cannot be read"},
	} {
		_, problems := Verify(c.change(chainOf(key, 5)))
		if got := strings.Join(problems, "; "); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestSeals(t *testing.T) {
	key, other := newTestKey(t), newTestKey(t)
	s := key.Seal(&Command{ID: "1"})
	if !append(other.Public(), key.Public()...).Signed(s) || other.Public().Signed(s) || Keys(nil).Signed(s) {
		t.Error("a signature counts that should not, or the other way round")
	}
	changed := s
	changed.Payload += " "
	if key.Public().Signed(changed) {
		t.Error("a changed payload is signed still")
	}
	for _, signature := range []string{"", "AAAA", "%", s.Signature + s.Signature} {
		changed = s
		changed.Signature = signature
		if key.Public().Signed(changed) {
			t.Errorf("signature %q counts", signature)
		}
	}
	for name, attrs := range map[string][]schema.Attr{"none": nil, "not text": {schema.Int(schema.AttrActionPayload, 1)}, "not JSON": {schema.String(schema.AttrActionPayload, "x")},
		"too large": {schema.String(schema.AttrActionPayload, `{"id":"`+strings.Repeat("x", maxPayload)+`"}`)}, "wrong type": {schema.String(schema.AttrActionPayload, `{"at":"x"}`)}} {
		if _, err := Unseal(&schema.Record{EventName: schema.EventCommand, Attrs: attrs}, new(Command)); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decider.pem")
	key := newTestKey(t)
	if err := key.Write(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, err := ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ReadKeys([]string{PublicPath(path)})
	if err != nil || !keys.Signed(again.Seal(1)) {
		t.Errorf("what was written is not what is read: %v", err)
	}
	if err := key.Write(path); err == nil {
		t.Error("a key was overwritten")
	}
	if _, err := ReadKey(PublicPath(path)); err == nil || !strings.Contains(err.Error(), "keygen") {
		t.Errorf("a public key as a private one: %v", err)
	}
	if _, err := ReadKeys([]string{path}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a private key as a public one: %v", err)
	}
}
