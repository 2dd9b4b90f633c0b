package core

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// A notingConn notes what it is sent, in words.
type notingConn struct {
	mu    sync.Mutex
	sends []string // guarded by mu
}

func (c *notingConn) Send(items []transport.Item, _ time.Time) (bool, error) {
	var words []string
	for _, item := range items {
		switch {
		case item.Run != nil:
			words = append(words, fmt.Sprintf("%d events to %d", len(item.Run.Events), item.Run.Next.Offset))
		case item.Frame.Kind == transport.FrameOpening:
			words = append(words, fmt.Sprint("opening at ", item.Frame.At.Offset))
		case item.Frame.Kind == transport.FrameGap:
			words = append(words, fmt.Sprintf("gap from %d to %d", item.Frame.Lost.From.Offset, item.Frame.Lost.To.Offset))
		case item.Frame.Kind == transport.FrameBeat:
			words = append(words, "beat")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sends = append(c.sends, strings.Join(words, ", "))
	return true, nil
}

func (*notingConn) Close(transport.Reason) {}

func (c *notingConn) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.sends, " | ")
}

// news is the channel of these tests.
var news = eventlog.Channel{Name: "news"}

func appendTo(t *testing.T, log eventlog.Log, types ...string) {
	t.Helper()
	for _, name := range types {
		if _, _, err := log.Append(context.Background(), news, eventlog.Batch{Messages: []eventlog.Message{{Type: name, Data: []byte("1")}}}); err != nil {
			t.Error(err)
		}
	}
}

// attach begins a plain line that reads one type.
func attach(t *testing.T, e *Engine, conn transport.Conn, start eventlog.Start, each bool) {
	t.Helper()
	hello := transport.Hello{EachMove: each, Channels: []transport.Subscription{{
		Channel: news.Name, Start: start, Filter: &eventlog.Filter{Types: []string{"wanted"}},
	}}}
	if _, err := e.Attach(context.Background(), transport.Peer{Transport: "noting"}, hello, conn); err != nil {
		t.Fatal(err)
	}
}

func inEngine(t *testing.T, log func(eventlog.Log) eventlog.Log, retain eventlog.Retention, o Options, body func(*Engine, eventlog.Log)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		memory := eventlog.NewMemory(eventlog.MemoryOptions{Retain: func(eventlog.Channel) eventlog.Retention { return retain }})
		defer memory.Close()
		store := session.NewMemory(session.MemoryOptions{})
		defer store.Close()
		o.Log, o.Store, o.Logger = log(memory), store, slog.New(slog.DiscardHandler)
		e := New(o)
		defer e.Close()
		body(e, memory)
	})
}

func asItIs(l eventlog.Log) eventlog.Log { return l }

// A forgetfulLog trims what comes next right after a first page that moved a
// reader on without an event.
type forgetfulLog struct {
	eventlog.Log
	t    *testing.T
	once sync.Once
}

func (l *forgetfulLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (page eventlog.Page, err error) {
	first := false
	if ch == news {
		l.once.Do(func() { first, limit.Scan = true, 1 })
	}
	page, err = l.Log.Read(ctx, ch, after, limit)
	if first {
		appendTo(l.t, l.Log, "x", "x", "x", "x", "x", "wanted")
	}
	return page, err
}

// TestGapBeginsWhereTheClientIs: it is told of a move before the gap that follows
// it, and not in one Send with it.
func TestGapBeginsWhereTheClientIs(t *testing.T) {
	forgetful := func(l eventlog.Log) eventlog.Log { return &forgetfulLog{Log: l, t: t} }
	inEngine(t, forgetful, eventlog.Retention{Events: 3}, Options{}, func(e *Engine, log eventlog.Log) {
		appendTo(t, log, "x", "x", "x")
		conn := &notingConn{}
		attach(t, e, conn, eventlog.Start{Earliest: true}, false)
		synctest.Wait()
		if got, want := conn.said(), "opening at 0, 0 events to 1 | gap from 1 to 6, 1 events to 9"; got != want {
			t.Errorf("%s\nnot %s", got, want)
		}
	})
}

// TestMovesAreToldNowAndThen: with the opening, with heartbeats, and with what is
// sent anyway when a heartbeat's time has passed; or each at once to whom that
// costs nothing.
func TestMovesAreToldNowAndThen(t *testing.T) {
	for each, want := range map[bool]string{
		false: "opening at 0, 0 events to 3 | beat, 0 events to 5 | 1 events to 7",
		true:  "opening at 0, opening at 3 | opening at 4 | opening at 5 | beat | opening at 6 | 1 events to 7",
	} {
		inEngine(t, asItIs, eventlog.Retention{}, Options{Heartbeat: 10 * time.Second}, func(e *Engine, log eventlog.Log) {
			appendTo(t, log, "x", "x", "x")
			conn := &notingConn{}
			attach(t, e, conn, eventlog.Start{Earliest: true}, each)
			for range 2 {
				time.Sleep(2 * time.Second)
				appendTo(t, log, "x")
			}
			time.Sleep(10 * time.Second)
			appendTo(t, log, "x")
			time.Sleep(time.Second)
			appendTo(t, log, "wanted")
			synctest.Wait()
			if got := conn.said(); got != want {
				t.Errorf("each %v: %s\nnot %s", each, got, want)
			}
		})
	}
}

// TestWhatIsLeftOutIsNoLag: a reader is behind by what is likely to come to it,
// and not by what lies between.
func TestWhatIsLeftOutIsNoLag(t *testing.T) {
	one := &eventlog.Filter{Types: []string{"wanted"}}
	for want, f := range map[breaker.Distance]*filter{
		{Events: 1000, Bytes: 64_000}: everything,
		{Events: 15, Bytes: 1000}:     newFilter(one),
	} {
		s := &subscription{filter: f, topic: &topic{}, cursor: eventlog.Position{Offset: 100}, behind: 64_000, passed: share{read: 1000, passed: 10}}
		s.topic.head.Store(1100)
		if got := s.distance(time.Now()); got != want {
			t.Errorf("with the filter %+v: %+v, not %+v", f.Filter, got, want)
		}
	}
}
