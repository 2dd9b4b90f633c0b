package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const pkg = "example.com/carrier"

// stream writes what go test -json would, of tests and what they say.
type stream struct{ bytes.Buffer }

func (s *stream) test(name, outcome string, said ...string) {
	e := json.NewEncoder(s)
	for _, line := range said {
		_ = e.Encode(event{Action: "output", Package: pkg, Test: name, Output: line + "\n"})
	}
	_ = e.Encode(event{Action: "run", Package: pkg, Test: name})
	if outcome != "" {
		_ = e.Encode(event{Action: outcome, Package: pkg, Test: name})
	}
}

// whole is a run in which nothing failed.
func whole() *stream {
	s := new(stream)
	s.test("TestConformance/plain/T01_Refusal", "pass", "=== RUN   TestConformance/plain/T01_Refusal")
	s.test("TestConformance/plain/T16_MayWait", "pass", "    transport.go:74: n/a: the transport is not spent after one answer")
	s.test("TestServerConformance/memory/P2.1_InOrderOnce/plain_sse", "pass")
	s.test("TestServerConformance/memory/P2.1_InOrderOnce", "pass")
	s.test("", "pass", "broken parts caught 3 of 3 (transport 3, log 0, store 0, server 0)")
	return s
}

func report(t *testing.T, s *stream) (r Report, terminal, page string, passed bool) {
	t.Helper()
	dir := t.TempDir()
	var out bytes.Buffer
	passed, err := run(&s.Buffer, &out, filepath.Join(dir, "r.json"), filepath.Join(dir, "r.html"), "https://example.com/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(filepath.Join(dir, "r.json"))
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	html, _ := os.ReadFile(filepath.Join(dir, "r.html"))
	return r, out.String(), string(html), passed
}

func contains(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestWholeRunPasses(t *testing.T) {
	r, terminal, page, passed := report(t, whole())
	if !passed || !r.Passed || r.Counts.Passed != 2 || r.Counts.NotApplicable != 1 || r.Counts.FailedMusts != 0 {
		t.Errorf("passed %v, counts %+v", passed, r.Counts)
	}
	contains(t, terminal, "carrier", "1/1", "[1] n/a: the transport is not spent after one answer (T16_MayWait)", "broken parts caught 3 of 3")
	contains(t, page, `href="https://example.com/PROTOCOL.md#p2.1"`, "plain sse", "n/a: the transport is not spent after one answer")
	if strings.Contains(page, "<script") {
		t.Error("the page has a script")
	}
}

// TestWhatFailsIsTold: each way to fail ends with 1 and shows what was said.
func TestWhatFailsIsTold(t *testing.T) {
	for name, breaks := range map[string]func(*stream){
		"a clause": func(s *stream) {
			s.test("TestConformance/plain/T02_Opening", "fail", "    transport.go:69: <nothing> came")
		},
		"a form": func(s *stream) {
			s.test("TestServerConformance/memory/P2.1_InOrderOnce/plain_ws", "fail", "<nothing> came")
		},
		"a clause without end": func(s *stream) { s.test("TestConformance/plain/T02_Opening", "", "panic: <nothing> came") },
		"another test":         func(s *stream) { s.test("TestSuiteCatchesBrokenLogs/drops_an_event", "fail", "<nothing> came") },
		"a package": func(s *stream) {
			s.test("", "fail", "<nothing> came")
		},
		"a build": func(s *stream) {
			e := json.NewEncoder(s)
			_ = e.Encode(event{Action: "build-output", ImportPath: pkg, Output: "<nothing> came\n"})
			_ = e.Encode(event{Action: "build-fail", ImportPath: pkg})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := whole()
			breaks(s)
			r, terminal, page, passed := report(t, s)
			if passed || r.Passed {
				t.Error("it passed")
			}
			contains(t, terminal, "✗", "<nothing> came")
			contains(t, page, "&lt;nothing&gt; came")
		})
	}
}

// TestShouldMayFail, and is shown.
func TestShouldMayFail(t *testing.T) {
	s := whole()
	s.test("TestMyLog/L26_ScanIsBounded", "fail", "looked through all")
	r, terminal, _, passed := report(t, s)
	if !passed || r.Counts.FailedShoulds != 1 {
		t.Errorf("passed %v, counts %+v", passed, r.Counts)
	}
	contains(t, terminal, "L26_ScanIsBounded SHOULD", "looked through all")
}

func TestNothingIsNoPass(t *testing.T) {
	if _, _, _, passed := report(t, new(stream)); passed {
		t.Error("a run without clauses passed")
	}
}
