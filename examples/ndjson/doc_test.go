package ndjson_test

import (
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// flat returns a text without its indentation and empty lines.
func flat(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// TestTheWalkIsWhole: docs/writing-a-transport.md shows the adapter from its
// imports to its end, and all other code of it stands in a test of this folder.
func TestTheWalkIsWhole(t *testing.T) {
	texts := map[string]string{}
	for _, path := range []string{"ndjson.go", "ndjson_test.go", "server_test.go", "../../docs/writing-a-transport.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	_, rest, _ := strings.Cut(flat(texts["ndjson.go"]), "package ndjson\n")
	tests := flat(texts["ndjson_test.go"]) + flat(texts["server_test.go"])
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(texts["../../docs/writing-a-transport.md"], -1)
	for _, m := range blocks {
		if after, ok := strings.CutPrefix(rest, flat(m[1])); ok {
			rest = after
		} else if !strings.Contains(tests, flat(m[1])) {
			t.Errorf("this comes next neither in ndjson.go nor in a test:\n%s", m[1])
		}
	}
	if rest != "" {
		t.Errorf("this is not shown, or not in its place:\n%s", rest)
	}
}

// TestOnlyPublicPackages: what an author outside has is enough.
func TestOnlyPublicPackages(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "ndjson.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		ours, public := strings.CutPrefix(path, "github.com/throughline/throughline/")
		if first, _, _ := strings.Cut(path, "/"); strings.Contains(path, "internal") || !public && strings.Contains(first, ".") {
			t.Errorf("ndjson.go imports %s", path)
		}
		if public && ours != "transport" && ours != "eventlog" {
			t.Errorf("ndjson.go imports %s: an adapter needs transport and eventlog", path)
		}
	}
}
