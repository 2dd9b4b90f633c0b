package testee

import (
	"context"
	"fmt"
	"sync"

	"github.com/throughline/throughline/eventlog"
)

// A laggingLog is one node's view of a log that several nodes share: of channels
// that it lags behind in it shows nothing newer than when it began to.
type laggingLog struct {
	eventlog.Log

	mu    sync.Mutex
	heads map[eventlog.Channel]eventlog.Position // guarded by mu: where it stopped to see
	wakes map[*func()]eventlog.Channel           // guarded by mu: who watches
}

func newLaggingLog(l eventlog.Log) *laggingLog {
	return &laggingLog{Log: l, heads: map[eventlog.Channel]eventlog.Position{}, wakes: map[*func()]eventlog.Channel{}}
}

// lag is a Testee's.
func (l *laggingLog) lag(channel string) (catchUp func()) {
	ch := eventlog.Channel{Name: channel}
	head, err := l.Log.Seek(context.Background(), ch, eventlog.Start{})
	if err != nil {
		panic(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heads[ch] = head
	return func() { l.catchUp(ch) }
}

func (l *laggingLog) catchUp(ch eventlog.Channel) {
	l.mu.Lock()
	delete(l.heads, ch)
	var wakes []func()
	for wake, of := range l.wakes {
		if of == ch {
			wakes = append(wakes, *wake)
		}
	}
	l.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
}

func (l *laggingLog) head(ch eventlog.Channel) (head eventlog.Position, lags bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head, lags = l.heads[ch]
	return head, lags
}

// Seek implements [eventlog.Log], as do Read and Watch.
func (l *laggingLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	at, err := l.Log.Seek(ctx, ch, s)
	if head, lags := l.head(ch); err == nil && lags && at.Offset > head.Offset {
		return head, nil
	}
	return at, err
}

func (l *laggingLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	head, lags := l.head(ch)
	if lags && after.Offset > head.Offset {
		return eventlog.Page{}, fmt.Errorf("%w: this node has not seen %v yet", eventlog.ErrUnavailable, after)
	}
	page, err := l.Log.Read(ctx, ch, after, limit)
	if err != nil || !lags {
		return page, err
	}
	for i := range page.Events {
		if page.Events[i].At.Offset > head.Offset {
			page.Events = page.Events[:i:i]
			break
		}
	}
	if page.Head = head; page.Next.Offset > head.Offset {
		page.Next = head
	}
	return page, nil
}

// Range implements [eventlog.History].
func (l *laggingLog) Range(ctx context.Context, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
	head, lags := l.head(ch)
	if lags && max(r.After.Offset, r.Until.Offset) > head.Offset {
		return eventlog.RangePage{}, fmt.Errorf("%w: this node has not seen all of %+v yet", eventlog.ErrUnavailable, r)
	}
	if lags && r.Until.IsZero() {
		r.Until = head
	}
	page, err := rangeOf(ctx, l.Log, ch, r, limit)
	if lags {
		page.Head = head
	}
	return page, err
}

func (l *laggingLog) Watch(ch eventlog.Channel, wake func()) (stop func()) {
	l.mu.Lock()
	l.wakes[&wake] = ch
	l.mu.Unlock()
	end := l.Log.Watch(ch, wake)
	return func() {
		end()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.wakes, &wake)
	}
}
