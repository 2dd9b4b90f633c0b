package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

func message(text string) eventlog.Message {
	return eventlog.Message{Kind: eventlog.Text, Data: []byte(text)}
}

// TestReadersBesideTrims: a reader beside appends that trim what it is about to
// read gets the rest, or hears that it is trimmed, and never that the file is
// damaged.
func TestReadersBesideTrims(t *testing.T) {
	l := open(t, bolt.Options{
		Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 3} },
	})
	defer l.Close()
	ctx, room := context.Background(), eventlog.Channel{Name: "room"}
	written := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for at := (eventlog.Position{}); ; {
				select {
				case <-written:
					return
				default:
					runtime.Gosched()
				}
				page, err := l.Read(ctx, room, at, eventlog.Limit{})
				var lost *eventlog.Lost
				switch {
				case errors.As(err, &lost):
					at = lost.To
				case err != nil:
					t.Error(err)
					return
				default:
					for _, e := range page.Events {
						if e.Before() != at {
							t.Errorf("%v comes after %v", e.At, at)
						}
						at = e.At
					}
				}
				if page, err := l.Range(ctx, room, eventlog.Range{Backwards: true}, eventlog.Limit{}); err != nil || !page.Done || len(page.Events) > 3 {
					t.Errorf("backwards: %d events, error %v", len(page.Events), err)
					return
				}
			}
		})
	}
	for i := range 300 {
		batch := eventlog.Batch{}
		for range 1 + i%5 {
			batch.Messages = append(batch.Messages, message(fmt.Sprint(i)))
		}
		if _, _, err := l.Append(ctx, room, batch); err != nil {
			t.Fatal(err)
		}
	}
	close(written)
	all.Wait()
}

// TestTrimmedIsDeleted: what was trimmed, by any bound, also by one that is set
// when the file is opened again, goes from the file, and its room is used again.
func TestTrimmedIsDeleted(t *testing.T) {
	keep := eventlog.Retention{Events: -1, Bytes: -1, Age: -1}
	o := bolt.Options{Retain: func(eventlog.Channel) eventlog.Retention { return keep }, Interval: time.Millisecond}
	path := t.TempDir() + "/events.db"
	ctx, room := context.Background(), eventlog.Channel{Name: "room"}
	size := int64(0)
	for _, r := range []eventlog.Retention{keep, {Events: 500, Bytes: -1, Age: -1}, {Events: -1, Bytes: 100 * 228, Age: -1}, {Events: -1, Bytes: -1, Age: time.Nanosecond}} {
		keep = r
		l, err := bolt.Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		if size == 0 {
			for range 20 {
				if _, _, err := l.Append(ctx, room, eventlog.Batch{Messages: many(1000)}); err != nil {
					t.Fatal(err)
				}
			}
			size = 20_000
		}
		want := map[eventlog.Retention]int{{Events: -1, Bytes: -1, Age: -1}: 20_000, {Events: 500, Bytes: -1, Age: -1}: 500, {Events: -1, Bytes: 100 * 228, Age: -1}: 100}[r]
		eventually(t, func() bool { return l.Holding(room).Events == want && bolt.EventsInFile(t, l) == want })
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := bolt.Check(path, func(problem string) { t.Error(problem) }); err != nil {
			t.Error(err)
		}
	}
}

// TestCompactsByItself: a file of which much is free gets small again, while it is
// used, and Close ends a compaction that is under way.
func TestCompactsByItself(t *testing.T) {
	path := t.TempDir() + "/events.db"
	ctx, room := context.Background(), eventlog.Channel{Name: "room"}
	keep := eventlog.Retention{}
	o := bolt.Options{Interval: time.Millisecond, MaxFree: 1, Retain: func(eventlog.Channel) eventlog.Retention { return keep }}
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	var last eventlog.Position
	for range 2 {
		l, err := bolt.Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			if last, _, err = l.Append(ctx, room, eventlog.Batch{Messages: many(1000)}); err != nil {
				t.Fatal(err)
			}
		}
		if keep.Events > 0 {
			eventually(t, func() bool { return size() < 3<<20 })
		}
		if at, err := l.Seek(ctx, room, eventlog.Start{}); at != last || err != nil {
			t.Errorf("the head is %v, error %v, not %v", at, err, last)
		}
		ended := make(chan error, 1)
		go func() { ended <- l.Compact(ctx) }()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-ended
		if left, _ := filepath.Glob(path + "?*"); len(left) > 0 {
			t.Errorf("%q is left", left)
		}
		keep.Events = 100
	}
}

// many makes messages of 100 bytes.
func many(n int) []eventlog.Message {
	list := make([]eventlog.Message, n)
	for i := range list {
		list[i] = eventlog.Message{Type: "m", Kind: eventlog.Text, Data: fmt.Appendf(nil, "%099d", i)}
	}
	return list
}

// eventually waits for what comes some time.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it doesn't come")
		}
	}
}
