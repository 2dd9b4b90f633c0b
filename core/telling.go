package core

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strconv"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// What the engine tells people: lines of its log, and an Observer. docs/logs.md
// has all events. What clients say goes into attributes and nowhere else, and
// payloads, tokens, credentials, keys and producers' names go nowhere.

// NewConnection returns a name for a connection, as logs have it.
func NewConnection() string { return strconv.FormatUint(rand.Uint64(), 36) }

// Tell writes a line about a client.
func (e *Engine) Tell(level slog.Level, who *Client, event string, attrs ...slog.Attr) {
	ctx := context.Background()
	if !e.o.Logger.Enabled(ctx, level) {
		return
	}
	var caller [1]uintptr
	runtime.Callers(2, caller[:])
	line := slog.NewRecord(time.Now(), level, event, caller[0])
	line.AddAttrs(
		slog.String("connection", who.Connection),
		slog.String("session", who.Session),
		slog.String("namespace", who.Namespace),
		slog.String("subject", who.Subject),
		slog.String("transport", who.Transport),
		slog.String("addr", who.Addr),
	)
	line.AddAttrs(attrs...)
	_ = e.o.Logger.Handler().Handle(ctx, line) // as slog does: nobody is left to tell
}

// Refused counts and logs what a client was refused: what it wanted to do, and
// with which channel or call, if it named one.
func (e *Engine) Refused(who *Client, action, name string, err error) {
	r := e.refusal(err)
	e.o.Observer.Refused(who.Namespace, r.Code)
	attrs := append([]slog.Attr{slog.String("action", action)}, r.Attrs()...)
	if name != "" {
		attrs = append(attrs, slog.String("channel", name))
	}
	if r.Cause != nil {
		attrs = append(attrs, slog.Any("error", r.Cause))
	}
	e.Tell(slog.LevelInfo, who, "refused", attrs...)
}

// refused is Refused for a client that has a line.
func (l *line) refused(action, name string, err error) {
	who := l.speaker()
	l.engine.Refused(&who, action, name, err)
}

// askedLog tells of a question to the log: how long it took, and if the log
// could not answer.
func (e *Engine) askedLog(operation string, ch eventlog.Channel, began time.Time, err error) {
	if _, open := errors.AsType[*breaker.NotAsked](err); open {
		return
	}
	e.o.Observer.AskedLog(operation, time.Since(began))
	if e.isFault(err) {
		e.o.Logger.Warn("log failed", "operation", operation, "namespace", ch.Namespace, "channel", ch.Name, "error", err)
	}
}

// storeFailed tells that the Store could not be asked.
func (e *Engine) storeFailed(operation string, err error) {
	if _, open := errors.AsType[*breaker.NotAsked](err); e.isFault(err) && !open {
		e.o.Logger.Warn("store failed", "operation", operation, "error", err)
	}
}

// isFault reports whether an error says that something did not answer, neither
// what it answered nor that nobody waited for it.
func (e *Engine) isFault(err error) bool {
	if err == nil || e.ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return false
	}
	_, lost := errors.AsType[*eventlog.Lost](err)
	_, invalid := errors.AsType[*eventlog.Invalid](err)
	_, unexpected := errors.AsType[*eventlog.Expectation](err)
	return !lost && !invalid && !unexpected && !errors.Is(err, eventlog.ErrStale) && !errors.Is(err, eventlog.ErrBusy)
}

// tellBegan writes the line of a connection that begins.
func (l *line) tellBegan(asks []transport.Subscription) {
	kind, positions := "plain", 0
	switch {
	case l.probe:
		kind = "probe"
	case l.continued:
		kind = "continued"
	case l.inSession():
		kind = "new"
	}
	for _, ask := range asks {
		if !ask.After.IsZero() {
			positions++
		}
	}
	l.engine.Tell(slog.LevelDebug, &l.client, "connection began",
		slog.String("kind", kind),
		slog.Uint64("line", l.number),
		slog.Int("channels", len(asks)),
		slog.Int("positions", positions),
	)
}

// tellEnded writes the line of a connection that is over.
func (l *line) tellEnded(why transport.Reason, heir string) {
	attrs := append(why.Attrs(),
		slog.Duration("lasted", time.Since(l.began)),
		slog.Int("delivered", l.delivered),
		slog.Uint64("lag", l.left()),
	)
	if !l.lastSent.IsZero() {
		attrs = append(attrs, slog.Duration("last_write", time.Since(l.lastSent)))
	}
	if heir != "" {
		attrs = append(attrs, slog.String("superseded_by", heir))
	}
	l.engine.Tell(slog.LevelDebug, &l.client, "connection ended", attrs...)
}

// lag is by how many events the line is behind where it is furthest behind. It
// is called by the worker.
func (l *line) lag() (most uint64) {
	for _, s := range l.subs {
		if head := s.topic.head.Load(); head > s.cursor.Offset {
			most = max(most, head-s.cursor.Offset)
		}
	}
	return most
}

// left is by how many events a line that is over was behind where it was furthest
// behind: those that were not sent. What a write that failed took of them nobody
// knows.
func (l *line) left() (most uint64) {
	for _, s := range l.subs {
		if head, sent := s.topic.head.Load(), s.sentTo.Load(); head > sent {
			most = max(most, head-sent)
		}
	}
	return most
}

// tellGap writes the line of a loss that a client is told of.
func (s *subscription) tellGap(lost *eventlog.Lost) {
	s.line.engine.Tell(slog.LevelDebug, &s.line.client, "gap told",
		slog.String("channel", s.name),
		slog.String("reason", string(lost.Reason)),
		slog.Uint64("from", lost.From.Offset),
		slog.Uint64("to", lost.To.Offset),
	)
}

// tellSessionOver writes the line of a session that has ended.
func (e *Engine) tellSessionOver(who *Client, held session.Held) {
	e.Tell(slog.LevelDebug, who, "session ended", slog.Uint64("line", held.Line))
}

// refusedHello tells of a hello that was refused, and by which channel, if it
// came to that. l may be nil.
func (e *Engine) refusedHello(who Client, l *line, err error) {
	channel := ""
	if l != nil {
		channel = l.refusedBy
	}
	e.Refused(&who, "connect", channel, err)
}

// seekLog asks the log.
func (e *Engine) seekLog(ctx context.Context, ch eventlog.Channel, start eventlog.Start) (eventlog.Position, error) {
	began := time.Now()
	at, err := e.o.Log.Seek(ctx, ch, start)
	e.askedLog("seek", ch, began, err)
	return at, err
}
