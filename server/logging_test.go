package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// hostile are what somebody might call himself, or a channel.
var hostile = []string{
	"ann", "", "two\nlines", "\r\n2026 INFO forged=1", "\x1b[2J\x1b]0;title\x07", "c1 \u009b31m", "del \x7f", "\xff\xfe no UTF-8", "\x00",
	"\u202etxt.exe", "\u2028\u2029", `quote " and \`, `"} {"level":"ERROR"`, strings.Repeat("long ", 1000), strings.Repeat("ä", 150), strings.Repeat("\x80", 2000), strings.Repeat("\U0010ffff\\\"", 500), "a=b c=d", "\ufeff", "😀",
}

// writers are slog's own, with what they write.
func writers(level slog.Level) map[string]func() (*slog.Logger, *bytes.Buffer) {
	o := &slog.HandlerOptions{Level: level}
	return map[string]func() (*slog.Logger, *bytes.Buffer){
		"json": func() (*slog.Logger, *bytes.Buffer) {
			var out bytes.Buffer
			return slog.New(slog.NewJSONHandler(&out, o)), &out
		},
		"text": func() (*slog.Logger, *bytes.Buffer) {
			var out bytes.Buffer
			return slog.New(slog.NewTextHandler(&out, o)), &out
		},
	}
}

// maxLine is the longest that sayHostile's line may become: what an attribute
// holds may double, as a handler escapes each backslash and quotation mark, and
// the cuts' marks and the line's own words take some.
const maxLine = 2*(4*maxAttr+maxError) + 400

// checkLine holds what was written of a hostile text against what a line may be.
func checkLine(t *testing.T, format string, out []byte, said string) {
	t.Helper()
	line, ended := bytes.CutSuffix(out, []byte("\n"))
	if !ended || !utf8.Valid(line) || len(line) > maxLine {
		t.Fatalf("%s: %q: no line, or a long one: %q", format, said, out)
	}
	for _, r := range string(line) {
		if !unicode.IsPrint(r) {
			t.Fatalf("%s: %q: %q holds %U", format, said, line, r)
		}
	}
	if format != "json" {
		return
	}
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		t.Fatalf("%q: %v: %s", said, err, line)
	}
	if fields["msg"] != "refused" || fields["level"] != "INFO" || fields["last"] != "here" {
		t.Fatalf("%q: the line says %s", said, line)
	}
	if readable(said) == said && len(said) <= maxAttr && fields["channel"] != said {
		t.Fatalf("%q became %q", said, fields["channel"])
	}
}

func sayHostile(t *testing.T, said string) {
	t.Helper()
	for format, make := range writers(slog.LevelDebug) {
		to, out := make()
		log, sampler := newLogger(to)
		log.With("bound", said).Info("refused", "channel", said, "error", errors.New(said), slog.Group("in", "side", said), "any", []string{said}, "last", "here")
		sampler.close()
		checkLine(t, format, out.Bytes(), said)
	}
}

// TestLogLines: whatever clients call things, a line stays one line of bounded
// length, and can be read.
func TestLogLines(t *testing.T) {
	for _, said := range hostile {
		sayHostile(t, said)
	}
}

func FuzzLogLine(f *testing.F) {
	for _, said := range hostile {
		f.Add(said)
	}
	f.Fuzz(sayHostile)
}

// TestStacksAreWhole: that a panic's stack is long is what it is for.
func TestStacksAreWhole(t *testing.T) {
	to, out := writers(slog.LevelDebug)["json"]()
	log, sampler := newLogger(to)
	stack := strings.Repeat("main.go:1\n", 1000)
	log.Error("function panicked", "stack", stack)
	sampler.close()
	var fields map[string]string
	if err := json.Unmarshal(out.Bytes(), &fields); err != nil || fields["stack"] != stack {
		t.Errorf("%v: %q", err, out)
	}
}

// TestLevelsAreTheProgramsOwn: lines that nobody wants cost nothing, and aren't
// counted.
func TestLevelsAreTheProgramsOwn(t *testing.T) {
	to, out := writers(slog.LevelError)["text"]()
	log, sampler := newLogger(to)
	for range 100 {
		log.Warn("log failed", "operation", "read")
	}
	sampler.close()
	if out.Len() > 0 {
		t.Errorf("%s", out)
	}
}
