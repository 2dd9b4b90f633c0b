package conformance_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
)

const serverGuide = "../docs/testing-a-server.md"

func textOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestServerGuideIsCode: the code of docs/testing-a-server.md is that of
// server_example_test.go, which runs.
func TestServerGuideIsCode(t *testing.T) {
	code := textOf(t, "server_example_test.go")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(textOf(t, serverGuide), -1)
	for _, m := range blocks {
		if !strings.Contains(code, m[1]) {
			t.Errorf("%s shows what is not in server_example_test.go:\n%s", serverGuide, m[1])
		}
	}
	if len(blocks) < 2 {
		t.Errorf("%s has %d blocks of code", serverGuide, len(blocks))
	}
}

var (
	guideRow = regexp.MustCompile("(?m)^\\| (`.*?) \\| (.*) \\|$")
	inTicks  = regexp.MustCompile("`([^`]+)`")
	aName    = regexp.MustCompile(`^(?:(\w+\.\w+)\.)?([A-Z]\w+)$`)
)

// fieldsOf are the names of a struct's fields.
func fieldsOf(of any) (names []string) {
	for f := range reflect.TypeOf(of).Fields() {
		names = append(names, f.Name)
	}
	return names
}

// TestServerGuideHasEachField: each field of ServerSetup is in a row of the table, and
// none that there isn't; the options that a row names are there.
func TestServerGuideHasEachField(t *testing.T) {
	options := map[string][]string{"server.Options": fieldsOf(server.Options{}), "eventlog.MemoryOptions": fieldsOf(eventlog.MemoryOptions{})}
	known := slices.Concat(options["server.Options"], options["eventlog.MemoryOptions"], []string{"Welcome"})
	var told []string
	for _, row := range guideRow.FindAllStringSubmatch(textOf(t, serverGuide), -1) {
		if row[1] == "`ServerSetup`" {
			continue
		}
		for _, m := range inTicks.FindAllStringSubmatch(row[1], -1) {
			told = append(told, m[1])
			if strings.Contains(row[2], "of the same name") && !slices.Contains(options["server.Options"], m[1]) {
				t.Errorf("server.Options has no %s", m[1])
			}
		}
		for _, m := range inTicks.FindAllStringSubmatch(row[2], -1) {
			name := aName.FindStringSubmatch(m[1])
			if name == nil || m[1] == "server.Options" || strings.HasPrefix(m[1], "transport.") {
				continue
			}
			of := known
			if name[1] != "" {
				of = options[name[1]]
			}
			if !slices.Contains(of, name[2]) {
				t.Errorf("the row of %s names %s, which is no option", row[1], m[1])
			}
		}
	}
	fields := fieldsOf(conformance.ServerSetup{})
	for _, name := range fields {
		if !slices.Contains(told, name) {
			t.Errorf("ServerSetup.%s has no row", name)
		}
	}
	for _, name := range told {
		if !slices.Contains(fields, name) {
			t.Errorf("there is a row for %s, which ServerSetup doesn't have", name)
		}
	}
}

// TestServerGuideCounts the clauses that need fake time, roughly.
func TestServerGuideCounts(t *testing.T) {
	m := regexp.MustCompile(`about (\d+) clauses need fake time`).FindStringSubmatch(textOf(t, serverGuide))
	if m == nil {
		t.Fatal("it doesn't say how many clauses need fake time")
	}
	said, _ := strconv.Atoi(m[1])
	if n := conformance.ClausesInFakeTime(); n < said-5 || n > said+5 {
		t.Errorf("it says about %d clauses, and there are %d", said, n)
	}
}
