package throughline_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// promised are the numbers that docs/promises.md has to have, and how far they
// go.
var promised = map[string]int{"Law ": 7, "D": 10, "R": 11, "S": 14}

var (
	promiseRow = regexp.MustCompile(`(?m)^\| ((?:Law |[DRS])\d+) \| ([^|]+) \| ([^|]+) \|$`)
	notYet     = regexp.MustCompile(`(?m)^- ([DRS]\d+): `)
	quoted     = regexp.MustCompile("`([^`]+)`")
	goTest     = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	jsTest     = regexp.MustCompile("(?m)^\\s*(?:test|it)\\(([\"`'].*)")
)

// TestPromisesAreKept: each number is promised once, or said not to be yet; what
// is promised has tests, and those are there.
func TestPromisesAreKept(t *testing.T) {
	text, err := os.ReadFile("docs/promises.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	tests := testsByName(t)
	for _, row := range promiseRow.FindAllStringSubmatch(string(text), -1) {
		seen[row[1]]++
		named := quoted.FindAllStringSubmatch(row[3], -1)
		if len(named) == 0 {
			t.Errorf("%s has no test", row[1])
		}
		for _, m := range named {
			if !tests(m[1]) {
				t.Errorf("%s names %s, which is not there", row[1], m[1])
			}
		}
	}
	for _, m := range notYet.FindAllStringSubmatch(string(text), -1) {
		seen[m[1]]++
	}
	for kind, last := range promised {
		for n := 1; n <= last; n++ {
			number := fmt.Sprint(kind, n)
			if seen[number] != 1 {
				t.Errorf("%s is there %d times, not once", number, seen[number])
			}
			delete(seen, number)
		}
	}
	if len(seen) > 0 {
		t.Errorf("nobody knows of %v", seen)
	}
	if lines := regexp.MustCompile(`(?m)^\| [^|\s]`).FindAllString(string(text), -1); len(lines) != len(promiseRow.FindAllString(string(text), -1)) {
		t.Errorf("of %d rows some can't be read", len(lines))
	}
}

// testsByName returns whether a test of a name is there: a Go test, a clause of
// the suites, or a title in client-js.
func testsByName(t *testing.T) func(name string) bool {
	known := map[string]bool{}
	var titles []string
	for _, c := range conformance.Clauses() {
		known[c.ID] = true
	}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, ".test.js"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range goTest.FindAllSubmatch(text, -1) {
			known[string(m[1])] = known[string(m[1])] || strings.HasSuffix(path, ".go")
		}
		if strings.HasSuffix(path, ".js") {
			for _, m := range jsTest.FindAllSubmatch(text, -1) {
				titles = append(titles, string(m[1]))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) bool {
		title, js := strings.CutPrefix(name, "client-js: ")
		return known[name] || js && slices.ContainsFunc(titles, func(s string) bool { return strings.Contains(s, title) })
	}
}

// A countingCodec counts what is encoded.
type countingCodec struct{ n *atomic.Int32 }

func (c countingCodec) AppendEvent(dst []byte, _ string, e *eventlog.Event) []byte {
	c.n.Add(1)
	return append(dst, e.Data...)
}

func (c countingCodec) AppendFrame(dst []byte, _ *transport.Frame) []byte { return dst }

// A countingConn has its client get the events in the codec's form.
type countingConn struct {
	codec countingCodec
	got   *atomic.Int32
}

func (c countingConn) Send(items []transport.Item, _ time.Time) (more bool, err error) {
	for _, item := range items {
		if item.Run != nil {
			c.got.Add(int32(len(item.Run.As(c.codec).Ends)))
		}
	}
	return true, nil
}

func (countingConn) Close(transport.Reason) {}

// TestEncodedOnce: an event that many clients get is encoded once for all of
// them. (A topic keeps a few batches: one that was pushed out by others is read
// and encoded again.)
func TestEncodedOnce(t *testing.T) {
	const clients, events = 100, 20
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		defer log.Close()
		store := session.NewMemory(session.MemoryOptions{})
		defer store.Close()
		engine := core.New(core.Options{Log: log, Store: store})
		defer engine.Close()
		var encoded, got atomic.Int32
		for range clients {
			hello := transport.Hello{Channels: []transport.Subscription{{Channel: "news"}}}
			if _, err := engine.Attach(ctx, transport.Peer{Transport: "counting"}, hello, countingConn{countingCodec{&encoded}, &got}); err != nil {
				t.Fatal(err)
			}
		}
		for range events {
			if _, _, err := log.Append(ctx, eventlog.Channel{Name: "news"}, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte("1")}}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got.Load() != clients*events || encoded.Load() > 2*events {
			t.Errorf("%d events were got and %d encoded, not %d and %d", got.Load(), encoded.Load(), clients*events, events)
		}
	})
}
