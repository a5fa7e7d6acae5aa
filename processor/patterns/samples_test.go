package patterns

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// formats are the log statements of a program: a line each, with {placeholders} for what varies.
func formats(t testing.TB, file string) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

var placeholder = regexp.MustCompile(`\{[a-z]+[0-9]*\}`)

func pickOf(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// fill makes a line of a format. In formats \n and \t are a newline and a tab.
func fill(r *rand.Rand, format string) string {
	at := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.Int64N(int64(24 * time.Hour))))
	ip := func() string { return fmt.Sprintf("10.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256)) }
	hexes := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "0123456789abcdef"[r.IntN(16)]
		}
		return string(b)
	}
	line := placeholder.ReplaceAllStringFunc(format, func(p string) string {
		switch p[1 : len(p)-1] {
		case "int":
			return fmt.Sprint(r.IntN(1_000_000))
		case "small":
			return fmt.Sprint(r.IntN(10))
		case "float":
			return fmt.Sprintf("%.3f", r.Float64()*100)
		case "port":
			return fmt.Sprint(1024 + r.IntN(60000))
		case "ip", "clfip":
			return ip()
		case "hex8":
			return "1" + hexes(7)
		case "hex16":
			return "9" + hexes(15)
		case "hex32":
			return hexes(32)
		case "hexup":
			return "A0" + strings.ToUpper(hexes(10))
		case "uuid":
			return hexes(8) + "-" + hexes(4) + "-4" + hexes(3) + "-a" + hexes(3) + "-" + hexes(12)
		case "dur":
			return pickOf(r, "12.5ms", "1.2s", "350µs", "1m3s", "45ms", "2h0m1s")
		case "user":
			return pickOf(r, "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj", "olivia", "peggy", "rupert", "sybil", "trent", "victor", "walter", "zoe")
		case "word":
			b := make([]byte, 5+r.IntN(6))
			for i := range b {
				b[i] = byte('a' + r.IntN(26))
			}
			return string(b)
		case "agent":
			return pickOf(r, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36", "curl/8.5.0", "okhttp/4.12.0",
				"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15", "Go-http-client/1.1")
		case "iso":
			return at.Format("2006-01-02T15:04:05.000Z")
		case "spcomma":
			return at.Format("2006-01-02 15:04:05,000")
		case "spdot":
			return at.Format("2006-01-02 15:04:05.000")
		case "spdot6":
			return at.Format("2006-01-02 15:04:05.000000")
		case "nginx":
			return at.Format("2006/01/02 15:04:05")
		case "clf":
			return at.Format("02/Jan/2006:15:04:05 +0800")
		case "redis":
			return at.Format("02 Jan 2006 15:04:05.000")
		case "klog":
			return at.Format("0102 15:04:05.000000")
		}
		return p
	})
	return strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(line)
}

// lines makes as many lines of each format of a program, mixed, and tells which format each is of.
func lines(t testing.TB, file string, each int) (all []string, of []int) {
	r := rand.New(rand.NewPCG(1, uint64(len(file))))
	for i, f := range formats(t, file) {
		for range each {
			all = append(all, fill(r, f))
			of = append(of, i)
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i]; of[i], of[j] = of[j], of[i] })
	return all, of
}

// TestPrograms mines the lines of well-known programs: the lines of a log statement must come to one template, and those of
// two statements to two.
func TestPrograms(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) < 12 {
		t.Fatalf("only %d programs", len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			all, of := lines(t, file, 60)
			m := miner(t, nil)
			for i, body := range all {
				m.write1(body, int64(i)*1e6)
			}
			a := m.apps["app"]
			owners := map[uint64][]int{}
			var texts []string
			for i, body := range all { // once more, when all templates are general
				id := m.write1(body, int64(len(all)+i)*1e6)
				if !slices.Contains(owners[id], of[i]) {
					owners[id] = append(owners[id], of[i])
				}
			}
			for _, x := range a.templates {
				texts = append(texts, fmt.Sprintf("%v %6d %s", owners[x.id], x.lines, x.Text()))
			}
			want := len(formats(t, file))
			fail := len(a.templates) != want
			for _, o := range owners {
				fail = fail || len(o) != 1
			}
			if fail || len(owners) != want {
				t.Errorf("%d templates, want %d:\n%s", len(a.templates), want, strings.Join(texts, "\n"))
			}
			golden(t, "testdata/"+name+".want", a)
		})
	}
}
