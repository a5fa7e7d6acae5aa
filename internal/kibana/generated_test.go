package kibana

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"weir/indexer"
)

var update = flag.Bool("update", false, "write the files that are made from code: make generate")

// TestGenerated holds the files that are made from code to the code.
func TestGenerated(t *testing.T) {
	t.Run("deployments/kibana/weir.ndjson", func(t *testing.T) {
		generated(t, "../../deployments/kibana/weir.ndjson", func([]byte) ([]byte, error) { return NDJSON(Objects("")), nil })
	})
	t.Run("docs/search.md", func(t *testing.T) { generated(t, "../../docs/search.md", withFields) })
}

func generated(t *testing.T, path string, make func(have []byte) ([]byte, error)) {
	have, err := os.ReadFile(path)
	if err != nil && !(*update && os.IsNotExist(err)) {
		t.Fatal(err)
	}
	want, err := make(have)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(have, want) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the code makes: run `make generate`", path)
	}
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

var typeNames = map[indexer.Type]string{indexer.Keyword: "keyword", indexer.Constant: "constant", indexer.Wildcard: "wildcard", indexer.Text: "text", indexer.Long: "long",
	indexer.Boolean: "boolean", indexer.Time: "time", indexer.Flattened: "flattened"}

// withFields puts the table of fields into the document.
func withFields(have []byte) ([]byte, error) {
	const begin, end = "<!-- fields: made by `make generate` -->\n", "<!-- end of fields -->\n"
	before, rest, ok := strings.Cut(string(have), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return nil, fmt.Errorf("the document lacks the lines %q and %q", begin, end)
	}
	var b strings.Builder
	b.WriteString(before + begin + "| field | type | what it says |\n|---|---|---|\n")
	for i := range indexer.Fields {
		f := &indexer.Fields[i]
		name := typeNames[f.Type]
		if name == "" {
			return nil, fmt.Errorf("%s has a type without a name", f.Name)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, name, strings.ReplaceAll(f.Doc, "|", "\\|"))
	}
	b.WriteString(end + after)
	return []byte(b.String()), nil
}
