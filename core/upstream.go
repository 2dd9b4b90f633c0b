package core

import (
	"context"
	"log/slog"
	"time"

	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// Receive implements [transport.Engine].
func (e *Engine) Receive(ctx context.Context, peer transport.Peer, up transport.Upstream) (*transport.Frame, error) {
	if !e.enter() {
		return nil, e.shutdown()
	}
	defer e.live.Done()
	peer, err := e.identify(ctx, peer, "")
	if err != nil {
		return nil, err
	}
	id := ""
	if token, err := e.verify(ctx, up.Token, peer); err == nil {
		id = token.Session
	}
	who := clientOf(peer, id)
	switch up.Frame.Kind {
	case transport.FramePublish:
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(e.ctx, cancel)()
		return e.publishBatch(ctx, peer, who, up.Frame.Publish), nil
	case transport.FrameCall:
		answer := make(chan *transport.Frame, 1)
		e.startCall(ctx, peer, who, up.Frame.Call, func(f *transport.Frame) { answer <- f })
		return <-answer, nil
	case transport.FrameHistory:
		answer := make(chan *transport.Frame, 1)
		e.startHistory(ctx, peer, who, up.Frame.History, func(f *transport.Frame, release func()) {
			release()
			answer <- f
		})
		return <-answer, nil
	case transport.FrameGoodbye:
		if id != "" {
			e.sessions.goodbye(session.Held{Namespace: peer.Namespace, ID: id, Line: up.Frame.Line}, who)
		}
		return &transport.Frame{Kind: transport.FrameBeat}, nil
	}
	return nil, transport.Refuse(transport.CodeBadRequest, "a request takes one of publish, call, history, close")
}

// verify returns the token, if it says which session speaks. The error is for
// the log.
func (e *Engine) verify(ctx context.Context, text string, peer transport.Peer) (session.Token, error) {
	if text == "" {
		return session.Token{}, session.ErrTokenMalformed
	}
	keys, err := e.keyring.get(ctx)
	if err != nil {
		return session.Token{}, err
	}
	return keys.Verify(text, session.Identity{Namespace: peer.Namespace, Subject: peer.Subject}, time.Now())
}

// sessionOf returns the id of the session that a token stands for, or a new
// one, and the token to use from now on if it is another. known reports whether
// the session was there before.
func (e *Engine) sessionOf(ctx context.Context, text string, peer transport.Peer) (id, token string, known bool) {
	keys, err := e.keyring.get(ctx)
	if err != nil {
		e.storeFailed("secret", err)
		return session.NewID(), "", false
	}
	now := time.Now()
	was, err := keys.Verify(text, session.Identity{Namespace: peer.Namespace, Subject: peer.Subject}, now)
	if err == nil && !keys.Renew(was, now) {
		return was.Session, "", true
	}
	if err != nil {
		if text != "" {
			who := clientOf(peer, "")
			e.Tell(slog.LevelDebug, &who, "token not accepted", slog.Any("error", err))
		}
		was = session.Token{Namespace: peer.Namespace, Subject: peer.Subject, Session: session.NewID()}
	}
	return was.Session, keys.Sign(was, now), err == nil
}

// publish works on a batch that came over the line, which has one at a time.
func (l *line) publish(batch *transport.Publish) {
	if l.publishing.Swap(true) {
		l.sayGoodbye(transport.Refuse(transport.CodeBadRequest, "a batch came before the last one was answered").Reason)
		return
	}
	l.engine.spawn(func() {
		answer := l.engine.publishBatch(l.ctx, l.who(), l.speaker(), batch)
		l.publishing.Store(false) // before the answer, after which the next may come
		l.push(command{frame: answer})
	})
}

// call has a call answered that came over the line.
func (l *line) call(c *transport.Call) {
	l.engine.startCall(l.ctx, l.who(), l.speaker(), c, func(f *transport.Frame) { l.push(command{frame: f}) })
}
