package server_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
)

var earliest = eventlog.Start{Earliest: true}

func onEachWith(t *testing.T, makeLog func() eventlog.Log, o server.Options, body func(*world, carrier)) {
	t.Helper()
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			inBubbleWith(t, makeLog, o, func(w *world) { body(w, c) })
		})
	}
}

// A flakyLog can't be read while it is down.
type flakyLog struct {
	eventlog.Log
	down atomic.Bool
}

func newFlakyLog() *flakyLog { return &flakyLog{} }

func (l *flakyLog) open() eventlog.Log {
	l.Log = eventlog.NewMemory(eventlog.MemoryOptions{})
	return l
}

func (l *flakyLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	if l.down.Load() {
		return eventlog.Page{}, eventlog.ErrUnavailable
	}
	return l.Log.Read(ctx, ch, after, limit)
}

// A corruptLog holds JSON that is none.
type corruptLog struct{ eventlog.Log }

func newCorruptLog() eventlog.Log {
	return corruptLog{eventlog.NewMemory(eventlog.MemoryOptions{})}
}

func (l corruptLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	page, err := l.Log.Read(ctx, ch, after, limit)
	events := append([]eventlog.Event(nil), page.Events...)
	for i := range events {
		if string(events[i].Data) == `"corrupt"` {
			events[i].Data = []byte(`"corr`)
		}
	}
	page.Events = events
	return page, err
}
