package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/throughline/throughline/conformance"
)

// An event is a line of go test -json (go doc test2json).
type event struct {
	Time        time.Time
	Action      string
	Package     string
	ImportPath  string // of what is built
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// A hearing is what was heard of all tests.
type hearing struct {
	last     time.Time
	said     []string
	tests    map[testName]*heard // "" is the package itself
	order    []testName
	building map[string]string // what was said of a build
	unbuilt  []string          // what could not be built
}

type testName struct{ pkg, test string }

// heard is what was heard of a test.
type heard struct {
	ended   string // "pass", "fail", "skip", "build-fail"; "" if it did not end
	seconds float64
	output  []string
}

// sayings are what tests say of the whole, and the report repeats.
var sayings = regexp.MustCompile(`^\s*(?:\S+\.go:\d+: )?((?:broken parts caught |model: |schedules: ).*?)\s*$`)

// listen reads the output of go test -json, of one run or several.
func listen(r io.Reader) (*hearing, error) {
	h := &hearing{tests: make(map[testName]*heard), building: make(map[string]string)}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			h.hear(e)
		}
		if err == io.EOF {
			return h, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the tests' output: %w", err)
		}
	}
}

func (h *hearing) hear(e event) {
	if e.Time.After(h.last) {
		h.last = e.Time
	}
	if e.Package == "" {
		h.building[e.ImportPath] += e.Output
		if e.Action == "build-fail" {
			h.unbuilt = append(h.unbuilt, e.ImportPath)
		}
		return
	}
	name := testName{e.Package, e.Test}
	t := h.tests[name]
	if t == nil {
		t = new(heard)
		h.tests[name] = t
		h.order = append(h.order, name)
	}
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
		if m := sayings.FindStringSubmatch(e.Output); m != nil && !slices.Contains(h.said, m[1]) {
			h.said = append(h.said, m[1])
		}
	case "pass", "fail", "skip":
		if t.ended != "fail" { // it may run in several runs
			t.ended = e.Action
		}
		t.seconds += e.Elapsed
		if e.FailedBuild != "" {
			t.output = append(t.output, h.building[e.FailedBuild])
		}
	}
}

// A heardTestee is a testee, and where its clauses were heard.
type heardTestee struct {
	Testee
	parent  testName // of the clauses' tests
	clauses map[string]map[string][]testName
}

// clauseNumber is what go test appends to the name of a test that runs again.
var clauseNumber = regexp.MustCompile(`#\d+$`)

// testees returns, for each suite, those that were held to it.
func (h *hearing) testees() map[string][]*heardTestee {
	suites := make(map[string]string)
	for _, c := range conformance.Clauses() {
		suites[c.ID] = c.Suite
	}
	found := make(map[string][]*heardTestee)
	for _, name := range h.order {
		before, id, form, ok := cutClause(suites, name.test)
		if !ok {
			continue
		}
		suite := suites[id]
		parent := testName{name.pkg, before}
		i := slices.IndexFunc(found[suite], func(t *heardTestee) bool { return t.parent == parent })
		if i < 0 {
			i = len(found[suite])
			found[suite] = append(found[suite], newTestee(parent))
		}
		if suite != "server" {
			form = ""
		}
		found[suite][i].add(id, form, name)
	}
	for _, testees := range found {
		tellApart(testees)
		slices.SortStableFunc(testees, func(a, b *heardTestee) int {
			return cmp.Or(strings.Compare(a.Package, b.Package), strings.Compare(a.Name, b.Name))
		})
	}
	return found
}

// cutClause finds the clause in the name of a test. What stands before it says
// who is tested, and the element after it over which form.
func cutClause(suites map[string]string, test string) (before, id, form string, ok bool) {
	elements := strings.Split(test, "/")
	for i, element := range elements {
		id = clauseNumber.ReplaceAllString(element, "")
		if suites[id] == "" {
			continue
		}
		if i+1 < len(elements) {
			form = strings.ReplaceAll(elements[i+1], "_", " ")
		}
		return strings.Join(elements[:i], "/") + element[len(id):], id, form, true
	}
	return "", "", "", false
}

func newTestee(parent testName) *heardTestee {
	t := &heardTestee{parent: parent, clauses: make(map[string]map[string][]testName)}
	t.Package = parent.pkg
	t.Name = shortName(parent)
	t.Forms = []string{}
	return t
}

func (t *heardTestee) add(id, form string, name testName) {
	if t.clauses[id] == nil {
		t.clauses[id] = make(map[string][]testName)
	}
	t.clauses[id][form] = append(t.clauses[id][form], name)
	if form != "" && !slices.Contains(t.Forms, form) {
		t.Forms = append(t.Forms, form)
	}
}

// shortName makes "sse plain" of sse's TestConformance/plain.
func shortName(parent testName) string {
	var words []string
	if base := path.Base(parent.pkg); base != "conformance" {
		words = append(words, base)
	}
	elements := strings.Split(parent.test, "/")
	first := strings.TrimPrefix(elements[0], "Test")
	for _, word := range camelWords(first) {
		if word != "conformance" && word != "contract" && !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	for _, element := range elements[1:] {
		words = append(words, strings.ReplaceAll(element, "_", " "))
	}
	return strings.Join(words, " ")
}

// camelWords makes "my log" of "MyLog", and "ndjson" of "NDJSON".
func camelWords(name string) (words []string) {
	runes := []rune(name)
	begin := 0
	for i := 1; i <= len(runes); i++ {
		ends := i == len(runes) || unicode.IsUpper(runes[i]) &&
			(unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
		if ends && i > begin {
			words = append(words, strings.ToLower(strings.Trim(string(runes[begin:i]), "_")))
			begin = i
		}
	}
	return words
}

// tellApart gives those that have the same short name longer ones.
func tellApart(testees []*heardTestee) {
	count := make(map[string]int)
	for _, t := range testees {
		count[t.Name]++
	}
	for _, t := range testees {
		if count[t.Name] > 1 {
			t.Name = t.Package + " " + t.parent.test
		}
		slices.SortFunc(t.Forms, func(a, b string) int { // the one that is no form comes last
			switch {
			case a == once && b != once:
				return 1
			case b == once && a != once:
				return -1
			}
			return 0
		})
	}
}

// results returns how a clause went for a testee, over each form.
func (h *hearing) results(t *heardTestee, c conformance.Clause) (results []*Result) {
	forms := t.clauses[c.ID]
	for _, form := range slices.Concat([]string{""}, t.Forms) {
		names := forms[form]
		if len(names) == 0 {
			continue
		}
		r := &Result{Testee: t.Name, Form: form}
		for _, name := range names {
			r.take(h.tests[name])
		}
		// The clause as a whole says something only where its forms don't.
		if form == "" && len(forms) > 1 && (r.Outcome != Fail || h.aFormFailed(forms)) {
			continue
		}
		results = append(results, r)
	}
	return results
}

func (h *hearing) aFormFailed(forms map[string][]testName) bool {
	for form, names := range forms {
		if form != "" && slices.ContainsFunc(names, func(n testName) bool { return h.tests[n].failed() }) {
			return true
		}
	}
	return false
}

func (t *heard) failed() bool { return t.ended == "fail" || t.ended == "" }

// naLine and skipLine are what a test says about why it did not run.
var (
	naLine   = regexp.MustCompile(`(?s)^\s*\S+\.go:\d+: n/a: (.*)`)
	skipLine = regexp.MustCompile(`(?s)^\s*\S+\.go:\d+: (.*)`)
)

// take adds what was heard of one of the result's tests.
func (r *Result) take(t *heard) {
	r.Seconds = max(r.Seconds, t.seconds)
	switch {
	case t.failed():
		r.Outcome = Fail
		r.Text += t.text()
	case r.Outcome == Fail:
	case t.ended == "skip":
		r.Outcome, r.Text = Skipped, t.reason(skipLine)
	case t.reason(naLine) != "":
		r.Outcome, r.Text = NotApplicable, t.reason(naLine)
	case r.Outcome == "":
		r.Outcome = Pass
	}
}

func (t *heard) reason(line *regexp.Regexp) string {
	for _, output := range t.output {
		if m := line.FindStringSubmatch(output); m != nil {
			return strings.TrimSpace(m[1])
		}
	}
	return ""
}

// framing is what go test says around a test's own words.
var framing = regexp.MustCompile(`^\s*(=== (RUN|PAUSE|CONT|NAME|ATTR)|--- (PASS|FAIL|SKIP))`)

// text is what a test said.
func (t *heard) text() string {
	var b strings.Builder
	for _, line := range t.output {
		if !framing.MatchString(line) {
			b.WriteString(line)
		}
	}
	if t.ended == "" {
		b.WriteString("it did not end\n")
	}
	return b.String()
}

// others returns what failed and is no clause: tests of which no part failed, and
// packages of which no test did.
func (h *hearing) others() (others []Other) {
	others = []Other{}
	suites := make(map[string]string)
	for _, c := range conformance.Clauses() {
		suites[c.ID] = c.Suite
	}
	blamed := make(map[testName]bool) // a part of it failed
	for name, t := range h.tests {
		if !t.failed() || name.test == "" {
			continue
		}
		blamed[testName{name.pkg, ""}] = true
		for parent := path.Dir(name.test); parent != "."; parent = path.Dir(parent) {
			blamed[testName{name.pkg, parent}] = true
		}
	}
	for _, name := range h.order {
		t := h.tests[name]
		if _, _, _, isClause := cutClause(suites, name.test); isClause || !t.failed() || blamed[name] {
			continue
		}
		others = append(others, Other{name.pkg, name.test, t.text()})
	}
	for _, built := range h.unbuilt {
		text := h.building[built]
		if !slices.ContainsFunc(others, func(o Other) bool { return strings.Contains(o.Text, text) }) {
			others = append(others, Other{Package: built, Text: text})
		}
	}
	return others
}
