package core

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/breaker"
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

	clients *breaker.Clients
	herald  *herald
	pages   *pages
	// evictions counts them, for people who look.
	evictions atomic.Uint64

	keyring  *keyring
	sessions *sessions
	control  *control
	calls    calls
	answers  answers

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
	if o.Log == nil || o.Store == nil {
		panic("core: Options.Log and Store are required")
	}
	o = o.withDefaults()
	if o.History == nil {
		o.History, _ = o.Log.(eventlog.History)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{
		o:       o,
		ctx:     ctx,
		cancel:  cancel,
		topics:  make(map[eventlog.Channel]*topic),
		rosters: make(map[eventlog.Channel]*roster),
		lines:   make(map[*line]struct{}),
		pages:   newPages(o.LaggardBytes),
		clients: breaker.NewClients(breaker.Options{
			Delay: o.EvictionDelay, MaxDelay: o.MaxEvictionDelay, Forget: o.EvictionMemory,
			BrokenLines: o.BrokenLines, BrokenWithin: o.BrokenWithin, MaxRecords: o.MaxEvicted,
		}),
	}
	e.keyring = &keyring{engine: e, keys: o.Keys}
	e.live.Add(3) // sessions, control and the herald
	e.sessions = newSessions(e)
	e.herald = newHerald(e)
	e.control = startControl(e)
	return e
}

// Attach implements [transport.Engine].
func (e *Engine) Attach(ctx context.Context, peer transport.Peer, hello transport.Hello, conn transport.Conn) (transport.Session, error) {
	if peer.Connection == "" {
		peer.Connection = NewConnection()
	}
	who := clientOf(peer, "")
	l, err := e.attach(ctx, &who, peer, hello, conn)
	if err != nil {
		e.refusedHello(who, l, err)
		return nil, err
	}
	return l, nil
}

// attach is Attach. It notes who the client is as soon as that is known. A line
// beside an error is over.
func (e *Engine) attach(ctx context.Context, who *Client, peer transport.Peer, hello transport.Hello, conn transport.Conn) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, e.o.AttachTimeout)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	peer, err := e.identify(ctx, peer, hello.Credentials)
	if err != nil {
		return nil, err
	}
	*who = clientOf(peer, "")
	if err := e.o.Admit(peer, effortOf(&hello), 1); err != nil {
		return nil, err
	}
	id, token, continued := "", "", false
	if hello.Version > 0 && !hello.Probe {
		id, token, continued = e.sessionOf(ctx, hello.Token, peer)
	}
	who.Session = id
	delivery, err := e.letIn(&peer, &hello, id)
	if err != nil {
		return nil, err
	}
	l := newLine(e, peer, hello, conn, id, token)
	l.continued, l.delivery = continued, delivery
	if err := e.register(l); err != nil {
		l.leave()
		return l, err
	}
	if err := l.open(ctx, hello); err != nil {
		l.abandon()
		return l, err
	}
	return l, nil
}

// effortOf is what a hello costs.
func effortOf(hello *transport.Hello) Effort {
	goesOn := func(s transport.Subscription) bool { return !s.After.IsZero() }
	if slices.ContainsFunc(hello.Channels, goesOn) {
		return EffortResume
	}
	return EffortHello
}

// Shutdown is Close for those who can't wait for ever: when ctx ends, whoever
// still holds a line is cut off. The error then is that of ctx, and what is
// deaf to its own context may go on.
func (e *Engine) Shutdown(ctx context.Context) error {
	over := make(chan struct{})
	go func() { // until Close returns
		defer close(over)
		e.Close()
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
	}
	for _, l := range e.matching(func(*line) bool { return true }) {
		l.stop(e.shutdown().Reason)
		l.conn.Close(e.shutdown().Reason)
	}
	last := time.NewTimer(e.o.GoodbyeTimeout)
	defer last.Stop()
	select {
	case <-over:
	case <-last.C:
	}
	return ctx.Err()
}

// Close ends every line with a goodbye, and returns when all that the engine
// started is over. A Send in progress may take until its deadline, the goodbye
// GoodbyeTimeout, and Authorize as long as it doesn't heed its context. Clients
// are told to come back after RetryDelay, spread over DrainTime.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	lines := make([]*line, 0, len(e.lines))
	for l := range e.lines {
		lines = append(lines, l)
	}
	for _, r := range e.rosters {
		e.retire(r, 0)
	}
	e.mu.Unlock()
	e.cancel()
	for i, l := range lines { // each has a turn of its own, and a moment in it by chance
		turn := e.o.DrainTime / time.Duration(len(lines))
		l.sayGoodbye(e.shutdownFor(e.o.RetryDelay + time.Duration(i)*turn + rand.N(turn+1)).Reason)
	}
	e.control.close()
	e.herald.end()
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
	return e.shutdownFor(e.soon())
}

func (e *Engine) shutdownFor(after time.Duration) *transport.Refusal {
	return transport.RefuseFor(after, transport.CodeShutdown, "this server is going away")
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
	s := &subscription{line: l, name: ask.Channel, filter: newFilter(ask.Filter)}
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
	s.from = s.cursor.Offset
	if !ask.After.IsZero() {
		s.from = min(s.from, ask.After.Offset)
	}
	s.sentTo.Store(s.from)
	s.takenTo.Store(s.cursor.Offset)
	return s, first, nil
}

// place puts a subscription's cursor where the client asked it to be.
func (e *Engine) place(ctx context.Context, s *subscription, ask transport.Subscription) (*transport.Frame, error) {
	if ask.After.IsZero() {
		at, err := e.seek(ctx, s, ask.Start)
		s.cursor = at
		return &transport.Frame{Kind: transport.FrameOpening, Channel: s.name, At: at}, err
	}
	b := s.topic.fresh(ask.After, e.firstPage(), s.filter)
	if b.err != nil {
		return nil, b.err
	}
	s.caughtUpAt = s.topic.head.Load()
	e.o.Observer.Resumed(s.line.source, b.lost == nil)
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
	at, err := e.seekLog(ctx, s.topic.channel, eventlog.Start{})
	s.caughtUpAt = at.Offset
	if err != nil || start == (eventlog.Start{}) {
		return at, err
	}
	return e.seekLog(ctx, s.topic.channel, start)
}

// withhold moves a cursor that is before the time from which the client may
// read. Who presented a position is told by a gap, who named a start begins
// later.
func (e *Engine) withhold(ctx context.Context, s *subscription, ask transport.Subscription, first *transport.Frame) (*transport.Frame, error) {
	since, err := e.grantOf(ctx, s.line.who(), s.line.speaker(), s.topic.channel)
	if err != nil {
		return nil, err
	}
	if since.IsZero() {
		return first, nil
	}
	ctx, cancel := context.WithTimeout(ctx, e.o.ReadTimeout)
	defer cancel()
	from, err := e.seekLog(ctx, s.topic.channel, eventlog.Start{Since: since})
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
		if err := e.Authorize(ctx, l.who(), Subscribe, ch); err != nil {
			return err
		}
	}
	if ask.After.IsZero() && ask.Start != (eventlog.Start{}) {
		if err := e.Authorize(ctx, l.who(), History, ch); err != nil {
			return err
		}
	}
	return e.subscribing(ctx, l.speaker(), ch)
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
	return transport.RefuseFor(e.soon(), transport.CodeUnavailable, "something that this server needs does not answer").Because(err)
}
