package throughline_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// outside lists what reads bytes from outside, each with the fuzz target that
// holds it to more than not to panic.
var outside = map[string]string{
	"frames of a client on its line":        "transport.FuzzParseUp",
	"bodies of hellos":                      "transport.FuzzReadHello",
	"bodies of /up":                         "transport.FuzzParseUpstream",
	"after=":                                "transport.FuzzParseAfter",
	"queries of plain requests":             "transport.FuzzPlainHello",
	"questions for history":                 "transport.FuzzParseHistory",
	"Accept-Encoding":                       "transport.FuzzAcceptsGzip",
	"wait=":                                 "longpoll.FuzzParseWait",
	"positions":                             "eventlog.FuzzParsePosition",
	"names of channels":                     "eventlog.FuzzChannelCheck",
	"messages":                              "eventlog.FuzzMessageCheck",
	"vectors":                               "sse.FuzzParseVector",
	"Last-Event-ID":                         "sse.FuzzLastEventID",
	"tokens of sessions":                    "session.FuzzToken",
	"JSON Web Tokens":                       "server/jwtauth.FuzzAuthenticate",
	"X-Forwarded-For, Forwarded":            "server/internal/limit.FuzzClientAddress",
	"Origin, Sec-Fetch-Site, Host":          "server.FuzzOrigin",
	"publishes: type, key, number, content": "server.FuzzPublish",
	"frames of RFC 6455":                    "server.FuzzSocket",

	"histories that were kept": "conformance.FuzzJudge",
	"events in files":          "store/bolt.FuzzEntry",
	"events in Redis":          "store/redis.FuzzEntry",

	// What is written from such bytes.
	"events in JSON":   "transport.FuzzEventJSON",
	"blocks of events": "sse.FuzzBlocks",
	"lines of logs":    "server.FuzzLogLine",
	"buckets of rates": "server/internal/limit.FuzzBuckets",
}

var fuzzTarget = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\)`)

// TestFuzzTargetsAreListed: each is in the table, and each of the table is there,
// in a folder where tools/fuzz.sh looks.
func TestFuzzTargetsAreListed(t *testing.T) {
	var found []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"node_modules", "bench", "tools", "e2e", ".git"}, d.Name()):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range fuzzTarget.FindAllSubmatch(text, -1) {
			found = append(found, filepath.ToSlash(filepath.Dir(path))+"."+string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, target := range outside {
		if !slices.Contains(found, target) {
			t.Errorf("%s: there is no target %s", what, target)
		}
		found = slices.DeleteFunc(found, func(f string) bool { return f == target })
	}
	if len(found) > 0 {
		t.Errorf("not in the table: %q", found)
	}
}
