package redact

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The reference is slow and plain: at every byte it tries regular expressions,
// and shares no code with the scanner.
var (
	refNoLeft   = regexp.MustCompile(`([0-9A-Za-z]|(^|[^.])\.)$`)
	refEscape   = regexp.MustCompile(`(\\u[0-9a-fA-F]{4}|\\[bfnrt]|%[0-9a-fA-F]{2})$`)
	refRight    = regexp.MustCompile(`^([0-9A-Za-z]|\.[0-9])`)
	refResident = regexp.MustCompile(`^(1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91)\d{4}((?:19|20)\d{6})\d{3}[\dXx]`)
	refLayouts  = []*regexp.Regexp{
		regexp.MustCompile(`^\d{13,19}`),
		regexp.MustCompile(`^\d{4}( \d{4}){3} \d{3}|^\d{4}(-\d{4}){3}-\d{3}`),
		regexp.MustCompile(`^\d{4}( \d{4}){3} \d{2}|^\d{4}(-\d{4}){3}-\d{2}`),
		regexp.MustCompile(`^\d{4}( \d{4}){3} \d|^\d{4}(-\d{4}){3}-\d`),
		regexp.MustCompile(`^\d{4}( \d{4}){3}|^\d{4}(-\d{4}){3}`),
		regexp.MustCompile(`^\d{4} \d{6} \d{5}|^\d{4}-\d{6}-\d{5}`),
		regexp.MustCompile(`^\d{4} \d{6} \d{4}|^\d{4}-\d{6}-\d{4}`),
		regexp.MustCompile(`^\d{4}( \d{3}){3}|^\d{4}(-\d{3}){3}`),
		regexp.MustCompile(`^\d{6} \d{13}|^\d{6}-\d{13}`),
	}
	refIssuer = regexp.MustCompile(`^(?:4(\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|(222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}` +
		`|3[47]\d{13}|(62|65)\d{14,17}|(6011|64[4-9]\d|220[0-4])\d{12,15}|60\d{14}|81([0-6]\d|7[01])\d{12,15}` +
		`|35(2[89]|[3-8]\d)\d{12,15}|(36|38|30[0-5]\d\d?)\d+)$`)
	refDiners = regexp.MustCompile(`^3(6|8|0[0-5])`)
)

func refIsCard(text string) bool {
	digits := strings.NewReplacer(" ", "", "-", "").Replace(text)
	if !refIssuer.MatchString(digits) {
		return false
	}
	if n := len(digits); refDiners.MatchString(digits) && (n < 14 || n == 15) {
		return false
	}
	sum := 0
	for i := range digits {
		d, _ := strconv.Atoi(digits[len(digits)-1-i : len(digits)-i])
		d *= 1 + i%2
		sum += d/10 + d%10
	}
	return sum%10 == 0
}

func refIsResident(id string) bool {
	born, err := time.Parse("20060102", id[6:14])
	if err != nil || born.After(time.Now().AddDate(0, 0, 1)) {
		return false
	}
	return strings.EqualFold(withResidentCheck(id[:17]), id)
}

// refFind returns the end and the replacement of the secret at i, or 0.
func refFind(body string, i int) (int, string) {
	if body[i] < '0' || body[i] > '9' {
		return 0, ""
	}
	if refNoLeft.MatchString(body[max(0, i-2):i]) && !refEscape.MatchString(body[max(0, i-6):i]) {
		return 0, ""
	}
	if id := refResident.FindString(body[i:]); id != "" && !refRight.MatchString(body[i+len(id):]) && refIsResident(id) {
		return i + len(id), "[redacted:resident_id]"
	}
	for _, layout := range refLayouts {
		pan := layout.FindString(body[i:])
		if pan == "" || refRight.MatchString(body[i+len(pan):]) || !refIsCard(pan) {
			continue
		}
		digits := strings.NewReplacer(" ", "", "-", "").Replace(pan)
		return i + len(pan), "[redacted:card:" + digits[len(digits)-4:] + "]"
	}
	return 0, ""
}

func refRedact(body string) string {
	var out strings.Builder
	for i := 0; i < len(body); {
		if end, text := refFind(body, i); end > 0 {
			out.WriteString(text)
			i = end
			continue
		}
		out.WriteByte(body[i])
		i++
	}
	return out.String()
}

var fuzzSeeds = []string{
	plainLine, jsonLine, cardLine,
	"4111 1111 1111 1111 5500-0000-0000-0004 3782 822463 10005 620550 0000000000004 11010519491231002X",
	`{"m":"{\"password\":\"a\\\"b\\\\\"}","pan":-4111111111111111,"n":1e+12345678,"x":"\u53774111111111111111"}`,
	`{"m":"password=","y":"token='","z":"x password\":","w":"secret=\"a b\" api_key=a\\"}`,
	`["Authorization: Bearer a.b", "http://u:p@h/", "eyJa.eyJb.c", "AKIAIOSFODNN7EXAMPLE"]`,
	"password=a://b,u:p@h token=eyJa.b.4111111111111111 +8613812345678 86-13812345678 008613812345678",
	"http://u:pwd=a/b,c@h %204111111111111111 pan%3D4111111111111111 ..4111111111111111 0.4111111111111111",
	`password = "a` + "\n" + `b" pwd='c\"d' secret=\\ token=a\nb [redacted:card:1111] [redacted:`,
}

func FuzzRedact(f *testing.F) {
	for _, seed := range fuzzSeeds {
		f.Add([]byte(seed))
	}
	numbers := newRedactor(f, Config{Cards: true, ResidentIDs: true})
	everything := newRedactor(f, allKinds())
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 4096 {
			t.Skip("the reference is slow")
		}
		checkNumbers(t, numbers, body)
		checkInvariants(t, numbers, body)
		checkInvariants(t, everything, body)
	})
}

// TestRandomLines puts lines together from the pieces that matter, which finds
// odd neighbours sooner than random bytes do.
func TestRandomLines(t *testing.T) {
	pieces := strings.Split(`4111111111111111|4111|1111 1111|1111|1234|86-|+86|0086|13812345678|11010519491231002X|3782 822463 10005|`+
		`620550|0000000000004| |-|.|..|,|;|:|=|"|\"|\\"|\\\"|'|\|\n|\u0026|\u00|%20|%4|://|u:|@|/|[|]|{|}|x|_|+|\|`+
		`password|token|"password":"|\"secret\":\"|api_key=|pwd = |authorization: Bearer |{"m":"|"}|{"n":|1e|`+
		`eyJ|eyJa.|.b.c|AKIAIOSFODNN7EXAMPLE|[redacted:card:1111]|[redacted:|号`, "|")
	pieces = append(pieces, "\n", "\t")
	numbers := newRedactor(t, Config{Cards: true, ResidentIDs: true})
	everything := newRedactor(t, allKinds())
	random := rand.New(rand.NewPCG(1, 2))
	lines := 20_000
	if testing.Short() {
		lines = 2_000
	}
	for range lines {
		var line []byte
		for range 1 + random.IntN(12) {
			line = append(line, pieces[random.IntN(len(pieces))]...)
		}
		quoted := []byte(`{"m":` + strconv.Quote(string(line)) + `,"n":4111111111111111}`)
		wrapped := []byte(`{"m":"` + string(line) + `","n":[4111111111111111]}`)
		checkNumbers(t, numbers, line)
		for _, body := range [][]byte{line, quoted, wrapped} {
			checkInvariants(t, numbers, body)
			checkInvariants(t, everything, body)
		}
		if t.Failed() {
			return
		}
	}
}

// checkNumbers compares with the reference. That knows nothing of JSON, so one
// byte in front makes the body plain text.
func checkNumbers(t *testing.T, r *Redactor, body []byte) {
	plain := append([]byte("#"), body...)
	got, _ := r.Redact(nil, plain, nil)
	if want := refRedact(string(plain)); string(got) != want {
		t.Errorf("scanner and reference differ on %q:\n got %q\nwant %q", plain, got, want)
	}
}

func checkInvariants(t *testing.T, r *Redactor, body []byte) {
	before := bytes.Clone(body)
	counts := make([]int, len(r.Kinds()))
	once, changed := r.Redact(nil, body, counts)
	total := 0
	for _, n := range counts {
		total += n
	}
	if !bytes.Equal(body, before) || changed != (total > 0) || !changed && !bytes.Equal(once, body) {
		t.Errorf("%q: changed %v, counts %v, out %q", before, changed, counts, once)
	}
	if twice, more := r.Redact(nil, once, nil); more {
		t.Errorf("%q: redacted once %q, twice %q", body, once, twice)
	}
	text := bytes.TrimLeft(body, " \t\r\n")
	if len(text) > 0 && (text[0] == '{' || text[0] == '[') && json.Valid(body) && !json.Valid(once) {
		t.Errorf("%q: no longer JSON: %q", body, once)
	}
}
