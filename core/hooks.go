package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// Hooks are the program's part in the life of a client. Each may be nil, is
// called without a lock held, by many goroutines, and may block within its
// context; a panic harms the one client that met it, and is logged.
type Hooks struct {
	// OnConnect is called for each line of a session, before it begins: an
	// error refuses it, a *transport.Refusal as it is. It is not called for
	// probes and plain use. What it returned for a line of polls is kept for
	// 30 s.
	OnConnect func(ctx context.Context, who Client) (Welcome, error)
	// OnSubscribe is called for each channel that a client begins to read, once
	// it is allowed; each line begins its channels anew. An error refuses the
	// channel.
	OnSubscribe func(ctx context.Context, who Client, ch eventlog.Channel) error
	// OnPublish is called for what a client publishes, once it is allowed, and
	// may change the messages. An error refuses them. It may be called again
	// for a repeat, and its changes are then for nothing if the first copy was
	// appended.
	OnPublish func(ctx context.Context, p *Publication) error
	// OnCall answers calls. A *transport.Refusal is told as it is, any other
	// error as failed, without its text. nil: there are no calls here.
	OnCall func(ctx context.Context, r Request) (transport.Payload, error)
	// OnDisconnect is called once for a session that lived 2 s or longer, after
	// its goodbye or PresenceGrace after its last line ended, on one of the
	// nodes that share a Store. It is lost with its node.
	OnDisconnect func(ctx context.Context, who Client)
}

// A Client is who speaks, as hooks see it.
type Client struct {
	session.Identity
	// Session is its id: of a page load, for example. Empty in plain use.
	Session string
	// Connection is what logs call its connection, or its request.
	Connection string
	// Addr is where it comes from, for people.
	Addr string
	// Transport is what carries it: "sse", "ws", "poll", …; empty for requests
	// that bring something up.
	Transport string
}

// A Welcome is what a program gives to a client that connects.
type Welcome struct {
	// Channels are the client's without its asking, and without Authorize being
	// asked (PROTOCOL P6.19).
	Channels []string
	// Info is what others see of the client where they may see who is present:
	// JSON of at most [session.MaxInfo] bytes, or nil.
	Info json.RawMessage
}

// A Publication is what a client publishes into one channel, all of it or
// nothing.
type Publication struct {
	Client   Client
	Channel  eventlog.Channel
	Messages []eventlog.Message
	// Producer and Number identify it, if the client numbers what it publishes.
	// The producer's name is a secret of the client's: don't show it.
	Producer string
	Number   uint64
	// Repeat: it may have been tried before.
	Repeat bool
}

// A Request is a call of a client's.
type Request struct {
	Client Client
	Name   string
	transport.Payload
	// Key, if it is not empty, is the same each time that the client repeats
	// the call. A call without one is sent once.
	Key string
}

func clientOf(peer transport.Peer, id string) Client {
	return Client{
		Identity:   session.Identity{Namespace: peer.Namespace, Subject: peer.Subject, Claims: peer.Claims, Expires: peer.Expires},
		Session:    id,
		Connection: peer.Connection,
		Addr:       peer.Addr,
		Transport:  peer.Transport,
	}
}

var errPanicked = errors.New("core: a function of the program panicked")

// guard calls a function of the program's for a client. A panic becomes errPanicked.
func (e *Engine) guard(name string, who Client, call func() error) (err error) {
	began := time.Now()
	defer func() {
		r := recover()
		e.o.Observer.Hooked(name, time.Since(began), r != nil)
		if r != nil {
			e.Tell(slog.LevelError, &who, "function panicked", slog.String("function", name),
				slog.String("panic", fmt.Sprint(r)), slog.String("stack", string(debug.Stack())))
			err = errPanicked
		}
	}()
	err = call()
	if r, ok := errors.AsType[*transport.Refusal](err); ok && r == nil {
		return nil // a nil of that type, which a program returns easily, is no refusal
	}
	return err
}

// answerOf turns the error of a function that says yes or no into a refusal
// for the client: a question that was broken off is no answer, nor is that the log or
// the store, which a function may use, can't be asked.
func (e *Engine) answerOf(ctx context.Context, err error, format string, args ...any) error {
	refusal, ok := errors.AsType[*transport.Refusal](err)
	switch {
	case err == nil, ok && FitCode(refusal.Code):
		return err
	case errors.Is(err, errPanicked), ctx.Err() != nil, errors.Is(err, eventlog.ErrUnavailable), errors.Is(err, session.ErrUnavailable):
		return e.refusal(err)
	}
	return transport.Refuse(transport.CodeForbidden, format, args...).Because(err)
}

// FitCode reports whether a program's own code can cross every wire: it has
// few characters, as a WebSocket's close frame holds no more.
func FitCode(code string) bool {
	return len(code) <= 50 && strings.Trim(code, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && code != ""
}

// Authorize asks Options.Authorize. The error is a *transport.Refusal.
func (e *Engine) Authorize(ctx context.Context, who transport.Peer, what Action, ch eventlog.Channel) error {
	err := e.guard("Authorize", clientOf(who, ""), func() error { return e.o.Authorize(ctx, who, what, ch) })
	return e.answerOf(ctx, err, "not allowed to %s: %.100s", what, ch.Name)
}

// connect asks OnConnect.
func (e *Engine) connect(ctx context.Context, who Client) (w Welcome, err error) {
	if e.o.OnConnect == nil {
		return w, nil
	}
	err = e.guard("OnConnect", who, func() (err error) {
		w, err = e.o.OnConnect(ctx, who)
		return err
	})
	if err != nil {
		return Welcome{}, e.answerOf(ctx, err, "not allowed to connect: Options.OnConnect of this server refuses it")
	}
	if lease := (session.Lease{Info: w.Info, For: time.Second}); len(w.Info) > 0 {
		if err := lease.Check(who.Namespace); err != nil {
			e.Tell(slog.LevelError, &who, "bad info given", slog.Any("error", err))
			w.Info = nil
		}
	} else {
		w.Info = nil
	}
	return w, nil
}

// subscribing asks OnSubscribe.
func (e *Engine) subscribing(ctx context.Context, who Client, ch eventlog.Channel) error {
	if e.o.OnSubscribe == nil {
		return nil
	}
	err := e.guard("OnSubscribe", who, func() error { return e.o.OnSubscribe(ctx, who, ch) })
	return e.answerOf(ctx, err, "not allowed to subscribe to %.100s: Options.OnSubscribe of this server refuses it", ch.Name)
}

// disconnected tells OnDisconnect, on a goroutine of its own.
func (e *Engine) disconnected(who Client) {
	if e.o.OnDisconnect == nil {
		return
	}
	e.spawn(func() {
		ctx, cancel := context.WithTimeout(e.ctx, e.o.DisconnectTimeout)
		defer cancel()
		_ = e.guard("OnDisconnect", who, func() error {
			e.o.OnDisconnect(ctx, who)
			return nil
		})
	})
}
