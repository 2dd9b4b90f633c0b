package core

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// An Engine sends to each attached client what comes after its positions. It
// implements [transport.Engine].
type Engine struct {
	// Static after New.
	o      Options
	ctx    context.Context // of reads; ends with Close
	cancel context.CancelFunc

	// live counts the workers of lines and topics. It rises only under mu and
	// while not closed.
	live sync.WaitGroup

	mu     sync.Mutex
	closed bool                        // guarded by mu
	topics map[eventlog.Channel]*topic // guarded by mu
	lines  map[*line]struct{}          // guarded by mu
}

var _ transport.Engine = (*Engine)(nil)

// New returns a running engine. Close ends it; the log stays the caller's.
func New(o Options) *Engine {
	if o.Log == nil {
		panic("core: Options.Log is required")
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Engine{
		o:      o.withDefaults(),
		ctx:    ctx,
		cancel: cancel,
		topics: make(map[eventlog.Channel]*topic),
		lines:  make(map[*line]struct{}),
	}
}

// Attach implements [transport.Engine].
func (e *Engine) Attach(ctx context.Context, peer transport.Peer, hello transport.Hello, conn transport.Conn) (transport.Session, error) {
	l := newLine(e, peer, hello, conn)
	if err := e.register(l); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.o.AttachTimeout)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	if err := l.open(ctx, hello); err != nil {
		l.abandon()
		return nil, err
	}
	return l, nil
}

// Close ends every line with a goodbye, and returns when all that the engine
// started is over. A Send in progress may take until its deadline, the goodbye
// GoodbyeTimeout, and Authorize as long as it doesn't heed its context.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	lines := make([]*line, 0, len(e.lines))
	for l := range e.lines {
		lines = append(lines, l)
	}
	e.mu.Unlock()
	e.cancel()
	for _, l := range lines {
		l.sayGoodbye(e.shutdown().Reason)
	}
	e.live.Wait()
}

func (e *Engine) shutdown() *transport.Refusal {
	return transport.RefuseFor(e.soon(), transport.CodeShutdown, "this server is going away")
}

// soon is RetryDelay to twice that, at random, so that not all come back at
// once.
func (e *Engine) soon() time.Duration {
	return e.o.RetryDelay + rand.N(e.o.RetryDelay)
}

func (e *Engine) register(l *line) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return e.shutdown()
	}
	e.live.Add(1)
	e.lines[l] = struct{}{}
	return nil
}

func (e *Engine) unregister(l *line) {
	e.mu.Lock()
	delete(e.lines, l)
	e.mu.Unlock()
	e.live.Done()
}

// join adds a subscription to its topic, which it makes if it is the first.
func (e *Engine) join(s *subscription, ch eventlog.Channel) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return e.shutdown()
	}
	t := e.topics[ch]
	if t == nil {
		e.live.Add(1)
		t = newTopic(e, ch)
		e.topics[ch] = t
	}
	s.topic = t
	t.add(s)
	return nil
}

// leave undoes join.
func (e *Engine) leave(s *subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.topic.remove(s) {
		delete(e.topics, s.topic.channel)
		s.topic.close()
	}
}

// begin makes a subscription of what a client asked for, and the frame that
// opens it: an opening, or a gap if the position presented is lost. The error
// is a *transport.Refusal.
func (e *Engine) begin(ctx context.Context, l *line, ask transport.Subscription) (*subscription, *transport.Frame, error) {
	ch := eventlog.Channel{Namespace: l.peer.Namespace, Name: ask.Channel}
	if err := e.allow(ctx, l.peer, ask, ch); err != nil {
		return nil, nil, err
	}
	s := &subscription{line: l, name: ask.Channel}
	if err := e.join(s, ch); err != nil {
		return nil, nil, err
	}
	first, err := e.place(ctx, s, ask)
	if err != nil {
		e.leave(s)
		return nil, nil, e.refusal(err)
	}
	return s, first, nil
}

// place puts a subscription's cursor where the client asked it to be.
func (e *Engine) place(ctx context.Context, s *subscription, ask transport.Subscription) (*transport.Frame, error) {
	if ask.After.IsZero() {
		at, err := e.seek(ctx, s, ask.Start)
		s.cursor = at
		return &transport.Frame{Kind: transport.FrameOpening, Channel: s.name, At: at}, err
	}
	b := s.topic.next(ask.After)
	if b.err != nil {
		return nil, b.err
	}
	s.caughtUpAt = s.topic.head.Load()
	e.o.Observer.Resumed(b.lost == nil)
	if b.lost != nil && b.lost.Reason != eventlog.Unencodable {
		s.cursor = b.lost.To
		return s.gap(b.lost), nil
	}
	s.cursor = ask.After
	return &transport.Frame{Kind: transport.FrameOpening, Channel: s.name, At: ask.After}, nil
}

func (e *Engine) seek(ctx context.Context, s *subscription, start eventlog.Start) (eventlog.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, e.o.ReadTimeout)
	defer cancel()
	at, err := e.o.Log.Seek(ctx, s.topic.channel, eventlog.Start{})
	s.caughtUpAt = at.Offset
	if err != nil || start == (eventlog.Start{}) {
		return at, err
	}
	return e.o.Log.Seek(ctx, s.topic.channel, start)
}

// allow reports with a *transport.Refusal whether a client may have what it
// asked for.
func (e *Engine) allow(ctx context.Context, who transport.Peer, ask transport.Subscription, ch eventlog.Channel) error {
	if err := ch.Check(); err != nil {
		return transport.Refuse(transport.CodeBadChannel, "%v", err)
	}
	if ask.Bad != nil {
		return ask.Bad
	}
	if err := e.Authorize(ctx, who, Subscribe, ch); err != nil {
		return err
	}
	if ask.After.IsZero() && ask.Start != (eventlog.Start{}) {
		return e.Authorize(ctx, who, History, ch)
	}
	return nil
}

// Authorize asks Options.Authorize. The error is a *transport.Refusal.
func (e *Engine) Authorize(ctx context.Context, who transport.Peer, what Action, ch eventlog.Channel) (err error) {
	defer func() {
		if r := recover(); r != nil { // a fault of the program's harms the one who met it
			e.o.Logger.Error("Authorize panicked", "action", string(what), "panic", r, "stack", string(debug.Stack()))
			err = e.refusal(errPanicked)
		}
	}()
	err = e.o.Authorize(ctx, who, what, ch)
	refusal, ok := errors.AsType[*transport.Refusal](err)
	switch {
	case err == nil, ok && fitCode(refusal.Code):
		return err
	case ctx.Err() != nil:
		return e.refusal(err)
	}
	return transport.Refuse(transport.CodeForbidden, "not allowed to %s: %.100s", what, ch.Name)
}

var errPanicked = errors.New("core: Authorize panicked")

// fitCode reports whether a program's own code can cross every wire: it has
// few characters, as a WebSocket's close frame holds no more.
func fitCode(code string) bool {
	return len(code) <= 50 && strings.Trim(code, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && code != ""
}

// refusal turns the error of a log into one for the client.
func (e *Engine) refusal(err error) *transport.Refusal {
	var invalid *eventlog.Invalid
	var refusal *transport.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &invalid):
		return transport.Refuse(transport.CodeBadRequest, "%v", invalid)
	}
	return transport.RefuseFor(e.soon(), transport.CodeUnavailable, "something that this server needs does not answer")
}
