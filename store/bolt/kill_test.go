package bolt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

// victimFile has the test's program be the one that is killed: it appends to
// that file, and prints what was acknowledged.
const victimFile = "THROUGHLINE_TEST_VICTIM"

func TestMain(m *testing.M) {
	if path := os.Getenv(victimFile); path != "" {
		fmt.Fprintln(os.Stderr, victim(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var victimOptions = bolt.Options{
	Retain: eventlog.RetainBy(map[string]eventlog.Retention{"short": {Events: 10}}),
}

var victimChannels = []eventlog.Channel{{Name: "long"}, {Name: "short"}}

// victim appends until it is killed.
func victim(path string) error {
	l, err := bolt.Open(path, victimOptions)
	if err != nil {
		return err
	}
	failed := make(chan error)
	var out sync.Mutex
	for writer := range 4 {
		go func() {
			id := fmt.Sprint(os.Getpid(), ".", writer)
			for seq := uint64(1); ; seq++ {
				n := int(seq) % len(victimChannels)
				last, _, err := l.Append(context.Background(), victimChannels[n], eventlog.Batch{
					Messages: []eventlog.Message{message("first"), message(id)},
					Producer: eventlog.Producer{ID: id, Seq: seq},
				})
				if err != nil {
					failed <- err
				}
				out.Lock()
				fmt.Println(n, last, id, seq)
				out.Unlock()
			}
		}()
	}
	return <-failed
}

// An acknowledgement is what the victim printed before it was killed.
type acknowledgement struct {
	channel eventlog.Channel
	last    eventlog.Position
	by      eventlog.Producer
}

// TestKilledProgramLosesNothing: of a program that is killed at any moment, as
// kill -9 does, nothing is lost that it was told is appended, no position is
// handed out twice, and readers go on without a gap.
func TestKilledProgramLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.db")
	handedOut := map[string]bool{}
	var reader eventlog.Position // has read all of "long"
	for round := range 20 {
		acks := killed(t, path, time.Duration(20+rand.IntN(100))*time.Millisecond)
		l, err := bolt.Open(path, victimOptions)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range acks {
			key := fmt.Sprint(a.channel, a.last)
			if handedOut[key] {
				t.Errorf("round %d: %s is handed out twice", round, key)
			}
			handedOut[key] = true
		}
		verify(t, l, acks)
		if reader.IsZero() {
			if reader, err = l.Seek(context.Background(), victimChannels[0], eventlog.Start{Earliest: true}); err != nil {
				t.Fatal(err)
			}
		}
		reader = readOn(t, l, reader)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := bolt.Check(path, func(problem string) { t.Error(problem) }); err != nil {
			t.Error(err)
		}
	}
}

// killed runs the victim for a time, kills it, and returns what it printed.
func killed(t *testing.T, path string, after time.Duration) (acks []acknowledgement) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimFile+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kill *time.Timer
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // what it had begun to print is no acknowledgement
		}
		if err != nil {
			t.Fatal(err)
		}
		if kill == nil { // it is at work
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		var n int
		var text string
		var a acknowledgement
		if _, err := fmt.Sscan(line, &n, &text, &a.by.ID, &a.by.Seq); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if a.last, err = eventlog.ParsePosition(text); err != nil {
			t.Fatal(err)
		}
		a.channel = victimChannels[n]
		acks = append(acks, a)
	}
	if err := cmd.Wait(); err == nil || kill == nil {
		t.Fatalf("the program was not killed at work: %v", err)
	}
	return acks
}

// verify checks that all that was acknowledged is there, or trimmed, and that a
// repeat is no second event.
func verify(t *testing.T, l *bolt.Log, acks []acknowledgement) {
	t.Helper()
	ctx := context.Background()
	newest := map[string]acknowledgement{}
	for _, a := range acks {
		page, err := l.Range(ctx, a.channel, eventlog.Range{Until: a.last, Backwards: true}, eventlog.Limit{Events: 1})
		var lost *eventlog.Lost
		if errors.As(err, &lost) && lost.Reason == eventlog.Trimmed && a.channel == victimChannels[1] {
			continue
		}
		if err == nil && len(page.Events) == 0 && page.First == a.last {
			continue // just trimmed
		}
		if err != nil || page.Events[0].At != a.last || string(page.Events[0].Data) != a.by.ID {
			t.Fatalf("%v of %v was acknowledged: %v, error %v", a.last, a.channel, page.Events, err)
		}
		newest[a.channel.Name+a.by.ID] = a
	}
	for _, a := range newest {
		last, duplicate, err := l.Append(ctx, a.channel, eventlog.Batch{Messages: []eventlog.Message{message("again")}, Producer: a.by})
		if errors.Is(err, eventlog.ErrStale) {
			continue // one more was appended, and not acknowledged in time
		}
		if err != nil || !duplicate || last != a.last {
			t.Fatalf("a repeat of what is at %v: %v, duplicate %v, error %v", a.last, last, duplicate, err)
		}
	}
}

// readOn reads to the head from where a reader was when the program was killed.
func readOn(t *testing.T, l *bolt.Log, at eventlog.Position) eventlog.Position {
	t.Helper()
	for {
		page, err := l.Read(context.Background(), victimChannels[0], at, eventlog.Limit{})
		if err != nil {
			t.Fatalf("a reader that was at %v: %v", at, err)
		}
		for _, e := range page.Events {
			if e.Before() != at {
				t.Fatalf("%v comes after %v", e.At, at)
			}
			at = e.At
		}
		if !page.More() {
			return at
		}
	}
}
