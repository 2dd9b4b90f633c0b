package core

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A promotedLog is one of which a replica was promoted that had all but the event with
// the offset gone: what came after that comes now in its place.
type promotedLog struct {
	eventlog.Log
	gone     uint64
	promoted atomic.Bool
}

func (l *promotedLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	if ch != news || !l.promoted.Load() {
		return l.Log.Read(ctx, ch, after, limit)
	}
	start, err := l.Log.Seek(ctx, ch, eventlog.Start{Earliest: true})
	if err != nil {
		return eventlog.Page{}, err
	}
	whole, err := l.Log.Read(ctx, ch, start, eventlog.Limit{})
	if err != nil {
		return eventlog.Page{}, err
	}
	at, found := start, start == after
	page := eventlog.Page{Next: after}
	for _, e := range whole.Events {
		if e.At.Offset == l.gone {
			continue
		}
		if e.At.Offset > l.gone {
			e.At.Offset, e.Prev = e.At.Offset-1, at.Mark
		}
		if at = e.At; found {
			page.Events, page.Next = append(page.Events, e), at
		}
		found = found || at == after
	}
	if page.Head = at; !found {
		return eventlog.Page{}, &eventlog.Lost{From: after, To: at, Reason: eventlog.Rewritten}
	}
	return page, nil
}

// come attaches a plain line, and waits until it has what there is.
func come(t *testing.T, e *Engine, after eventlog.Position) *notingConn {
	t.Helper()
	conn := &notingConn{}
	if _, err := e.Attach(context.Background(), transport.Peer{Transport: "noting"}, transport.Hello{
		Channels: []transport.Subscription{{Channel: news.Name, After: after}},
	}, conn); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return conn
}

// TestVanishedEventsAreNotRemembered: what a topic remembers of a history that is gone
// is given to nobody who comes, and to nobody who heard of the loss, though it is only
// a moment old.
func TestVanishedEventsAreNotRemembered(t *testing.T) {
	promoted := &promotedLog{gone: 4}
	wrap := func(l eventlog.Log) eventlog.Log { promoted.Log = l; return promoted }
	inEngine(t, wrap, eventlog.Retention{}, Options{}, func(e *Engine, log eventlog.Log) {
		appendTo(t, log, "a", "a", "a")
		third, _ := log.Seek(context.Background(), news, eventlog.Start{})
		live := come(t, e, third)
		appendTo(t, log, "vanishes")
		fourth, _ := log.Seek(context.Background(), news, eventlog.Start{})
		synctest.Wait()

		promoted.promoted.Store(true) // and the time stands still: what was read is remembered
		back, told := come(t, e, third), come(t, e, fourth)
		appendTo(t, log, "new")
		synctest.Wait()
		for who, want := range map[*notingConn]string{
			live: "opening at 3 | 1 events to 4 | gap from 4 to 4",
			back: "opening at 3 | 1 events to 4",
			told: "gap from 4 to 3 | 1 events to 4",
		} {
			if got := who.said(); got != want {
				t.Errorf("%s\nnot %s", got, want)
			}
		}
	})
}

// TestAnotherHistoryIsLookedAtAnew: that events of a history that is gone could be shown says
// nothing of those that took their place.
func TestAnotherHistoryIsLookedAtAnew(t *testing.T) {
	promoted := &promotedLog{gone: 2}
	wrap := func(l eventlog.Log) eventlog.Log { promoted.Log = spoilt{l}; return promoted }
	inEngine(t, wrap, eventlog.Retention{}, Options{}, func(e *Engine, log eventlog.Log) {
		appendTo(t, log, "a")
		first, _ := log.Seek(context.Background(), news, eventlog.Start{})
		live := come(t, e, first)
		appendTo(t, log, "vanishes", "a")
		synctest.Wait()
		promoted.promoted.Store(true)
		appendTo(t, log, "bad", "a")
		synctest.Wait()
		back := come(t, e, first)
		for who, want := range map[*notingConn]string{
			live: "opening at 1 | 2 events to 3 | gap from 3 to 4",
			back: "opening at 1, 1 events to 2 | gap from 2 to 3, 1 events to 4",
		} {
			if got := who.said(); got != want {
				t.Errorf("%s\nnot %s", got, want)
			}
		}
	})
}
