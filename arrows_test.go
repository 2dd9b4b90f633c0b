package throughline_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/throughline/throughline/"

// arrows says, for each folder, which others of ours it may import. Imports
// point down only (ARCHITECTURE.md).
var arrows = map[string][]string{
	"eventlog":               {},
	"transport":              {"eventlog"},
	"session":                {"eventlog"},
	"sse":                    {"eventlog", "transport"},
	"ws":                     {"eventlog", "transport"},
	"longpoll":               {"eventlog", "transport"},
	"core":                   {"eventlog", "transport", "session", "breaker"},
	"server":                 {"eventlog", "transport", "session", "core", "sse", "ws", "longpoll", "breaker", "server/internal/limit"},
	"conformance":            {"eventlog", "transport", "session", "conformance/faultproxy", "internal/memnet", "internal/wireclient"},
	"conformance/faultproxy": {},
	"conformance/report":     {"conformance"},
	"store/bolt":             {"eventlog", "session"},
	"store/bolt/eventsdb":    {"eventlog", "store/bolt"},
	"store/redis":            {"eventlog", "session"},
	"model":                  {},
	"server/jwtauth":         {"eventlog", "transport", "session"},
	"server/internal/limit":  {},
	"internal/memnet":        {},
	"internal/redistest":     {},
	"internal/wireclient":    {},
	"internal/testee":        {"conformance", "eventlog", "server", "session", "transport"},
	"internal/conform":       {"eventlog", "transport", "conformance", "internal/wireclient"},
}

// forbidden are the imports that somebody will want one day, each with the
// reason why not.
var forbidden = map[[2]string]string{
	{"core", "net/http"}:                           "the engine speaks to transports, not to HTTP",
	{"core", module + "sse"}:                       "the engine knows no adapter: what it needs of one belongs into transport",
	{"core", module + "ws"}:                        "the engine knows no adapter: what it needs of one belongs into transport",
	{"core", module + "longpoll"}:                  "the engine knows no adapter: what it needs of one belongs into transport",
	{"transport", module + "core"}:                 "the contract does not know who keeps it",
	{"eventlog", module + "transport"}:             "a log knows no clients",
	{"server", module + "store/bolt"}:              "a program imports the store it wants, and links none that it doesn't",
	{"server", module + "store/redis"}:             "a program imports the store it wants, and links none that it doesn't",
	{"core", module + "store/redis"}:               "the engine knows the contract of a log, and no log",
	{"core", module + "store/bolt"}:                "the engine knows the contract of a log, and no log",
	{"conformance", module + "core"}:               "the suite proves transports against an engine of its own, so that a fault of ours can't hide one of theirs",
	{"sse", module + "core"}:                       "an adapter works with whatever engine it is given",
	{"conformance", "github.com/stretchr/testify"}: "who proves a transport inherits no test library",
}

// doors says which folder a third-party package may enter by.
var doors = map[string]string{
	"github.com/coder/websocket":          "ws",
	"github.com/gorilla/mux":              "server",
	"github.com/prometheus/client_golang": "server",
	"github.com/golang-jwt/jwt":           "server/jwtauth",
	"github.com/MicahParks":               "server/jwtauth",
	"golang.org/x/time/rate":              "server/internal/limit",
	"golang.org/x/sys/unix":               "server",
	"github.com/sony/gobreaker":           "breaker",
	"go.etcd.io/bbolt":                    "store/bolt",
	"github.com/redis/go-redis":           "store/redis",
	"github.com/klauspost/compress":       "transport",
}

// TestImportsPointDown holds the imports of everything but tests, examples and
// the other modules against these tables.
func TestImportsPointDown(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		folder := filepath.ToSlash(filepath.Dir(path))
		switch {
		case d.IsDir() && slices.Contains([]string{"node_modules", "bench", "load", "tools", ".git", "examples", "testdata", "e2e"}, d.Name()):
			return filepath.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"), folder == ".":
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			seen++
			imported, _ := strconv.Unquote(spec.Path.Value)
			checkImport(t, path, folder, imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("only %d imports were seen: the walk is broken", seen)
	}
}

func checkImport(t *testing.T, path, folder, imported string) {
	for edge, why := range forbidden {
		if edge[0] == folder && (imported == edge[1] || strings.HasPrefix(imported, edge[1]+"/")) {
			t.Errorf("%s imports %s: %s", path, imported, why)
			return
		}
	}
	if ours, ok := strings.CutPrefix(imported, module); ok {
		allowed, known := arrows[folder]
		if !known {
			t.Errorf("%s: folder %s is not in the table of arrows: say what it may import", path, folder)
		} else if !slices.Contains(allowed, ours) {
			t.Errorf("%s imports %s: %s may import %v of ours", path, ours, folder, allowed)
		}
		return
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return // the standard library
	}
	for door, owner := range doors {
		if imported == door || strings.HasPrefix(imported, door+"/") {
			if folder != owner && !strings.HasPrefix(folder, "internal/") {
				t.Errorf("%s imports %s, whose door is %s", path, imported, owner)
			}
			return
		}
	}
	t.Errorf("%s imports %s, which has no door", path, imported)
}
