package core

import (
	"context"
	"sync"

	"github.com/throughline/throughline/transport"
)

// startHistory has a question for history of a client's answered, on a goroutine
// of its own. It counts as one of the client's calls until release, so that
// pages which nobody takes don't pile up.
func (e *Engine) startHistory(ctx context.Context, peer transport.Peer, who Client, q *transport.HistoryQuery, answer func(f *transport.Frame, release func())) {
	name := caller(&who)
	reply := func(page *transport.HistoryPage, err error, release func()) {
		a := &transport.Answer{ID: q.ID, History: page}
		if err != nil {
			e.Refused(&who, "history", q.Channel, err)
			a.Refused = e.refusal(err)
		}
		answer(&transport.Frame{Kind: transport.FrameAnswer, Answer: a}, release)
	}
	if !e.calls.take(name, e.o.MaxCalls) {
		reply(nil, transport.RefuseFor(e.soon(), transport.CodeBusy, "%d calls of this client are in work (Options.MaxCalls)", e.o.MaxCalls), func() {})
		return
	}
	release := sync.OnceFunc(func() { e.calls.give(name) })
	began := e.spawn(func() {
		page, err := e.pastFor(ctx, peer, who, q, min(e.o.HistoryBytes, e.o.PageBytes), nil)
		reply(page, err, release)
	})
	if !began {
		reply(nil, e.shutdown(), release)
	}
}

// past has a question for history answered that came over the line.
func (l *line) past(q *transport.HistoryQuery) {
	l.engine.startHistory(l.ctx, l.who(), l.speaker(), q, func(f *transport.Frame, release func()) {
		l.mu.Lock()
		over := l.finished
		if !over {
			l.inbox = append(l.inbox, command{frame: f, taken: release})
		}
		l.mu.Unlock()
		if over {
			release() // nobody takes it
			return
		}
		l.ask()
	})
}
