package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/throughline/throughline/eventlog"
)

var (
	ctx   = context.Background()
	room  = eventlog.Channel{Name: "room"}
	quiet = slog.New(slog.DiscardHandler)
)

func text(s string) eventlog.Batch {
	return eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: []byte(s)}}}
}

// written returns a file with n events in a channel.
func written(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.db")
	l, err := Open(path, Options{Interval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, _, err := l.Append(ctx, room, text(fmt.Sprintf("%0100d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLockedFile: who opens a file that another has is told so, in time.
func TestLockedFile(t *testing.T) {
	path := written(t, 1)
	l, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := Open(path, Options{LockTimeout: 200 * time.Millisecond}); !errors.Is(err, ErrLocked) || !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := Check(path, func(string) {}); !errors.Is(err, ErrLocked) {
		t.Errorf("Check: %v", err)
	}
	// A new program waits for the old one to end.
	time.AfterFunc(100*time.Millisecond, func() { _ = l.Close() })
	if l, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// TestWaitingProgramGetsTheNewFile: one that waits for the lock while the file is
// compacted opens the file that took its place.
func TestWaitingProgramGetsTheNewFile(t *testing.T) {
	path := written(t, 20_000) // so that the new one is much smaller
	l, err := Open(path, Options{MaxFree: -1, Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 1} }})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); EventsInFile(t, l) > 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what was trimmed is not deleted")
		}
	}
	opened := make(chan *Log)
	go func() {
		next, err := Open(path, Options{})
		if err != nil {
			t.Error(err)
		}
		opened <- next
	}()
	time.Sleep(100 * time.Millisecond)
	if err := l.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	last, _, err := l.Append(ctx, room, text("in the new file"))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // it has the lock of the old file now
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l = <-opened; l != nil {
		if at, err := l.Seek(ctx, room, eventlog.Start{}); at != last || err != nil {
			t.Errorf("it has %v, error %v, not %v", at, err, last)
		}
		_ = l.Close()
	}
}

// TestReadOnlyFile: a file that can't be written is refused in words.
func TestReadOnlyFile(t *testing.T) {
	for _, err := range []error{os.ErrPermission, &os.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, &os.PathError{Op: "open", Path: "x", Err: syscall.EACCES}} {
		if got := openError("x", err); !errors.Is(got, ErrReadOnly) || !errors.Is(got, eventlog.ErrUnavailable) {
			t.Errorf("%v is shown as %v", err, got)
		}
	}
	if os.Getuid() == 0 {
		t.Skip("root writes where it may not")
	}
	path := written(t, 1)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("error %v", err)
	}
}

// TestNoFile: what is no log is said, and not overwritten.
func TestNoFile(t *testing.T) {
	folder := t.TempDir()
	if _, err := Open(folder, Options{}); !errors.Is(err, eventlog.ErrUnavailable) || !strings.Contains(err.Error(), "folder") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Open(filepath.Join(folder, "no", "events.db"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that isn't there: %v", err)
	}
	words := filepath.Join(folder, "words")
	content := bytes.Repeat([]byte("not a log\n"), 5000)
	if err := os.WriteFile(words, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(words, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("words: %v", err)
	}
	if now, _ := os.ReadFile(words); !bytes.Equal(now, content) {
		t.Error("the words were changed")
	}
	other := filepath.Join(folder, "other")
	db, err := bbolt.Open(other, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("other")); return err })
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other, Options{}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("another program's: %v", err)
	}
}

// TestCutShort: a file that lost its end, at whatever length, is an error, and
// never an event of another.
func TestCutShort(t *testing.T) {
	path := written(t, 3000)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(content, "\x00"))
	for _, length := range []int{0, 1, 100, 4096, 4097, 8192, 12288, used / 2, used - 4096} {
		cut := filepath.Join(t.TempDir(), "events.db")
		if err := os.WriteFile(cut, content[:length], 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(cut, Options{}); err == nil {
			t.Errorf("%d bytes of %d are opened", length, used)
			_ = l.Close()
		} else if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), cut) || length >= 4096 && !strings.Contains(err.Error(), "cut short: it has") {
			t.Errorf("%d bytes of %d: %v", length, used, err)
		}
		if now, _ := os.ReadFile(cut); !bytes.Equal(now, content[:length]) {
			t.Errorf("%d bytes of %d: the file was changed", length, used)
		}
	}
	// Cut short while it is open: the pages are gone under those who read.
	l, err := Open(path, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	start, _ := l.Seek(ctx, room, eventlog.Start{Earliest: true})
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	if page, err := l.Read(ctx, room, start, eventlog.Limit{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("reading what is gone: %d events, error %v", len(page.Events), err)
	}
	_ = l.Close() // whatever it says, it ends
}

// TestOtherHistory: an event that is whole, but of another history, as a disk
// leaves it that forgets a write, is not read as the next.
func TestOtherHistory(t *testing.T) {
	path := written(t, 10)
	f, err := openFile(path, time.Second, 0)
	if err != nil {
		t.Fatal(err)
	}
	key := eventKey(1, 5)
	other := entry{Event: eventlog.Event{Message: text("other").Messages[0], At: eventlog.Position{Offset: 5, Mark: 77}, Prev: 66, Time: time.Now()}}
	if err := errors.Join(f.update([]change{{eventsBucket, key, encodeEntry(key, &other)}}), f.close()); err != nil {
		t.Fatal(err)
	}
	l, err := Open(path, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start, _ := l.Seek(ctx, room, eventlog.Start{Earliest: true})
	if page, err := l.Read(ctx, room, start, eventlog.Limit{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%d events, error %v", len(page.Events), err)
	}
	if page, err := l.Range(ctx, room, eventlog.Range{Backwards: true}, eventlog.Limit{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("backwards: %d events, error %v", len(page.Events), err)
	}
	if page, err := l.Range(ctx, room, eventlog.Range{}, eventlog.Limit{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("forwards: %d events, error %v", len(page.Events), err)
	}
}

// TestFull: where there is no room, appends fail in words, with an interval once
// what was acknowledged could not be written; what there is can be read; and
// nothing that was acknowledged is lost when there is room again.
func TestFull(t *testing.T) {
	for _, interval := range []time.Duration{0, 10 * time.Millisecond} {
		path := filepath.Join(t.TempDir(), "events.db")
		o := Options{Interval: interval, MaxFileSize: 1 << 20, Logger: quiet}
		l, err := Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		start, _ := l.Seek(ctx, room, eventlog.Start{})
		acknowledged := 0
		for {
			if _, _, err = l.Append(ctx, room, text(strings.Repeat("x", 10_000))); err != nil {
				break
			}
			if acknowledged++; interval > 0 {
				time.Sleep(interval / 10)
			}
		}
		if !errors.Is(err, ErrFull) || !errors.Is(err, eventlog.ErrUnavailable) || !strings.Contains(err.Error(), path) {
			t.Errorf("interval %v: error %v", interval, err)
		}
		if n := len(all(t, l, start)); n != acknowledged {
			t.Errorf("interval %v: %d events are there, and %d were acknowledged", interval, n, acknowledged)
		}
		// Let it have more room.
		if err := l.file.view(func(tx *bbolt.Tx) error { tx.DB().MaxSize = 0; return nil }); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if _, _, err = l.Append(ctx, room, text("after")); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("interval %v: there is room, and: %v", interval, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Errorf("interval %v: Close: %v", interval, err)
		}
		o.MaxFileSize = 0
		if l, err = Open(path, o); err != nil {
			t.Fatal(err)
		}
		if n := len(all(t, l, start)); n != acknowledged+1 {
			t.Errorf("interval %v: %d events are there, and %d were acknowledged", interval, n, acknowledged+1)
		}
		_ = l.Close()
	}
}

// all reads a channel from a position to its head.
func all(t *testing.T, l *Log, after eventlog.Position) (events []eventlog.Event) {
	t.Helper()
	for {
		page, err := l.Read(ctx, room, after, eventlog.Limit{})
		if err != nil {
			t.Fatal(err)
		}
		events, after = append(events, page.Events...), page.Next
		if !page.More() {
			return events
		}
	}
}

// TestDiskFails: after a write that failed in another way than for want of room,
// nothing is appended until the file is opened again.
func TestDiskFails(t *testing.T) {
	path := written(t, 1)
	l, err := Open(path, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	failing := failWrites(l.file.db)
	for range 2 {
		if _, _, err := l.Append(ctx, room, text("lost")); !errors.Is(err, ErrFailed) || !errors.Is(err, eventlog.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		*failing = false // too late
	}
	if n := l.Holding(room).Events; n != 1 {
		t.Errorf("%d events are shown", n)
	}
	_ = l.Close()
	if l, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	if last, _, err := l.Append(ctx, room, text("again")); last.Offset != 2 || err != nil {
		t.Errorf("%v, error %v", last, err)
	}
	_ = l.Close()
}

// TestContextEndsInTheQueue: a batch whose context ends while it waits is not
// appended; while it is being written the caller doesn't wait for that.
func TestContextEndsInTheQueue(t *testing.T) {
	writing, goOn := make(chan struct{}), make(chan struct{})
	o := Options{}
	stall := true
	o.hooks.reached = func(point string) {
		if point == "commit" && stall {
			stall = false
			close(writing)
			<-goOn
		}
	}
	l, err := Open(filepath.Join(t.TempDir(), "events.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start, _ := l.Seek(ctx, room, eventlog.Start{})
	woken := make(chan struct{}, 10)
	defer l.Watch(room, func() { woken <- struct{}{} })()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	results := make(chan error, 2)
	go func() { _, _, err := l.Append(short, room, text("written")); results <- err }()
	<-writing
	go func() { _, _, err := l.Append(short, room, text("waits")); results <- err }()
	for range 2 {
		if err := <-results; !errors.Is(err, eventlog.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	}
	close(goOn)
	<-woken // though nobody waits for the append any more
	if _, _, err := l.Append(ctx, room, text("last")); err != nil {
		t.Fatal(err)
	}
	if events := all(t, l, start); len(events) != 2 || string(events[0].Data) != "written" || string(events[1].Data) != "last" {
		t.Errorf("%d events", len(events))
	}
}
