package conformance_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/throughline/throughline/conformance"
)

// clientsDuty are the clauses of PROTOCOL.md in which a server has no part, each
// with the test that shows it: a title of one in client-js/test, or the name of
// a Go test.
var clientsDuty = map[string]string{
	"P6.6": "open is not works: only a frame 100 ms after open proves a line (P6.6)",
}

var protocolClause = regexp.MustCompile(`(?m)^- (?:<a id="(p[\d.]+)"></a>)?\*\*(P\d+\.\d+)\*\*`)

// TestProtocolIsProved: each clause of PROTOCOL.md has a server clause, or is the
// client's, and can be linked to.
func TestProtocolIsProved(t *testing.T) {
	text, err := os.ReadFile("../PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	written := make(map[string]bool)
	for _, m := range protocolClause.FindAllStringSubmatch(string(text), -1) {
		if written[m[2]] || m[1] != strings.ToLower(m[2]) {
			t.Errorf("PROTOCOL.md has %s twice, or without an anchor of that name", m[2])
		}
		written[m[2]] = true
	}
	if len(written) < 80 {
		t.Fatalf("only %d clauses were found in PROTOCOL.md", len(written))
	}
	proved := make(map[string]bool)
	for _, c := range conformance.Clauses() {
		if number := c.Protocol(); number != "" {
			proved[number] = true
			if !written[number] {
				t.Errorf("%s proves %s, which PROTOCOL.md does not have", c.ID, number)
			}
		}
	}
	for number := range written {
		if clientsDuty[number] == "" && !proved[number] {
			t.Errorf("no clause proves %s", number)
		}
	}
	for number, test := range clientsDuty {
		if !written[number] || proved[number] || !testExists(t, test) {
			t.Errorf("%s is not in PROTOCOL.md, is proved for servers, too, or there is no test %q", number, test)
		}
	}
}

// testExists looks for a test of the client's by its title, or of Go's by its
// name.
func testExists(t *testing.T, test string) bool {
	var files []string
	for _, glob := range []string{"../client-js/test/*.js", "../*/*_test.go", "../*/*/*_test.go"} {
		found, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	quoted := regexp.QuoteMeta(test)
	declared := regexp.MustCompile("(?m)^func " + quoted + `\(|\btest\(['"` + "`]" + quoted + "['\"`]")
	return slices.ContainsFunc(files, func(path string) bool {
		text, err := os.ReadFile(path)
		return err == nil && declared.Match(text)
	})
}

var (
	clauseID = map[string]*regexp.Regexp{
		"transport": regexp.MustCompile(`^T\d\d_[A-Z]\w+$`),
		"log":       regexp.MustCompile(`^L\d\d_[A-Z]\w+$`),
		"store":     regexp.MustCompile(`^S\d\d_[A-Z]\w+$`),
		"server":    regexp.MustCompile(`^P\d+\.\d+_[A-Z]\w+$`),
	}
	serverGroups = []string{
		"handshake", "malformed input", "versions", "heartbeats", "order", "payloads", "resume", "switch", "lost answers", "slow readers",
		"drain and restart", "upstream", "calls", "presence", "plain use", "rights", "history", "channels", "sessions", "nodes", "proxies",
	}
)

// TestClausesAreSentences: each clause has an id of its own, a group, a level and
// a sentence.
func TestClausesAreSentences(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range conformance.Clauses() {
		if seen[c.ID] || !clauseID[c.Suite].MatchString(c.ID) {
			t.Errorf("%s: the id is another's, too, or not one of the suite %q", c.ID, c.Suite)
		}
		seen[c.ID] = true
		if c.Level != "MUST" && c.Level != "SHOULD" {
			t.Errorf("%s has the level %q", c.ID, c.Level)
		}
		if len(c.Text) < 20 || !strings.HasSuffix(c.Text, ".") {
			t.Errorf("%s: %q is no sentence", c.ID, c.Text)
		}
		if c.Group == "" || c.Suite == "server" && !slices.Contains(serverGroups, c.Group) {
			t.Errorf("%s has the group %q", c.ID, c.Group)
		}
	}
}
