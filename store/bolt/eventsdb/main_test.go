package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

var ctx = context.Background()

// forever keeps all but in "short", where three events stay.
var forever = bolt.Options{Retain: eventlog.RetainBy(map[string]eventlog.Retention{
	"*/*":   {Events: -1, Bytes: -1, Age: -1},
	"short": {Events: 3},
})}

// filled returns a file with some of everything, and the events that are there.
func filled(t *testing.T) (path string, channels []eventlog.Channel) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "events.db")
	l, err := bolt.Open(path, forever)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	channels = []eventlog.Channel{{Name: "room"}, {Name: "short"}, {Namespace: "acme", Name: "a/b \u2028<"}}
	for _, ch := range channels {
		for i := range 20 {
			batch := eventlog.Batch{
				Messages: []eventlog.Message{
					{Data: []byte("{ \"a\":\n 1,\"<\":\"\u2028\"}")},
					{Type: "said", Kind: eventlog.Text, Data: []byte("líne\r\n\x00"), Key: "k", Tags: []string{"x", "y"}},
					{Kind: eventlog.Binary, Data: []byte{0, 255, byte(i)}},
				},
				Producer: eventlog.Producer{ID: "p", Seq: uint64(i + 1)},
			}
			if _, _, err := l.Append(ctx, ch, batch); err != nil {
				t.Fatal(err)
			}
		}
	}
	return path, channels
}

// held is what a log holds of channels, with all that a client could know.
func held(t *testing.T, path string, channels []eventlog.Channel) (all []eventlog.RangePage) {
	t.Helper()
	l, err := bolt.Open(path, forever)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, ch := range channels {
		page, err := l.Range(ctx, ch, eventlog.Range{}, eventlog.Limit{Bytes: 1 << 30})
		if err != nil || !page.Done {
			t.Fatalf("%v: %v", ch, err)
		}
		all = append(all, page)
	}
	return all
}

// call runs the command, and fails the test if it ends with another status.
func call(t *testing.T, want int, in string, args ...string) (out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	if got := run(args, strings.NewReader(in), &o, &e); got != want {
		t.Fatalf("eventsdb %q ended with %d, not %d: %s%s", args, got, want, &o, &e)
	}
	return o.String(), e.String()
}

// TestExportAndImport: what is exported and imported is the same to clients:
// events, positions, and places before the first event.
func TestExportAndImport(t *testing.T) {
	path, channels := filled(t)
	before := held(t, path, channels)
	lines, _ := call(t, 0, "", "export", path)
	restored := filepath.Join(t.TempDir(), "restored.db")
	call(t, 0, lines, "import", restored)
	call(t, 0, "", "check", restored)
	if after := held(t, restored, channels); !reflect.DeepEqual(after, before) {
		t.Errorf("it was\n%+v\nand is\n%+v", before, after)
	}
	if again, _ := call(t, 0, "", "export", restored); again != lines {
		t.Error("another export has other lines")
	}
	if _, errs := call(t, 1, lines, "import", restored); !strings.Contains(errs, "new file") {
		t.Errorf("into a file that is there: %s", errs)
	}
}

// TestImportRefuses: an export that is not whole, or not in order, leaves no file.
func TestImportRefuses(t *testing.T) {
	path, _ := filled(t)
	whole, _ := call(t, 0, "", "export", path)
	lines := strings.SplitAfter(whole, "\n")
	for name, bad := range map[string]string{
		"nothing":       "",
		"cut":           whole[:len(whole)/2],
		"no end":        strings.Join(lines[:len(lines)-2], ""),
		"no beginning":  strings.Join(lines[1:], ""),
		"a line less":   strings.Join(append(append([]string{}, lines[:5]...), lines[6:]...), ""),
		"the last less": strings.Join(append(append([]string{}, lines[:len(lines)-3]...), lines[len(lines)-2:]...), ""),
		"twice":         strings.Join(lines[:len(lines)-2], "") + strings.Join(lines[1:], ""),
		"unknown":       lines[0] + `{"other":1}` + "\n",
		"no JSON":       lines[0] + "x",
		"another":       `{"throughline_export":2}`,
		"bad kind":      strings.Replace(whole, `"kind":"text"`, `"kind":"picture"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "events.db")
			if _, errs := call(t, 1, bad, "import", file); !strings.Contains(errs, "line") {
				t.Errorf("it says %q", errs)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); len(left) > 0 {
				t.Errorf("it leaves %q", left)
			}
		})
	}
}

// TestCheckFinds: what is damaged is found.
func TestCheckFinds(t *testing.T) {
	path, _ := filled(t)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Also in pages that are no longer in use: which they are isn't known here.
	content = bytes.ReplaceAll(content, []byte("líne"), []byte("mine!"))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs := call(t, 1, "", "check", path)
	if !strings.Contains(out, "checksum") || !strings.Contains(errs, " problems") {
		t.Errorf("%s%s", out, errs)
	}
	call(t, 1, "", "export", path)
	call(t, 1, "", "check", path+".not.there")
}

// TestCompact: a file whose events are gone is small again, and the rest is the
// same.
func TestCompact(t *testing.T) {
	path, channels := filled(t)
	l, err := bolt.Open(path, forever)
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if _, _, err := l.Append(ctx, eventlog.Channel{Name: "short"}, eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: bytes.Repeat([]byte("x"), 20_000)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	before := held(t, path, channels)
	out, _ := call(t, 0, "", "compact", path)
	var name string
	var had, has int64
	if _, err := fmt.Sscanf(out, "%s had %d bytes and has %d", &name, &had, &has); err != nil || has > had/2 {
		t.Errorf("it says %q: %v", out, err)
	}
	if after := held(t, path, channels); !reflect.DeepEqual(after, before) {
		t.Error("it holds other events than before")
	}
	call(t, 0, "", "check", path)
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"check"}, {"mend", "x"}, {"check", "a", "b"}} {
		if _, errs := call(t, 2, "", args...); !strings.Contains(errs, "usage") {
			t.Errorf("%q: %s", args, errs)
		}
	}
}
