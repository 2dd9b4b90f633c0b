package core

import (
	"context"
	"errors"
	"math/rand/v2"
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

	// live counts the workers of lines, topics and rosters, and what enter let
	// in. It rises only under mu and while not closed.
	live sync.WaitGroup

	sessions *sessions
	control  *control
	calls    calls

	mu      sync.Mutex
	closed  bool                         // guarded by mu
	topics  map[eventlog.Channel]*topic  // guarded by mu
	rosters map[eventlog.Channel]*roster // guarded by mu
	lines   map[*line]struct{}           // guarded by mu
}

var _ transport.Engine = (*Engine)(nil)

// New returns a running engine. Close ends it; the log and the store stay the
// caller's.
func New(o Options) *Engine {
	if o.Log == nil || o.Store == nil || o.Keys == nil {
		panic("core: Options.Log, Store and Keys are required")
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{
		o:       o.withDefaults(),
		ctx:     ctx,
		cancel:  cancel,
		topics:  make(map[eventlog.Channel]*topic),
		rosters: make(map[eventlog.Channel]*roster),
		lines:   make(map[*line]struct{}),
	}
	e.live.Add(2) // sessions and control
	e.sessions = newSessions(e)
	e.control = startControl(e)
	return e
}

// Attach implements [transport.Engine].
func (e *Engine) Attach(ctx context.Context, peer transport.Peer, hello transport.Hello, conn transport.Conn) (transport.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, e.o.AttachTimeout)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	id, token := "", ""
	if hello.Version > 0 && !hello.Probe {
		id, token = e.sessionOf(ctx, hello.Token, peer)
	}
	l := newLine(e, peer, hello, conn, id, token)
	if err := e.register(l); err != nil {
		return nil, err
	}
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
	e.control.close()
	e.sessions.close()
	e.live.Wait()
}

// enter reports whether there is still time to begin something. If so, the
// caller calls live.Done when it is over.
func (e *Engine) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.live.Add(1)
	}
	return !e.closed
}

// spawn runs something on a goroutine that Close waits for, and reports whether
// it did.
func (e *Engine) spawn(what func()) bool {
	if !e.enter() {
		return false
	}
	go func() {
		defer e.live.Done()
		what()
	}()
	return true
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

// begin makes a subscription of what a client asked for and may have, and the
// frame that opens it: an opening, or a gap if the position presented is lost.
// The error is a *transport.Refusal.
func (e *Engine) begin(ctx context.Context, l *line, ask transport.Subscription) (*subscription, *transport.Frame, error) {
	ch := eventlog.Channel{Namespace: l.peer.Namespace, Name: ask.Channel}
	s := &subscription{line: l, name: ask.Channel}
	if err := e.join(s, ch); err != nil {
		return nil, nil, err
	}
	first, err := e.place(ctx, s, ask)
	if err == nil {
		first, err = e.withhold(ctx, s, ask, first)
	}
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

// withhold moves a cursor that is before the time from which the client may
// read. Who presented a position is told by a gap, who named a start begins
// later.
func (e *Engine) withhold(ctx context.Context, s *subscription, ask transport.Subscription, first *transport.Frame) (*transport.Frame, error) {
	var since time.Time
	err := e.guard("From", func() (err error) {
		since, err = e.o.From(ctx, s.line.peer, s.topic.channel)
		return err
	})
	if err != nil || since.IsZero() {
		return first, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.o.ReadTimeout)
	defer cancel()
	from, err := e.o.Log.Seek(ctx, s.topic.channel, eventlog.Start{Since: since})
	if err != nil || s.cursor.Offset >= from.Offset {
		return first, err
	}
	s.cursor = from
	if ask.After.IsZero() {
		return &transport.Frame{Kind: transport.FrameOpening, Channel: s.name, At: from}, nil
	}
	return s.gap(&eventlog.Lost{From: ask.After, To: from, Reason: eventlog.Withheld}), nil
}

// allow reports with a *transport.Refusal whether a client may have what it
// asked for.
func (e *Engine) allow(ctx context.Context, l *line, ask transport.Subscription) error {
	ch := eventlog.Channel{Namespace: l.peer.Namespace, Name: ask.Channel}
	if err := ch.Check(); err != nil {
		return transport.Refuse(transport.CodeBadChannel, "%v", err)
	}
	if ask.Bad != nil {
		return ask.Bad
	}
	if !l.granted[ask.Channel] {
		if err := e.Authorize(ctx, l.peer, Subscribe, ch); err != nil {
			return err
		}
	}
	if ask.After.IsZero() && ask.Start != (eventlog.Start{}) {
		if err := e.Authorize(ctx, l.peer, History, ch); err != nil {
			return err
		}
	}
	return e.subscribing(ctx, l.client, ch)
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
